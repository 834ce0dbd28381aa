"""A training step of PIDNet-S: what its loss costs beside its network, and how much memory it needs.

    OMP_NUM_THREADS=1 python experiments/speed/segmentation_step.py > experiments/speed/segmentation_step.md

The goal: the loss (resizing the heads, OHEM, outlines) takes at most 15 % of the step. The step is that of
`python -m dvsn.train task=segmentation` by its own objects, cut where the heads meet the loss: their gradients
are taken there first and handed on to the network. "Plain loss" is the same loss with torch's own operations on
logits of label size, which `dvsn.losses.resized` avoids. Networks of random weights on random pictures with labels of
blobs; the time does not depend on them, save that all pixels are hard. Processor time of one thread; on a GPU
(`device=cuda`) time between synchronisations. `rounds=` and `memory=2,3,4` (batches of 1024x1024) can be given.
"""

from __future__ import annotations

import datetime
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dvsn.benchmark.stopwatch import highest
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.boundary import boundary_map
from dvsn.engine import trainer as runtime
from dvsn.engine.devices import cpu_has_bf16, resolve_precision
from dvsn.engine.run_folder import environment
from dvsn.losses import segmentation
from dvsn.losses.resized import resized_cross_entropy
from dvsn.tasks.segmentation import Segmentation
from dvsn.types import IGNORE, SegmentationOutput

SETTINGS = {"device": "cpu", "rounds": "5", "memory": "2,3,4"}
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16, channels_last": {"precision": "bf16", "wide": True},
    "fp32": {"precision": "fp32", "wide": False},
    "bf16, plain loss": {"precision": "bf16", "wide": True, "plain": True},
}
CASES = {"camvid": (12, 360, 480), "cityscapes": (2, 512, 1024)}
WANTED, GOAL = 12, 0.15
PARTS = ("normalise and forward", "loss, forward", "loss, backward", "network, backward", "optimiser")


