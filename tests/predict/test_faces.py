"""Prediction of faces, from a picture to JSON: a network that lays one face into what is bright, and what finds faces."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from dvsn.data.face_crop import FaceCrop
from dvsn.data_tools import show
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.head_angles import head_angles
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.draw import draw_head
from dvsn.predict import command as predict
from dvsn.predict import face_boxes
from dvsn.predict.options import COMMAND
from dvsn.predict.sources import in_order
from dvsn.tasks import exported
from tests.support.tiny import composed

NAMES = ["b0", "b1", "b2", "b3", "e0", "e1", "e2", "e3", "n0", "n1", "m0", "m1", "lip", "chin"]
FACE = np.array(
    [
        [0.0, 0.05], [0.38, 0.0], [0.62, 0.0], [1.0, 0.05], [0.1, 0.15], [0.36, 0.15], [0.64, 0.15], [0.9, 0.15],
        [0.34, 0.45], [0.66, 0.45], [0.28, 0.7], [0.72, 0.7], [0.5, 0.78], [0.5, 1.0],
    ]
)  # fmt: skip
"""A face from the front, as fractions of its points' box."""
SIZE = (160, 240)
BRIGHT = [(20, 30, 60, 60), (150, 60, 60, 60)]  # x, y, width, height
LOOSE = np.array([0.5, -0.5, 0.0, 0.0])


