"""Lists of names by split beside photos and masks, such as Pascal VOC's ImageSets/Segmentation/train.txt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from dvsn.data.folders import ALL, stem_of
from dvsn.data.labelled import names_in
from dvsn.data_tools.init.layouts import Layout
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.splits import role_of


def by_lists(listing: Listing, layout: Layout) -> tuple[Layout, str | None, list[str]]:
    """The layout parted by the lists of one folder, and their pattern, `ImageSets/Segmentation/{split}.txt`; as it was, and
    None, where there are none for a layout without splits. Last: why lists that are there are not used, a sentence each."""
    if list(layout.pairs) != [ALL]:
        return layout, None, []
    known = {}
    for pair in layout.every:
        stem = stem_of(PurePosixPath(pair[0]), layout.endings[0])
        if stem is not None:
            known[stem.relative_to(layout.first).as_posix()] = pair
    notes = []
    for folder, files in folders_of(listing).items():
        names = {split: names_in(listing.path(file)) for split, file in files.items()}
        strange = sorted({name for each in names.values() for name in each} - known.keys())
        if strange:
            if any(name in known for each in names.values() for name in each):
                notes.append(
                    f"lists of {folder or 'the folder itself'}/ are not used: {len(strange)} of their names have no photo "
                    f"with a mask, such as {few(strange, 1)}"
                )
            continue
        pairs = {split: [known[name] for name in each] for split, each in names.items()}
        start = f"{folder}/" if folder else ""
        return replace(layout, pairs=pairs), f"{start}{{split}}.txt", []
    return layout, None, notes


def folders_of(listing: Listing) -> dict[str, dict[str, str]]:
    """Folders with a list to train by and another one, those of segmentation first: the file of each split."""
    found: dict[str, dict[str, str]] = {}
    for name in listing.ending(".txt"):
        path = PurePosixPath(name)
        if role_of(path.stem) and path.suffix == ".txt":
            found.setdefault("" if path.parent.name == "" else path.parent.as_posix(), {})[path.stem] = name
    whole = {
        folder: files
        for folder, files in found.items()
        if len(files) > 1 and any(role_of(split) == "train" for split in files)
    }
    return dict(sorted(whole.items(), key=lambda each: ("segmentation" not in each[0].lower(), each[0])))
