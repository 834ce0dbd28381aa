"""The page of a search: the best trials with their command lines, parallel coordinates, and which options decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from dvsn.report import curves, html, run_metrics, search_charts, sweep_page
from dvsn.report.html import Cell, Page
from dvsn.report.search_plot import Option, options
from dvsn.report.search_table import Row, head, line_of, rows, score_name, with_score

if TYPE_CHECKING:
    from optuna import Study

BEST = 5
"""So many trials are shown with their lines."""
ENOUGH = 10
"""Finished trials, at least, for a word about which options decide."""
MOST = 24
"""Options that are drawn, at most."""


def page(study: Study, folder: Path) -> Page:
    """The page of a study whose trials lie in `folder`."""
    table = rows(study)
    scored, score = with_score(table), score_name(study)
    made = Page(f"Search {folder.parent.name}", head(study, table))
    if not table:
        made.note("No trial has begun yet.")
    if not any(row.state == "finished" for row in table):
        made.note("No trial has finished yet, so there is no best one.")
    add_best(made, study, table)
    searched = options(study)[:MOST]
    if scored:
        more = study.direction.name == "MAXIMIZE"
        chart = search_charts.history(scored, more=more, score=score)
        made.section("History", html.figure(chart, height=380, label=f"{score} of the trials in their order"))
        add_options(made, study, searched, scored, score)
    add_curves(made, folder, table, score)
    made.section("All trials", trials(table))
    return made


def add_best(page: Page, study: Study, table: Sequence[Row]) -> None:
    parts: list[str | Markup] = []
    for row in [row for row in table if row.state == "finished"][:BEST]:
        parts.append(html.heading(f"trial {row.number}: {row.score:.6g}"))
        parts.append(html.code(line_of(study, row)))
    if parts:
        page.section(
            "The best trials", html.paragraph("The line below each runs it again.", quiet=True), *parts
        )


def add_options(
    page: Page, study: Study, searched: Sequence[Option], scored: Sequence[Row], score: str
) -> None:
    """Parallel coordinates, the weight of each option, and the score over each."""
    if not searched:
        return
    chart = search_charts.parallel(searched, scored, score=score)
    wide = 120 * (len(searched) + 1)
    said = (
        "A line is a trial. A drag along an axis leaves the lines that cross it there, also along several; a click on the "
        "axis brings the others back. Groups are by score; a click in the legend hides one, a double click shows it alone."
    )
    page.section(
        "Parallel coordinates",
        html.figure(chart, height=460, label="Options and score of each trial", least_width=wide, brush=True),
        html.paragraph(said, quiet=True),
    )  # fmt: skip
    parts: list[str | Markup] = [*importance(study)]
    charts = [
        html.figure(
            search_charts.over(option, scored, score=score), height=320, label=f"{score} over {option.key}"
        )
        for option in searched
    ]
    page.section("Options", *parts, html.columns(*charts))


def importance(study: Study) -> list[str | Markup]:
    """Which options decide whether a trial is among the best tenth: PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255),
    as Optuna has it. Nothing where too few trials have finished, or all scores are the same."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < ENOUGH:
        return [
            html.paragraph(f"Which options decide is said once {ENOUGH} trials have finished.", quiet=True)
        ]
    try:
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):
        return []
    if not found or not all(map(math.isfinite, found.values())):
        return []
    lines: list[list[html.Value]] = [
        [key, Cell(f"{100 * share:.0f} %", share, bar=share)] for key, share in found.items()
    ]
    said = "Share: how much of what sets the best tenth of the trials apart lies in this option (PED-ANOVA)."
    return [html.table(("option", "share"), lines), html.paragraph(said, quiet=True)]


def add_curves(page: Page, folder: Path, table: Sequence[Row], score: str) -> None:
    """The scores of the trials over their steps; the best in colours."""
    named = [(f"trial {row.number}", folder / str(row.number)) for row in table]
    read = [
        (name, [curves.read(place, name)]) for name, place in named if (place / run_metrics.FILE).is_file()
    ]
    sweep_page.note_damage(page, [run for _, (run,) in read])
    charts = sweep_page.charts_of(read, score, most=2, who="the trials")
    if charts:
        page.section("Curves", html.controls(), *charts)


def trials(table: Sequence[Row]) -> Markup:
    """All of them, ranked."""
    keys = list(dict.fromkeys(key for row in table for key in row.values))
    errors = any(row.error for row in table)
    lines: list[list[html.Value]] = []
    for rank, row in enumerate(table, 1):
        tone = {"failed": "bad", "pruned": "quiet"}.get(row.state, "")
        seconds = None if row.seconds is None else Cell(f"{row.seconds:.1f}", row.seconds)
        score = None if row.score is None else Cell(f"{row.score:.6g}", row.score)
        lines.append([
            rank if row.state == "finished" else None, row.number, Cell(row.state, row.state, tone=tone), score,
            row.validations, seconds, *(number_of(row.values.get(key)) for key in keys),
            *([row.error or None] if errors else []),
        ])  # fmt: skip
    names = (
        "rank",
        "trial",
        "state",
        "score",
        "validations",
        "seconds",
        *keys,
        *(["error"] if errors else []),
    )
    return html.table(names, lines)


def number_of(text: str | None) -> html.Value:
    """A value of an option, sorted as a number where it is one."""
    if text is None:
        return None
    try:
        return Cell(text, float(text))
    except ValueError:
        return text