class Step:
    """A training step of dvsn in five parts that can be timed."""

    def __init__(self, data: str, *, precision: str, wide: bool, device: str, plain: bool = False) -> None:
        self.task = make_task(data).to(device).train()
        if wide:
            self.task.to_channels_last()
        self.device, self.precision = device, precision
        self.cross_entropy = plain_cross_entropy if plain else resized_cross_entropy
        self.optimizer = self.task.optim(self.task.network.parameters())
        self.times: dict[str, list[float]] = {part: [] for part in PARTS}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = self.now()
        yield
        self.times[part].append(self.now() - start)

    def now(self) -> float:
        """Milliseconds."""
        if self.device == "cpu":
            return 1e3 * time.process_time()
        torch.cuda.synchronize()
        return 1e3 * time.perf_counter()

    def __call__(self, batch: dict[str, Any]) -> float:
        """One step; the value of the loss."""
        loss = self.backward(batch)
        with self.timed("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        return float(loss.detach())

    def backward(self, batch: dict[str, Any]) -> Tensor:
        """The step without the optimiser."""
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")
        with self.timed("normalise and forward"), autocast:
            image = self.task.layout(self.task.normalise(batch["image"]))
            output = self.task.network(image)
        heads = [output.logits, *output.auxiliary, output.boundary]
        leaves = [head.detach().requires_grad_() for head in heads]
        segmentation.resized_cross_entropy = self.cross_entropy
        with self.timed("loss, forward"), autocast:
            cut = SegmentationOutput(leaves[0], tuple(leaves[1:-1]), leaves[-1])
            loss = torch.stack(list(self.task.objective(cut, batch).values())).sum()
        with self.timed("loss, backward"):
            loss.backward()
        with self.timed("network, backward"):
            torch.autograd.backward(heads, [leaf.grad for leaf in leaves])
        return loss

    def median(self, part: str) -> float:
        """Milliseconds; the first step was for warming up."""
        return statistics.median(self.times[part][1:])


def plain_cross_entropy(logits: Tensor, target: Tensor, *, align_corners: bool) -> Tensor:
    """The same by torch, which holds all logits at the size of the labels."""
    size = target.shape[-2:]
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(full, target.long(), ignore_index=IGNORE, reduction="none")


def make_task(data: str) -> Segmentation:
    """`python -m dvsn.train task=segmentation data=...` as far as the task. No file is opened."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "task=segmentation",
            f"data={data}",
            f"data.root={folder}",
            f"run_dir={folder}",
            "name=speed",
        ]
        with initialized(conf_dir()):
            config: Any = OmegaConf.to_container(compose("train", overrides=overrides), resolve=True)
        task = runtime.make_task(config)
    assert isinstance(task, Segmentation)
    return task


def batch_of(task: Segmentation, size: int, height: int, width: int, device: str) -> dict[str, Any]:
    """Random pictures; labels of blobs with an ignored strip; their outlines."""
    random = np.random.default_rng(0)
    small = random.integers(0, task.classes, (size, height // 24, width // 24), dtype=np.uint8)
    ids = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_NEAREST) for each in small])
    ids[:, -height // 20 :] = IGNORE
    outlines = np.stack([boundary_map(each, **(task.loss.boundary_options or {})) for each in ids])
    image = random.integers(0, 256, (size, 3, height, width), dtype=np.uint8)
    arrays = {"image": image, "target": ids[:, None], "boundary": outlines[:, None]}
    return {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}


def check(device: str) -> None:
    """The cut step must leave the gradients of the whole one."""
    step = Step("camvid", precision="fp32", wide=False, device=device)
    batch = batch_of(step.task, 2, 120, 160, device)
    network = step.task.network
    state = {key: value.clone() for key, value in network.state_dict().items()}
    whole = step.task.objective(network(step.task.normalise(batch["image"])), batch)
    torch.stack(list(whole.values())).sum().backward()
    wanted = [parameter.grad for parameter in network.parameters()]
    network.load_state_dict(state)
    network.zero_grad()
    step.backward(batch)
    for mine, its in zip((parameter.grad for parameter in network.parameters()), wanted, strict=True):
        assert (mine is None and its is None) or torch.allclose(mine, its, rtol=1e-4, atol=1e-7)  # type: ignore[arg-type]


def outlines_ms(height: int, width: int, task: Segmentation) -> float:
    """Milliseconds of the worker's boundary map of one label, the fastest of ten."""
    ids = batch_of(task, 1, height, width, "cpu")["target"][0, 0].numpy()
    times = []
    for _ in range(10):
        start = time.process_time()
        boundary_map(ids, **(task.loss.boundary_options or {}))
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def peak_of(run: Callable[[], object], device: str) -> float:
    """MiB that PyTorch allocates in `run` at the peak, above what is held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - start) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    return highest([event.nbytes() for event in events if event.name() == "[memory]"]) / 2**20


def report_times(settings: dict[str, str]) -> None:
    device, rounds = settings["device"], int(settings["rounds"])
    for data, (size, height, width) in CASES.items():
        steps = {name: Step(data, device=device, **variant) for name, variant in VARIANTS.items()}
        task = steps["fp32"].task
        batch = batch_of(task, size, height, width, device)
        values = {name: step(batch) for name, step in steps.items()}
        for _ in range(rounds):
            for step in steps.values():
                step(batch)
        print(f"\n## {size} x {height} x {width}, {task.classes} classes ({data})\n")
        print("First losses: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()) + ".\n")
        print("| part | " + " | ".join(f"{name}, ms | share" for name in steps) + " |")
        print("|---|" + "---|---|" * len(steps))
        totals = {name: sum(step.median(part) for part in PARTS) for name, step in steps.items()}
        for part in PARTS:
            cells = [
                f"{s.median(part):.0f} | {s.median(part) / totals[name]:.1%}" for name, s in steps.items()
            ]
            print(f"| {part} | " + " | ".join(cells) + " |")
        print("| **step** | " + " | ".join(f"**{total:.0f}** | " for total in totals.values()) + " |")
        shares = {
            name: sum(step.median(part) for part in PARTS[1:3]) / totals[name] for name, step in steps.items()
        }
        verdicts = [f"{name} **{share:.1%}**" for name, share in shares.items()]
        print(f"\nThe loss, forward and backward: {', '.join(verdicts)} of the step (goal {GOAL:.0%}).")
        full = (360, 480) if data == "camvid" else (1024, 2048)
        spent = outlines_ms(*full, task)
        print(
            f"Outlines of one label of {full[0]}x{full[1]}, in a data worker: {spent:.1f} ms, with a batch of",
            end=" ",
        )
        print(f"{size} {size * spent / totals['bf16, channels_last']:.1%} of the bf16 step.")


def report_memory(settings: dict[str, str]) -> None:
    device, sizes = settings["device"], [int(size) for size in settings["memory"].split(",")]
    print("\n## Memory of a step with crops of 1024x1024, 19 classes\n")
    print("Allocated by PyTorch at the peak, above weights, momentum and the batch as bytes, MiB.\n")
    print("| batch | " + " | ".join(map(str, sizes)) + f" | an image | batch {WANTED} |")
    print("|---|" + "---|" * (len(sizes) + 2))
    for name, variant in VARIANTS.items():
        step = Step("cityscapes", device=device, **variant)
        step(batch_of(step.task, 2, 128, 128, device))  # so that momentum is there
        peaks = []
        for size in sizes:
            batch = batch_of(step.task, size, 1024, 1024, device)
            peaks.append(peak_of(functools.partial(step, batch), device))
        slope, start = np.polyfit(sizes, peaks, 1) if len(sizes) > 1 else (peaks[0] / sizes[0], 0.0)
        last = (
            f"{peaks[sizes.index(WANTED)]:.0f}" if WANTED in sizes else f"about {start + slope * WANTED:.0f}"
        )
        print(f"| {name} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + f" | {slope:.0f} | {last} |")
    if WANTED not in sizes:
        print(f"\nBatch {WANTED} is the line through the measured batches, not a measurement.")


def main() -> None:
    torch.set_num_threads(1)
    settings = SETTINGS | dict(argument.split("=") for argument in sys.argv[1:])
    facts = environment()
    machine = torch.cuda.get_device_name() if settings["device"] == "cuda" else facts["processor"]
    command = " ".join(["python", "experiments/speed/segmentation_step.py", *sys.argv[1:]])
    print("# A training step of PIDNet-S\n")
    print(f"`{command}`, {datetime.date.today()}\n")
    print(f"{machine}, shared with other jobs (load average {os.getloadavg()[0]:.1f} at the start), ", end="")
    print(f"{'with' if cpu_has_bf16() else 'without'} bf16 units;")
    print(
        f"Python {facts['python']}, torch {facts['versions']['torch']}. One thread, processor time, the median of"
    )
    print(
        f"{settings['rounds']} rounds in which the variants take turns. dvsn's own choice here is ",
        end="",
    )
    print(f"{resolve_precision('auto', cuda=settings['device'] == 'cuda')}.")
    check(settings["device"])
    report_times(settings)
    report_memory(settings)


if __name__ == "__main__":
    main()
