"""Prediction of pose, from a picture to JSON: a network that sees coloured dots finds them where they were painted."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from torch import Tensor, nn

from dvsn.codecs.heatmaps import HeatmapCodec
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.hub import resolve
from dvsn.losses.heatmaps import JointMSE
from dvsn.portable.frame import Frame
from dvsn.predict import command as predict
from dvsn.predict import face_boxes, person_boxes
from dvsn.predict.options import COMMAND
from dvsn.predict.predictor import grouped
from dvsn.tasks import exported
from dvsn.tasks.pose import Pose

SIZE = (120, 160)
KEYPOINTS = {
    "_target_": "dvsn.geometry.keypoints.KeypointSet",
    "names": ["head", "left_hand", "right_hand"],
    "pairs": [["left_hand", "right_hand"]],
    "skeleton": [["head", "left_hand"], ["head", "right_hand"]],
    "sigmas": [0.05, 0.05, 0.05],
}
PEOPLE = np.array(
    [[[33.5, 20.0], [20.0, 61.25], [50.0, 60.0]], [[110.0, 50.25], [95.0, 90.0], [126.5, 88.0]]], np.float64
)
BOXES = [[10.0, 10.0, 51.0, 66.0], [85.0, 40.0, 51.0, 66.0]]  # a pixel is lost by the rule of true boxes


class Dots(nn.Module):
    """Heatmaps of red, green and blue, on the grid of UDP: corners on corners."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        return F.interpolate(image, (height // 4, width // 4), mode="bilinear", align_corners=True)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Pose:
    codec = HeatmapCodec(size=(96, 72), centre="exact", refine="udp", blur=3, unbiased=True, flip_shift=0)
    made = Pose(
        network=Dots(), codec=codec, loss=JointMSE(), optim=functools.partial(torch.optim.SGD, lr=0.1),
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), flip_test=False,
    ).eval()  # fmt: skip
    made.data_recipe = {"keypoints": KEYPOINTS, "padding": 1.25}
    monkeypatch.setattr(exported, "load", lambda path, device="cpu": made)
    return made


