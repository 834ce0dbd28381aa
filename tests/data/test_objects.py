"""Boxes, classes and masks from COCO's files and Cityscapes' instance files, their transform, and what is refused."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from dvsn.data.cityscapes_objects import CityscapesObjects
from dvsn.data.object_transform import DetectionTransform
from dvsn.data.objects import CocoObjects, JoinedObjects, inside, mask_fault, run_lengths
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.metrics.detection import with_file_ids
from tests.support.coco import HEIGHT, SAMPLE, WIDTH, column_runs, content_of, save, write_coco


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def broken(tmp_path: Path, tree: Path) -> Path:
    """A tree of its own with the pictures of the other, whose annotations a test writes."""
    (tmp_path / "images").symlink_to(tree / "images")
    return tmp_path


def read(root: Path, split: str = "train", **options: Any) -> CocoObjects:
    return CocoObjects(root=str(root), split=split, **{"classes": 4, **options})


# COCO ------------------------------------------------------------------------------------------------


def test_a_picture_its_boxes_and_its_masks(tree: Path) -> None:
    content, data = content_of(6), read(tree, masks=True)
    assert len(data) == 6 and data.image_ids == [10, 11, 12, 13, 14, 15]
    first = data.read(0)
    expected = [each for each in content["annotations"] if each["image_id"] == 10]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in expected)]
    assert first["boxes"].tolist() == boxes and first["boxes"].dtype == np.float32
    assert first["labels"].tolist() == [1, 3, 1] and first["crowd"].tolist() == [0, 0, 1]
    assert first["area"].tolist() == [each["area"] for each in expected]
    for (left, top, right, bottom), mask in zip(
        boxes, first["masks"], strict=True
    ):  # the crowd is run lengths
        wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
        wanted[top:bottom, left:right] = 1
        np.testing.assert_array_equal(mask, wanted)
    red = first["photo"][int(boxes[0][1]), int(boxes[0][0])]
    assert red.tolist() == [220, 40, 40]


def test_a_picture_without_objects_is_an_item(tree: Path) -> None:
    sample = read(tree, masks=True, transform=DetectionTransform(flip=1.0))[5]
    assert sample["target"]["boxes"].shape == (0, 4) and sample["target"]["masks"].shape == (0, HEIGHT, WIDTH)
    assert sample["target"]["labels"].dtype == torch.int64


def test_a_mirrored_picture_without_objects_of_any_sides_is_an_item() -> None:
    """NumPy leaves the strides of a mirrored array without numbers negative, which torch refuses."""
    photo, masks = np.zeros((4, 6, 3), np.uint8), np.array([], np.uint8).reshape(-1, 4, 6)
    empty = {"labels": np.zeros(0, np.int64), "crowd": np.zeros(0, np.uint8), "area": np.zeros(0, np.float32)}
    sample = {
        "photo": photo,
        "masks": masks,
        "boxes": np.zeros((0, 4), np.float32),
        "index": 0,
        "name": "a",
        **empty,
    }
    found = DetectionTransform(flip=1.0)(sample, 0)
    assert found["target"]["masks"].shape == (0, 4, 6)


def test_boxes_end_with_their_picture(broken: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = content_of(6)
    content["annotations"][0]["bbox"] = [-5, 40, 20, 30]
    content["annotations"][1]["bbox"] = [30, 10, 8, 0]
    file = save(broken, content)
    with caplog.at_level(logging.WARNING):
        data = read(broken)
    sample = data.read(0)
    assert sample["boxes"].tolist() == [[0, 40, 15, 48], [2, 40, 9, 48]]  # the second is left out
    assert len(data.truth(0)) == 3  # and counted by the score, as the file has it
    (message,) = caplog.messages
    for part in (str(file), "1 boxes", "annotation 101", "[30, 10, 8, 0]", "48x64"):
        assert part in message


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ([0, 0, 64, 48], (0, 0, 64, 48)), ([60, 40, 10, 10], (60, 40, 64, 48)), ([64, 0, 5, 5], None),
        ([-5, 3, 5, 5], None), ([3, 3, -2, 5], None), ([1000, 3, 1e-9, 5], None),
    ],
)  # fmt: skip
def test_the_part_of_a_box_within_the_picture(box: list[float], found: Any) -> None:
    assert inside(box, (48, 64)) == found


def change(content: dict[str, Any], part: str, **values: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    changed[part][0] |= values
    return changed


CAPTIONS = {
    **content_of(6),
    "annotations": [{"id": 5, "image_id": 10, "caption": "two rectangles"}],
}
WRONG: dict[str, tuple[Any, str]] = {
    "captions": (CAPTIONS, r"caption.*category_id"),
    "a list": ([{"image_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}], r"found a list"),
    "a category that is not listed": (
        change(content_of(6), "annotations", category_id=2), r"annotation 100: found category_id 2.*Valid: 1, 3"),
    "a picture that is not listed": (change(content_of(6), "annotations", image_id=99), r"annotation 100: image_id 99"),
    "an id twice": (change(content_of(6), "annotations", id=101), r"101 twice"),
    "a box of three": (change(content_of(6), "annotations", bbox=[1, 2, 3]), r"annotation 100: bbox: found 3 numbers"),
    "a box of words": (change(content_of(6), "annotations", bbox=["a", 2, 3, 4]), r"annotation 100: bbox"),
    "a category without a number": (change(content_of(6), "categories", id="first"), r"categories\[0\]: id: found 'first'"),
    "a missing picture": (change(content_of(6), "images", file_name="nowhere.png"), r"nowhere.png: no such picture"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_with_what_is_wrong(broken: Path, case: str) -> None:
    content, message = WRONG[case]
    file = save(broken, content)
    with pytest.raises(DataError, match=message) as error:
        read(broken)
    assert str(file) in str(error.value)


def test_more_categories_than_classes_are_refused(tree: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data.object_classes: found 2, .*ids up to 3.* Set data.object_classes=3"
    ):
        read(tree, classes=2)
    with pytest.raises(ConfigError, match=r"data.object_classes: found 1"):
        read(tree, classes=1)


def test_other_names_than_those_trained_on_are_refused(tree: Path) -> None:
    assert read(tree, names={1: "red", 2: "green", 3: "blue"}).categories == {1: "red", 3: "blue"}
    with pytest.raises(ConfigError, match=r"category 3 is 'blue', but data.objects.names has 'car'"):
        read(tree, names={1: "red", 3: "car"})
    assert CocoObjects.vocabulary(classes=4, names={1: "red", 3: "blue"}).names == (
        "class 0",
        "red",
        "class 2",
        "blue",
    )


SIZES: dict[str, tuple[dict[str, int], str]] = {
    "exchanged": ({"height": WIDTH, "width": HEIGHT}, "height and width are exchanged"),
    "resized": ({"height": 2 * HEIGHT, "width": 2 * WIDTH}, "resized by a factor of 0.5 after"),
    "another": ({"height": 50, "width": 99}, "another picture"),
}


@pytest.mark.parametrize("case", SIZES)
def test_a_size_that_contradicts_the_picture_is_found_at_opening(broken: Path, case: str) -> None:
    values, reason = SIZES[case]
    file = save(broken, change(content_of(6), "images", **values))
    with pytest.raises(DataError, match=f"000000000010.png: the picture has 48x64 pixels.*{reason}") as error:
        read(broken)
    for part in (str(file), f"says {values['height']}x{values['width']}", "data.objects.sizes=picture"):
        assert part in str(error.value)
    data = read(broken, sizes="picture")  # what the message advises
    assert data.size(0) == (HEIGHT, WIDTH) and len(data.read(0)["boxes"]) == 3


def test_a_turned_picture_is_told_from_a_wrong_file(broken: Path) -> None:
    (broken / "images").unlink()
    picture, exif = Image.new("RGB", (WIDTH, HEIGHT)), Image.Exif()
    exif[0x0112] = 6
    (broken / "images" / "train2017").mkdir(parents=True)
    content = content_of(6)
    for each in content["images"]:
        picture.save(broken / "images" / "train2017" / each["file_name"], exif=exif)
    save(broken, change(content, "images", height=WIDTH, width=HEIGHT))
    with pytest.raises(DataError, match=r"000000000010.png: .*turned by its EXIF tag.*mogrify"):
        read(broken)


MASKS: dict[str, tuple[Any, str]] = {
    "none": (None, "there is none"),
    "an empty list": ([], "there is none"),
    "two points": ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
    "an odd number": ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
    "words": ([["a", 2, 3, 4, 5, 6]], "expected finite numbers"),
    "text": ("polygon", "found 'polygon'"),
    "runs of another picture": ({"size": [4, 5], "counts": [20]}, r"size \[4, 5\]"),
    "too short runs": ({"size": [HEIGHT, WIDTH], "counts": [5, 6]}, "run lengths of 11 pixels"),
    "rubbish": ({"size": [HEIGHT, WIDTH], "counts": "0"}, "run lengths of 0 pixels"),
}


@pytest.mark.parametrize("case", MASKS)
def test_an_object_without_a_mask_is_found_at_opening(
    broken: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    given, fault = MASKS[case]
    content = content_of(6)
    content["annotations"][1]["segmentation"] = given
    file = save(broken, content)
    assert len(read(broken)[0]["boxes"]) == 3  # boxes need no masks
    with pytest.raises(
        DataError, match=rf"annotation 101, in .*000000000010.png: .*cannot be read \(.*{fault}"
    ) as error:
        read(broken, masks=True)
    assert str(file) in str(error.value) and "data.objects.unmasked=leave_out" in str(error.value)
    data = read(broken, masks=True, unmasked="leave_out")
    assert [each["id"] for each in data.truth(0)] == [100, 7] and len(data.read(0)["masks"]) == 2
    assert any("annotation 101" in message for message in caplog.messages)


def test_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    random = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        plane = np.asfortranarray((random.random((37, 53)) < share).astype(np.uint8))
        code = rle.encode(plane)
        assert run_lengths(code["counts"]) == column_runs(plane)["counts"]
        assert mask_fault({"size": [37, 53], "counts": code["counts"].decode()}, (37, 53)) == ""


SCALARS: dict[str, tuple[dict[str, Any], Any]] = {  # what an annotation holds, and what it is read as
    "a crowd as text": ({"iscrowd": "0"}, ("iscrowd", 0)),
    "a crowd as text, 1": ({"iscrowd": "1"}, ("iscrowd", 1)),
    "a crowd as a truth value": ({"iscrowd": False}, ("iscrowd", 0)),
    "a crowd that is null": ({"iscrowd": None}, ("iscrowd", 0)),
    "a crowd of two": ({"iscrowd": 2}, r"annotation 100: iscrowd: found 2, expected 0 or 1"),
    "an area that is null": ({"area": None, "bbox": [1, 2, 10, 4]}, ("area", 40)),
    "an area as text": ({"area": "12.5"}, ("area", 12.5)),
    "an area of words": ({"area": "large"}, r"annotation 100: area: found 'large', expected an area"),
    "an area below 0": ({"area": -1}, r"annotation 100: area: found -1"),
    "an area that is no number": ({"area": float("nan")}, r"annotation 100: area: found nan"),
    "an area that is a truth value": ({"area": True}, r"annotation 100: area: found true"),
    "a category as text": ({"category_id": "1"}, ("category_id", 1)),
    "a category as a float": ({"category_id": 1.0}, ("category_id", 1)),
    "a category that is a truth value": ({"category_id": True}, r"annotation 100: category_id: found true"),
    "a box as text": ({"bbox": ["1", "2", "10", "4"]}, ("bbox", [1, 2, 10, 4])),
    "a box with a truth value": ({"bbox": [True, 2, 3, 4]}, r"annotation 100: bbox: found \[True, 2, 3, 4\], expected 4"),
    "a box with null": ({"bbox": [1, 2, None, 4]}, r"annotation 100: bbox: found \[1, 2, None, 4\]"),
    "a box that is no number": ({"bbox": [1, 2, float("inf"), 4]}, r"annotation 100: bbox: found \[1, 2, inf, 4\]"),
    "a box that is an object": ({"bbox": {"x": 1}}, r"annotation 100: bbox: found {'x': 1}"),
    "an id as text": ({"id": "100"}, ("id", 100)),
    "an id of words": ({"id": "first"}, r"annotation 'first': id: found 'first', expected a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("case", SCALARS)
def test_scalars_are_brought_to_their_type_or_refused(broken: Path, case: str) -> None:
    values, expected = SCALARS[case]
    file = save(broken, change(content_of(6), "annotations", **values))
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected) as error:
            read(broken)
        assert str(file) in str(error.value)
        return
    key, value = expected
    first = next(each for each in read(broken).truth(0) if each["id"] == 100)
    assert first[key] == value and not isinstance(first[key], str | bool)


PARTS: dict[str, tuple[Any, str]] = {
    "a number": (5, "found 5; expected COCO"),
    "null": (None, "found null; expected COCO"),
    "pictures that are text": ({**content_of(2), "images": "x"}, "No list: images"),
    "a picture that is text": ({**content_of(2), "images": ["x"]}, r"images\[0\]: found 'x', expected an object"),
    "an annotation that is a list": ({**content_of(2), "annotations": [[1]]}, r"annotations\[0\]: found \[1\]"),
    "a category that is null": ({**content_of(2), "categories": [None]}, r"categories\[0\]: found null"),
    "a name that is a number": (change(content_of(2), "images", file_name=5), r"image 10: file_name: found 5"),
    "a size that is text": (change(content_of(2), "images", width="wide"), r"image 10: width: found 'wide'"),
    "a size of null": (change(content_of(2), "images", height=None), r"image 10 has no height"),
    "a size of 0": (change(content_of(2), "images", height=0), r"image 10: height: found 0"),
    "a size of a half": (change(content_of(2), "images", height=48.5), r"image 10: height: found 48.5"),
    "a category's name": (change(content_of(2), "categories", name=None), r"categories\[0\]: name: found null"),
    "two of one category": (change(content_of(2), "categories", id=3), r"categories\[1\]: a second category with the id 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_json_of_a_wrong_type_at_any_level_is_named(broken: Path, case: str) -> None:
    content, message = PARTS[case]
    file = save(broken, content)
    with pytest.raises(DataError, match=message) as error:
        read(broken)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(("one", "two"), [(0, 1), (5, 90), (0, 10**15), (7, 8)])
def test_category_ids_of_any_kind_become_labels_from_1(broken: Path, one: int, two: int) -> None:
    content = content_of(3)
    for each in (*content["categories"], *content["annotations"]):
        key = "id" if "name" in each else "category_id"
        each[key] = {1: one, 3: two}[each[key]]
    save(broken, content)
    data = read(broken, classes=3)
    assert data.categories == {1: "red", 2: "blue"} and data.read(0)["labels"].tolist() == [1, 2, 1]
    assert data.file_ids == {label: number for label, number in ((1, one), (2, two)) if label != number}
    results = with_file_ids([{"category_id": 2, "score": 0.5}], data.file_ids)
    assert results == [{"category_id": two, "score": 0.5}]
    known = {"names": dict(data.categories), "ids": dict(data.file_ids)}  # as a checkpoint keeps them
    assert read(broken, classes=3, **known).file_ids == data.file_ids


def test_labels_mean_the_same_in_every_split(broken: Path, tree: Path) -> None:
    content = content_of(6)
    content["categories"][1]["name"] = "green"
    save(broken, content)
    with pytest.raises(DataError, match=r"class 3 is 'blue' .* has 'green'"):
        JoinedObjects([read(broken), read(tree, "val")])


def test_joined_splits_keep_their_truth(tree: Path) -> None:
    parts = [read(tree), read(tree, "val")]
    data = JoinedObjects(parts)
    assert len(data) == 9 and data.truth(6) == parts[1].truth(0) and data.size(8) == (HEIGHT, WIDTH)
    assert data.image_ids == list(range(1, 10))  # both begin at 10
    np.testing.assert_array_equal(data[7]["boxes"], parts[1][1]["boxes"])


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs $DVSN_DATA/coco_sample")
def test_the_sample_of_coco() -> None:
    data = CocoObjects(
        root=str(SAMPLE), split="val", classes=91, annotations="test_coco.json", images=".", masks=True
    )
    assert len(data) == 4 and data.categories == {1: "person"}
    for index in range(4):
        sample = data[index]
        for box, mask, area in zip(sample["boxes"], sample["masks"], sample["area"], strict=True):
            rows, columns = np.nonzero(mask)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(edges, box, atol=1.5)
            assert abs(mask.sum() - area) < 0.05 * area + 30


# The transform -----------------------------------------------------------------------------------------


def test_a_mirror_takes_boxes_and_masks_along(tree: Path) -> None:
    plain = read(tree, masks=True, transform=DetectionTransform())[0]
    mirrored = read(tree, masks=True, transform=DetectionTransform(flip=1.0))[0]
    assert torch.equal(mirrored["image"], plain["image"].flip(-1)) and mirrored["image"].dtype == torch.uint8
    assert torch.equal(mirrored["target"]["masks"], plain["target"]["masks"].flip(-1))
    for box, mask in zip(mirrored["target"]["boxes"].tolist(), mirrored["target"]["masks"], strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    for key in ("labels", "crowd", "area"):
        assert torch.equal(mirrored["target"][key], plain["target"][key])


def test_what_is_random_follows_from_the_place_alone(tree: Path) -> None:
    steps = [albumentations.ColorJitter(brightness=(0.5, 1.5), p=1.0)]
    data = read(tree, transform=DetectionTransform(flip=0.5, steps=steps), seed=3)
    np.random.seed(1)  # noqa: NPY002
    first = [data[epoch, 0] for epoch in range(8)]
    np.random.seed(2)  # noqa: NPY002
    again = [data[epoch, 0] for epoch in range(8)]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["target"]["boxes"], other["target"]["boxes"])
    assert len({tuple(each["target"]["boxes"].flatten().tolist()) for each in first}) == 2  # mirrored or not
    assert len({int(each["image"].sum()) for each in first}) > 2


def test_steps_must_not_move_the_picture() -> None:
    with pytest.raises(ConfigError, match="HorizontalFlip moves the picture"):
        DetectionTransform(steps=[albumentations.HorizontalFlip(p=1.0)])
    with pytest.raises(ConfigError, match=r"transform.train.flip: found 2"):
        DetectionTransform(flip=2)


def test_pictures_of_different_sizes_make_a_batch() -> None:
    target = {"boxes": torch.zeros(0, 4)}
    samples = [
        {"image": torch.zeros(3, height, 8), "target": target, "index": height, "name": str(height)}
        for height in (4, 6)
    ]
    batch = CocoObjects.collate(samples)
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 4, 8), (3, 6, 8)]
    assert batch["index"].tolist() == [4, 6] and batch["name"] == ["4", "6"] and batch["target"][0] is target


# Cityscapes --------------------------------------------------------------------------------------------


@pytest.fixture
def street(tmp_path: Path) -> Path:
    ids = np.full((HEIGHT, WIDTH), 7, np.int32)  # road
    ids[10:30, 5:25] = 26001  # a car of 400 pixels
    ids[2:8, 40:60] = 24  # a group of people
    ids[40:44, 50:53] = 24002  # a person of 12 pixels
    ids[20:40, 40:45] = 33000  # a bicycle, number 0
    ids[30:40, 0:20] = 29001  # a caravan, which is not evaluated
    photo = tmp_path / "leftImg8bit" / "val" / "city" / "city_000000_000019_leftImg8bit.png"
    file = tmp_path / "gtFine" / "val" / "city" / "city_000000_000019_gtFine_instanceIds.png"
    for path in (photo, file):
        path.parent.mkdir(parents=True)
    cv2.imwrite(str(photo), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    cv2.imwrite(str(file), ids.astype(np.uint16))
    return tmp_path


def test_instances_become_objects_and_groups_crowds(street: Path) -> None:
    data = CityscapesObjects(root=str(street), split="val", masks=True)
    sample = data[0]
    found = {
        (label, crowd): (box, mask)
        for label, crowd, box, mask in zip(
            sample["labels"].tolist(),
            sample["crowd"].tolist(),
            sample["boxes"].tolist(),
            sample["masks"],
            strict=True,
        )
    }
    assert len(sample["labels"]) == 4
    assert found[3, 0][0] == [5, 10, 25, 30] and found[8, 0][0] == [40, 20, 45, 40]  # car, bicycle
    assert {key for key in found if key[1]} == {(1, 1)}  # the group, and the person too small to count
    assert found[3, 0][1].sum() == 400 and data.vocabulary().names[3] == "car"
    everyone = CityscapesObjects(root=str(street), split="val", smallest=0)[0]
    assert sorted(zip(everyone["labels"].tolist(), everyone["crowd"].tolist(), strict=True)) == [
        (1, 0), (1, 1), (3, 0), (8, 0)
    ]  # fmt: skip
    assert [50, 40, 53, 44] in everyone["boxes"].tolist()


def test_what_is_wrong_with_a_cityscapes_tree_is_said(street: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.object_classes: found 20"):
        CityscapesObjects(root=str(street), split="val", classes=20)
    file = next(street.rglob("*_instanceIds.png"))
    cv2.imwrite(str(file), np.full((HEIGHT, WIDTH), 60000, np.uint16))
    with pytest.raises(DataError, match=r"instanceIds.png: found the instance id 60000"):
        _ = CityscapesObjects(root=str(street), split="val")[0]
    file.unlink()
    with pytest.raises(UserError, match="its instanceIds file is missing"):
        CityscapesObjects(root=str(street), split="val")
