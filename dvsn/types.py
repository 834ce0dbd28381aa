"""The vocabulary every layer shares.

Coordinates: RGB channel order; points are (x, y) in pixels unless the name says `unit_`, pixel centres at
integers; angles in radians unless the name says `degrees`; image sizes are written (height, width).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

IGNORE = 255
"""The class id that is neither trained on nor scored, in every target of every data set, whatever its files say."""

Sample = dict[str, Any]
"""One item of a data set. Before the transform: numpy, uint8, (H, W, C) pictures and (H, W) label ids.
After it: tensors, (C, H, W) uint8. Always holds `index` (int) and `name` (str, a file stem)."""

Batch = dict[str, Any]
"""Collated samples: uint8 tensors (N, C, H, W), `index` (N,) and `name`, a list of N strings."""

Terms = dict[str, Tensor]
"""Named, already weighted scalar losses. The objective is their sum."""


class SegmentationOutput(NamedTuple):
    """What a segmentation network answers: raw logits, at the network's own stride.

    `logits` (N, K, h, w) is the main response. `auxiliary` holds further class logits and `boundary` one logit
    for "an outline runs here", (N, 1, h, w); both come from heads that are used in training only.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    boundary: Tensor | None = None


class LandmarkOutput(NamedTuple):
    """What a network that regresses landmarks answers.

    `points` (N, L, 2) is the main response: x and y as fractions of the crop's sides, which may lie outside of [0, 1].
    `angles` (N, 3), pitch, yaw and roll in radians, come from a head that is used in training only.
    """

    points: Tensor
    angles: Tensor | None = None


class Vocabulary(NamedTuple):
    """The classes of a data set, in the order of their ids."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """An RGB colour a class, for pictures."""
    swaps: tuple[tuple[int, int], ...] = ()
    """Pairs of classes that a mirror exchanges, such as left arm and right arm."""
    file_ids: tuple[int, ...] = ()
    """The id of each class in files for the data set's test server, where it is another one."""
