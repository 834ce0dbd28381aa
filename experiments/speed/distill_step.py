"""What a distilled step costs beyond the student's step and the teacher's forward pass.

    OMP_NUM_THREADS=1 python experiments/speed/distill_step.py TEACHER.ckpt [network=resnet8] [rounds=7] > distill_step.md

TEACHER.ckpt is a checkpoint of `task=classification data=cifar10`, such as that of experiments/distill_cifar10. A batch of
64 pictures of CIFAR-10 in float32, one thread, processor time; the rows of a round take turns, medians over the rounds.
The step is Task.learn, the backward pass, what methods remember, and SGD. The goal: 5 % for light losses.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from omegaconf import OmegaConf

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.module import collate
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime

METHODS = ("kd", "dkd", "at", "fitnet", "sp", "rkd", "pkt", "nst", "crd", "ofd")
GOAL = 5.0  # %


def made(method: str, teacher: str, network: str) -> tuple[Any, Any]:
    """A task with its distiller, and the data."""
    options = [
        "experiment=cifar10_resnet8x4", f"network={network}", f"distill={method}", f"teacher={teacher}", "name=x",
        f"run_dir={tempfile.gettempdir()}", "data.train_samples=2500", "data.workers=0",
    ]  # fmt: skip
    with initialized(conf_dir()):
        config = OmegaConf.to_container(compose("train", overrides=options), resolve=True)
    assert isinstance(config, dict)
    task, data = runtime.make_task(config), runtime.build_data(config)
    teaching.distil(task, config, data)
    task.train()
    task.distiller.begin("cpu")
    return task, data


def main() -> None:
    options = dict(word.split("=") for word in sys.argv[2:])
    rounds, network = int(options.get("rounds", 7)), options.get("network", "resnet8")
    torch.set_num_threads(1)
    tasks = {}
    for method in METHODS:
        tasks[method], data = made(method, sys.argv[1], network)
    batch = collate([data.datasets["train"][number] for number in range(64)])
    steps: dict[str, Any] = {}
    first = tasks[METHODS[0]]

    def step(task: Any, optimizer: Any, learn: Any) -> None:
        torch.stack(list(learn().values())).sum().backward()
        task.distiller.after_backward()
        optimizer.step()
        optimizer.zero_grad()

    def alone() -> Any:
        return first.objective(first.student(first.see(batch["image"])), batch)

    def taught() -> None:
        first.distiller.teachers[0].ask(batch["image"])

    def sgd(task: Any) -> Any:
        return torch.optim.SGD(task.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)

    optimizer = sgd(first)
    steps["student's step"] = lambda: step(first, optimizer, alone)
    steps["teacher's pass"] = taught
    for method, task in tasks.items():
        own = sgd(task)
        steps[method] = lambda task=task, own=own: step(task, own, lambda: task.learn(batch))
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, run in steps.items():
            started = time.process_time()
            run()
            if number:  # the first round warms up
                taken[name].append(1000 * (time.process_time() - started))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    base = middle["student's step"] + middle["teacher's pass"]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, {rounds} rounds"
    command = f"python experiments/speed/distill_step.py {Path(sys.argv[1]).name}"
    print(f"# A distilled step\n\n`{command}`, {date.today()}; {versions}.\n")
    print("| row | ms | beyond student + teacher |\n|---|--:|--:|")
    for name, value in middle.items():
        beyond = f"{100 * (value / base - 1):+.1f} %" if name in METHODS else ""
        print(f"| {name} | {value:.1f} | {beyond} |")
    light = [name for name in METHODS if middle[name] <= (1 + GOAL / 100) * base]
    print(f"\nWithin {GOAL:g} %: {', '.join(light) or 'none'}.")


if __name__ == "__main__":
    main()
