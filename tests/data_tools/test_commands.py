"""check, show and weights on tiny data sets, sound and broken: what is wrong is found and named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data import __main__ as dispatch
from dvsn.data_tools import commands
from dvsn.data_tools.check import Finding, Report, check
from dvsn.data_tools.init.pictures import spread
from dvsn.data_tools.show import LEGEND, VOID, draw, legend
from dvsn.data_tools.weights import weigh
from dvsn.errors import ConfigError, DataError
from dvsn.losses.class_weights import resolve
from dvsn.pictures.layout import HEADER, MARGIN
from dvsn.types import Vocabulary
from tests.support.tiny import write_pairs

SIZE = (12, 22)  # height x width
COLUMNS = np.tile(np.arange(22, dtype=np.uint8) // 2, (12, 1))  # classes 0..10, two columns each


def write(root: Path, split: str, name: str, label: np.ndarray, *, photo: np.ndarray | None = None) -> None:
    """A photo of its own and a label map, as SegNet's copy of CamVid has them."""
    if photo is None:
        seed = sum(ord(letter) << place for place, letter in enumerate(split + name))
        photo = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    for folder, array in ((split, photo), (f"{split}annot", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / folder / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two samples a split, every class in each, nothing wrong."""
    for split in ("train", "val", "test"):
        for number in range(2):
            write(tmp_path / "set", split, f"{split}{number}", COLUMNS)
    return tmp_path / "set"


NAMES = "data.keypoints.names=[nose,left_eye,right_eye]"


def configured(name: str, root: Path, *overrides: str, data: str = "camvid") -> dict[str, Any]:
    options = [f"data={data}", f"data.root={root}", "name=test", f"run_dir={root}", *overrides]
    options += [NAMES] if data == "keypoints" else []
    if name != "data_show":
        options.append("workers=0")
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose(name, overrides=options), resolve=True)
    return config


def checked(root: Path, *overrides: str, data: str = "camvid") -> Report:
    return check(configured("data_check", root, *overrides, data=data))


def only_fault(report: Report) -> Finding:
    assert len(report.faults) == 1, report.faults
    return report.faults[0]


# check ----------------------------------------------------------------------------------------------------


def test_a_sound_set_has_no_fault_and_its_pixels_are_counted(root: Path) -> None:
    label = COLUMNS.copy()
    label[:3, :] = 11  # void: a quarter
    write(root, "train", "train0", label)
    report = checked(root)
    assert not report.faults and not report.notes
    train = report.plain()["splits"]["train"]
    assert train["samples"] == train["checked"] == 2 and train["sizes"] == {"12x22": 2}
    assert train["pixels"] == [2 * 9 + 2 * 12] * 11 and train["images"] == [2] * 11
    assert train["ignored_pixels"] == 3 * 22
    assert train["shares"][0] == pytest.approx(42 / (2 * 12 * 22))
    assert report.plain()["classes"][0] == "sky"


def test_a_broken_file_does_not_stop_the_walk(root: Path) -> None:
    for name in ("train0", "train1"):
        path = root / "train" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-20])
    report = checked(root)
    assert [fault.kind for fault in report.faults] == ["unreadable"] * 2 + ["class not in train"] * 11
    assert "train0.png" in report.faults[0].message and "truncated" in report.faults[0].message
    assert "train1.png" in report.faults[1].files[0]
    assert "0 sky" in report.faults[2].message and "2 samples could not be read" in report.faults[2].message
    assert report.splits["train"].walked == 2 and report.splits["test"].images[0] == 2


def test_sizes_that_differ(root: Path) -> None:
    write(root, "val", "val1", COLUMNS[:, :20])
    fault = only_fault(checked(root))
    assert fault.kind == "sizes differ" and fault.split == "val"
    assert "val1.png" in fault.files[0] and "12x22" in fault.message and "12x20" in fault.message


def test_unknown_ids_are_gathered_by_value(root: Path) -> None:
    for name, rows in (("train0", 1), ("val0", 2), ("val1", 3)):
        label = COLUMNS.copy()
        label[:rows, :4] = 17
        label[11, 0] = 200
        write(root, name[:-1], name, label)
    report = checked(root)
    found = {(fault.split, fault.message.partition(".")[0]): fault.files for fault in report.faults}
    assert {fault.kind for fault in report.faults[:4]} == {"unknown ids"}
    assert len(found["val", "id 17 on 20 pixels of 2 files"]) == 2
    assert "train0.png" in found["train", "id 200 on 1 pixels of 1 file"][0]
    assert "ignore_ids" in report.faults[0].message  # what to do
    assert list(report.plain()["splits"]["val"]["unknown_ids"]["17"].values()) == [8, 12]
    assert report.splits["val"].walked == 2 and not report.splits["val"].pixels.any()


def test_ids_that_a_reader_lets_through_are_found_too(root: Path) -> None:
    fault = checked(root, "data.dataset.labels=ids", "data.dataset.ignore_ids=[99]").faults
    assert not fault  # 0..10 alone
    label = COLUMNS.copy()
    label[0, :5] = 11  # void, no class of the 11, and labels=ids does not map it
    write(root, "test", "test0", label)
    found = only_fault(checked(root, "data.dataset.labels=ids"))
    assert found.kind == "unknown ids" and found.message.startswith("id 11 on 5 pixels of 1 file.")


def test_one_picture_in_two_splits_whatever_its_name(root: Path) -> None:
    shutil.copy(root / "train" / "train1.png", root / "val" / "val0.png")
    fault = only_fault(checked(root))
    assert fault.kind == "picture in two splits" and fault.split == "train and val"
    assert "train1.png" in fault.files[0] and "val0.png" in fault.files[1]


def test_one_name_in_two_splits_is_nothing_unless_the_pixels_are_the_same(root: Path) -> None:
    write(root, "val", "train1", COLUMNS)
    report = checked(root)
    assert not report.faults and not report.notes
    shutil.copy(root / "train" / "train1.png", root / "val" / "train1.png")
    report = checked(root)
    assert only_fault(report).kind == "picture in two splits" and not report.notes


def test_a_split_used_for_training_and_validation(root: Path) -> None:
    report = checked(root, "data.splits.val=train")
    assert only_fault(report).kind == "split used twice"
    assert set(report.splits) == {"train + val", "test"}  # walked once


def test_labels_ignored_everywhere(root: Path) -> None:
    write(root, "train", "train0", np.full(SIZE, 11, np.uint8))
    fault = only_fault(checked(root))
    assert fault.kind == "label without a class" and "train0.png" in fault.files[0]


def test_classes_that_training_never_shows(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(2):
            label = COLUMNS.copy()
            label[label == 4] = 5
            if split == "train":
                label[label == 7] = 5
            write(root, split, f"{split}{number}", label)
    report = checked(root)
    assert [fault.kind for fault in report.faults] == ["class not in train"] * 2
    assert "4 pavement" in report.faults[0].message and "but 48 in test" in report.faults[0].message
    assert "7 fence" in report.faults[1].message and "but 48 in val" in report.faults[1].message
    assert [note.message for note in report.notes] == ["no pixel of 4 pavement"]


def test_a_class_that_occurs_nowhere_is_a_fault_unless_it_is_meant(root: Path) -> None:
    for path in sorted(root.glob("*annot/*.png")):
        Image.fromarray(np.where(COLUMNS == 10, 0, COLUMNS)).save(path)
    expected = ("class nowhere", "no pixel of 10 bicyclist in what was read.")
    fault = only_fault(checked(root))
    assert (fault.kind, fault.message) == expected
    report = checked(root, "data.check_classes=warn")
    assert not report.faults and [(note.kind, note.message) for note in report.notes] == [expected]
    partial = checked(root, "limit=1")
    assert not partial.faults and [note.kind for note in partial.notes] == ["class nowhere"]


def test_with_a_limit_an_absent_class_is_no_fault(root: Path) -> None:
    write(root, "train", "train0", np.zeros(SIZE, np.uint8))
    report = checked(root, "limit=1")
    assert not report.faults
    assert len(report.notes) == 10 and "among the first 1 samples" in report.notes[0].message
    assert report.splits["train"].walked == 1 and report.splits["train"].samples == 2
    assert not checked(root).faults


def test_a_split_that_cannot_be_listed_leaves_the_others(root: Path) -> None:
    (root / "valannot" / "val1.png").unlink()
    for path in (root / "test").iterdir():
        path.unlink()
    report = checked(root)
    assert [(fault.kind, fault.split) for fault in report.faults] == [
        ("split not readable", "val"), ("split not readable", "test"),
    ]  # fmt: skip
    assert "val1.png" in report.faults[0].message and set(report.splits) == {"train"}


def test_a_missing_root_is_said_once(tmp_path: Path) -> None:
    fault = only_fault(checked(tmp_path / "nowhere"))
    assert fault.split == "train, val, test" and "data.root" in fault.message


def test_a_turned_photo_is_noted(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for folder in ("a", "b"):
            (tmp_path / split / folder).mkdir(parents=True)
            picture = Image.fromarray(np.full((8, 8, 3), len(split) * 9 + ord(folder[0]), np.uint8))
            exif = Image.Exif()
            exif[0x0112] = 6 if (split, folder) == ("val", "b") else 1
            picture.save(tmp_path / split / folder / f"{split}.jpg", exif=exif)
    report = checked(tmp_path, "task=pix2pix", data="folders")
    notes = [(note.kind, note.split) for note in report.notes]
    assert not report.faults or {fault.kind for fault in report.faults} == {"picture in two splits"}
    assert ("turned photo", "val") in notes


def test_translation_pairs_are_walked_without_classes(tmp_path: Path) -> None:
    write_pairs(tmp_path, train=2, val=1, seed=3)
    (tmp_path / "train" / "a" / "001.png").write_bytes(b"no picture")
    report = checked(tmp_path, "task=pix2pix", data="folders")
    assert only_fault(report).kind == "unreadable"
    assert report.names == () and "pixels" not in report.plain()["splits"]["train"]
    assert not report.notes


def test_joined_splits_are_walked_apart(root: Path) -> None:
    report = checked(root, "data.splits.train=train+val", "data.splits.val=test")
    assert list(report.splits) == ["train", "val + test"] and not report.faults
    fault = only_fault(checked(root, "data.splits.train=train+val"))
    assert fault.kind == "split used twice" and "both are the split 'val'" in fault.message


# People ---------------------------------------------------------------------------------------------------


def write_people(root: Path, split: str, people: list[dict[str, Any]], *, pictures: int = 1) -> None:
    """Pictures of 100 x 80 (width x height), each of its own, and three keypoints a person."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    images = []
    for number in range(pictures):
        noise = np.random.default_rng([number, *map(ord, split)]).integers(
            0, 256, (80, 100, 3), dtype=np.uint8
        )
        Image.fromarray(noise).save(root / "images" / f"{split}{number}.png")
        images.append({"id": number, "file_name": f"{split}{number}.png", "width": 100, "height": 80})
    known = {"category_id": 1, "image_id": 0, "area": 50.0, "iscrowd": 0}
    annotations = [{"id": number} | known | each for number, each in enumerate(people, 1)]
    categories = [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


SOUND = {"bbox": [10, 10, 60, 60], "keypoints": [20, 20, 2, 30, 30, 1, 40, 40, 2]}


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Two people in one picture and one in another, in each split."""
    for split in ("train", "val", "test"):
        write_people(tmp_path / "people", split, [SOUND, SOUND, SOUND | {"image_id": 1}], pictures=2)
    return tmp_path / "people"


def test_a_sound_set_of_people_is_counted_by_picture_and_keypoint(crowd: Path) -> None:
    report = checked(crowd, "task=pose", data="keypoints")
    assert not report.faults and not report.notes
    train = report.plain()["splits"]["train"]
    assert train["samples"] == train["checked"] == 2 and train["people"] == 3  # a picture is read once
    assert train["labelled"] == {"nose": 3, "left_eye": 3, "right_eye": 3}
    assert report.plain()["classes"] == [] and "pixels" not in train
    assert checked(crowd, data="keypoints").plain() == report.plain()  # people without being asked for


def test_what_is_wrong_with_people_is_found(crowd: Path) -> None:
    write_people(
        crowd,
        "train",
        [
            {
                "bbox": [10, 10, 60, 60],
                "keypoints": [20, 20, 2, 99.4, 30, 1, 0, 0, 0],
            },  # the last pixel is inside
            {"bbox": [10, 10, 60, 60], "keypoints": [20, 20, 2, 100, 30, 1, 0, 0, 0]},
            {"bbox": [60, 60, 20, 20], "keypoints": [20, 20, 2, 30, 30, 1, 0, 0, 0]},
            {"bbox": [10, 10, 60, 60], "keypoints": [20, 20, 0, 0, 0, 0, 0, 0, 0]},
            {"bbox": [10, 10, 60, 60], "keypoints": [0] * 9},
        ],
    )
    report = checked(crowd, "task=pose", data="keypoints")
    faults = {fault.kind: fault for fault in report.faults}
    notes = {note.kind: note for note in report.notes}
    assert set(faults) == {"keypoints outside their box", "keypoint not in train"}
    assert "annotation 3" in faults["keypoints outside their box"].files[0]
    assert "2 right_eye: never labelled, but 3 in val" in faults["keypoint not in train"].message
    assert set(notes) == {"keypoints outside the picture", "no keypoint labelled", "left out"}
    assert len(notes["keypoints outside the picture"].files) == 1
    assert (
        "train0.png, annotation 2: 1 of 2, such as [100.0, 30.0]"
        in notes["keypoints outside the picture"].files[0]
    )
    assert notes["no keypoint labelled"].message == "nothing to learn from 1 person"
    assert notes["left out"].message == "no keypoint labelled: 1 annotation, 5"


def test_pictures_of_people_that_are_broken_or_in_two_splits(crowd: Path) -> None:
    shutil.copy(crowd / "images" / "train0.png", crowd / "images" / "val1.png")
    (crowd / "images" / "test0.png").write_bytes(b"")
    report = checked(crowd, "task=pose", data="keypoints")
    assert [(fault.kind, fault.split) for fault in report.faults] == [
        ("unreadable", "test"), ("picture in two splits", "train and val"),
    ]  # fmt: skip
    (crowd / "images" / "test0.png").unlink()
    fault = checked(crowd, "task=pose", data="keypoints").faults[0]
    assert fault.kind == "split not readable" and "test0.png: no such picture" in fault.message


def test_detections_outside_their_picture_are_a_fault(crowd: Path) -> None:
    rows = [{"image_id": 0, "category_id": 1, "bbox": [120, 0, 9, 9], "score": 1.0}]
    (crowd / "boxes.json").write_text(json.dumps(rows))
    report = checked(crowd, "task=pose", "data.people.boxes=boxes.json", data="keypoints")
    assert {fault.kind for fault in report.faults} == {"box outside the picture"}
    assert "box [120.0, 0.0, 9.0, 9.0] in a picture of 100 x 80" in report.faults[0].files[0]


def test_show_draws_people_with_their_keypoints(crowd: Path, tmp_path: Path) -> None:
    options = ["task=pose", "transform.size=[64,48]", "count=3", f"output={tmp_path / 'drawn'}"]
    path = draw(configured("data_show", crowd, *options, "augment=false", data="keypoints"))
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape == (HEADER + 3 * (80 + MARGIN), 100 + 48 + 48 + 4 * MARGIN, 3)
    left = 2 * MARGIN + 100
    crop = picture[HEADER : HEADER + 64, left : left + 48].astype(int)
    drawn = picture[HEADER : HEADER + 64, left + 48 + MARGIN : left + 96 + MARGIN].astype(int)
    changed = np.argwhere(np.abs(crop - drawn).max(axis=2) > 0)
    # box 10..69 x 10..69 (clipped): 59 x 59 grows to 59 x 78.7, times 1.25; keypoints lie at 20..40 on the diagonal
    zoom, middle = 48 / (59 * 1.25), 10 + 59 / 2
    ends = [[32 + zoom * (place - middle), 24 + zoom * (place - middle)] for place in (20, 40)]
    np.testing.assert_allclose(changed.min(axis=0), ends[0], atol=3)
    np.testing.assert_allclose(changed.max(axis=0), ends[1], atol=3)
    whole = draw(configured("data_show", crowd, "count=1", f"output={tmp_path / 'plain'}", data="keypoints"))
    assert cv2.imread(str(whole)).shape[0] == HEADER + 256 + MARGIN  # crops of the usual size without a task


def test_processes_find_the_same_in_the_same_order(root: Path) -> None:
    (root / "train" / "train0.png").write_bytes(b"")
    alone = checked(root).plain()
    together = check(configured("data_check", root) | {"workers": 2}).plain()
    assert alone == together


# weights --------------------------------------------------------------------------------------------------


def half_void(root: Path) -> None:
    """train0: half of it class 0, a quarter class 1, a quarter void. train1: class 0 alone."""
    label = np.zeros((4, 4), np.uint8)
    label[2], label[3] = 1, 11
    photo = np.zeros((4, 4, 3), np.uint8)
    for folder in ("train", "trainannot"):
        shutil.rmtree(root / folder)
    write(root, "train", "train0", label, photo=photo)
    write(root, "train", "train1", np.zeros((4, 4), np.uint8), photo=photo)


def test_median_frequency_by_hand(root: Path) -> None:
    half_void(root)
    content = weigh(configured("data_weights", root))
    frequencies = 24 / 32, 4 / 16  # class 1 is in one picture only
    expected = [0.5 / frequencies[0], 0.5 / frequencies[1]] + [0.0] * 9
    assert content["weights"] == pytest.approx(expected)
    assert content["counts"][:3] == [24, 4, 0] and content["images"][:3] == [2, 1, 0]
    assert content["ignored"] == 4


def test_enet_by_hand(root: Path) -> None:
    half_void(root)
    content = weigh(configured("data_weights", root, "method=enet"))
    expected = [1 / np.log(1.02 + 24 / 32), 1 / np.log(1.02 + 4 / 32), 1 / np.log(1.02)]
    assert content["weights"][:3] == pytest.approx(expected)


def test_weights_refuse_what_they_cannot_count(root: Path) -> None:
    with pytest.raises(ConfigError, match="method: found 'median'"):
        weigh(configured("data_weights", root, "method=median"))
    with pytest.raises(ConfigError, match="no class ids"):
        weigh(configured("data_weights", root, "task=pix2pix"))
    (root / "trainannot" / "train1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 2 training samples(.|\n)*train1.png(.|\n)*dvsn.data check"):
        weigh(configured("data_weights", root))
    for number in range(2):
        write(root, "train", f"train{number}", np.full(SIZE, 11, np.uint8))
    with pytest.raises(DataError, match="no pixel"):
        weigh(configured("data_weights", root))


# show -----------------------------------------------------------------------------------------------------


def test_show_draws_what_the_network_sees(root: Path, tmp_path: Path) -> None:
    label = np.where(COLUMNS < 5, 1, 8).astype(np.uint8)
    for number in range(2):
        write(root, "train", f"train{number}", label)
    options = ["transform.base=0", "transform.crop_height=40", "transform.crop_width=30", "count=2"]
    path = draw(configured("data_show", root, *options, f"output={tmp_path / 'drawn'}"))
    assert path == tmp_path / "drawn" / "train_augmented.png"
    picture = cv2.imread(str(path))[..., ::-1]
    widths = (30, 30, 30, LEGEND)  # photo, label, boundary, classes
    assert picture.shape == (HEADER + 2 * (40 + MARGIN), sum(widths) + 5 * MARGIN, 3)
    label = picture[HEADER : HEADER + 40, 2 * MARGIN + 30 : 2 * MARGIN + 60]
    assert (label == VOID).all(axis=2).any()  # the padding is ignored
    boundary = picture[HEADER : HEADER + 40, 3 * MARGIN + 60 : 3 * MARGIN + 90]
    assert set(np.unique(boundary)) == {0, 255}


def test_show_without_augmentation_is_the_file(root: Path, tmp_path: Path) -> None:
    path = draw(configured("data_show", root, "augment=false", "split=val", "count=9", f"output={tmp_path}"))
    picture = cv2.imread(str(path))[..., ::-1]
    assert path.name == "val.png"
    assert picture.shape == (HEADER + 2 * (12 + 6 + MARGIN), 22 + 22 + LEGEND + 4 * MARGIN, 3)
    photo = np.array(Image.open(root / "val" / "val0.png"))
    assert np.array_equal(picture[HEADER : HEADER + 12, MARGIN : MARGIN + 22], photo)
    label = picture[HEADER : HEADER + 12, 2 * MARGIN + 22 : 2 * MARGIN + 44]
    assert tuple(label[0, 0]) == (128, 128, 128) and tuple(label[0, 21]) == (0, 128, 192)


def test_show_draws_translation_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path, train=2, val=1)
    options = ["task=pix2pix", "transform=none", f"output={tmp_path / 'drawn'}"]
    picture = cv2.imread(str(draw(configured("data_show", tmp_path, *options, data="folders"))))
    assert picture.shape == (HEADER + 2 * (16 + MARGIN), 2 * 16 + 3 * MARGIN, 3)


def test_the_legend_lists_the_largest_class_first() -> None:
    ids = np.zeros((40, 10), np.uint8)
    ids[:30] = 1
    drawn = legend(ids, Vocabulary(("one", "two"), ((10, 20, 30), (40, 50, 60))))
    assert drawn.shape == (40, LEGEND, 3)
    assert tuple(drawn[5, 5]) == (40, 50, 60) and tuple(drawn[5 + 18, 5]) == (10, 20, 30)
    cut = legend(ids[25:], Vocabulary(("one", "two"), ((10, 20, 30), (40, 50, 60))))  # room for one line
    assert (cut[5, 5] == 255).all() and (cut < 255).any()  # "and 2 more"


def test_samples_are_spread_over_the_split() -> None:
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread(range(2), 6) == [0, 1]


# On the command line --------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dvsn", *argv])
    dispatch.main()


def test_check_leaves_with_2_where_there_is_a_fault(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["data=camvid", f"data.root={root}", "workers=0", "output=report.json"]
    run(monkeypatch, "check", *argv)
    assert json.loads(Path("report.json").read_text())["faults"] == []
    (root / "trainannot" / "train1.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "check", *argv)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert "1 fault; all are in report.json" in err
    assert "FAULT  unreadable (1)" in out and "train1.png" in out and "building" in out
    assert json.loads(Path("report.json").read_text())["faults"][0]["kind"] == "unreadable"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "set"]  # and no log file


def test_weights_writes_what_the_loss_reads(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "weights", "data=camvid", f"data.root={root}", "workers=0")
    assert resolve("weights.json", classes=11) == pytest.approx([1.0] * 11)
    assert "bicyclist" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["check", "show", "weights"])
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, name, "--help")
    command, _ = commands.COMMANDS[name]
    text = capsys.readouterr().out
    assert len(command.examples) == 2 and name in dispatch.COMMANDS
    for example in command.examples:
        assert example.startswith(f"python -m dvsn.data {name} ") and example in text
    with initialized(conf_dir()):
        for example in command.examples:
            config = compose(f"data_{name}", overrides=example.split()[5:])
            assert all(OmegaConf.select(config, each.name) is not None or each.default == "null"
                       for each in command.options)  # fmt: skip


def test_the_dispatcher_names_the_nearest_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert all(name in text for name in dispatch.COMMANDS)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "chekc")
    assert stop.value.code == 2 and "Did you mean 'check'?" in capsys.readouterr().err
