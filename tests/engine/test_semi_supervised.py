"""Pictures without labels, two views, and the moving average as teacher: each by hand, together, and after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dvsn.config.rules import check_distillation
from dvsn.data.views import Strong
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.losses.classification import ClassCrossEntropy
from dvsn.tasks.items import require_views
from dvsn.weights import read_checkpoint
from tests.support.resuming import Died, Dies, equal
from tests.support.tiny import TINY_CLASSIFICATION, TINY_SEGMENTATION, composed, write_blobs, write_scenes


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of three colours, whose folders mean nothing."""
    return write_blobs(tmp_path_factory.mktemp("bare"), size=16, train=2, val=1) / "train"


def line(nine_blobs: Path, bare: Path, *more: str) -> list[str]:
    return [
        *TINY_CLASSIFICATION, f"data.root={nine_blobs}", f"data.more=[{{root: '{bare}', unlabelled: true, ratio: 1}}]",
        "data.strong=1.0", "teacher=ema", "ema=0.9", "distill=kd", "distillation.measure=false", *more,
    ]  # fmt: skip


def fit(config: dict[str, Any], dies_after: int | None = None) -> tuple[Any, Any]:
    """A training as `dvsn.train` builds it, from the newest checkpoint if there is one: the task, and last.ckpt."""
    torch.set_num_threads(1)
    task, data = prepared(config)
    trainer = runtime.build_trainer(config, task)
    if dies_after is not None:
        trainer.callbacks.insert(0, Dies(dies_after))  # type: ignore[attr-defined]
    last = Path(config["run_dir"]) / "checkpoints" / "last.ckpt"
    trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    return task, read_checkpoint(last)


def prepared(config: dict[str, Any]) -> tuple[Any, Any]:
    task, data = runtime.build_both(config)
    teaching.distil(task, config, data, None)
    return task, data


def test_a_killed_run_ends_with_the_same_bits(nine_blobs: Path, bare: Path, tmp_path: Path) -> None:
    """And the teacher is the average, which the run validates and saves."""
    words = line(nine_blobs, bare, "trainer.max_epochs=2", "checkpoint.every_n_steps=1", "data.batch_size=6")
    task, whole = fit(composed(words, tmp_path / "whole"))
    broken = composed(words, tmp_path / "broken")
    for step in (2, 2):
        with pytest.raises(Died):
            fit(broken, step)
    _, resumed = fit(broken)
    for key in ("state_dict", "current_model_state", "optimizer_states", "global_step", "DataModule"):
        assert equal(whole[key], resumed[key]), key
    teacher = task.distiller.teachers[0]
    assert whole["global_step"] == 6 and not teacher.network.training
    own = whole["current_model_state"]["network.fc.weight"]
    average = whole["state_dict"]["network.fc.weight"]
    assert not torch.equal(own, average)


def test_the_teacher_follows_the_student(nine_blobs: Path, bare: Path, tmp_path: Path) -> None:
    """After each step it is 0.9 of itself and 0.1 of the student, by hand."""
    config = composed(line(nine_blobs, bare, "trainer.max_epochs=1", "data.batch_size=6"), tmp_path)
    task, data = prepared(config)
    trainer = runtime.build_trainer(config, task)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = type(task).training_step

    def watched(batch: Any, batch_idx: int) -> Any:
        taught = task.distiller.teachers[0].network.fc.weight
        seen.append((taught.clone(), task.network.fc.weight.detach().clone()))
        return step(task, batch, batch_idx)

    task.training_step = watched
    trainer.fit(task, data)
    first, second, third = seen
    assert torch.equal(first[0], first[1])
    torch.testing.assert_close(second[0], second[1])  # the first average is the student itself
    torch.testing.assert_close(third[0], 0.9 * second[0] + 0.1 * third[1])
    assert not torch.equal(third[0], third[1])


