"""A mask file for each object: joined to classes, or told apart; whatever the layout, what was drawn comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.data.object_masks import JoinedMasks, MaskedObjects, class_of, masks_of
from dvsn.data_tools.init.choose import choose
from dvsn.data_tools.init.listing import Listing
from dvsn.errors import DataError
from tests.support.own_data import save, scene

LAYOUTS = {
    "beside": ("{i}.jpg", ["{i}_mask_0.png", "{i}_mask_1.png", "{i}_mask_2.png"]),
    "two folders": ("images/{i}.jpg", ["masks/{i}_0.png", "masks/{i}_1.png", "masks/{i}_2.png"]),
    "a folder a photo": ("images/{i}.jpg", ["masks/{i}/0.png", "masks/{i}/1.png", "masks/{i}/b.png"]),
    "as nuclei": ("{i}/images/{i}.png", ["{i}/masks/ab.png", "{i}/masks/cd.png", "{i}/masks/ef.png"]),
    "splits": (
        "{s}/images/{i}.jpg",
        ["{s}/masks/{i}_1.png", "{s}/masks/{i}_2.png", "{s}/masks/{i}_3.png"],
    ),
    "a mask a class": ("images/{i}.jpg", ["masks/cat/{i}.png", "masks/dog/{i}.png", "masks/emu/{i}.png"]),
    "classes": ("images/{i}.jpg", ["masks/cat/{i}_1.png", "masks/cat/{i}_2.png", "masks/dog/{i}.png"]),
}
CLASSES = {"a mask a class": ["cat", "dog", "emu"], "classes": ["cat", "dog"]}
PLACES = {"a mask a class": [1, 2, 3], "classes": [1, 1, 2]}


def write(root: Path, photo: str, masks: list[str], *, high: int = 255) -> None:
    """Four photos, two a split, with three objects each; the mask of an object is `high`."""
    for number in range(4):
        picture, ids = scene(number)
        at = {"i": f"p{number}", "s": ("train", "val")[number // 2]}
        save(root / photo.format(**at), picture)
        for place, mask in enumerate(masks, 1):
            save(root / mask.format(**at), (ids == place).astype(np.uint8) * np.uint8(high))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("high", [255, 1])
def test_the_masks_of_a_photo_are_joined(name: str, high: int, tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS[name], high=high)
    found = choose(Listing.of(tmp_path)).found
    names = ["background", *CLASSES.get(name, ["object"])]
    assert (found.task, found.base, found.node["dataset"]["names"]) == ("segmentation", "object_masks", names)
    split = "train" if name == "splits" else "all"
    data = JoinedMasks(root=str(tmp_path), split=split, **found.node["dataset"])
    assert len(data) == found.counts[split] == (2 if name == "splits" else 4)
    table = np.array([0, *PLACES.get(name, [1, 1, 1])], np.uint8)
    for number in range(len(data)):
        np.testing.assert_array_equal(data.read(number)["label"], table[scene(number)[1]])


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_objects_are_told_apart(name: str, tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS[name])
    found = choose(Listing.of(tmp_path), "detection").found
    names = dict(enumerate(CLASSES.get(name, ["object"]), 1))
    assert found.base == "mask_boxes" and found.node["objects"]["names"] == names
    split = "val" if name == "splits" else "all"
    options: dict[str, Any] = {**found.node["objects"], "classes": len(names) + 1}
    data = MaskedObjects(root=str(tmp_path), split=split, masks=True, **options)
    sample, (_, ids) = data[0], scene(2 if split == "val" else 0)
    assert sorted(sample["labels"].tolist()) == sorted(PLACES.get(name, [1, 1, 1]))
    for box, mask, area in zip(sample["boxes"], sample["masks"], sample["area"], strict=True):
        place = ids[mask.astype(bool)][0]
        rows, columns = np.nonzero(ids == place)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(mask, ids == place)
        assert area == len(rows)


def test_soft_edges_go_to_the_nearer_and_an_empty_mask_is_no_object(tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS["two folders"])
    soft = np.zeros((32, 48), np.uint8)
    soft[4:8, 4:8], soft[4:8, 8], soft[4:8, 9] = 200, 101, 99
    save(tmp_path / "masks" / "p0_0.png", soft)
    save(tmp_path / "masks" / "p0_1.png", np.zeros((32, 48), np.uint8))
    save(tmp_path / "masks" / "p0_2.png", np.zeros((32, 48), np.uint8))
    label = JoinedMasks(root=str(tmp_path), split="all").read(0)["label"]
    assert label[4:8, 4:9].all() and label.sum() == 20
    data = MaskedObjects(root=str(tmp_path), split="all", classes=2, names={1: "object"})
    assert [each["bbox"] for each in data.truth(0)] == [[4, 4, 5, 4]]


def test_photos_of_one_name_keep_their_own_masks() -> None:
    names = ["a/images/1.jpg", "b/images/1.jpg", "a/masks/1_0.png", "b/masks/1_0.png", "b/masks/1_1.png"]
    owned = masks_of(names)
    assert owned == {"a/images/1.jpg": [names[2]], "b/images/1.jpg": names[3:]}
    assert class_of("b/masks/cat/1_0.png", "b/images/1.jpg") == "cat"
    assert masks_of(["images/1.jpg", "masks/1.png", "images/f/2.jpg", "masks/f/2.png"]) == {}


def no_class(root: Path) -> None:
    save(root / "masks" / "p0_7.png", np.zeros((32, 48), np.uint8))


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (
            "classes",
            no_class,
            r"p0_7.png: in no folder of a class, and other masks are in folders of cat, dog",
        ),
        (
            "two folders",
            lambda root: save(root / "masks" / "p1_0.png", np.full((9, 9), 255, np.uint8)),
            r"p1_0.png: a mask of 9x9, its photo has 32x48",
        ),
        (
            "two folders",
            lambda root: save(
                root / "masks" / "p1_0.png", np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)
            ),
            r"p1_0.png: one of several masks of images/p1.jpg, with 256 different values.*move all but one away",
        ),
    ],
)
def test_what_is_wrong_is_said(
    layout: str, change: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path, *LAYOUTS[layout])
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        choose(Listing.of(tmp_path))


def test_a_photo_without_a_mask_is_said_and_passed_over(tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS["two folders"])
    save(tmp_path / "images" / "p9.jpg", scene(9)[0])
    found = choose(Listing.of(tmp_path)).found
    assert found.odd == ["1 picture without a mask: images/p9.jpg"] and found.node["dataset"]["skip_lonely"]
    assert len(JoinedMasks(root=str(tmp_path), split="all", **found.node["dataset"])) == 4
    with pytest.raises(DataError, match=r"1 pictures are neither.*p9.jpg[\s\S]*skip_lonely=true"):
        JoinedMasks(root=str(tmp_path), split="all")
    with pytest.raises(DataError, match=r"of the class 'object', by its folder; data.dataset.names has a, b"):
        JoinedMasks(root=str(tmp_path), split="all", names=["a", "b"], skip_lonely=True)
