"""Photos with a mask file for each object: which pixels are an object, or, as objects, which belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dvsn.data.object_masks import OBJECT, class_of, masks_of, picture_size, read_plane
from dvsn.data_tools.findings import counted
from dvsn.data_tools.init import mask_recipe, pictures
from dvsn.data_tools.init.box_words import finish
from dvsn.data_tools.init.found import COULD, LOOKS, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.mask_content import read_mask
from dvsn.data_tools.init.patterns import ALL
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError

LOOKED_AT = 200
"""Photos whose masks are decoded, evenly spread, for the shares of the classes and the sizes of objects."""
BLENDS = 64
"""Values of a mask of one object, soft edges included; one with more is a photo, or holds a number for each object."""

propose = mask_recipe.propose


def apart(listing: Listing) -> dict[str, list[str]]:
    """The masks of each photo, where at least half of the photos that have masks have several, or where the masks lie in
    several folders of classes; else {}."""
    owned = masks_of(listing.pictures)
    several = sum(len(masks) > 1 for masks in owned.values())
    named = Counter(class_of(mask, photo) for photo, masks in owned.items() for mask in masks)
    by_class = len(named) > 1 and OBJECT not in named
    return owned if owned and (by_class or (several and 2 * several >= len(owned))) else {}


def look(listing: Listing) -> Found | None:
    """A map of classes for each photo, joined from its masks."""
    owned = apart(listing)
    if not owned:
        return None
    sizes = pictures.sizes_of(listing, sorted(owned))
    names = ["background", *class_names(owned)]
    splits = by_split(owned, listing)
    pixels, _ = measure(listing, owned, names)
    node: dict[str, Any] = {"names": names}
    lonely = left_out(listing, owned)
    if lonely:
        node["skip_lonely"] = True
    found = Found(
        kind="photos with a mask for each object", task="segmentation", base="object_masks",
        counts={split: len(each) for split, each in splits.items()}, sure=LOOKS, claimed=claimed(owned),
        node={"dataset": node, "classes": len(names)}, comments={"classes": "as many as names"},
        sizes=Counter(sizes.values()), classes=names,
    )  # fmt: skip
    if list(splits) == [ALL]:
        found.items = splits[ALL]
        found.shows = [
            frozenset(names.index(each) for each in shown(photo, owned[photo])) for photo in splits[ALL]
        ]
    found.facts |= {"predict": [listing.path(splits[list(splits)[-1]][-1])], "pixels": pixels}
    shares = [f"{name} {100 * n / max(1, sum(pixels)):.1f} %" for name, n in zip(names, pixels, strict=True)]
    example = next(photo for photo, masks in owned.items() if len(masks) == max(map(len, owned.values())))
    masks = sum(map(len, owned.values()))
    found.says = [
        f"{counted(len(owned), 'photo')} with {counted(masks, 'mask')}, such as {example} with {few(owned[example])}"
        f"{found.parts_words()}",
        f"{found.size_words()} (height x width)",
        f"the masks of a photo are joined: {counted(len(names), 'class', 'classes')}: {few(shares, 16)}",
    ]
    found.odd = lonely
    return found


def objects(listing: Listing) -> Found | None:
    """An object for each mask, with the box around it."""
    owned = apart(listing)
    if not owned:
        return None
    names, splits = class_names(owned), by_split(owned, listing)
    _, sides = measure(listing, owned, ["background", *names])
    node: dict[str, Any] = {"names": dict(enumerate(names, 1))}
    lonely = left_out(listing, owned)
    if lonely:
        node["skip_lonely"] = True
    files = sorted(mask for masks in owned.values() for mask in masks)
    found = finish(
        listing,
        kind="objects with a mask each",
        base="mask_boxes",
        node=node,
        photos=splits,
        files=files,
        counts={
            split: Counter(class_of(mask, photo) for photo in each for mask in owned[photo])
            for split, each in splits.items()
        },
        sides=sides,
        shows={
            split: [frozenset(names.index(name) + 1 for name in shown(photo, owned[photo])) for photo in each]
            for split, each in splits.items()
        },
    )
    found.sure, found.odd = COULD, lonely
    found.facts["predict"] = [listing.path(splits[list(splits)[-1]][-1])]  # its folder may hold masks, too
    found.says.append("train on masks with network.detector=mask_rcnn data.objects.masks=true")
    return found


def claimed(owned: Mapping[str, Sequence[str]]) -> frozenset[str]:
    return frozenset([*owned, *(mask for masks in owned.values() for mask in masks)])


def class_names(owned: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes of the masks, sorted. Raises `DataError` where some masks lie in folders of classes and others do not."""
    named = {class_of(mask, photo): mask for photo, masks in owned.items() for mask in masks}
    if OBJECT in named and len(named) > 1:
        raise DataError(
            f"{named[OBJECT]}: in no folder of a class, and other masks are in folders of "
            f"{few(sorted({*named} - {OBJECT}))}. Expected all of them in folders such as masks/CLASS/, or none."
        )
    return sorted(named)


def shown(photo: str, masks: Sequence[str]) -> set[str]:
    return {class_of(mask, photo) for mask in masks}


def by_split(owned: Mapping[str, Sequence[str]], listing: Listing) -> dict[str, list[str]]:
    """The photos by the folder of their split, or all. Raises `DataError` where some are in a split and others are not."""
    found: dict[str, list[str]] = {}
    for photo in sorted(owned):
        split = next((part for part in photo.split("/")[:-1] if role_of(part)), ALL)
        found.setdefault(split, []).append(photo)
    if ALL in found and len(found) > 1:
        raise DataError(
            f"{listing.root}: {len(found[ALL])} photos, such as {found[ALL][0]}, are in no split, and others are in "
            f"{', '.join(sorted({*found} - {ALL}))}. Expected every photo in a split, or none."
        )
    return found


def measure(
    listing: Listing, owned: Mapping[str, Sequence[str]], names: Sequence[str]
) -> tuple[list[int], list[float]]:
    """Pixels by class, and the root of each object's area. Raises `DataError` for masks that hold more than one object."""
    pixels, sides = [0] * len(names), []
    for photo in pictures.spread(sorted(owned), LOOKED_AT):
        size = picture_size(listing.path(photo))
        ids = np.zeros(size, np.uint8)
        for number, mask in sorted((names.index(class_of(mask, photo)), mask) for mask in owned[photo]):
            check_one(listing, photo, mask)
            plane = read_plane(listing.path(mask), size)
            ids[plane] = number
            sides.append(float(plane.sum()) ** 0.5)
        for number, count in enumerate(np.bincount(ids.ravel(), minlength=len(names)).tolist()):
            pixels[number] += count
    return pixels, [side for side in sides if side]


def check_one(listing: Listing, photo: str, name: str) -> None:
    """Raise `DataError` for a mask of more than two values far from each other: it holds several objects, or none."""
    content = read_mask(listing.path(name))
    even = content.inner.total() or 1
    plain = [value for value, count in content.inner.items() if count > 0.02 * even]
    if len(plain) > 2 or (len(content.values) > BLENDS and not content.lossy):
        raise DataError(
            f"{listing.path(name)}: one of several masks of {photo}, with {len(content.values)} different values. Expected "
            "a mask of one object, dark but for it; of several versions of a mask move all but one away."
        )


def left_out(listing: Listing, owned: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for pictures that are neither."""
    rest = sorted({*listing.pictures} - claimed(owned))
    return [f"{counted(len(rest), 'picture')} without a mask: {few(rest)}"] if rest else []
