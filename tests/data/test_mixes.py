"""Mixup, cutmix, mosaic and copy-paste: pixels and labels by hand, random numbers of (seed, epoch, index), resumed runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dvsn.data.dataset import ImageDataset
from dvsn.data.mixes import BatchMix, CopyPaste, Mosaic, boxes_of, windows
from dvsn.data.objects import CocoObjects
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.losses.classification import ClassCrossEntropy
from dvsn.tasks.items import require_mix
from tests.support.coco import write_coco
from tests.support.pretended import moved, pretended_cuda
from tests.support.resuming import equal, run
from tests.support.tiny import (
    TINY,
    TINY_CLASSIFICATION,
    TINY_DETECTION,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_scenes,
)

# Mixup and cutmix ------------------------------------------------------------------------------------


def batch_of(count: int = 4, size: int = 16) -> dict[str, Any]:
    """Picture i has the value 10 i everywhere and the class i; it is item i + 7."""
    image = torch.stack([torch.full((3, size, size), 10 * i, dtype=torch.uint8) for i in range(count)])
    return {"image": image, "target": torch.arange(count), "items": [i + 7 for i in range(count)]}


def test_mixup_by_hand() -> None:
    mixed = BatchMix(mixup=0.4)(batch_of(), seed=0, epoch=0)
    share, other = mixed["share"], mixed["other"]
    assert (
        0 < float(share[0]) < 1 and len(set(share.tolist())) == 1 and sorted(other.tolist()) == [0, 1, 2, 3]
    )
    expected = share * 10 * mixed["target"] + (1 - share) * 10 * other
    torch.testing.assert_close(mixed["image"], expected.view(-1, 1, 1, 1).expand(4, 3, 16, 16))


def test_cutmix_by_hand() -> None:
    seen = []
    for epoch in range(20):
        mixed = BatchMix(cutmix=1.0)(batch_of(), seed=0, epoch=epoch)
        share, other = float(mixed["share"][0]), mixed["other"]
        for number, picture in enumerate(mixed["image"]):
            strange = picture != 10 * number
            if other[number] != number:
                assert float((~strange).float().mean()) == pytest.approx(share)
                assert bool((picture[strange] == 10 * other[number]).all())
                rows, columns = (strange[0].any(dim=axis) for axis in (1, 0))
                assert int(rows.sum() * columns.sum()) == int(strange[0].sum())  # a rectangle
        seen.append(share)
    assert min(seen) < 0.5 and max(seen) > 0.8


def test_chance_and_end() -> None:
    plain = batch_of()
    assert BatchMix(mixup=1.0, p=0.0)(plain, seed=0, epoch=0) is plain
    assert BatchMix(mixup=1.0, until=3)(plain, seed=0, epoch=3) is plain
    assert BatchMix(mixup=1.0, until=3)(plain, seed=0, epoch=2) is not plain
    both = [BatchMix(mixup=1.0, cutmix=1.0)(plain, seed=0, epoch=epoch)["image"] for epoch in range(30)]
    cut = [all(float(value) % 10 == 0 for value in image.unique()) for image in both]
    assert 5 < sum(cut) < 25


def test_random_numbers_of_a_batch() -> None:
    mix = BatchMix(mixup=1.0)
    first, again = mix(batch_of(), seed=0, epoch=1), mix(batch_of(), seed=0, epoch=1)
    assert equal(first, again)
    shares = {float(mix(batch_of(), seed=s, epoch=e)["share"][0]) for s, e in ((0, 1), (0, 2), (1, 1))}
    others = {**batch_of(), "items": [0, 1, 2, 3]}
    assert len(shares | {float(mix(others, seed=0, epoch=1)["share"][0])}) == 4


@pytest.mark.parametrize("mix", [BatchMix(mixup=1.0), BatchMix(cutmix=1.0)])
def test_mixing_does_not_wait_for_the_gpu(mix: BatchMix, tmp_path: Path) -> None:
    task: Any = runtime.make_task(composed(BLOBS, tmp_path))
    task._trainer = SimpleNamespace(training=True, datamodule=SimpleNamespace(mix=mix))
    batch = {**batch_of(), "index": torch.arange(4) + 7}
    del batch["items"]
    with pretended_cuda() as waits:
        made = mix(moved(task.on_before_batch_transfer(batch, 0), "cuda"), seed=0, epoch=0)
        assert made["image"].device.type == made["share"].device.type == "cuda" and waits.own == []


@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_the_loss_is_that_of_soft_targets(smooth: float) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    batch = {
        "target": torch.tensor([0, 1, 2]),
        "other": torch.tensor([3, 1, 0]),
        "share": torch.tensor([0.7, 0.4, 0.2]),
    }
    share = batch["share"][:, None]
    soft = share * F.one_hot(batch["target"], 4) + (1 - share) * F.one_hot(batch["other"], 4)
    expected = F.cross_entropy(logits, soft, label_smoothing=smooth)
    found = ClassCrossEntropy(classes=4, label_smoothing=smooth)(logits, batch)["cross_entropy"]
    torch.testing.assert_close(found, expected)


# Mosaic ----------------------------------------------------------------------------------------------


class Plain(ImageDataset):
    """Pictures of one colour, 10 i, whose label is i; of different sizes."""

    SIZES = ((20, 30), (8, 40), (40, 12), (25, 25))

    def __init__(self) -> None:
        self.kinds = {"photo": "photo", "label": "label"}
        super().__init__(seed=3)

    def __len__(self) -> int:
        return len(self.SIZES)

    def read(self, index: int) -> dict[str, Any]:
        size = self.SIZES[index]
        return {"photo": np.full((*size, 3), 10 * index, np.uint8), "label": np.full(size, index, np.uint8)}

    def describe(self, index: int) -> str:
        return f"picture {index}"

    def name(self, index: int) -> str:
        return str(index)


def test_a_mosaic_of_label_maps() -> None:
    """Every pixel has the colour and the label of one picture, or is grey and ignored; the size is the item's."""
    data, mix = Plain(), Mosaic(p=1.0)
    shown: set[int] = set()
    for epoch in range(12):
        made = mix.read(data, epoch, 0)
        photo, label = made["photo"], made["label"]
        assert photo.shape == (20, 30, 3) and label.shape == (20, 30)
        assert bool((photo[label == 255] == 114).all())
        assert bool((photo[label < 255] == 10 * label[label < 255][:, None]).all())
        assert label[0, 0] == 0 and int((label == 0).sum()) >= 5 * 7  # the item lies at the upper left
        shown |= set(np.unique(label).tolist())
    assert shown == {0, 1, 2, 3, 255}


