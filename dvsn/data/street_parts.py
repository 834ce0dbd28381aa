"""Parts of the things in the embedded street scenes: windows, markings, wheels, hair.

Cityscapes says of a pixel that it is building or car, not that it is a window or a wheel. The drawn scenes know that,
too, and write it as further files, NAME_gtFine_partIds.png, with ids of their own. Such label maps exist for photographs:
CMP facades (Tylecek and Sara, 2013: window, door, sill, cornice, shop ...) and Cityscapes-Panoptic-Parts (de Geus et al.,
2021, arXiv:2106.06351: of vehicles window, wheel, light, license plate, chassis; of people torso, head, arms, legs).

A part's label is one of `cityscapes_labels.LABELS`, so that label ids follow from part ids, never the reverse. Labels
that the scenes do not draw have no part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dvsn.data.cityscapes_labels import ID_OF


class Part(NamedTuple):
    """One row of the table. `piece` is "" for what is left of the label; `color` is RGB, 0..255."""

    label: str
    piece: str
    color: tuple[int, int, int]

    @property
    def name(self) -> str:
        return f"{self.label}: {self.piece}" if self.piece else self.label


PARTS: tuple[Part, ...] = (
    Part("road", "", (128, 64, 128)),
    Part("road", "marking", (250, 220, 250)),
    Part("sidewalk", "", (244, 35, 232)),
    Part("sidewalk", "curb", (250, 150, 240)),
    Part("building", "", (70, 70, 70)),
    Part("building", "base", (52, 48, 48)),
    Part("building", "trim", (190, 185, 170)),
    Part("building", "window", (60, 130, 160)),
    Part("building", "blind", (130, 170, 180)),
    Part("building", "lit", (255, 210, 110)),
    Part("building", "door", (130, 70, 40)),
    Part("building", "shop", (170, 60, 60)),
    Part("building", "display", (90, 180, 190)),
    Part("building", "lettering", (250, 240, 220)),
    Part("building", "roof", (150, 80, 60)),
    Part("wall", "", (102, 102, 156)),
    Part("fence", "", (190, 153, 153)),
    Part("fence", "picket", (225, 200, 200)),
    Part("pole", "", (153, 153, 153)),
    Part("pole", "lamp", (255, 245, 190)),
    Part("traffic light", "", (250, 170, 30)),
    Part("traffic light", "lamp", (255, 240, 60)),
    Part("traffic sign", "", (220, 220, 0)),
    Part("traffic sign", "symbol", (150, 150, 0)),
    Part("vegetation", "", (107, 142, 35)),
    Part("vegetation", "trunk", (110, 80, 40)),
    Part("terrain", "", (152, 251, 152)),
    Part("sky", "", (70, 130, 180)),
    Part("person", "", (220, 20, 60)),
    Part("person", "skin", (255, 190, 160)),
    Part("person", "hair", (120, 40, 40)),
    Part("person", "trousers", (150, 10, 110)),
    Part("person", "shoes", (80, 0, 30)),
    Part("car", "", (0, 0, 142)),
    Part("car", "glass", (90, 140, 230)),
    Part("car", "wheel", (0, 0, 50)),
    Part("car", "rim", (130, 130, 200)),
    Part("car", "headlamp", (255, 255, 170)),
    Part("car", "tail lamp", (230, 40, 40)),
    Part("car", "plate", (235, 235, 255)),
    Part("car", "dark", (0, 0, 90)),
    Part("bus", "", (0, 60, 100)),
    Part("bus", "glass", (90, 180, 210)),
    Part("bus", "wheel", (0, 25, 40)),
    Part("bus", "dark", (0, 40, 65)),
)
"""By part id. Of a label, what is left of it comes first."""

PIECES: tuple[str, ...] = tuple(dict.fromkeys(part.piece for part in PARTS))
"""By the number that the painter uses; 0 is no piece."""


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    part_id_of = np.zeros((256, len(PIECES)), np.uint8)
    label_id_of = np.zeros(256, np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    for number, part in enumerate(PARTS):
        if part.piece:
            part_id_of[ID_OF[part.label], PIECES.index(part.piece)] = number
        else:  # also for the pieces of this label that have no row
            part_id_of[ID_OF[part.label]] = number
        label_id_of[number] = ID_OF[part.label]
        palette[number] = part.color
    for table in (part_id_of, label_id_of, palette):
        table.setflags(write=False)
    return part_id_of, label_id_of, palette


PART_ID_OF, PART_LABEL_ID_OF, PART_PALETTE = _tables()
"""`PART_ID_OF` (256, pieces) uint8: label id and number of the piece -> part id. `PART_LABEL_ID_OF` (256,) uint8: part
id -> label id. `PART_PALETTE` (256, 3) uint8 RGB by part id. All three are read-only."""
