"""A distilled step on CIFAR by each form of the teacher, against the loop body of the published benchmark.

    OMP_NUM_THREADS=1 python experiments/speed/teacher_engine.py [rounds=9] [methods=kd,at,sp] > teacher_engine.md

resnet32x4 teaches resnet8x4: 64 pictures of CIFAR-10's size in float32, one thread, processor time. The rows of a round
take turns, and their order is turned round every other round; ratios are medians over the rounds, against the same round's
published body. That body is RepDistiller's (Tian, Krishnan and Isola, 2020, arXiv:1910.10699): student, teacher without
gradient, cross entropy, the softened divergence, the method's loss in the published order of operations, accuracy and the
loss as numbers, zero_grad, backward, SGD; both networks as they are, pictures normalised beforehand. A row of dvsn is
Task.learn on uint8 pictures, zero_grad, backward, what methods remember, SGD. Weights are random.
The goals: at most 0.8 for kd, 0.85 for at and sp.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import distill_losses
import torch
import torch.nn.functional as F
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.module import collate
from dvsn.distill.method import View
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.networks.cifar_resnet import CifarResNet

GOALS = {"kd": 0.8, "at": 0.85, "sp": 0.85}
WEIGHTS = {"kd": (0.1, 0.9, 0.0), "at": (1.0, 0.0, 1000.0), "sp": (1.0, 0.0, 3000.0)}
"""Of cross entropy, divergence and the method's own loss, as in the benchmark's list of runs."""
TEACHER = (
    "{_target_: dvsn.networks.cifar_resnet.CifarResNet, classes: 10, depth: 32, widths: [32, 64, 128, 256]}"
)
ROWS = {
    "eager": ("distillation.engine=eager", "channels_last=false"),
    "eager, channels_last of the run": ("distillation.engine=eager", "channels_last=true"),
    "folded": ("distillation.engine=folded", "channels_last=false"),
    "folded, channels_last of the run": ("distillation.engine=folded", "channels_last=true"),
    "onnx": ("distillation.engine=onnx", "channels_last=false"),
    "onnx, channels_last of the run": ("distillation.engine=onnx", "channels_last=true"),
    "compiled, channels_last of the run": ("distillation.engine=compiled", "channels_last=true"),
    "compiled, and the student": ("distillation.engine=compiled", "channels_last=true", "compile=true"),
    "onnx, and the student compiled": ("distillation.engine=onnx", "channels_last=true", "compile=true"),
}
Step = Callable[[], None]


def made(method: str, options: tuple[str, ...]) -> tuple[Any, Any]:
    """A task with its distiller as a run prepares it, and the data."""
    words = [
        "experiment=cifar10_resnet8x4", f"distill={method}", f"distillation.network={TEACHER}", "name=x", "data.workers=0",
        f"run_dir={tempfile.gettempdir()}", "data.train_samples=2500", "trainer.precision=32-true", "logger=csv",
        "trainer.accelerator=cpu", *options,
    ]  # fmt: skip
    with initialized(conf_dir()):
        config = OmegaConf.to_container(compose("train", overrides=words), resolve=True)
    assert isinstance(config, dict)
    task, data = runtime.make_task(config), runtime.build_data(config)
    teaching.distil(task, config, data)
    runtime.build_trainer(config, task)  # layout and compilation
    task.train()
    task.distiller.begin("cpu")
    return task, data


def sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, 1e-4, momentum=0.9, weight_decay=5e-4)


def published(method: str, image: Tensor, target: Tensor) -> Step:
    """The benchmark's loop body."""
    teacher = CifarResNet(classes=10, depth=32, widths=[32, 64, 128, 256]).eval()
    student = CifarResNet(classes=10, depth=8, widths=[32, 64, 128, 256]).train()
    optimizer, (own, soft, beta) = sgd(student.parameters()), WEIGHTS[method]
    loss_of = {"kd": None, "at": distill_losses.at, "sp": distill_losses.sp}[method]

    def look(network: CifarResNet) -> View:
        first = network.layer1(network.relu(network.bn1(network.conv1(image))))
        second = network.layer2(first)
        last = network.layer3(second)
        maps = (last,) if method == "sp" else (first, second, last)
        return View(network.fc(last.mean((2, 3))), maps)

    def step() -> None:
        mine = look(student)
        with torch.no_grad():
            theirs = look(teacher)
        loss = own * F.cross_entropy(mine.output, target)
        loss = loss + soft * distill_losses.kd(None, mine, theirs, None)
        if loss_of is not None:
            loss = loss + beta * loss_of(None, mine, theirs, None)
        (mine.output.topk(5)[1] == target[:, None]).float().sum().item()
        loss.item()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def ours(task: Any, batch: Any) -> Step:
    optimizer = sgd(task.parameters())

    def step() -> None:
        total = torch.stack(list(task.learn(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        task.distiller.after_backward()
        optimizer.step()

    return step


def turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each step in each round; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            started = time.process_time()
            steps[name]()
            if number:
                taken[name].append(1000 * (time.process_time() - started))
    return taken


def main() -> None:
    options = {"rounds": "9", "methods": "kd,at,sp", "rows": ""} | dict(
        word.split("=", 1) for word in sys.argv[1:]
    )
    torch.set_num_threads(1)
    rows = {
        name: words
        for name, words in ROWS.items()
        if not options["rows"] or name in options["rows"].split(";")
    }
    print("# A distilled step by the form of its teacher\n")
    print(f"`python experiments/speed/teacher_engine.py {' '.join(sys.argv[1:])}`, {date.today()};", end=" ")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, {options['rounds']} rounds,", end=" "
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    for method in options["methods"].split(","):
        steps: dict[str, Step] = {}
        for name, words in rows.items():
            if method != "kd" and name.startswith("onnx"):
                continue
            task, data = made(method, words)
            batch = collate([data.datasets["train"][number] for number in range(64)])
            steps[name] = ours(task, batch)
        image = task.normalise(batch["image"]).contiguous()
        steps = {"published body": published(method, image, batch["target"]), **steps}
        taken = turns(steps, int(options["rounds"]))
        base = taken["published body"]
        print(
            f"\n## {method}: goal {GOALS[method]}\n\n| row | ms | ratio | lowest and highest |\n|---|--:|--:|---|"
        )
        for name, values in taken.items():
            ratios = [one / other for one, other in zip(values, base, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(
                f"| {name} | {statistics.median(values):.0f} | {statistics.median(ratios):.3f} | {spread} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
