"""Readers of people: which are read, with which boxes, and what every wrong file is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from dvsn.data.coco_people import CocoPeople
from dvsn.data.mpii import Mpii
from dvsn.errors import ConfigError, DataError, UserError
from tests.support.keypoint_files import LABELLED, module, person, write_set

SAMPLE = Path(os.environ.get("DVSN_DATA", "data")) / "coco_sample"
Entry = dict[str, Any]


def read(root: Path, *options: str, data: str = "keypoints", split: str = "val") -> Any:
    made = module(root, *options, data=data)
    return made.reader(
        root=made.root, split=made.splits[split], transform=None, seed=0, keypoints=made.keypoints
    )


# COCO's format -------------------------------------------------------------------------------------------


def test_true_boxes_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(
        tmp_path,
        person(11, [-5, 10, 30, 20]),  # x1 = 0, x2 = 0 + 29
        person(12, [90, 70, 40, 40]),  # ends at the last pixel
        person(13, [10, 10, 20, 20], iscrowd=1),
        person(14, [10, 10, 20, 20], category_id=3),
        person(15, [10, 10, 20, 20], keypoints=[0] * 9),
        person(16, [120, 10, 20, 20]),
        person(17, [10, 10, 20, 20], area=0),
        person(18, [10, 10, 1, 20]),
        person(
            19, [10, 10, 20, 20], keypoints=[1, 2, 0, 0, 0, 0, 0, 0, 0]
        ),  # as published: a number is there
    )
    people = read(tmp_path)
    assert [(each.number, each.box) for each in people.records] == [
        (11, (0, 10, 29, 19)), (12, (90, 70, 9, 9)), (19, (10, 10, 19, 19)),
    ]  # fmt: skip
    first = people.records[0]
    assert first.keypoints.tolist() == [[10, 20], [30, 40], [0, 0]] and first.keypoints.dtype == np.float32
    assert first.labelled.tolist() == [1, 1, 0] and first.labelled.dtype == np.uint8
    assert (first.image_id, first.score) == (7, 1.0) and first.picture == tmp_path / "images" / "val.png"
    assert not people.records[2].labelled.any()
    assert people.left_out == {
        "box without an inside": [16, 17, 18], "crowd region": [13], "no keypoint labelled": [15],
    }  # fmt: skip
    message = caplog.messages[0]
    assert "annotation 16 and 2 more" in message and "val.json" in message
    assert "[120, 10, 20, 20]" in message and "100 x 80" in message


def test_a_person_without_a_label_teaches_nothing_and_crashes_nothing(tmp_path: Path) -> None:
    write_set(tmp_path, person(1, [10, 10, 20, 20], keypoints=[1, 2, 0, 3, 4, 0, 0, 0, 0]), split="train")
    dataset = module(tmp_path).open("train", augment=True)
    for epoch in range(3):
        sample = dataset[epoch, 0]
        assert not sample["weight"].any() and not sample["keypoints"].any()


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs $DVSN_DATA/coco_sample")
def test_the_sample_as_pycocotools_and_the_published_steps_have_it() -> None:
    file = SAMPLE / "test_coco.json"
    people = read(SAMPLE, "data.people.annotations=test_coco.json", "data.people.images=.", data="coco")
    coco = COCO(str(file))
    expected = []
    for image in coco.getImgIds():
        size = coco.loadImgs(image)[0]
        for each in coco.loadAnns(coco.getAnnIds(imgIds=image, iscrowd=False)):
            x, y, w, h = each["bbox"]
            x1, y1 = np.max((0, x)), np.max((0, y))
            x2 = np.min((size["width"] - 1, x1 + np.max((0, w - 1))))
            y2 = np.min((size["height"] - 1, y1 + np.max((0, h - 1))))
            if each["area"] > 0 and x2 >= x1 and y2 >= y1 and max(each["keypoints"]):
                expected.append((each["id"], image, (x1, y1, x2 - x1, y2 - y1), each["keypoints"]))
    assert len(people) == len(expected) == 12
    for record, (number, image, box, points) in zip(people.records, expected, strict=True):
        assert (record.number, record.image_id) == (number, image)
        assert record.box == pytest.approx(box)
        table = np.reshape(points, (17, 3))
        np.testing.assert_array_equal(record.labelled, table[:, 2] > 0)
        np.testing.assert_allclose(record.keypoints, table[:, :2] * (table[:, 2:] > 0))
    assert len(people.annotations["annotations"]) == 14  # the score counts all of them
    item = people[0]
    assert item["photo"].shape == (425, 640, 3) and "annotation 442619" in people.describe(0)
    assert len({people.name(index) for index in range(12)}) == 12


DETECTED = "data.people.boxes=test_coco_det_AP_H_56.json"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs $DVSN_DATA/coco_sample")
def test_detected_boxes_are_taken_as_they_are_and_never_for_training() -> None:
    options = ["data.people.annotations=test_coco.json", "data.people.images=.", DETECTED]
    rows = json.loads((SAMPLE / "test_coco_det_AP_H_56.json").read_text())
    people = read(SAMPLE, *options, data="coco")
    assert len(people) == len(rows) == 118
    for record, row in zip(people.records, rows, strict=True):
        assert (record.image_id, record.score) == (row["image_id"], row["score"])
        assert record.box == tuple(row["bbox"]) and record.number == -1 and not record.labelled.any()
    some = read(SAMPLE, *options, "data.people.threshold=0.5", data="coco")
    assert len(some) == sum(row["score"] >= 0.5 for row in rows)
    assert len(read(SAMPLE, *options, data="coco", split="train")) == 12


def test_detections_at_the_border_stay_where_they_are(tmp_path: Path) -> None:
    write_set(tmp_path)
    rows = [
        {"image_id": 7, "category_id": 1, "bbox": [-4, 60, 30.5, 40], "score": 0.25},
        {"image_id": 99, "category_id": 3, "bbox": [0, 0, 0, 0], "score": 0.9},  # a car: not looked at
        {"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.1},
    ]
    (tmp_path / "boxes_val.json").write_text(json.dumps(rows))
    people = read(tmp_path, "data.people.boxes='boxes_{split}.json'", "data.people.threshold=0.25")
    assert [record.box for record in people.records] == [(-4, 60, 30.5, 40)]


def test_a_file_without_annotations_serves_detections(tmp_path: Path) -> None:
    """As COCO's test-dev: pictures alone."""
    path = write_set(tmp_path)
    content = json.loads(path.read_text())
    del content["annotations"], content["categories"][0]["keypoints"]
    path.write_text(json.dumps(content))
    rows = [{"image_id": 7, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5}]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    options = ["data.people.category=person"]
    assert len(read(tmp_path, *options, "data.people.boxes=boxes.json")) == 1
    with pytest.raises(DataError, match=r"val.json: no person among 0 annotations"):
        read(tmp_path, *options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"annotations": []}, "found dict, expected COCO's results format"),
        ([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2]}], "entry 0 has no score"),
        ([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 0, 2], "score": 1}], r"entry 0: bbox \[1, 1, 0, 2\].*above 0"),
        ([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2], "score": 1}], "entry 0: bbox .* four finite numbers"),
        ([{"image_id": 8, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 1}], "entry 0: image_id 8 is not in"),
        ([], "no detection of category 1"),
    ],
)  # fmt: skip
def test_wrong_detections(rows: Any, message: str, tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "data.people.boxes=boxes.json")
    assert "boxes.json" in str(caught.value)


