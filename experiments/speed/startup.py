"""How long it takes until dvsn answers, and until a training, an evaluation and a prediction have their first batch.

    python experiments/speed/startup.py > experiments/speed/startup.md

Every command runs in a fresh process, in turn, several rounds. Processor time (user and system) is what the goals are held
against here: on a shared machine the wall clock also counts the others. It is that of the process until its first batch
reaches the network, or until its end with children included. Bytecode is kept in a folder of the script's own, filled by a
first round that is not counted; "none" is a process that finds no bytecode and writes none, as with
PYTHONDONTWRITEBYTECODE=1 where the installer compiled nothing. Takes about six minutes of processor time on a slow core.
"""

from __future__ import annotations

import datetime
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 3
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Case:
    shown: str
    arguments: list[str]
    goal: float | None = None
    status: int = 0
    bytecode: bool = True
    threads: str | None = "1"
    first_batch: bool = False
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    last_line: str = ""


CASES = [
    Case("`python -c pass`", ["-c", "pass"]),
    Case("`import dvsn`", ["-c", "import dvsn"], 0.3),
    Case("`python -m dvsn --help`", ["-m", "dvsn", "--help"], 0.5),
    Case("`python -m dvsn.train --help`", ["-m", "dvsn.train", "--help"], 0.5),
    Case("`python -m dvsn.evaluate --help`", ["-m", "dvsn.evaluate", "--help"], 0.5),
    Case("`python -m dvsn.predict --help`", ["-m", "dvsn.predict", "--help"], 0.5),
    Case("`python -m dvsn.convert --help`", ["-m", "dvsn.convert", "--help"], 0.5),
    Case("mistyped option: `trainer.max_epoch=3`", ["-m", "dvsn.train", "trainer.max_epoch=3"], 3, 1),
    Case("mistyped group: `netwrok=unet_256`", ["-m", "dvsn.train", "netwrok=unet_256"], 3, 1),
    Case("mistyped choice: `network=unet_265`", ["-m", "dvsn.train", "network=unet_265"], 3, 1),
    Case("wrong value: `optim.lr=fast`", ["-m", "dvsn.train", "optim.lr=fast"], 3, 1),
    Case("`import torch` (for scale)", ["-c", "import torch"]),
]


SCENES = ["data.root=street", "data.scenes={train: 4, val: 2, test: 1}"]
CHECKPOINT = "run/checkpoints/best.ckpt"
WORK = {
    "train": ["experiment=demo", "trainer=fast_dev_run", "name=again", *SCENES],
    "evaluate": [f"checkpoint={CHECKPOINT}", "output=evaluation"],
    "predict": [CHECKPOINT, "street/gtFine/val/*/*_partIds.png"],
}
"""The commands that are measured to their first batch, in a folder where `prepare` has trained."""

PROBE = """
import os, resource, runpy, sys
from torch.nn.modules.module import register_module_forward_pre_hook

def at_first_batch(module, arguments):
    if arguments and getattr(arguments[0], "ndim", 0) == 4:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print("FIRST BATCH", used.ru_utime + used.ru_stime, len(sys.modules), flush=True)
        os._exit(0)

register_module_forward_pre_hook(at_first_batch)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a command like `python -m` and ends it where a network is first run: on pictures (N, C, H, W)."""


def work_cases() -> list[Case]:
    """Each command of `WORK` with bytecode, by one thread and as many as torch takes, and without."""
    settings = [(True, "1", 6.0), (True, None, 6.0), (False, "1", None)]
    return [
        Case(name, ["-c", PROBE, f"dvsn.{name}", *words], goal, 0, bytecode, threads, True)
        for bytecode, threads, goal in settings
        for name, words in WORK.items()
    ]


def environment_of(case: Case, folder: str) -> dict[str, str]:
    """The variables that a case runs with: its threads, and where its bytecode lies."""
    cleared = ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
    variables = {key: value for key, value in os.environ.items() if key not in cleared}
    variables |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    variables |= {"NO_ALBUMENTATIONS_UPDATE": "1"}
    if not case.bytecode:
        variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": f"{folder}/none"}
    return variables if case.threads is None else variables | {"OMP_NUM_THREADS": case.threads}


