"""How far a run is, as text of a given width. No torch, and nothing of a run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

BARS = (20, 10, 0)
"""Lengths of the bar in characters, the first that fits is taken."""
LETTERS = (None, 4, 3)
"""How many letters the words of a loss's name keep, likewise."""
Values = Mapping[str, float]


class Position(NamedTuple):
    """Where a run is."""

    title: str
    """What is done, such as epoch 3/10."""
    done: int
    total: int | None
    """Batches of it; None where nobody knows how many."""
    rate: float | None
    """Pictures a second."""
    left: float | None
    """Seconds until it is done."""
    run_left: float | None
    """Seconds until the run is done."""


def line(position: Position, losses: Values, width: int, *, plain: bool = False) -> str:
    """One line of at most `width` characters.

    The bar is shortened first, then the names of the losses; then the count becomes a share, and the last losses are
    left out. `plain` draws the bar in ASCII.
    """
    for letters, bar in itertools.product(LETTERS, BARS):
        text = "  ".join([head(position, bar, plain=plain), *named(losses, letters)])
        if len(text) <= width:
            return text
    parts = [head(position, None, plain=plain), *named(losses, LETTERS[-1])]
    while len(parts) > 1 and len("  ".join(parts)) > width:
        parts.pop()
    return "  ".join(parts)[:width]


def head(position: Position, bar: int | None, *, plain: bool) -> str:
    """Title, bar of so many characters, count, rate and times. With `bar` None only title, share and times."""
    done, total = position.done, position.total
    parts = [position.title]
    if bar is None:
        parts.append(f"{100 * done // total}%" if total else str(done))
    else:
        if bar and total:
            full = min(bar, bar * done // total)
            parts.append("#" * full + "-" * (bar - full) if plain else "━" * full + "╌" * (bar - full))
        parts.append(f"{done}/{total}" if total else str(done))
        if position.rate is not None:
            parts.append(f"{spoken_rate(position.rate)}/s")
    times = [clock(position.left)] if position.left is not None else []
    times += [f"run {clock(position.run_left)}"] if position.run_left is not None else []
    if times:
        parts.append(f"{', '.join(times)} left")
    return "  ".join(parts)


def named(values: Values, letters: int | None = None) -> list[str]:
    """`gan 0.91` for each value, the words of its name cut to so many letters."""
    return [f"{shortened(name, letters)} {spoken(value)}" for name, value in values.items()]


def shortened(name: str, letters: int | None) -> str:
    return name if letters is None else "_".join(word[:letters] for word in name.split("_"))


def spoken(value: float) -> str:
    """Three digits: 0.0123, 1.20, 12.3, 123."""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def spoken_rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def clock(seconds: float) -> str:
    """0:07, 12:30, 3:04:00 or 2 d 04:10."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
