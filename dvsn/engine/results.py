"""The content of result.json, written when a training has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvsn.engine import teachers
from dvsn.engine.run_folder import peak_memory
from dvsn.engine.saving import Checkpoints
from dvsn.engine.scores import Scores
from dvsn.engine.stopping import why_ended
from dvsn.engine.times import Times
from dvsn.tasks.base import Task

Config = dict[str, Any]


class TeacherScore(NamedTuple):
    """The teacher's score by the run's monitor, and a digest of what it depends on; None where it is not measured."""

    score: float | None = None
    measured_by: str | None = None


def measure_teacher(task: Task, config: Config) -> TeacherScore:
    """Measure the teacher where there is one and `distillation.measure` wants it."""
    if task.distiller is None or not config["distillation"].get("measure", True):
        return TeacherScore()
    score = teachers.measure(task, config)
    return TeacherScore() if score is None else TeacherScore(score, teachers.measured_by(config))


def shipped(task: Task) -> int:
    """The number of parameters of what is shipped; counted before, where they are shared out."""
    known: int | None = getattr(task, "shipped_parameters", None)
    return sum(parameter.numel() for parameter in task.deployable().parameters()) if known is None else known


def result(
    config: Config,
    task: Task,
    trainer: pl.Trainer,
    folder: Path,
    *,
    teacher: TeacherScore,
    seconds: float,
    before: int,
) -> Config:
    """The result of a run that took `seconds`; `before` is the number of batches that an earlier part of it did.

    `best_metrics` and the best of `classes` (`dvsn.engine.scores.Validation`) are null where that validation was in an
    earlier part of the run. `ended` says why the run is over. `times` are seconds of this part, by what they went to
    (`dvsn.engine.times.Times`).
    """
    saved, scores, times = (find(trainer, kind) for kind in (Checkpoints, Scores, Times))
    best, last = scores.best_of(saved.best_step), scores.last
    return {
        "monitor": (config.get("monitor") or {}).get("name"),
        "best": saved.best,
        "best_epoch": saved.best_epoch,
        "best_step": saved.best_step,
        "last": saved.latest,
        "last_epoch": saved.latest_epoch,
        "objective": saved.best,
        "best_metrics": None if best is None else best.scores,
        "metrics": {key: float(value) for key, value in sorted(trainer.callback_metrics.items())},
        "classes": {"best": best.classes if best else None, "last": last.classes if last else None},
        "measured": how_measured(task, trainer.precision),
        "ended": why_ended(trainer),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "epoch_seconds": epoch_seconds(seconds, trainer, before),
        "times": None if times is None else {part: round(value, 3) for part, value in times.total.items()},
        "peak_memory_bytes": peak_memory(on_gpu=trainer.strategy.root_device.type == "cuda"),
        "teacher_score": teacher.score,
        "teacher_measured_by": teacher.measured_by,
        "parameters": shipped(task),
        "folder": str(folder),
    }


def find(trainer: pl.Trainer, kind: type) -> Any:
    """The callback of a class; None where the run has none."""
    return next((item for item in trainer.callbacks if isinstance(item, kind)), None)  # type: ignore[attr-defined]


def how_measured(task: Task, precision: str) -> Config:
    """What a score depends on beside weights and data: the precision, and how the task asks its network in a test.

    `mirror`, `scales`, `resize` and `mode` (whole | slide, with `window`, `stride` and `blend`) are those of the task; a
    task without a choice looks at whole pictures once. `tile`: where these are tiles, `data.tile` and `data.tile_overlap`.
    Of a task that `measures_in_float32` a mixed precision is that of training alone.
    """
    asked = getattr(task, "inference", None)
    measured: Config = {
        "precision": "32-true" if task.measures_in_float32 and precision.endswith("-mixed") else precision,
        "mode": getattr(asked, "mode", "whole"),
        "scales": list(getattr(asked, "scales", (1.0,))),
        "mirror": bool(getattr(asked, "flip", getattr(task, "flip_test", False))),
    }
    if measured["mode"] == "slide":
        measured |= {"window": list(asked.window), "stride": asked.stride and list(asked.stride)}  # type: ignore[union-attr]
        if asked.blend != "even":  # type: ignore[union-attr]
            measured["blend"] = asked.blend  # type: ignore[union-attr]
    if getattr(asked, "resize", None) is not None:
        measured["resize"] = asked.resize if isinstance(asked.resize, int) else list(asked.resize)  # type: ignore[union-attr]
    if (task.data_recipe or {}).get("tile"):
        measured["tile"] = {
            "size": task.data_recipe["tile"],
            "overlap": task.data_recipe.get("tile_overlap", 0),
        }
    for key in ("test_dropout", "test_norm"):
        if hasattr(task, key):
            measured[key] = getattr(task, key)
    return measured


def epoch_seconds(seconds: float, trainer: pl.Trainer, before: int) -> float | None:
    """How long an epoch took, with its validation; `before` is the number of batches that an earlier part of
    the run did."""
    batches = trainer.fit_loop.epoch_loop._batches_that_stepped - before
    return round(seconds * int(trainer.num_training_batches) / batches, 3) if batches > 0 else None
