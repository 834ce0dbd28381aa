"""Requests wait in line, and go through a network together; no more are let in than fit."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dvsn.serve.refusal import Refusal


class Answered(NamedTuple):
    """The answer to one picture, and how it came about."""

    result: Any
    batch: int
    """Pictures that went through the network together."""
    waited: float
    """Seconds in line."""
    worked: float
    """Seconds of the batch in the network."""


@dataclass
class Job:
    """A picture in line. Those of equal `key` may go together."""

    picture: Any
    """(H, W, ...)."""
    chosen: Any
    key: Any
    answer: asyncio.Future[Answered]
    since: float = field(default_factory=time.perf_counter)

    @property
    def pixels(self) -> int:
        return int(self.picture.shape[0] * self.picture.shape[1])


class Line:
    """Pictures that wait for one model, in their order.

    - `ask`: pictures and options -> results, in their order; it runs in `executor`.
    - `most`: pictures in a batch; `pixels`: of them together, where they are more than one; `wait`: seconds that the first
      one waits for the others.
    - `told`: is told the size of each batch and its seconds.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Any], Any], Sequence[Any]],
        executor: Executor,
        *,
        most: int,
        wait: float,
        pixels: int = 1 << 40,
        told: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.ask, self.executor, self.told = ask, executor, told
        self.most, self.wait, self.pixels = most, wait, pixels
        self.jobs: deque[Job] = deque()
        self.arrived = asyncio.Event()

    async def answer(self, picture: Any, chosen: Any, key: Any) -> Answered:
        """Raises what the model raises for this picture."""
        job = Job(picture, chosen, key, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self.arrived.set()
        return await job.answer

    async def run(self) -> None:
        """Answer batch after batch, until cancelled."""
        while True:
            while not self.jobs:
                self.arrived.clear()
                await self.arrived.wait()
            await self._gather()
            batch = self._take()
            if batch:
                await self._work(batch)

    async def _gather(self) -> None:
        """Wait until the first one's batch is full, or it has waited long enough."""
        until = self.jobs[0].since + self.wait
        while self._fitting() < self.most and (left := until - time.perf_counter()) > 0:
            self.arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.arrived.wait(), left)

    def _fitting(self) -> int:
        return sum(job.key == self.jobs[0].key for job in self.jobs)

    def _take(self) -> list[Job]:
        """The first one in line and those that go with it, in their order; those whose request is gone are left out."""
        batch: list[Job] = []
        key, rest, left = self.jobs[0].key, deque[Job](), self.pixels
        for job in self.jobs:
            if job.answer.done():
                continue
            if job.key == key and len(batch) < self.most and (not batch or job.pixels <= left):
                batch.append(job)
                left -= job.pixels
            else:
                rest.append(job)
        self.jobs = rest
        return batch

    async def _work(self, batch: list[Job]) -> None:
        """One that fails in a batch of several is asked alone, and so are the others: only the one at fault fails."""
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        pictures = [job.picture for job in batch]
        try:
            results = await loop.run_in_executor(self.executor, self.ask, pictures, batch[0].chosen)
        except Exception as error:  # noqa: BLE001 - whose request it is says it
            if len(batch) > 1:
                for job in batch:
                    await self._work([job])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        seconds = time.perf_counter() - start
        self.told(len(batch), seconds)
        for job, result in zip(batch, results, strict=True):
            if not job.answer.done():
                job.answer.set_result(Answered(result, len(batch), start - job.since, seconds))


class Gate:
    """How many requests, and pixels of decoded pictures, are inside at a time.

    `pace`: seconds that a request takes, as seen lately: after them a refused one may come again.
    """

    def __init__(self, *, requests: int, pixels: int) -> None:
        self.requests, self.pixels = requests, pixels
        self.inside, self.held = 0, 0
        self.pace = 0.1

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Raises `Refusal` (503) where the server is full."""
        if self.inside >= self.requests:
            raise self.full(f"{self.inside} requests are being answered, and no more are let in")
        self.inside += 1
        start = time.perf_counter()
        try:
            yield
            self.pace += 0.1 * (time.perf_counter() - start - self.pace)
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def holding(self, pixels: int) -> AsyncIterator[None]:
        """Raises `Refusal` (503) where pictures that are inside take all the memory that is meant for them."""
        if self.held and self.held + pixels > self.pixels:
            raise self.full("the pictures that are being answered are large, and no more are let in")
        self.held += pixels
        try:
            yield
        finally:
            self.held -= pixels

    def full(self, why: str) -> Refusal:
        seconds = min(60, max(1, math.ceil(self.pace)))
        return Refusal(
            503, "busy", f"The server is busy: {why}. Come again in {seconds} s.", retry_after=seconds
        )
