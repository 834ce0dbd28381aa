"""Pictures in line: batched by key, in order, one at fault alone; and no more let in than fit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from dvsn.serve.batching import Answered, Gate, Line
from dvsn.serve.refusal import Refusal


def picture(value: int, *sides: int) -> np.ndarray[Any, Any]:
    return np.full(sides or (1, 1), value)


class Doubler:
    """Twice the value of each picture; keeps the values of each batch. -1 is refused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, pictures: Sequence[Any], chosen: Any) -> list[int]:
        values = [int(each.flat[0]) for each in pictures]
        self.batches.append(values)
        if -1 in values:
            raise ValueError("-1")
        return [2 * value for value in values]


def asked(pictures: Sequence[Any], keys: Sequence[Any], **options: Any) -> tuple[list[Any], list[list[int]]]:
    """What each picture is answered, and the batches. All of them come at once."""

    async def work() -> list[Any]:
        with ThreadPoolExecutor(1) as executor:
            line = Line(ask, executor, **{"most": 4, "wait": 0.0, **options})
            running = asyncio.create_task(line.run())
            every = (line.answer(each, None, key) for each, key in zip(pictures, keys, strict=True))
            found = await asyncio.gather(*every, return_exceptions=True)
            running.cancel()
            return found

    ask = Doubler()
    return asyncio.run(work()), ask.batches


def test_batches_of_equal_keys_in_order() -> None:
    found, batches = asked([picture(value) for value in range(7)], "aabaaab")
    assert [each.result for each in found] == [0, 2, 4, 6, 8, 10, 12]
    assert batches == [[0, 1, 3, 4], [2, 6], [5]]  # the first in line is always in the next batch
    assert [each.batch for each in found] == [4, 4, 2, 4, 4, 1, 2]


def test_only_the_one_at_fault_fails() -> None:
    found, batches = asked([picture(value) for value in (1, -1, 3)], "aaa")
    assert [each.result for each in found if isinstance(each, Answered)] == [2, 6]
    assert isinstance(found[1], ValueError)
    assert batches == [[1, -1, 3], [1], [-1], [3]]


def test_a_batch_has_a_limit_of_pixels() -> None:
    _, batches = asked([picture(value, 10, 10) for value in range(5)], "aaaaa", pixels=250)
    assert batches == [[0, 1], [2, 3], [4]]
    _, batches = asked([picture(value, 10, 10) for value in range(2)], "aa", pixels=50)
    assert batches == [[0], [1]]  # one by itself is let through: its size was looked at before


def test_the_first_waits_for_others_until_the_batch_is_full() -> None:
    async def work(most: int, wait: float) -> list[int]:
        with ThreadPoolExecutor(1) as executor:
            line = Line(Doubler(), executor, most=most, wait=wait)
            running = asyncio.create_task(line.run())
            first = asyncio.create_task(line.answer(picture(1), None, "a"))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(line.answer(picture(2), None, "a"))
            found = [(await each).batch for each in (first, second)]
            running.cancel()
            return found

    assert asyncio.run(work(4, 0.0)) == [1, 1]
    assert asyncio.run(asyncio.wait_for(work(2, 60.0), 20)) == [2, 2]  # full: nobody waits on


def test_one_whose_request_is_gone_is_left_out() -> None:
    async def work() -> list[list[int]]:
        with ThreadPoolExecutor(1) as executor:
            ask = Doubler()
            line = Line(ask, executor, most=4, wait=0.1)
            running = asyncio.create_task(line.run())
            gone, stays = (asyncio.create_task(line.answer(picture(v), None, "a")) for v in (1, 2))
            await asyncio.sleep(0.01)
            gone.cancel()
            assert (await stays).result == 4
            running.cancel()
            return ask.batches

    assert asyncio.run(work()) == [[2]]


def test_the_gate() -> None:
    async def work() -> None:
        gate = Gate(requests=2, pixels=100)
        gate.pace = 7.2
        async with gate.entered(), gate.entered():
            with pytest.raises(Refusal, match="Come again in 8 s") as refused:
                async with gate.entered():
                    pass
            assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "8"})
            async with gate.holding(60):
                with pytest.raises(Refusal, match="are large"):
                    async with gate.holding(41):
                        pass
                async with gate.holding(40):
                    assert gate.held == 100
            async with gate.holding(1000):  # alone it is let in
                pass
        assert (gate.inside, gate.held) == (0, 0)

    asyncio.run(work())
