"""The report of a search: a table of trials by score, the line that runs the best one again, and a picture."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dvsn.report.painter import BLUE, GREEN, GREY, Axis, Canvas
from dvsn.report.table import Report, Table

if TYPE_CHECKING:
    from optuna import Study

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}


@dataclass(frozen=True)
class Row:
    """One trial."""

    number: int
    state: str
    """finished | pruned | failed | unfinished"""
    score: float | None
    """Its best; of a pruned trial until then."""
    validations: int
    seconds: float | None
    values: dict[str, str]
    error: str


def rows(study: Study) -> list[Row]:
    """The trials: those that finished by score, best first, then the pruned ones, then the rest by number."""
    more = study.direction.name == "MAXIMIZE"
    found = []
    for trial in study.get_trials(deepcopy=False):
        state = STATES.get(trial.state.name, "unfinished")
        scores = [each for each in trial.intermediate_values.values() if math.isfinite(each)]
        best = None if not scores else max(scores) if more else min(scores)
        score = trial.value if state == "finished" else best
        values = {
            key: f"{value:.6g}" if isinstance(value, float) else str(value)
            for key, value in trial.params.items()
        }
        seconds = None if trial.duration is None else trial.duration.total_seconds()
        error = str(trial.user_attrs.get("error", ""))
        found.append(Row(trial.number, state, score, len(trial.intermediate_values), seconds, values, error))
    order = list(STATES.values())

    def place(row: Row) -> tuple[int, float, int]:
        ranked = row.score is not None and row.state in ("finished", "pruned")
        worse = 0.0 if not ranked or row.score is None else -row.score if more else row.score
        return order.index(row.state), worse, row.number

    return sorted(found, key=place)


def best_line(study: Study, table: list[Row]) -> str:
    """The command that runs the best trial again; empty where none has finished."""
    if not table or table[0].state != "finished":
        return ""
    written, trial = study.user_attrs.get("keys", {}), study.get_trials(deepcopy=False)[table[0].number]
    values = []
    for key, value in trial.params.items():  # as `Range.override` writes them
        grid = isinstance(value, float) and getattr(trial.distributions[key], "step", None) is not None
        values.append(f"{written.get(key, key)}={value:.12g}" if grid else f"{written.get(key, key)}={value}")
    line = [*study.user_attrs.get("flags", []), *study.user_attrs.get("command", []), *values]
    return shlex.join(["python", "-m", "dvsn.train", *line])


def head(study: Study, table: list[Row]) -> str:
    counts = [
        f"{count} {state}" for state in STATES.values() if (count := sum(r.state == state for r in table))
    ]
    return f"{study.user_attrs.get('score', 'score')}; of {len(table)} trials {', '.join(counts) or 'none'}"


def cells(table: list[Row]) -> list[list[str]]:
    """A row of column names, then a row for each trial."""
    keys = list(dict.fromkeys(key for row in table for key in row.values))
    lines = [["rank", "trial", "state", "score", "validations", "seconds", *keys]]
    for rank, row in enumerate(table, 1):
        lines.append([
            str(rank) if row.state == "finished" else "-", str(row.number), row.state,
            "-" if row.score is None else f"{row.score:.6g}", str(row.validations),
            "-" if row.seconds is None else f"{row.seconds:.1f}", *(row.values.get(key, "-") for key in keys),
        ])  # fmt: skip
    return lines


def report(study: Study) -> Report:
    """All forms of the report; the picture once a trial has a score."""
    found = rows(study)
    names, *lines = cells(found)
    errors = [f"  trial {row.number}: {row.error[:160]}" for row in found if row.error]
    table = Table(head(study, found), names, lines, left=frozenset((2,)), notes=errors)
    best = best_line(study, found)
    scored = any(row.score is not None for row in found)
    return Report(
        name="search",
        text="\n".join([*table.text(), *([f"best again: {best}"] if best else [])]) + "\n",
        markdown="\n".join([*table.markdown(), *(["", f"    {best}"] if best else [])]) + "\n",
        rows=[
            dict(zip([*names, "error"], [*line, row.error], strict=True))
            for line, row in zip(lines, found, strict=True)
        ],
        picture=picture(study, found) if scored else None,
    )


# The picture ---------------------------------------------------------------------------------------------

PANEL, HIGH, MARGIN = 260, 220, 40  # pixels: the width of a panel, its height, and what is left free around


def picture(study: Study, table: list[Row]) -> np.ndarray:
    """(H, W, 3) RGB: scores of the trials in their order, then over each searched key, on a logarithmic axis where it
    was searched so. Finished trials are blue, the best green, pruned ones grey."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    scored = [row for row in table if row.score is not None]
    keys = list(dict.fromkeys(key for row in table for key in row.values))
    canvas = Canvas(HIGH + 2 * MARGIN, PANEL * (1 + len(keys)) + MARGIN)
    canvas.words(head(study, table)[:110], 8, 20, size=0.4)
    panel(canvas, MARGIN, "trial", [float(row.number) for row in scored], scored)
    for index, key in enumerate(keys, 1):
        have = [row for row in scored if key in row.values]
        spread = trials[have[0].number].distributions[key] if have else None
        raw = [trials[row.number].params[key] for row in have]
        choices, log = list(getattr(spread, "choices", ())), bool(getattr(spread, "log", False))
        places = [float(choices.index(value)) if choices else float(value) for value in raw]
        if log:
            places = [math.log10(value) for value in places]
        panel(canvas, MARGIN + PANEL * index, key, places, have, choices=choices, log=log)
    return canvas.pixels


def panel(
    canvas: Canvas, left: int, title: str, places: list[float], table: list[Row], *, choices: list[Any] | None = None,
    log: bool = False,
) -> None:  # fmt: skip
    """Scores over `places`, one dot for each row, in a frame that begins at pixel column `left`."""
    top, wide = MARGIN, PANEL - MARGIN
    canvas.frame((left, top), (left + wide, top + HIGH), GREY)
    canvas.words(title[-32:], left, top + HIGH + 32, size=0.4)
    if not table:
        return
    scores = [row.score for row in table if row.score is not None]
    across, up = Axis(places, left, wide), Axis(scores, top + HIGH, -HIGH)
    for place, score, row in reversed(
        list(zip(places, scores, table, strict=True))
    ):  # the best is drawn last
        colour = GREY if row.state != "finished" else GREEN if row is table[0] else BLUE
        canvas.dot((across(place), up(score)), colour, 4, filled=True)
    ends = (
        [str(choices[0]), str(choices[-1])]
        if choices
        else [f"{10**v if log else v:.4g}" for v in (min(places), max(places))]
    )
    canvas.words(ends[0][:12], left, top + HIGH + 16, GREY, 0.38)
    canvas.words(ends[1][:12], left + wide - 8 * len(ends[1][:12]), top + HIGH + 16, GREY, 0.38)
    canvas.words(f"{max(scores):.4g}", left + 3, top + 12, GREY, 0.36)
    canvas.words(f"{min(scores):.4g}", left + 3, top + HIGH - 4, GREY, 0.36)
