"""Samplers: what an epoch holds, by hand; that it is a function of (seed, epoch); that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dvsn.data.holdings import Holdings
from dvsn.data.module import TrainBatches
from dvsn.data.objects import CocoObjects
from dvsn.data.samplers import ClassBalanced, Hard, RepeatFactor, Sampler, Weighted
from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.engine import trainer as runtime
from dvsn.errors import CheckpointError, ConfigError
from dvsn.tasks.items import item_losses, require_items
from dvsn.weights import read_checkpoint
from tests.support.coco import write_coco
from tests.support.ranks import two_ranks
from tests.support.resuming import equal, run
from tests.support.tiny import TINY, TINY_CLASSIFICATION, TINY_DETECTION, composed, write_pairs, write_scenes

HELD = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 2 + [[0, 0, 1]] + [[0, 0, 0]], bool)
"""Ten items: class 0 in eight, class 1 in two of these, class 2 in one, and one without a class."""


class Held:
    """What stands for `Holdings`."""

    names = ("road", "car", "bus")

    def __init__(self, held: np.ndarray = HELD) -> None:
        self.held = held

    def table(self, size: int) -> np.ndarray:
        return self.held[:size]


def prepared(sampler: Sampler, size: int = 10, held: np.ndarray = HELD) -> Any:
    sampler.prepare(None, size, Held(held))  # type: ignore[arg-type]
    return sampler


def counts(sampler: Sampler, epochs: int = 400) -> np.ndarray:
    """How often an item is in an epoch, on average."""
    orders = [sampler.order(epoch, 0) for epoch in range(epochs)]
    assert {len(order) for order in orders} == {sampler.length}
    return np.bincount(np.concatenate(orders), minlength=sampler.size) / epochs


EACH = [
    lambda: Weighted(weights={"car": 2.0}), ClassBalanced, lambda: RepeatFactor(threshold=0.5),
    lambda: Hard(uniform_epochs=0),
]  # fmt: skip


@pytest.mark.parametrize("make", EACH)
def test_an_epoch_is_a_function_of_seed_and_epoch(make: Any) -> None:
    first, second = prepared(make()), prepared(make())
    assert first.order(3, 1).tolist() == second.order(3, 1).tolist()
    assert first.order(4, 1).tolist() != second.order(3, 1).tolist()
    assert first.order(3, 2).tolist() != second.order(3, 1).tolist()
    assert len(prepared(make()).order(0, 0)) == first.length
    short = prepared(
        type(first)(samples=4, **({"weights": {"car": 2.0}} if isinstance(first, Weighted) else {}))
    )
    assert len(short.order(0, 0)) == short.length == 4


def test_weights_by_hand() -> None:
    """Weights 1 for road alone, 3 for cars, 0 for the bus, 1 for the empty item: 6 + 6 + 0 + 1 = 13."""
    found = counts(prepared(Weighted(weights={"car": 3.0, "bus": 0.0})))
    assert found == pytest.approx(np.array([10 / 13] * 6 + [30 / 13] * 2 + [0, 10 / 13]), abs=0.2)
    assert found[8] == 0


def test_classes_are_balanced() -> None:
    """Nine samples: three of each class; those of class 1 are two items, of class 2 one."""
    sampler = prepared(ClassBalanced(samples=9))
    for epoch in range(5):
        order = sampler.order(epoch, 7)
        assert np.count_nonzero(order == 8) == 3 and 9 not in order
        assert np.count_nonzero((order == 6) | (order == 7)) >= 3
    assert (
        len(set(prepared(ClassBalanced(samples=30)).order(0, 0).tolist())) == 9
    )  # ten of road: all eight of it


def test_repeat_factors_by_hand() -> None:
    """f = 0.8, 0.2, 0.1; with the threshold 0.5: r = 1, sqrt(2.5), sqrt(5), and an item has the highest of its classes."""
    sampler = prepared(RepeatFactor(threshold=0.5))
    expected = np.array([1.0] * 6 + [2.5**0.5] * 2 + [5**0.5] + [1.0])
    np.testing.assert_allclose(sampler.factors, expected)
    assert sampler.length == round(7 + 2 * 2.5**0.5 + 5**0.5) == 12
    np.testing.assert_allclose(counts(sampler), expected * 12 / expected.sum(), atol=0.12)
    assert prepared(RepeatFactor(threshold=0.05)).length == 10  # no class is rare
    assert sorted(prepared(RepeatFactor(threshold=0.05)).order(2, 0).tolist()) == list(range(10))


def test_hard_ones_come_first() -> None:
    """Chances by rank fall from 1 to 100^-(9/10): by hand p_i = 100^(-i/10) / sum."""
    sampler = prepared(Hard(pressure=100.0, uniform_epochs=1))
    assert sorted(sampler.order(0, 0).tolist()) == list(range(10))
    losses = [0.5, 3.0, 0.1, 2.0, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8]
    sampler.observe(range(10), losses)
    chances = 100.0 ** (-np.arange(10) / 10)
    ranks = np.argsort(np.argsort(-np.array(losses)))
    orders = np.concatenate([sampler.order(epoch, 0) for epoch in range(1, 400)])
    share = np.bincount(orders, minlength=10) / len(orders)
    np.testing.assert_allclose(share, (chances / chances.sum())[ranks], atol=0.03)


def test_losses_of_a_running_epoch_change_the_next_one_only() -> None:
    sampler = prepared(Hard(uniform_epochs=0))
    sampler.observe(range(10), np.arange(10.0))
    before = sampler.order(5, 0).tolist()
    sampler.observe([0, 1], [99.0, 98.0])
    resumed = prepared(Hard(uniform_epochs=0))
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.order(5, 0).tolist() == before == sampler.order(5, 0).tolist()
    assert resumed.order(6, 0).tolist() == sampler.order(6, 0).tolist() != before
    with pytest.raises(CheckpointError, match="has the losses of 10 samples, the training split has 4"):
        prepared(Hard(), size=4).load_state_dict(sampler.state_dict())


def test_ranks_share_the_batches_of_one_process() -> None:
    sampler = prepared(ClassBalanced(samples=12))

    def batches(rank: int = 0, world: int = 1) -> list[list[tuple[int, int]]]:
        def order(epoch: int) -> np.ndarray:
            return sampler.order(epoch, 3)

        return list(TrainBatches(size=12, batch_size=4, seed=3, rank=rank, world=world, order=order))

    for whole, first, second in zip(batches(), batches(0, 2), batches(1, 2), strict=True):
        assert sorted(whole) == sorted(first + second)


BAD = {
    "sampler.samples: found 0": lambda: ClassBalanced(samples=0),
    "sampler.weights.car: found -1": lambda: Weighted(weights={"car": -1}),
    "sampler.weights.cat: the data set has no such class. Did you mean 'car'": lambda: prepared(
        Weighted(weights={"cat": 1})
    ),
    "every sample of the training split has the weight 0": lambda: prepared(
        Weighted(weights=dict.fromkeys(Held.names, 0)), size=9
    ),
    "no sample of the training split holds a class": lambda: prepared(ClassBalanced(), held=np.zeros((10, 3), bool)),
    "sampler.weights: not given. Set 'sampler.weights={road: 2}' or others of road, car": lambda: prepared(Weighted()),
    "sampler.threshold: found 0": lambda: RepeatFactor(threshold=0),
    "sampler.pressure: found 0.5": lambda: Hard(pressure=0.5),
    "sampler.uniform_epochs: found -1": lambda: Hard(uniform_epochs=-1),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_options(message: str) -> None:
    with pytest.raises(ConfigError) as error:
        BAD[message]()
    assert message in str(error.value)


# In a data set and a run -----------------------------------------------------------------------------

SMALL = [
    *TINY_CLASSIFICATION, "data.batch_size=4", "data.eval_batch_size=6", "trainer.max_epochs=4",
    "checkpoint.every_n_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def table_of(words: Sequence[str], folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    data = runtime.build_data(composed([*words], folder))
    data.datasets = {"train": data.open("train")}
    held = data._holdings()
    return held.table(len(data.datasets["train"])), held.names


def test_what_items_hold(nine_blobs: Path, tmp_path: Path) -> None:
    """The class of a picture, in a run's data."""
    table, names = table_of([*SMALL, f"data.root={nine_blobs}"], tmp_path)
    assert (
        names == ("blue", "green", "red")
        and table.tolist() == np.tile(np.eye(3, dtype=bool), (3, 1)).tolist()
    )


