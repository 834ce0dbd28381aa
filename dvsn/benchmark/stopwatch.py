"""Times and memory of a function of an image, by the protocol of PIDNet's paper and beyond it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Run = Callable[[Tensor], Tensor]
WARM_UPS = 10
clock: Callable[[], float] = time.perf_counter
"""What is read. On a machine that other jobs share, `time.process_time` counts what a single thread really had."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Within it, the clock of this name is read, one of `CLOCKS`."""
    global clock
    before, clock = clock, CLOCKS[name]
    try:
        yield
    finally:
        clock = before


class Latency(NamedTuple):
    """Of single passes, each waited for, in milliseconds."""

    median: float
    p5: float
    p95: float
    minimum: float


class Stopwatch:
    """Measures one function over several turns.

    As PIDNet's speed test:

    1. 10 warm-up passes;
    2. a calibration that doubles the number of passes until they take over a second;
    3. as many passes as fit into the given time, between two synchronisations: the throughput;
    4. on a GPU each pass once more, waited for: the latency.
    """

    def __init__(self, run: Run, image: Tensor, *, seconds: float, runs: int | None, turns: int) -> None:
        self.run, self.image = run, image
        self.passes, self.seconds, self.times = 0, 0.0, list[float]()
        self.per_turn = math.ceil(runs / turns) if runs else self._calibrate(seconds, turns)

    @torch.no_grad()
    def _calibrate(self, seconds: float, turns: int) -> int:
        start, done = clock(), 0
        while done < WARM_UPS and (done < 2 or clock() - start < seconds):
            self._pass(wait=True)
            done += 1
        count, spent = 1, 0.0
        while True:
            spent = self._many(count)
            if spent > min(1.0, seconds / 6):
                return max(1, math.ceil(count / spent * seconds / turns))
            count *= 2

    def _many(self, count: int) -> float:
        self._wait()
        start = clock()
        for _ in range(count):
            self.run(self.image)
        self._wait()
        return clock() - start

    def _pass(self, *, wait: bool) -> float:
        start = clock()
        self.run(self.image)
        if wait:
            self._wait()
        return clock() - start

    def _wait(self) -> None:
        if self.image.device.type != "cpu":
            torch.accelerator.synchronize()

    @torch.no_grad()
    def turn(self) -> None:
        """One turn of the timed passes."""
        waits = self.image.device.type != "cpu"
        if waits:
            self.seconds += self._many(self.per_turn)
        latencies = [self._pass(wait=waits) for _ in range(self.per_turn)]
        if not waits:
            self.seconds += sum(latencies)
        self.times += latencies
        self.passes += self.per_turn

    @property
    def images_per_second(self) -> float:
        return self.passes * self.image.shape[0] / self.seconds

    def latency(self) -> Latency:
        values = np.percentile(np.array(self.times) * 1e3, [50, 5, 95, 0])
        return Latency(*(float(value) for value in values))


@torch.no_grad()
def peak_memory(run: Run, image: Tensor, parts: nn.Module) -> int:
    """Bytes that a pass needs at its peak: the weights of `parts`, the image, and all that PyTorch allocates."""
    held = sum(tensor.nbytes for tensor in (*parts.parameters(), *parts.buffers(), image))
    if image.device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(image)
        torch.cuda.synchronize()
        return held + torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run(image)
    return held + highest(
        [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    )


def highest(changes: Sequence[int]) -> int:
    """The highest sum of the first so many changes, at least 0."""
    return max(0, int(np.cumsum(changes).max(initial=0)))
