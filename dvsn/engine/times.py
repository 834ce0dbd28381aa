"""Where the time of a run goes: waiting for data, forward, backward, validation, and the rest."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from dvsn.data.loading import Work
from dvsn.engine.starving import Pipeline, cores, enough, left_by_others, sentence
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")

PARTS = ("data", "forward", "backward", "validation", "rest")
"""What an epoch is divided into; `rest` is what no other part has, such as saving and logging."""


class HostMarks:
    """Moments by the clock of the processor."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def passed(self, mark: float) -> bool:
        return True

    def wait(self, mark: float) -> None:
        pass


class CudaMarks:
    """Moments at which a GPU comes to a place in its queue: events, which the processor does not wait for."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) / 1000

    def passed(self, mark: Any) -> bool:
        return bool(mark.query())

    def wait(self, mark: Any) -> None:
        mark.synchronize()


class Span(NamedTuple):
    """From one mark to another, for a part of the epoch, of which at most so many seconds count."""

    part: str
    start: Any
    end: Any
    most: float = float("inf")


class Spans:
    """Sums of spans by part. A span is read once the device has passed its end, without waiting for it."""

    def __init__(self, marks: Any) -> None:
        self.marks = marks
        self.sums = dict.fromkeys(PARTS, 0.0)
        self._open: deque[Span] = deque()

    def add(self, span: Span) -> None:
        self._open.append(span)
        while self._open and self.marks.passed(self._open[0].end):
            self._read()

    def close(self) -> dict[str, float]:
        """The sums, after waiting for the last span; begins anew."""
        if self._open:
            self.marks.wait(self._open[-1].end)
        while self._open:
            self._read()
        sums, self.sums = self.sums, dict.fromkeys(PARTS, 0.0)
        return sums

    def _read(self) -> None:
        span = self._open.popleft()
        self.sums[span.part] += max(0.0, min(span.most, self.marks.seconds(span.start, span.end)))


class Times(Callback):
    """Logs `time/data`, `time/forward`, `time/backward`, `time/validation` and `time/rest`: seconds of each whole epoch.

    - data: the next batch was waited for. On a GPU: while the GPU had nothing to do between two steps as well.
    - forward: up to the backward pass, with the loss, and a teacher's pass.
    - backward: the gradients, what joins them over processes, and the optimiser's step.
    - validation: with the drawing of its pictures.
    - rest: what is left of the epoch, such as checkpoints and logging.

    On a GPU the last three are taken between CUDA events in its queue, which are read some steps later and at the end of an
    epoch: nothing waits for the GPU because of them, once an epoch aside. Elsewhere by the processor's clock. Of several
    processes the first one's are logged. An epoch that was resumed in its middle is not logged.

    Where the device waits for `said_from` of the training's time (0..1) or more, one line says so and what to do, once
    enough was seen, and again at the end of the run.
    """

    def __init__(self, *, said_from: float = 0.1) -> None:
        if not 0 < said_from <= 1:
            raise ConfigError(
                f"callbacks.times.said_from: found {said_from}, expected a share above 0, up to 1."
            )
        self.said_from = said_from
        self.total = dict.fromkeys(PARTS, 0.0)
        """Seconds of this part of the run."""
        self._said = False
        self._handles: list[Any] = []
        self._pipelines: list[Pipeline] = []
        self._spans = Spans(HostMarks())
        self._last: Any = None  # the mark at which the last step ended

    # Lightning's events.

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._spans = Spans(CudaMarks() if pl_module.device.type == "cuda" else HostMarks())
        self._release()
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._end_backward))
        self.total = dict.fromkeys(PARTS, 0.0)
        self._pipelines, self._said = [], False
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        """An epoch begins, or what is left of one that is resumed."""
        loader = trainer.train_dataloader
        self._began, self._own = time.perf_counter(), time.process_time()
        self._validated = self._validation_own = 0.0  # of the processor's clocks, for the pipeline
        self._first, self._batches = 0.0, 0
        self._waited = getattr(loader, "waited", 0.0)
        self._work = getattr(loader, "work", Work())
        self._last = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """After the line of the epoch before."""
        if trainer.is_global_zero and not self._said:
            self._say()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        waited = getattr(trainer.train_dataloader, "waited", 0.0)
        wait, self._waited = waited - self._waited, waited
        now = self._spans.marks.mark()
        if self._last is None:  # the device had nothing to do before
            self._spans.sums["data"] += wait
        else:
            self._spans.add(Span("data", self._last, now, most=wait))
        if not self._batches:
            self._first = wait
        self._batches += 1
        self._last = now

    def _end(self, part: str) -> None:
        now = self._spans.marks.mark()
        if self._last is not None:
            self._spans.add(Span(part, self._last, now))
        self._last = now

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        self._end("forward")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._end("backward")

    def _end_backward(self, *_: Any) -> None:
        """After an optimiser's step: a task with two of them goes forward again."""
        self._end("backward")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._start = self._spans.marks.mark(), time.perf_counter(), time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            mark, seconds, own = self._start
            self._spans.add(Span("validation", mark, self._spans.marks.mark()))
            self._validated += time.perf_counter() - seconds
            self._validation_own += time.process_time() - own

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        parts = self._close()
        self._pipelines.append(self._pipeline(trainer, parts["data"]))
        whole = self._batches >= trainer.num_training_batches  # else it was resumed, or is ended, within
        if whole and trainer.is_global_zero:
            step = (
                trainer.fit_loop.epoch_loop._batches_that_stepped - 1
            )  # where the scores of its validation are
            for logger in trainer.loggers:
                logger.log_metrics({f"time/{part}": value for part, value in parts.items()}, step)
        self._begin(trainer)

    def _close(self) -> dict[str, float]:
        """The parts of the epoch that ends, which are added to those of the run."""
        parts = self._spans.close()
        parts["rest"] = max(0.0, time.perf_counter() - self._began - sum(parts.values()))
        for part, value in parts.items():
            self.total[part] += value
        return parts

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.total["rest"] += time.perf_counter() - self._began  # the last checkpoint

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # The input pipeline.

    def _pipeline(self, trainer: pl.Trainer, waited: float) -> Pipeline:
        loader = trainer.train_dataloader
        done, workers = getattr(loader, "work", Work()).since(self._work), getattr(loader, "num_workers", 0)
        own = time.process_time() - self._own - self._validation_own
        return Pipeline(
            batches=self._batches,
            seconds=time.perf_counter() - self._began - self._validated,
            waited=waited,
            first=min(self._first, waited),
            workers=workers,
            cores=max(1, cores() // max(1, trainer.num_devices)),
            made=done.seconds / max(1.0, done.batches),
            made_processor=done.processor_seconds / max(1.0, done.batches),
            free=left_by_others(
                workers + (torch.get_num_threads() if trainer.strategy.root_device.type == "cpu" else 1)
            ),
            own_processor=max(0.0, own - (0.0 if workers else done.processor_seconds))
            / max(1, self._batches),
        )

    def pipeline(self) -> Pipeline | None:
        """The mean epoch of this part of the run, without its first, in which much happens once, where there are others."""
        return Pipeline.mean(self._pipelines[1:] or self._pipelines)

    def advice(self) -> str | None:
        """What to do where the device waits; None where it does not, or where too little was seen to say so."""
        seen = self.pipeline()
        if seen is None or not enough(self._pipelines):
            return None
        return sentence(seen, said_from=self.said_from)

    def _say(self) -> None:
        text = self.advice()
        if text is not None:
            log.warning("%s", text)
            self._said = True
