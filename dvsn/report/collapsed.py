"""Which runs of a sweep have collapsed, and why they count as such."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from dvsn.report.runs import Run

FAR = 5.0
"""A run is collapsed where it lies more than so many robust deviations below the median of its section."""
ENOUGH = 5
"""Runs of a section, at least, for its median to judge one of them."""
NEAR = 1.1
"""A score below 1.1 times that of guessing is no better than guessing."""


def judged(runs: Sequence[Run]) -> list[Run]:
    """The runs of a section, each with why it counts as collapsed: see `why_collapsed`.

    Copies, since a student alone may be in several sections, with a verdict in each.
    """
    known = [run.sign * run.last for run in runs if run.last is not None]
    return [
        replace(run, collapsed=why_collapsed(run.last, known, sign=run.sign, chance=run.chance))
        for run in runs
    ]


def why_collapsed(
    score: float | None, known: Sequence[float], *, sign: float, chance: float | None = None
) -> str:
    """Why a run counts as collapsed; empty where it does not.

    It is, where its score is not finite, is below 1.1 times that of guessing, or lies more than five robust standard
    deviations (1.4826 times the median absolute deviation) on the bad side of the median of `known`, the scores of the
    section times their sign, five or more. The deviation is taken as one percent of the median at least.
    """
    if score is None:
        return "no finite score"
    if chance is not None and sign > 0 and score < NEAR * chance:
        return f"no better than guessing, {chance:.3g}"
    if len(known) < ENOUGH:
        return ""
    middle = statistics.median(known)
    usual = 1.4826 * statistics.median(abs(value - middle) for value in known)
    usual = max(usual, 0.01 * abs(middle))
    if usual > 0 and middle - sign * score > FAR * usual:
        return f"{(middle - sign * score) / usual:.0f} deviations from the median {sign * middle:.4g}"
    return ""
