"""DOT against its two buffers written out, alone and in a run, and against SGD where it is that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.optim.distillation_oriented import DistillationOriented
from tests.support.distill_stubs import Hint, Soft, distilled, fit, node, prepare, save_teacher
from tests.support.resuming import Died, Dies, equal
from tests.support.tiny import TINY, composed

pytestmark = pytest.mark.usefixtures("stubs")

SHAPES = ((3, 2), (4,), (5,))  # reached by both, by the task alone, by distillation alone
Gradients = list[tuple[Tensor | None, Tensor | None]]


@pytest.fixture(scope="module")
def teacher(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    return save_teacher(distilled(blobs, path.parent, None, {}, "network=resnet14"), path)


class TwoBuffers:
    """The published update, one buffer each, for parameters that are reached in the same way in every step."""

    def __init__(self, weights: list[Tensor], *, momentum: float, delta: float, decay: float) -> None:
        self.weights, self.momentum, self.delta, self.decay = weights, momentum, delta, decay
        self.task: dict[int, Tensor] = {}
        self.taught: dict[int, Tensor] = {}

    def step(self, gradients: Gradients, lr: float) -> None:
        for i, (own, taught) in enumerate(gradients):
            weight, delta = self.weights[i], self.delta if own is not None and taught is not None else 0.0
            decay = self.decay * weight
            if own is not None:
                own = own + decay
            elif taught is not None:
                taught = taught + decay
            for buffers, gradient, momentum in (
                (self.task, own, self.momentum - delta),
                (self.taught, taught, self.momentum + delta),
            ):
                if gradient is not None:
                    buffers[i] = momentum * buffers[i] + gradient if i in buffers else gradient
                    weight = weight - lr * buffers[i]
            self.weights[i] = weight


def problem(seed: int = 0) -> tuple[list[Tensor], Any]:
    """Three parameters, and the terms of a step: of the task and of distillation."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]

    def terms(parameters: list[Tensor], step: int) -> tuple[list[Tensor], list[Tensor]]:
        generator.manual_seed(step)
        a, b, c = (torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES)
        both, task, taught = parameters
        own = [((both - a) ** 2).sum(), ((task - b) ** 4).mean(), torch.ones((), dtype=torch.float64)]
        return own, [(both.sin() * a).sum() * 3, ((taught - c) ** 2).sum()]

    return weights, terms


def split(parameters: list[Tensor], terms: Any, step: int) -> Gradients:
    found = []
    for part in terms(parameters, step):
        total = torch.stack(part).sum()
        found.append(torch.autograd.grad(total, parameters, allow_unused=True))
    return list(zip(*found, strict=True))


def run(optimizer: Any, parameters: list[Tensor], terms: Any, steps: int, *, scale: float = 1.0) -> None:
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.zero_grad()
        own, taught = terms(parameters, step)
        loss = torch.stack([*own, *taught]).sum() * scale
        if isinstance(optimizer, DistillationOriented):
            optimizer.backward(loss, own, taught, scale=scale)
        else:
            loss.backward()
        optimizer.step()


def leaves(weights: list[Tensor]) -> list[Tensor]:
    return [weight.clone().requires_grad_() for weight in weights]


@pytest.mark.parametrize("delta", [0.0, 0.075, 0.09])
def test_two_buffers(delta: float) -> None:
    weights, terms = problem()
    parameters, expected = leaves(weights), TwoBuffers(weights, momentum=0.9, delta=delta, decay=0.01)
    optimizer = DistillationOriented(parameters, delta=delta, weight_decay=0.01)
    run(optimizer, parameters, terms, 12)
    for step in range(12):
        expected.step(split(leaves(expected.weights), terms, step), 0.1 / (1 + step))
    for found, right in zip(parameters, expected.weights, strict=True):
        torch.testing.assert_close(found.detach(), right, rtol=1e-12, atol=1e-13)
    state = optimizer.state[parameters[0]]
    torch.testing.assert_close(state["distillation_buffer"], expected.taught[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        state["momentum_buffer"] - state["distillation_buffer"], expected.task[0], rtol=1e-11, atol=1e-12
    )


def test_without_delta_it_is_sgd() -> None:
    weights, terms = problem()
    ours, theirs, other = leaves(weights), leaves(weights), leaves(weights)
    run(DistillationOriented(ours, delta=0.0, weight_decay=0.01), ours, terms, 20)
    run(torch.optim.SGD(theirs, momentum=0.9, weight_decay=0.01), theirs, terms, 20)
    run(DistillationOriented(other, delta=0.05, weight_decay=0.01), other, terms, 20)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    apart = [bool((a - b).abs().max() > 1e-3) for a, b in zip(ours, other, strict=True)]
    assert apart == [True, False, False]  # only where both teach


def test_a_gradient_that_stops_goes_on_as_sgd() -> None:
    """Once distillation is over the sum of both buffers is a momentum buffer as any."""
    weights, terms = problem()
    parameters = leaves(weights)
    optimizer = DistillationOriented(parameters, lr=0.1, delta=0.05)
    run(optimizer, parameters, terms, 3)
    before = optimizer.state[parameters[0]]["momentum_buffer"].clone()
    optimizer.zero_grad()
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[parameters[0]]["momentum_buffer"], 0.9 * before + 1)