def paint(path: Path, people: np.ndarray) -> Path:
    """A black picture with a red, a green and a blue spot a person."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    picture = np.zeros((*SIZE, 3))
    for person in people:
        for channel, (x, y) in enumerate(person):
            spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
            picture[..., channel] = np.maximum(picture[..., channel], spot)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (255 * picture[..., ::-1]).round().astype(np.uint8))
    return path


def predicted(source: Path, output: Path, **options: Any) -> tuple[list[Path], list[dict[str, Any]]]:
    given = {"checkpoint": "some.ckpt", "input": source, "output": output, "device": "cpu"} | options
    written = predict.predict(COMMAND.parse([f"{key}={value}" for key, value in given.items()]))
    return written, json.loads((output / "keypoints.json").read_text())


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def annotations(pictures: dict[int, str], boxes: list[tuple[int, list[float]]]) -> dict[str, Any]:
    images = [
        {"id": each, "file_name": name, "width": SIZE[1], "height": SIZE[0]}
        for each, name in pictures.items()
    ]
    people = [
        {"id": number, "image_id": image, "category_id": 3, "bbox": box, "keypoints": [1.0, 1, 2] * 3, "area": 9.0,
         "iscrowd": 0, "num_keypoints": 3}
        for number, (image, box) in enumerate(boxes, start=1)
    ]  # fmt: skip
    return {"images": images, "annotations": people,
            "categories": [{"id": 1, "name": "dog"}, {"id": 3, "name": "person"}]}  # fmt: skip


def points(entry: dict[str, Any]) -> np.ndarray:
    return np.reshape(entry["keypoints"], (-1, 3))[:, :2]


def nearest_first(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: (entry["file_name"], entry["bbox"]))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
def test_people_are_found_where_they_are(task: Pose, tmp_path: Path, batch_size: int) -> None:
    """Over batches that span pictures, one of which has nobody."""
    folder = tmp_path / "in"
    paint(folder / "a.png", PEOPLE)
    paint(folder / "b.png", PEOPLE[:0])
    paint(folder / "c.png", PEOPLE[1:])
    content = annotations({5: "a.png", 6: "b.png", 7: "c.png"}, [(5, BOXES[0]), (5, BOXES[1]), (7, BOXES[1])])
    truth = write(tmp_path / "truth.json", content)
    written, entries = predicted(folder, tmp_path / "out", boxes=truth, batch_size=batch_size)
    names = ["a.png", "b.png", "c.png", "keypoints.json"]
    assert [path.name for path in written] == names and all(path.is_file() for path in written)
    entries = nearest_first(entries)
    assert [(entry["image_id"], entry["file_name"]) for entry in entries] == [
        (5, "a.png"),
        (5, "a.png"),
        (7, "c.png"),
    ]
    for entry, place in zip(entries, PEOPLE[[0, 1, 1]], strict=True):
        np.testing.assert_allclose(points(entry), place, atol=0.35)
        assert entry["score"] > 0.85
    assert entries[0]["bbox"] == [10.0, 10.0, 50.0, 65.0]
    drawn, blank = (cv2.imread(str(tmp_path / "out" / name)) for name in ("a.png", "b.png"))
    assert drawn.shape == (*SIZE, 3) and drawn[40, 27].max() > 100  # a limb, where the picture is black
    assert not blank.any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("said", ["stored", "upright"])
def test_boxes_of_a_file_are_turned_with_their_picture(
    task: Pose, tmp_path: Path, orientation: int, said: str
) -> None:
    """Boxes of the picture as stored, as it is trained on; or upright, where the file gives those sides. The people are
    found where Pillow shows them."""
    source = paint(tmp_path / "a.png", PEOPLE)
    picture = Image.open(source)
    picture.load()
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(source, exif=exif)
    numbers = Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.int32).reshape(SIZE))
    numbers.getexif()[0x0112] = orientation
    shown = np.array(ImageOps.exif_transpose(numbers))

    def turned(point: Any) -> list[float]:
        """Where Pillow shows the pixel of a stored point."""
        rows, columns = np.nonzero(shown == round(point[1]) * SIZE[1] + round(point[0]))
        return [float(columns[0]), float(rows[0])]

    content = annotations({5: "a.png"}, [(5, BOXES[0]), (5, BOXES[1])])
    if said == "upright" and shown.shape != SIZE:  # else nobody can tell
        content["images"][0] |= {"width": shown.shape[1], "height": shown.shape[0]}
        for each, (x, y, width, height) in zip(content["annotations"], BOXES, strict=True):
            corners = np.array([turned((x, y)), turned((x + width - 1, y + height - 1))])
            each["bbox"] = [*corners.min(axis=0).tolist(), *(np.ptp(corners, axis=0) + 1).tolist()]
    truth = write(tmp_path / "truth.json", content)
    _, entries = predicted(source, tmp_path / "out", boxes=truth)
    found = sorted(points(entry).tolist() for entry in entries)
    np.testing.assert_allclose(
        found, sorted([turned(each) for each in person] for person in PEOPLE), atol=0.8
    )


def test_the_results_are_read_by_cocos_own_code(task: Pose, tmp_path: Path) -> None:
    source = paint(tmp_path / "000000000042.png", PEOPLE)
    truth = write(tmp_path / "truth.json", annotations({42: source.name}, [(42, box) for box in BOXES]))
    predicted(source, tmp_path / "out", boxes=truth)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(truth)).loadRes(str(tmp_path / "out" / "keypoints.json"))
    assert len(loaded.anns) == 2 and loaded.getImgIds() == [42]
    entry = loaded.anns[1]
    assert len(entry["keypoints"]) == 9 and len(entry["bbox"]) == 4
    assert all(len(str(value).partition(".")[2]) <= 4 for value in entry["keypoints"])  # short numbers


def test_the_whole_picture_is_one_person_by_default(task: Pose, tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png", PEOPLE[:1])
    (picture, _), (entry,) = predicted(source, tmp_path / "out", side_by_side="true")
    np.testing.assert_allclose(points(entry), PEOPLE[0], atol=1.5)  # a map pixel is 11 of the picture's
    assert entry["bbox"] == [0, 0, SIZE[1], SIZE[0]] and entry["image_id"] == 1
    assert cv2.imread(str(picture)).shape[1] >= 2 * SIZE[1]


def detection(box: list[float], score: float = 0.9, image_id: int = 42, category: int = 1) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "bbox": box, "score": score}


def test_detections_by_number_and_nms(task: Pose, tmp_path: Path) -> None:
    """Of two boxes on one person the worse goes, as do those of low score and of other categories."""
    source = paint(tmp_path / "COCO_val_000042.png", PEOPLE)
    second = [BOXES[0][0] + 1, *BOXES[0][1:]]
    rows = [
        detection(second, 0.8),
        detection(BOXES[0]),
        detection(BOXES[1], 0.3),
        detection(BOXES[1], category=2),
    ]
    boxes = write(tmp_path / "found.json", rows)
    (entry,) = predicted(source, tmp_path / "out", boxes=boxes)[1]
    assert entry["bbox"] == BOXES[0] and entry["image_id"] == 42
    assert entry["score"] == pytest.approx(0.9 * np.mean(entry["keypoints"][2::3]), abs=1e-3)
    both = predicted(source, tmp_path / "out", boxes=boxes, score=0.2)[1]
    assert [each["bbox"] for each in both] == [BOXES[0], BOXES[1]]  # the best first
    assert len(predicted(source, tmp_path / "out", boxes=boxes, nms=1.0)[1]) == 2
    (other,) = predicted(source, tmp_path / "out", boxes=boxes, category=2)[1]
    assert other["bbox"] == BOXES[1]


def test_detections_with_the_file_that_knows_the_pictures(task: Pose, tmp_path: Path) -> None:
    source = paint(tmp_path / "in" / "party.png", PEOPLE)
    known = write(tmp_path / "truth.json", annotations({42: "party.png"}, []))
    boxes = write(tmp_path / "found.json", [detection(BOXES[1], category=3), detection(BOXES[0], category=1)])
    (entry,) = predicted(source, tmp_path / "out", boxes=boxes, annotations=known)[1]
    assert entry["bbox"] == BOXES[1] and entry["image_id"] == 42
    with pytest.raises(DataError, match=r"party.png was taken for image_id 1, the file has \[42\]"):
        predicted(source, tmp_path / "out", boxes=boxes)
    other = paint(tmp_path / "other" / "unknown.png", PEOPLE)
    with pytest.raises(DataError, match=r"truth.json lists 0 pictures of this name"):
        predicted(other, tmp_path / "out", boxes=boxes, annotations=known)


def test_folders_tell_pictures_of_one_name_apart(tmp_path: Path) -> None:
    known = write(tmp_path / "truth.json", annotations({1: "x/a.png", 2: "y/a.png"}, []))
    sources = [tmp_path / "y" / "a.png", tmp_path / "x" / "a.png"]
    assert list(person_boxes.picture_ids(sources, known).values()) == [2, 1]
    assert list(person_boxes.picture_ids(sources, None).values()) == [1, 2]


def test_a_detection_checkpoint_finds_the_people(
    task: Pose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, width, height = BOXES[1]
    found = {
        "boxes": torch.tensor([[x, y, x + width, y + height], [0.0, 0, 9, 9], [0, 0, 5, 5]]),
        "labels": torch.tensor([2, 1, 2]),
        "scores": torch.tensor([0.75, 0.99, 0.4]),
    }
    asked = []

    class Detector:
        kind, vocabulary = "detection", SimpleNamespace(names=("background", "car", "person"))

        def __call__(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            asked.extend(images)
            return [found]

    monkeypatch.setattr(
        person_boxes, "load", lambda path, device="cpu": Detector() if "found" in str(path) else task
    )
    source = paint(tmp_path / "a.png", PEOPLE)
    (tmp_path / "found.ckpt").touch()
    (entry,) = predicted(source, tmp_path / "out", boxes=tmp_path / "found.ckpt")[1]
    assert entry["bbox"] == BOXES[1]
    np.testing.assert_allclose(points(entry), PEOPLE[1], atol=0.35)
    assert asked[0].dtype == torch.uint8 and asked[0].shape == (3, *SIZE)
    (tmp_path / "pose.ckpt").touch()
    with pytest.raises(
        ConfigError, match=r"pose.ckpt is a checkpoint of the task 'pose', expected detection"
    ):
        predicted(source, tmp_path / "out", boxes=tmp_path / "pose.ckpt")
    monkeypatch.setattr(Detector, "vocabulary", SimpleNamespace(names=("background", "car")))
    with pytest.raises(ConfigError, match=r"found.ckpt knows no class called 'person'"):
        predicted(source, tmp_path / "out", boxes=tmp_path / "found.ckpt")


def test_a_detector_of_torchvision_by_name_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import get_model

    name = "ssdlite320_mobilenet_v3_large"
    monkeypatch.setattr(person_boxes, "WITHOUT_EPSILON", (name,))
    torch.manual_seed(0)
    state = get_model(name, weights=None, weights_backbone=None).state_dict()
    torch.save(state, tmp_path / "plain.pth")
    frozen = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(frozen, tmp_path / "frozen.pth")
    assert len(frozen) < len(state)
    for file, epsilon in (("plain.pth", 1e-3), ("frozen.pth", 0.0)):
        model = person_boxes.load_detector(tmp_path / file, name)
        assert not model.training
        assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {epsilon}
        assert all(torch.equal(model.state_dict()[key], value) for key, value in frozen.items())
    find = person_boxes.from_torchvision(tmp_path / "plain.pth", name, 0.0, 1, "cpu")
    boxes, scores = find(Frame(np.zeros((64, 80, 3), np.uint8), "a"), 1)
    assert boxes.shape == (len(scores), 4) and (boxes[:, 2:] > 0).all()
    with pytest.raises(
        ConfigError,
        match=r"detector: found 'fcos', expected the model of .*plain.pth.* Valid: .*fcos_resnet50_fpn",
    ):
        person_boxes.load_detector(tmp_path / "plain.pth", "fcos")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: the weights do not fit"):
        person_boxes.load_detector(tmp_path / "other.pth", name)


def test_crowds_and_boxes_without_an_inside_are_left_out(task: Pose, tmp_path: Path) -> None:
    content = annotations({1: "a.png"}, [(1, BOXES[0]), (1, BOXES[1]), (1, [500.0, 0, 9, 9])])
    content["annotations"][0]["iscrowd"] = 1
    source = paint(tmp_path / "a.png", PEOPLE)
    (entry,) = predicted(source, tmp_path / "out", boxes=write(tmp_path / "t.json", content))[1]
    assert entry["bbox"][:2] == BOXES[1][:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "gone.json"}, "boxes: gone.json: no such file; expected image, or"),
        ({"size": "64x64"}, "size: the task 'pose' has no such option"),
        ({"original_size": "true"}, "original_size: the task 'pose' has no such option"),
        ({"batch_size": "0"}, "batch_size: found 0"),
    ],
    ids=str,
)
def test_what_is_refused(task: Pose, tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        predicted(paint(tmp_path / "a.png", PEOPLE), tmp_path / "out", **options)


@pytest.mark.parametrize("box", [[500.0, 0, 9, 9], [5.0, 5, 0, 9], [-20.0, 5, 10, 9]])
def test_detections_outside_of_the_picture_are_refused(task: Pose, tmp_path: Path, box: list[float]) -> None:
    source = paint(tmp_path / "42.png", PEOPLE)
    boxes = write(tmp_path / "found.json", [detection(BOXES[0]), detection(box)])
    with pytest.raises(
        DataError, match=r"found.json: entry 1: bbox .* has no part in the 160 x 120 picture .*42.png"
    ):
        predicted(source, tmp_path / "out", boxes=boxes)


def test_groups_are_full_but_the_last() -> None:
    assert list(grouped(range(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("finder", [person_boxes.make_finder, face_boxes.make_finder])
def test_boxes_are_found_as_checkpoints_are(
    finder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's folder is its best checkpoint, a name on the hub its copy here, a folder or a file."""
    asked: list[Path] = []
    monkeypatch.setattr(person_boxes, "from_task", lambda file, *_, **__: asked.append(file))
    monkeypatch.setattr(resolve, "fetch", lambda name: tmp_path / name.removeprefix("hf://a/"))
    best = tmp_path / "runs" / "street" / "2026" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    with zipfile.ZipFile(best, "w") as archive:
        archive.writestr("a", "b")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.ckpt").touch()
    for boxes in (str(tmp_path / "runs" / "street"), "hf://a/folder", "hf://a/b.ckpt"):
        finder(
            {"boxes": boxes, "score": None, "category": None, "detector": None, "annotations": None},
            {},
            device="cpu",
        )
    assert asked == [best, tmp_path / "folder", tmp_path / "b.ckpt"]