def test_what_label_maps_hold(scenes: Path) -> None:
    """The classes of the pixels; an ignored pixel is of none."""
    data = SegmentationFolders(root=str(scenes), split="train", names=["left", "right", "rest"])
    held = Holdings(data, label="label", names=data.vocabulary(names=["left", "right", "rest"]).names).table(
        2
    )
    assert held.tolist() == [[True] * 3] * 2
    data.read_label = lambda index, name: np.array([[0, 255], [2, 2]], np.uint8)  # type: ignore[method-assign]
    assert Holdings(data, label="label", names="abc").table(1).tolist() == [[True, False, True]]


def test_what_pictures_with_boxes_hold(tmp_path: Path) -> None:
    """The categories of the boxes, without those of crowds: label 1 is the first name."""
    root = write_coco(tmp_path)
    data = CocoObjects(root=str(root), split="train", classes=3, masks=False)
    held = Holdings(data, label="label", names=list(data.categories.values())).table(len(data))
    for index in range(len(data)):
        labels = {each["category_id"] for each in data.trained(index) if not each["iscrowd"]}
        assert [number + 1 for number in np.flatnonzero(held[index])] == sorted(labels)
    assert held.any(axis=0).all()
    many = Holdings(data, label="label", names=list(map(str, range(300)))).table(len(data))  # as LVIS
    assert many.shape == (len(data), 300) and (many[:, : held.shape[1]] == held).all()


