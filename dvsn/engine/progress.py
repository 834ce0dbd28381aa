"""How far a run is: one line on a screen while it goes on, and one line an epoch in the log."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ProgressBar
from torch import Tensor

from dvsn.engine.progress_line import LETTERS, Position, Values, clock, line, named
from dvsn.engine.screens import Screen, above

log = logging.getLogger("dvsn")

REFRESH = 0.3
"""Seconds between two looks at the losses, which a GPU has to be waited for."""


class Pace:
    """Times of a run. Epochs of earlier parts of a resumed run do not count."""

    def __init__(self) -> None:
        self.began = self.epoch_began = time.perf_counter()
        self.epochs = 0
        self.steps_before = 0

    def start(self, steps: int) -> None:
        """A run begins, `steps` optimiser steps behind it."""
        self.began, self.epochs, self.steps_before = time.perf_counter(), 0, steps

    def start_epoch(self) -> None:
        self.epoch_began = time.perf_counter()

    def end_epoch(self) -> float:
        """Counts an epoch; the seconds that it took, with its validation."""
        self.epochs += 1
        return time.perf_counter() - self.epoch_began

    def run_left(self, trainer: pl.Trainer, share: float) -> float | None:
        """Seconds until the end of the run; `share` is what the epoch that goes on has behind it, 0..1."""
        spent, ends = time.perf_counter() - self.began, []
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and self.epochs + share > 0:
            behind = trainer.current_epoch + share
            ends.append(spent / (self.epochs + share) * max(0.0, trainer.max_epochs - behind))
        stepped = trainer.global_step - self.steps_before
        if trainer.max_steps > 0 and stepped > 0:
            ends.append(spent / stepped * max(0, trainer.max_steps - trainer.global_step))
        return min(ends, default=None)


class Bar(ProgressBar):
    """The line on a screen: epoch, batches, pictures a second, time left of the epoch and of the run, losses by name."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen
        self.pace = Pace()
        self._shown = float("-inf")
        self._since, self._pictures = 0.0, 0
        self._share = 0.0  # of the epoch that goes on
        self._messages: Any = None

    def disable(self) -> None:
        """Lightning asks for it in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    _enabled = True

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            self.disable()
        elif self._messages is None:
            self._messages = above(self.screen)
            self._messages.__enter__()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._messages is not None:
            self._messages.__exit__(None, None, None)
            self._messages = None
            self.screen.clear()

    def _show(self, title: str, done: int, total: float, *, fitting: bool = False) -> None:
        """Draws the line, unless it was drawn a moment ago."""
        now = time.perf_counter()
        if not self._enabled or (now - self._shown < REFRESH and done < total):
            return
        self._shown = now
        trainer, spent = self.trainer, now - self._since
        position = Position(
            title=title,
            done=done,
            total=None if total == float("inf") else int(total),
            rate=self._pictures / spent * trainer.world_size if self._pictures and spent > 0 else None,
            left=spent / done * (total - done) if done and total != float("inf") else None,
            run_left=self.pace.run_left(trainer, self._share) if fitting else None,
        )
        losses = self._losses() if trainer.training else {}
        self.screen.show(line(position, losses, self.screen.width(), plain=self.screen.plain))

    def _losses(self) -> dict[str, float]:
        shown = self.trainer.progress_bar_metrics
        found = {name: shown[name] for name in shown if name.startswith("train/")}
        return {name.removeprefix("train/"): float(value) for name, value in found.items()}  # type: ignore[arg-type]

    def _begin(self) -> None:
        self._since, self._pictures = time.perf_counter(), 0

    # Lightning's events.

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.pace.start(trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._pictures += size_of(batch)
        total = trainer.num_training_batches
        self._share = min(1.0, (batch_idx + 1) / total)
        self._show(title(trainer), batch_idx + 1, total, fitting=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.pace.end_epoch()
        self._share = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._train = self._since, self._pictures
        self._begin()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._pictures += size_of(batch)
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        what = f"{title(trainer)}, validation" if fitting else "validation"
        total = trainer.num_val_batches[dataloader_idx]
        self._show(what, batch_idx + 1, total, fitting=fitting)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        spent = time.perf_counter() - self._since
        self._since, self._pictures = self._train[0] + spent, self._train[1]  # the epoch's own rate goes on

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._begin()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._pictures += size_of(batch)
        self._show("measuring", batch_idx + 1, trainer.num_test_batches[dataloader_idx])


class EpochLines(Callback):
    """A line in the log for each epoch: its losses, the scores of its validation, its time, and what is left of the run.

    Losses are means over the steps that were logged, as every `trainer.log_every_n_steps`. Where a validation falls within
    an epoch, it has a line of its own. `monitor` is named first of the scores. On a terminal of `width` characters the
    line is shortened to fit, as `line` is.
    """

    def __init__(self, *, monitor: str | None = None, width: int | None = None) -> None:
        self.monitor, self.width = monitor, width
        self.pace = Pace()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._scored = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.pace.start(trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.pace.start_epoch()
        self._sums.clear()
        self._counts.clear()
        self._scored = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and pl_module.logs_now:
            for name, value in pl_module.latest.items():
                self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
                self._counts[name] = self._counts.get(name, 0) + 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._scored = True
        done, total = trainer.fit_loop.epoch_loop.batch_idx + 1, trainer.num_training_batches
        if trainer.is_global_zero and done < total:
            self._write(f"{title(trainer)}, batch {done}/{total}", {}, self._scores(trainer), [])
            self._scored = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        left, seconds = self.pace.run_left(trainer, 1.0), self.pace.end_epoch()
        if not trainer.is_global_zero:
            return
        times = [clock(seconds)] + ([f"{clock(left)} left"] if left else [])
        losses = {
            name.removeprefix("train/"): float(total / self._counts[name])
            for name, total in self._sums.items()
        }
        self._write(title(trainer), losses, self._scores(trainer) if self._scored else {}, times)

    def _scores(self, trainer: pl.Trainer) -> dict[str, float]:
        found = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/") and value.numel() == 1
        }
        first = [self.monitor] if self.monitor in found else []
        return {
            name.removeprefix("val/"): found[name] for name in [*first, *(n for n in found if n not in first)]
        }  # type: ignore[index]

    def _write(self, what: str, losses: Values, scores: Values, times: list[str]) -> None:
        """Where the line is too long the losses lose letters, then what is left is left out, then the last values."""
        shown, scored = dict(losses), named(scores)
        for letters, ending in [*((letters, times) for letters in LETTERS), (LETTERS[-1], times[:1])]:
            text = epoch_line(what, named(shown, letters), scored, ending)
            if self.width is None or len(text) <= self.width:
                break
        while self.width is not None and len(text) > self.width and len(shown) + len(scored) > 2:
            shown.popitem() if len(shown) > 1 else scored.pop()
            text = epoch_line(what, named(shown, LETTERS[-1]), scored, times[:1])
        log.info("%s", text)


def epoch_line(what: str, losses: list[str], scores: list[str], times: list[str]) -> str:
    """What was done, with its losses, its scores and its times."""
    parts = [what, ", ".join(losses), f"val {', '.join(scores)}" if scores else "", ", ".join(times)]
    return "  ".join(part for part in parts if part)


def title(trainer: pl.Trainer) -> str:
    """`epoch 3/10`."""
    number = trainer.current_epoch + 1
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return f"epoch {number}"
    return f"epoch {number:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"


def size_of(batch: Any) -> int:
    """How many pictures a batch holds."""
    try:
        return len(batch["index"])
    except (KeyError, TypeError):
        return 0
