"""The clock of an input pipeline: how long batches took to make, and how long they were waited for."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from dvsn.data import loading
from dvsn.data.loading import Clocked, Loader, Work

SLEEP = 0.03


class Slow(Dataset[int]):
    """Numbers, each of which takes a while to read."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: Any) -> int:
        time.sleep(SLEEP)
        return int(key)


def loader(workers: int) -> Loader:
    data = Clocked(Slow(), sum, workers=workers)
    return Loader(
        data, batch_size=2, collate_fn=data.collate, num_workers=workers, persistent_workers=workers > 0
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_counted_and_timed(workers: int) -> None:
    found = loader(workers)
    assert len(found) == 3 and list(found) == [1, 5, 9]
    first = found.work
    assert first.batches == 3 and first.seconds >= 6 * SLEEP
    assert first.processor_seconds < 0.5 * first.seconds, "it slept"
    assert list(found) == [1, 5, 9] and found.work.since(first).batches == 3
    if not workers:
        assert found.waited == pytest.approx(found.work.seconds, rel=0.2), "whoever asks makes it"


def test_only_the_waiting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that each look moves by a second, and each sample by ten."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    class Clock(Dataset[int]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, key: int) -> int:
            now[0] += 10
            return key

    monkeypatch.setattr(loading.time, "perf_counter", tick)
    monkeypatch.setattr(loading.time, "process_time", lambda: 0.0)
    data = Clocked(Clock(), sum, workers=0)
    found = Loader(data, batch_size=2, collate_fn=data.collate)
    for _ in found:
        now[0] += 100  # training
    assert found.work == Work(2, 2 * 21, 0), "from before the first sample until the batch is there"
    assert found.waited == 1 + 2 * (20 + 3) + 1, "its iterator, two batches, and the end"


def test_batches_are_what_they_were() -> None:
    """Clocked batches are equal to those of torch's own loader, and draw no random numbers."""
    torch.manual_seed(0)
    data = torch.arange(10)
    clocked = Clocked(data, torch.stack, workers=0)
    state = torch.get_rng_state()
    found = list(Loader(clocked, batch_size=4, collate_fn=clocked.collate))
    expected = list(torch.utils.data.DataLoader(data, batch_size=4, collate_fn=torch.stack))  # type: ignore[arg-type]
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]
    torch.set_rng_state(state)
    list(torch.utils.data.DataLoader(data, batch_size=4))  # type: ignore[arg-type]
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    list(Loader(clocked, batch_size=4, collate_fn=clocked.collate))
    assert torch.equal(torch.get_rng_state(), after)
