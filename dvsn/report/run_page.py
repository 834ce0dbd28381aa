"""The report of one run: what was trained, its curves, its pictures through the epochs, and what an evaluation found."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dvsn.errors import DataError
from dvsn.report import findings, html, run_curves
from dvsn.report.html import Cell, Page
from dvsn.report.run_folder import Folder, duration, facts, read_folder
from dvsn.report.run_pictures import film, write_strip
from dvsn.report.table import Report, Table, in_words

NAME = "report"
STARVED = 0.1
"""Share of the time spent waiting for data above which it is said."""
WORST = 50
"""Pictures that an evaluation for a report keeps."""


def report(folder: Path, *, output: Path | None = None, evaluation: Path | None = None) -> str:
    """Write report.html, .txt, .md and .csv of a run, and strip.png and .webp where it has pictures of two epochs, into
    `output`, by default into the run. Returns the text."""
    run = read_folder(folder, evaluation=evaluation)
    output = output or folder
    page = build(run, output)
    return replace(words(run, page.notes), files={f"{NAME}.html": page.render().encode()}).write(output)


def build(run: Folder, output: Path) -> Page:
    """The page of a run. The strip of its pictures is written into `output`."""
    page = Page(run.name, subtitle_of(run))
    for note in run.notes:
        page.note(note)
    page.section("Run", *summary(run))
    add_curves(page, run)
    add_pictures(page, run, output)
    add_evaluation(page, run)
    if run.config_text:
        page.section("Config", html.folded("config.yaml", html.code(run.config_text)))
    return page


def subtitle_of(run: Folder) -> str:
    known = dict(facts(run))
    parts = [known.get("task", ""), known.get("network", ""), known.get("data", "")]
    best = best_of(run)
    return " · ".join(part for part in (*parts, best) if part)


def best_of(run: Folder) -> str:
    """The best score in words."""
    value, epoch = run.result.get("best"), run.result.get("best_epoch")
    if html.is_number(value) and run.monitor:
        when = f" in epoch {epoch}" if isinstance(epoch, int) else ""
        return f"best {run.monitor} {html.number(value)}{when}"
    place = run_curves.best_place(run)
    if place is None:
        return ""
    series = run.metrics.series[str(run.monitor)]
    when = f"in {run.metrics.axis} {run.metrics.places(series)[place]:g}"
    return f"best {run.monitor} {html.number(series.values[place])} {when}"


# Parts -----------------------------------------------------------------------------------------------------


def summary(run: Folder) -> list[Markup]:
    """Facts, scores and the command, side by side."""
    what, beside = html.pairs(facts(run)), Markup()
    if rows := score_rows(run):
        beside += score_table(rows)
    times = run.result.get("times")
    if isinstance(times, dict) and times:
        beside += times_table(times)
    parts = [html.columns(what, beside)] if beside else [what]
    if run.command:
        parts.append(html.heading("Command") + html.code(run.command))
    return parts


def score_rows(run: Folder) -> list[dict[str, Any]]:
    """For each score of validation: its first value, that at the best epoch, and its last; the one to judge by first."""
    metrics, rows = run.metrics, []
    place = run_curves.best_place(run)
    best_step = None if place is None else metrics.series[str(run.monitor)].steps[place]
    names = sorted(metrics.names("val/"), key=lambda name: name != run.monitor)
    for name in names:
        series = metrics.series[name]
        at_best = dict(zip(series.steps, series.values, strict=True)).get(
            best_step if best_step is not None else -1
        )
        rows.append(
            {
                "score": name.removeprefix("val/"),
                "first": series.values[0],
                "best": at_best,
                "last": series.last,
            }
        )
    return rows


def score_table(rows: list[dict[str, Any]]) -> Markup:
    cells = []
    for number, row in enumerate(rows):
        name = Markup("<b>{}</b>").format(row["score"]) if number == 0 else row["score"]
        cells.append([Cell(name, row["score"]), row["first"], row["best"], row["last"]])
    return html.table(
        ["score", "first", "at the best epoch", "last"],
        cells,
        caption="Validation, the score to judge by first",
    )


def times_table(times: dict[str, Any]) -> Markup:
    """Where the time of a run went, as its result.json says it."""
    known = {name: value for name, value in times.items() if html.is_number(value)}
    total = sum(known.values())
    rows: list[list[Any]] = [
        [name.replace("_", " "), Cell(duration(value), value, bar=value / total if total else None)]
        for name, value in known.items()
    ]
    table = html.heading("Where the time went") + html.table(["part", "time"], rows)
    waited = known.get("data", 0.0) / total if total else 0.0
    if waited > STARVED:
        table += html.paragraph(
            f"The device waited {100 * waited:.0f} % of the time for data; train.log says what would help."
        )
    return table


def add_curves(page: Page, run: Folder) -> None:
    groups = {
        "Scores": run_curves.scores(run),
        "Losses": run_curves.losses(run),
        "Speed and memory": run_curves.system(run),
    }
    for title, drawn in groups.items():
        if drawn:
            page.section(title, html.controls(), html.columns(*drawn))
    if not any(groups.values()):
        page.section("Curves", "No curve: metrics.csv holds no logged value.")


def add_pictures(page: Page, run: Folder, output: Path) -> None:
    """The grids through the epochs, and the strip of one picture."""
    folder = run.path / "pictures"
    shown = film(folder)
    for note in shown.notes:
        page.note(note)
    if not shown.frames:
        page.section(
            "Pictures through the epochs",
            f"No picture: {folder} holds no grid of a validation.",
            anchor="pictures",
        )
        return
    parts: list[str | Markup] = []
    if shown.all_of_them > len(shown.frames):
        parts.append(
            f"{len(shown.frames)} of {shown.all_of_them} validations, evenly spread. All are in {folder}."
        )
    parts.append(html.film(shown.frames, label="epoch"))
    try:
        still, says = write_strip(folder, output)
    except (DataError, OSError) as error:
        page.note(f"The strip of pictures could not be written: {error}")
        still = None
    if still is not None:
        caption = f"{says}; as an animation: strip.webp beside this page"
        parts += [
            html.heading("Side by side"),
            html.picture(still, caption, max_side=1400, quality=72),
        ]
    page.section("Pictures through the epochs", *parts, anchor="pictures")


def evaluate_line(run: Folder) -> str:
    """The command that makes the analysis of a run; empty where it has no checkpoint."""
    if run.checkpoint is None:
        return ""
    beside = " teacher=auto" if has_teacher(run) else ""
    return f"python -m dvsn.evaluate checkpoint={shlex.quote(str(run.checkpoint))} worst={WORST}{beside}"


def has_teacher(run: Folder) -> bool:
    """Whether it was taught by one checkpoint, beside which it can be measured."""
    named = run.config.get("teacher")
    return isinstance(named, str) or (isinstance(named, list) and len(named) == 1)


def add_evaluation(page: Page, run: Folder) -> None:
    """What the evaluation found: scores, tables, matrices, charts, pictures."""
    analysis = run.analysis
    if analysis is None or run.evaluation is None:
        why = (
            "The analysis of the evaluation cannot be read."
            if run.evaluation
            else "This run was not evaluated yet."
        )
        line = evaluate_line(run)
        if not line:
            page.section("Evaluation", f"{why} It has no checkpoint that could be.")
            return
        page.section(
            "Evaluation", f"{why} The table of classes, confusions, the worst and the best pictures come from:",
            html.code(line), "Then write the report again.",
        )  # fmt: skip
        return
    shown = findings.pictures(analysis, run.evaluation)
    for note in shown.notes:
        page.note(note)
    words = (
        f"{analysis.checkpoint} on {analysis.split}, {analysis.samples:,} pictures; from {run.evaluation}."
    )
    page.section("Evaluation", words, measured(run))
    for title, rows in analysis.tables.items():
        if rows and not (analysis.matrices and title == findings.REPEATED):
            page.section(title[:1].upper() + title[1:], findings.table(rows))
    for matrix in analysis.matrices:
        behind = analysis.pictures if matrix is analysis.matrices[0] else ()
        page.section(
            matrix.title,
            *findings.matrix(matrix, behind, shown.anchors),
            anchor=f"matrix-{html.slug(matrix.key)}",
        )
    if analysis.charts:
        page.section("Charts", html.columns(*map(findings.chart, analysis.charts)))
    for title, gallery in shown.galleries:
        page.section(title, gallery)
    if analysis.pictures:
        page.section(
            "All pictures", findings.spread_of_scores(analysis), *findings.listing(analysis, shown.anchors)
        )


def measured(run: Folder) -> Markup:
    """The scores of the evaluation."""
    source = run.scores.get("metrics", run.scores)
    values = source if isinstance(source, dict) else {}
    rows = [[name, value] for name, value in values.items() if html.is_number(value)]
    return html.table(["score", "value"], rows) if rows else Markup()


# Words -----------------------------------------------------------------------------------------------------


def words(run: Folder, notes: list[str]) -> Report:
    """The report as text, Markdown and CSV."""
    rows = score_rows(run)
    cells = [
        [str(row["score"]), *(html.number(row[key]) for key in ("first", "best", "last"))] for row in rows
    ]
    tables = (
        [Table("scores in validation", ["score", "first", "at best", "last"], cells, frozenset({0}))]
        if rows
        else []
    )
    if run.analysis is not None:
        tables += [plain_table(title, found) for title, found in run.analysis.tables.items() if found]
    known = facts(run)
    width = max((len(name) for name, _ in known), default=0)
    lines = [run.name, *(f"  {name:<{width}}  {value}" for name, value in known)]
    marked = [f"# {run.name}", "", *(f"- {name}: {value}" for name, value in known)]
    line = evaluate_line(run) if run.analysis is None else ""
    last = ["", f"what it gets wrong: {line}"] if line else []
    return in_words(NAME, lines, marked, tables, notes, rows, last=last)


def plain_table(title: str, rows: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_words(row.get(name)) for name in names] for row in rows]
    return Table(title, names, cells, frozenset({0}))


def _words(value: Any) -> str:
    if value is None:
        return html.NOTHING
    return html.number(value) if isinstance(value, int | float) else str(value)