def test_clipping_shortens_both_by_one_factor() -> None:
    weights, terms = problem()
    parameters = leaves(weights)
    optimizer = DistillationOriented(parameters, lr=0.1)
    own, taught = terms(parameters, 0)
    optimizer.backward(torch.stack([*own, *taught]).sum(), own, taught)
    whole = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    apart = optimizer.apart[parameters[0]].clone()
    optimizer.clip(0.5)
    after = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    assert float(after.norm()) == pytest.approx(0.5, rel=1e-5) and whole.norm() > 1
    torch.testing.assert_close(optimizer.apart[parameters[0]], apart * 0.5 / whole.norm(), rtol=1e-5, atol=0)
    optimizer.clip(100.0)
    torch.testing.assert_close(after, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))


def test_a_loss_scale_changes_nothing_and_an_overflow_skips_the_step() -> None:
    """As Lightning's float16 has it: gradients are unscaled and looked at before the step."""
    weights, terms = problem()
    plain, scaled = ([w.float().requires_grad_() for w in leaves(weights)] for _ in range(2))
    plain, scaled = ([w.detach().requires_grad_() for w in part] for part in (plain, scaled))
    first, second = (DistillationOriented(part, lr=0.1) for part in (plain, scaled))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    steps = 0
    for step in range(5):
        for optimizer, part in ((first, plain), (second, scaled)):
            optimizer.zero_grad()
            own, taught = ([t.float() for t in kind] for kind in terms(part, step))
            loss = torch.stack([*own, *taught]).sum()
            if optimizer is first:
                optimizer.backward(loss, own, taught)
                optimizer.step()
                continue
            scale = scaler.scale(torch.ones(()))
            optimizer.backward(scaler.scale(loss), own, taught, scale=scale)
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            steps += 1
    assert steps == 5 and scaler.get_scale() > 2.0**10
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    before = [p.detach().clone() for p in scaled]
    second.zero_grad()
    own, taught = ([t.float() for t in kind] for kind in terms(scaled, 9))
    taught[0] = taught[0] * 1e38
    second.backward(
        scaler.scale(torch.stack([*own, *taught]).sum()), own, taught, scale=scaler.scale(torch.ones(()))
    )
    scaler.unscale_(second)
    scaler.step(second)
    assert all(torch.equal(a, b) for a, b in zip(before, scaled, strict=True))


def test_what_has_no_meaning() -> None:
    weight = [torch.zeros(1, requires_grad=True)]
    for options in ({"delta": -0.1}, {"delta": 0.1}, {"delta": 0.2, "momentum": 0.1}):
        with pytest.raises(ConfigError, match=r"optim\.delta: found"):
            DistillationOriented(weight, **options)
    with pytest.raises(ConfigError, match="weight_decay -1"):
        DistillationOriented(weight, weight_decay=-1)


# A run -----------------------------------------------------------------------------------------------

METHODS = {"hint": {"weight": 3.0, "taps": "last"}, "soft": {"weight": 0.5}}
MORE = (
    "optim.momentum=0.5",
    "trainer.accumulate_grad_batches=2",
    "trainer.gradient_clip_val=0.7",
    "data.batch_size=3",
)


def config_of(blobs: Path, folder: Path, teacher: Path, *more: str) -> dict[str, Any]:
    methods = {"hint": node(Hint, **METHODS["hint"]), "soft": node(Soft, **METHODS["soft"])}
    return distilled(blobs, folder, str(teacher), methods, *more)


