"""The still picture of a search: scores in the order of the trials, and over each option that was searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvsn.pictures import figures
from dvsn.pictures.figures import BLUE, GREEN, GREY, words
from dvsn.report.search_table import Row, head, rows, score_name, with_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study

ACROSS, MOST = 4, 24
"""Panels side by side, and panels at most."""


@dataclass(frozen=True)
class Option:
    """An option that was searched, and its value in each trial that has it."""

    key: str
    log: bool
    choices: tuple[str, ...]
    """Of an option without numbers, in their order."""
    values: dict[int, float] = field(default_factory=dict)
    """By number of the trial; of choices their place."""
    ends: tuple[float, float] | None = None
    """Of the range, for numbers."""


def options(study: Study) -> list[Option]:
    """The searched options in the order in which they were given."""
    found: dict[str, Option] = {}
    for trial in study.get_trials(deepcopy=False):
        for key, value in trial.params.items():
            spread = trial.distributions[key]
            choices = tuple(map(str, getattr(spread, "choices", ())))
            if key not in found:
                ends = None if choices else (float(spread.low), float(spread.high))  # type: ignore[attr-defined]
                found[key] = Option(key, bool(getattr(spread, "log", False)), choices, ends=ends)
            known = found[key]
            if known.choices and str(value) in known.choices:
                known.values[trial.number] = float(known.choices.index(str(value)))
            elif not known.choices and isinstance(value, int | float):
                known.values[trial.number] = float(value)
    return list(found.values())


def running_best(table: Sequence[Row], *, more: bool) -> tuple[list[int], list[float]]:
    """The best score of finished trials up to each of them, in the order of their numbers."""
    done = sorted((r for r in table if r.state == "finished" and r.score is not None), key=lambda r: r.number)
    best: list[float] = []
    for row in done:
        assert row.score is not None
        best.append(row.score if not best else max(best[-1], row.score) if more else min(best[-1], row.score))
    return [row.number for row in done], best


def pictures(study: Study) -> dict[str, bytes]:
    """`search.png` and `search.svg`, once a trial has a finite score."""
    table = rows(study)
    scored = with_score(table)
    if not scored:
        return {}
    made = figures.files(lambda: draw(study, table, scored))
    return {f"search.{ending}": content for ending, content in made.items()}


def draw(study: Study, table: list[Row], scored: list[Row]) -> Figure:
    from matplotlib.figure import Figure

    searched = options(study)[: MOST - 1]
    across = min(ACROSS, 1 + len(searched))
    down = math.ceil((1 + len(searched)) / across)
    figure = Figure(figsize=(max(4.5, 3.0 * across), 0.4 + 2.7 * down), layout="constrained")
    grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
    figure.suptitle(words(head(study, table), 40 * across), fontsize=9, x=0.01, ha="left")
    panels = list(grid.flat)
    history(panels[0], study, table, scored)
    for axes, option in zip(panels[1 : 1 + len(searched)], searched, strict=True):
        over(axes, option, table, scored)
    for axes in panels[1 + len(searched) :]:
        axes.set_axis_off()
    for line in grid:
        line[0].set_ylabel(words(score_name(study), 30))
    return figure


def dots(axes: Axes, places: Sequence[float], scored: Sequence[Row], best: Row) -> None:
    """Finished trials are blue, the best green, pruned and others grey rings; the best is drawn last."""
    for place, row in reversed(list(zip(places, scored, strict=True))):
        assert row.score is not None
        if row.state != "finished":
            axes.plot(place, row.score, "o", color=GREY, markersize=4, fillstyle="none")
        else:
            colour = GREEN if row is best else BLUE
            axes.plot(place, row.score, "o", color=colour, markersize=6 if row is best else 4, alpha=0.85)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def history(axes: Axes, study: Study, table: list[Row], scored: list[Row]) -> None:
    numbers, best = running_best(table, more=study.direction.name == "MAXIMIZE")
    axes.plot(numbers, best, color=GREEN, linewidth=1.2, drawstyle="steps-post")
    dots(axes, [row.number for row in scored], scored, table[0])
    axes.set_xlabel("trial; green: the best so far")


def over(axes: Axes, option: Option, table: list[Row], scored: list[Row]) -> None:
    have = [row for row in scored if row.number in option.values]
    dots(axes, [option.values[row.number] for row in have], have, table[0])
    axes.set_xlabel(words(option.key, 36))
    if option.log:
        figures.logarithmic(axes)
    if option.choices:
        shown = option.choices if len(option.choices) <= 12 else ()
        axes.set_xticks(
            range(len(shown)), [words(each, 16) for each in shown], rotation=30 if len(shown) > 3 else 0
        )
        axes.set_xlim(-0.5, len(option.choices) - 0.5)
