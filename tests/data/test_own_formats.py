"""Readers of YOLO's text and of Pascal VOC's XML: positions by hand, and files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dvsn.data.voc import VocObjects
from dvsn.data.xml_files import read_xml
from dvsn.data.yolo import YoloObjects, YoloPeople
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from tests.support.own_sets import SIZE, picture, text, voc, voc_object, yolo

NAMES = {1: "bolt", 2: "nut"}
FOLDERS: dict[str, Any] = {"split": "train", "classes": 3, "names": NAMES}


def read(root: Path, **options: Any) -> YoloObjects:
    return YoloObjects(root=str(root), **(FOLDERS | options))


def test_yolo_boxes_by_hand(tmp_path: Path) -> None:
    yolo(tmp_path, {"train/a": "1 0.5 0.5 0.25 0.5\n0 0.125 0.25 0.25 0.5\n", "train/b": ""})
    found = read(tmp_path)
    assert len(found) == 2 and found.file_ids == {1: 0, 2: 1} and found.categories == NAMES
    sample = found[0]  # 80 x 60 pixels (width x height)
    np.testing.assert_allclose(sample["boxes"], [[30, 15, 50, 45], [0, 0, 20, 30]])
    assert sample["labels"].tolist() == [2, 1] and sample["area"].tolist() == [600, 600]
    assert found[1]["boxes"].shape == (0, 4)  # a picture without objects
    assert [each["id"] for each in found.truth(0)] == [1, 2]


def test_a_picture_without_a_file_has_no_objects(tmp_path: Path) -> None:
    yolo(tmp_path, {"train/a": "0 0.5 0.5 0.5 0.5"})
    picture(tmp_path / "images" / "train" / "b.png")
    assert [len(read(tmp_path).truth(index)) for index in range(2)] == [1, 0]


def test_an_outline_gives_box_area_and_mask(tmp_path: Path) -> None:
    yolo(tmp_path, {"train/a": "0 0.25 0.5 0.75 0.5 0.75 1.0 0.25 1.0"})
    found = read(tmp_path, masks=True)
    truth = found.truth(0)[0]
    assert truth["bbox"] == [20, 30, 40, 30] and truth["area"] == 1200
    mask = found[0]["masks"][0]
    assert mask.sum() == 1200 and mask[30:, 20:60].all()
    yolo(tmp_path, {"train/b": "0 0.5 0.5 0.5 0.5"})
    with pytest.raises(DataError, match=r"objects without an outline.*network.detector=faster_rcnn"):
        read(tmp_path, masks=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.5 0.5 0.1 0.1", r"a.txt: line 1: class 7, expected 0 to 1: data.objects.names has 2"),
        ("0 40 30 20 20", r"line 1: found 40, expected fractions of the picture"),
        ("0 0.5 0.5 0.1", r"line 1: found 4 columns"),
        ("bolt 0.5 0.5 0.1 0.1", r"line 1: class: found 'bolt', expected the number of a class"),
        ("0 0.5 0.5 0.1 nan", r"line 1: column 4 is 'nan'"),
        ("0 0.5 0.5 0.1 0.1 0.2", r"line 1: found 5 numbers after the class"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    yolo(tmp_path, {"train/a": line})
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    yolo(tmp_path, {"train/a": "0 0.5 0.5 0.1 0.1"})
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(DataError, match=r"no NAME.txt for any of 1 pictures"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"data.objects.names: found the labels \[1, 2\], expected 1 to 4"):
        read(tmp_path, classes=5)


def test_yolo_keypoints_by_hand(tmp_path: Path) -> None:
    yolo(tmp_path, {"train/a": "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0 0 0\n3 0.5 0.5 0.5 0.5 0.5 0.5 1 1 1 2"})
    options: dict[str, Any] = {
        "root": str(tmp_path),
        "split": "train",
        "keypoints": KeypointSet(names=["a", "b"]),
    }
    found = YoloPeople(**options)
    assert [record.box for record in found.records] == [(20, 15, 40, 30)] * 2
    np.testing.assert_allclose(found.records[0].keypoints, [[20, 30], [0, 0]])
    assert found.records[0].labelled.tolist() == [1, 0] and found.records[1].labelled.tolist() == [1, 1]
    assert len(YoloPeople(**options, category=3)) == 1
    with pytest.raises(DataError, match=r"line 1: found 10 numbers after the class, expected 8"):
        YoloPeople(**options, visibility=False)


def test_voc_boxes_by_hand(tmp_path: Path) -> None:
    """xmin 1 and xmax 20 are the first and the twentieth pixel: edges 0 and 20."""
    hard = voc_object("nut", [31, 31, 40, 40], "<difficult>1</difficult>")
    voc(tmp_path, {"a": voc_object("nut", [1, 1, 20, 10]) + hard, "b": ""})
    text(tmp_path / "ImageSets" / "Main" / "train.txt", "a\n")
    found = VocObjects(root=str(tmp_path), **FOLDERS, lists="ImageSets/Main/{split}.txt")
    assert len(found) == 1 and len(VocObjects(root=str(tmp_path), **FOLDERS)) == 2
    np.testing.assert_allclose(found[0]["boxes"], [[0, 0, 20, 10], [30, 30, 40, 40]])
    assert found[0]["labels"].tolist() == [2, 2] and found[0]["crowd"].tolist() == [0, 1]
    zero = VocObjects(root=str(tmp_path), **FOLDERS, first_pixel=0)
    np.testing.assert_allclose(zero[0]["boxes"][0], [1, 1, 21, 11])


def test_voc_masks_are_the_objects_of_their_map(tmp_path: Path) -> None:
    """The first object is 1 in the map, the second 2; 255 is nobody's. Areas are the masks'."""
    voc(tmp_path, {"a": voc_object("nut", [1, 1, 20, 10]) + voc_object("bolt", [31, 31, 40, 40])})
    ids = np.zeros(SIZE, np.uint8)
    ids[0:10, 0:20], ids[0, 0], ids[32:38, 30:40] = 1, 255, 2
    (tmp_path / "SegmentationObject").mkdir()
    cv2.imwrite(str(tmp_path / "SegmentationObject" / "a.png"), ids)
    options = {**FOLDERS, "masks": True, "outlines": "SegmentationObject"}
    sample = VocObjects(root=str(tmp_path), **options)[0]
    assert sample["masks"].tolist() == [(ids == 1).tolist(), (ids == 2).tolist()]
    assert sample["area"].tolist() == [199, 60]
    with pytest.raises(ConfigError, match=r"data\.objects\.outlines: null, and masks are asked for"):
        VocObjects(root=str(tmp_path), **FOLDERS, masks=True)
    cv2.imwrite(str(tmp_path / "SegmentationObject" / "a.png"), np.minimum(ids, 1))
    with pytest.raises(DataError, match=r"a\.png: no pixel of object 2 of 2"):
        VocObjects(root=str(tmp_path), **options)
    cv2.imwrite(str(tmp_path / "SegmentationObject" / "a.png"), ids[:-1])
    with pytest.raises(DataError, match=r"a\.png: is \d+x\d+, expected its picture's"):
        VocObjects(root=str(tmp_path), **options)
    (tmp_path / "SegmentationObject" / "a.png").unlink()
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/\{split\}\.txt"):
        VocObjects(root=str(tmp_path), **options)


def test_wrong_voc_files(tmp_path: Path) -> None:
    voc(tmp_path, {"a": voc_object("screw", [1, 1, 20, 10])})
    with pytest.raises(DataError, match=r"a.xml: 1. object: the class 'screw' is not in data.objects.names"):
        VocObjects(root=str(tmp_path), **FOLDERS)
    voc(tmp_path, {"a": "<object><name>nut</name></object>"})
    with pytest.raises(DataError, match=r"1. object: bndbox/xmin: found null"):
        VocObjects(root=str(tmp_path), **FOLDERS)
    voc(tmp_path, {"a": ""})
    (tmp_path / "JPEGImages" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.jpg: no such picture, but .*a.xml describes it"):
        VocObjects(root=str(tmp_path), **FOLDERS)
    picture(tmp_path / "JPEGImages" / "a.png", size=(30, 40))
    with pytest.raises(DataError, match=r"the picture has 30x40 pixels"):
        VocObjects(root=str(tmp_path), **FOLDERS)


BOMB = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY c "&b;&b;&b;&b;&b;">]><annotation>&c;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, r"line 1: declares a document type or entities, which are not read"),
        (OUTSIDE, r"line 1: declares a document type or entities"),
        ("<annotation>&b;</annotation>", r"not an XML file \(undefined entity"),
        ("<a>" * 40 + "</a>" * 40, r"nested deeper than 32 levels"),
        ("<a><b></a>", r"not an XML file \(mismatched tag"),
        ("", r"not an XML file"),
    ],
)
def test_xml_is_data_alone(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_xml(text(tmp_path / "a.xml", content), expected="boxes")
