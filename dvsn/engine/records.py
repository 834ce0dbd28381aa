"""The records that `dvsn.train` and `dvsn.evaluate` return in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """A training that has ended."""

    folder: Path
    """Of the run: its config, metrics, pictures and checkpoints."""
    best: Path | None
    """The checkpoint of the best score; None where the run had no score, or no validation."""
    last: Path | None
    """The checkpoint of the end."""
    score: float | None
    """The best score, by `monitor`."""
    monitor: str | None
    """The name of the score, such as val/miou."""
    metrics: dict[str, float]
    """The last value of everything that was logged, by name, such as val/miou and train/loss."""
    epochs: int
    steps: int
    seconds: float
    result: dict[str, Any] = field(repr=False)
    """All of result.json."""

    @property
    def kept(self) -> Path:
        """The best checkpoint, else the last. Raises `ConfigError` where the run has left none."""
        found = self.best or self.last
        if found is None:
            raise ConfigError(f"checkpoint: the run in {self.folder} has left none.")
        return found

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Run:
        """The record of a run's result.json."""
        folder = Path(result["folder"])
        best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
        return cls(
            folder=folder,
            best=best if result["best"] is not None and best.exists() else None,
            last=last if last.exists() else None,
            score=result["best"],
            monitor=result["monitor"],
            metrics=dict(result["metrics"]),
            epochs=result["epochs"],
            steps=result["steps"],
            seconds=result["seconds"],
            result=dict(result),
        )


@dataclass(frozen=True)
class Evaluation(Mapping[str, float]):
    """A checkpoint measured on a split; as a mapping, its metrics by name: `evaluation["miou"]`."""

    checkpoint: str
    split: str
    metrics: dict[str, float]
    """By name, without the split."""
    details: dict[str, list[dict[str, Any]]]
    """Tables behind them, by title, such as one row for each class."""
    samples: int
    """How many were measured."""
    measured: dict[str, Any] = field(repr=False)
    """How: precision, size, scales, mirror, as metrics.json has it."""
    folder: Path
    """Where metrics.json, pictures and files are."""

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Any:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __str__(self) -> str:
        width = max((len(name) for name in self.metrics), default=0)
        lines = [f"{Path(self.checkpoint).name} on {self.split}, {self.samples} samples"]
        return "\n".join([*lines, *(f"{name:<{width}}  {value:.4f}" for name, value in self.metrics.items())])

    @classmethod
    def of(cls, folder: Path) -> Evaluation:
        """The record of a folder with metrics.json."""
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        names = ("checkpoint", "split", "metrics", "details", "samples", "measured")
        return cls(folder=folder, **{name: content[name] for name in names})


def measured_line(measured: Mapping[str, Any]) -> str:
    """`how_measured` of `dvsn.engine.results`, with samples and size where they are known, in one line."""
    parts = (
        [f"{measured['samples']} of {measured['samples_in_split']} samples"] if "samples" in measured else []
    )
    if "size" in measured:
        height, width = (f"{low}" if low == high else f"{low}..{high}" for low, high in measured["size"])
        parts.append(f"{height}x{width}")
    precision = str(measured["precision"])
    parts.append("float32" if precision == "32-true" else precision)
    mode = "tiles of pictures" if "tile" in measured else "whole pictures"
    if measured["mode"] == "slide":
        window, stride = measured["window"], measured["stride"]
        mode = f"windows of {window[0]}x{window[1]}" + (f" by {stride[0]}x{stride[1]}" if stride else "")
    parts += [mode, f"scales {', '.join(f'{scale:g}' for scale in measured['scales'])}"]
    parts.append("averaged with the mirrored" if measured["mirror"] else "not mirrored")
    if "resize" in measured:
        to = measured["resize"]
        parts.append(
            f"resized to {to[0]}x{to[1]}" if isinstance(to, list) else f"resized to a shorter side of {to}"
        )
    if measured.get("test_dropout"):
        parts.append("with dropout")
    if "test_norm" in measured:
        parts.append(f"{measured['test_norm']} statistics")
    return ", ".join(parts)
