"""Folders of classes and pairs of pictures: what is found, and that the reader takes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dvsn.data.aligned import Aligned
from dvsn.data.folders import Folders
from dvsn.data_tools.init import classes, pairs
from dvsn.data_tools.init.choose import choose
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.machine import Machine
from dvsn.errors import ConfigError, DataError
from tests.support.own_data import PALETTE, save, scene, write_classes, write_masks

LAPTOP, SERVER = Machine(2, 16.0), Machine(16, 128.0, "a GPU", 40.0)


def some(found: Found | None) -> Found:
    assert found is not None
    return found


# Classes ---------------------------------------------------------------------------------------------------


def test_classes_without_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 3, "dog": 2, "owl": 4})
    save(tmp_path / "loose.png", scene(0)[0])
    found = some(classes.look(Listing.of(tmp_path)))
    assert (found.task, found.counts, found.node) == ("classification", {"all": 9}, {"classes": 3})
    assert list(found.targets) == [0] * 3 + [1] * 2 + [2] * 4
    assert found.says[1] == "3 classes: cat (3), dog (2), owl (4)"
    assert found.odd == ["1 picture in no class folder: loose.png"]


def test_classes_with_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, {"train/cat": 3, "train/dog": 2, "valid/cat": 1})
    found = some(classes.look(Listing.of(tmp_path)))
    assert found.counts == {"train": 5, "valid": 1}
    assert any("valid has no picture of dog" in line for line in found.says)
    write_classes(tmp_path, {"valid/owl": 1})
    with pytest.raises(DataError, match=r"valid: owl: no class of this name in train.*Move"):
        classes.look(Listing.of(tmp_path))


def test_what_are_no_classes(tmp_path: Path) -> None:
    write_masks(tmp_path / "masks")
    write_classes(tmp_path / "one", {"cat": 3})
    write_masks(tmp_path / "camvid", "{s}/{i}.png", "{s}annot/{i}.png", splits=("train", "val"))
    for name in ("masks", "one", "camvid"):
        assert classes.look(Listing.of(tmp_path / name)) is None, name


# Pairs ------------------------------------------------------------------------------------------------------


def drawing(picture: np.ndarray) -> np.ndarray:
    return np.asarray(255 - cv2.Canny(picture, 60, 150), np.uint8)


def test_pairs_in_folders(tmp_path: Path) -> None:
    """The drawing becomes a, whatever the folders are called, since the photo is what is to be made."""
    for number in range(6):
        picture = cv2.GaussianBlur(scene(number)[0], (3, 3), 0)
        save(tmp_path / "photos" / f"{number}.jpg", picture)
        save(tmp_path / "zdrawn" / f"{number}_edge.png", drawing(picture))
    found = some(pairs.look(Listing.of(tmp_path)))
    assert (found.task, found.counts) == ("pix2pix", {"all": 6})
    data = Folders(root=str(tmp_path), split="all", **found.node["dataset"])
    sample = data.read(2)
    assert set(np.unique(sample["a"])) <= {0, 255}
    assert len(np.unique(sample["b"])) > 50


def test_a_name_says_which_side_is_drawn(tmp_path: Path) -> None:
    for number in range(6):
        picture = scene(number)[0]
        save(tmp_path / "sketches" / f"{number}.png", drawing(picture))
        save(
            tmp_path / "flat" / f"{number}.png", np.full_like(picture, 100 + number)
        )  # shows less than the drawing
    found = some(pairs.look(Listing.of(tmp_path)))
    assert found.node["dataset"]["a"] == "sketches" and found.node["dataset"]["b"] == "flat"


def test_a_third_folder_beside_two_is_a_class_rather_than_a_pair(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog", "val/owl"):
        for number in range(3):
            save(tmp_path / folder / f"{number}.jpg", scene(number)[0])
    with pytest.raises(DataError, match=r"val: owl: no class of this name in train"):
        choose(Listing.of(tmp_path))


def test_two_folders_of_one_scene_are_no_classes_whatever_they_are_called(tmp_path: Path) -> None:
    write_masks(tmp_path / "Feld", "Fotos/a/{i}.jpg", "Masken/a/{i}_teil.png")
    assert choose(Listing.of(tmp_path / "Feld")).found.task == "segmentation"
    for number in range(6):
        picture = cv2.GaussianBlur(scene(number)[0], (3, 3), 0)
        save(tmp_path / "wetter" / "tag" / f"{number}.png", picture)
        save(tmp_path / "wetter" / "nacht" / f"{number}.jpg", np.asarray(picture // 4))
    found = choose(Listing.of(tmp_path / "wetter")).found
    assert found.task == "pix2pix" and found.node["dataset"] == {"a": "nacht", "b": "tag"}


@pytest.mark.parametrize("form", ["{c}_{i}.png", "{i}_{c}.png"])
def test_two_classes_of_as_many_pictures_are_no_pairs(form: str, tmp_path: Path) -> None:
    """Of one size, and called after their class: what they show tells them from pairs."""
    for place, name in enumerate(("cat", "dog")):
        for i in range(6):
            save(tmp_path / "pets" / name / form.format(c=name, i=i), scene(6 * place + i)[0])
            photo = scene(i)[0]
            save(tmp_path / "seen" / name / form.format(c=name, i=i), photo if place else 255 - photo // 2)
    found, others = choose(Listing.of(tmp_path / "pets"))[0::2]
    assert found.task == "classification" and [each.task for each in others] == ["pix2pix"]
    assert choose(Listing.of(tmp_path / "seen")).found.task == "pix2pix"


def test_sizes_of_one_area_are_both_said() -> None:
    found = Found("", "", "", {}, 1, frozenset())
    found.sizes.update({(40, 60): 2, (60, 40): 1})
    assert found.size_words() == "40x60 to 60x40, most 40x60"


def test_a_table_of_classes_is_named(tmp_path: Path) -> None:
    save(tmp_path / "img" / "1.png", scene(0)[0])
    (tmp_path / "labels.csv").write_text("image,label\nimg/1.png,red\n")
    with pytest.raises(
        DataError, match=r"columns of labels\.csv are no points: image, label\. A class for each"
    ):
        choose(Listing.of(tmp_path))


def test_label_maps_and_photos_are_pairs_if_asked(tmp_path: Path) -> None:
    write_masks(tmp_path, code=lambda ids: PALETTE[ids])
    listing = Listing.of(tmp_path)
    assert choose(listing).found.task == "segmentation"
    found = choose(listing, "pix2pix").found
    assert found.node["dataset"] == {"a": "labels", "b": "images", "a_kind": "label"}
    with pytest.raises(ConfigError, match=r"task: found 'pose', but .* has what pix2pix, segmentation needs"):
        choose(listing, "pose")


@pytest.mark.parametrize("label_first", [True, False])
def test_pairs_side_by_side(label_first: bool, tmp_path: Path) -> None:
    for number in range(6):
        picture, ids = scene(number)
        picture = np.where(ids[..., None] > 0, 255 - picture, picture // 2)  # plain outlines
        halves = [PALETTE[ids], picture] if label_first else [picture, PALETTE[ids]]
        save(tmp_path / f"{number}.png", np.concatenate(halves, axis=1))
    found = some(pairs.look(Listing.of(tmp_path)))
    source, target = ("a", "b") if label_first else ("b", "a")
    assert found.node == {"pair": {"source": source, "target": target}}
    assert found.side == (32, 48)
    data = Aligned(root=str(tmp_path), split="all")
    np.testing.assert_array_equal(data.read(3)[source], PALETTE[scene(3)[1]])


def test_wide_pictures_are_no_pairs(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", np.concatenate([scene(number)[0], scene(50 + number)[0]], axis=1))
    assert pairs.look(Listing.of(tmp_path)) is None


# Several kinds, or none ---------------------------------------------------------------------------------------


def test_two_kinds_at_once(tmp_path: Path) -> None:
    write_masks(tmp_path)
    write_classes(tmp_path / "more", {"train/cat": 3, "train/dog": 3, "train/owl": 3})
    write_classes(tmp_path, {"cat": 3, "dog": 3, "owl": 3})
    with pytest.raises(DataError, match=r"two kinds of data at once: .*task="):
        choose(Listing.of(tmp_path))
    assert choose(Listing.of(tmp_path), "segmentation").found.task == "segmentation"


def test_another_kind_in_a_folder_apart(tmp_path: Path) -> None:
    """Photos and masks, and beside them a folder that holds classes: neither is left out without a word."""
    write_masks(tmp_path)
    write_classes(tmp_path / "animals", {"cat": 3, "dog": 3, "owl": 3})
    with pytest.raises(
        DataError, match=r"two kinds of data at once: photos beside masks, and in animals/ a folder"
    ):
        choose(Listing.of(tmp_path))
    chosen = choose(Listing.of(tmp_path), "segmentation").found
    assert chosen.task == "segmentation" and not any(name.startswith("animals") for name in chosen.claimed)


def test_nothing_recognised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        Listing.of(tmp_path)
    save(tmp_path / "1.jpg", scene(0)[0])
    with pytest.raises(DataError, match=r"nothing recognised\. Found the folder itself \(1 \.jpg\)"):
        choose(Listing.of(tmp_path))
    with pytest.raises(DataError, match="it is a file; give the folder"):
        Listing.of(tmp_path / "1.jpg")


def test_the_listing_passes_over_junk_and_wrappers(tmp_path: Path) -> None:
    write_masks(tmp_path / "archive" / "set")
    (tmp_path / "README.md").write_text("hello")
    for hidden in (".git/1.png", "__MACOSX/1.png", "archive/set/images/._p0.jpg"):
        save(tmp_path / (hidden if hidden.endswith(".png") else "x/2.png"), scene(0)[0])
    (tmp_path / "x" / "2.png").unlink()
    (tmp_path / "archive" / "set" / "images" / "._p0.jpg").write_bytes(b"junk")
    listing = Listing.of(tmp_path)
    assert listing.root == tmp_path / "archive" / "set"
    assert len(listing.pictures) == 12 and listing.junk == 3


# Recipes ------------------------------------------------------------------------------------------------------


def value(found: Found, machine: Machine, key: str, recogniser: object = classes) -> object:
    return recogniser.propose(found, machine).values[key].value  # type: ignore[attr-defined]


def test_recipes_fit_pictures_and_machine(tmp_path: Path) -> None:
    from dvsn.data_tools.init import masks

    write_masks(tmp_path, count=6)
    found = some(masks.look(Listing.of(tmp_path)))
    for train, expected in ((2, 2), (5, 2), (24, 4), (3000, 8)):
        found.facts["train"] = train
        batch = value(found, LAPTOP, "data.batch_size", masks)
        assert batch == expected and batch <= train
    assert value(found, LAPTOP, "transform.crop_height", masks) == 64  # of 32 pixels, and not of 1024
    found.sizes.clear()
    found.sizes[3000, 4000] = 10
    assert value(found, LAPTOP, "transform.crop_height", masks) == 256
    assert value(found, SERVER, "transform.crop_height", masks) == 1024
    assert value(found, LAPTOP, "task.inference", masks) == {"mode": "slide", "window": [256, 256]}


def test_less_time_is_fewer_epochs(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 40, "dog": 40, "owl": 40})
    found = some(classes.look(Listing.of(tmp_path)))
    key = "trainer.max_epochs"
    some_time, little = (
        int(str(value(found, Machine(2, 16.0, minutes=minutes), key))) for minutes in (30, 1)
    )
    assert little < some_time
    assert classes.propose(found, LAPTOP).choices["network"].value == "resnet8x4"
    assert all(setting.value is not None for setting in classes.propose(found, SERVER).values.values())
