"""The Pareto front, against every pair."""

from __future__ import annotations

import random

import pytest

from dvsn.report.pareto import COSTS, arenas, front, points
from dvsn.report.ranking import Row, Section, Spread


def dominated(places: list[tuple[float, float]]) -> set[int]:
    """Those that another beats: no dearer and no worse, and different in one of both."""
    return {
        at
        for at, (cost, gain) in enumerate(places)
        if any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in places)
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_dominates(seed: int) -> None:
    drawn = random.Random(seed)
    places = [(float(drawn.randint(0, 5)), float(drawn.randint(0, 5))) for _ in range(12)]
    assert front(places) == set(range(12)) - dominated(places)


def row(name: str, score: float | None, seconds: float | None, collapsed: int = 0) -> Row:
    return Row(name, "-", 1, Spread(score), Spread(score), epoch_seconds=seconds, collapsed=collapsed)


def test_rows_with_both_are_points_and_collapsed_ones_are_not_on_the_front() -> None:
    rows = [
        row("a", 0.3, 2.0),
        row("b", 0.2, 1.0),
        row("c", 0.4, 0.5, 1),
        row("d", None, 1.0),
        row("e", 0.5, None),
    ]
    section = Section("", "val/top1", 1.0, None, rows)
    found = points([section], COSTS[0])
    assert [(point.name, point.front, point.collapsed) for point in found] == [
        ("c", False, True), ("b", True, False), ("a", True, False)
    ]  # fmt: skip
    assert [point.rank for point in found] == [3, 2, 1], "as in the table"
    assert (
        points([Section("", "val/nme", -1.0, None, rows[:2])], COSTS[0])[1].front is False
    )  # less is better: a is beaten
    assert points([Section("", "x", 1.0, None, [row("a", 0.1, 1.0), row("b", 0.2, 1.0)])], COSTS[0]) == []
    other = Section("other", "val/top1", 1.0, None, [row("a", 0.9, 9.0)], arena=0)
    assert arenas([section, other]) == [[section, other]]
    assert {point.rank for point in points([section, other], COSTS[0])} == {0}, "two tables, two firsts"
    assert "a (other)" in [point.name for point in points([section, other], COSTS[0])]
