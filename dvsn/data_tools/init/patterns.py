"""Files and folders of several splits as one pattern with `{split}`, for recognisers."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvsn.data_tools.init import pictures
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.pictures import spread
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError

ALL = "all"
WORD = re.compile(r"[A-Za-z]+(?:2014|2017)?")


def split_in(path: str) -> tuple[str, str] | None:
    """The word of a path that is the name of a split, and the path with `{split}` in its place; the last such word counts
    and every equal one is replaced: train/images_train.json."""
    found = [each[0] for each in WORD.finditer(path) if role_of(each[0])]
    if not found:
        return None
    word = found[-1]
    return word, re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z0-9])", "{split}", path)


def by_pattern(paths: Iterable[str]) -> dict[str, dict[str, str]]:
    """Paths by their pattern and split; those without a split's name are patterns of their own, of the split `all`."""
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        split, pattern = split_in(path) or (ALL, path)
        found.setdefault(pattern, {})[split] = path
    return found


def best(
    patterns: Mapping[str, Mapping[str, str]], listing: Listing, what: str
) -> tuple[str, dict[str, str]]:
    """The pattern of most files. Raises `DataError` where several files are equally good and none says its split."""
    most = max(len(each) for each in patterns.values())
    chosen = [pattern for pattern, each in patterns.items() if len(each) == most]
    if most == 1 and len(chosen) > 1:
        files = [path for each in patterns.values() for path in each.values()]
        raise DataError(
            f"{listing.root}: {len(files)} files of {what}, {few(files)}, and none says by its name which split it is. Put "
            "train and val into their names, or give a folder that holds one of them."
        )
    return chosen[0], dict(patterns[chosen[0]])


def picture_folder(listing: Listing, wanted: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> str:
    """The folder below the root in which each split's pictures lie under the names that its file has, `{split}` in it.

    Raises `DataError` where pictures are not there.
    """
    there = set(listing.pictures)
    ends: dict[str, list[str]] = {}
    for path in listing.pictures:
        ends.setdefault(path.rpartition("/")[2], []).append(path)
    places: dict[str, str] = {}
    for split, names in wanted.items():
        votes: Counter[str] = Counter()
        for name in spread(names, 200):
            for path in ends.get(name.rpartition("/")[2], ()):
                if path == name or path.endswith(f"/{name}"):
                    votes[path[: len(path) - len(name)].rstrip("/")] += 1
        file = listing.path(files[split])
        if not votes:
            raise DataError(
                f"{file}: none of its {len(names)} pictures, such as {names[0]!r}, is below "
                f"{listing.root}. Copy the pictures "
                "there, or give the folder that holds both."
            )
        most = max(votes.values())
        places[split] = min(
            (each for each, count in votes.items() if count == most), key=lambda each: role_first(each, split)
        )
        start = f"{places[split]}/" if places[split] else ""
        missing = sorted({name for name in names if start + name not in there})
        if missing:
            raise DataError(
                f"{file}: {len(missing)} of the {len(set(names))} pictures that it describes are not in "
                f"{listing.path(places[split])}: {few(missing)}. Copy them there, or take them out of the file."
            )
    return one_pattern(places, listing)


def role_first(place: str, split: str) -> tuple[bool, int, str]:
    """Of several folders with the same names, the split's own, then the shortest."""
    return split not in re.split(r"[/_.-]", place), len(place), place


def last_folder(listing: Listing, photos: Mapping[str, Sequence[str]]) -> Path:
    """The folder of the pictures of the last split, such as val: where a prediction may be tried."""
    names = photos[list(photos)[-1]]
    return listing.path(os.path.commonpath([name.rpartition("/")[0] for name in names]) if names else "")


def one_pattern(places: Mapping[str, str], listing: Listing) -> str:
    """Folders by split as one pattern."""
    if len(set(places.values())) == 1:
        return next(iter(places.values())) or "."
    found = {
        re.sub(rf"(?<![A-Za-z]){split}(?![A-Za-z0-9])", "{split}", place) for split, place in places.items()
    }
    if len(found) > 1:
        listed = ", ".join(f"{split} in {place or 'the folder itself'}" for split, place in places.items())
        raise DataError(
            f"{listing.root}: the pictures of the splits lie in folders of no common pattern: {listed}. "
            f"Name them alike, such "
            "as images/train and images/val."
        )
    return found.pop()


def annotated(
    listing: Listing,
    photos: Mapping[str, Sequence[str]],
    files: Sequence[str],
    *,
    without: str,
    **fields: Any,
) -> tuple[Found, dict[str, pictures.Size]]:
    """What annotation `files` describe, and the sizes of its pictures by name. `photos`: the pictures by split, one an item.
    Pictures that no file describes are said to be `without`; `fields` are others of `Found`."""
    used = sorted({name for each in photos.values() for name in each})
    sizes = pictures.sizes_of(listing, used)
    found = Found(
        counts={split: len(each) for split, each in photos.items()}, claimed=frozenset([*used, *files]),
        sizes=Counter(sizes.values()), **fields,
    )  # fmt: skip
    if list(photos) == [ALL]:
        found.items = photos[ALL]
    found.facts["predict"] = [last_folder(listing, photos)]
    loose = sorted(set(listing.pictures) - {*used, *files})
    found.odd = [f"{len(loose)} pictures {without}: {few(loose)}"] if loose else []
    return found, sizes
