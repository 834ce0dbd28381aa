"""How the report of a search looks: trials by score as text, Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import io
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.atomic import replacing

if TYPE_CHECKING:
    import numpy as np
    from optuna import Study

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}


@dataclass(frozen=True)
class Row:
    """A trial."""

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
    return shlex.join(["python", "-m", "dvsn.train", *study.user_attrs.get("command", []), *values])


def head(study: Study, table: list[Row]) -> str:
    counts = [
        f"{count} {state}" for state in STATES.values() if (count := sum(r.state == state for r in table))
    ]
    return f"{study.user_attrs.get('score', 'score')}; of {len(table)} trials {', '.join(counts) or 'none'}"


def cells(table: list[Row]) -> list[list[str]]:
    """A line of names and one for each trial."""
    keys = list(dict.fromkeys(key for row in table for key in row.values))
    lines = [["rank", "trial", "state", "score", "validations", "seconds", *keys]]
    for rank, row in enumerate(table, 1):
        lines.append([
            str(rank) if row.state == "finished" else "-", str(row.number), row.state,
            "-" if row.score is None else f"{row.score:.6g}", str(row.validations),
            "-" if row.seconds is None else f"{row.seconds:.1f}", *(row.values.get(key, "-") for key in keys),
        ])  # fmt: skip
    return lines


def text(study: Study, table: list[Row]) -> str:
    """Aligned columns, the errors of failed trials, and the line that runs the best one again."""
    lines = cells(table)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [head(study, table)]
    for line in lines:
        padded = [
            cell.ljust(width) if i == 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  " + "  ".join(padded).rstrip())
    shown += [f"  trial {row.number}: {row.error[:160]}" for row in table if row.error]
    best = best_line(study, table)
    return "\n".join([*shown, *([f"best again: {best}"] if best else [])]) + "\n"


def markdown(study: Study, table: list[Row]) -> str:
    names, *lines = cells(table)
    best = best_line(study, table)
    shown = [f"**{head(study, table)}**", "", f"| {' | '.join(names)} |", "|---:" * len(names) + "|"]
    shown += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*shown, *(["", f"    {best}"] if best else [])]) + "\n"


def report(study: Study, folder: Path) -> str:
    """Write search.txt, .md, .csv and, once a trial has a score, .png; and give back the text."""
    table = rows(study)
    shown = text(study, table)
    sheet = io.StringIO(newline="")
    names, *lines = cells(table)
    writer = csv.writer(sheet)
    writer.writerow([*names, "error"])
    writer.writerows([*line, row.error] for line, row in zip(lines, table, strict=True))
    contents = {
        "txt": shown.encode(),
        "md": markdown(study, table).encode(),
        "csv": sheet.getvalue().encode(),
    }
    if any(row.score is not None for row in table):
        import cv2

        contents["png"] = cv2.imencode(".png", picture(study, table)[:, :, ::-1])[1].tobytes()
    for ending, content in contents.items():
        with replacing(folder / f"search.{ending}") as temporary:
            temporary.write_bytes(content)
    return shown


# The picture ---------------------------------------------------------------------------------------------

PANEL, HIGH, MARGIN = 260, 220, 40


def picture(study: Study, table: list[Row]) -> np.ndarray:
    """RGB: the scores of trials in their order and over each searched key, logarithmic where it was searched so.

    Finished trials are blue, the best green, pruned ones grey.
    """
    import numpy as np

    from dvsn.sweep.report_table import BLACK, write

    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    scored = [row for row in table if row.score is not None]
    keys = list(dict.fromkeys(key for row in table for key in row.values))
    canvas = np.full((HIGH + 2 * MARGIN, PANEL * (1 + len(keys)) + MARGIN, 3), 255, np.uint8)
    write(canvas, head(study, table)[:110], 8, 20, BLACK, 0.4)
    panel(canvas, MARGIN, "trial", [float(row.number) for row in scored], scored)
    for index, key in enumerate(keys, 1):
        have = [row for row in scored if key in row.values]
        spread = trials[have[0].number].distributions[key] if have else None
        raw = [trials[row.number].params[key] for row in have]
        choices = list(getattr(spread, "choices", ()))
        places = [float(choices.index(value)) if choices else float(value) for value in raw]
        if getattr(spread, "log", False):
            places = [math.log10(value) for value in places]
        panel(
            canvas,
            MARGIN + PANEL * index,
            key,
            places,
            have,
            choices=choices,
            log=bool(getattr(spread, "log", False)),
        )
    return canvas


def panel(
    canvas: np.ndarray, left: int, title: str, places: list[float], table: list[Row], *, choices: list[Any] | None = None,
    log: bool = False,
) -> None:  # fmt: skip
    import cv2

    from dvsn.sweep.report_table import BLACK, BLUE, GREEN, GREY, write

    top, wide = MARGIN, PANEL - MARGIN
    cv2.rectangle(canvas, (left, top), (left + wide, top + HIGH), GREY, 1)
    write(canvas, title[-32:], left, top + HIGH + 32, BLACK, 0.4)
    if not table:
        return
    scores = [row.score for row in table if row.score is not None]
    (low, high), (first, last) = span(scores), span(places)
    for place, row in reversed(list(zip(places, table, strict=True))):  # the best is drawn last
        assert row.score is not None
        x = left + round(wide * (place - first) / (last - first))
        y = top + HIGH - round(HIGH * (row.score - low) / (high - low))
        colour = GREY if row.state != "finished" else GREEN if row is table[0] else BLUE
        cv2.circle(canvas, (x, y), 4, colour, -1, cv2.LINE_AA)
    names = (
        [str(choices[0]), str(choices[-1])]
        if choices
        else [f"{10**v if log else v:.4g}" for v in (min(places), max(places))]
    )
    write(canvas, names[0][:12], left, top + HIGH + 16, GREY, 0.38)
    write(canvas, names[1][:12], left + wide - 8 * len(names[1][:12]), top + HIGH + 16, GREY, 0.38)
    write(canvas, f"{max(scores):.4g}", left + 3, top + 12, GREY, 0.36)
    write(canvas, f"{min(scores):.4g}", left + 3, top + HIGH - 4, GREY, 0.36)


def span(values: list[float]) -> tuple[float, float]:
    """Of an axis: all values and a margin."""
    margin = 0.08 * (max(values) - min(values)) or 0.01 * (abs(max(values)) or 1.0)
    return min(values) - margin, max(values) + margin