class Laid:
    """A task that lays `FACE` into the box of what is bright in a crop, and pretends to be sure."""

    kind = "landmarks"
    size = (96, 96)
    keypoints = KeypointSet(names=NAMES, head=NAMES, skeleton=[["m0", "lip"], ["lip", "m1"]])
    shows = "faces"

    def crop(self) -> FaceCrop:
        return FaceCrop(size=self.size, padding=1.2, box="rectangle")

    def estimate(self, image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.seen = image
        points = []
        for crop in image:
            rows, columns = torch.nonzero(crop.float().mean(dim=0) > 128, as_tuple=True)
            low = torch.tensor([columns.min(), rows.min()]) if len(rows) else torch.zeros(2)
            high = torch.tensor([columns.max(), rows.max()]) + 1 if len(rows) else torch.ones(2)
            points.append(low + torch.from_numpy(FACE).float() * (high - low))
        return torch.stack(points), torch.ones(len(image), len(FACE))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Laid:
    made = Laid()
    monkeypatch.setattr(exported, "load", lambda path, device="cpu": made)
    return made


def paint(path: Path, boxes: list[tuple[int, int, int, int]] = BRIGHT) -> Path:
    """A black picture with white rectangles."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    for x, y, width, height in boxes:
        picture[y : y + height, x : x + width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def predicted(source: Path, output: Path, **options: Any) -> tuple[list[Path], list[dict[str, Any]]]:
    given = {"checkpoint": "some.ckpt", "input": source, "output": output, "device": "cpu"} | options
    written = predict.predict(COMMAND.parse([f"{key}={value}" for key, value in given.items()]))
    return written, json.loads((output / "landmarks.json").read_text())


def detections(path: Path, rows: list[tuple[int, Any, float]]) -> Path:
    entries = [{"image_id": i, "category_id": 1, "bbox": list(box), "score": score} for i, box, score in rows]
    path.write_text(json.dumps(entries))
    return path


def points(entry: dict[str, Any]) -> np.ndarray:
    return np.reshape(entry["keypoints"], (-1, 3))[:, :2]


def laid(box: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(box[:2]) + FACE * box[2:]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_faces_of_a_file_are_found_drawn_and_written(task: Laid, tmp_path: Path, batch_size: int) -> None:
    for name in ("a_1.png", "a_2.png", "a_3.png"):
        paint(tmp_path / "in" / name)
    rows = [(1, BRIGHT[0], 0.8), (1, BRIGHT[1], 0.9), (3, BRIGHT[1], 0.7), (3, BRIGHT[0], 0.4)]
    boxes = detections(tmp_path / "boxes.json", rows)
    written, entries = predicted(tmp_path / "in", tmp_path / "out", boxes=boxes, batch_size=batch_size)
    assert [path.name for path in written] == ["a_1.png", "a_2.png", "a_3.png", "landmarks.json"]
    found = [(each["image_id"], each["file_name"], each["bbox"], each["score"]) for each in entries]
    assert found == [
        (1, "a_1.png", list(BRIGHT[1]), 0.9),
        (1, "a_1.png", list(BRIGHT[0]), 0.8),
        (3, "a_3.png", list(BRIGHT[1]), 0.7),
    ]
    for entry, box in zip(entries, (BRIGHT[1], BRIGHT[0], BRIGHT[1]), strict=True):
        np.testing.assert_allclose(
            points(entry), laid(box), atol=1.0
        )  # a crop's pixel is 0.75 of the picture's
        assert "track" not in entry
    first, second = (cv2.imread(str(tmp_path / "out" / f"a_{each}.png")) for each in (1, 2))
    assert (first != cv2.imread(str(tmp_path / "in" / "a_1.png"))).any()
    np.testing.assert_array_equal(second, cv2.imread(str(tmp_path / "in" / "a_2.png")))  # no face: as it is
    again = predicted(tmp_path / "in", tmp_path / "again", boxes=tmp_path / "out" / "landmarks.json")[1]
    assert [each["keypoints"] for each in again] == [each["keypoints"] for each in entries]


def test_angles_are_those_of_the_points_in_the_crop(task: Laid, tmp_path: Path) -> None:
    boxes = detections(tmp_path / "boxes.json", [(1, BRIGHT[0], 0.8)])
    (entry,) = predicted(paint(tmp_path / "1.png"), tmp_path / "out", boxes=boxes)[1]
    # a square of int(1.2 * 61) = 73 pixels, whose corner is at trunc(20 + 61 / 2) - 36 and trunc(30 + 61 / 2) - 36
    expected = head_angles((points(entry) - [14, 24]) / 73, head=range(14))
    assert expected is not None
    found = [entry["angles_degrees"][name] for name in ("pitch", "yaw", "roll")]
    np.testing.assert_allclose(found, np.degrees(expected), atol=0.05)
    assert abs(found[1]) < 1 and abs(found[2]) < 1  # the face is symmetric


def test_what_is_drawn_is_chosen(task: Laid, tmp_path: Path) -> None:
    source = paint(tmp_path / "1.png", [BRIGHT[0]])
    boxes = detections(tmp_path / "boxes.json", [(1, BRIGHT[0], 0.8)])
    off = {"points": "false", "outline": "false", "axes": "false"}
    pictures = {}
    for shown in ("", "points", "outline", "axes"):
        chosen = {name: value for name, value in off.items() if name != shown}
        predicted(source, tmp_path / "out", boxes=boxes, **chosen)
        pictures[shown] = cv2.imread(str(tmp_path / "out" / "1.png"))[..., ::-1]
    np.testing.assert_array_equal(pictures[""], cv2.imread(str(source)))
    red = {name: (each[..., 0] > 100 + each[..., 1].astype(int)).any() for name, each in pictures.items()}
    assert red == {"": False, "points": False, "outline": False, "axes": True}
    changed = [int((each != pictures[""]).any(axis=2).sum()) for each in pictures.values()]
    assert all(changed[1:]) and len(set(changed)) == 4
    lip = laid(BRIGHT[0])[[10, 12]].mean(axis=0).round().astype(int)  # on a line, between its points
    assert (pictures["outline"][lip[1], lip[0]] != 255).any()
    assert (pictures["points"][lip[1], lip[0]] == 255).all()


def test_a_cropped_face_is_seen_as_it_is_and_padding_moves_the_frame(task: Laid, tmp_path: Path) -> None:
    """The square around a picture of 160 x 240 is 241, so its upper and lower parts are black; of half the side, white."""
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), np.full((*SIZE, 3), 255, np.uint8))
    (entry,) = predicted(source, tmp_path / "out")[1]
    white = (task.seen[0, 0] > 128).float()
    assert white.mean() == pytest.approx(160 * 240 / 241**2, abs=0.02)
    assert entry["bbox"] == [0, 0, SIZE[1], SIZE[0]] and entry["image_id"] == 1
    predicted(source, tmp_path / "out", padding=0.5)
    assert (task.seen > 128).all()
    predicted(source, tmp_path / "out", boxes=detections(tmp_path / "b.json", [(1, (0, 0, 240, 160), 1)]))
    assert (task.seen[0, 0] > 128).float().mean() == pytest.approx(
        160 * 240 / 289**2, abs=0.02
    )  # as trained, 1.2


def frames(folder: Path, count: int, jump: int = 0) -> Path:
    for number in range(count):
        paint(folder / f"frame{number}.png", [(20 + jump * (number % 2), 30, 60, 60)])
    return folder


def test_frames_are_smoothed_in_the_order_of_their_numbers(task: Laid, tmp_path: Path) -> None:
    """Twelve frames of a face that trembles by 4 pixels, of which frame10 would come after frame1 by letters."""
    folder = frames(tmp_path / "in", 12, jump=4)
    rows = [(number, (22, 30, 60, 60), 0.9) for number in range(12)]
    rows += [(number, (150, 60, 60, 60), 0.8) for number in (0, 1, 2, 5)]  # another, who is lost
    boxes = detections(tmp_path / "boxes.json", rows)
    known = {"images": [{"id": n, "file_name": f"frame{n}.png"} for n in range(12)], "annotations": [],
             "categories": [{"id": 1, "name": "face"}]}  # fmt: skip
    (tmp_path / "known.json").write_text(json.dumps(known))
    options = {"boxes": boxes, "annotations": tmp_path / "known.json", "batch_size": 5}
    plain = predicted(folder, tmp_path / "plain", **options)[1]
    calm = predicted(folder, tmp_path / "calm", **options, smooth="true", beta=0, fps=25)[1]
    assert [each["image_id"] for each in calm if each["score"] > 0.85] == list(range(12))
    tracks = {each["image_id"]: each["track"] for each in calm if each["score"] < 0.85}
    assert tracks == {0: 2, 1: 2, 2: 2, 5: 3}
    assert {each["track"] for each in calm if each["score"] > 0.85} == {1}
    heights = [
        [
            points(each)[0, 0]
            for each in sorted(entries, key=lambda each: each["image_id"])
            if each["score"] > 0.85
        ]
        for entries in (plain, calm)
    ]
    assert np.abs(np.diff(heights[0])).mean() == pytest.approx(4, abs=0.8)
    assert np.abs(np.diff(heights[1][3:])).mean() < 1.0
    assert heights[1][0] == heights[0][0]


def test_each_folder_is_a_sequence(task: Laid, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        frames(tmp_path / "in" / folder, 2)
    entries = predicted(tmp_path / "in", tmp_path / "out", smooth="true")[1]
    assert [each["track"] for each in entries] == [1, 1, 2, 2]


def test_numbers_in_names_count() -> None:
    names = ["b/1.png", "a/x10.png", "a/x9.png", "a/x9b1.png", "a/x.png"]
    assert sorted(names, key=lambda name: in_order(Path(name))) == [
        "a/x.png", "a/x9.png", "a/x9b1.png", "a/x10.png", "b/1.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "gone.json"}, "boxes: gone.json: no such file; expected image, or"),
        (
            {"boxes": "gone.onnx"},
            "boxes: gone.onnx: no such file; expected the weights of YuNet.*opencv_zoo",
        ),
        ({"detector": "yunet"}, "boxes: detector=yunet needs a file, boxes=FILE.onnx: the weights of YuNet"),
        ({"detector": "yunett"}, "detector: found 'yunett'. Did you mean 'yunet'"),
        ({"detector": "haar", "score": "0.7"}, "score: the boxes of a cascade have no score"),
        ({"nms": "0.5"}, "nms: the task 'landmarks' has no such option"),
        ({"padding": "0"}, "padding: found 0, expected a factor above 0"),
        ({"padding": "wide"}, "padding: found wide, expected a factor above 0"),
        ({"beta": "3.0"}, "beta: only frames are smoothed. Add smooth=true"),
        ({"smooth": "true", "fps": "0"}, "fps: found 0, expected the frames in a second"),
        ({"smooth": "true", "min_cutoff": "-1"}, "min_cutoff, beta: found -1.0 and 20.0"),
    ],
    ids=str,
)
def test_what_is_refused(task: Laid, tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        predicted(paint(tmp_path / "a.png"), tmp_path / "out", **options)


def test_boxes_that_frame_nothing_are_refused(task: Laid, tmp_path: Path) -> None:
    source = paint(tmp_path / "7.png")
    for box in ((300, 0, 9, 9), (5, 5, 0, 9)):
        boxes = detections(tmp_path / "found.json", [(7, BRIGHT[0], 0.9), (7, box, 0.9)])
        with pytest.raises(
            DataError, match=r"found.json: entry 1: bbox .* has no part in the 240 x 160 picture"
        ):
            predicted(source, tmp_path / "out", boxes=boxes)


class Yunet:
    """Stands in for OpenCV's, and sees a face in each white rectangle."""

    def __init__(self, least: float) -> None:
        self.least, self.pictures = least, []

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, picture: np.ndarray) -> tuple[int, np.ndarray | None]:
        self.pictures.append(picture)
        outlines = cv2.findContours((picture[..., 0] > 128).astype(np.uint8), cv2.RETR_EXTERNAL, 1)[0]
        rows = [[*cv2.boundingRect(outline), *range(10), 0.875] for outline in outlines]
        return 1, np.array(rows, np.float32) if rows else None