# Wrong files ---------------------------------------------------------------------------------------------

BOX = [5, 10, 30, 40]


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([person(4, BOX, keypoints=[1, 2, 3, *LABELLED[3:]])], "annotation 4: v of nose is 3.*expected 0"),
        ([person(4, BOX, keypoints=[1, 2, 0.5, *LABELLED[3:]])], "annotation 4: v of nose is 0.5"),
        ([person(3, BOX), person(4, BOX, keypoints=[float("nan"), *LABELLED[1:]])], "annotation 4: keypoints: found .*nan"),
        ([person(4, BOX, keypoints=LABELLED[:6])], "annotation 4: keypoints: found 6 numbers, expected 9"),
        ([person(3, BOX), person(4, BOX, keypoints=None)], "annotation 4: keypoints: found None"),
        ([person(4, [1, 2, 3])], "annotation 4: bbox: found 3 numbers, expected 4"),
        ([person(4, [1, 2, 3, float("inf")])], r"annotation 4: bbox: found \[1, 2, 3, inf\], expected 4 finite"),
        ([person(4, BOX, image_id=8)], "annotation 4: image_id 8 is no picture of the file"),
        ([person(4, BOX), person(4, BOX)], "annotation id 4 twice"),
        ([person(4, BOX, iscrowd=1)], r"no person among 1 annotations can be used.*crowd region: 1"),
        ([person(4, [200, 0, 5, 5])], r"no person among 1.*box without an inside: 1"),
    ],
)  # fmt: skip
def test_wrong_annotations_are_named(people: list[Entry], message: str, tmp_path: Path) -> None:
    write_set(tmp_path, *people)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "val.json" in str(caught.value)