def test_without_classes_it_is_refused(tmp_path: Path) -> None:
    words = [*TINY, "sampler=class_balanced", f"data.root={tmp_path}"]
    write_pairs(tmp_path)
    with pytest.raises(ConfigError, match=r"sampler: Folders has no classes .* Set sampler=null"):
        run(composed(words, tmp_path / "run"))


@pytest.mark.parametrize("words", [TINY, [*TINY_DETECTION, "data=street"]])
def test_hard_is_refused_without_losses_of_samples(words: list[str], tmp_path: Path) -> None:
    config = composed([*words, "sampler=hard"], tmp_path)
    with pytest.raises(ConfigError, match="sampler: Hard needs the loss of each sample, and task="):
        require_items(runtime.make_task(config), runtime.build_data(config))


def test_losses_of_items_by_hand() -> None:
    def objective(output: torch.Tensor, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"a": (output - batch["target"]).abs().mean(), "b": output.mean()}

    output = torch.tensor([[1.0, 3.0], [2.0, 2.0]], requires_grad=True)
    batch = {
        "index": torch.tensor([5, 7]),
        "target": torch.tensor([[0.0, 0.0], [2.0, 4.0]]),
        "name": ["x", "y"],
    }
    assert item_losses(objective, output, batch).tolist() == [4.0, 3.0]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "sampler",
    ["hard", *(pytest.param(name, marks=SLOW) for name in ("weighted", "class_balanced", "repeat_factor"))],
)
def test_killed_and_resumed_ends_bit_equal(sampler: str, nine_blobs: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"data.root={nine_blobs}", f"sampler={sampler}"]
    words += ["sampler.weights={red: 3}"] if sampler == "weighted" else []
    words += ["sampler.threshold=0.7"] if sampler == "repeat_factor" else []
    unbroken = run(composed(words, tmp_path / "unbroken"))
    broken = composed(words, tmp_path / "broken")
    for point in (4, 3):  # within the second epoch, and the third
        assert run(broken, dies_after=point) is None
    resumed = run(broken)
    assert unbroken is not None and resumed is not None
    for part in ("state_dict", "optimizer_states", "DataModule", "global_step"):
        assert equal(unbroken[part], resumed[part]), part
    if sampler == "hard":
        assert torch.isfinite(unbroken["DataModule"]["sampler"]["latest"]).all()


@pytest.mark.slow
def test_two_processes_learn_from_the_losses_of_both(nine_blobs: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"data.root={nine_blobs}", "sampler=hard", "trainer.devices=2"]
    two_ranks(composed(words, tmp_path / "whole"))
    two_ranks(composed(words, tmp_path / "broken"), dies_after=4)
    two_ranks(composed(words, tmp_path / "broken"))
    whole, broken = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "broken")
    )
    for part in ("state_dict", "DataModule"):
        assert equal(whole[part], broken[part]), part
    assert torch.isfinite(whole["DataModule"]["sampler"]["latest"]).all()