def test_what_a_batch_holds(nine_blobs: Path, bare: Path, tmp_path: Path) -> None:
    """The teacher sees the picture itself; pictures without a class have -1, and count in distillation alone."""
    task, data = prepared(composed(line(nine_blobs, bare), tmp_path))
    train = data.datasets["train"]
    assert len(train) == 15 and data.ratios.counts == [9, 9]
    sample, again = train[3, 9], train[3, 9]
    assert sample["target"] == -1 and train[0, 0]["target"] >= 0
    assert torch.equal(sample["image"], again["image"]) and not torch.equal(
        sample["image"], train[4, 9]["image"]
    )
    assert torch.equal(sample["weak"], train[4, 9]["weak"]) and sample["weak"].shape == sample["image"].shape
    assert "weak" not in data.datasets["val"][0]
    assert torch.equal(task.shown({"image": sample["image"], "weak": sample["weak"]}), sample["weak"])
    assert task.loss.partly


def test_the_loss_of_pictures_without_a_class_by_hand() -> None:
    loss = ClassCrossEntropy(classes=3)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss.partly = True
    found = loss(logits, {"target": torch.tensor([2, -1, 0, -1])})["cross_entropy"]
    torch.testing.assert_close(found, F.cross_entropy(logits[[0, 2]], torch.tensor([2, 0])))
    assert float(loss(logits, {"target": torch.full((4,), -1)})["cross_entropy"]) == 0.0
    whole = torch.tensor([2, 1, 0, 1])
    torch.testing.assert_close(
        loss(logits, {"target": whole})["cross_entropy"], F.cross_entropy(logits, whole)
    )


def test_a_strong_view_follows_from_the_seed() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    view = Strong(1.0)
    first = view(picture, 5)
    assert first.shape == picture.shape and first.dtype == np.uint8
    assert np.array_equal(first, Strong(1.0)(picture, 5)) and not np.array_equal(first, view(picture, 6))
    with pytest.raises(ConfigError, match=r"data\.strong: found 0"):
        Strong(0)


@pytest.mark.slow
def test_of_segmentation(tmp_path: Path) -> None:
    """Every pixel of a picture without labels is ignored; a loss of outlines is refused."""
    root, bare = write_scenes(tmp_path / "a", train=2, val=1), write_scenes(tmp_path / "b", train=2, val=1)
    words = [
        *(word for word in TINY_SEGMENTATION if not word.startswith("loss.")), f"data.root={root}", "data.strong=0.5",
        f"data.more=[{{root: '{bare / 'train' / 'images'}', unlabelled: true}}]", "teacher=ema", "ema=0.9",
        "distill=pixel_kd", "distillation.measure=false", "trainer.max_epochs=1",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"the outlines of unlabelled pictures.*loss=ohem"):
        prepared(composed(words, tmp_path / "x"))
    task, checkpoint = fit(composed([*words, "loss=cross_entropy", "network.heads=false"], tmp_path / "run"))
    assert checkpoint["global_step"] == 2
    train = task.trainer.datamodule.datasets["train"]
    assert len(train) == 4 and bool((train[2]["target"] == 255).all())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["distill=dkd"], "distill: dkd reads the class of each picture"),
        (["sampler=hard"], "data.more: a sampler chooses"),
        (["distill=simkd"], "distill: simkd changes the student"),
        (["distillation.size=[8,8]"], "distillation.size: found .* with teacher=ema"),
    ],
)
def test_what_does_not_go_together(
    nine_blobs: Path, bare: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    words = [
        word
        for word in line(nine_blobs, bare, *more)
        if not (word == "distill=kd" and more[0].startswith("distill="))
    ]
    with pytest.raises(ConfigError, match=message):
        prepared(composed(words, tmp_path))


def test_views_without_a_teacher_are_refused(nine_blobs: Path, tmp_path: Path) -> None:
    config = composed([*TINY_CLASSIFICATION, f"data.root={nine_blobs}", "data.strong=1.0"], tmp_path)
    with pytest.raises(ConfigError, match=r"data\.strong: is for a teacher"):
        require_views(runtime.make_task(config), runtime.build_data(config), distilled=False)


def test_an_average_needs_its_decay() -> None:
    config = {"trainer": {}, "distill": {"kd": {"weight": 1, "method": {}}}, "teacher": "ema"}
    with pytest.raises(ConfigError, match="teacher=ema and its decay"):
        check_distillation(config)
    check_distillation({**config, "ema": 0.9})
    with pytest.raises(ConfigError, match="by itself"):
        check_distillation({**config, "ema": 0.9, "teacher": ["ema", "x.ckpt"]})
