"""The report of a few runs side by side: what differs in their configs, their curves in one chart, classes and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dvsn.analysis.record import Picture
from dvsn.errors import DataError
from dvsn.report import html, run_curves
from dvsn.report.findings import REPEATED
from dvsn.report.html import Cell, Encoded, Page
from dvsn.report.naming import leaves
from dvsn.report.run_folder import Folder, data_of, duration, read_folder, short
from dvsn.report.run_page import best_of, evaluate_line, score_rows
from dvsn.report.run_pictures import fitted
from dvsn.report.table import Report, Table, in_words

NAME = "compare"
MOST = 10
CHANGED, LISTED = 16, 100
"""Pictures that are shown, and that are listed."""
LINES, LETTERS = 40, 60
"""Options in the text, and letters of a value there."""
COLUMNS = 3
"""Columns of a table of an evaluation that are compared."""
OWN = ("name", "run_dir")
"""Options that differ in any two runs."""
BYTES = 2_600_000
"""Of all pictures: with plotly's script and in base64 the page stays below 10 MB."""


@dataclass(frozen=True)
class Change:
    """A picture in several analyses, in their order; None where one does not have it, or has no score for it."""

    name: str
    pictures: tuple[Picture | None, ...]

    @property
    def scores(self) -> list[float]:
        return [each.score for each in self.pictures if each is not None and math.isfinite(each.score)]

    @property
    def size(self) -> float:
        return max(self.scores) - min(self.scores)


