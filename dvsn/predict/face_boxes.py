"""Where the faces of a picture are: everywhere, in a file of COCO's format, or where a detector of OpenCV's sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dvsn.errors import ConfigError, DataError, nearest
from dvsn.hub.resolve import local
from dvsn.portable.boxes import Boxes
from dvsn.portable.frame import Frame
from dvsn.predict import person_boxes
from dvsn.predict.person_boxes import Finder, PictureIds

FACE = "face"
EXPECTED = "expected image, or FILE.json, FILE.onnx (YuNet), FILE.xml (a cascade), FILE.ckpt or FILE.pth"

YUNET_SCORE = 0.6  # as in its own examples
YUNET_OVERLAP = 0.3  # of boxes above which the worse one goes
YUNET_SIDE = 640  # pixels; see `from_yunet`
YUNET_SOURCE = (
    "the weights of YuNet, such as face_detection_yunet_2023mar.onnx of models/face_detection_yunet in "
    "github.com/opencv/opencv_zoo, or onnx/yunet_n_640_640.onnx in github.com/ShiqiYu/libfacedetection.train"
)
LFS = b"version https://git-lfs"

HAAR_FILE = "haarcascade_frontalface_default.xml"
HAAR_STEP, HAAR_NEIGHBOURS = 1.1, 5  # between sizes that are tried, and boxes that must agree

POINTS_BOX = {"yunet": (0.84, 0.11), "haar": (0.97, 0.16)}
"""A detector's box against that of 68 points, both taken as squares of their longer side: the points' side, and how far
below the detector's centre they have theirs, as shares of the detector's side.

Means over the 385 test faces of faces68 and 6 of WFLW and 300-W. They vary by 0.05 and 0.03 (YuNet), 0.10 and 0.06 (the
cascade, which also moves sideways by 0.10, and does not see 5 % of them, mostly from the side)."""


def make_finder(options: Mapping[str, Any], ids: PictureIds, *, device: str) -> Finder:
    """What `boxes=...` and `detector=...` say: a detector of OpenCV's, or what finds people too."""
    boxes, detector, score = options["boxes"], options["detector"], options["score"]
    path = None
    if isinstance(boxes, str):
        path = Path(boxes) if boxes == "image" else local(boxes)
        if detector == "haar" or (detector is None and path.suffix == ".xml"):
            if score is not None:
                raise ConfigError(
                    "score: the boxes of a cascade have no score. Leave it out, or take detector=yunet."
                )
            return from_cascade(None if boxes == "image" else path)
        if detector == "yunet" and boxes == "image":
            raise ConfigError(f"boxes: detector=yunet needs a file, boxes=FILE.onnx: {YUNET_SOURCE}.")
        if boxes == "image" and detector is not None:
            raise ConfigError(f"detector: found {detector!r}. {nearest(str(detector), ('yunet', 'haar'))}")
        if detector == "yunet" or (detector is None and path.suffix == ".onnx"):
            return from_yunet(path, YUNET_SCORE if score is None else float(score))
        if path.is_file() and path.suffix not in (".json", ".ckpt", ".pth"):
            raise DataError(f"boxes: {path}: {EXPECTED}.")
    return person_boxes.make_finder(options, ids, device=device, name=FACE, expected=EXPECTED)


def from_yunet(file: Path, least: float) -> Finder:
    """YuNet, a face detector of 76,000 weights (Wu et al., 2023, doi:10.1007/s11633-023-1423-y), run by OpenCV.

    It knows faces of about 10 to 300 pixels, so a picture is shrunk to 640 pixels on its longer side: at 1,024 the box of
    a face of 640 is a fifth too small, at 3,000 it is missed. Faces below 1/64 of the picture are missed instead.
    """
    if not file.is_file():
        raise DataError(f"boxes: {file}: no such file; expected {YUNET_SOURCE}.")
    start = file.read_bytes()[: len(LFS)]
    if start == LFS:
        raise DataError(
            f"boxes: {file}: found the text that Git LFS keeps in place of a file; expected {YUNET_SOURCE}. Download the "
            "file itself, or run git lfs pull."
        )
    try:
        with quiet():
            network = cv2.FaceDetectorYN.create(
                str(file), "", (64, 64), score_threshold=least, nms_threshold=YUNET_OVERLAP
            )
            network.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"boxes: {file}: OpenCV cannot use it ({reason}); expected {YUNET_SOURCE}."
        ) from error

    def find(frame: Frame, image_id: int) -> Boxes:
        photo = frame.picture
        factor = min(1.0, YUNET_SIDE / max(photo.shape[:2]))
        small = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        if factor < 1:
            sides = [max(1, round(side * factor)) for side in photo.shape[1::-1]]
            small = cv2.resize(small, sides, interpolation=cv2.INTER_AREA)
        network.setInputSize(small.shape[1::-1])
        found = network.detect(small)[1]  # x, y, width, height, five points, score
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        zoom = np.array([photo.shape[1] / small.shape[1], photo.shape[0] / small.shape[0]] * 2)
        rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 2:4] > 0).all(axis=1)]
        return Boxes(around_points(rows[:, :4] * zoom, *POINTS_BOX["yunet"]), rows[:, -1])

    return find


def from_cascade(file: Path | None) -> Finder:
    """A Haar cascade (Viola and Jones, 2001) of OpenCV's format; None: for faces from the front, which OpenCV 4 ships.

    It needs no weights, and is what one had before networks: it misses turned and tilted faces and sees some in
    wallpaper, and its boxes are rough. Every box has a score of 1. OpenCV 5 has no cascades.
    """
    if not hasattr(cv2, "CascadeClassifier"):
        raise ConfigError(
            f"detector: OpenCV {cv2.__version__} has no Haar cascades any more; versions below 5 have them. Expected "
            f"detector=yunet boxes=FILE.onnx: {YUNET_SOURCE}."
        )
    place = Path(cv2.__file__).parent / "data" / HAAR_FILE if file is None else file
    if not place.is_file():
        raise DataError(f"boxes: {place}: no such file; expected a cascade of OpenCV, such as {HAAR_FILE}.")
    try:
        cascade = cv2.CascadeClassifier(str(place))
    except (cv2.error, SystemError) as error:
        raise DataError(f"boxes: {place}: not a cascade of OpenCV, such as {HAAR_FILE}.") from error
    if cascade.empty():
        raise DataError(f"boxes: {place}: not a cascade of OpenCV, such as {HAAR_FILE}.")

    def find(frame: Frame, image_id: int) -> Boxes:
        grey = cv2.cvtColor(frame.picture, cv2.COLOR_RGB2GRAY)
        found = cascade.detectMultiScale(grey, scaleFactor=HAAR_STEP, minNeighbors=HAAR_NEIGHBOURS)
        boxes = np.asarray(found, np.float64).reshape(-1, 4)
        return Boxes(around_points(boxes, *POINTS_BOX["haar"]), np.ones(len(boxes)))

    return find


def around_points(boxes: np.ndarray, side: float, below: float) -> np.ndarray:
    """Boxes (N, 4) of a detector, as x, y, width, height -> squares about as large as the points' boxes: `POINTS_BOX`."""
    longer = boxes[:, 2:].max(axis=1, keepdims=True)
    centre = boxes[:, :2] + boxes[:, 2:] / 2 + longer * [0, below]
    sides = np.repeat(side * longer, 2, axis=1)
    return np.hstack([centre - sides / 2, sides])


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV's log down to errors: version 5 warns about a setting of its own."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
