"""The pix2pix step against the same step written out by hand, and everything around it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from dvsn.data.street_parts import PARTS
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from dvsn.tasks.finite import NotFinite
from dvsn.tasks.pix2pix import Encoder, Pix2Pix, label_palette, picture_to_range, range_to_unit
from tests.support.tiny import TINY, composed, write_pairs

PLAIN = [
    *TINY, "network.norm=none", "network.dropout=0", "discriminator.norm=none", "optim=sgd", "optim.lr=0.1",
    "optim.momentum=0", "optim.weight_decay=0", "checkpoint.every_n_epochs=1", "trainer.max_epochs=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=8)


def fit(options: list[str], pairs: Path, folder: Path, *callbacks: pl.Callback) -> tuple[Pix2Pix, pl.Trainer]:
    torch.set_num_threads(1)
    config = composed([*PLAIN, f"data.root={pairs}", *options], folder)
    task = runtime.make_task(config)
    assert isinstance(task, Pix2Pix)
    trainer = runtime.build_trainer(config, task)
    trainer.callbacks += callbacks  # type: ignore[attr-defined]
    trainer.fit(task, runtime.build_data(config))
    return task, trainer


class Watch(pl.Callback):
    """The weights before the first step, the first batch, and the gradients that each optimiser saw."""

    def __init__(self) -> None:
        self.before: Any = None
        self.batch: Any = None
        self.seen: list[tuple[str, bool, bool]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.before is None:
            self.before = copy.deepcopy((pl_module.network, pl_module.discriminator))
            self.batch = {key: batch[key].clone() for key in ("image", "target")}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        owner = (
            "D"
            if optimizer.param_groups[0]["params"][0] is next(pl_module.discriminator.parameters())
            else "G"
        )
        touched = [
            any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
            for network in (pl_module.network, pl_module.discriminator)
        ]
        self.seen.append((owner, *touched))


def one_step_by_hand(network: Any, discriminator: Any, batch: Any, rate: float) -> None:
    """D on the detached fake, one SGD step; then G against the new D, one SGD step. BCE, halved; 100 x L1."""
    condition, real = (batch[key].float() / 127.5 - 1 for key in ("image", "target"))
    fake = network(condition)
    scores_fake = discriminator(torch.cat([condition, fake.detach()], dim=1))
    scores_real = discriminator(torch.cat([condition, real], dim=1))
    loss = 0.5 * F.binary_cross_entropy_with_logits(scores_real, torch.ones_like(scores_real))
    loss = loss + 0.5 * F.binary_cross_entropy_with_logits(scores_fake, torch.zeros_like(scores_fake))
    descend(discriminator, loss, rate)
    scores = discriminator(torch.cat([condition, fake], dim=1))
    loss = F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores)) + 100 * F.l1_loss(fake, real)
    descend(network, loss, rate)


def descend(module: torch.nn.Module, loss: torch.Tensor, rate: float) -> None:
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        with torch.no_grad():
            parameter -= rate * gradient


def assert_same(found: torch.nn.Module, expected: torch.nn.Module, **tolerance: float) -> None:
    for (name, a), b in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(
            a, b, msg=lambda text, name=name: f"{name}: {text}", **(tolerance or {"rtol": 1e-5, "atol": 1e-6})
        )


def test_a_step_is_the_step_by_hand_and_leaks_nothing(pairs: Path, tmp_path: Path) -> None:
    watch = Watch()
    task, trainer = fit(["data.batch_size=2", "trainer.max_steps=1"], pairs, tmp_path, watch)
    network, discriminator = watch.before
    one_step_by_hand(network, discriminator, watch.batch, rate=0.1)
    assert_same(task.discriminator, discriminator)
    assert_same(task.network, network)
    assert trainer.global_step == 1  # both optimisers stepped, and one step is counted
    assert [owner for owner, _, _ in watch.seen] == ["D", "G"]
    assert watch.seen[0] == ("D", False, True)  # nothing of D's step has reached G


def test_the_generator_step_leaves_no_gradient_in_the_discriminator(pairs: Path, tmp_path: Path) -> None:
    class After(pl.Callback):
        gradients: Any = None

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            now = [p.grad.clone() for p in pl_module.discriminator.parameters()]
            if self.gradients is None:
                self.gradients = now
            else:
                assert all(map(torch.equal, now, self.gradients))
                self.gradients = None

    fit(["trainer.max_steps=2"], pairs, tmp_path, After())


def test_accumulated_batches_make_the_update_of_one_large_batch(pairs: Path, tmp_path: Path) -> None:
    large, _ = fit(["data.batch_size=4"], pairs, tmp_path / "large")
    small, trainer = fit(
        ["data.batch_size=2", "trainer.accumulate_grad_batches=2"], pairs, tmp_path / "small"
    )
    assert trainer.global_step == 2
    assert_same(small.discriminator, large.discriminator)
    assert_same(small.network, large.network)


def test_an_incomplete_window_at_the_end_still_steps(pairs: Path, tmp_path: Path) -> None:
    _, trainer = fit(["data.batch_size=2", "trainer.accumulate_grad_batches=3"], pairs, tmp_path)
    assert trainer.global_step == 2  # 4 batches: 3 and 1


def test_clipping_bounds_each_update(pairs: Path, tmp_path: Path) -> None:
    watch = Watch()
    task, _ = fit(["trainer.max_steps=1", "trainer.gradient_clip_val=0.01"], pairs, tmp_path, watch)
    for now, before in zip((task.network, task.discriminator), watch.before, strict=True):
        moved = [
            (a - b).detach().flatten() for a, b in zip(now.parameters(), before.parameters(), strict=True)
        ]
        assert float(torch.cat(moved).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize("forwards", [1, 2])
def test_generator_forwards(forwards: int, pairs: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    class Count(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            pl_module.network.register_forward_hook(lambda *_: calls.append(1))

    options = ["trainer.max_steps=1", "trainer.limit_val_batches=0", f"task.generator_forwards={forwards}"]
    fit(options, pairs, tmp_path, Count())
    assert len(calls) == forwards


def test_schedule_follows_the_steps(pairs: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    class Rate(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            rates.append(trainer.optimizers[1].param_groups[0]["lr"])

    fit(["schedule=poly", "schedule.power=1.0", "data.batch_size=2"], pairs, tmp_path, Rate())
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(pairs: Path, tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(pl_module.discriminator.parameters()).fill_(float("nan"))

    with pytest.raises(NotFinite, match=r"step 5 .*discriminator_real = nan"):
        fit(["checkpoint.every_n_steps=2"], pairs, tmp_path, Poison())
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(bool(torch.isfinite(value).all()) for value in saved["state_dict"].values())


def test_weights_that_are_not_finite_are_never_saved(pairs: Path, tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            with torch.no_grad():
                next(pl_module.network.parameters()).fill_(float("inf"))

    class First(Poison):
        pass

    config = composed([*PLAIN, f"data.root={pairs}", "checkpoint.every_n_steps=1"], tmp_path)
    task = runtime.make_task(config)
    trainer = runtime.build_trainer(config, task)
    trainer.callbacks.insert(0, First())  # type: ignore[attr-defined]
    with pytest.raises(NotFinite, match="weights are not finite"):
        trainer.fit(task, runtime.build_data(config))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def task_of(*options: str, tmp_path: Path) -> Pix2Pix:
    task = runtime.make_task(composed([*TINY, *options], tmp_path))
    assert isinstance(task, Pix2Pix)
    return task


def test_test_modes(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    options = ["network.norm=batch", "network.depth=4", "network.dropout_steps=[1,2]"]
    running = task_of(*options, tmp_path=tmp_path)
    batch = task_of(*options, "task.test_norm=batch", tmp_path=tmp_path)
    dropout = task_of(*options, "task.test_dropout=true", tmp_path=tmp_path)
    for task in (running, batch, dropout):
        task.train()
        statistics = [buffer.clone() for buffer in task.network.buffers()]
        first = task(image)
        assert all(
            map(torch.equal, statistics, task.network.buffers())
        )  # nothing is learnt from test pictures
        assert all(module.training for module in task.network.modules())
        assert torch.equal(first, task(image)) == (task is not dropout)
    assert not torch.equal(running(image), batch(image))
    with torch.no_grad():
        by_hand = range_to_unit(
            batch.network.train()(batch.encoder(image)), "signed"
        )  # dropout is on: differs
    assert not torch.equal(batch(image), by_hand)


def test_ranges_by_hand() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(picture_to_range(image, "signed"), torch.tensor([-1.0, -0.6, 1.0]))
    torch.testing.assert_close(picture_to_range(image, "unit"), torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(
        range_to_unit(torch.tensor([-1.0, 0.0, 1.0]), "signed"), torch.tensor([0.0, 0.5, 1.0])
    )
    torch.testing.assert_close(
        range_to_unit(torch.tensor([-0.5, 0.5, 1.0]), "unit"), torch.tensor([0.0, 0.5, 1.0])
    )


def test_one_hot_with_edges() -> None:
    ids = torch.tensor([[[[0, 2]], [[1, 0]]]], dtype=torch.uint8)  # (1, 2, 1, 2): ids and edges
    planes = Encoder(value_range="signed", label_classes=3)(ids)
    expected = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]]])
    torch.testing.assert_close(planes, expected)


def test_ids_are_shown_in_the_colours_of_their_table() -> None:
    assert label_palette(34)[26].tolist() == [0, 0, 142]  # Cityscapes: car
    assert label_palette(len(PARTS)).tolist() == [list(part.color) for part in PARTS]
    assert len({tuple(color) for color in label_palette(len(PARTS)).tolist()}) == len(PARTS)  # all differ


def test_sides_that_do_not_divide_name_the_file(tmp_path: Path) -> None:
    task = task_of(tmp_path=tmp_path)
    with pytest.raises(DataError, match=r"street_7.*18 x 16.*divisible by 8"):
        task.check_sides({"image": torch.zeros(1, 3, 18, 16), "name": ["street_7"]})


def test_training_without_a_discriminator_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.discriminator"):
        fit(["task.discriminator=null"], pairs, tmp_path)


def test_deployable_answers_as_the_task_does(tmp_path: Path) -> None:
    task = task_of("network.norm=batch", tmp_path=tmp_path).eval()
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(task.deployable()(image), task(image))


def test_pictures_are_generated_in_float32_also_in_mixed_precision(tmp_path: Path) -> None:
    task = task_of(tmp_path=tmp_path).eval()
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = task(image)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(task(image), expected)


def test_pictures_are_measured_in_float32_also_in_mixed_precision(tmp_path: Path) -> None:
    """Against a smooth picture: bfloat16 loses the small variances that SSIM divides by."""
    task = task_of(tmp_path=tmp_path).eval()
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    ramp = torch.linspace(100, 130, 16).expand(2, 3, 16, 16).round().to(torch.uint8)
    batch = {"image": image, "target": ramp, "index": torch.arange(2), "name": ["a", "b"]}
    found = {}
    with torch.no_grad():
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                task.validation_step(batch, 0)
            found[enabled] = task.metrics.compute()
            task.metrics.reset()
    assert found[True] == found[False]
