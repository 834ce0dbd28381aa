"""The report of a sweep in words and numbers: a ranked table for each setting, as text, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dvsn.report.paired import CHANCE, LEVEL, compare, lowest_p
from dvsn.report.pareto import arenas
from dvsn.report.ranking import Row, Section, Spread, scores, unit
from dvsn.report.runs import ALONE, Found, Open
from dvsn.report.table import Report, Table

COLUMNS = (
    "method", "weight", "seeds", "last", "best", "gain", "gap closed", "pairs", "p", "verdict", "s/epoch", "peak MiB",
    "parameters",
)  # fmt: skip
LEFT = frozenset((0, 1, 9))
EXPLANATION = (
    "Last and best score: mean and standard deviation over seeds; ranked by the last epoch's. Gain: over the student",
    "alone, positive is better. Gap closed: share of the way from the student alone to the teacher. Pairs, p: seeds that a",
    "row shares with the row it is compared with, and the exact paired permutation test of their differences, two-sided.",
)
SHOWN = 8
"""So many runs are named in a note; the rest are counted."""


def report(sections: Sequence[Section], found: Found) -> Report:
    """The report as text, Markdown and CSV."""
    lines, marked = [], []
    for overview in overviews(sections):
        lines += [*overview.text(), ""]
        marked += [*overview.markdown(), ""]
    for section in sections:
        names, rows, left = columns(section)
        table = Table(head(section), names, rows, left=left)
        notes = notes_of(section)
        lines += [*table.text(), *notes, ""]
        marked += [*table.markdown(), "", *(line for note in notes for line in (note, ""))]
    last = [*unfinished(found.open), *left_out(found.notes), *found.remarks]
    return Report(
        name="report",
        text="\n".join([*lines, *last]) + "\n",
        markdown="\n".join([*marked, *EXPLANATION, *([""] if last else []), *last]) + "\n",
        rows=csv_rows(sections),
    )


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def spread(value: Spread) -> str:
    """Mean and deviation, such as 0.7312 +- 0.0021."""
    return number(value.mean) + ("" if value.deviation is None else f" +- {value.deviation:.4f}")


def cells(row: Row) -> tuple[str, ...]:
    tested = row.comparison
    return (
        row.method,
        row.weight,
        str(row.seeds),
        spread(row.last),
        spread(row.best),
        gain_of(row),
        "-" if row.share is None else f"{100 * row.share:.0f} %",
        "-" if tested is None else str(tested.pairs),
        "-" if tested is None or tested.p is None else f"{tested.p:.2g}",
        verdict(row),
        number(row.epoch_seconds, 2),
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
        "-" if row.parameters is None else f"{row.parameters:,.0f}",
    )


def verdict(row: Row) -> str:
    """What the comparison says, and how many runs have collapsed; `-` for a row that is compared with none."""
    said = [] if row.comparison is None else [row.comparison.verdict]
    if row.collapsed:
        said.append(f"{row.collapsed} of {row.seeds} collapsed")
    return ", ".join(said) or "-"


def columns(section: Section) -> tuple[list[str], list[list[str]], frozenset[int]]:
    """Names, rows and the left-aligned columns, without columns in which no row says anything."""
    rows = [cells(row) for row in section.rows]
    kept = [
        place for place in range(len(COLUMNS)) if place in (0, 2, 3) or any(row[place] != "-" for row in rows)
    ]
    left = frozenset(new for new, old in enumerate(kept) if old in LEFT)
    return [COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows], left


def overviews(sections: Sequence[Section]) -> list[Table]:
    """The best row of each setting, for tasks and data with several of them; the best setting first."""
    names = ("setting", "best row", "seeds", "last", "gain", "verdict")
    found = []
    for arena in (each for each in arenas(sections) if len(each) > 1):
        rows = [
            (
                section.title or "-",
                named(best),
                str(best.seeds),
                spread(best.last),
                gain_of(best),
                verdict(best),
            )
            for section in arena
            for best in section.rows[:1]
        ]
        title = f"The best row of each of {len(arena)} settings by {arena[0].monitor}"
        found.append(Table(title, names, rows, left=frozenset((0, 1, 5))))
    return found


def gain_of(row: Row) -> str:
    return "-" if row.gain is None else f"{row.gain:+.4f}"


def measured(monitor: str) -> str:
    """A score with its unit, such as `val/top1 (share, 0 to 1)`."""
    return f"{monitor} ({unit(monitor)})" if unit(monitor) else monitor


def head(section: Section) -> str:
    parts = [measured(section.monitor), "more is better" if section.sign > 0 else "less is better"]
    if section.teacher is not None:
        parts.append(f"teacher {section.teacher:.4f}")
    task = f"{section.task}: " if section.task else ""
    return f"{task}{', '.join(parts)}{'; ' if section.title else ''}{section.title}"


def named(row: Row) -> str:
    """The method with its weight."""
    return row.method if row.weight == "-" else f"{row.method}, {row.weight}"


# Sentences ------------------------------------------------------------------------------------------------


def notes_of(section: Section) -> list[str]:
    """What a reader of the table must know, a sentence each."""
    return [*first_rows(section), *doubt(section), *fallen(section), *shipped(section), *section.notes]


def first_rows(section: Section) -> list[str]:
    """How far the first row is before the second."""
    if len(section.rows) < 2:
        return []
    first, second = section.rows[:2]
    if first.last.mean is None or second.last.mean is None or not first.dots or not second.dots:
        return []
    found = compare(scores(first), scores(second), sign=section.sign)
    ahead = section.sign * (first.last.mean - second.last.mean)
    return [f"First and second ({named(first)}; {named(second)}) differ by {ahead:.4f}; {found.reason}."]


def doubt(section: Section) -> list[str]:
    """How many of the comparisons may be chance, and why."""
    tested = [row.comparison for row in section.rows if row.comparison is not None]
    if not tested or not section.reference:
        return []
    open_ones = sum(each.verdict == CHANCE for each in tested)
    said = [
        f"Compared with {section.reference}, {open_ones} of {len(tested)} rows {'differ' if len(tested) > 1 else 'differs'} "
        f"by what {CHANCE} (p above {LEVEL:g}, or too few seeds to tell)."
    ]
    most = max(each.pairs for each in tested)
    if most < 2:
        said.append("There are no two pairs of seeds, so that nothing can be tested.")
    elif most < 6:
        said.append(
            f"With {most} pairs of seeds p cannot be below {lowest_p(most):.2g}; six or more could show a difference."
        )
    if len(tested) - open_ones and len(tested) > 1:
        said.append(
            f"p is of each row by itself: of 20 methods without an effect one would have p below {LEVEL:g}."
        )
    return [" ".join(said)]


def fallen(section: Section) -> list[str]:
    """The collapsed runs by name."""
    found = [
        f"{named(row)}, seed {dot.seed}: {dot.collapsed}"
        for row in section.rows
        for dot in row.dots
        if dot.collapsed
    ]
    found += [named(row) for row in section.rows if row.collapsed and not row.dots]
    return [f"Collapsed: {several(found, '; ')}."] if found else []


def shipped(section: Section) -> list[str]:
    """A line where methods ship networks of unequal size, which a comparison of scores must know."""
    sizes: dict[float, list[str]] = {}
    for row in section.rows:
        if row.parameters is not None:
            sizes.setdefault(row.parameters, []).append(row.method)
    if len(sizes) < 2 or section.reference != ALONE:
        return []
    listed = "; ".join(f"{several(rows)} {size:,.0f}" for size, rows in sizes.items())
    return [f"Parameters as shipped: {listed}."]


def several(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - SHOWN
    return between.join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def unfinished(runs: Sequence[Open]) -> list[str]:
    if not runs:
        return []
    names = [f"{run.folder.name}{f' ({run.method})' if run.method else ''}" for run in runs]
    return [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} without a result, still running, killed or failed: {several(names)}."
    ]


def left_out(notes: Sequence[str]) -> list[str]:
    """Of the runs that could not be read."""
    if not notes:
        return []
    more = len(notes) - SHOWN
    listed = [f"  {note}" for note in notes[:SHOWN]] + ([f"  and {more} more"] if more > 0 else [])
    return [f"{len(notes)} run{'s' if len(notes) > 1 else ''} left out:", *listed]


def csv_rows(sections: Sequence[Section]) -> list[dict[str, Any]]:
    return [
        {
            "setting": section.title, "monitor": section.monitor, "teacher": section.teacher,
            "method": row.method, "weight": row.weight, "seeds": row.seeds,
            "last_mean": row.last.mean, "last_deviation": row.last.deviation,
            "best_mean": row.best.mean, "best_deviation": row.best.deviation,
            "gain": row.gain, "gap_closed": row.share,
            "epoch_seconds": row.epoch_seconds, "peak_memory_bytes": row.peak_bytes, "parameters": row.parameters,
            "latency_ms": row.latency, "pairs": row.comparison and row.comparison.pairs,
            "p": row.comparison and row.comparison.p, "verdict": row.comparison and row.comparison.verdict,
            "collapsed": row.collapsed, "better": "more" if section.sign > 0 else "less", "task": section.task,
        }
        for section in sections
        for row in section.rows
    ]  # fmt: skip
