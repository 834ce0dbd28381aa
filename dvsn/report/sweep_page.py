"""The page of a sweep: ranked tables that sort, seeds as dots, score against cost, and the curves of all runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from dvsn.report import curves, html, pareto, sweep_charts, sweep_table
from dvsn.report.curves import Curves
from dvsn.report.html import Cell, Page
from dvsn.report.ranking import Row, Section
from dvsn.report.runs import Found, Run

CHARTS = 12
"""So many settings have a section with a chart; the tables of further ones are folded."""
RUNS = 500
"""Runs whose curves are read, at most."""
FEW = 100
"""Of more runs, only two columns are drawn."""
READING = (
    "Mean and standard deviation are of the last epoch's score over the seeds, or seeds and folds; the best score is of the "
    "best epoch, chosen by the same pictures.",
    "Gain is over the student alone, positive is better; the gap is that between it and its teacher.",
    "p is that of the exact paired permutation test, two-sided: of the differences by seed to the row that is compared "
    "with. With n pairs it cannot be below 2 / 2^n, so that six pairs are needed for p below 0.05. “May be chance” is said "
    "wherever p is above 0.05 or there are less than two pairs.",
    "A run counts as collapsed, and is a red cross, if its last score is not finite; if it is an accuracy below 1.1 times "
    "that of guessing; or if it lies more than five robust standard deviations (1.4826 times the median absolute deviation, "
    "at least one percent of the median) on the bad side of the median of its table, which has five scores or more. "
    "Collapsed runs with a finite score stay in their row's mean.",
    "The Pareto front holds the rows that no other row beats at no greater cost; rows with collapsed runs do not take part.",
)  # fmt: skip


def page(name: str, sections: Sequence[Section], found: Found) -> Page:
    """The page of a sweep called `name`."""
    rows, runs = sum(len(each.rows) for each in sections), len(found.runs)
    counts = [f"{rows} rows", *([f"{runs} runs"] if runs else [])]
    if found.open:
        counts.append(f"{len(found.open)} without a result")
    made = Page(f"Sweep {name}", ", ".join(counts))
    for note in [*sweep_table.unfinished(found.open), *found.remarks]:
        made.note(note)
    for note in found.notes:
        made.note(f"Left out: {note}")
    overviews = sweep_table.overviews(sections)
    if overviews:
        made.section(
            "Settings", *(html.table(each.names, each.rows, caption=each.title) for each in overviews)
        )
    for section in sections[:CHARTS]:
        made.section(title_of(section, sections), *parts_of(section))
    if sections[CHARTS:]:
        further = [
            html.folded(
                title_of(section, sections),
                table(section),
                *map(html.paragraph, sweep_table.notes_of(section)),
            )
            for section in sections[CHARTS:]
        ]
        made.section("Further settings", *further)
    add_costs(made, sections)
    add_curves(made, sections, found)
    add_runs(made, sections)
    made.section("How to read it", *READING)
    return made


def title_of(section: Section, sections: Sequence[Section]) -> str:
    """What tells it from the others; the score where there is no other."""
    task = f"{section.task}: " if section.task and len({each.task for each in sections}) > 1 else ""
    score = f"{section.monitor}; " if len({each.monitor for each in sections}) > 1 else ""
    return f"{task}{score}{section.title}".removesuffix("; ") or f"Ranking by {section.monitor}"


def parts_of(section: Section) -> list[str | Markup]:
    """The table, what must be known of it, and every seed as a dot."""
    chart, height = sweep_charts.dot_plot(section)
    said = f"{section.monitor} of every seed by method"
    left = len(section.rows) - sweep_charts.MOST_ROWS
    more = [html.paragraph(f"{left} further rows are in the table.", quiet=True)] if left > 0 else []
    return [
        html.paragraph(sweep_table.head(section), quiet=True),
        table(section),
        *sweep_table.notes_of(section),
        html.figure(chart, height=height, label=said, least_width=360),
        *more,
    ]


NONE = (None, Cell("-", "-"))


# The table ------------------------------------------------------------------------------------------------


def table(section: Section) -> Markup:
    """The ranked rows, without columns in which no row says anything."""
    names = (
        "rank", "method", "weight", "seeds", "last", "best", "gain", "of the gap", "pairs", "p", "verdict",
        "collapsed", "s/epoch", "peak MiB", "parameters", "latency, ms",
    )  # fmt: skip
    rows = [cells(rank, row) for rank, row in enumerate(section.rows, 1)]
    kept = [
        place
        for place in range(len(names))
        if place in (0, 1, 3, 4) or any(row[place] not in NONE for row in rows)
    ]
    return html.table([names[place] for place in kept], [[row[place] for place in kept] for row in rows])


def cells(rank: int, row: Row) -> list[html.Value]:
    tested = row.comparison
    sure = tested is not None and tested.verdict in ("better", "worse")
    tone = "" if not sure or row.gain is None else "good" if row.gain > 0 else "bad"
    share = (
        None if row.share is None else Cell(f"{100 * row.share:.0f} %", row.share, bar=max(0.0, row.share))
    )
    return [
        rank,
        unbroken(row.method),
        unbroken(row.weight),
        row.seeds,
        None
        if row.last.mean is None
        else Cell(sweep_table.spread(row.last).replace("+-", "±"), row.last.mean),
        fixed(row.best.mean),
        None if row.gain is None else Cell(f"{row.gain:+.4f}", row.gain, tone=tone),
        share,
        None if tested is None else tested.pairs,
        None if tested is None or tested.p is None else Cell(f"{tested.p:.2g}", tested.p),
        None if tested is None else unbroken(tested.verdict, tone=tone if sure else "quiet"),
        Cell(f"{row.collapsed} of {row.seeds}", row.collapsed, tone="bad") if row.collapsed else None,
        None if row.epoch_seconds is None else Cell(f"{row.epoch_seconds:.2f}", row.epoch_seconds),
        None if row.peak_bytes is None else Cell(f"{row.peak_bytes / 2**20:.0f}", row.peak_bytes),
        None if row.parameters is None else Cell(f"{row.parameters:,.0f}", row.parameters),
        None if row.latency is None else Cell(f"{row.latency:.2f}", row.latency),
    ]


def unbroken(text: str, tone: str = "") -> Cell:
    """Short words on one line."""
    return Cell(text.replace(" ", "\u00a0") if len(text) <= 32 else text, text, tone=tone)


def fixed(value: float | None) -> Cell | None:
    return None if value is None else Cell(f"{value:.4f}", value)


# Further sections -----------------------------------------------------------------------------------------


def add_costs(page: Page, sections: Sequence[Section]) -> None:
    parts: list[str | Markup] = []
    for (first, *_), known in pareto.panels(sections)[:CHARTS]:
        if len({each.arena for each in sections}) > 1:
            parts.append(html.heading(title_of(first, sections)))
        charts = [
            html.figure(
                sweep_charts.cost_plot(first, cost, points),
                label=f"{first.monitor} against {cost.title}",
                height=360 + 20 * sum(point.front for point in points),
            )
            for cost, points in known
        ]
        parts.append(html.columns(*charts))
    if parts:
        page.section("Score against cost", *parts)


def add_curves(page: Page, sections: Sequence[Section], found: Found) -> None:
    """The curves of finished and of open runs, a chart a column, for each task and score."""
    arenas = pareto.arenas(sections)[:CHARTS]
    parts: list[str | Markup] = []
    every: list[Curves] = []
    left = RUNS
    for number, arena in enumerate(arenas):
        wanted = {name: folders[:left] for name, folders in members(arena).items()}
        if number == 0 and found.open:
            wanted["without a result"] = [(each.folder, each.folder.name) for each in found.open[:RUNS]]
        rows = [(name, [curves.read(*each) for each in folders]) for name, folders in wanted.items()]
        left = max(0, left - sum(len(runs) for _, runs in rows))
        every += [run for _, runs in rows for run in runs]
        charts = charts_of(rows, arena[0].monitor)
        if charts and len(arenas) > 1:
            parts.append(html.heading(title_of(arena[0], sections)))
        parts += charts
    note_damage(page, every)
    if parts:
        page.section("Curves of all runs", html.controls(), *parts)


def note_damage(page: Page, runs: Sequence[Curves]) -> None:
    """What was wrong with the files of curves; of many the first."""
    damaged = [note for run in runs for note in run.notes]
    for note in damaged[: sweep_table.SHOWN]:
        page.note(f"Curves: {note}")
    if len(damaged) > sweep_table.SHOWN:
        page.note(f"Curves: {len(damaged) - sweep_table.SHOWN} more files could not be read whole.")


def members(arena: Sequence[Section]) -> dict[str, list[tuple[Path, str]]]:
    """The folders of the runs by the name of their row, the best rows first; each run once."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for section, row, run in each_run(arena):
        name = sweep_table.named(row)
        name = f"{name} ({section.title})" if section.title and not row.alone else name
        found.setdefault(name, []).append((run.folder, f"{name}, seed {run.turn_name}"))
    return found


