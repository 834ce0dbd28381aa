"""`data check` on objects: counts by class and split, boxes that are none, crowds, masks; and names of left and right."""

from __future__ import annotations

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
from dvsn.data.__main__ import with_task
from dvsn.data_tools.check import Report, check
from dvsn.data_tools.walk import deepest, turned
from dvsn.geometry.mirrors import lacking_pairs
from tests.support.coco import HEIGHT, WIDTH, content_of, save, write_coco
from tests.support.keypoint_files import write_set
from tests.support.tiny import write_pairs, write_scenes


def checked(root: Path, *overrides: str) -> Report:
    options = [f"data.root={root}", "name=test", f"run_dir={root}", "workers=0", *overrides]
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose("data_check", overrides=options), resolve=True)
    return check(config)


def objects(root: Path, *overrides: str) -> Report:
    return checked(root, "task=detection", "data=coco", "data.object_classes=4", *overrides)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_coco(tmp_path_factory.mktemp("coco"))
    bare = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)  # of train it is grey, too
    assert cv2.imwrite(str(root / "images" / "val2017" / "000000000012.png"), bare)
    return root


@pytest.fixture
def broken(tmp_path: Path, tree: Path) -> Path:
    (tmp_path / "images").symlink_to(tree / "images")
    save(tmp_path, content_of(3, seed=1), "val")
    return tmp_path


def kinds(report: Report) -> tuple[list[str], list[str]]:
    return [each.kind for each in report.faults], [each.kind for each in report.notes]


# Objects ---------------------------------------------------------------------------------------------


def test_objects_are_counted_by_class_and_split(tree: Path) -> None:
    report = objects(tree)
    assert kinds(report) == ([], ["picture without an object"] * 2)  # the last of each split
    train, val = (report.plain()["splits"][title] for title in ("train", "val + test"))
    assert train["objects"] == {"red": 5, "blue": 5} and train["pictures_with"] == {"red": 5, "blue": 5}
    assert train["crowds"] == 1 and train["masks"] == 11 and train["pictures_without_objects"] == 1
    assert val["objects"] == {"red": 2, "blue": 2} and val["sizes"] == {f"{HEIGHT}x{WIDTH}": 3}


def test_classes_without_an_object(broken: Path) -> None:
    content = content_of(6)
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 3]
    content["categories"].append({"id": 2, "name": "green"})
    save(broken, content)
    report = objects(broken)
    assert kinds(report)[0] == ["class not in train"]
    assert report.faults[0].message == "3 blue: no object in train, but 2 in val + test"
    assert [each.message for each in report.notes if each.kind == "class nowhere"] == [
        "no object of 2 green in what was read"
    ]


def test_boxes_written_as_corners(broken: Path) -> None:
    content = content_of(6)
    for each in content["annotations"]:
        x, y, w, h = each["bbox"]
        each["bbox"] = [x, y, x + w, y + h]
    save(broken, content)
    report = objects(broken)
    fault = next(each for each in report.faults if each.kind == "boxes written as corners")
    assert fault.split == "train" and "of 11 reach beyond their picture" in fault.message
    assert "box beyond the edge" not in kinds(report)[1]


def test_boxes_outside_empty_and_of_shares(broken: Path) -> None:
    content = content_of(6)
    content["annotations"][0]["bbox"] = [500, 3, 10, 10]
    content["annotations"][1]["bbox"] = [3, 3, 0, 10]
    content["annotations"][2]["bbox"] = [60, 3, 10, 10]
    save(broken, content)
    faults, notes = kinds(objects(broken))
    assert (
        sorted(faults) == ["box outside the picture", "box without an area"]
        and "box beyond the edge" in notes
    )
    for each in content["annotations"]:
        each["bbox"] = [0.1, 0.2, 0.3, 0.4]
    save(broken, content)
    assert kinds(objects(broken))[0] == ["boxes written as shares"]


def test_a_split_of_crowds_has_no_object(broken: Path) -> None:
    content = content_of(6)
    for each in content["annotations"]:
        each["iscrowd"] = "1"
    save(broken, content)
    report = objects(broken)
    assert kinds(report)[0] == ["split without an object", "class not in train", "class not in train"]
    assert report.faults[0].message == "no single object in 6 pictures, 11 crowd regions"


def test_objects_without_a_mask_are_noted(broken: Path) -> None:
    content = content_of(6)
    content["annotations"][0]["segmentation"] = []
    save(broken, content)
    note = next(each for each in objects(broken).notes if each.kind == "object without a mask")
    assert (note.split, note.message) == ("train", "1 of 11 objects have no mask that can be read")


# Left and right --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (("left_eye", "right_eye", "nose"), [("left_eye", "right_eye")]),
        (("LeftEye", "RightEye"), [("LeftEye", "RightEye")]),
        (("eye.left", "eye.right"), [("eye.left", "eye.right")]),
        (("l_eye", "r_eye"), [("l_eye", "r_eye")]),
        (("LEye", "REye"), [("LEye", "REye")]),
        (("left eye", "right ear"), []),
        (("nose", "l", "r"), []),
        (("p0", "p1"), []),
    ],
)
def test_names_of_left_and_right(names: tuple[str, ...], lacking: list[tuple[str, str]]) -> None:
    assert lacking_pairs(names, ()) == lacking
    assert lacking_pairs(names, [(0, 1)]) == []


