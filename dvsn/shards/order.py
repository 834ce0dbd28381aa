"""The order of an epoch over shards: few of them are open at a time, and each process reads its own."""

from __future__ import annotations

import numpy as np


def order(
    shard_of: np.ndarray, bytes_of: np.ndarray, *, seed: int, epoch: int, world: int, window: int
) -> np.ndarray:
    """The items (N,) of an epoch, of which process r of `world` reads places r, r + world, ...

    Shards are shuffled and dealt out in one row, cut into `world` parts of equal length, so that a shard belongs to one
    process, or to two where the cut falls inside of it. Each part is gone through by windows, runs of shards that have
    `window` bytes together (one shard at least), and within a window the items are shuffled.

    `shard_of` (N,): the shard of each item; `bytes_of`: the size of each shard. A pure function of its arguments.
    """
    random = np.random.default_rng([seed, epoch])
    rank_of_shard = np.empty(len(bytes_of), np.int64)
    rank_of_shard[random.permutation(len(bytes_of))] = np.arange(len(bytes_of))
    row = np.argsort(rank_of_shard[shard_of], kind="stable")  # items, shard by shard
    size = len(row)
    found = np.empty(size, np.int64)
    first = 0
    for rank in range(world):
        count = len(range(rank, size, world))
        found[rank::world] = _windowed(row[first : first + count], shard_of, bytes_of, window, random)
        first += count
    return found


def _windowed(
    items: np.ndarray, shard_of: np.ndarray, bytes_of: np.ndarray, window: int, random: np.random.Generator
) -> np.ndarray:
    """Items that come shard by shard, shuffled within each window."""
    shards = shard_of[items]
    starts = np.flatnonzero(np.diff(shards, prepend=-1))  # where each shard begins
    cuts: list[int] = []
    held = 0
    for start in starts.tolist():
        size = int(bytes_of[shards[start]])
        if not cuts or held + size > window:
            cuts.append(start)
            held = 0
        held += size
    parts = np.split(items, cuts[1:]) if cuts else [items]
    return np.concatenate([random.permutation(part) for part in parts])


def visits(shards: np.ndarray) -> list[tuple[int, int]]:
    """Of the shards (n,) that one process reads one after the other: each with the place of its first reading."""
    found, places = np.unique(shards, return_index=True)
    return sorted(((int(place), int(shard)) for shard, place in zip(found, places, strict=True)))
