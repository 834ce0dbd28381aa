"""What an evaluation found, as parts of a page: tables with bars, charts, matrices with pictures behind them, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dvsn.analysis.record import Analysis, Chart, Matrix, Picture, Row
from dvsn.report import html
from dvsn.report.html import Cell
from dvsn.report.run_pictures import PICTURES_BYTES, fitted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LISTED = 500
"""Pictures in the table of a page, the worst and the best; pictures.csv has all."""
BEHIND = 24
"""Pictures behind a cell of a matrix, those that the page shows first; of more, their number."""
REPEATED = "largest confusions"
"""A table that the page makes of the matrix itself, with links to the cells."""
CONFUSIONS = 20
"""Rows of the table of confusions."""
LARGEST = 200
"""Classes of a matrix that is drawn whole; of more, the most confused ones."""
TITLE = 40
"""Letters of a line of a chart's title, so that a phone shows all of it."""


# Tables ----------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> Markup:
    """Rows of a record, with a bar below each number of a column of shares, or of numbers of one sign."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    scales = {name: _scale([row.get(name) for row in rows]) for name in names}
    return html.table(names, [[_value(row.get(name), scales[name]) for name in names] for row in rows])


def _scale(values: Sequence[Any]) -> float | None:
    """What a bar of full length stands for: 1 for shares, else the largest value; None where no bars are drawn."""
    known = [float(value) for value in values if html.is_number(value)]
    if not known or min(known) < 0 or max(known) <= 0:
        return None
    return 1.0 if max(known) <= 1 else max(known)


def _value(value: Any, scale: float | None) -> Any:
    if scale is None or not html.is_number(value):
        return value if value is None or isinstance(value, str | int | float) else str(value)
    shown = f"{value:.4f}" if scale == 1 and isinstance(value, float) else html.number(value)
    return Cell(shown, float(value), bar=value / scale)


# Charts ----------------------------------------------------------------------------------------------------


def chart(source: Chart) -> Markup:
    """A chart of a record, and the sentence below it."""
    from plotly.graph_objects import Figure

    found = Figure()
    for number, curve in enumerate(source.curves):
        _add(found, source.kind, curve, number)
    if source.diagonal:
        values = [v for c in source.curves for v in (*c.x, *c.y) if isinstance(v, int | float)]
        ends = [min(values, default=0), max(values, default=1)]
        found.add_scatter(
            x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#8a8f98", "width": 1}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    several = len(source.curves) > 1
    title = html.axis_title(source.title, width=TITLE)
    more = 20 * title.count("<br>")
    found.update_layout(
        title={"text": title}, margin={"t": 40 + more}, xaxis={"title": {"text": html.axis_title(source.x, width=60)}},
        yaxis={"title": {"text": html.axis_title(source.y)}}, showlegend=several, barmode="group",
    )  # fmt: skip
    if not any(value for curve in source.curves for value in curve.y):
        found.update_layout(yaxis={"range": [0, 1]})  # plotly would go down to -1
    height, width = 340 + more + (legend_height(source) if several else 0), None
    names = [str(name) for curve in source.curves for name in curve.x] if source.kind == "bars" else []
    if sum(map(len, set(names))) > 40:  # they stand upright below the bars, so the legend goes above
        found.update_layout(
            legend={"y": 1.01, "yanchor": "bottom"},
            margin={"t": (80 if several else 40) + more},
            xaxis={"tickangle": -60},
        )
        height, width = height + 6 * max(map(len, names)), 22 * len(set(names))
    drawn = html.figure(
        found, height=height, label=source.title, least_width=width if width and width > 340 else None
    )
    return drawn + html.paragraph(source.note, quiet=True) if source.note else drawn


def legend_height(source: Chart) -> int:
    """Pixels for the legend of a phone, where long names stand one below the other."""
    columns = 2 if max(len(curve.name) for curve in source.curves) <= 16 else 1
    return 20 * math.ceil(len(source.curves) / columns)


def _add(found: Figure, kind: str, curve: Any, number: int) -> None:
    name, line = html.plain(curve.name), html.line(number)
    if kind == "bars":
        x = [html.plain(str(each)) for each in curve.x]
        found.add_bar(
            x=x, y=list(curve.y), name=name, marker={"color": line["color"]}, hovertemplate="%{x}: %{y:.4g}"
        )
        return
    shape = "hv" if kind == "steps" else "linear"
    few = len(curve.x) <= 20 and kind == "line"
    found.add_scatter(
        x=list(curve.x), y=list(curve.y), name=name, mode="lines+markers" if few else "lines",
        line={"shape": shape, **line}, marker={"size": 5}, hovertemplate="%{x:.4g}: %{y:.4g}",
    )  # fmt: skip


# Matrices --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Confusion:
    """Something that lies off the diagonal of a matrix."""

    row: int
    column: int
    count: float
    share: float
    """Of its row."""


def is_right(matrix: Matrix, row: int, column: int) -> bool:
    """Whether a cell is on the diagonal: the same class in both."""
    return matrix.rows[row] == matrix.columns[column]


def confusions(matrix: Matrix) -> list[Confusion]:
    """What is off the diagonal, the largest first."""
    found = []
    for row, counts in enumerate(matrix.counts):
        total = sum(counts)
        for column, count in enumerate(counts):
            if count > 0 and not is_right(matrix, row, column):
                found.append(Confusion(row, column, count, count / total if total else 0.0))
    return sorted(found, key=lambda each: (-each.count, each.row, each.column))


def by_confusion(matrix: Matrix) -> tuple[list[int], list[int]]:
    """The rows and the columns in the order of what is off the diagonal, the most confused class first.

    Where both name the same classes they keep one order, so that the diagonal stays one.
    """
    rows, columns = [0.0] * len(matrix.rows), [0.0] * len(matrix.columns)
    for each in confusions(matrix):
        rows[each.row] += each.count
        columns[each.column] += each.count
    if matrix.rows == matrix.columns:
        both = [a + b for a, b in zip(rows, columns, strict=True)]
        order = sorted(range(len(both)), key=lambda number: (-both[number], number))
        return order, order
    return (
        sorted(range(len(rows)), key=lambda number: (-rows[number], number)),
        sorted(range(len(columns)), key=lambda number: (-columns[number], number)),
    )


def absent(matrix: Matrix) -> list[str]:
    """Classes that are in no row and in no column, unless all are."""
    rows = {name for name, counts in zip(matrix.rows, matrix.counts, strict=True) if any(counts)}
    columns = {
        name for number, name in enumerate(matrix.columns) if any(counts[number] for counts in matrix.counts)
    }
    found = rows | columns
    return (
        [name for name in dict.fromkeys((*matrix.rows, *matrix.columns)) if name not in found]
        if found
        else []
    )


def sparse(source: Matrix, kept: Sequence[Sequence[int]]) -> dict[str, float]:
    """What the cells that are shown count, by `ROW-COLUMN`, and the largest confusions; without those of nothing."""
    places = [(row, column) for row in kept[0] for column in kept[1]]
    places += [(each.row, each.column) for each in confusions(source)[:CONFUSIONS]]
    return {
        f"{row}-{column}": whole(count) for row, column in places if (count := source.counts[row][column])
    }


def whole(value: float) -> float:
    """A whole number without its .0, which is shorter to write."""
    return int(value) if float(value).is_integer() else round(value, 4)


def matrix(source: Matrix, pictures: Sequence[Picture], shown: dict[int, str]) -> list[Markup]:
    """A matrix, and its largest confusions as a table. `pictures` lie behind its cells; `shown` are the anchors of those
    that the page shows, by their number. `#KEY-ROW-COLUMN` opens a cell."""
    key = html.slug(source.key)
    nowhere = absent(source)
    kept = tuple(
        [number for number in order if names[number] not in nowhere][:LARGEST]
        for order, names in zip(by_confusion(source), (source.rows, source.columns), strict=True)
    )
    given = tuple(sorted(order) for order in kept)
    cells: dict[str, list[list[float]]] = {}
    for number, each in enumerate(pictures):
        for cell in each.cells:
            cells.setdefault(f"{cell.row}-{cell.column}", []).append([number, cell.count])
    listed = {
        name: (len(found), sorted(found, key=lambda pair: (pair[0] not in shown, -pair[1]))[:BEHIND])
        for name, found in cells.items()
    }
    used = sorted({int(number) for _, found in listed.values() for number, _ in found})
    data = {
        "key": key, "rows": source.rows, "columns": source.columns, "unit": source.unit,
        "counts": sparse(source, kept), "totals": [whole(sum(counts)) for counts in source.counts],
        "given": given, "sorted": kept, "cells": listed,
        "pictures": {number: [pictures[number].name, shown.get(number, "")] for number in used},
    }  # fmt: skip
    wide = len(kept[1])
    side = 44 if wide <= 12 else 30 if wide <= 30 else 16
    parts = [
        html.rendered(
            "matrix.html", key=key, title=source.title, data=html.script_json(data), height=side * len(kept[0]) + 190,
            width=side * wide + 220, has_pictures=bool(cells),
        )
    ]  # fmt: skip
    if nowhere:
        parts.append(html.paragraph(f"Neither there nor predicted: {', '.join(nowhere)}.", quiet=True))
    if len(source.rows) > LARGEST or len(source.columns) > LARGEST:
        parts.insert(
            0,
            html.paragraph(
                f"The {LARGEST} most confused classes; the CSV of the evaluation has all.", quiet=True
            ),
        )
    if source.note:
        parts.append(html.paragraph(source.note, quiet=True))
    found = confusions(source)[:CONFUSIONS]
    if found:
        parts += [html.heading("Largest confusions"), _confusions(source, key, found)]
    return parts


def _confusions(source: Matrix, key: str, found: Sequence[Confusion]) -> Markup:
    rows: list[list[Any]] = [
        [
            Cell(
                Markup('<a href="#{}-{}-{}">{}</a>').format(
                    key, each.row, each.column, source.rows[each.row]
                ),
                source.rows[each.row],
            ),
            source.columns[each.column],
            Cell(html.number(each.count), each.count),
            Cell(f"{100 * each.share:.1f} %", each.share, bar=each.share),
        ]
        for each in found
    ]
    return html.table(["true", "taken for", source.unit or "count", "share of the true class"], rows)


# Pictures --------------------------------------------------------------------------------------------------


@dataclass
class Shown:
    """The pictures of an analysis as parts of a page."""

    galleries: list[tuple[str, Markup]]
    """By their title."""
    anchors: dict[int, str]
    """Of the pictures that are shown, by their number in the record."""
    notes: list[str]


def pictures(analysis: Analysis, folder: Path, *, limit: int = PICTURES_BYTES) -> Shown:
    """The pictures that were kept, by folder: the worst, the best. Files that are gone become notes."""
    kept = [(number, each) for number, each in enumerate(analysis.pictures) if each.file]
    names = [(str(number), folder / str(each.file)) for number, each in kept]
    encoded, notes = fitted(names, limit=limit)
    ready = {int(number): each for number, each in encoded}
    groups: dict[str, list[Markup]] = {}
    anchors: dict[int, str] = {}
    for number, each in sorted(kept, key=lambda pair: str(pair[1].file)):
        if number not in ready:
            continue
        anchors[number] = f"picture-{number}"
        group = Path(str(each.file)).parts[0] if "/" in str(each.file) else "pictures"
        caption = _caption(analysis, each)
        groups.setdefault(group, []).append(html.picture(ready[number], caption, anchor=anchors[number]))
    titles = {"worst": "Worst pictures", "best": "Best pictures", "confused": "Pictures of large confusions"}
    order = sorted(
        groups, key=lambda name: (list(titles).index(name) if name in titles else len(titles), name)
    )
    if len(notes) > 6:
        notes = [*notes[:5], f"and {len(notes) - 5} more pictures of {folder} cannot be read."]
    galleries = {name: html.gallery(groups[name]) for name in order}
    if "confused" in galleries:
        said = "Those that stand behind the cells of the matrix"
        galleries["confused"] = html.folded(said, galleries["confused"])
    return Shown([(titles.get(name, name), each) for name, each in galleries.items()], anchors, notes)


def _caption(analysis: Analysis, each: Picture) -> Markup:
    further = ", ".join(f"{name} {html.number(value)}" for name, value in each.values.items())
    words = "; ".join(filter(None, [further, each.note]))
    return Markup("<b>{}</b> {} {}{}").format(
        each.name, analysis.score, html.number(each.score), f"; {words}" if words else ""
    )


def spread_of_scores(analysis: Analysis) -> Markup:
    """How many pictures have which score."""
    from plotly.graph_objects import Figure

    values = [each.score for each in analysis.pictures if math.isfinite(each.score)]
    if len(set(values)) < 2:
        return Markup()
    low, high, bins = min(values), max(values), min(40, max(8, round(math.sqrt(len(values)))))
    width = (high - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    middles = [low + width * (number + 0.5) for number in range(bins)]
    ranges = [f"{html.number(low + width * n)} to {html.number(low + width * (n + 1))}" for n in range(bins)]
    found = Figure()
    found.add_bar(
        x=middles, y=counts, width=[width * 0.94] * bins, marker={"color": html.COLOURS[0]}, customdata=ranges,
        hovertemplate="%{customdata}: %{y} pictures<extra></extra>",
    )  # fmt: skip
    found.update_layout(
        title={"text": f"pictures by {html.plain(analysis.score)}"}, xaxis={"title": {"text": html.plain(analysis.score)}},
        yaxis={"title": {"text": "pictures"}}, bargap=0,
    )  # fmt: skip
    return html.figure(found, height=280, label="how many pictures have which score")


def listing(analysis: Analysis, anchors: dict[int, str]) -> list[Markup]:
    """The pictures with their scores, sortable; of many, the worst and the best."""
    every = list(enumerate(analysis.pictures))
    some = every if len(every) <= LISTED else every[: LISTED * 4 // 5] + every[-LISTED // 5 :]
    further = list(dict.fromkeys(name for _, each in some for name in each.values))
    rows: list[list[Any]] = []
    for number, each in some:
        name = (
            Markup('<a href="#{}">{}</a>').format(anchors[number], each.name)
            if number in anchors
            else each.name
        )
        rows.append(
            [Cell(name, each.name), each.score, *(each.values.get(key) for key in further), each.note]
        )
    parts = [html.table(["picture", analysis.score, *further, "note"], rows)]
    if len(some) < len(every):
        words = f"{len(some)} of {len(every)} pictures, the worst and the best; pictures.csv of the evaluation has all."
        parts.insert(0, html.paragraph(words, quiet=True))
    return parts
