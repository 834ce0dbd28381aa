"""Photos beside masks: whatever the layout and the kind of mask, the reader gives the ids that were drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.data_tools.init import masks
from dvsn.data_tools.init.choose import choose
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.listing import Listing
from dvsn.errors import ConfigError, DataError
from tests.support.own_data import PALETTE, save, scene, write_masks


def look(root: Path) -> Found:
    found = masks.look(Listing.of(root))
    assert found is not None
    return found


def reader(root: Path, found: Found, split: str = "all") -> SegmentationFolders:
    return SegmentationFolders(root=str(root), split=split, **found.node["dataset"])


def take(table: list[int], kind: Any = np.uint8) -> Callable[[np.ndarray], np.ndarray]:
    return lambda ids: np.array(table, kind)[ids]


def binary(ids: np.ndarray) -> np.ndarray:
    return (ids > 0).astype(np.uint8) * np.uint8(255)


LAYOUTS = {
    "two folders": ({"mask": "masks/{i}.png"}, "all"),
    "other names": ({"photo": "JPEGImages/{i}.jpg", "mask": "SegmentationClass/{i}.png"}, "all"),
    "words that say nothing": ({"photo": "one/{i}.jpg", "mask": "two/{i}.png"}, "all"),
    "ending of the mask": ({"photo": "{i}.jpg", "mask": "{i}_mask.png"}, "all"),
    "same format": ({"photo": "{i}.png", "mask": "{i}_mask.png"}, "all"),
    "both endings": ({"photo": "{i}_sat.jpg", "mask": "{i}_mask.png"}, "all"),
    "one stem": ({"photo": "{i}.jpg", "mask": "{i}.png"}, "all"),
    "nested": ({"photo": "images/a/{i}.jpg", "mask": "gt/a/{i}_labelIds.png"}, "all"),
    "split first": ({"photo": "{s}/images/{i}.jpg", "mask": "{s}/masks/{i}.png", "splits": ("train", "val")}, "train"),
    "split last": ({"photo": "images/{s}/{i}.jpg", "mask": "labels/{s}/{i}.png",
                    "splits": ("training", "validation")}, "training"),
    "one folder a split": ({"photo": "{s}/{i}.jpg", "mask": "{s}/{i}_mask.png", "splits": ("train", "valid")}, "valid"),
    "joined names": ({"photo": "{s}_images/{i}.jpg", "mask": "{s}_masks/{i}.png", "splits": ("train", "test")}, "test"),
    "starts in one folder": ({"photo": "img_{i}.png", "mask": "mask_{i}.png"}, "all"),
    "starts in two folders": ({"photo": "images/img_{i}.png", "mask": "masks/mask-{i}.png"}, "all"),
    "start of the mask": ({"photo": "{i}.png", "mask": "mask_{i}.png"}, "all"),
    "a folder a case": ({"photo": "{i}/image.png", "mask": "{i}/mask.png"}, "all"),
    "cases of splits": ({"photo": "{s}/{i}/image.png", "mask": "{s}/{i}/mask.png", "splits": ("train", "val")}, "val"),
    "as CamVid": ({"photo": "{s}/{i}.png", "mask": "{s}annot/{i}.png", "splits": ("train", "val")}, "train"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read(name: str, tmp_path: Path) -> None:
    options, split = LAYOUTS[name]
    write_masks(tmp_path, **options)
    found = look(tmp_path)
    data = reader(tmp_path, found, split)
    first = 100 * list(options.get("splits", ("all",))).index(split)
    assert found.counts == dict.fromkeys(options.get("splits", ("all",)), 6)
    assert len(data) == 6
    assert choose(Listing.of(tmp_path)).found.task == "segmentation"
    for number in range(6):
        np.testing.assert_array_equal(data.read(number)["label"], scene(first + number)[1])
    assert data.read(0)["photo"].std() > 20  # the photo, not the mask


@pytest.mark.parametrize("code, palette, values, node", [
    (lambda ids: ids, None, [0, 1, 2, 3], {}),
    (lambda ids: ids, PALETTE, [0, 1, 2, 3], {"palette": PALETTE.tolist()}),
    (take([7, 24, 26, 33]), None, [7, 24, 26, 33], {"id_map": {7: 0, 24: 1, 26: 2, 33: 3}}),
    (take([1, 2, 3, 4]), None, [1, 2, 3, 4], {"id_map": {1: 0, 2: 1, 3: 2, 4: 3}}),
    (take([0, 1001, 2050, 40000], np.uint16), None, [0, 1001, 2050, 40000],
     {"id_map": {0: 0, 1001: 1, 2050: 2, 40000: 3}}),
    (take([0, 85, 170, 255]), None, [0, 85, 170, 255], {"id_map": {0: 0, 85: 1, 170: 2, 255: 3}}),
    (take([0, 1, 2, 255]), None, [0, 1, 2], {"ignore_ids": [255]}),
])  # fmt: skip
def test_ids(code: Any, palette: Any, values: list[int], node: dict[str, Any], tmp_path: Path) -> None:
    """Gaps and large ids are mapped, evenly spread greys are classes, 255 beside small ids is ignored; and the files' ids
    are known to the results."""
    write_masks(tmp_path, code=code, palette=palette)
    found = look(tmp_path)
    given = found.node["dataset"]
    assert {key: given.get(key) for key in ("id_map", "ignore_ids", "palette") if key in given} == node
    assert found.node["classes"] == len(found.classes) == len(values)
    ids = scene(2)[1]
    expected = np.where(ids == 3, 255, ids) if 255 in node.get("ignore_ids", []) else ids
    np.testing.assert_array_equal(reader(tmp_path, found).read(2)["label"], expected)
    own = SegmentationFolders.vocabulary(**given).file_ids
    assert own == (tuple(values) if "id_map" in node else ())


def blurred(ids: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(PALETTE[ids], (3, 3), 0)


@pytest.mark.parametrize("mask, code, classes, option", [
    ("labels/{i}.png", binary, 2, "id_map"),
    ("labels/{i}.png", lambda ids: cv2.GaussianBlur(binary(ids), (5, 5), 0), 2, "threshold"),
    ("labels/{i}.jpg", binary, 2, "threshold"),
    ("labels/{i}.png", lambda ids: PALETTE[ids], 4, "colors"),
    ("labels/{i}.png", blurred, 4, "nearest"),
    ("labels/{i}.jpg", lambda ids: PALETTE[ids], 4, "nearest"),
])  # fmt: skip
def test_two_brightnesses_and_colours(
    mask: str, code: Any, classes: int, option: str, tmp_path: Path
) -> None:
    write_masks(tmp_path, mask=mask, code=code)
    found = look(tmp_path)
    assert len(found.classes) == classes
    assert option in found.node["dataset"]
    data = reader(tmp_path, found)
    for number in range(6):
        ids = scene(number)[1]
        if classes == 2:
            expected = ids > 0
        else:  # classes are numbered by their colours: black, blue, green, red
            expected = np.array([0, 3, 2, 1])[ids]
            assert list(found.classes) == ["background", "blue", "dark_green", "red"]
        assert (data.read(number)["label"] == expected).mean() > (
            0.999 if option in ("id_map", "colors") else 0.95
        )
    shares = np.array(found.facts["pixels"]) / sum(found.facts["pixels"])
    truth = np.mean([(scene(number)[1] == 0).mean() for number in range(6)])
    assert shares[0] == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("file, text, names", [
    ("classes.txt", "ground\ndisc\nbar\ntent\n", ["ground", "disc", "bar", "tent"]),
    ("classes.txt", "disc\nbar\ntent\n", ["background", "disc", "bar", "tent"]),
    ("labels.txt", "0: ground\n1: red disc\n2: bar\n3: tent\n", ["ground", "red disc", "bar", "tent"]),
    ("_classes.csv", "Pixel Value, Class\n0, ground\n1, disc\n2, bar\n3, tent\n", ["ground", "disc", "bar", "tent"]),
    ("id2label.json", '{"0": "ground", "1": "disc", "2": "bar", "3": "tent"}', ["ground", "disc", "bar", "tent"]),
    ("data.yaml", "nc: 4\nnames: [ground, disc, bar, tent]\n", ["ground", "disc", "bar", "tent"]),
    ("classes.txt", "one\ntwo\n", ["background", "class_1", "class_2", "class_3"]),
    ("classes.txt", "a\nb\nc\nd\ne\nf\n", ["a", "b", "c", "d"]),
])  # fmt: skip
def test_names_are_read(file: str, text: str, names: list[str], tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / file).write_text(text)
    found = look(tmp_path)
    assert list(found.classes) == names
    said = " ".join(found.says)
    assert ("the names are not used" in said) == (text == "one\ntwo\n")
    assert ("in no mask, so left out: e, f" in said) == ("e\nf" in text)


@pytest.mark.parametrize("file, text", [
    ("labelmap.txt", "# label:color_rgb:parts:actions\ndisc:220,20,60::\nground:0,0,0::\nbar:0,160,0::\ntent:0,0,255::\n"),
    ("class_dict.csv", "name,r,g,b\nground,0,0,0\ndisc,220,20,60\nbar,0,160,0\ntent,0,0,255\n"),
    ("label_colors.txt", "0 0 0\tground\n220 20 60\tdisc\n0 160 0\tbar\n0 0 255\ttent\n"),
])  # fmt: skip
def test_names_of_colours(file: str, text: str, tmp_path: Path) -> None:
    write_masks(tmp_path, code=lambda ids: PALETTE[ids])
    (tmp_path / file).write_text(text)
    assert list(look(tmp_path).classes) == ["ground", "tent", "bar", "disc"]


def test_what_has_no_partner_is_said_and_passed_over(tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "labels" / "p2.png").unlink()
    found = look(tmp_path)
    assert found.odd == ["1 photo without a mask: images/p2.jpg"]
    assert len(reader(tmp_path, found)) == 5


def other_size(root: Path) -> None:
    save(root / "images" / "p1.jpg", scene(1)[0][:20])


@pytest.mark.parametrize("change, message", [
    (other_size, r"1 masks have another size than their photo, such as labels/p1.png \(32x48\) and images/p1.jpg \(20x48"),
    (lambda root: (root / "labels" / "p1.png").write_bytes((root / "labels" / "p1.png").read_bytes()[:60]), "truncated PNG"),
    (lambda root: (root / "images" / "p1.jpg").write_bytes(b""), "1 of 6 pictures cannot be read: images/p1.jpg"),
    (lambda root: [save(root / "labels" / f"p{n}.png", np.zeros((32, 48), np.uint8)) for n in range(6)], "of one id 0"),
    (lambda root: [save(root / "labels" / f"p{n}.png", np.arange(1536, dtype=np.uint16).reshape(32, 48)) for n in range(6)],
     "1536 different ids, 0 to 1535: a number for each object"),
    (lambda root: [(root / "images" / f"p{n}.jpg").unlink() for n in range(6)], "labels: 6 masks without photos"),
])  # fmt: skip
def test_what_is_wrong_is_said(change: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write_masks(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        choose(Listing.of(tmp_path))


def write_lists(root: Path, **names: str) -> Path:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for split, text in names.items():
        (folder / f"{split}.txt").write_text(text)
    return folder


def test_lists_of_voc_are_the_splits(tmp_path: Path) -> None:
    write_masks(tmp_path, "JPEGImages/{i}.jpg", "SegmentationClass/{i}.png")
    folder = write_lists(tmp_path, train="p4\np0\np1\n", val="p3.jpg\n\n", test="\n", trainval="p0\n")
    found = look(tmp_path)
    assert found.counts == {"train": 3, "val": 1}
    assert found.node["dataset"]["lists"] == "ImageSets/Segmentation/{split}.txt"
    assert [line for line in found.says if "list" in line] == [
        "2 photos with a mask are in no list and left out: p2, p5"
    ] and found.odd == []
    data = reader(tmp_path, found, "train")
    assert [photo.stem for photo, _ in data.pairs] == ["p4", "p0", "p1"]
    np.testing.assert_array_equal(data.read_classes(data.pairs[0][1]), scene(4)[1])
    (folder / "val.txt").write_text("p3\np9\n")
    with pytest.raises(DataError, match=r"val\.txt: found no photo with a mask for p9; expected names"):
        reader(tmp_path, found, "val")
    again = look(tmp_path)
    assert again.counts == {"all": 6} and "lists" not in again.node["dataset"]
    assert any(
        "Segmentation/ are not used: 1 of their names" in line and "such as p9" in line for line in again.says
    )
    (folder / "val.txt").write_bytes(b"p3\xe9\n")
    again = look(tmp_path)
    assert again.counts == {"all": 6} and any("lists are not used: " in line for line in again.says)
    options = found.node["dataset"] | {"lists": "train.txt"}
    with pytest.raises(ConfigError, match=r"data\.dataset\.lists: found 'train\.txt'"):
        SegmentationFolders(root=str(tmp_path), split="train", **options)


def test_masks_alone_are_said_to_lack_photos(tmp_path: Path) -> None:
    write_masks(tmp_path, "away/{i}.jpg", "set/{i}.png")
    with pytest.raises(DataError, match=r"set: 6 pictures of few colours, as masks have, without photos"):
        choose(Listing.of(tmp_path / "set"))


def test_classes_of_one_split_alone_are_said(tmp_path: Path) -> None:
    write_masks(tmp_path, "{s}/images/{i}.jpg", "{s}/labels/{i}.png", splits=("train", "val"))
    for number in range(6):
        for split, out in (("train", 3), ("val", 1)):
            path = tmp_path / split / "labels" / f"p{number}.png"
            ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            save(path, np.where(ids == out, 0, ids).astype(np.uint8))
    says = look(tmp_path).says
    assert (
        "val has class_3, which no mask of train shows: nothing can be learnt of it; move some of its pictures to train"
        in says
    )
    assert "val has no class_1: learnt, and not measured there" in says


def test_masks_that_lie_deeper_are_not_said_to_lack_photos(tmp_path: Path) -> None:
    write_masks(tmp_path / "set", "images/{i}.jpg", "masks/{i}.png")
    write_masks(tmp_path / "more", "cats/{i}.jpg", "dogs/{i}.jpg", lambda ids: ids)
    with pytest.raises(
        DataError, match=r"set/masks: masks that lie deeper.*Give the folder that holds both, .*set,"
    ):
        choose(Listing.of(tmp_path))
