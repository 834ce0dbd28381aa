"""Which rows of a sweep are worth their cost: score against training time, parameters and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dvsn.report.ranking import Row, Section


@dataclass(frozen=True)
class Cost:
    """What a row costs, as an axis."""

    key: str
    """The attribute of a `Row`."""
    title: str
    """With its unit."""
    scale: float = 1.0


COSTS = (
    Cost("epoch_seconds", "training time, seconds an epoch"),
    Cost("parameters", "parameters, millions", 1e-6),
    Cost("latency", "latency, milliseconds a picture"),
)


@dataclass(frozen=True)
class Point:
    """A row at its cost and score."""

    name: str
    cost: float
    score: float
    front: bool
    """Whether no other row is better at no greater cost. Rows with collapsed runs do not take part."""
    collapsed: bool
    alone: bool
    rank: int = 0
    """In the table of its section, from 1; 0 where several sections share the axis."""


def arenas(sections: Sequence[Section]) -> list[list[Section]]:
    """The sections whose scores lie on one axis, together."""
    found: dict[int, list[Section]] = {}
    for each in sections:
        found.setdefault(each.arena, []).append(each)
    return list(found.values())


Panel = tuple[list[Section], list[tuple[Cost, list[Point]]]]


def panels(sections: Sequence[Section]) -> list[Panel]:
    """The arenas of which a cost is known and differs, with the points of each such cost."""
    found = []
    for arena in arenas(sections):
        known = [(cost, places) for cost in COSTS if (places := points(arena, cost))]
        if known:
            found.append((arena, known))
    return found


def points(sections: Sequence[Section], cost: Cost) -> list[Point]:
    """The rows of an arena with a score and that cost; none where fewer than two costs differ. The cheapest first."""
    sign, several = sections[0].sign, len(sections) > 1
    known: list[tuple[str, float, float, Row, int]] = []
    for section in sections:
        for rank, row in enumerate(section.rows, 1):
            value = getattr(row, cost.key)
            if value is not None and row.last.mean is not None:
                name = f"{row.method} ({section.title})" if several and section.title else row.method
                known.append((name, value * cost.scale, row.last.mean, row, 0 if several else rank))
    if len({value for _, value, *_ in known}) < 2:
        return []
    sound = [at for at, (*_, row, _) in enumerate(known) if not row.collapsed]
    on_front = {sound[at] for at in front([(known[at][1], sign * known[at][2]) for at in sound])}
    found = [
        Point(name, value, score, at in on_front, row.collapsed > 0, row.alone, rank)
        for at, (name, value, score, row, rank) in enumerate(known)
    ]
    return sorted(found, key=lambda point: (point.cost, -sign * point.score))


def front(places: Sequence[tuple[float, float]]) -> set[int]:
    """The numbers of those (cost, gain) that no other dominates: less cost and no less gain, or no more cost and more."""
    found, best = set[int](), None
    for at in sorted(range(len(places)), key=lambda at: (places[at][0], -places[at][1])):
        cost, gain = places[at]
        if best is None or gain > best[1] or (cost, gain) == best:
            found.add(at)
            best = cost, gain
    return found
