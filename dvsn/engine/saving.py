"""When `last.ckpt` and `best.ckpt` are written, and how a run ends that gets a signal to stop."""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from dvsn.atomic import replacing, usual_mode
from dvsn.engine.checkpoint import remove_leftovers
from dvsn.engine.differences import kept
from dvsn.engine.next_steps import command_of, line_to_continue
from dvsn.engine.validations import WholeAccumulations, warn_without
from dvsn.errors import UserError
from dvsn.tasks.base import Task
from dvsn.tasks.finite import NotFinite

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """`last.ckpt` and `best.ckpt`, each replaced atomically, from which a run continues bit for bit.

    `last` is written after every `every_n_epochs` epochs, every `every_n_steps` batches if that is given,
    at the end, and when the run is told to stop (SIGTERM, Ctrl-C, SLURM's requeue signal). `best` is
    written when `monitor` improves in the sense of `mode`.

    Nothing is saved at an epoch's last batch, where Lightning's counters are between two epochs, nor in the middle of a
    gradient accumulation: both wait for the next clean point, as validations and the end of the run do. A run that
    `max_steps` or `max_time` ends inside an epoch is saved after its last batch and can be continued from there. Where
    a validation follows a batch, the checkpoint of that batch is written after it, so that its score is never lost.
    Weights that are not finite are never saved. A failed write, such as on a full disk, ends the run with a message and
    leaves the older file as it was.

    A first signal ends the run after the current batch, with exit code 143 (SIGTERM) or 130 (Ctrl-C); a second Ctrl-C
    ends it at once.
    """

    def __init__(
        self,
        *,
        folder: str,
        monitor: str | None = None,
        mode: str = "min",
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        save_weights: bool = False,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.monitor, self.sign = Path(folder), monitor, {"min": 1.0, "max": -1.0}[mode]
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.save_weights = save_weights
        self.config = None if config is None else kept(config)
        self.best: float | None = None
        self.best_epoch: int | None = None  # counted from 1
        self.best_step: int | None = None
        self.latest: float | None = None  # the score of the last validation of this part of the run
        self.latest_epoch: int | None = None
        self._improved = False
        self._postponed = False
        self._whole: WholeAccumulations | None = None
        self._waited = False
        """Whether the checkpoint that a run goes on from was written after a validation that had waited."""
        self._signal = 0
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "monitor": self.monitor,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "waited": self._whole is not None and self._whole.validated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The best of an earlier part of the run; checkpoints of before 2026-12 do not say its epoch."""
        self._waited = bool(state.get("waited"))
        if state["monitor"] == self.monitor:
            self.best = state["best"]
            self.best_epoch, self.best_step = state.get("best_epoch"), state.get("best_step")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """The whole config, and what was chosen where it leaves the choice: what a resumed run is compared with. The config
        has the choices too, as that of a resumed run has, which writes the same file."""
        if self.config is not None:
            ran: dict[str, Any] = {
                "precision": str(trainer.precision),
                "channels_last": bool(pl_module.channels_last),
            }
            if pl_module.distiller is not None:
                ran["teachers"] = [teacher.engine for teacher in pl_module.distiller.teachers]
            config = {**self.config, "channels_last": ran["channels_last"]}
            config["trainer"] = {**(config.get("trainer") or {}), "precision": ran["precision"]}
            checkpoint.setdefault("dvsn", {}).update(config=config, ran=ran)

    # Clean points -----------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._whole is not None:
            self._whole.batch_begins()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 >= trainer.num_training_batches
        epoch = trainer.current_epoch
        trainer.datamodule.position = (epoch + 1, 0) if last else (epoch, batch_idx + 1)  # type: ignore[attr-defined]
        stop = self._agreed_signal(trainer)
        if self._whole is not None:
            self._whole.batch_ended()
        if last or pl_module.window_open:
            return
        due = self.every_n_steps is not None and (batch_idx + 1) % self.every_n_steps == 0
        ends_here = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if not (due or stop or ends_here):
            return
        loop = trainer.fit_loop.epoch_loop
        if loop._should_check_val_fx(trainer.fit_loop._data_fetcher):  # type: ignore[arg-type]
            self._postponed = True
            return
        log_step(trainer)
        self._save_and_stop(trainer, stop)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._whole is not None:
            self._whole.validation_ended()
        if self.monitor is not None:
            self._look_at_score(trainer)
        if self._improved and not self._at_epoch_end(trainer):
            self._save_best(trainer)
        stopped = trainer.should_stop and not self._at_epoch_end(trainer)
        if self._postponed or stopped:  # by its score, within an epoch
            self._postponed = False
            self._save_and_stop(trainer, self._agreed_signal(trainer))

    def _look_at_score(self, trainer: pl.Trainer) -> None:
        assert self.monitor is not None
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise UserError(f"monitor.name: nothing called '{self.monitor}' was logged. Logged: {known}.")
        score = float(value)
        self.latest, self.latest_epoch = score, trainer.current_epoch + 1
        if math.isfinite(score) and (self.best is None or self.sign * score < self.sign * self.best):
            self.best, self._improved = score, True
            self.best_epoch, self.best_step = trainer.current_epoch + 1, trainer.global_step

    def _save_and_stop(self, trainer: pl.Trainer, stop: int) -> None:
        self._save(trainer, "last.ckpt")
        if stop:
            self._stop(trainer, stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self._at_epoch_end(trainer):
            return  # max_steps or max_time ended the run inside an epoch: saved after its last batch
        # Lightning has already counted this epoch: current_epoch is the number of epochs done.
        stop = self._agreed_signal(trainer)
        if self._improved:
            self._save_best(trainer)
        finished = trainer.max_epochs is not None and trainer.current_epoch >= trainer.max_epochs > 0
        ends_here = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if stop or finished or ends_here or trainer.current_epoch % self.every_n_epochs == 0:
            self._save(trainer, "last.ckpt")
        if stop:
            self._stop(trainer, stop)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.save_weights:
            return
        # asked by all processes: with `trainer=fsdp` each has a part of it
        strategy: Any = trainer.strategy
        state = getattr(strategy, "whole_state", strategy.lightning_module_state_dict)()
        if trainer.is_global_zero:
            kept = {key: value for key, value in state.items() if not key.startswith("distiller.")}
            write_safetensors(self.folder / "last.safetensors", kept)

    @staticmethod
    def _at_epoch_end(trainer: pl.Trainer) -> bool:
        return trainer.datamodule.position[1] == 0  # type: ignore[attr-defined]

    # Writing ----------------------------------------------------------------------------------------

    def _save_best(self, trainer: pl.Trainer) -> None:
        self._improved = False
        self._save(trainer, "best.ckpt")

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        path = self.folder / name
        task = trainer.lightning_module
        assert isinstance(task, Task)
        task.check_finite()
        bad = [
            key for key, value in task.named_parameters() if not bool(torch.isfinite(own_part(value)).all())
        ]
        if bad:
            raise NotFinite(
                f"step {trainer.global_step}: weights are not finite ({', '.join(bad[:3])}, {len(bad)} in all). The "
                f"run stops here; the checkpoints in {self.folder} are from before. Lower optim.lr, set "
                "trainer.gradient_clip_val, or use trainer.precision=32-true."
            )
        try:
            for logger in trainer.loggers:
                logger.save()  # what the log holds of this checkpoint's past is never lost
            # Here weights_only is about saving: false keeps the optimisers, without which nothing resumes.
            trainer.save_checkpoint(path, weights_only=False)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            older = (
                "The older checkpoint of that name is intact."
                if path.exists()
                else "There was none before it."
            )
            raise UserError(
                f"{path}: the checkpoint could not be written: {reason}. {older} Free some space, then continue "
                "with resume=auto."
            ) from error

    # Signals ----------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Handle the signals here: Lightning would act in the middle of a step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._whole = WholeAccumulations(trainer, pl_module, validated=self._waited)
        if trainer.is_global_zero:
            remove_leftovers(self.folder)
            warn_without(trainer, pl_module, monitor=self.monitor)
        wanted = [signal.SIGTERM, signal.SIGINT]
        if hasattr(signal, "SIGUSR1") and os.environ.get("SLURM_JOB_ID"):
            wanted.append(signal.SIGUSR1)
        for number in wanted:
            try:
                self._handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread: a notebook or a test harness keeps its own handlers
                return

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._restore_handlers()
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._handlers.clear()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._signal:
                raise KeyboardInterrupt
            log.info("Stopping after this batch. Press Ctrl-C again to stop at once.")
        self._signal = max(self._signal, number)

    def _agreed_signal(self, trainer: pl.Trainer) -> int:
        """The signal that any rank has received, the same answer on every rank."""
        if trainer.world_size == 1:
            return self._signal
        flag = torch.tensor(self._signal, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(flag, reduce_op="max"))

    def _stop(self, trainer: pl.Trainer, number: int) -> None:
        if hasattr(signal, "SIGUSR1") and number == signal.SIGUSR1:
            # Lightning's own handler writes hpc_ckpt_N.ckpt and asks SLURM to requeue the job.
            trainer._signal_connector._slurm_sigusr_handler_fn(number, None)  # type: ignore[arg-type]
            raise SystemExit(0)
        log.info(
            "Stopped by %s. Continue with resume=auto; the state is in %s.",
            signal.Signals(number).name,
            self.folder,
        )
        arguments = command_of(self.folder.parent)
        if arguments is not None and (self.folder / "last.ckpt").exists():
            log.info(
                "continue    %s", line_to_continue(self.folder.parent, arguments, changed={}, forced=False)
            )
        raise SystemExit(128 + number)


def own_part(parameter: Tensor) -> Tensor:
    """What this process keeps of a parameter: all of it, unless `trainer=fsdp` shares it out."""
    to_local: Any = getattr(parameter, "to_local", None)
    part: Tensor = parameter if to_local is None else to_local()
    return part


def log_step(trainer: pl.Trainer) -> None:
    """Log the values of the batch that has just ended. Lightning does this only after its callbacks."""
    connector = trainer._logger_connector
    if connector.should_update_logs:
        connector.log_metrics(connector.metrics["log"])


def write_safetensors(path: Path, state: dict[str, Tensor]) -> None:
    """Weights alone, atomically, in the safetensors format."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, str(temporary))
        usual_mode(temporary)
