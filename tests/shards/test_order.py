"""The order of an epoch over shards: every item once, few shards at a time, each process its own."""

from __future__ import annotations

import numpy as np
import pytest

from dvsn.shards.order import order, visits

COUNTS = np.array([5, 7, 6, 4, 8, 3])
SHARD_OF = np.repeat(np.arange(6), COUNTS)
BYTES = COUNTS * 10


def made(*, epoch: int = 0, world: int = 1, window: int = 100, seed: int = 3) -> np.ndarray:
    return order(SHARD_OF, BYTES, seed=seed, epoch=epoch, world=world, window=window)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_item_once_and_the_same_again(world: int) -> None:
    assert sorted(made(world=world)) == list(range(33))
    np.testing.assert_array_equal(made(world=world), made(world=world))
    assert made(world=world).tolist() != made(world=world, epoch=1).tolist()
    assert made(world=world).tolist() != made(world=world, seed=4).tolist()


def test_a_window_holds_so_many_bytes() -> None:
    """Runs of shards by hand: with room for one shard each comes by itself, shuffled inside."""
    alone = made(window=1)
    shards = SHARD_OF[alone]
    assert len(np.flatnonzero(np.diff(shards))) == 5  # each begins once
    assert any(np.diff(alone[shards == 4]) < 0), "a shard is shuffled"
    for first in range(0, 33):  # with 100 bytes at most two or three shards that fit together are mixed
        near = np.unique(SHARD_OF[made(window=100)[first : first + 1]])
        assert len(near) == 1
    mixed = SHARD_OF[made(window=10**9)]
    assert len(np.flatnonzero(np.diff(mixed))) > 15  # one window: all are mixed


def test_a_window_ends_before_it_has_too_many_bytes() -> None:
    shards = SHARD_OF[made(window=150)]
    places = {shard: np.flatnonzero(shards == shard) for shard in range(6)}
    for place in range(33):
        open_now = [shard for shard, at in places.items() if at[0] <= place <= at[-1]]
        assert BYTES[open_now].sum() <= 150


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_shard_only_where_the_row_is_cut(world: int) -> None:
    found = made(world=world)
    own = [set(SHARD_OF[found[rank::world]]) for rank in range(world)]
    shared = sum(len(own[one] & own[other]) for one in range(world) for other in range(one))
    assert shared <= world - 1
    assert set.union(*own) == set(range(6))


def test_visits_come_by_their_first_place() -> None:
    assert visits(np.array([2, 2, 0, 2, 1, 0])) == [(0, 2), (2, 0), (4, 1)]
