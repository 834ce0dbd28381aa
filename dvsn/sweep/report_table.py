"""How the report of a sweep looks: text, Markdown, rows of a CSV, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from dvsn.sweep.runs import ALONE, Row, Section

COLUMNS = ("method", "weight", "seeds", "last", "best", "gain", "gap closed", "s/epoch", "peak MiB")


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


def text(sections: Sequence[Section], unfinished: int) -> str:
    """Aligned columns."""
    lines = []
    for section in sections:
        table = [COLUMNS, *map(cells, section.rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
        lines.append(head(section))
        for row in table:
            padded = [
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(padded).rstrip())
        lines += [*shipped(section), ""]
    return "\n".join([*lines, *note(unfinished)]) + "\n"


def shipped(section: Section) -> list[str]:
    """A line where methods ship networks of unequal size, which a comparison of scores must know."""
    sizes: dict[int, list[str]] = {}
    for row in section.rows:
        for size in sorted({run.parameters for run in row.runs if run.parameters is not None}):
            sizes.setdefault(size, []).append(row.method)
    if len(sizes) < 2:
        return []
    return [
        "Parameters as shipped: "
        + "; ".join(f"{', '.join(rows)} {size:,}" for size, rows in sizes.items())
        + "."
    ]


def note(unfinished: int) -> list[str]:
    return [f"{unfinished} runs have no result yet, or failed."] if unfinished else []


def markdown(sections: Sequence[Section], unfinished: int) -> str:
    lines = []
    for section in sections:
        lines += [
            f"**{head(section)}**",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * 2 + "|---:" * 7 + "|",
        ]
        lines += ["| " + " | ".join(cells(row)).replace("+-", "±") + " |" for row in section.rows]
        lines += ["", *([*shipped(section), ""] if shipped(section) else [])]
    lines.append(
        "Last and best score: mean and standard deviation over seeds; ranked by the last epoch's. Gain: over the student"
    )
    lines.append(
        "alone, positive is better. Gap closed: share of the way from the student alone to the teacher."
    )
    return "\n".join([*lines, *note(unfinished)]) + "\n"


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

LINE, LEFT, WIDE, FONT = 26, 230, 460, cv2.FONT_HERSHEY_SIMPLEX
BLUE, GREY, GREEN, BLACK = (60, 110, 200), (150, 150, 150), (0, 130, 60), (30, 30, 30)


def picture(sections: Sequence[Section]) -> np.ndarray:
    """RGB: of each method the last score of every seed as a dot, their mean as a bar, and the student alone and the teacher
    as lines."""
    height = sum(LINE * (len(section.rows) + 3) for section in sections)
    canvas = np.full((height, LEFT + WIDE + 130, 3), 255, np.uint8)
    top = 0
    for section in sections:
        plot(canvas, section, top)
        top += LINE * (len(section.rows) + 3)
    return canvas


def plot(canvas: np.ndarray, section: Section, top: int) -> None:
    scores = [run.last for row in section.rows for run in row.runs]
    scores += [] if section.teacher is None else [section.teacher]
    low, high = min(scores), max(scores)
    margin = 0.08 * (high - low) or 0.01 * (abs(high) or 1.0)
    low, high = low - margin, high + margin

    def place(score: float) -> int:
        return LEFT + round(WIDE * (score - low) / (high - low))

    write(canvas, head(section)[:90], 8, top + LINE - 8, BLACK)
    first, last = top + LINE + 4, top + LINE * (len(section.rows) + 1) + 4
    for score, colour, word in (
        (section.teacher, GREEN, "teacher"),
        (next((row.mean("last") for row in section.rows if row.method == ALONE), None), GREY, "alone"),
    ):
        if score is not None:
            cv2.line(canvas, (place(score), first), (place(score), last), colour, 1, cv2.LINE_AA)
            write(canvas, word, place(score) - 20, last + 16, colour, 0.38)
    for index, row in enumerate(section.rows):
        middle = first + LINE * index + LINE // 2
        colour = GREY if row.method == ALONE else BLUE
        write(canvas, row.method[:26], 8, middle + 5, BLACK)
        mean = row.mean("last") or 0.0
        deviation = row.deviation("last") or 0.0
        cv2.line(
            canvas,
            (place(mean - deviation), middle),
            (place(mean + deviation), middle),
            colour,
            2,
            cv2.LINE_AA,
        )
        cv2.line(canvas, (place(mean), middle - 7), (place(mean), middle + 7), colour, 3, cv2.LINE_AA)
        for run in row.runs:
            cv2.circle(canvas, (place(run.last), middle), 3, colour, 1, cv2.LINE_AA)
        write(canvas, f"{mean:.4f}", LEFT + WIDE + 20, middle + 5, colour)


def write(
    canvas: np.ndarray, words: str, left: int, base: int, colour: tuple[int, int, int], size: float = 0.45
) -> None:
    cv2.putText(canvas, words, (left, base), FONT, size, colour, 1, cv2.LINE_AA)
