"""Lists of names by split beside photos and masks, such as Pascal VOC's ImageSets/Segmentation/train.txt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from dvsn.data.folders import ALL
from dvsn.data.labelled import names_in, places_by_name
from dvsn.data_tools.findings import counted
from dvsn.data_tools.init.layouts import Layout
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError


def by_lists(listing: Listing, layout: Layout) -> tuple[Layout, str | None, list[str]]:
    """The layout parted by the lists of one folder, and their pattern, `ImageSets/Segmentation/{split}.txt`; as it was, and
    None, where there are none for a layout without splits. Last a sentence for each: lists that are there and not used, and
    photos that are in no list. An empty list is passed over."""
    if list(layout.pairs) != [ALL]:
        return layout, None, []
    every = layout.every
    photos = [PurePosixPath(photo) for photo, _ in every]
    known = places_by_name(photos, PurePosixPath(layout.first), layout.endings[0])
    notes = []
    for folder, files in folders_of(listing).items():
        try:
            lists = {split: each for split, file in files.items() if (each := names_in(listing.path(file)))}
        except DataError as error:
            notes.append(f"lists are not used: {error}")
            continue
        if not is_parting(lists):
            continue
        listed = set(itertools.chain.from_iterable(lists.values()))
        if strange := sorted(listed - known.keys()):
            if listed & known.keys():
                notes.append(
                    f"lists of {folder or 'the folder itself'}/ are not used: {len(strange)} of their names have no photo "
                    f"with a mask, such as {few(strange, 1)}"
                )
            continue
        unlisted = sorted(known.keys() - listed)
        said = counted(len(unlisted), "photo with a mask is", "photos with a mask are")
        notes = [f"{said} in no list and left out: {few(unlisted)}"] if unlisted else []
        pairs = {split: [every[known[name]] for name in names] for split, names in lists.items()}
        start = f"{folder}/" if folder else ""
        return replace(layout, pairs=pairs), f"{start}{{split}}.txt", notes
    return layout, None, notes


def is_parting(splits: Iterable[str]) -> bool:
    """Whether there is one to train by, and another one."""
    roles = [role_of(split) for split in splits]
    return len(roles) > 1 and "train" in roles


def folders_of(listing: Listing) -> dict[str, dict[str, str]]:
    """Folders with a list to train by and another one, those of segmentation first: the file of each split."""
    found: dict[str, dict[str, str]] = {}
    for name in listing.ending(".txt"):
        path = PurePosixPath(name)
        if role_of(path.stem) and path.suffix == ".txt":
            found.setdefault("" if path.parent.name == "" else path.parent.as_posix(), {})[path.stem] = name
    whole = {folder: files for folder, files in found.items() if is_parting(files)}
    return dict(sorted(whole.items(), key=lambda each: ("segmentation" not in each[0].lower(), each[0])))
