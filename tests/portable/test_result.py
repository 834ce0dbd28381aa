"""Results of every task, made by hand: their JSON, COCO's forms, supervision's records, drawings; all without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from dvsn.errors import ConfigError, DataError
from dvsn.portable.frame import Frame
from dvsn.portable.joints import Skeleton
from dvsn.portable.overlay import borders, render
from dvsn.portable.result import RankedClass, Result
from dvsn.portable.runs import encode_mask

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 120, 160
PHOTO = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
FRAME = Frame(PHOTO, "street_7", Path("photos/street_7.jpg"), 2, 0.25)
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
SKELETON = Skeleton(("head", "left_hand", "right_hand"), pairs=((1, 2),), skeleton=((0, 1), (0, 2)))
BOXES = np.array([[10.0, 20.0, 50.5, 90.0], [100.0, 30.0, 150.0, 110.0]])
PERSON = [[30.0, 25.123456, 0.9], [15.0, 60.0, 0.8], [45.0, 60.0, 0.1]]
POINTS = np.add([PERSON, PERSON], [[[0.0, 0.0, 0.0]], [[95.0, 10.0, 0.05]]])


def ids() -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[:, 40:], found[80:, 100:] = 1, 2
    found[:3, :3] = 255
    return found


def masks() -> list[np.ndarray]:
    inside = np.zeros((2, HEIGHT, WIDTH), bool)
    inside[0, 30:80, 15:45], inside[1, 40:100, 105:145] = True, True
    return list(inside)


def results() -> dict[str, Result]:
    boxes: dict[str, Any] = {"frame": FRAME, "boxes": BOXES, "scores": np.array([0.9, 0.6]), "image_id": 42}
    return {
        "segmentation": Result(
            kind="segmentation", frame=FRAME, ids=ids(), names=("background", "road", "car"), palette=PALETTE,
            file_ids={0: 7, 1: 8, 2: 26},
        ),
        "detection": Result(
            kind="detection", labels=np.array([2, 1]), names=("background", "car", "person"), palette=PALETTE,
            mask_codes=[encode_mask(mask) for mask in masks()], file_ids={2: 90}, track_ids=np.array([3, 1]), **boxes,
        ),
        "pose": Result(kind="pose", names=("person",), keypoints=POINTS, skeleton=SKELETON, **boxes),
        "landmarks": Result(
            kind="landmarks", names=("face",), points=POINTS, skeleton=SKELETON,
            angles_degrees=np.array([[1.0, -2.5, 3.123456], [np.nan] * 3]), **boxes,
        ),
        "classification": Result(
            kind="classification", frame=FRAME, names=("cat", "dog"),
            classes=[RankedClass("dog", 1, 0.75), RankedClass("cat", 0, 0.25)],
        ),
        "pix2pix": Result(kind="pix2pix", frame=FRAME, picture=np.full((HEIGHT, WIDTH, 3), 7, np.uint8)),
    }  # fmt: skip


KINDS = sorted(results())
FIELDS = (
    "ids",
    "boxes",
    "scores",
    "labels",
    "masks",
    "keypoints",
    "points",
    "angles_degrees",
    "picture",
    "track_ids",
)


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_back(kind: str) -> None:
    result = results()[kind]
    text = json.dumps(result.to_json(), allow_nan=False)
    again = Result.from_json(text, PHOTO)
    for name in FIELDS:
        before, after = getattr(result, name), getattr(again, name)
        assert (before is None) == (after is None), name
        if before is not None:
            assert before.dtype == after.dtype, name
            np.testing.assert_array_equal(before, after, err_msg=name)
    for name in (
        "kind",
        "names",
        "palette",
        "classes",
        "skeleton",
        "image_id",
        "file_ids",
        "mask_codes",
        "shown_from",
    ):
        assert getattr(result, name) == getattr(again, name), name
    frame = again.frame
    assert (frame.name, frame.path, frame.index, frame.seconds) == ("street_7", FRAME.path, 2, 0.25)
    assert again.to_json() == result.to_json() and repr(again) == repr(result)
    np.testing.assert_array_equal(np.array(again.plot()), np.array(result.plot()))
    assert not Result.from_json(text).frame.picture.any()  # black, where none is given


def test_results_without_anything_come_back_too() -> None:
    none = np.zeros((0, 4))
    empty = Result(
        kind="pose",
        frame=FRAME,
        boxes=none,
        scores=np.zeros(0),
        keypoints=np.zeros((0, 3, 3)),
        skeleton=SKELETON,
    )
    again = Result.from_json(empty.to_json())
    assert again.boxes is not None and again.boxes.shape == (0, 4) and len(again) == 0 and bool(again)
    assert again.keypoints is not None and again.keypoints.shape[::2] == (0, 3)
    np.testing.assert_array_equal(np.array(empty.plot()), PHOTO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "with the format 1"),
        ({"boxes": [[1, 2, 3]]}, r"boxes: found numbers of the shape \(1, 3\), expected \(any, 4\)"),
        ({"labels": [0.5, 1]}, "labels: found numbers"),
        ({"labels": ["car"]}, "a result: "),
        ({"picture_size": [10**6, 10**6]}, "expected 200,000,000 pixels at most"),
        ({"picture_size": [HEIGHT]}, "a result: "),
        ({"masks": [{"size": [2, 2], "counts": "04"}]}, r"masks: found one of \[2, 2\], expected \[120, 160\]"),
        ({"skeleton": {"names": ["a"]}}, "no key 'pairs'"),
        ({"skeleton": [1]}, "a result: "),
        ({"classes": [{"name": "a", "number": 1, "score": None}]}, "a result: "),
        ({"ids": {"png": "xx"}}, "expected a PNG in base64"),
        ({"kind": None, "name": 3, "index": "x"}, "a result: "),
    ],
    ids=str,
)  # fmt: skip
def test_foreign_json_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Result.from_json({**results()["detection"].to_json(), **change})


def test_text_that_is_none_is_refused() -> None:
    for text in ("{", "[]", "null"):
        with pytest.raises(DataError, match="a result: "):
            Result.from_json(text)


# COCO ---------------------------------------------------------------------------------------------------


def test_objects_in_cocos_form() -> None:
    first, second = results()["detection"].to_coco()
    assert (first["image_id"], first["category_id"], second["category_id"]) == (42, 90, 1)
    assert first["bbox"] == [10.0, 20.0, 40.5, 70.0] and first["score"] == 0.9 and first["track"] == 3
    assert rle.area(first["segmentation"]) == 50 * 30
    assert results()["detection"].to_coco(image_id=5)[0]["image_id"] == 5


def test_people_and_faces_in_cocos_form() -> None:
    person = results()["pose"].to_coco()[0]
    assert person["keypoints"][:6] == [30.0, 25.123, 0.9, 15.0, 60.0, 0.8] and person["category_id"] == 1
    assert person["file_name"] == "street_7.jpg" and "angles_degrees" not in person and "track" not in person
    known, unknown = results()["landmarks"].to_coco()
    assert known["angles_degrees"] == {"pitch": 1.0, "yaw": -2.5, "roll": 3.123}
    assert unknown["angles_degrees"] is None


def test_regions_in_cocos_form() -> None:
    entries = results()["segmentation"].to_coco()
    assert [entry["category_id"] for entry in entries] == [7, 8, 26] and {
        entry["image_id"] for entry in entries
    } == {3}
    assert [rle.area(entry["segmentation"]) for entry in entries] == [
        40 * 120 - 9,
        120 * 120 - 60 * 40,
        60 * 40,
    ]


@pytest.mark.parametrize("kind", ["classification", "pix2pix"])
def test_what_coco_has_no_form_for_is_said(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"no form for the answer of {kind}"):
        results()[kind].to_coco()


# supervision ----------------------------------------------------------------------------------------------


def test_records_of_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    found = results()
    objects = found["detection"].to_supervision()
    assert isinstance(objects, supervision.Detections) and objects.class_id.tolist() == [2, 1]
    np.testing.assert_array_equal(objects.xyxy, BOXES.astype(np.float32))
    np.testing.assert_array_equal(objects.mask, masks())
    assert objects.tracker_id.tolist() == [3, 1] and objects.data["class_name"].tolist() == ["person", "car"]
    assert objects.confidence.tolist() == [0.9, 0.6]
    for kind in ("pose", "landmarks"):
        people = found[kind].to_supervision()
        assert isinstance(people, supervision.KeyPoints)
        np.testing.assert_array_equal(people.xy, POINTS[..., :2].astype(np.float32))
    regions = found["segmentation"].to_supervision()
    assert regions.class_id.tolist() == [0, 1, 2] and regions.xyxy.tolist()[2] == [100, 80, 160, 120]
    np.testing.assert_array_equal(regions.mask[2], ids() == 2)
    classes = found["classification"].to_supervision()
    assert classes.class_id.tolist() == [1, 0] and classes.confidence.tolist() == [0.75, 0.25]
    with pytest.raises(ConfigError, match=r"no record for the answer of pix2pix. Use .picture"):
        found["pix2pix"].to_supervision()


def test_a_missing_supervision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        results()["pose"].to_supervision()


# Drawings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_is_a_new_picture(kind: str) -> None:
    result = results()[kind]
    drawn = result.plot()
    assert isinstance(drawn, Image.Image) and drawn.size[0] >= WIDTH
    assert (PHOTO == 90).all()  # the frame stays as it was
    assert result._repr_png_().startswith(b"\x89PNG")


def test_background_is_not_tinted_and_classes_are() -> None:
    result = results()["segmentation"]
    drawn = np.array(result.plot(legend=False))
    inside = ~borders(ids())
    assert (drawn[inside & (ids() == 0)] == 90).all() and drawn[1, 1].tolist() == [90] * 3  # 255 is no class
    assert (drawn[inside & (ids() == 1)] == [45, 145, 45]).all()
    assert (drawn[borders(ids()) & (ids() == 1)] == [20, 65, 20]).all()  # darker, between two classes
    lighter = np.array(result.plot(legend=False, tint=0.0, outlines=False))
    np.testing.assert_array_equal(lighter, PHOTO)
    legend = np.array(result.plot()) != drawn
    rows, columns = np.flatnonzero(legend.any(axis=(1, 2))), np.flatnonzero(legend.any(axis=(0, 2)))
    assert len(rows) and rows[0] > HEIGHT / 2 and columns[-1] < WIDTH / 2 + 5  # the lower left
    with pytest.raises(ConfigError, match="tint: found 2"):
        result.plot(tint=2)


def test_maps_to_write() -> None:
    result = results()["segmentation"]
    np.testing.assert_array_equal(render(result, "ids"), ids())
    assert render(result, "color")[5, 5].tolist() == [200, 0, 0] and not render(result, "color")[0, 0].any()
    assert sorted(np.unique(render(result, "submission"))) == [7, 8, 26, 255]
    result.file_ids = {}
    with pytest.raises(ConfigError, match="no other numbering"):
        render(result, "submission")
    with pytest.raises(ConfigError, match=r"has no 'idx'\. Did you mean 'ids'"):
        render(result, "idx")


def test_a_threshold_hides_objects_and_joints() -> None:
    result = results()["detection"]
    assert (np.array(result.plot(threshold=0.95)) == PHOTO).all()
    one, two = (np.array(result.plot(threshold=each, legend=False)) for each in (0.8, 0.5))
    assert (one[:, 95:] == 90).all() and (two[:, 105:150] != 90).any()
    assert (np.array(results()["pose"].plot(threshold=1.5)) == PHOTO)[
        ..., 0
    ].mean() > 0.9  # nothing, but the legend


def test_small_pictures_are_enlarged_to_hold_their_classes() -> None:
    tiny = Frame(np.full((32, 32, 3), 50, np.uint8), "tiny")
    drawn = Result(kind="classification", frame=tiny, classes=[RankedClass("aeroplane", 0, 0.5)]).plot()
    assert drawn.size[0] == 192 and drawn.size[1] > 192


def test_summaries() -> None:
    said = {kind: result.summary() for kind, result in results().items()}
    assert said == {
        "segmentation": "road 62%, background 25%, car 12%",
        "detection": "1 person, 1 car",
        "pose": "2 person",
        "landmarks": "2 face",
        "classification": "dog 75%, cat 25%",
        "pix2pix": "a picture",
    }


def test_nothing_here_needs_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import pkgutil, importlib, dvsn.portable\n"
        "for each in pkgutil.iter_modules(dvsn.portable.__path__):\n"
        "    importlib.import_module('dvsn.portable.' + each.name)\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr
