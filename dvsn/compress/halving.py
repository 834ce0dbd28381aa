"""Successive halving: all students are trained a little, the better of them more (Jamieson and Talwalkar, 2016,
arXiv:1502.07943). Each rung trains anew, because schedules of the learning rate depend on how long a training is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dvsn.errors import ConfigError
from dvsn.report.pareto import front

START = 15.0
"""Seconds that a training takes beside its epochs."""
RESERVE = 0.2
"""The share of the hours that is left for exports and measurements."""


@dataclass(frozen=True)
class Rung:
    """So many students, each trained for so many epochs."""

    epochs: int
    students: int


@dataclass(frozen=True)
class Trained:
    """A student after a rung."""

    name: str
    score: float
    """By the sign of the score: more is better."""
    latency: float


def rungs(students: int, *, epochs: int, count: int, keep: float, finalists: int) -> list[Rung]:
    """`count` rungs, of which the last has `finalists` students and `epochs`, each before it `keep` times as many students
    and that part of the epochs; no rung has more than `students` or less than one epoch."""
    found = []
    for number in range(count):
        size = max(finalists, math.ceil(students / keep**number))
        if number == count - 1 and count > 1:
            size = finalists
        found.append(Rung(max(1, round(epochs / keep ** (count - 1 - number))), min(size, students)))
    return found


def seconds(plan: Sequence[Rung], *, epoch: float, seeds: int) -> float:
    """How long a plan takes, of trainings of `epoch` seconds an epoch; the last rung is trained with every seed."""
    total = 0.0
    for number, rung in enumerate(plan):
        runs = rung.students * (seeds if number == len(plan) - 1 else 1)
        total += runs * (START + rung.epochs * epoch)
    return total


def affordable(
    students: int, *, hours: float, epoch: float, seeds: int, count: int, keep: float, finalists: int
) -> list[Rung]:
    """The longest plan that fits into the hours, of which a part is left for what follows. Raises `ConfigError` where not
    even one epoch a rung does."""
    time = 3600 * hours * (1 - RESERVE)

    def plan(epochs: int) -> list[Rung]:
        return rungs(students, epochs=epochs, count=count, keep=keep, finalists=finalists)

    least = seconds(plan(1), epoch=epoch, seeds=seeds)
    if least > time:
        needed = math.ceil(100 * least / (1 - RESERVE) / 3600) / 100
        raise ConfigError(
            f"hours: found {hours:g}, but {students} students, an epoch of about {epoch:.0f} s each, take at least "
            f"{needed:g} hours. Give hours={needed:g} or more, or fewer candidates, methods or rungs."
        )
    epochs = 1
    while seconds(plan(2 * epochs), epoch=epoch, seeds=seeds) <= time and epochs < 4096:
        epochs *= 2
    step = epochs // 2
    while step:
        if seconds(plan(epochs + step), epoch=epoch, seeds=seeds) <= time:
            epochs += step
        step //= 2
    return plan(epochs)


def best(trained: Sequence[Trained], count: int, *, by_latency: bool) -> list[Trained]:
    """The `count` best, in order.

    Where latency has a bound, all students meet it, and the score alone decides. Else (`by_latency`) the front of score and
    latency goes first, then the front of the rest, and so on; within a front the higher score.
    """
    left = sorted(trained, key=lambda each: (-each.score, each.latency, each.name))
    if not by_latency:
        return left[:count]
    found: list[Trained] = []
    while left and len(found) < count:
        on = front([(each.latency, each.score) for each in left])
        found += [each for at, each in enumerate(left) if at in on]
        left = [each for at, each in enumerate(left) if at not in on]
    return found[:count]


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (of a sample) of the scores of seeds; None of one alone."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def known(
    scores: Mapping[str, float | None], latencies: Mapping[str, float], *, sign: float
) -> list[Trained]:
    """The students that have a finite score."""
    return [
        Trained(name, sign * score, latencies[name])
        for name, score in scores.items()
        if score is not None and math.isfinite(score)
    ]
