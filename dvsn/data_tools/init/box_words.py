"""What the three formats of boxes say alike, for the recogniser of objects."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dvsn.data_tools.findings import counted
from dvsn.data_tools.init import coco_look
from dvsn.data_tools.init.found import STATED, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.patterns import ALL, annotated
from dvsn.errors import DataError


def finish(
    listing: Listing,
    *,
    kind: str,
    base: str,
    node: dict[str, Any],
    photos: dict[str, list[str]],
    files: list[str],
    counts: dict[str, Counter[str]],
    sides: list[float],
    shows: dict[str, list[frozenset[int]]],
) -> Found:
    """What all three formats say. `photos`, `counts` of objects by class, and the labels that pictures show, by split;
    `sides`, the root of each box's area in pixels."""
    total = sum(map(len, photos.values()))
    if not sides:
        raise DataError(f"{listing.root}: {total} pictures, and no box in any. Expected one object or more.")
    lines = coco_look.check_learnt(counts, listing.root)
    names = list(node["names"].values())
    every = sum(counts.values(), Counter())
    never = [name for name in names if not every[name]]
    found, _ = annotated(
        listing, photos, files, without="that no annotation names", kind=kind, task="detection", base=base, sure=STATED,
        node={"objects": node}, classes=names,
    )  # fmt: skip
    if found.items:
        found.shows = shows[ALL]
    found.facts["sides"] = [float(value) for value in np.quantile(sides, (0.1, 0.5, 0.9))]
    found.facts["objects"] = len(sides)
    found.says = [
        f"{total} pictures, {found.size_words()} (height x width), {len(sides)} objects of "
        f"{found.facts['sides'][0]:.0f} to {found.facts['sides'][2]:.0f} pixels, most {found.facts['sides'][1]:.0f}",
        f"{counted(len(names), 'class', 'classes')}: {few([f'{name} ({every[name]})' for name in names], 12)}",
        *lines,
    ]
    if never:
        found.says.append(f"no object of {few(never)}: nothing will be learnt of it")
    return found


def side_of(box: Any) -> float:
    """The root of the area of x, y, width, height."""
    try:
        return float(max(0.0, float(box[2])) * max(0.0, float(box[3]))) ** 0.5
    except (TypeError, ValueError):
        return 0.0