def test_in_a_run_it_gets_both_gradients(
    blobs: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a run, accumulated and clipped, by the formula from the gradients that it took apart."""
    steps: list[Any] = []
    backward, step = DistillationOriented.backward, DistillationOriented.step

    def watch(self: Any, loss: Tensor, task: Any, taught: Any, **more: Any) -> None:
        assert len(task) == 1 and len(taught) == 3  # cross entropy; hint, and soft's two
        learned = [p for group in self.param_groups for p in group["params"]]
        for part in (task, taught):
            found = torch.autograd.grad(part, learned, retain_graph=True, allow_unused=True)
            steps.append([None if g is None else g.double() / 2 for g in found])  # two batches a step
        if not hasattr(self, "start"):
            self.start = [p.detach().double() for p in learned]
        backward(self, loss, task, taught, **more)

    def finish(self: Any, closure: Any = None) -> Any:
        result = step(self, closure)
        steps.append(self.param_groups[0]["lr"])
        return result

    monkeypatch.setattr(DistillationOriented, "backward", watch)
    monkeypatch.setattr(DistillationOriented, "step", finish)
    task, trainer, _ = fit(
        config_of(blobs, tmp_path, teacher, "optim=dot", "optim.lr=0.05", "optim.delta=0.4", *MORE)
    )
    optimizer = trainer.optimizers[0]
    expected = TwoBuffers([*optimizer.start], momentum=0.5, delta=0.4, decay=1e-4)
    assert len(steps) == 4 * 5  # two epochs of two steps of two batches
    for window in range(0, len(steps), 5):
        own_a, taught_a, own_b, taught_b, lr = steps[window : window + 5]
        own, taught = (
            [None if g is None else g + h for g, h in zip(a, b, strict=True)]
            for a, b in ((own_a, own_b), (taught_a, taught_b))
        )
        whole = [sum(g for g in pair if g is not None) for pair in zip(own, taught, strict=True)]
        factor = min(1.0, 0.7 / float(torch.cat([g.flatten() for g in whole]).norm()))
        parts = [[None if g is None else g * factor for g in part] for part in (own, taught)]
        expected.step(list(zip(*parts, strict=True)), lr)
        assert factor < 1
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    assert {sum(g is not None for g in pair) for pair in zip(own, taught, strict=True)} == {1, 2}
    for found, right, start in zip(learned, expected.weights, optimizer.start, strict=True):
        torch.testing.assert_close(found.detach().double(), right, rtol=1e-5, atol=1e-6)
        assert (right - start).abs().max() > 1e-4
    assert task.distiller.shares is None  # no graph is held between steps


def test_a_run_without_delta_is_sgd(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    states = []
    for name, options in (("sgd", []), ("dot", ["optim.delta=0.0"]), ("apart", ["optim.delta=0.4"])):
        chosen = "sgd" if name == "sgd" else "dot"
        config = config_of(
            blobs, tmp_path / name, teacher, f"optim={chosen}", "optim.lr=0.05", *options, *MORE
        )
        states.append(fit(config)[2]["state_dict"])
    sgd, dot, apart = states
    for key, value in sgd.items():
        torch.testing.assert_close(dot[key], value, rtol=1e-5, atol=1e-6, msg=key)
    key = "network.layer3.0.conv1.weight"
    assert (apart[key] - sgd[key]).abs().max() > 1e-4


def test_a_run_resumes_with_the_same_bits(blobs: Path, teacher: Path, tmp_path: Path) -> None:
    more = ("optim=dot", "trainer.max_epochs=2", "checkpoint.every_n_steps=1")
    whole = fit(config_of(blobs, tmp_path / "whole", teacher, *more))[2]
    broken = config_of(blobs, tmp_path / "broken", teacher, *more)
    for step in (1, 2):
        with pytest.raises(Died):
            fit(broken, Dies(step))
    resumed = fit(broken)[2]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(whole[key], resumed[key]), key
    buffers = whole["optimizer_states"][0]["state"]
    assert {name for state in buffers.values() for name in state} == {
        "momentum_buffer",
        "distillation_buffer",
    }


def test_where_it_cannot_work(
    blobs: Path, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(blobs, tmp_path, teacher, "optim=dot")
    task, _ = prepare(config)
    for change, message in (
        ({"trainer": {"devices": 2}}, "which DDP does not allow: found 2 devices"),
        ({"compile": True}, "compile=false"),
        (
            {"trainer": {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}},
            r"gradient_clip_algorithm: found value.* Set trainer\.gradient_clip_algorithm=norm$",
        ),
    ):
        more = {
            key: config[key] | value if isinstance(value, dict) else value for key, value in change.items()
        }
        with pytest.raises(ConfigError, match=message):
            runtime.build_trainer({**config, **more}, task)
    translator = composed([*TINY, "optim=dot"], tmp_path)
    with pytest.raises(ConfigError, match="task=pix2pix makes its own"):
        runtime.build_trainer(translator, runtime.make_task(translator))
    alone = distilled(blobs, tmp_path, None, {}, "optim=dot")
    with caplog.at_level(logging.WARNING):
        runtime.build_trainer(alone, prepare(alone)[0])
    assert "DOT without distillation is SGD with momentum" in caplog.text
