"""The vocabulary every layer shares.

Coordinates: RGB channel order; points are (x, y) in pixels unless the name says `unit_`, pixel centres at
integers; angles in radians unless the name says `degrees`; image sizes are written (height, width).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

Sample = dict[str, Any]
"""One item of a data set. Before the transform: numpy, uint8, (H, W, C) pictures and (H, W) label ids.
After it: tensors, (C, H, W) uint8. Always holds `index` (int) and `name` (str, a file stem)."""

Batch = dict[str, Any]
"""Collated samples: uint8 tensors (N, C, H, W), `index` (N,) and `name`, a list of N strings."""

Terms = dict[str, Tensor]
"""Named, already weighted scalar losses. The objective is their sum."""