def other_tasks() -> list[Any]:
    plain = {key: value for key, value in person(1, BOX).items() if "keypoints" not in key}
    caption = {"image_id": 7, "id": 1, "caption": "a"}
    image = {"id": "seven", "file_name": "val.png", "width": 1, "height": 1}
    return [
        pytest.param({"annotations": [plain | {"segmentation": []}]}, "none has 'keypoints'.*another task", id="instances"),
        pytest.param({"annotations": [caption]}, "holds image_id, id, caption", id="captions"),
        pytest.param({"images": None}, "No list: images", id="no images"),
        pytest.param({"images": [{"id": 7, "file_name": "val.png"}]}, "image 7 has no width, height", id="no size"),
        pytest.param({"images": [image]}, "image 'seven': id of 'val.png': found 'seven'", id="text id"),
    ]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), other_tasks())
def test_files_of_another_task(changes: Entry, message: str, tmp_path: Path) -> None:
    write_set(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "val.json" in str(caught.value)


def test_a_list_of_detections_is_no_annotation_file(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    path.write_text(json.dumps([{"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 1}]))
    with pytest.raises(DataError, match=r"val.json: found a list of entries with.*data.people.boxes"):
        read(tmp_path)
    path.write_text('{"images": [')
    with pytest.raises(DataError, match=r"val.json: not a JSON file .*column"):
        read(tmp_path)


def test_missing_pictures_are_listed_at_opening(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images" / "val.png").unlink()
    with pytest.raises(DataError, match=r"val.png: no such picture, but .*val.json names it"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"nowhere(.|\n)*Expected this tree(.|\n)*data.root"):
        read(tmp_path / "nowhere")


def test_the_number_of_keypoints_must_agree(tmp_path: Path) -> None:
    write_set(tmp_path)
    with pytest.raises(ConfigError, match=r"val.json: has 3 keypoints a person, but .* lists 17"):
        read(
            tmp_path,
            "data.people.annotations='annotations/{split}.json'",
            "data.people.images=images",
            data="coco",
        )
    with pytest.raises(ConfigError, match=r"data.joints: found 4, but data.keypoints.names lists 3"):
        module(tmp_path, "data.joints=4")


def test_the_order_of_keypoints_must_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    swapped = [{"id": 1, "name": "person", "keypoints": ["nose", "right_eye", "left_eye"]}]
    write_set(tmp_path, categories=swapped)
    with pytest.raises(ConfigError, match=r"keypoint 1 is 'right_eye'.*nose, right_eye, left_eye"):
        read(tmp_path)
    write_set(tmp_path, categories=[swapped[0] | {"keypoints": ["Nose", "left eye", "eye of the right"]}])
    assert len(read(tmp_path)) == 1 and "keypoint 2 is 'eye_of_the_right'" in caplog.text


def test_which_category(tmp_path: Path) -> None:
    write_set(tmp_path, person(1, BOX), person(2, BOX, category_id=3))
    assert [record.number for record in read(tmp_path).records] == [1]
    with pytest.raises(
        ConfigError, match=r"data.people.category: .*0 categories called 'persn'.*Did you mean 'person'"
    ):
        read(tmp_path, "data.people.category=persn")


# Pictures ------------------------------------------------------------------------------------------------


def test_grey_pictures_are_read_in_three_channels(tmp_path: Path) -> None:
    write_set(tmp_path)
    grey = np.arange(8000, dtype=np.uint16).reshape(80, 100).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "images" / "val.png")
    photo = read(tmp_path)[0]["photo"]
    assert photo.shape == (80, 100, 3) and (photo == grey[..., None]).all()


def test_a_turned_picture_is_read_as_stored_and_must_have_its_size(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "val.jpg"
    path.write_text(json.dumps(content))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.full((80, 100, 3), 90, np.uint8))
    picture.save(tmp_path / "images" / "val.jpg", exif=exif)
    assert read(tmp_path)[0]["photo"].shape == (80, 100, 3)  # not turned
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images" / "val.jpg", exif=exif)
    with pytest.raises(DataError, match=r"val.jpg: the picture has 100x80 .*val.json says 80x100.*EXIF"):
        read(tmp_path)[0]


# The evaluator -------------------------------------------------------------------------------------------


def test_the_evaluator_takes_the_annotations_of_a_sparse_file(tmp_path: Path) -> None:
    """A file that counts from 0 and gives no areas: a perfect answer scores 1, which it would not as the file is."""
    sparse = [person(number, [5, 5, 60, 60], image_id=7 + number) for number in range(2)]
    for each in sparse:
        del each["area"], each["iscrowd"], each["num_keypoints"]
    images = [{"id": 7 + number, "file_name": "val.png", "width": 100, "height": 80} for number in range(2)]
    write_set(tmp_path, *sparse, images=images, info={})
    people = read(tmp_path)
    assert [record.number for record in people.records] == [0, 1]
    truth = people.annotations
    assert [each["id"] for each in truth["annotations"]] == [1, 2]
    assert [each["area"] for each in truth["annotations"]] == pytest.approx([0.53 * 3600] * 2)
    assert [each["num_keypoints"] for each in truth["annotations"]] == [2, 2]
    assert [each["id"] for each in truth["categories"]] == [1]
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    answers = [
        {"image_id": 7 + number, "category_id": 1, "keypoints": LABELLED, "score": 1.0} for number in range(2)
    ]
    evaluation = COCOeval(coco, coco.loadRes(answers), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(3, 0.05)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_published_metadata(tmp_path: Path) -> None:
    coco = module(tmp_path, data="coco").keypoints
    assert coco is not None
    assert coco.sigmas == pytest.approx(tuple(Params("keypoints").kpt_oks_sigmas))
    assert coco.pairs == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
    assert coco.upper_body == tuple(range(11)) and len(coco.skeleton) == 19
    one_based = "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2 1-3 2-4 3-5 4-6 5-7"
    assert coco.skeleton == tuple(
        (int(a) - 1, int(b) - 1) for a, b in (each.split("-") for each in one_based.split())
    )
    mpii = module(tmp_path, data="mpii").keypoints
    assert mpii is not None
    assert mpii.pairs == ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))
    assert mpii.upper_body == tuple(range(7, 16))
    for data in ("crowdpose", "ochuman", "street", "keypoints", "lspet"):
        found = module(tmp_path, data=data)
        assert found.keypoints is not None and found.joints == len(found.keypoints)
        for one, other in found.keypoints.pairs:
            sides = (found.keypoints.names[each] for each in (one, other))
            assert len({side.replace("left", "").replace("right", "") for side in sides}) == 1


PUBLISHED = {
    "coco": ("annotations/person_keypoints_val2017.json", "val2017", 17),
    "crowdpose": ("json/crowdpose_val.json", "images", 14),
    "ochuman": ("ochuman_coco_format_val_range_0.00_1.00.json", "images", 17),
}


@pytest.mark.parametrize("data", PUBLISHED)
def test_published_layouts(data: str, tmp_path: Path) -> None:
    file, folder, joints = PUBLISHED[data]
    points = [5.0, 6.0, 2] * joints
    content = json.loads(write_set(tmp_path, person(1, BOX, keypoints=points)).read_text())
    del content["categories"][0]["keypoints"]
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    (tmp_path / "images").rename(tmp_path / "kept")
    (tmp_path / "kept").rename(tmp_path / folder)
    people = read(tmp_path, data=data)
    assert isinstance(people, CocoPeople) and people.records[0].keypoints.shape == (joints, 2)
    assert people[0]["photo"].shape == (80, 100, 3)


# MPII ----------------------------------------------------------------------------------------------------


def write_mpii(root: Path, *, change: Callable[[Entry], Any] = lambda _: None, split: str = "valid") -> Entry:
    entry: Entry = {
        "image": "1.png", "center": [51.0, 41.0], "scale": 0.2,
        "joints": [[float(number + 1), 10.0] for number in range(15)] + [[-1.0, -1.0]],
        "joints_vis": [1] * 15 + [0],
    }  # fmt: skip
    change(entry)
    for folder in ("annot", "images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(root / "images" / "1.png")
    (root / "annot" / f"{split}.json").write_text(json.dumps([entry]))
    return entry


def test_mpii_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = pytest.importorskip("scipy.io")
    write_mpii(tmp_path)
    truth = np.zeros((16, 2, 1))
    truth[:, 0, 0], truth[:, 1, 0] = np.arange(1, 17), 10
    missing = np.zeros((16, 1))
    missing[3] = 1
    content = {
        "headboxes_src": np.array([[[10.0], [10.0]], [[13.0], [14.0]]]),  # a diagonal of 5
        "pos_gt_src": truth,
        "jnt_missing": missing,
    }
    io.savemat(tmp_path / "annot" / "gt_valid.mat", content)
    record = read(tmp_path, data="mpii").records[0]
    # centre (51, 41 + 15 * 0.2) - 1 = (50, 43), side 200 * 0.2 = 40
    assert record.box == pytest.approx((30, 23, 40, 40))
    assert record.length == pytest.approx(0.6 * 5)
    assert record.labelled.tolist() == [1, 1, 1, 0] + [1] * 12  # the evaluator's
    np.testing.assert_allclose(record.keypoints[0], (0, 9))
    np.testing.assert_allclose(record.keypoints[[3, 15]], [(0, 0), (15, 9)])
    io.savemat(
        tmp_path / "annot" / "gt_valid.mat", content | {"jnt_missing": np.zeros((16, 9))}, do_compression=True
    )
    with monkeypatch.context() as least:
        least.setattr("dvsn.data.mpii.MOST_NUMBERS", 179)  # 4 + 32 + 144 are in it
        with pytest.raises(DataError, match=r"gt_valid\.mat: .*180 numbers in it, expected 179 at most"):
            read(tmp_path, data="mpii")
    io.savemat(tmp_path / "annot" / "gt_valid.mat", content | {"jnt_missing": np.zeros((16, 2))})
    with pytest.raises(DataError, match=r"gt_valid.mat: 'jnt_missing': found \(16, 2\), expected \(16, 1\)"):
        read(tmp_path, data="mpii")


def test_mpii_says_when_it_has_no_heads(tmp_path: Path) -> None:
    write_mpii(tmp_path)
    write_mpii(tmp_path, split="train")
    with pytest.raises(DataError, match=r"gt_valid.mat(.|\n)*data.people.heads \(null: do without"):
        read(tmp_path, data="mpii")
    record = read(tmp_path, "data.people.heads=null", data="mpii").records[0]
    assert np.isnan(record.length) and record.labelled.tolist() == [1] * 15 + [0]
    np.testing.assert_allclose(record.keypoints[[0, 14, 15]], [(0, 9), (14, 9), (0, 0)])
    assert isinstance(read(tmp_path, data="mpii", split="train"), Mpii)  # training needs no heads
    write_mpii(tmp_path, change=lambda each: each.update(head_box=[[1, 1], [4, 5]]))
    assert read(tmp_path, data="mpii").records[0].length == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: each.pop("joints_vis"), "annotation 0: has no joints_vis"),
        (lambda each: each.update(joints=each["joints"][:14]), "annotation 0: has 14 keypoints a person"),
        (lambda each: each.update(joints=[[1, None]] * 16), "annotation 0: joints: expected 16 times"),
        (lambda each: each.update(joints_vis=[2] * 16), "annotation 0: joints_vis: found"),
        (lambda each: each.update(scale=0), r"annotation 0: center \[51.0, 41.0\], scale 0"),
        (lambda each: each.update(head_box=[[1, 1], [1, 1]]), "annotation 0: head_box: .*different corners"),
        (lambda each: each.update(image="2.png"), "2.png: no such picture"),
    ],
)
def test_wrong_mpii(change: Callable[[Entry], Any], message: str, tmp_path: Path) -> None:
    write_mpii(tmp_path, change=change)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, "data.people.heads=null", data="mpii")
    assert "valid.json" in str(caught.value)
