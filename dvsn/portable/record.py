"""The fields of a result: what was found in one picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dvsn.portable.frame import Frame
from dvsn.portable.joints import Skeleton
from dvsn.portable.runs import Code, decode_mask

Array = np.ndarray[Any, Any]
Colour = tuple[int, int, int]

SHOWN = {"detection": 0.5, "pose": 0.2, "landmarks": 0.2}
"""From which score objects, or confidence keypoints, are drawn, where nobody says otherwise."""


class RankedClass(NamedTuple):
    """A class of a whole picture."""

    name: str
    number: int
    """Its id."""
    score: float
    """Its probability, in [0, 1]."""


@dataclass(eq=False, repr=False)
class Record:
    """The answer of a task to one picture, in numpy. What a task does not answer is None.

    Coordinates are (x, y) in pixels of `frame.picture`, the centre of the first one at (0, 0); boxes are x1, y1, x2, y2
    between the pixels' edges as the data set has them. Segmentation and pix2pix fill `ids` or `picture`, detection `boxes`,
    `scores`, `labels` and perhaps masks, pose `boxes`, `scores` and `keypoints`, landmarks `boxes`, `scores` and `points`,
    classification `classes`. N objects, people or faces, the best first.
    """

    kind: str
    """The task: segmentation, pix2pix, detection, pose, landmarks or classification."""
    frame: Frame
    """The picture that was asked about."""
    names: tuple[str, ...] = ()
    """Class names by id; of pose and landmarks one, such as `person`."""
    palette: tuple[Colour, ...] = ()
    """RGB by id."""
    ids: Array | None = None
    """(H, W) uint8 class ids, 255 is none. As large as the picture, with `original_size=False` as the network has it."""
    boxes: Array | None = None
    """(N, 4) float64: x1, y1, x2, y2. Of pose and landmarks those that the crops were made of."""
    scores: Array | None = None
    """(N,) float64. Of pose and landmarks the box's, times the mean of the sure confidences."""
    labels: Array | None = None
    """(N,) int64 ids of classes."""
    mask_codes: list[Code] | None = None
    """N masks as COCO's run lengths; see `masks`."""
    keypoints: Array | None = None
    """(N, K, 3) float64: x, y, confidence. Of pose."""
    points: Array | None = None
    """(N, L, 3) float64: x, y, confidence, which is 1 from networks that know none. Of landmarks."""
    skeleton: Skeleton | None = None
    """Names, pairs and lines of `keypoints` or `points`."""
    angles_degrees: Array | None = None
    """(N, 3) float64: pitch, yaw and roll of each head, as `dvsn.geometry.head_angles` counts them; NaN where unknown."""
    classes: list[RankedClass] | None = None
    """The likeliest classes of the picture, the best first."""
    picture: Array | None = None
    """uint8 (H, W, 3) RGB, or (H, W) grey: what pix2pix made."""
    seen: Array | None = None
    """uint8 (h, w, 3) RGB: what the network was shown, in its size, of answers in pictures; a map of ids in colours. It is
    for drawings, and no part of `to_json`."""
    track_ids: Array | None = None
    """(N,) int64, from 1: the same number is the same person or face in another frame; 0: nobody knows yet."""
    image_id: int | None = None
    """The picture's number in COCO's files."""
    file_ids: Mapping[int, int] = field(default_factory=dict)
    """By id of a class its number in files of the data set, where that is another one."""
    shown_from: float | None = None
    """The score from which an object, or the confidence from which a keypoint is drawn; None: as `SHOWN`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the answer: of `ids` or `picture` where there are any, else of the frame."""
        answer = self.ids if self.ids is not None else self.picture
        return self.frame.size if answer is None else (int(answer.shape[0]), int(answer.shape[1]))

    @property
    def masks(self) -> Array | None:
        """(N, H, W) bool, decoded each time it is asked for; None where there are none."""
        if self.mask_codes is None:
            return None
        return np.array([decode_mask(code) for code in self.mask_codes], bool).reshape(-1, *self.frame.size)

    def __len__(self) -> int:
        """How many objects, people or faces there are; 0 for answers about the whole picture."""
        return 0 if self.boxes is None else len(self.boxes)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        height, width = self.size
        return f"Result({self.kind}, {self.frame.name!r}, {height}x{width}: {self.summary()})"

    def summary(self) -> str:
        """What was found, in a few words."""
        if self.classes is not None:
            return ", ".join(f"{each.name} {each.score:.0%}" for each in self.classes[:3])
        if self.ids is not None:
            counts = np.bincount(self.ids.ravel(), minlength=len(self.names))[: len(self.names)]
            order = [number for number in np.argsort(-counts, kind="stable")[:5] if counts[number]]
            shares = [f"{self.names[number]} {counts[number] / self.ids.size:.0%}" for number in order]
            return ", ".join(shares) or "no class"
        if self.boxes is None:
            return "a picture"
        if self.labels is not None:
            counted = Counter(self.names[label] for label in self.labels.tolist())
            return ", ".join(f"{count} {name}" for name, count in counted.most_common(5)) or "nothing"
        return f"{len(self)} {self.names[0] if self.names else 'found'}"
