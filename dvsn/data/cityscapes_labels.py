"""The Cityscapes label table: 34 label ids and the licence plate, with train ids and colours.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", 2016, arXiv:1604.01685. Two
numberings exist: *label ids* (0..33, in the `_labelIds` files) and *train ids* (0..18, what networks predict,
with 255 for everything that is not evaluated). The licence plate has id -1 and therefore never occurs in a
picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

IGNORE = 255


class Label(NamedTuple):
    """One row of the table. `color` is RGB, 0..255; `train_id` is 255 where the class is not evaluated."""

    name: str
    id: int
    train_id: int
    color: tuple[int, int, int]
    has_instances: bool


LABELS: tuple[Label, ...] = (
    Label("unlabeled", 0, 255, (0, 0, 0), False),
    Label("ego vehicle", 1, 255, (0, 0, 0), False),
    Label("rectification border", 2, 255, (0, 0, 0), False),
    Label("out of roi", 3, 255, (0, 0, 0), False),
    Label("static", 4, 255, (0, 0, 0), False),
    Label("dynamic", 5, 255, (111, 74, 0), False),
    Label("ground", 6, 255, (81, 0, 81), False),
    Label("road", 7, 0, (128, 64, 128), False),
    Label("sidewalk", 8, 1, (244, 35, 232), False),
    Label("parking", 9, 255, (250, 170, 160), False),
    Label("rail track", 10, 255, (230, 150, 140), False),
    Label("building", 11, 2, (70, 70, 70), False),
    Label("wall", 12, 3, (102, 102, 156), False),
    Label("fence", 13, 4, (190, 153, 153), False),
    Label("guard rail", 14, 255, (180, 165, 180), False),
    Label("bridge", 15, 255, (150, 100, 100), False),
    Label("tunnel", 16, 255, (150, 120, 90), False),
    Label("pole", 17, 5, (153, 153, 153), False),
    Label("polegroup", 18, 255, (153, 153, 153), False),
    Label("traffic light", 19, 6, (250, 170, 30), False),
    Label("traffic sign", 20, 7, (220, 220, 0), False),
    Label("vegetation", 21, 8, (107, 142, 35), False),
    Label("terrain", 22, 9, (152, 251, 152), False),
    Label("sky", 23, 10, (70, 130, 180), False),
    Label("person", 24, 11, (220, 20, 60), True),
    Label("rider", 25, 12, (255, 0, 0), True),
    Label("car", 26, 13, (0, 0, 142), True),
    Label("truck", 27, 14, (0, 0, 70), True),
    Label("bus", 28, 15, (0, 60, 100), True),
    Label("caravan", 29, 255, (0, 0, 90), True),
    Label("trailer", 30, 255, (0, 0, 110), True),
    Label("train", 31, 16, (0, 80, 100), True),
    Label("motorcycle", 32, 17, (0, 0, 230), True),
    Label("bicycle", 33, 18, (119, 11, 32), True),
    Label("license plate", -1, 255, (0, 0, 142), False),
)

ID_OF: dict[str, int] = {label.name: label.id for label in LABELS}
"""Label id by name."""

CLASS_NAMES: tuple[str, ...] = tuple(
    label.name for label in sorted(LABELS, key=lambda each: each.train_id) if label.train_id != IGNORE
)
"""The 19 evaluated classes in the order of their train ids."""

FILE_IDS: tuple[int, ...] = tuple(ID_OF[name] for name in CLASS_NAMES)
"""Their label ids, which the files for the test server hold."""


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    palette = np.zeros((256, 3), np.uint8)
    train_palette = np.zeros((256, 3), np.uint8)
    train_id_of = np.full(256, IGNORE, np.uint8)
    for label in LABELS:
        if label.id < 0:
            continue
        palette[label.id] = label.color
        train_id_of[label.id] = label.train_id
        if label.train_id != IGNORE:
            train_palette[label.train_id] = label.color
    for table in (palette, train_palette, train_id_of):
        table.setflags(write=False)
    return palette, train_palette, train_id_of


PALETTE, TRAIN_PALETTE, TRAIN_ID_OF = _tables()
"""`PALETTE` (256, 3) uint8 RGB by label id; `TRAIN_PALETTE` (256, 3) uint8 RGB by train id; `TRAIN_ID_OF`
(256,) uint8, label id -> train id. Ids outside the table are black and 255. All three are read-only.
"""
