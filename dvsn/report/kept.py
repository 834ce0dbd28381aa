"""A report.csv that was kept: its rows as sections, to draw the pictures again where the runs are gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from dvsn.errors import DataError
from dvsn.reading import Line, read_table
from dvsn.report.collapsed import why_collapsed
from dvsn.report.paired import Comparison
from dvsn.report.ranking import Row, Section, Spread
from dvsn.report.runs import ALONE

NEEDED = ("setting", "monitor", "teacher", "method", "weight", "seeds", "last_mean", "last_deviation")
LESS = ("nme", "l1", "fid", "kid", "lpips", "loss", "angle_error")
"""How scores begin of which less is better, for files that do not say it."""


def read(path: Path) -> list[Section]:
    """The sections of a file that `python -m dvsn.report` wrote. Raises `DataError` where it is none, naming the line."""
    head, *lines = read_table(path, expected="the report.csv of a sweep") or [Line(1, [])]
    missing = [name for name in NEEDED if name not in head.columns]
    if missing:
        raise DataError(
            f"{path}: is not the report.csv of a sweep; it has no column {', '.join(missing)}. Give a folder of runs, or "
            "the report.csv that python -m dvsn.report wrote."
        )
    found: dict[tuple[str, str, str], Section] = {}
    for each in lines:
        where = f"{path}: line {each.number}"
        if len(each.columns) != len(head.columns):
            raise DataError(f"{where}: has {len(each.columns)} columns, expected {len(head.columns)}.")
        line = dict(zip(head.columns, each.columns, strict=True))
        key = (line.get("task", ""), line["setting"], line["monitor"])
        if key not in found:
            found[key] = section_of(line, key, where)
        found[key].rows.append(row_of(line, where))
    if not found:
        raise DataError(f"{path}: has no rows. Expected one for each method.")
    for section in found.values():
        finish(section)
    return number_arenas(list(found.values()))


def section_of(line: Mapping[str, str], key: tuple[str, str, str], where: str) -> Section:
    task, title, monitor = key
    said = line.get("better") or ("less" if monitor.rpartition("/")[2].startswith(LESS) else "more")
    return Section(
        title, monitor, -1.0 if said == "less" else 1.0, value(line, "teacher", where), [], task=task
    )


def row_of(line: Mapping[str, str], where: str) -> Row:
    method = line["method"] or "-"
    seeds = value(line, "seeds", where)
    pairs, gain = value(line, "pairs", where), value(line, "gain", where)
    return Row(
        method=method,
        weight=line["weight"] or "-",
        seeds=int(seeds or 1),
        last=Spread(value(line, "last_mean", where), value(line, "last_deviation", where)),
        best=Spread(value(line, "best_mean", where), value(line, "best_deviation", where)),
        epoch_seconds=value(line, "epoch_seconds", where),
        peak_bytes=value(line, "peak_memory_bytes", where),
        parameters=value(line, "parameters", where),
        latency=value(line, "latency_ms", where),
        collapsed=int(value(line, "collapsed", where) or 0),
        alone=method == ALONE,
        gain=gain,
        share=value(line, "gap_closed", where),
        comparison=None if pairs is None else Comparison(gain or 0.0, int(pairs), value(line, "p", where)),
    )


def value(line: Mapping[str, str], name: str, where: str) -> float | None:
    """A number of a line; None where it is empty, missing or not finite. Raises `DataError` for other text."""
    text = line.get(name, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {name}: found {text[:40]!r}, expected a number or nothing.") from error
    return number if math.isfinite(number) else None


def finish(section: Section) -> None:
    """Mark rows as collapsed where the file is older than that column, by their means, and say what is not known."""
    known = [section.sign * row.last.mean for row in section.rows if row.last.mean is not None]
    for row in section.rows:
        if not row.collapsed and why_collapsed(row.last.mean, known, sign=section.sign):
            row.collapsed = row.seeds
    section.reference = ALONE if any(row.alone for row in section.rows) else ""
    section.notes.append("From a kept report.csv: the scores of single seeds are not in it.")
    if section.reference and all(row.comparison is None for row in section.rows):
        section.notes.append(
            "Whether seeds are paired is not in it, so nothing was tested: any gain may be chance."
        )


def number_arenas(sections: list[Section]) -> list[Section]:
    """Sections of one task and score lie on one axis."""
    keys = list(dict.fromkeys((each.task, each.monitor) for each in sections))
    for each in sections:
        each.arena = keys.index((each.task, each.monitor))
    return sections
