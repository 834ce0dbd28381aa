"""Whether a training starves: how long the device waits for data, and what would shorten it, by what was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

LEAST = 10.0
"""Seconds of training that are looked at before anything is said."""
GAIN = 0.05
"""The share of the time by which an advice has to shorten the training."""
SLACK = 0.25
"""Cores by which what other programs leave may be wrong."""
NEAR = 0.85
"""From this share of the time on, what the cores have to do is what takes it."""


@dataclass(frozen=True)
class Pipeline:
    """An epoch's training, without validation, on one device. Times in seconds; those of a batch are means."""

    batches: float
    seconds: float
    waited: float
    """How long the device waited for batches."""
    first: float
    """How much of it for the first batch, while the workers had just begun."""
    workers: int
    cores: int
    """Processor cores that this process may use with its workers."""
    made: float
    """How long a worker, or this process where there is none, needs to make a batch."""
    made_processor: float
    """How much of it on a core; the rest it waits for files, or for a core."""
    own_processor: float
    """How long this process itself is on cores for a batch, all threads together, without making it."""
    free: float = float("inf")
    """Cores that other programs leave, as far as the machine's load tells."""

    @staticmethod
    def mean(several: Sequence[Pipeline]) -> Pipeline | None:
        """The mean epoch of several; None of none."""
        if not several:
            return None
        batches = sum(each.batches for each in several)
        values: dict[str, float] = {}
        for each in fields(Pipeline):
            if each.name in ("workers", "cores", "free"):
                values[each.name] = getattr(several[-1], each.name)
            elif each.name in ("made", "made_processor", "own_processor"):
                values[each.name] = sum(getattr(one, each.name) * one.batches for one in several) / max(
                    1, batches
                )
            else:
                values[each.name] = sum(getattr(one, each.name) for one in several) / len(several)
        return Pipeline(**values)  # type: ignore[arg-type]

    @property
    def share(self) -> float:
        """How much of the time the device waited, 0..1."""
        return min(1.0, self.waited / self.seconds) if self.seconds > 0 else 0.0

    @property
    def step(self) -> float:
        """How long a batch takes without the waiting."""
        return max(0.0, self.seconds - self.waited) / max(1, self.batches)

    @property
    def on_cores(self) -> float:
        """How long a batch takes at least, since the cores have to do all of it."""
        return (self.made_processor + self.own_processor) / self.cores

    def expected(self, workers: int) -> float:
        """How long the epoch would take with so many workers, which make batches while the device works: each batch as long
        as the slowest of the three takes for it."""
        if not workers:
            return self.batches * (self.step + self.made)
        return self.first + self.batches * max(self.step, self.made / workers, self.on_cores)

    def needed(self, workers: int) -> float:
        """How many cores it would keep busy with so many workers."""
        return (self.made_processor + self.own_processor) * self.batches / max(1e-9, self.expected(workers))

    def best(self) -> int:
        """The fewest workers, one at least and at most one a core, with which it would be as short as it can be."""
        times = {workers: self.expected(workers) for workers in range(1, self.cores + 1)}
        return next(workers for workers, each in times.items() if each <= 1.02 * min(times.values()))


def enough(several: Sequence[Pipeline]) -> bool:
    return sum(each.seconds for each in several) >= LEAST


def sentence(seen: Pipeline, *, said_from: float = 0.1) -> str | None:
    """What to say of an epoch; None where the device waits for less than `said_from` of the time.

    More workers are advised only where the times that were measured say that they shorten the epoch, and never more than
    there are cores.
    """
    if seen.share < said_from or not seen.batches:
        return None
    wait = f"The device waited {seen.share:.0%} of the time for data"
    wait += f" ({spoken(seen.waited)} of {spoken(seen.seconds)} an epoch)"
    maker = "A worker" if seen.workers else "The process itself (data.workers=0)"
    needs = (
        f"{maker} needs {spoken(seen.made)} to make a batch, the device {spoken(seen.step)} to train on it."
    )
    best = seen.best()
    gain = 1 - seen.expected(best) / seen.expected(seen.workers)
    if best > seen.workers and gain >= GAIN:
        if seen.needed(best) > seen.free + SLACK:
            return f"{wait}. Other programs keep the cores busy, so it cannot be told what more workers would bring. {needs}"
        then = spoken(seen.seconds * (1 - gain))
        return f"{wait}: data.workers={best} would shorten an epoch's training to about {then}. {needs}"
    return f"{wait}{limit(seen)} {needs}"


def limit(seen: Pipeline) -> str:
    """What keeps more workers from helping, as far as the measured times tell."""
    idle = seen.made - seen.made_processor
    if seen.first >= 0.5 * seen.waited:
        return f", {spoken(seen.first)} of it for the first batch, which more workers do not shorten."
    if seen.on_cores * seen.batches >= NEAR * (seen.seconds - seen.first):
        return (
            f", and more workers will not help: {cores_of(seen)} busy all the while, {spoken(seen.made_processor)} of a "
            f"batch to make it and {spoken(seen.own_processor)} to train on it. Smaller pictures (transform=...), files "
            "stored at the size that is trained on, or more cores would help."
        )
    if idle >= 0.5 * seen.made:
        return (
            f", {spoken(idle)} of a batch because its maker waits for files, or for a core that another program has. Data "
            "on a faster disk, or in memory (data.root=...), would help with the former."
        )
    return f", with data.workers={seen.workers} where {cores_of(seen)} there."


def cores_of(seen: Pipeline) -> str:
    return "1 core is" if seen.cores == 1 else f"{seen.cores} cores are"


def spoken(seconds: float) -> str:
    """45 ms, 1.3 s, 38 s or 12 min."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def cores() -> int:
    """How many processor cores this process may use: those that it is allowed, or fewer where a container has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, quota(Path("/sys/fs/cgroup/cpu.max")) or allowed)


def left_by_others(own: int) -> float:
    """Cores of the machine that other programs leave, by the load of the last minute, of which `own` processes and threads
    are this run's. Infinite where the system tells no load."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return float("inf")
    return (os.cpu_count() or 1) - max(0.0, load - own)


def quota(path: Path) -> int | None:
    """The cores that a control group is given, by its file `cpu.max` ("QUOTA PERIOD" in microseconds, or "max PERIOD")."""
    try:
        given, period = path.read_text().split()
        return None if given == "max" else max(1, int(given) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