def test_keypoints_without_their_mirror_are_a_fault(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_set(tmp_path, split=split)
    options = ("task=pose", "data=keypoints", "data.keypoints.names=[nose,left_eye,right_eye]")
    assert not checked(tmp_path, *options).faults
    (fault,) = checked(tmp_path, *options, "data.keypoints.pairs=[]").faults
    assert fault.kind == "keypoint without its mirror" and "[left_eye,right_eye]" in fault.message


def test_classes_without_their_mirror_are_a_fault(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    names = "data.dataset.names=[left arm,right arm,rest]"
    options = ("data=segmentation", names, "data.dataset.palette=null", "data.classes=3")
    (fault,) = checked(tmp_path, *options).faults
    assert fault.kind == "class without its mirror" and "[left arm,right arm]" in fault.message
    assert not checked(tmp_path, *options, "data.dataset.swaps=[[left arm,right arm]]").faults


# Without a task, without a test split ------------------------------------------------------------------


def test_pairs_of_pictures_need_no_task(tmp_path: Path) -> None:
    for name in ("aligned", "folders", "facades", "maps", "edges2shoes"):
        assert with_task([f"data={name}"]) == [f"data={name}", "task=pix2pix"], name
    for name in ("camvid", "cityscapes", "segmentation", "coco", "lspet", "wflw", "street"):
        assert with_task([f"data={name}"]) == [f"data={name}"], name
    assert with_task(["data=cifar10"]) == ["data=cifar10", "task=classification"]
    assert with_task(["data=folders", "task=segmentation"]) == ["data=folders", "task=segmentation"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [folders, _self_]\nroot: here\n")
    own = ["data=mine", f"--config-dir={tmp_path}"]
    assert with_task(own) == [*own, "task=pix2pix"]
    (tmp_path / "data" / "mine.yaml").write_text("[1, 2")
    assert with_task(own) == own


def test_a_test_split_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    write_pairs(tmp_path, train=2, val=1)
    for path in sorted((tmp_path / "test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "test").rmdir()
    report = checked(tmp_path, *with_task(["data=folders"]))
    assert kinds(report) == ([], ["no test split"])
    assert set(kinds(checked(tmp_path / "nowhere", *with_task(["data=folders"])))[0]) == {
        "split not readable"
    }
    (tmp_path / "test" / "a").mkdir(parents=True)  # half of one is a fault
    assert kinds(checked(tmp_path, *with_task(["data=folders"]))) == (["split not readable"], [])


def test_a_proposed_tree_has_no_lossy_masks(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    report = checked(tmp_path / "set", "data=segmentation")
    tree = report.faults[0].message
    assert "labels/NAME.png" in tree and "labels/NAME.jpg" not in tree


# 16 bits and orientation -------------------------------------------------------------------------------


def test_what_16_bits_use_is_told(tmp_path: Path) -> None:
    write_pairs(tmp_path, train=2, val=1)
    deep = np.full((16, 16), 3000, np.uint16)
    assert cv2.imwrite(str(tmp_path / "train" / "a" / "000.png"), deep)
    options = with_task(["data=folders"])
    note = next(each for each in checked(tmp_path, *options).notes if each.kind == "16 bits a channel")
    assert note.split == "train" and "the highest value 3000; 0 to 4095 becomes 0 to 255" in note.message
    (fault,) = checked(tmp_path, *options, "data.deep_range=[0,1023]").faults
    assert fault.kind == "16 bits beyond the range" and "data.deep_range ends at 1023" in fault.message


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_turned_pictures_of_every_format_are_told(tmp_path: Path, suffix: str) -> None:
    write_pairs(tmp_path, train=2, val=1)
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "train" / "a" / "000.png").unlink()
    Image.new("RGB", (16, 16), (9, 8, 7)).save(tmp_path / "train" / "a" / f"000.{suffix}", exif=exif)
    report = checked(tmp_path, *with_task(["data=folders"]))
    assert [each.files[0].rpartition("/")[2] for each in report.notes if each.kind == "turned photo"] == [
        "000.png"
    ]


def test_a_picture_in_an_archive_has_no_file_to_be_turned() -> None:
    assert turned("train.tar.gz: train/cat/1.png") == 1 and deepest([]) is None


def test_a_soft_mask_is_one_line_a_file(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    cv2.imwrite(str(tmp_path / "train" / "labels" / "train0.png"), ramp)
    options = (
        "data=segmentation",
        "data.dataset.names=[left,right,rest]",
        "data.dataset.palette=null",
        "data.classes=3",
    )
    report = checked(tmp_path, *options)
    (fault,) = report.faults
    assert fault.kind == "soft mask" and "train0.png" in fault.message
    assert (
        "different ids outside 0..2, 4 to 252" in fault.message
        and "data.dataset.threshold=128" in fault.message
    )
