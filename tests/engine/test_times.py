"""Where the time of a run goes, by clocks that the test moves: of the processor, and of a GPU that works on behind it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.data.loading import Work
from dvsn.engine import starving, times
from dvsn.engine.times import HostMarks, Span, Spans, Times
from dvsn.errors import ConfigError


class Queue:
    """The marks of a GPU: a mark is put into its queue now, and passed when the work before it is done."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.busy_until, self.waits = clock, 0.0, 0

    def work(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.clock.now) + seconds

    def mark(self) -> float:
        return max(self.busy_until, self.clock.now)

    def seconds(self, start: float, end: float) -> float:
        assert self.passed(end), "read before it has happened"
        return end - start

    def passed(self, mark: float) -> bool:
        return mark <= self.clock.now

    def wait(self, mark: float) -> None:
        self.waits += 1
        self.clock.now = max(self.clock.now, mark)


class Clock:
    now = 0.0


class Recorder:
    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))


class Run:
    """A trainer with as much as `Times` looks at, whose loader waits and whose steps take as long as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, device: str = "cpu", batches: int = 3) -> None:
        self.clock = Clock()
        monkeypatch.setattr(times.time, "perf_counter", lambda: self.clock.now)
        monkeypatch.setattr(times.time, "process_time", lambda: 0.5 * self.clock.now)
        monkeypatch.setattr(times, "cores", lambda: 4)
        monkeypatch.setattr(times, "left_by_others", lambda own: 4.0)
        self.queue = Queue(self.clock)
        monkeypatch.setattr(times, "CudaMarks", lambda: self.queue)
        self.logger, self.loader = Recorder(), SimpleNamespace(waited=0.0, work=Work(), num_workers=2)
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        loop = SimpleNamespace(_batches_that_stepped=0)
        self.trainer: Any = SimpleNamespace(
            optimizers=[self.optimizer], train_dataloader=self.loader, is_global_zero=True, num_devices=1,
            num_training_batches=batches, loggers=[self.logger], sanity_checking=False, state=SimpleNamespace(fn="fit"),
            fit_loop=SimpleNamespace(epoch_loop=loop), strategy=SimpleNamespace(root_device=torch.device(device)),
        )  # fmt: skip
        self.task: Any = SimpleNamespace(device=torch.device(device))
        self.times = Times()

    def start(self) -> None:
        self.times.on_train_start(self.trainer, self.task)

    def spend(self, seconds: float) -> None:
        """On the processor, or in the queue of a GPU, which takes no time here."""
        if self.task.device.type == "cuda":
            self.queue.work(seconds)
        else:
            self.clock.now += seconds

    def step(self, number: int, *, wait: float, forward: float, backward: float, optimise: float) -> None:
        self.clock.now += wait
        self.loader.waited += wait
        self.loader.work = Work(*(a + b for a, b in zip(self.loader.work, (1, 1.0, 0.8), strict=True)))
        self.times.on_train_batch_start(self.trainer, self.task, {}, number)
        self.spend(forward)
        self.times.on_before_backward(self.trainer, self.task, None)
        self.spend(backward)
        self.times.on_after_backward(self.trainer, self.task)
        self.spend(optimise)
        self.optimizer.step()
        self.trainer.fit_loop.epoch_loop._batches_that_stepped += 1

    def validate(self, seconds: float) -> None:
        self.times.on_validation_start(self.trainer, self.task)
        self.clock.now += seconds
        self.times.on_validation_end(self.trainer, self.task)

    def end(self) -> dict[str, float]:
        """The end of an epoch; what was logged for it."""
        before = len(self.logger.logged)
        self.times.on_train_epoch_end(self.trainer, self.task)
        return self.logger.logged[-1][0] if len(self.logger.logged) > before else {}


STEP = {"wait": 1.0, "forward": 2.0, "backward": 4.0, "optimise": 0.5}


def test_the_parts_of_an_epoch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.start()
    for number in range(3):
        run.step(number, **STEP)
        run.clock.now += 0.25  # logging
    run.validate(5.0)
    run.clock.now += 0.25
    expected = {"data": 3.0, "forward": 6.0, "backward": 13.5, "validation": 5.0, "rest": 1.0}
    assert run.end() == {f"time/{part}": pytest.approx(value) for part, value in expected.items()}
    assert run.logger.logged[-1][1] == 2, "the step of the last batch, where its scores are"
    run.clock.now += 7.0  # the checkpoint, after the callback has written
    for number in range(3):
        run.step(number, **STEP)
    assert run.end()["time/rest"] == pytest.approx(7.0), "which is of the next epoch, then"
    run.clock.now += 2.0
    run.times.on_train_end(run.trainer, run.task)
    assert sum(run.times.total.values()) == pytest.approx(run.clock.now), "nothing is lost or counted twice"


def test_a_gpu_is_not_waited_for_and_only_its_own_gaps_are_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 3 s. The processor waits 1 s for the second batch, which the GPU does not notice, then 5 s for the third, of
    which the GPU has nothing to do for 3 + 3 - 1 - 5 = 0 s, and 4 s for a fourth, which it does."""
    run = Run(monkeypatch, device="cuda", batches=4)
    run.start()
    step = {"forward": 1.0, "backward": 1.5, "optimise": 0.5}
    run.step(0, wait=2.0, **step)  # from 2 to 5
    assert not run.queue.waits and run.times._spans.sums["forward"] == 0.0, "nothing has happened there yet"
    run.step(1, wait=1.0, **step)  # asked for at 3, from 5 to 8
    run.step(2, wait=5.0, **step)  # asked for at 8, from 8 to 11
    run.step(3, wait=4.0, **step)  # asked for at 12, from 12 to 15
    assert not run.queue.waits
    found = run.end()
    assert run.queue.waits == 1, "once, at the end of the epoch"
    expected = {
        "data": 2.0 + 0.0 + 0.0 + 1.0,
        "forward": 4.0,
        "backward": 8.0,
        "validation": 0.0,
        "rest": 0.0,
    }
    assert found == {f"time/{part}": pytest.approx(value) for part, value in expected.items()}


