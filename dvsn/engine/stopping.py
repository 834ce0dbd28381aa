"""Early stopping: a run ends when its score gets no better; and the words in which a run says why it ended."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from dvsn.errors import ConfigError, UserError

log = logging.getLogger("dvsn")


class Stopping(EarlyStopping):
    """Ends a run after `patience` validations without a score better than the best by more than `min_delta`, or with
    one that reaches `goal`, or that is not a number.

    The count and the best score are in the checkpoint; `patience`, `min_delta` and `goal` are the run's own, so that a run
    that was stopped goes on when it is resumed with more patience, and with the same stays where it is. Validations of an
    initial stage of distillation are not counted: the student does not learn its task there.
    """

    def __init__(
        self,
        *,
        monitor: str,
        mode: str = "min",
        patience: int = 10,
        min_delta: float = 0.0,
        goal: float | None = None,
    ) -> None:
        if patience < 1:
            raise ConfigError(
                f"callbacks.stopping.patience: found {patience}, expected 1 validation or more."
            )
        if min_delta < 0 or not math.isfinite(min_delta):
            raise ConfigError(f"callbacks.stopping.min_delta: found {min_delta}, expected 0 or more.")
        if mode not in ("min", "max"):
            raise ConfigError(f"callbacks.stopping.mode: found '{mode}', expected min or max.")
        super().__init__(
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            check_on_train_epoch_end=False,
        )
        self.goal = goal
        self.reason: str | None = None  # why the run was stopped, in words

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.wait_count, "best": float(self.best_score)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.wait_count = int(state["waited"])
        self.best_score = self.best_score.new_tensor(float(state["best"]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A run that had stopped is not trained further."""
        if self._reaches(float(self.best_score)):
            self.reason = self._goal_reached(float(self.best_score))
        elif self.wait_count >= self.patience:
            self.reason = self._exhausted()
        trainer.should_stop = trainer.should_stop or self.reason is not None

    def _should_skip_check(self, trainer: pl.Trainer) -> bool:
        distiller = getattr(trainer.lightning_module, "distiller", None)
        initial = 0 if distiller is None else distiller.initial_epochs
        return super()._should_skip_check(trainer) or trainer.current_epoch < initial

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.monitor not in logs:
            known = ", ".join(sorted(name for name in logs if name.startswith("val/")))
            raise UserError(
                f"callbacks.stopping.monitor: nothing called '{self.monitor}' was logged. Logged: {known}."
            )
        return True

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        """Whether to stop, and why. `reason` is in place before the other processes are asked, who have the same score."""
        score = float(current)
        if not math.isfinite(score):
            self.reason = f"{self.monitor} is {score}"
        elif self.monitor_op(current - self.min_delta, self.best_score.to(current.device)):
            self.best_score, self.wait_count = current.detach().float().cpu(), 0
            self.reason = self._goal_reached(score) if self._reaches(score) else None
        else:
            self.wait_count += 1
            self.reason = self._exhausted() if self.wait_count >= self.patience else None
        return self.reason is not None, self.reason

    def _reaches(self, score: float) -> bool:
        if self.goal is None or not math.isfinite(score):
            return False
        return score <= self.goal if self.mode == "min" else score >= self.goal

    def _goal_reached(self, score: float) -> str:
        return f"{self.monitor} {score:.4g} has reached callbacks.stopping.goal={self.goal:g}"

    def _exhausted(self) -> str:
        return (
            f"{self.monitor} was no better than {float(self.best_score):.4g} for {counted(self.wait_count)} "
            f"(callbacks.stopping.patience={self.patience})"
        )


def counted(validations: int) -> str:
    return f"{validations} validation{'' if validations == 1 else 's'}"


def why_ended(trainer: pl.Trainer) -> str:
    """Why a training that has just ended is over, in words."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Stopping) and callback.reason is not None:
            return f"early: {callback.reason}"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"after trainer.max_epochs={trainer.max_epochs}"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"after trainer.max_steps={trainer.max_steps}"
    return "after trainer.max_time"
