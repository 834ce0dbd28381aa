"""Runs that die at a step as if killed, and the comparison of two checkpoints bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from dvsn.engine import loggers
from dvsn.engine import trainer as runtime
from dvsn.engine.resume import find_resume, reached
from dvsn.weights import read_checkpoint


class Died(BaseException):
    """Stands for SIGKILL: nothing may be saved on the way out."""


class Dies(pl.Callback):
    """Raises Died before step number `step` of this process, counted from 0."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen += 1
        if self.seen > self.step:
            raise Died


def run(
    config: dict[str, Any], *, dies_after: int | None = None, dies: pl.Callback | None = None
) -> dict[str, Any] | None:
    """Train, from the newest checkpoint if there is one. None when it died; else last.ckpt."""
    torch.set_num_threads(1)
    folder = Path(config["run_dir"]) / "checkpoints"
    resume = find_resume("auto", folder.parent)
    task = runtime.make_task(config)
    trainer = runtime.build_trainer(config, task)
    if dies_after is not None or dies is not None:
        trainer.callbacks.insert(0, dies or Dies(dies_after or 0))  # type: ignore[attr-defined]
    if resume is not None:
        loggers.resume_csv(trainer, reached(resume).logged)
    try:
        trainer.fit(task, runtime.build_data(config), ckpt_path=resume, weights_only=True)
    except Died:
        return None
    return read_checkpoint(folder / "last.ckpt")


def equal(a: Any, b: Any) -> bool:
    """Do two trees of tensors hold the same bits?"""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
