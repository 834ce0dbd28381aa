"""LIP (Look into Person): the parts of one person a picture, of which six come in a left and a right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2

from dvsn.data.class_ids import ClassIds, distinct_palette
from dvsn.data.files import require_folder
from dvsn.data.folders import match
from dvsn.data.labelled import LabelledPhotos, Labels, existing_pairs, listed_pairs
from dvsn.errors import ConfigError, DataError
from dvsn.types import Sample, Vocabulary

TREE = """\
    ROOT/TrainVal_images/{train,val}_images/NAME.jpg
    ROOT/TrainVal_parsing_annotations/{train,val}_segmentations/NAME.png   8-bit ids 0..19
    or any tree with data.dataset.list_file"""

CLASS_NAMES = (
    "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left arm", "right arm", "left leg", "right leg", "left shoe",
    "right shoe",
)  # fmt: skip

SWAPS = ((14, 15), (16, 17), (18, 19))
"""A mirrored left arm is a right arm: in the label, and in the scores of a mirrored picture."""


class LIP(LabelledPhotos):
    """30,462 train and 10,000 val crops of one person each (Gong et al., 2017, arXiv:1703.05446).

    The published mirrored copies of the labels are not read: a mirror exchanges the classes of
    `Vocabulary.swaps`. Some photos are grey and become RGB. Some differ from their label by a pixel in height or
    width: within `tolerance` pixels the *photo* is resized (bilinear), so that the label, against which scores
    are taken, stays as published; beyond, the pair is an error.

    `list_file` reads "photo label" lines, of which a third column (the mirrored label) is not used.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Labels = "classes",
        tolerance: int = 1,
        list_file: str | None = None,
        ignore_ids: Sequence[int] = (),
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        if tolerance < 0:
            raise ConfigError(f"data.dataset.tolerance: found {tolerance}, expected 0 or more pixels.")
        super().__init__(vocabulary=self.vocabulary(), labels=labels, transform=transform, seed=seed)
        self.tolerance = tolerance
        base = require_folder(root, expected=TREE, option="data.root")
        if list_file is not None:
            pairs = listed_pairs(base, list_file, split, columns=(2, 3))
            self.pairs = existing_pairs(pairs, base, tree=TREE)
        else:
            photos = base / "TrainVal_images" / f"{split}_images"
            annotations = base / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            for folder in (photos, annotations):
                require_folder(folder, expected=TREE, option="data.root")
            self.pairs = match(photos, annotations)
        self.class_ids = ClassIds(
            {each: each for each in range(20)}, kind="0..19", names=CLASS_NAMES, ignore_ids=ignore_ids
        )

    @classmethod
    def vocabulary(cls, **_: object) -> Vocabulary:
        """The 20 classes, the background first, and the pairs that a mirror exchanges."""
        return Vocabulary(CLASS_NAMES, distinct_palette(20, first=0), SWAPS)

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        (height, width), found = sample["label"].shape, sample["photo"].shape[:2]
        off = max(abs(found[0] - height), abs(found[1] - width))
        if off > self.tolerance:
            raise DataError(
                f"{self.describe(index)}: photo {found[0]}x{found[1]}, label {height}x{width} (height x width): they "
                f"differ by {off} pixels, expected {self.tolerance} at most (data.dataset.tolerance)."
            )
        if off:
            sample["photo"] = cv2.resize(sample["photo"], (width, height), interpolation=cv2.INTER_LINEAR)
        return sample