def test_a_gap_without_waiting_for_data_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU has nothing to do for 6 s, 5 of them because the processor logs."""
    run = Run(monkeypatch, device="cuda", batches=2)
    run.start()
    step = {"forward": 1.0, "backward": 1.0, "optimise": 0.0}
    run.step(0, wait=0.0, **step)  # until 2
    run.clock.now += 7.0
    run.step(1, wait=1.0, **step)  # from 8
    found = run.end()
    assert (found["time/data"], found["time/rest"]) == (pytest.approx(1.0), pytest.approx(5.0))


def test_two_backward_passes_of_a_step_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pix2pix: forward, backward, step, forward, backward, step."""
    run = Run(monkeypatch, batches=1)
    run.start()
    run.times.on_train_batch_start(run.trainer, run.task, {}, 0)
    for _ in range(2):
        run.spend(2.0)
        run.times.on_before_backward(run.trainer, run.task, None)
        run.spend(3.0)
        run.times.on_after_backward(run.trainer, run.task)
        run.spend(0.5)
        run.optimizer.step()
    found = run.end()
    assert (found["time/forward"], found["time/backward"]) == (4.0, 7.0)


def test_what_is_left_of_an_epoch_is_counted_and_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.start()
    run.step(2, **STEP)  # resumed before its last batch
    assert run.end() == {} and run.times.total["forward"] == 2.0
    run.step(0, **STEP)  # max_steps ends the next
    assert run.end() == {} and run.times.total["forward"] == 4.0


def test_a_validation_outside_of_training_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, batches=1)
    run.start()
    run.trainer.sanity_checking = True
    run.validate(9.0)
    run.trainer.sanity_checking = False
    run.step(0, **STEP)
    assert run.end()["time/validation"] == 0.0


def test_the_waiting_is_said_once_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker takes 1 s for a batch, of which two make two a second; the device waits 1 s of 7.5."""
    run = Run(monkeypatch)
    run.start()
    with caplog.at_level(logging.WARNING, logger="dvsn"):
        for _ in range(3):
            for number in range(3):
                run.step(number, **STEP)
            run.end()
            run.times.on_train_epoch_start(run.trainer, run.task)
    (text,) = caplog.messages
    assert text.startswith("The device waited 13% of the time for data (3.0 s of 22 s an epoch)")
    assert "data.workers=2 would" not in text and run.times.advice() == text
    seen = run.times.pipeline()
    assert seen is not None and (seen.batches, seen.workers, seen.cores, seen.made, seen.first) == (
        3,
        2,
        4,
        1.0,
        1.0,
    )
    assert seen.own_processor == pytest.approx(0.5 * 7.5) and seen.made_processor == pytest.approx(0.8)


def test_short_and_fed_trainings_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(monkeypatch)
    run.start()
    for number in range(3):
        run.step(number, wait=0.01, forward=0.01, backward=0.01, optimise=0.0)
    run.end()
    run.times.on_train_epoch_start(run.trainer, run.task)
    assert run.times.advice() is None, "too short to say anything"
    run = Run(monkeypatch)
    run.start()
    for number in range(3):
        run.step(number, wait=0.1, forward=2.0, backward=4.0, optimise=0.5)
    run.end()
    assert run.times.advice() is None and not caplog.messages
    assert sum(each.seconds for each in run.times._pipelines) > starving.LEAST


def test_hooks_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.start()
    run.start()
    assert len(run.optimizer._optimizer_step_post_hooks) == 1
    run.times.teardown(run.trainer, run.task, "fit")
    assert not run.optimizer._optimizer_step_post_hooks


def test_spans_by_the_clock_of_the_processor() -> None:
    spans = Spans(HostMarks())
    spans.add(Span("forward", 1.0, 3.0))
    spans.add(Span("data", 3.0, 8.0, most=2.0))
    assert spans.close() == {"data": 2.0, "forward": 2.0, "backward": 0.0, "validation": 0.0, "rest": 0.0}
    assert set(spans.sums.values()) == {0.0}


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.times\.said_from: found"):
        Times(said_from=share)
