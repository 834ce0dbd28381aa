"""The length of the gradient in the log: of which step, of which weights, and without what precision multiplies it by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.engine.callbacks import GradientNorm


class Run:
    """A trainer and a task with as much as `GradientNorm` looks at. An optimiser has two weights, one without gradient."""

    def __init__(self, *names: str, scaler: Any = None) -> None:
        self.weights = [
            [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
            for _ in names
        ]
        optimizers = [torch.optim.SGD(each, lr=1.0) for each in self.weights]
        self.trainer: Any = SimpleNamespace(
            optimizers=optimizers, precision_plugin=SimpleNamespace(scaler=scaler)
        )
        self.logged: list[dict[str, float]] = []
        self.task: Any = SimpleNamespace(
            optimizer_names=names, logs_now=True, window_open=False,
            log_dict=lambda values, batch_size: self.logged.append({k: float(v) for k, v in values.items()}),
        )  # fmt: skip
        self.norm = GradientNorm()
        self.norm.on_train_start(self.trainer, self.task)

    def batch(self, *gradients: float, logs: bool = True, closes: bool = True) -> None:
        """A batch at whose end the optimisers step if it `closes` an accumulation; gradients of (3g, 4g) and 12g."""
        self.task.logs_now = logs
        for optimizer, weights, gradient in zip(
            self.trainer.optimizers, self.weights, gradients, strict=True
        ):
            weights[0].grad, weights[1].grad = (
                gradient * torch.tensor([3.0, 4.0]),
                gradient * torch.tensor([12.0]),
            )
            if closes:
                self.norm.on_before_optimizer_step(self.trainer, self.task, optimizer)
        self.task.window_open = not closes
        self.norm.on_train_batch_end(self.trainer, self.task, None, {}, 0)


def test_by_hand() -> None:
    run = Run("network")
    run.batch(1.0)
    run.batch(2.0, logs=False)
    run.batch(3.0)
    assert run.logged == [{"system/gradient_norm": 13.0}, {"system/gradient_norm": 39.0}], "3, 4 and 12: 13"


def test_each_optimiser_has_its_own() -> None:
    run = Run("discriminator", "network")
    run.batch(1.0, 2.0)
    assert run.logged == [{"system/gradient_norm_discriminator": 13.0, "system/gradient_norm_network": 26.0}]


def test_only_logged_steps_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Tensor] = []

    def norm(gradients: list[Tensor]) -> Tensor:
        measured.append(gradients[0])
        return torch.tensor(0.0)

    monkeypatch.setattr("dvsn.engine.callbacks.get_total_norm", norm)
    run = Run("network")
    for number in range(20):
        run.batch(1.0, logs=number % 10 == 9)
    assert len(measured) == 2


def test_a_step_that_is_logged_within_an_accumulation() -> None:
    run = Run("network")
    run.batch(1.0, logs=True, closes=False)
    assert run.logged == [], "nothing is known yet"
    run.batch(2.0, logs=False)  # measured, since the one before was to be logged
    run.batch(5.0, logs=False)  # not measured
    run.batch(7.0, logs=True, closes=False)
    assert run.logged == [{"system/gradient_norm": 26.0}], "the last that was measured"


def test_the_scale_of_float16_is_no_gradient() -> None:
    """Lightning takes it away before the hook; a fused optimiser in its own step, which comes later."""
    run = Run("network", scaler=SimpleNamespace(get_scale=lambda: 4.0))
    run.batch(1.0)
    run.trainer.optimizers[0]._step_supports_amp_scaling = True
    run.batch(1.0)
    assert [each["system/gradient_norm"] for each in run.logged] == [13.0, 3.25]


def test_no_gradient_is_no_norm() -> None:
    run = Run("network")
    for weights in run.weights[0]:
        weights.grad = None
    run.norm.on_before_optimizer_step(run.trainer, run.task, run.trainer.optimizers[0])
    run.norm.on_train_batch_end(run.trainer, run.task, None, {}, 0)
    assert run.logged == []
