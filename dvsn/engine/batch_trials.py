"""A batch-size search: steps with doubled sizes, timed, until the memory, the data or the gain is exhausted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.tuner.tuning import Tuner
from pytorch_lightning.utilities.memory import is_oom_error
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.data.module import DataModule
from dvsn.engine.run_folder import peak_memory
from dvsn.errors import ConfigError
from dvsn.tasks.base import Task

GIB = 2**30
EXHAUSTED = "the memory of the device is exhausted"
SPARED = 0.8
"""The share of the free main memory that the next size may take."""
Trials = Callable[[Callable[[Callable[[], Any]], Any]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Trial:
    """A batch size that was trained with."""

    batch_size: int
    images_per_second: float
    """Of the steps after the first, with the loading of their batches."""
    memory_gib: float
    """The most that the GPU held in this trial, or that the process has held so far."""


class _Ended(Exception):
    """No larger size is to be tried, and why."""


class _Clock(Callback):
    """Times the steps after the first, from the end of the one before, so that waiting for a batch counts.

    Where every step is the first of its epoch (`images` is 0), `all_images` of the whole trial are there instead.
    """

    def __init__(self) -> None:
        self.since, self.images, self.seconds = 0.0, 0, 0.0
        self.all_images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.all_images += len(batch["index"])
        if self.since and batch_idx:  # the first of an epoch waits for its workers to start
            self.seconds += now - self.since
            self.images += len(batch["index"])
        self.since = now


class _Search:
    """Is called around each trial of Lightning's Tuner."""

    def __init__(
        self, trainer: pl.Trainer, data: DataModule, node: Mapping[str, Any], trials: list[Trial]
    ) -> None:
        self.trainer, self.data, self.node, self.trials = trainer, data, node, trials
        self.size = 0
        self.on_gpu = trainer.strategy.root_device.type == "cuda"
        self.before = peak_memory(on_gpu=self.on_gpu)

    def __call__(self, run: Callable[[], Any]) -> Any:
        size = self.data.batch_size
        self.size = self.trainer.train_dataloader.batch_sampler.size  # type: ignore[union-attr]
        if size > min(self.size, self.node["most"]):
            raise _Ended(self._at_the_end())
        self._require_memory(size)
        clock = _Clock()
        self.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            answer = run()
        except RuntimeError as error:
            if size == 1 and is_oom_error(error):  # the Tuner would halve it
                raise _Ended(EXHAUSTED) from error
            raise
        seconds, images = clock.seconds, clock.images
        if not images:  # every step was the first of its epoch
            seconds, images = time.perf_counter() - began, clock.all_images
        memory = peak_memory(on_gpu=self.on_gpu) / GIB
        self.trials.append(Trial(size, images / max(seconds, 1e-9), memory))
        self._require_gain()
        if 2 * size > min(self.size, self.node["most"]):
            raise _Ended(self._at_the_end())
        return answer

    def _at_the_end(self) -> str:
        most = self.node["most"]
        if self.size <= most:
            return f"an epoch has {self.size} samples"
        return f"tune.most={most}"

    def _require_memory(self, size: int) -> None:
        """On a CPU, whose system kills a process that takes too much instead of telling it."""
        free = free_memory()
        if self.on_gpu or free is None or not self.trials:
            return
        last = self.trials[-1]
        grown = last.memory_gib * GIB - self.before
        more = grown * (size / last.batch_size - 1)
        if more > SPARED * free:
            raise _Ended(
                f"a batch of {size} would take about {more / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free"
            )

    def _require_gain(self) -> None:
        """On a CPU, where memory seldom ends the search."""
        if self.on_gpu or len(self.trials) < 3:
            return
        rates = [each.images_per_second for each in self.trials]
        if max(rates[-2:]) < rates[-3] * (1 + self.node["gain"]):
            raise _Ended(f"no more than {self.node['gain']:.0%} faster in two doublings")


def free_memory() -> int | None:
    """Bytes of main memory that can still be had, by the system and by the limit of the control group; None where neither
    is told."""
    found = []
    info = Path("/proc/meminfo")
    if info.is_file():
        rows = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in rows:
            found.append(int(rows["MemAvailable"].split()[0]) * 1024)
    most, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if most.is_file() and used.is_file() and (text := most.read_text().strip()).isdigit():
        found.append(int(text) - int(used.read_text()))
    return min(found) if found else None


def batch_sizes(
    trainer: pl.Trainer,
    task: Task,
    data: DataModule,
    node: Mapping[str, Any],
    trials: list[Trial],
    around: Trials,
) -> dict[str, Any]:
    """Try sizes, and say which to take: on a GPU the largest that fits, on a CPU the fastest.

    `around` makes the Tuner call a function around each trial, for which `data.drop_last` is set: what an epoch ends with
    is looked at here. Raises `ConfigError` where not even the first fits.
    """
    search = _Search(trainer, data, node, trials)
    ended = EXHAUSTED
    with around(search):
        try:
            Tuner(trainer).scale_batch_size(
                task,
                datamodule=data,
                mode="power",
                steps_per_trial=node["trial_steps"],
                init_val=node["first"],
                max_trials=64,
                max_val=2**40,
            )
        except _Ended as found:
            ended = str(found)
    if not trials:
        advice = "Set tune.first to a smaller number."
        if ended == EXHAUSTED:  # smaller ones were tried
            advice = "Nor with fewer. Choose a smaller network or smaller pictures."
        raise ConfigError(f"tune.first: no step with {node['first']} items was possible: {ended}. {advice}")
    chosen = trials[-1] if search.on_gpu else fastest(trials, node["gain"])
    norms = any(isinstance(module, _BatchNorm) for module in task.modules())
    return {
        "trials": [asdict(each) for each in trials],
        "suggested": chosen.batch_size,
        "drop_last": norms and chosen.batch_size > 1 and search.size % chosen.batch_size == 1,
        "ended": ended,
        "device": str(trainer.strategy.root_device),
        "measured": (
            "the largest of these sizes that fits into the memory of the GPU, with its gradients and optimiser"
            if search.on_gpu
            else "speed: on a CPU memory seldom ends the search. It is the smallest of these sizes that is at most "
            f"{node['gain']:.0%} slower than the fastest"
        ),
    }


def fastest(trials: list[Trial], gain: float) -> Trial:
    """The smallest batch whose speed is at most `gain` below the best."""
    best = max(each.images_per_second for each in trials)
    return next(each for each in trials if each.images_per_second >= best * (1 - gain))
