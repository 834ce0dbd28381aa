"""Successive halving against plain counts."""

from __future__ import annotations

import itertools
import random

import pytest

from dvsn.compress.halving import (
    RESERVE,
    START,
    Rung,
    Trained,
    affordable,
    best,
    known,
    rungs,
    seconds,
    spread,
)
from dvsn.errors import ConfigError


def test_a_third_goes_on_with_three_times_the_epochs() -> None:
    assert rungs(18, epochs=27, count=3, keep=3, finalists=2) == [Rung(3, 18), Rung(9, 6), Rung(27, 2)]
    assert rungs(18, epochs=4, count=3, keep=3, finalists=2) == [Rung(1, 18), Rung(1, 6), Rung(4, 2)]
    assert rungs(3, epochs=9, count=3, keep=3, finalists=2) == [Rung(1, 3), Rung(3, 2), Rung(9, 2)]
    assert rungs(1, epochs=9, count=2, keep=3, finalists=2) == [Rung(3, 1), Rung(9, 1)]
    assert rungs(5, epochs=9, count=1, keep=3, finalists=2) == [Rung(9, 5)]  # nothing to halve


def test_the_time_of_a_plan() -> None:
    plan = [Rung(3, 6), Rung(9, 2)]
    assert seconds(plan, epoch=10.0, seeds=3) == 6 * (START + 30) + 2 * 3 * (START + 90)


@pytest.mark.parametrize("hours", [0.5, 1.0, 7.3])
def test_the_longest_plan_that_fits(hours: float) -> None:
    shape = {"count": 3, "keep": 3.0, "finalists": 2}
    time = 3600 * hours * (1 - RESERVE)
    longest = max(
        n
        for n in range(1, 2000)
        if seconds(rungs(9, epochs=n, **shape), epoch=8.0, seeds=2) <= time  # type: ignore[arg-type]
    )
    found = affordable(9, hours=hours, epoch=8.0, seeds=2, **shape)  # type: ignore[arg-type]
    assert found[-1].epochs == longest


def test_hours_that_are_too_few_name_those_that_are_enough() -> None:
    shape = {"epoch": 100.0, "seeds": 1, "count": 2, "keep": 3.0, "finalists": 1}
    with pytest.raises(
        ConfigError, match=r"hours: found 0\.1, but 9 students.*Give hours=(\S+) or more"
    ) as error:
        affordable(9, hours=0.1, **shape)  # type: ignore[arg-type]
    advised = float(str(error.value).split("Give hours=")[1].split()[0])
    assert affordable(9, hours=advised, **shape)[-1].epochs == 1  # type: ignore[arg-type]


def layers(points: list[Trained]) -> list[list[str]]:
    """Fronts of fronts, by the definition."""
    left, found = list(points), []
    while left:
        on = [
            a for a in left
            if not any((b.score >= a.score and b.latency < a.latency) or (b.score > a.score and b.latency <= a.latency)
                       for b in left)
        ]  # fmt: skip
        found.append(sorted(each.name for each in on))
        left = [each for each in left if each not in on]
    return found


def test_without_a_bound_fronts_go_first() -> None:
    draw = random.Random(0)
    points = [Trained(f"s{n}", draw.randrange(8) / 10, draw.randrange(1, 8)) for n in range(24)]
    order = [each.name for each in best(points, len(points), by_latency=True)]
    expected = layers(points)
    cuts = list(itertools.accumulate(map(len, expected), initial=0))
    assert [sorted(order[a:b]) for a, b in itertools.pairwise(cuts)] == expected
    by_score = best(points, 5, by_latency=False)
    assert [each.score for each in by_score] == sorted((each.score for each in points), reverse=True)[:5]


def test_an_error_counts_by_its_sign() -> None:
    found = known({"a": 0.2, "b": 0.1, "c": None, "d": float("nan")}, dict.fromkeys("abcd", 1.0), sign=-1.0)
    assert [each.name for each in best(found, 2, by_latency=False)] == ["b", "a"]


def test_the_deviation_of_seeds() -> None:
    assert spread([0.5]) == (0.5, None)
    assert spread([0.4, 0.5, 0.6]) == (pytest.approx(0.5), pytest.approx(0.1))
