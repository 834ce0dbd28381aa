"""Where windows lie along one side of a picture, and which part each of them answers for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def windows(size: int, window: int, stride: int) -> list[int]:
    """Where windows start along one side: every `stride`, the last one shifted back inside."""
    if size <= window:
        return [0]
    starts = list(range(0, size - window, stride))
    return [*starts, size - window]


def spread(size: int, window: int, stride: int) -> list[int]:
    """Where windows start that are spread evenly over a side: as many as of `windows`, none further apart than `stride`."""
    count = len(windows(size, window, stride))
    return [0] if count == 1 else [place * (size - window) // (count - 1) for place in range(count)]


def centres(starts: Sequence[int], window: int, size: int) -> list[tuple[int, int]]:
    """By window (first, last) of the places that lie nearer to its centre than to that of another: each place has one."""
    cuts = [0, *((one + other + window) // 2 for one, other in itertools.pairwise(starts)), size]
    return list(itertools.pairwise(cuts))
