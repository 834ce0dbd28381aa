"""What a finished training gives: the content of result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvsn.engine import teachers
from dvsn.engine.run_folder import peak_memory
from dvsn.engine.saving import Checkpoints
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
    """The result of a run that took `seconds`; `before` is the number of batches that an earlier part of it did."""
    saved = next(item for item in trainer.callbacks if isinstance(item, Checkpoints))  # type: ignore[attr-defined]
    return {
        "monitor": (config.get("monitor") or {}).get("name"),
        "best": saved.best,
        "objective": saved.best,
        "metrics": {key: float(value) for key, value in sorted(trainer.callback_metrics.items())},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "epoch_seconds": epoch_seconds(seconds, trainer, before),
        "peak_memory_bytes": peak_memory(),
        "teacher_score": teacher.score,
        "teacher_measured_by": teacher.measured_by,
        "parameters": sum(parameter.numel() for parameter in task.deployable().parameters()),
        "folder": str(folder),
    }


def epoch_seconds(seconds: float, trainer: pl.Trainer, before: int) -> float | None:
    """How long an epoch took, with its validation; `before` is the number of batches that an earlier part of the run did."""
    batches = trainer.fit_loop.epoch_loop._batches_that_stepped - before
    return round(seconds * int(trainer.num_training_batches) / batches, 3) if batches > 0 else None
