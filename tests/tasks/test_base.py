"""What the base of all tasks does for each: the check of losses, stages of a schedule, recipes in checkpoints."""

from __future__ import annotations

import functools
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dvsn.errors import ConfigError
from dvsn.optim.schedules import Poly
from dvsn.tasks.base import Task
from dvsn.tasks.finite import FiniteGuard, NotFinite, Pending
from dvsn.tasks.network import NetworkTask
from dvsn.version import VERSION


def scalars(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_the_guard_names_step_epoch_and_every_bad_term() -> None:
    guard = FiniteGuard()
    guard.watch(scalars(ce=1.5, kd=0.25), step=3, epoch=1)
    with pytest.raises(
        NotFinite, match=r"step 4 \(epoch 2\): the loss is not finite: ce = nan, at = -inf\. "
    ) as error:
        guard.watch(scalars(ce=float("nan"), kd=0.25, at=float("-inf")), step=4, epoch=2)
    assert "kd" not in str(error.value) and "Lower optim.lr" in str(error.value)


def test_a_teacher_is_blamed_before_the_loss_it_spoils() -> None:
    with pytest.raises(NotFinite, match=r"step 0 \(epoch 0\): the teacher's answer is not finite"):
        FiniteGuard().watch(scalars(teacher=float("inf"), ce=float("nan")), step=0, epoch=0)
    with pytest.raises(NotFinite, match="the loss is not finite: ce = nan"):
        FiniteGuard().watch(scalars(teacher=2.0, ce=float("nan")), step=0, epoch=0)


def test_values_on_their_way_are_looked_at_before_a_checkpoint() -> None:
    """As on a GPU: the copy of step 7 has not arrived when step 8 is queued behind it."""
    waited: list[int] = []
    guard = FiniteGuard()
    for step, value in ((7, 1.0), (8, float("nan"))):
        event = SimpleNamespace(query=lambda: False, synchronize=lambda step=step: waited.append(step))
        guard._pending.append(Pending(["ce"], torch.tensor([value]), step, 0, event))
    with pytest.raises(NotFinite, match=r"step 8 .*ce = nan"):
        guard.check()
    assert waited == [7, 8]
    guard.check()  # nothing is left


def test_a_new_fit_forgets_what_an_interrupted_one_left() -> None:
    task = Task(optim=torch.optim.SGD)
    task.finite._pending.append(Pending(["ce"], torch.tensor([float("nan")]), 7, 0, None))
    task.latest["train/ce"] = torch.tensor(1.0)
    task.setup("fit")
    task.on_fit_start()
    task.check_finite()
    assert not task.latest


def test_a_checkpoint_is_not_written_over_an_unseen_bad_loss() -> None:
    task = Task(optim=torch.optim.SGD)
    task.finite._pending.append(Pending(["ce"], torch.tensor([float("inf")]), 7, 0, None))
    with pytest.raises(NotFinite, match="step 7"):
        task.on_save_checkpoint({})


class Stub(nn.Module):
    """Stands for a distiller: one trained parameter, an initial stage of two epochs, half of the batches."""

    initial_epochs, stage_lr, share, finished, task_weight = 2, 0.5, 0.5, ("ab",), 0.25
    earlier_task_weight = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Parameter(torch.zeros(3))


def distilled() -> Task:
    task = Task(optim=torch.optim.SGD)
    task.use_distiller(Stub(), {"kd": {"weight": 1.0}})  # type: ignore[arg-type]
    return task


def test_an_initial_stage_comes_off_the_schedule() -> None:
    """10 batches, 6 epochs: 2 of them are the initial stage, and 60 - 20 = 40 steps are left. Its rate is 0.5 / 0.1."""
    task = distilled()
    task.schedule = Poly(power=1.0)
    task._trainer = SimpleNamespace(  # type: ignore[assignment]
        fit_loop=SimpleNamespace(setup_data=lambda: None),
        num_training_batches=10,
        accumulate_grad_batches=1,
        max_epochs=6,
        max_steps=-1,
    )
    seen: dict[str, Any] = {}
    task.schedule.attach = lambda optimizer, **given: seen.update(given)  # type: ignore[method-assign]
    task.attach_schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    assert seen == {"steps_per_epoch": 5, "total_steps": 40, "initial_steps": 20, "initial_factor": 5.0}


def test_modules_of_methods_are_trained_in_a_group_of_their_own() -> None:
    own = [{"params": [nn.Parameter(torch.zeros(2))]}]
    assert Task(optim=torch.optim.SGD).with_distiller(own) is own
    task = distilled()
    assert task.distiller is not None
    groups = task.with_distiller(own)
    assert groups[0] is own[0] and groups[1]["params"][0] is task.distiller.adapter and len(groups) == 2


def test_a_checkpoint_holds_the_recipes_and_finished_stages() -> None:
    task, checkpoint = distilled(), dict[str, Any]()
    task.recipe, task.data_recipe = {"_target_": "here"}, {"classes": 3}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["dvsn"] == {
        "format": 1, "version": VERSION, "task": "task", "recipe": {"_target_": "here"}, "data": {"classes": 3},
        "distill": {"kd": {"weight": 1.0}}, "stages_finished": ["ab"], "task_weight": 0.25,
    }  # fmt: skip
    other = distilled()
    other.on_load_checkpoint(
        {"dvsn": {"stages_finished": []}}
    )  # of an earlier version, without the weight of the task
    assert (
        other.distiller is not None and other.distiller.finished == [] and other.distiller.task_weight == 0.1
    )
    other.on_load_checkpoint(checkpoint)
    assert other.distiller.finished == ["ab"]


class Single(NetworkTask):
    """A task of one network."""

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__(network=network, optim=functools.partial(torch.optim.SGD, lr=0.1), **options)
        self._trainer = SimpleNamespace(  # type: ignore[assignment]
            fit_loop=SimpleNamespace(setup_data=lambda: None),
            num_training_batches=1,
            accumulate_grad_batches=1,
            max_epochs=1,
            max_steps=-1,
        )


def test_the_head_that_a_network_names_learns_faster() -> None:
    network = nn.Sequential(OrderedDict(trunk=nn.Linear(2, 3), fc=nn.Linear(3, 4)))
    network.classifier = ("fc",)  # type: ignore[assignment]
    trunk, head = Single(network, head_factor=10.0).configure_optimizers()["optimizer"].param_groups
    assert [p.shape for p in trunk["params"]] == [(3, 2), (3,)] and trunk["lr"] == 0.1
    assert [p.shape for p in head["params"]] == [(4, 3), (4,)] and head["lr"] == 1.0


def test_a_factor_for_a_head_that_nothing_names_is_refused() -> None:
    network = nn.Sequential(OrderedDict(fc=nn.Linear(2, 3)))
    with pytest.raises(ConfigError, match=r"task\.head_factor: Sequential does not say.*task\.head_modules"):
        Single(network, head_factor=10.0).configure_optimizers()
    task = Single(network, head_factor=10.0, head_modules=["fc"])
    (group,) = task.configure_optimizers()["optimizer"].param_groups
    assert group["lr"] == 1.0


def test_an_accumulation_is_the_mean_of_its_batches() -> None:
    task = Task(optim=torch.optim.SGD)
    for wanted, batches, expected in (
        (1, 3, [1.0, 1.0, 1.0]),
        (2, 5, [1.0, 1.0, 1.0, 1.0, 2.0]),
        (10, 3, [10 / 3] * 3),
        (3, 6, [1.0] * 6),
        (4, 6, [1.0] * 4 + [2.0] * 2),
    ):
        task._trainer = SimpleNamespace(accumulate_grad_batches=wanted, num_training_batches=batches)  # type: ignore[assignment]
        assert [task.window_share(index) for index in range(batches)] == pytest.approx(expected)


class Line(Task):
    """Learns one weight w of the loss (w - x)^2 / 2, whose gradient is w - x."""

    def __init__(self) -> None:
        super().__init__(optim=torch.optim.SGD)
        self.weight = nn.Parameter(torch.zeros(1))

    def learn(self, batch: Any) -> dict[str, Tensor]:
        return {"line": 0.5 * (self.weight - batch).square().mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def record(self, terms: Any) -> None:
        pass


@pytest.mark.parametrize(("accumulate", "expected"), [(1, 7.0), (2, 7.0), (3, 4.0), (10, 4.0)])
def test_the_last_accumulation_of_an_epoch_moves_as_far_as_the_others(
    accumulate: int, expected: float
) -> None:
    """With a rate of 1 a step takes w to the mean of its accumulation: 1, 4, 7; or 2.5, 7; or 4."""
    trainer = pl.Trainer(
        max_epochs=1, accumulate_grad_batches=accumulate, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    task = Line()
    trainer.fit(task, DataLoader([1.0, 4.0, 7.0]))  # type: ignore[arg-type]
    assert float(task.weight) == pytest.approx(expected)
