"""The critic of structured distillation: its loss and its steps written out, its state, and a run that is broken off."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dvsn
from dvsn.distill.holistic import HolisticDistillation
from dvsn.distill.method import View
from dvsn.errors import ConfigError, DataError
from tests.support.distill_stubs import fit, save_teacher
from tests.support.distilling import assert_equals, cast, sides, views
from tests.support.resuming import Died, Dies, equal
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes

State = dict[str, Tensor]


def build(size: tuple[int, int] = (64, 80), **options: Any) -> tuple[Any, Any, dict[str, Tensor]]:
    torch.manual_seed(1)
    shape = (4, *size)
    given = sides([], [], kind="pixels", outputs=(shape, shape))
    method = HolisticDistillation(**given, channels=2, **options).double()
    for name in ("attentions.0.share", "attentions.1.share"):
        method.critic.get_buffer(name).fill_(0.7)
    image = torch.randint(0, 256, (3, 3, size[0], size[1]), dtype=torch.uint8)
    return method, given, {"image": image}


def score(state: State, logits: Tensor, image: Tensor, *, moving: bool = False) -> Tensor:
    """The critic by its state; `moving`: the vectors of spectral norm first make a step, in the state."""

    def read(name: str) -> Tensor:
        return state[f"critic.{name}"]

    mean, variance = logits.mean((0, 2, 3)), logits.var((0, 2, 3), unbiased=False)
    x = (logits - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    x = x * read("norm.weight")[:, None, None] + read("norm.bias")[:, None, None]
    x = torch.cat([x, image.double() / 127.5 - 1], dim=1)
    for number in range(4):
        base = f"convolutions.{number}.parametrizations.weight."
        weight, u, v = read(f"{base}original"), read(f"{base}0._u"), read(f"{base}0._v")
        matrix = weight.flatten(1)
        if moving:
            with torch.no_grad():
                u.copy_((matrix @ v) / (matrix @ v).norm())
                v.copy_((matrix.T @ u) / (matrix.T @ u).norm())
        weight = weight / (u.clone() @ matrix @ v.clone())
        x = F.conv2d(x, weight, read(f"convolutions.{number}.bias"), stride=2, padding=1)
        x = torch.where(x > 0, x, 0.1 * x)
        if number >= 2:
            q, k, v = (
                torch.einsum("oc,nchw->nohw", read(f"attentions.{number - 2}.{name}.weight")[:, :, 0, 0], x)
                + read(f"attentions.{number - 2}.{name}.bias")[:, None, None]
                for name in ("query", "key", "value")
            )
            weights = torch.einsum("nchw,ncij->nhwij", q, k).exp()
            weights = weights / weights.sum((3, 4), keepdim=True)
            x = x + read(f"attentions.{number - 2}.share") * torch.einsum("nhwij,ncij->nchw", weights, v)
    return F.conv2d(x, read("last.weight"), read("last.bias"))


def test_the_student_wants_a_high_score() -> None:
    def formula(method: Any, student: View, _: View, batch: Any) -> Tensor:
        return -score(method.state_dict(), student.output, batch["image"]).mean()

    method, given, batch = build()
    assert_equals(method.eval(), formula, *views(given, 3), batch, single=1e-4)


def test_the_critic_descends_beside_the_student() -> None:
    """Three steps against the formula under torch's own SGD."""
    method, given, batch = build(lr=0.05, penalty_weight=3.0)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    learned = [state[f"critic.{name}"].requires_grad_() for name in method.learned]
    optimizer = torch.optim.SGD(learned, lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step in range(3):
        student, teacher = views(given, 3, seed=step)
        mine, theirs = student.output.detach(), teacher.output
        torch.manual_seed(step)
        with torch.no_grad():
            method.after_step(View(mine, ()), teacher, batch)
        torch.manual_seed(step)
        distance = score(state, mine, batch["image"], moving=True).mean()
        distance = distance - score(state, theirs, batch["image"], moving=True).mean()
        share = torch.rand(3, 1, 1, 1, dtype=torch.float64)
        between = (theirs * share + mine * (1 - share)).requires_grad_()
        values = score(state, between, batch["image"], moving=True)
        (slope,) = torch.autograd.grad(values.sum(), between, create_graph=True)
        penalty = torch.stack([(each.norm() - 1) ** 2 for each in slope]).mean()
        optimizer.zero_grad()
        (0.1 * (distance + 3 * penalty)).backward()
        optimizer.step()
    for key, value in method.state_dict().items():
        if key.startswith("critic."):
            torch.testing.assert_close(value, state[key].detach(), rtol=1e-8, atol=1e-11, msg=key)
            assert not value.requires_grad
    moved = method.critic.get_buffer("last.weight") - build(lr=0.05)[0].critic.get_buffer("last.weight")
    assert moved.abs().max() > 1e-4


def test_it_has_no_parameters_and_learns_to_tell_the_two() -> None:
    method, given, batch = build(lr=0.02)
    assert not list(method.parameters()) and len(method.learned) == len(list(method.momentum.buffers()))
    student, teacher = views(given, 3)

    def gap() -> float:
        scores = [-method(view, teacher, batch)["holistic"].item() for view in (student, teacher)]
        return scores[1] - scores[0]

    before = gap()
    with torch.no_grad():
        for _ in range(25):
            method.after_step(View(student.output.detach(), ()), teacher, batch)
    assert gap() > before + 0.1


def test_small_maps_are_enlarged() -> None:
    method, given, batch = build(size=(10, 72))
    student, teacher = (cast(view, torch.float64) for view in views(given, 3))
    big = F.interpolate(student.output, size=(64, 72), mode="bilinear", align_corners=False)
    wide = copy.deepcopy(method)
    torch.testing.assert_close(
        method(student, teacher, batch)["holistic"], wide(View(big, ()), teacher, batch)["holistic"]
    )


def test_what_is_refused() -> None:
    for option, message in (("channels", "channels"), ("lr", "lr"), ("penalty_weight", "penalty_weight")):
        with pytest.raises(ConfigError, match=rf"distill\.holistic\.method\.{message}: found -1"):
            HolisticDistillation(**sides([], [], kind="pixels", outputs=((4, 8, 8),) * 2), **{option: -1})
    method, given, _ = build()
    with pytest.raises(DataError, match="image"):
        method(*views(given, 3), {})


def test_a_run_with_a_critic_resumes_with_the_same_bits(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    shared = [*TINY_SEGMENTATION, f"data.root={root}", "trainer.limit_val_batches=0"]
    teacher = save_teacher(composed([*shared, "network.width=6"], tmp_path), tmp_path / "teacher.ckpt")
    options = [
        *shared, f"teacher={teacher}", "distill=[skd,holistic]", "distill.holistic.method.channels=4", "ema=0.9",
        "trainer.max_epochs=2", "trainer.limit_train_batches=2", "checkpoint.every_n_steps=1",
    ]  # fmt: skip
    config = composed(options, tmp_path / "whole")
    task, trainer, whole = fit(config)
    method = task.distiller.method("holistic")
    ours = [*task.network.parameters(), *task.distiller.parameters()]
    assert {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]} == {
        id(p) for p in ours
    }
    moving = [v for k, v in whole["current_model_state"].items() if "holistic.momentum" in k]
    assert len(moving) == len(method.learned) and all(value.abs().max() > 0 for value in moving[:4])
    broken = composed(options, tmp_path / "broken")
    for step in (1, 2):
        with pytest.raises(Died):
            fit(broken, Dies(step))
    resumed = fit(broken)[2]
    for key in ("state_dict", "current_model_state", "optimizer_states"):
        assert equal(whole[key], resumed[key]), key
    shipped = dvsn.load(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    assert not any("critic" in key for key in [*shipped.state_dict(), *shipped.deployable().state_dict()])