@pytest.fixture
def yunet(monkeypatch: pytest.MonkeyPatch) -> list[Yunet]:
    made: list[Yunet] = []

    def create(file: str, config: str, size: Any, score_threshold: float, nms_threshold: float) -> Yunet:
        made.append(Yunet(score_threshold))
        return made[-1]

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", create)
    return made


def test_yunets_boxes_become_those_of_points(task: Laid, tmp_path: Path, yunet: list[Yunet]) -> None:
    """A picture four times as large as YuNet's is shrunk; the box of a face is wider than its points, and higher."""
    picture = np.zeros((1280, 2560, 3), np.uint8)
    picture[400:900, 800:1200] = (255, 128, 0)  # blue, as files are: RGB 0, 128, 255
    cv2.imwrite(str(tmp_path / "large.png"), picture)
    paint(tmp_path / "none.png", [])
    weights = tmp_path / "yunet.onnx"
    weights.write_bytes(b"weights")
    _, entries = predicted(tmp_path, tmp_path / "out", boxes=weights, score=0.7)
    (entry,) = entries
    side, centre = 0.84 * 500, [1000, 650 + 0.11 * 500]
    assert entry["bbox"] == pytest.approx([centre[0] - side / 2, centre[1] - side / 2, side, side], abs=4)
    assert entry["score"] == 0.875 and entry["file_name"] == "large.png"
    (network,) = yunet
    assert network.least == 0.7 and network.pictures[1].shape == (320, 640, 3)
    assert tuple(network.pictures[1][160, 250]) == (255, 128, 0)  # blue, green, red, as YuNet wants it
    assert network.pictures[2].shape == (*SIZE, 3)


