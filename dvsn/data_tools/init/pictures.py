"""What the headers of pictures say, for recognisers: nothing is decoded here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dvsn.data_tools.init.listing import Listing, few
from dvsn.errors import DataError
from dvsn.portable.headers import size_of

LOOKED_AT = 4000
"""Pictures that are opened, evenly spread; `dvsn.data check` opens all."""

Size = tuple[int, int]
Item = TypeVar("Item")


def spread(names: Sequence[Item], limit: int = LOOKED_AT) -> list[Item]:
    """At most `limit` of them, evenly from the first on."""
    count = min(len(names), limit)
    return [names[len(names) * number // count] for number in range(count)]


def sizes_of(listing: Listing, names: Sequence[str]) -> dict[str, Size]:
    """(height, width) by name. Raises `DataError` that names the pictures that are empty or no pictures."""
    looked = spread(names)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: size_of(listing.path(name)), looked))
    sizes = {name: size for name, size in zip(looked, found, strict=True) if size is not None}
    bad = [name for name in looked if name not in sizes]
    if bad:
        raise DataError(
            f"{listing.root}: {len(bad)} of {len(looked)} pictures cannot be read: {few(bad)}. They are empty, damaged or "
            "no pictures. Copy them again, or move them (and what belongs to them) away."
        )
    return sizes
