"""Many small trainings on one device: several jobs of a sweep at a time against one after another.

    python experiments/speed/sweep_jobs.py data.root=/data/cifar10 > experiments/speed/sweep_jobs.md

The same sweep, `jobs=4` seeds of ResNet-8 on 4,000 pictures of CIFAR-10, an epoch each, is run with `sweep.jobs` from
`at=1,2`, in turn, the order reversed from round to round, `rounds=3`. Wall time of the whole command, starts of processes
included, since a sweep pays for them too. OMP_NUM_THREADS is unset: on a CPU a job has its share of the cores. Every other
argument goes to dvsn.train: on a GPU for example

    ... at=1,2,4,8 jobs=8 data.root=/data/cifar10 data.train_samples=null trainer=gpu data.workers=4 trainer.max_epochs=5

Runs rounds x len(at) x jobs trainings: with the settings above 24 of about half a minute of one quiet core each.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

SETTINGS = {"jobs": "4", "at": "1,2", "rounds": "3"}
SHARED = [
    "task=classification", "data=cifar10", "network=resnet8", "data.train_samples=4000", 'data.splits.val="test[:20%]"',
    "data.workers=0", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "callbacks=none", "logger=none",
]  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def sweep(at: int, jobs: int, given: list[str]) -> tuple[float, list[float]]:
    """Wall seconds of the command, and the score of every job."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    seeds = ",".join(map(str, range(jobs)))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dvsn.train", "-m", *SHARED, *given, f"seed={seeds}"]
        command += [f"sweep.jobs={at}", f"hydra.sweep.dir={folder}"]
        begin = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        results = [Path(folder, str(number), "result.json") for number in range(jobs)]
        return seconds, [json.loads(file.read_text())["objective"] for file in results]


def main() -> None:
    words = [argument.partition("=")[::2] for argument in sys.argv[1:]]
    settings = SETTINGS | {key: value for key, value in words if key in SETTINGS}
    given = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in SETTINGS]
    levels, jobs, rounds = (
        [int(each) for each in settings["at"].split(",")],
        int(settings["jobs"]),
        int(settings["rounds"]),
    )
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{platform.machine()} CPU"
    print("# Several jobs of a sweep on one device\n")
    shown = [argument for argument in sys.argv[1:] if not argument.startswith("data.root=")]
    print(f"`{' '.join(['python experiments/speed/sweep_jobs.py', *shown])}`, {datetime.date.today()}\n")
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(
        f"{device}; {load} before; torch {torch.__version__}. {jobs} jobs a sweep, {rounds} rounds, in turn.\n"
    )
    seconds: dict[int, list[float]] = {at: [] for at in levels}
    scores: dict[int, list[float]] = {}
    for number in range(rounds):
        for at in levels if number % 2 == 0 else reversed(levels):
            taken, found = sweep(at, jobs, given)
            seconds[at].append(taken)
            scores[at] = found
            print(f"round {number}, {at} at a time: {taken:.1f} s", file=sys.stderr, flush=True)
    print("| at a time | wall s, median | every round | jobs an hour | times as fast | scores differ by |")
    print("|---:|---:|---|---:|---:|---:|")
    first = levels[0]
    for at in levels:
        median = statistics.median(seconds[at])
        every = ", ".join(f"{taken:.1f}" for taken in seconds[at])
        ratios = [one / other for one, other in zip(seconds[first], seconds[at], strict=True)]
        apart = max(abs(one - other) for one, other in zip(scores[first], scores[at], strict=True))
        hour = 3600 * jobs / median
        print(
            f"| {at} | {median:.1f} | {every} | {hour:.0f} | {statistics.median(ratios):.2f} | {apart:.2g} |"
        )


if __name__ == "__main__":
    main()
