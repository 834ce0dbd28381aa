"""The report of a search: a table of trials by score, and the lines that run the best ones again."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvsn.report.search_study import UNSEEN
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
        if trial.state.name == "FAIL" and trial.user_attrs.get(UNSEEN):
            continue
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


def with_score(table: list[Row]) -> list[Row]:
    """The trials that have a place on an axis of scores."""
    return [row for row in table if row.score is not None and math.isfinite(row.score)]


def score_name(study: Study) -> str:
    return str(study.user_attrs.get("score", "score")).partition(",")[0]


def best_line(study: Study, table: list[Row]) -> str:
    """The command that runs the best trial again; empty where none has finished."""
    return line_of(study, table[0]) if table and table[0].state == "finished" else ""


def line_of(study: Study, row: Row) -> str:
    """The command that runs a trial again."""
    written, trial = study.user_attrs.get("keys", {}), study.get_trials(deepcopy=False)[row.number]
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
    """The report as text, Markdown and CSV."""
    found = rows(study)
    names, *lines = cells(found)
    errors = [f"  trial {row.number}: {row.error[:160]}" for row in found if row.error]
    table = Table(head(study, found), names, lines, left=frozenset((2,)), notes=errors)
    best = best_line(study, found)
    return Report(
        name="search",
        text="\n".join([*table.text(), *([f"best again: {best}"] if best else [])]) + "\n",
        markdown="\n".join([*table.markdown(), *(["", f"    {best}"] if best else [])]) + "\n",
        rows=[
            dict(zip([*names, "error"], [*line, row.error], strict=True))
            for line, row in zip(lines, found, strict=True)
        ],
    )