def report(folders: Sequence[Path], *, output: Path | None = None) -> str:
    """Write compare.html, .txt, .md and .csv of two to ten runs into `output`, by default into the first of them. Returns
    the text."""
    if not 2 <= len(folders) <= MOST:
        raise DataError(
            f"{len(folders)} runs are given, expected 2 to {MOST} to set side by side. Of more, give the folder they lie in."
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError(f"{', '.join(map(str, folders))}: the same run is given twice.")
    runs = [read_folder(folder) for folder in folders]
    names = labels(runs)
    page = build(runs, names)
    output = output or folders[0]
    files = {f"{NAME}.html": page.render().encode()}
    return replace(words(runs, names, page.notes), files=files).write(output)


def build(runs: Sequence[Folder], names: Sequence[str]) -> Page:
    page = Page(
        " and ".join(names) if len(names) == 2 else f"{len(names)} runs", "what differs, and what came of it"
    )
    for run, name in zip(runs, names, strict=True):
        for note in run.notes:
            page.note(f"{name}: {note}")
    for note in unlike(runs, names):
        page.note(note)
    page.section("Runs", overview(runs, names))
    page.section("What differs in their configs", *differences(runs, names), anchor="differences")
    rows = scores(runs)
    if rows:
        page.section("Scores at the best epoch", score_table(rows, names, runs), anchor="scores")
    drawn = run_curves.together(runs, names)
    for title, key in (
        ("Curves of scores", "scores"),
        ("Curves of losses", "losses"),
        ("Speed and memory", "system"),
    ):
        if drawn[key]:
            page.section(title, html.controls(), html.columns(*drawn[key]))
    add_evaluations(page, runs, names)
    return page


def labels(runs: Sequence[Folder]) -> list[str]:
    """A name for each run that no other has: its own, else as much of its folder as is needed."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    parts = [run.path.resolve().parts for run in runs]
    tails = (["/".join(each[-length:]) for each in parts] for length in range(1, max(map(len, parts)) + 1))
    return next(found for found in tails if len(set(found)) == len(found))


def unlike(runs: Sequence[Folder], names: Sequence[str]) -> list[str]:
    """Why some of it cannot be set side by side."""
    notes = []
    for what, values in {
        "tasks": [short(run.config.get("task")) for run in runs],
        "scores to judge by": [run.monitor or "" for run in runs],
        "data sets": [data_of(run.config) for run in runs],
    }.items():
        if len(set(values)) > 1:
            said = ", ".join(
                f"{name}: {value or 'unknown'}" for name, value in zip(names, values, strict=True)
            )
            notes.append(
                f"The runs have different {what}: {said}. Only what all of them have can be compared."
            )
    return notes


# Configs ---------------------------------------------------------------------------------------------------


def differing(runs: Sequence[Folder]) -> dict[str, list[Any]]:
    """The options in which the configs differ, and their values by run; None where a run does not have it.

    A config names some values several times (`network.width` and `task.network.width`): the shortest path stands for all.
    """
    tables = [{path: _placed(value, run) for path, value in leaves(run.config)} for run in runs]
    paths = dict.fromkeys(path for table in tables for path in table)
    found: dict[str, list[Any]] = {}
    for path in paths:
        values = [table.get(path) for table in tables]
        if path not in OWN and len({_said(value) for value in values}) > 1:
            found[path] = values
    kept: dict[str, list[Any]] = {}
    for path in sorted(found, key=lambda each: each.count(".")):
        keys = path.split(".")
        shorter = [".".join(keys[first:]) for first in range(1, len(keys))]
        if not any(each in kept and kept[each] == found[path] for each in shorter):
            kept[path] = found[path]
    return {path: kept[path] for path in paths if path in kept}


def _placed(value: Any, run: Folder) -> Any:
    """A value; of one that names the run's own folder, the rest of the path."""
    own = run.config.get("run_dir")
    return value.replace(own, "RUN") if isinstance(value, str) and isinstance(own, str) and own else value


def _said(value: Any) -> str:
    return (
        value if isinstance(value, str) else html.NOTHING if value is None else json.dumps(value, default=str)
    )


def shortened(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."


def differences(runs: Sequence[Folder], names: Sequence[str]) -> list[str | Markup]:
    found = differing(runs)
    if not found:
        return ["The configs are the same, but for the name and the folder."]
    rows = [[path, *(_said(value) for value in values)] for path, values in found.items()]
    return [html.table(["option", *names], rows)]


# Scores ----------------------------------------------------------------------------------------------------


def overview(runs: Sequence[Folder], names: Sequence[str]) -> Markup:
    rows: list[list[Any]] = []
    for run, name in zip(runs, names, strict=True):
        seconds, parameters = run.result.get("seconds"), run.result.get("parameters")
        time = Cell(duration(seconds), seconds) if html.is_number(seconds) else None
        rows.append(
            [
                name, short(run.config.get("task")) or None, short(run.config.get("network")) or None,
                parameters if isinstance(parameters, int) else None, best_of(run) or None,
                run.result.get("epochs") if isinstance(run.result.get("epochs"), int) else None, time, str(run.path),
            ]
        )  # fmt: skip
    return html.table(["run", "task", "network", "parameters", "best", "epochs", "time", "folder"], rows)


def scores(runs: Sequence[Folder]) -> dict[str, list[float | None]]:
    """The scores of validation at the best epoch, by run."""
    tables = [{str(row["score"]): row["best"] for row in score_rows(run)} for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: [table.get(name) for table in tables] for name in names}


def score_table(rows: dict[str, list[float | None]], names: Sequence[str], runs: Sequence[Folder]) -> Markup:
    judged = {str(run.monitor).removeprefix("val/"): run.sign for run in runs}
    cells = []
    for name, values in rows.items():
        shown = Markup("<b>{}</b>").format(name) if name in judged else name
        cells.append([Cell(shown, name), *values, *_difference(values, judged.get(name))])
    heads = ["score", *names, *(["difference"] if len(names) == 2 else [])]
    return html.table(heads, cells)


def _difference(values: Sequence[float | None], sign: float | None = None) -> list[Cell | None]:
    """Of two runs, the second without the first; green where it is better, red where it is worse, if that is known."""
    if len(values) != 2:
        return []
    first, second = values
    if first is None or second is None or not math.isfinite(first) or not math.isfinite(second):
        return [None]
    found = second - first
    tone = "" if sign is None or found == 0 else "good" if sign * found > 0 else "bad"
    return [Cell(f"{found:+.4g}", found, tone=tone)]


# Evaluations -----------------------------------------------------------------------------------------------


def add_evaluations(page: Page, runs: Sequence[Folder], names: Sequence[str]) -> None:
    """Tables and pictures of the runs that have an analysis."""
    having = [(run, name) for run, name in zip(runs, names, strict=True) if run.analysis is not None]
    missing = [line for run in runs if run.analysis is None and (line := evaluate_line(run))]
    if missing:
        lines = "\n".join(missing)
        words = "For classes and pictures side by side, evaluate" + (
            " all of them:" if not having else " the others, too:"
        )
        page.section("Evaluations to be made", words, html.code(lines))
    if len(having) < 2:
        return
    chosen, own = [run for run, _ in having], [name for _, name in having]
    for title in dict.fromkeys(title for run in chosen for title in run.analysis.tables):  # type: ignore[union-attr]
        found = class_tables(title, chosen, own) if title != REPEATED else []
        if found:
            page.section(title[:1].upper() + title[1:], *found)
    add_pictures(page, chosen, own)


def class_tables(title: str, runs: Sequence[Folder], names: Sequence[str]) -> list[Markup]:
    """A table of the analyses side by side: one for each of its first columns of numbers, a row a class, a column a run."""
    tables = [run.analysis.tables.get(title) for run in runs if run.analysis is not None]
    first = next((rows[0] for rows in tables if rows), None)
    if first is None or sum(bool(rows) for rows in tables) < 2:
        return []
    key = next((name for name, value in first.items() if isinstance(value, str)), None)
    numbers = [name for name, value in first.items() if html.is_number(value) or value is None][:COLUMNS]
    if key is None or not numbers:
        return []
    by_class = [{str(row.get(key)): row for row in rows or ()} for rows in tables]
    classes = list(dict.fromkeys(name for table in by_class for name in table))
    tail = ["difference"] if len(names) == 2 else []
    parts: list[Markup] = []
    for column in numbers:
        values = {name: [_number(table.get(name, {}).get(column)) for table in by_class] for name in classes}
        if sum(any(value is not None for value in own) for own in zip(*values.values(), strict=True)) < 2:
            continue  # of one run alone, such as of another task
        if tail and not parts:
            parts.append(_gains(values, f"{column}: {names[1]} minus {names[0]}"))
        rows: list[list[Any]] = [[name, *each, *_difference(each)] for name, each in values.items()]
        parts.append(html.heading(column) + html.table([key, *names, *tail], rows))
    return [html.columns(*parts)] if parts else []


def _gains(values: dict[str, list[float | None]], title: str) -> Markup:
    """Differences by class as bars, the largest gain first."""
    from plotly.graph_objects import Figure

    found = {
        name: second - first
        for name, (first, second) in values.items()
        if first is not None and second is not None
    }
    order = sorted(found, key=lambda name: found[name])
    drawn = Figure()
    drawn.add_bar(
        x=[found[name] for name in order], y=[html.plain(name) for name in order], orientation="h",
        marker={"color": [html.COLOURS[0 if found[name] >= 0 else 1] for name in order]},
        hovertemplate="%{y}: %{x:+.4g}<extra></extra>",
    )  # fmt: skip
    drawn.update_layout(title={"text": html.plain(title)}, yaxis={"type": "category", "dtick": 1})
    return html.figure(drawn, height=90 + 22 * len(order), label=title)


def _number(value: Any) -> float | None:
    return float(value) if html.is_number(value) else None


def changes(runs: Sequence[Folder]) -> list[Change]:
    """The pictures that at least two analyses have a score for, the one that changed most first."""
    tables = [{each.name: each for each in run.analysis.pictures} for run in runs if run.analysis is not None]
    names = dict.fromkeys(name for table in tables for name in table)
    every = [Change(name, tuple(table.get(name) for table in tables)) for name in names]
    return sorted((each for each in every if len(each.scores) > 1), key=lambda each: (-each.size, each.name))


def add_pictures(page: Page, runs: Sequence[Folder], names: Sequence[str]) -> None:
    kinds = {
        (run.analysis.score, run.analysis.split, run.analysis.task)
        for run in runs
        if run.analysis is not None
    }
    if len(kinds) > 1:
        said = "; ".join(sorted(f"{score} of {task} on {split}" for score, split, task in kinds))
        page.note(f"The pictures were scored differently ({said}): they are not set side by side.")
        return
    found = changes(runs)
    if not found:
        page.note("The evaluations have no picture of the same name: none are set side by side.")
        return
    score = next(iter(kinds))[0]
    parts: list[str | Markup] = [balance(found, names, runs)]
    if len(runs) == 2:
        parts.append(scatter(found, names, score))
    page.section("Pictures, in numbers", *parts, anchor="pictures-in-numbers")
    rows: list[list[Any]] = []
    for each in found[:LISTED]:
        values = [None if own is None else own.score for own in each.pictures]
        rows.append([each.name, *values, *(_difference(values) or [Cell(html.number(each.size), each.size)])])
    last = "difference" if len(runs) == 2 else "largest difference"
    some = [each for each in found if any(own is not None and own.file for own in each.pictures)][:CHANGED]
    wanted = [
        (f"{place} {number}", Path(str(run.evaluation)) / str(own.file))
        for place, each in enumerate(some)
        for number, (run, own) in enumerate(zip(runs, each.pictures, strict=True))
        if own is not None and own.file
    ]
    encoded, notes = fitted(wanted, limit=BYTES)
    for note in notes:
        page.note(note)
    shown = dict(encoded)
    drawn = [_side_by_side(place, each, names, score, shown) for place, each in enumerate(some)]
    table = html.table(["picture", *names, last], rows)
    page.section("Pictures whose score changed most", table, *drawn, anchor="changed")


def _side_by_side(
    place: int, each: Change, names: Sequence[str], score: str, shown: dict[str, Encoded]
) -> Markup:
    parts = []
    for number, name in enumerate(names):
        own = each.pictures[number]
        value = "not in this evaluation" if own is None else f"{score} {html.number(own.score)}"
        caption = Markup("<b>{}</b> {}{}").format(
            name, value, f"; {own.note}" if own is not None and own.note else ""
        )
        file = shown.get(f"{place} {number}")
        if file is not None:
            parts.append(html.picture(file, caption))
        else:
            kept = (
                ""
                if own is None
                else Markup('<p class="quiet">not kept: {}</p>').format("evaluate with more worst=...")
            )
            parts.append(
                Markup('<figure class="picture">{}<figcaption>{}</figcaption></figure>').format(kept, caption)
            )
    return html.heading(each.name) + html.gallery(parts)


def balance(found: Sequence[Change], names: Sequence[str], runs: Sequence[Folder]) -> str:
    """In words, how many pictures became better."""
    analysis = runs[0].analysis
    if len(names) != 2 or analysis is None:
        return f"{len(found)} pictures are in at least two evaluations."
    sign = 1.0 if analysis.better == "more" else -1.0
    gains = [sign * (each.scores[1] - each.scores[0]) for each in found]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    mean = sum(each.scores[1] - each.scores[0] for each in found) / len(found)
    return (
        f"Of {len(found)} pictures in both, {names[1]} is better in {better}, worse in {worse} and equal in "
        f"{len(found) - better - worse}; {analysis.score} differs by {mean:+.4g} on average."
    )


def scatter(found: Sequence[Change], names: Sequence[str], score: str) -> Markup:
    """Each picture by its score in both runs; above the line the second is higher."""
    from plotly.graph_objects import Figure

    some = found[:2000]
    x, y = [each.scores[0] for each in some], [each.scores[1] for each in some]
    ends = [min(*x, *y), max(*x, *y)]
    drawn = Figure()
    drawn.add_scatter(
        x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#8a8f98", "width": 1}, hoverinfo="skip"
    )
    drawn.add_scatter(
        x=x, y=y, mode="markers", marker={"size": 7, "opacity": 0.6, "color": html.COLOURS[0]},
        text=[html.plain(each.name) for each in some],
        hovertemplate="%{text}<br>%{x:.4g} and %{y:.4g}<extra></extra>",
    )  # fmt: skip
    drawn.update_layout(
        showlegend=False, title={"text": html.plain(f"{score} of each picture")},
        xaxis={"title": {"text": html.plain(names[0])}}, yaxis={"title": {"text": html.plain(names[1])}},
    )  # fmt: skip
    return html.figure(drawn, height=420, label=f"{score} of each picture in both runs")


# Words -----------------------------------------------------------------------------------------------------


def words(runs: Sequence[Folder], names: Sequence[str], notes: Sequence[str]) -> Report:
    """The report as text, Markdown and CSV, a row of which is a run."""
    found, rows = differing(runs), scores(runs)
    tables = []
    if found:
        cells = [[path, *(shortened(_said(value)) for value in values)] for path, values in found.items()]
        more = [f"  and {len(cells) - LINES} more options, all in {NAME}.csv"] if len(cells) > LINES else []
        left = frozenset(range(len(names) + 1))
        tables.append(Table("what differs", ["option", *names], cells[:LINES], left, more))
    if rows:
        cells = [[name, *map(html.number, values)] for name, values in rows.items()]
        tables.append(Table("scores at the best epoch", ["score", *names], cells, frozenset({0})))
    sheet: list[dict[str, Any]] = [
        {"run": name, "folder": str(run.path), **{key: values[number] for key, values in rows.items()},
         **{path: values[number] for path, values in found.items()}}
        for number, (run, name) in enumerate(zip(runs, names, strict=True))
    ]  # fmt: skip
    title = " | ".join(names)
    return in_words(NAME, [title], [f"# {title}"], tables, notes, sheet)
