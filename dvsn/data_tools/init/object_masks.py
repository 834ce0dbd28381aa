"""Masks that lie apart: a file for each object of a picture, which nothing reads before they are joined."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.naming import MASKS, is_mask
from dvsn.errors import DataError

WORDS = "|".join(sorted({*MASKS, "object", "obj", "instance", "inst"} - {"x", "y"}, key=len, reverse=True))
NUMBERED = re.compile(rf"(?P<photo>.+?)[_\-. ](?P<word>(?:{WORDS})[_\-. ]?)?\d+", re.IGNORECASE)


def refuse_apart(listing: Listing) -> None:
    """Raise `DataError` where at least half of the pictures that have masks have several, a number each."""
    masks: dict[str, list[str]] = {}
    for name, photo in owners(listing):
        masks.setdefault(photo, []).append(name)
    several = {photo: each for photo, each in masks.items() if len(each) > 1}
    if not several or 2 * len(several) < len(masks):
        return
    photo, each = next(iter(several.items()))
    raise DataError(
        f"{listing.root}: {len(several)} pictures have several masks, one an object, such as {photo} with {few(each)}. "
        "Expected one mask a picture: join those of a picture to one, the maximum of all, to learn which pixels are an "
        "object; or write their outlines into a COCO JSON, to tell objects apart."
    )


def owners(listing: Listing) -> Iterator[tuple[str, str]]:
    """Each mask that is one of several, and the picture that it belongs to: 1_mask_0.png to 1.jpg, masks/1_0.png to
    images/1.jpg, masks/1/0.png to images/1.jpg, 1/masks/a.png to 1/images/1.png."""
    stems = {
        PurePosixPath(name).stem: name
        for name in listing.pictures
        if not any(map(is_mask, name.split("/")[:-1]))
    }
    for name in listing.pictures:
        path = PurePosixPath(name)
        folders, match = path.parts[:-1], NUMBERED.fullmatch(path.stem)
        below = any(map(is_mask, folders))
        if match and match["photo"] in stems and stems[match["photo"]] != name and (below or match["word"]):
            yield name, stems[match["photo"]]
        elif below and path.stem not in stems:
            photo = next((stems[part] for part in folders if part in stems), None)
            if photo is not None:
                yield name, photo