def prepare(folder: str) -> None:
    """Draws the scenes, trains one step for a checkpoint, and fills the folder of bytecode."""
    words = ["experiment=demo", "trainer=fast_dev_run", "trainer.max_epochs=1", "hydra.run.dir=run", *SCENES]
    for case in (Case("", ["-m", "dvsn.train", *words]), *work_cases()[:3]):
        measure(case, folder)
        case.cpu.clear()
        case.wall.clear()


def heaviest(folder: str) -> Counter[str]:
    """Milliseconds that the modules of a package take to be imported, until the first batch of a training."""
    case = Case("", ["-X", "importtime", "-c", PROBE, "dvsn.train", *WORK["train"]])
    done = subprocess.run(
        [sys.executable, *case.arguments],
        cwd=folder,
        env=environment_of(case, folder),
        capture_output=True,
        text=True,
    )
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr):
        parts = name.split(".")
        deep = parts[0] == "torch" and parts[1:2] in (["_dynamo"], ["_inductor"], ["distributed"])
        spent[".".join(parts[: 2 if deep else 1])] += int(own) / 1000
    return spent


def measure(case: Case, folder: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *case.arguments],
        cwd=folder,
        env=environment_of(case, folder),
        capture_output=True,
        text=True,
    )
    case.wall.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reached = re.search(r"FIRST BATCH ([\d.]+) (\d+)", done.stdout)
    if reached:
        case.cpu.append(float(reached[1]))
        case.last_line = reached[2]
    else:
        case.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if (done.returncode != 0) != bool(case.status) or case.first_batch != bool(reached):
        raise SystemExit(f"{case.shown}: ended with {done.returncode}\n{done.stderr}")
    if case.status:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        case.last_line = lines[0] if lines else ""


def print_table(cases: Sequence[Case]) -> None:
    """One row a case."""
    print("| command | bytecode | threads | CPU | CPU, min to max | wall | goal | CPU / goal | modules |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        cpu = statistics.median(case.cpu)
        goal = f"{case.goal:g} | {cpu / case.goal:.2f}" if case.goal else "- | -"
        spread = f"{min(case.cpu):.2f} to {max(case.cpu):.2f}"
        shown = f"`dvsn.{case.shown}` to its first batch" if case.first_batch else case.shown
        modules = case.last_line if case.first_batch else "-"
        print(
            f"| {shown} | {'kept' if case.bytecode else 'none'} | {case.threads or 'default'} | {cpu:.2f} | {spread} "
            f"| {statistics.median(case.wall):.2f} | {goal} | {modules} |"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        work = work_cases()
        for number in range(ROUNDS):
            for case in (*CASES, *work):
                if case.bytecode or not number:  # without bytecode a command takes too long to repeat it
                    measure(case, folder)
        spent = heaviest(folder)
    from dvsn.engine.run_folder import environment

    facts = environment()
    print("# How long until dvsn answers\n")
    print("`python experiments/speed/startup.py`, " + datetime.date.today().isoformat())
    print(f"\n{facts['processor']}, Python {facts['python']}, torch {facts['versions']['torch']}, ", end="")
    print(f"Hydra {facts['versions']['hydra-core']}. Load average {os.getloadavg()[0]:.1f} at the end: the")
    print("machine was shared, so the wall clock is not the command's own. Medians of")
    print(
        f"{ROUNDS} rounds in which the commands take turns, each in a fresh process; without bytecode one.\n"
    )
    print_table((*CASES, *work))
    bare, ours = (statistics.median(case.cpu) for case in CASES[:2])
    print(f"\n`import dvsn` adds {1000 * (ours - bare):.0f} ms to the interpreter's own start.\n")
    print(f"The heaviest imports of `dvsn.train` to its first batch, {sum(spent.values()):.0f} ms in all by")
    print("`python -X importtime`, which is the wall clock's: each with all modules of its name.\n")
    print("| package | ms |\n|---|---|")
    for name, milliseconds in spent.most_common(10):
        print(f"| `{name}` | {milliseconds:.0f} |")
    print("\nFirst lines of the messages:\n")
    for case in CASES:
        if case.status:
            print(f"    {case.last_line}")


if __name__ == "__main__":
    main()
