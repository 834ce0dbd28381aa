"""How long it takes until dvsn answers: its import, `--help`, and the message for a typing error.

    python experiments/speed/startup.py > experiments/speed/startup.md

Every command runs in a fresh process, in turn, several rounds. Processor time (user and system, children
included) is what the goals are held against here: on a shared machine the wall clock also counts the others.
Takes about two minutes of processor time on a slow core.
"""

from __future__ import annotations

import datetime
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Case:
    shown: str
    arguments: list[str]
    goal: float | None = None
    status: int = 0
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    last_line: str = ""


CASES = [
    Case("`python -c pass`", ["-c", "pass"]),
    Case("`import dvsn`", ["-c", "import dvsn"], 0.3),
    Case("`python -m dvsn --help`", ["-m", "dvsn", "--help"], 2),
    Case("`python -m dvsn.train --help`", ["-m", "dvsn.train", "--help"], 2),
    Case("`python -m dvsn.evaluate --help`", ["-m", "dvsn.evaluate", "--help"], 2),
    Case("`python -m dvsn.predict --help`", ["-m", "dvsn.predict", "--help"], 2),
    Case("`python -m dvsn.convert --help`", ["-m", "dvsn.convert", "--help"], 2),
    Case("mistyped option: `trainer.max_epoch=3`", ["-m", "dvsn.train", "trainer.max_epoch=3"], 3, 1),
    Case("mistyped group: `netwrok=unet_256`", ["-m", "dvsn.train", "netwrok=unet_256"], 3, 1),
    Case("mistyped choice: `network=unet_265`", ["-m", "dvsn.train", "network=unet_265"], 3, 1),
    Case("wrong value: `optim.lr=fast`", ["-m", "dvsn.train", "optim.lr=fast"], 3, 1),
    Case("`import torch` (for scale)", ["-c", "import torch"]),
]


def measure(case: Case, folder: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *case.arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    case.wall.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    case.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if (done.returncode != 0) != bool(case.status):
        raise SystemExit(f"{case.shown}: ended with {done.returncode}\n{done.stderr}")
    if case.status:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        case.last_line = lines[0] if lines else ""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(
            Case("", ["-c", "import torch, pytorch_lightning, hydra"]), folder
        )  # compiles and caches files
        for _ in range(ROUNDS):
            for case in CASES:
                measure(case, folder)
    from dvsn.engine.run_folder import environment

    facts = environment()
    print("# How long until dvsn answers\n")
    print("`python experiments/speed/startup.py`, " + datetime.date.today().isoformat())
    print(f"\n{facts['processor']}, Python {facts['python']}, torch {facts['versions']['torch']}, ", end="")
    print(f"Hydra {facts['versions']['hydra-core']}. Load average {os.getloadavg()[0]:.1f} at the end: the")
    print("machine was shared, so the wall clock is not the command's own. Medians of")
    print(f"{ROUNDS} rounds in which the commands take turns, each in a fresh process; seconds.\n")
    print("| command | CPU | CPU, min to max | wall | goal | CPU / goal |\n|---|---|---|---|---|---|")
    for case in CASES:
        cpu = statistics.median(case.cpu)
        goal = f"{case.goal:g} | {cpu / case.goal:.2f}" if case.goal else "- | -"
        spread = f"{min(case.cpu):.2f} to {max(case.cpu):.2f}"
        print(f"| {case.shown} | {cpu:.2f} | {spread} | {statistics.median(case.wall):.2f} | {goal} |")
    bare, ours = (statistics.median(case.cpu) for case in CASES[:2])
    print(f"\n`import dvsn` adds {1000 * (ours - bare):.0f} ms to the interpreter's own start.\n")
    print("First lines of the messages:\n")
    for case in CASES:
        if case.status:
            print(f"    {case.last_line}")


if __name__ == "__main__":
    main()
