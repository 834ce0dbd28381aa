"""Learning-rate schedules against factors computed by hand."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.errors import ConfigError
from dvsn.optim.schedules import Constant, Cosine, LinearDecay, Poly, Schedule, Step
from dvsn.tasks.base import Task


def rates(schedule: Schedule, *, steps_per_epoch: int, epochs: int, base: float = 1.0) -> list[float]:
    """The rate that every step of a run trains with."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    total = steps_per_epoch * epochs
    scheduler = schedule.attach(optimizer, steps_per_epoch=steps_per_epoch, total_steps=total)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_linear_decay_over_two_hundred_epochs() -> None:
    seen = rates(LinearDecay(constant_epochs=100, decay_epochs=100), steps_per_epoch=2, epochs=200)
    by_epoch = seen[::2]
    assert seen[1::2] == by_epoch  # a rate holds for the whole epoch
    assert by_epoch[:99] == [1.0] * 99
    assert by_epoch[99] == pytest.approx(1 - 1 / 101)  # epoch 100 is the first below the base rate
    assert by_epoch[149] == pytest.approx(1 - 51 / 101)
    assert by_epoch[198] == pytest.approx(1 / 101)
    assert by_epoch[199] == 0.0
    assert all(a >= b for a, b in itertools.pairwise(by_epoch))


def test_linear_decay_stays_at_zero_in_a_longer_run() -> None:
    seen = rates(LinearDecay(constant_epochs=1, decay_epochs=1), steps_per_epoch=1, epochs=5)
    assert seen == pytest.approx([0.5, 0.0, 0.0, 0.0, 0.0])


def test_linear_decay_without_decay() -> None:
    assert rates(LinearDecay(constant_epochs=3, decay_epochs=0), steps_per_epoch=1, epochs=2) == [1.0, 1.0]


def test_poly() -> None:
    expected = [(1 - step / 8) ** 0.9 for step in range(8)]
    assert rates(Poly(power=0.9), steps_per_epoch=4, epochs=2) == pytest.approx(expected)
    assert Poly(power=2).factor(8, steps_per_epoch=4, total_steps=8) == 0.0
    assert (
        Poly(power=0.9).factor(99, steps_per_epoch=4, total_steps=8) == 0.0
    )  # never complex, never negative


def test_cosine() -> None:
    expected = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates(Cosine(), steps_per_epoch=4, epochs=1) == pytest.approx(expected)
    halfway = Cosine(final_factor=0.2).factor(5, steps_per_epoch=1, total_steps=10)
    assert halfway == pytest.approx(0.6)
    assert Cosine(final_factor=0.2).factor(10, steps_per_epoch=1, total_steps=10) == pytest.approx(0.2)
    assert Cosine(final_factor=0.2).factor(15, steps_per_epoch=1, total_steps=10) == pytest.approx(0.2)


def test_cosine_spans_the_steps_after_the_warmup() -> None:
    seen = rates(Cosine(warmup_steps=2, warmup_factor=0.0), steps_per_epoch=6, epochs=1)
    expected = [0.0, 0.5] + [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert seen == pytest.approx(expected)


def test_step_in_epochs() -> None:
    seen = rates(Step(milestones=[3, 1], gamma=0.1), steps_per_epoch=2, epochs=4, base=2.0)
    assert seen == pytest.approx([2.0, 2.0, 0.2, 0.2, 0.2, 0.2, 0.02, 0.02])


def test_warmup_rises_from_its_factor_to_the_schedule() -> None:
    seen = rates(Constant(warmup_steps=4, warmup_factor=0.2), steps_per_epoch=6, epochs=1, base=10.0)
    assert seen == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0, 10.0])
    poly = rates(Poly(power=1.0, warmup_steps=2, warmup_factor=0.0), steps_per_epoch=4, epochs=1)
    assert poly == pytest.approx([0.0, 0.75 * 0.5, 0.5, 0.25])


@pytest.mark.parametrize("schedule", [Constant, LinearDecay, Poly, Cosine])
def test_no_warmup_is_the_default(schedule: type[Schedule]) -> None:
    assert schedule().factor(0, steps_per_epoch=5, total_steps=1000) == 1.0
    assert rates(schedule(), steps_per_epoch=5, epochs=1)[0] == 1.0


@pytest.mark.parametrize(
    "options", [{"warmup_steps": -1}, {"warmup_factor": 1.5}, {"warmup_factor": -0.1}], ids=str
)
def test_bad_warmups_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="schedule"):
        Poly(**options)


def test_negative_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="decay_epochs"):
        LinearDecay(decay_epochs=-1)


def attached(accumulate: int, *, batches: int, max_epochs: int, max_steps: int = -1) -> Any:
    """The scheduler that a task puts on its optimiser in such a run."""
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(setup_data=lambda: None), num_training_batches=batches, accumulate_grad_batches=1,
        max_epochs=max_epochs, max_steps=max_steps,
    )  # fmt: skip
    task = Task(optim=torch.optim.SGD, schedule=Poly(power=1.0))
    task._trainer, task.accumulate_grad_batches = trainer, accumulate  # type: ignore[assignment]
    return task.attach_schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))


def test_accumulation_does_not_stretch_a_schedule() -> None:
    rule = attached(2, batches=10, max_epochs=2).lr_lambdas[0]  # 5 steps an epoch, 10 in all
    assert [rule(step) for step in (0, 5, 9)] == pytest.approx([1.0, 0.5, 0.1])
    rule = attached(4, batches=10, max_epochs=2).lr_lambdas[0]  # 4, 4 and 2 batches: 3 steps an epoch
    assert rule(3) == pytest.approx(0.5)


def test_max_steps_shortens_a_schedule() -> None:
    rule = attached(1, batches=10, max_epochs=2, max_steps=8).lr_lambdas[0]
    assert rule(4) == pytest.approx(0.5)
    rule = attached(1, batches=10, max_epochs=-1, max_steps=40).lr_lambdas[0]
    assert rule(10) == pytest.approx(0.75)


def test_a_schedule_holds_no_state_of_its_own() -> None:
    """A resumed scheduler needs the step alone: nothing that cannot be unpickled is saved."""
    state = attached(1, batches=10, max_epochs=2).state_dict()
    assert state["lr_lambdas"] == [None]
