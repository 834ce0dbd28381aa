"""Two versions of dvsn side by side: what a training step and the reading of pictures cost before and now.

    git worktree add /somewhere/before COMMIT
    python experiments/speed/in_turns.py before=/somewhere/before rounds=3 > experiments/speed/in_turns.md

Each round starts, for each case, a process with the old version and one with this, in turns, whose order is turned
round every other round: a step of the smallest pix2pix of `train_loop.py` (the framework alone), one of its middle size,
one of PIDNet-S with its loss (`segmentation_step.py`, float32), and a whole item of `input_pipeline.py`. A process tells
the processor time of one thread: the median of its steps, for items the fastest round. The ratio is the median over the
rounds. What others do on the machine to the caches stays in these times, so ratios within a few percent of 1 mean nothing.
"""

from __future__ import annotations

import datetime
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOOP = """
import statistics, sys
sys.path.insert(0, sys.argv[1])
import train_loop as script
script.torch.set_num_threads(1)
script.cv2.setNumThreads(1)
script.quiet()
pairs = script.run(list(script.SIZES)[int(sys.argv[2])])
print(1000 * statistics.median(ours for ours, _ in pairs))
"""
STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import segmentation_step as script
script.torch.set_num_threads(1)
step = script.Step("camvid", precision="fp32", wide=False, device="cpu")
batch = script.batch_of(step.task, 4, 240, 320, "cpu")
for _ in range(6):
    step(batch)
print(sum(step.median(part) for part in script.PARTS))
"""
ITEM = """
import runpy, sys
runpy.run_path(sys.argv[1] + "/input_pipeline.py", run_name="__main__")
"""
CASES = {
    "a step of the tiny pix2pix of train_loop.py": (LOOP, "0", r"([\d.]+)\s*$"),
    "a step of its small pix2pix, batch 4, 128x256": (LOOP, "1", r"([\d.]+)\s*$"),
    "a step of PIDNet-S with its loss, 4 x 240 x 320, float32": (STEP, "", r"([\d.]+)\s*$"),
    "an item of input_pipeline.py, jitter, labels=ids": (ITEM, "", r"labels=ids\*\* \| ([\d.]+)"),
}
"""What is run, its argument, and where its milliseconds stand in what it prints."""


def milliseconds(folder: Path, case: str) -> float:
    """One process with the version of dvsn in a folder."""
    code, argument, place = CASES[case]
    variables = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "experiments" / "speed"), argument],
        cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(place, done.stdout)
    if found is None:
        raise SystemExit(f"{folder}: {case}: {done.stderr[-2000:]}")
    return float(found.group(1))


def commit(folder: Path) -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    settings = {"rounds": "3"} | dict(argument.split("=", 1) for argument in sys.argv[1:])
    folders = {
        "before": Path(settings["before"]).resolve(),
        "now": Path(settings.get("now", HERE.parent.parent)).resolve(),
    }
    rounds, load = int(settings["rounds"]), os.getloadavg()[0]
    times = {case: {name: list[float]() for name in folders} for case in CASES}
    for number in range(rounds):
        for case in CASES:
            for name in list(folders)[:: -1 if number % 2 else 1]:
                times[case][name].append(milliseconds(folders[name], case))
    sys.path.insert(0, str(HERE.parent.parent))
    from dvsn.engine.run_folder import environment

    facts = environment()
    print("# Two versions in turns\n")
    print(f"`python experiments/speed/in_turns.py before=FOLDER rounds={rounds}`, {datetime.date.today()}\n")
    print(
        f"Before: {commit(folders['before'])}; now: {commit(folders['now'])}. {facts['processor']}, {os.cpu_count()} cores"
    )
    print(
        f"shared with other jobs (load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end); ",
        end="",
    )
    print(f"Python {facts['python']}, torch {facts['versions']['torch']}. Processor time of one thread.\n")
    print(
        "| case | before, ms | now, ms | ratio, median of the rounds | lowest and highest |\n|---|---|---|---|---|"
    )
    for case, both in times.items():
        ratios = [now / before for before, now in zip(both["before"], both["now"], strict=True)]
        before, now = (statistics.median(both[name]) for name in ("before", "now"))
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"| {case} | {before:.1f} | {now:.1f} | {statistics.median(ratios):.3f} | {spread} |")


if __name__ == "__main__":
    main()