def each_run(sections: Sequence[Section]) -> Iterator[tuple[Section, Row, Run]]:
    """The runs with the first row and section that each is in: a student alone may be in several."""
    taken = set[Path]()
    for section in sections:
        for row in section.rows:
            for run in row.runs:
                if run.folder not in taken:
                    taken.add(run.folder)
                    yield section, row, run


def charts_of(
    rows: Sequence[tuple[str, Sequence[Curves]]], monitor: str, *, most: int = curves.SHOWN, who: str = "all runs"
) -> list[Markup]:  # fmt: skip
    """A chart for each column that is worth showing, the score first, `most` at most and two of many runs."""
    every = [run for _, runs in rows for run in runs]
    columns = curves.chosen(every, monitor)[: 2 if len(every) > FEW else most]
    allowed = curves.allowance(len(every), len(columns))
    height = 350 + 19 * min(len(rows), sweep_charts.COLOURED + 1)  # the names stand one below the other
    found = []
    for column in columns:
        chart, own = sweep_charts.curve_plot(rows, column, allowed=allowed)
        label = f"{column} of {who} over the steps"
        found.append(html.figure(chart, height=height, label=label, smooth=own))
    return [html.columns(*found)] if len(found) > 1 else found


def add_runs(page: Page, sections: Sequence[Section]) -> None:
    """Every run with its folder, closed until it is wanted."""
    lines: list[list[html.Value]] = [
        [row.method, row.weight, run.turn_name, fixed(run.last), fixed(run.best), run.collapsed or None, str(run.folder)]
        for _, row, run in each_run(sections)
    ]  # fmt: skip
    if lines:
        names = ("method", "weight", "seed", "last", "best", "collapsed", "folder")
        page.section("Runs", html.folded(f"{len(lines)} runs", html.table(names, lines)))