def test_weights_that_are_none_are_refused(task: Laid, tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png")
    (tmp_path / "pointer.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(DataError, match=r"pointer.onnx: found the text that Git LFS keeps .* git lfs pull"):
        predicted(source, tmp_path / "out", boxes=tmp_path / "pointer.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(
        DataError, match=r"bad.onnx: OpenCV cannot use it .* face_detection_yunet_2023mar.onnx"
    ):
        predicted(source, tmp_path / "out", boxes=tmp_path / "bad.onnx")


def test_cascades_where_opencv_has_them(task: Laid, tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png")
    if not hasattr(cv2, "CascadeClassifier"):
        with pytest.raises(ConfigError, match=r"detector: OpenCV 5.* has no Haar cascades .* detector=yunet"):
            predicted(source, tmp_path / "out", detector="haar")
        return
    assert predicted(source, tmp_path / "out", detector="haar")[1] == []
    (tmp_path / "bad.xml").write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(DataError, match=r"bad.xml: not a cascade of OpenCV"):
        predicted(source, tmp_path / "out", boxes=tmp_path / "bad.xml")


def test_the_squares_of_a_detector_by_hand() -> None:
    boxes = np.array([[10.0, 20.0, 40.0, 100.0]])  # centre 30, 70; longer side 100
    np.testing.assert_allclose(face_boxes.around_points(boxes, 0.8, 0.1), [[-10, 40, 80, 80]])
    assert face_boxes.around_points(np.zeros((0, 4)), 0.8, 0.1).shape == (0, 4)


FORMS = {
    "points": ["task=landmarks", "network=pfld_025", "loss=wing"],
    "heatmaps": [
        "task=landmarks_heatmaps",
        "network=hrnet_small",
        "network.width=4",
        "transform.size=[64,64]",
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_landmark_task_predicts(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    config = composed([*FORMS[form], "data=faces68"], Path("runs/test"))
    made: Any = runtime.make_task(config).eval()
    made.data_recipe = config["data"]
    monkeypatch.setattr(exported, "load", lambda path, device="cpu": made)
    (entry,) = predicted(paint(tmp_path / "a.png"), tmp_path / "out", padding=0.8)[1]
    assert len(entry["keypoints"]) == 3 * 68 and set(entry) >= {"angles_degrees", "bbox", "score"}


def test_samples_are_shown_with_the_axes_of_their_angles() -> None:
    """Also where a sample has none, and where its angles are not known."""
    read = {"photo": np.zeros((*SIZE, 3), np.uint8), "box": BRIGHT[0], "keypoints": laid(BRIGHT[0]),
            "labelled": np.ones(14, np.uint8), "index": 0, "name": "a"}  # fmt: skip
    crop, data = FaceCrop(size=(112, 112)), SimpleNamespace(keypoints=Laid.keypoints)
    crop.keypoints = Laid.keypoints
    sample = crop(read, 0)
    pictures = show.person_panels(read, sample, data)
    assert list(pictures) == ["picture", "crop", "keypoints", "head"]
    assert (pictures["head"] != pictures["keypoints"]).any()
    sample["angles"][:] = torch.tensor([0.1, 0.7, 0.2])
    expected = pictures["keypoints"].copy()
    places = (sample["keypoints"] - sample["offset"]).numpy()
    draw_head(expected, places, np.array([0.1, 0.7, 0.2]), Laid.keypoints)
    np.testing.assert_array_equal(show.person_panels(read, sample, data)["head"], expected)
    sample["angles"][:] = torch.nan
    pictures = show.person_panels(read, sample, data)
    np.testing.assert_array_equal(pictures["head"], pictures["keypoints"])
    del sample["angles"]
    assert list(show.person_panels(read, sample, data)) == ["picture", "crop", "keypoints"]
