"""What a run says of itself at its end, as plain text: its best and last scores, its classes, its times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dvsn.engine.progress_line import clock

FEW = 20
"""Classes that are listed."""
F1 = "f1"
"""Named instead of the first score: precision, which stands first then, says little without recall."""
Rows = Sequence[Mapping[str, Any]]


def score_table(result: Mapping[str, Any]) -> list[str]:
    """The best and the last validation beside each other: a line a score, the monitored one first."""
    last = scores_of(result.get("metrics"))
    if not last:
        return []
    best = scores_of(result.get("best_metrics"))
    monitor = str(result.get("monitor"))
    if (
        not best and result.get("best") is not None
    ):  # of an earlier part of the run, of which no more is known
        best = {monitor: float(result["best"])}
    names = sorted(last, key=lambda name: name != monitor)
    epochs = [f"epoch {number}" if number else "" for number in (result["best_epoch"], result["last_epoch"])]
    if not best:
        return aligned(
            [["", "last"], ["", epochs[1]], *([shorn(name), figure(last[name])] for name in names)]
        )
    lines = [["", "best", "last"], ["", *epochs]]
    return aligned(lines + [[shorn(name), figure(best.get(name)), figure(last[name])] for name in names])


def scores_of(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (metrics or {}).items() if name.startswith("val/")}


def class_table(classes: Mapping[str, Any] | None, *, few: int = FEW) -> list[str]:
    """One score of each class at the best and the last validation, and how much of the class there is; none of more
    than `few` classes."""
    last: Rows = (classes or {}).get("last") or []
    best: Rows = (classes or {}).get("best") or []
    if not last or len(last) > few:
        return []
    title, *columns = last[0]
    scores = [name for name in columns if any(type(row[name]) is float for row in last)]
    counts = [name for name in columns if all(type(row[name]) is int for row in last)]
    if not scores:
        return []
    score = F1 if F1 in scores else scores[0]
    earlier = {row[title]: row for row in best}
    shown = ["best", "last"] if earlier else ["last"]
    lines = [[title, *(f"{score} {which}" for which in shown), *counts[:1]]]
    for row in last:
        values = [earlier.get(row[title], {}).get(score), row[score]] if earlier else [row[score]]
        lines.append([str(row[title]), *map(figure, values), *(f"{row[name]:,}" for name in counts[:1])])
    return aligned(lines)


def time_line(times: Mapping[str, float] | None) -> str:
    """`forward 31 %, backward 52 %, validation 12 %, data 3 %, rest 2 % of 1:12:03`; empty without times."""
    total = sum((times or {}).values())
    if not times or total <= 0:
        return ""
    parts = ", ".join(f"{name} {value / total:.0%}" for name, value in times.items())
    return f"{parts} of {clock(total)}"


def shorn(name: str) -> str:
    return name.removeprefix("val/")


def figure(value: float | None) -> str:
    """Four digits, or a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
