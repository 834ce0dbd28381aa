"""The report of a sweep of distillation: a table for each setting, and a picture of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dvsn.report.painter import BLUE, GREEN, GREY, Axis, Canvas
from dvsn.report.runs import ALONE, Row, Section
from dvsn.report.table import Report, Table

COLUMNS = ("method", "weight", "seeds", "last", "best", "gain", "gap closed", "s/epoch", "peak MiB")
EXPLANATION = (
    "Last and best score: mean and standard deviation over seeds; ranked by the last epoch's. Gain: over the student",
    "alone, positive is better. Gap closed: share of the way from the student alone to the teacher.",
)


def report(sections: Sequence[Section], unfinished: int) -> Report:
    """All forms of the report. `unfinished` counts the runs that have no result."""
    lines, marked = [], []
    note = [f"{unfinished} runs have no result yet, or failed."] if unfinished else []
    for section in sections:
        table = Table(head(section), COLUMNS, [cells(row) for row in section.rows], left=frozenset((0, 1)))
        lines += [*table.text(), *shipped(section), ""]
        marked += [*table.markdown(), "", *([*shipped(section), ""] if shipped(section) else [])]
    return Report(
        name="report",
        text="\n".join([*lines, *note]) + "\n",
        markdown="\n".join([*marked, *EXPLANATION, *note]) + "\n",
        rows=csv_rows(sections),
        picture=picture(sections),
    )


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def spread(row: Row, name: str) -> str:
    """Mean and deviation, such as 0.7312 +- 0.0021."""
    deviation = row.deviation(name)
    return number(row.mean(name)) + ("" if deviation is None else f" +- {deviation:.4f}")


def cells(row: Row) -> tuple[str, ...]:
    peak = row.mean("peak_bytes")
    return (
        row.method,
        row.weight,
        str(row.seeds),
        spread(row, "last"),
        spread(row, "best"),
        "-" if row.gain is None else f"{row.gain:+.4f}",
        "-" if row.share is None else f"{100 * row.share:.0f} %",
        number(row.mean("epoch_seconds"), 2),
        "-" if peak is None else f"{peak / 2**20:.0f}",
    )


def head(section: Section) -> str:
    teacher = "" if section.teacher is None else f", teacher {section.teacher:.4f}"
    return f"{section.monitor}{teacher}{': ' if section.title else ''}{section.title}"


def shipped(section: Section) -> list[str]:
    """A line where methods ship networks of unequal size, which a comparison of scores must know."""
    sizes: dict[int, list[str]] = {}
    for row in section.rows:
        for size in sorted({run.parameters for run in row.runs if run.parameters is not None}):
            sizes.setdefault(size, []).append(row.method)
    if len(sizes) < 2:
        return []
    listed = "; ".join(f"{', '.join(rows)} {size:,}" for size, rows in sizes.items())
    return [f"Parameters as shipped: {listed}."]


def csv_rows(sections: Sequence[Section]) -> list[dict[str, Any]]:
    return [
        {
            "setting": section.title, "monitor": section.monitor, "teacher": section.teacher,
            "method": row.method, "weight": row.weight, "seeds": row.seeds,
            "last_mean": row.mean("last"), "last_deviation": row.deviation("last"),
            "best_mean": row.mean("best"), "best_deviation": row.deviation("best"),
            "gain": row.gain, "gap_closed": row.share,
            "epoch_seconds": row.mean("epoch_seconds"), "peak_memory_bytes": row.mean("peak_bytes"),
            "parameters": row.mean("parameters"),
        }
        for section in sections
        for row in section.rows
    ]  # fmt: skip


# The picture ---------------------------------------------------------------------------------------------

LINE, LEFT, WIDE = 26, 230, 460  # pixels: the height of a row, where the axis begins, and its length


def picture(sections: Sequence[Section]) -> np.ndarray:
    """(H, W, 3) RGB: of each method the last score of every seed as a dot and their mean as a bar; the scores of the
    student alone and of the teacher as lines."""
    canvas = Canvas(sum(LINE * (len(section.rows) + 3) for section in sections), LEFT + WIDE + 130)
    top = 0
    for section in sections:
        plot(canvas, section, top)
        top += LINE * (len(section.rows) + 3)
    return canvas.pixels


def plot(canvas: Canvas, section: Section, top: int) -> None:
    """One section, from the pixel row `top` on."""
    scores = [run.last for row in section.rows for run in row.runs]
    place = Axis([*scores, *([] if section.teacher is None else [section.teacher])], LEFT, WIDE)
    canvas.words(head(section)[:90], 8, top + LINE - 8)
    first, last = top + LINE + 4, top + LINE * (len(section.rows) + 1) + 4
    alone = next((row.mean("last") for row in section.rows if row.method == ALONE), None)
    for score, colour, word in ((section.teacher, GREEN, "teacher"), (alone, GREY, "alone")):
        if score is not None:
            canvas.line((place(score), first), (place(score), last), colour)
            canvas.words(word, place(score) - 20, last + 16, colour, 0.38)
    for index, row in enumerate(section.rows):
        middle = first + LINE * index + LINE // 2
        colour = GREY if row.method == ALONE else BLUE
        mean, deviation = row.mean("last") or 0.0, row.deviation("last") or 0.0
        canvas.words(row.method[:26], 8, middle + 5)
        canvas.line((place(mean - deviation), middle), (place(mean + deviation), middle), colour, 2)
        canvas.line((place(mean), middle - 7), (place(mean), middle + 7), colour, 3)
        for run in row.runs:
            canvas.dot((place(run.last), middle), colour, 3, filled=False)
        canvas.words(f"{mean:.4f}", LEFT + WIDE + 20, middle + 5, colour)
