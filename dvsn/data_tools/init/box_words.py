"""What the three formats of boxes say alike, for the recogniser of objects."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dvsn.data_tools.init import coco_look, pictures
from dvsn.data_tools.init.found import STATED, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.patterns import ALL, last_folder
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
    used = [name for each in photos.values() for name in each]
    if not sides:
        raise DataError(
            f"{listing.root}: {len(used)} pictures, and no box in any. Expected one object or more."
        )
    lines = coco_look.check_learnt(counts, listing.root)
    sizes = pictures.sizes_of(listing, used)
    names = list(node["names"].values())
    every = sum(counts.values(), Counter())
    never = [name for name in names if not every[name]]
    found = Found(
        kind=kind,
        task="detection",
        base=base,
        counts={split: len(each) for split, each in photos.items()},
        sure=STATED,
        claimed=frozenset([*used, *files]),
        node={"objects": node},
        sizes=Counter(sizes.values()),
        classes=names,
    )
    if list(photos) == [ALL]:
        found.items, found.shows = photos[ALL], shows[ALL]
    found.facts["sides"] = [float(value) for value in np.quantile(sides, (0.1, 0.5, 0.9))]
    found.facts["objects"] = len(sides)
    found.facts["predict"] = [last_folder(listing, photos)]
    found.says = [
        f"{len(used)} pictures, {found.size_words()} (height x width), {len(sides)} objects of "
        f"{found.facts['sides'][0]:.0f} to {found.facts['sides'][2]:.0f} pixels, most {found.facts['sides'][1]:.0f}",
        f"{len(names)} classes: {few([f'{name} ({every[name]})' for name in names], 12)}",
        *lines,
    ]
    if never:
        found.says.append(f"no object of {few(never)}: nothing will be learnt of it")
    loose = sorted(set(listing.pictures) - set(used))
    found.odd = [f"{len(loose)} pictures that no annotation names: {few(loose)}"] if loose else []
    return found


def side_of(box: Any) -> float:
    """The root of the area of x, y, width, height."""
    try:
        return float(max(0.0, float(box[2])) * max(0.0, float(box[3]))) ** 0.5
    except (TypeError, ValueError):
        return 0.0
