"""What is known of a checkpoint beside its weights: the run that it comes from, its evaluations, a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.engine.records import measured_line
from dvsn.errors import DataError
from dvsn.reading import read_json, read_text

LIMIT = 16 << 20  # bytes of a record


@dataclass(frozen=True)
class Scores:
    """One evaluation of the checkpoint."""

    split: str
    metrics: dict[str, float]
    how: str
    """How it was measured, in words; empty where the record does not say."""


@dataclass(frozen=True)
class Run:
    """The run of a checkpoint. Everything is empty for a checkpoint that lies alone, such as a converted one."""

    command: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    scores: tuple[Scores, ...] = ()
    stale: tuple[str, ...] = ()
    """Splits whose evaluation is of another step of the training than the checkpoint."""
    picture: Path | None = None


def find_run(checkpoint: Path, *, step: Any) -> Run:
    """The run that a checkpoint lies in, with the evaluations of exactly this checkpoint, by the `step` it was saved at."""
    inside = checkpoint.parent.name == "checkpoints"
    folder = checkpoint.parent.parent if inside else checkpoint.parent
    scores, stale, pictures = [], [], []
    for file in sorted((folder / "evaluation").glob(f"{checkpoint.stem}_*/metrics.json")):
        record = record_of(file)
        split = str(record.get("split", file.parent.name))
        if record.get("step") != step or not isinstance(record.get("metrics"), dict):
            stale.append(split)
            continue
        scores.append(Scores(split, numbers(record["metrics"]), said(record.get("measured"))))
        pictures.append(file.parent / "grid.png")
    if not inside:
        return Run(scores=tuple(scores), stale=tuple(stale), picture=first(pictures))
    pictures.append(folder / "pictures" / "latest.png")
    commands = text_of(folder / "command.txt").splitlines()
    return Run(
        command=commands[0] if commands else "",
        result=record_of(folder / "result.json"),
        environment=record_of(folder / "environment.json"),
        scores=tuple(scores),
        stale=tuple(stale),
        picture=first(pictures),
    )


def said(measured: Any) -> str:
    """How it was measured, in words."""
    try:
        return measured_line(measured)
    except (KeyError, TypeError, ValueError, IndexError):  # a record of another version, or an edited one
        return ""


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures among them."""
    return {key: float(value) for key, value in metrics.items() if type(value) in (int, float)}


def first(files: list[Path]) -> Path | None:
    return next((file for file in files if file.is_file()), None)


def record_of(file: Path) -> dict[str, Any]:
    """A record of a run; empty where there is none or it is none."""
    try:
        content = read_json(file, expected="a record of a run", limit=LIMIT) if file.is_file() else {}
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def text_of(file: Path) -> str:
    try:
        return read_text(file, limit=LIMIT) if file.is_file() else ""
    except DataError:
        return ""