def test_random_numbers_of_an_item() -> None:
    data, mix = Plain(), Mosaic(p=0.5)
    assert all(equal_arrays(mix.read(data, e, 1), mix.read(data, e, 1)) for e in range(4))
    plain = [equal_arrays(mix.read(data, e, 1), data.read(1)) for e in range(60)]
    assert 15 < sum(plain) < 45
    data.mix = mix  # as the data module does: epoch and index travel in the key
    assert equal_arrays(data[5, 1], {**mix.read(data, 5, 1)})
    mix.size = 1
    assert all(set(np.unique(mix.read(data, e, 0)["label"])) <= {0, 255} for e in range(6))


def equal_arrays(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(
        one[key].shape == two[key].shape and bool((one[key] == two[key]).all()) for key in ("photo", "label")
    )


@pytest.mark.parametrize(
    ("quarter", "here"),
    [
        ((0, 0, 6, 8), (slice(2, 6), slice(3, 8))),  # upper left: ends at the point
        ((6, 8, 12, 16), (slice(6, 10), slice(8, 13))),  # lower right: begins there
        ((0, 8, 6, 16), (slice(2, 6), slice(8, 13))),
    ],
)
def test_small_pictures_lie_next_to_the_point(quarter: Any, here: Any) -> None:
    assert windows(np.random.default_rng(0), (4, 5), quarter, (6, 8)) == ((slice(0, 4), slice(0, 5)), here)


def test_objects_move_with_their_window() -> None:
    """A box 2..10 x 4..8 in a window from (4, 2), shown at (10, 20): it becomes 20..26 x 10..14, 24 of 32 of its area."""
    sample = {
        "boxes": np.array([[2, 4, 10, 8], [0, 0, 4, 5]], np.float32), "labels": np.array([3, 1]),
        "crowd": np.zeros(2, np.uint8), "area": np.array([30.0, 20.0], np.float32),
    }  # fmt: skip
    there, here = (slice(4, 10), slice(4, 12)), (slice(10, 16), slice(20, 28))
    found = Mosaic(keep=0.2).moved(sample, there, here, (40, 40))
    assert found["boxes"].tolist() == [[20, 10, 26, 14]] and found["labels"].tolist() == [3]
    assert found["area"].tolist() == [22.5]  # 30 * 24 / 32; of the other box nothing is left


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> CocoObjects:
    return CocoObjects(
        root=str(write_coco(tmp_path_factory.mktemp("coco"))), split="train", classes=4, masks=True
    )


@pytest.mark.parametrize("mix", [Mosaic(p=1.0), CopyPaste(p=1.0)])
def test_boxes_and_masks_agree_with_the_pixels(mix: Any, coco: CocoObjects) -> None:
    """Rectangles of two colours on grey: each object's pixels have its colour, its box is that of its mask."""
    colours = {1: (220, 40, 40), 3: (40, 60, 220)}
    labels_seen = 0
    for epoch in range(6):
        made = mix.read(coco, epoch, 1)
        count = len(made["boxes"])
        assert {len(made[key]) for key in ("labels", "crowd", "area", "masks")} == {count}
        assert made["masks"].shape[1:] == made["photo"].shape[:2]
        for number in np.flatnonzero(made["crowd"] == 0):
            mask, label = made["masks"][number].astype(bool), int(made["labels"][number])
            np.testing.assert_array_equal(made["boxes"][number], boxes_of(mask[None])[0])
            assert bool((made["photo"][mask] == colours[label]).all()), epoch
            labels_seen += 1
        drawn = (np.abs(made["photo"].astype(int) - 120) > 5).any(axis=2) & (made["photo"] != 114).any(axis=2)
        covered = made["masks"].any(axis=0)
        assert (drawn & ~covered).sum() <= 0.2 * max(1, drawn.sum())  # slivers of objects that were dropped
    assert labels_seen > 6


def test_pasting_hides_what_is_below() -> None:
    """Own object: columns 0 to 5. Pasted: columns 2 to 7 of the other. Left of the first: columns 0 and 1, a third."""

    def sample(low: int, high: int, value: int) -> dict[str, Any]:
        mask = np.zeros((1, 4, 8), np.uint8)
        mask[..., low:high] = 1
        return {
            "photo": np.full((4, 8, 3), value, np.uint8), "boxes": boxes_of(mask), "labels": np.array([value]),
            "crowd": np.zeros(1, np.uint8), "area": np.array([4.0 * (high - low)], np.float32), "masks": mask,
        }  # fmt: skip

    for seed in range(20):
        made = CopyPaste(keep=0.2).mixed(
            sample(0, 6, 1), lambda: sample(2, 8, 2), np.random.default_rng(seed)
        )
        if len(made["boxes"]) == 2:
            assert made["boxes"].tolist() == [[0, 0, 2, 4], [2, 0, 8, 4]] and made["labels"].tolist() == [
                1,
                2,
            ]
            assert (
                made["area"].tolist() == [8.0, 24.0] and made["photo"][0, :, 0].tolist() == [1] * 2 + [2] * 6
            )
            break
    else:
        raise AssertionError("nothing was pasted")
    dropped = CopyPaste(keep=0.5).mixed(sample(0, 6, 1), lambda: sample(2, 8, 2), np.random.default_rng(seed))
    assert dropped["labels"].tolist() == [2]


def test_half_of_the_classes_is_pasted() -> None:
    """The other has three classes in columns: two of them cover the item, pixel and label."""
    own = {"photo": np.full((4, 9, 3), 7, np.uint8), "label": np.full((4, 9), 7, np.uint8)}
    ids = np.repeat(np.array([[1, 2, 3]], np.uint8), 3, axis=1).repeat(4, axis=0)
    other = {"photo": np.repeat(ids[..., None], 3, axis=2), "label": ids}
    made = CopyPaste().mixed(own, lambda: other, np.random.default_rng(0))
    assert len(set(np.unique(made["label"])) - {7}) == 2 and int((made["label"] == 7).sum()) == 12
    assert bool((made["photo"] == made["label"][..., None]).all()) and own["label"].min() == 7


# In a run --------------------------------------------------------------------------------------------

BLOBS = [*TINY_CLASSIFICATION, "trainer.max_epochs=2", "checkpoint.every_n_steps=1"]


def killed_and_resumed(words: list[str], folder: Path, point: int) -> None:
    unbroken = run(composed(words, folder / "whole"))
    broken = composed(words, folder / "broken")
    assert run(broken, dies_after=point) is None
    resumed = run(broken)
    assert unbroken is not None and resumed is not None
    for part in ("state_dict", "optimizer_states", "DataModule"):
        assert equal(unbroken[part], resumed[part]), part


@pytest.mark.parametrize("mix", ["cutmix", pytest.param("mixup", marks=pytest.mark.slow)])
def test_mixed_batches_resume_bit_equal(mix: str, nine_blobs: Path, tmp_path: Path) -> None:
    killed_and_resumed([*BLOBS, f"data.root={nine_blobs}", f"mix={mix}", "mix.p=1.0"], tmp_path, 4)


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["mosaic", "copy_paste"])
def test_mixed_label_maps_resume_bit_equal(mix: str, tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    words = [*TINY_SEGMENTATION, "network=pidnet_s", f"data.root={root}", f"mix={mix}", "mix.p=1.0",
             "trainer.max_epochs=2", "checkpoint.every_n_steps=1"]  # fmt: skip
    killed_and_resumed(words, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["mosaic", "copy_paste"])
def test_mixed_objects_resume_bit_equal(mix: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    words = [*TINY_DETECTION, "data=coco", "data.object_classes=4", f"data.root={root}", f"mix={mix}", "mix.p=1.0",
             "network.detector=mask_rcnn", "data.objects.masks=true", "checkpoint.every_n_steps=1"]  # fmt: skip
    killed_and_resumed(words, tmp_path, 2)


REFUSED = {
    "joins labels of segmentation and detection, found task=pose": [*TINY_POSE, "mix=mosaic"],
    "found task=pix2pix, whose labels cannot be joined": [*TINY, "mix=copy_paste"],
    "found task=classification, whose labels cannot be joined": [*BLOBS, "mix=mosaic"],
    "BatchMix joins labels of classification, found task=detection": [
        *TINY_DETECTION,
        "data=coco",
        "mix=mixup",
    ],
    "CopyPaste needs a mask of each object": [*TINY_DETECTION, "data=coco", "mix=copy_paste"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_labels_that_cannot_be_joined_are_refused(message: str, tmp_path: Path) -> None:
    config = composed(REFUSED[message], tmp_path)
    task, data = runtime.make_task(config), runtime.build_data(config)
    task.ask_data(data)
    with pytest.raises(ConfigError, match=message):
        require_mix(task, data, distilled=False)


def test_two_classes_are_refused_in_distillation(tmp_path: Path) -> None:
    config = composed([*BLOBS, "mix=mixup"], tmp_path)
    with pytest.raises(ConfigError, match="methods of distillation know one"):
        require_mix(runtime.make_task(config), runtime.build_data(config), distilled=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchMix(), "mixup and cutmix are both 0"),
        (lambda: BatchMix(mixup=-1.0), "mix.mixup: found -1"),
        (lambda: BatchMix(mixup=1.0, p=2.0), "mix.p: found 2"),
        (lambda: Mosaic(until=0), "mix.until: found 0"),
        (lambda: Mosaic(keep=2.0), "mix.keep: found 2"),
        (lambda: Mosaic(reach=0.6), "mix.reach: found 0.6"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
