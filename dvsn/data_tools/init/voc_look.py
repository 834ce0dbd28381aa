"""Pascal VOC's XML files in a folder, for the recogniser of objects."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from dvsn.data.voc import VocObjects
from dvsn.data.xml_files import read_xml, text_in
from dvsn.data_tools.init.box_words import finish, side_of
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.patterns import ALL, one_pattern
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError

OBJECTS = "SegmentationObject"
MAPS = {OBJECTS, "SegmentationClass"}
"""VOC's folders of maps, which are no photos."""
EXPECTED = "annotations of a picture, as Pascal VOC has them"


def objects(listing: Listing) -> Found | None:
    """Boxes of VOC's files."""
    files = listing.ending(".xml")
    roots = {name: read_xml(listing.path(name), expected=EXPECTED) for name in files}
    files = tuple(name for name in files if roots[name].tag == "annotation")
    if not files:
        return None
    maps = {name for name in listing.pictures if MAPS & set(name.split("/")[:-1])}
    pictures, annotations, lists, splits = places(listing, files, maps)
    names = sorted({text_in(each, "name") for name in files for each in roots[name].iter("object")} - {""})
    if not names:
        raise DataError(
            f"{listing.root}: {len(files)} XML files, and no object with a name in any. Expected one or more."
        )
    node: dict[str, Any] = {
        "names": dict(enumerate(names, 1)), "annotations": annotations, "pictures": pictures, "lists": lists
    }  # fmt: skip
    sets = {
        split: VocObjects(root=str(listing.root), split=split, classes=len(names) + 1, **node)
        for split in splits
    }
    truths = {split: [each.truth(index) for index in range(len(each))] for split, each in sets.items()}
    made = finish(
        listing,
        kind="objects in Pascal VOC's XML files",
        base="voc_boxes",
        node=node,
        photos={
            split: [path.relative_to(listing.root).as_posix() for path in each.pictures]
            for split, each in sets.items()
        },
        files=[*files, *sorted(maps)],
        counts={
            split: Counter(names[box["category_id"] - 1] for one in each for box in one)
            for split, each in truths.items()
        },
        sides=[side_of(box["bbox"]) for each in truths.values() for one in each for box in one],
        shows={
            split: [frozenset(box["category_id"] for box in one) for one in each]
            for split, each in truths.items()
        },
    )
    made.says += outlines_said(listing, maps, [path.stem for each in sets.values() for path in each.pictures])
    return made


def outlines_said(listing: Listing, maps: set[str], photos: list[str]) -> list[str]:
    """How many of the photos, by their stems, have a map of objects, and how one trains on masks."""
    folders = {name.rpartition("/")[0] for name in maps if name.split("/")[-2] == OBJECTS}
    if len(folders) != 1:
        return []
    (folder,) = folders
    there = {PurePosixPath(name).stem for name in maps if name.rpartition("/")[0] == folder}
    known = sum(stem in there for stem in photos)
    lists = f"{folder.removesuffix(OBJECTS)}ImageSets/Segmentation/"
    how = f"train on masks with network.detector=mask_rcnn data.objects.outlines={folder}"
    if known < len(photos) and any(name.startswith(lists) for name in listing.others):
        how += f" \"data.objects.lists='{lists}{{split}}.txt'\""
    elif known < len(photos):
        how = "masks are trained on where every picture has one, or a list names those that have (data.objects.lists)"
    return [f"outlines of {known} of {len(photos)} pictures are there: {how}"]


def places(
    listing: Listing, files: tuple[str, ...], maps: set[str]
) -> tuple[str, str, str | None, list[str]]:
    """The folders of pictures and XML files, the pattern of lists if there are, and the splits. `maps` are no photos."""
    by_stem: dict[str, list[str]] = {}
    for name in set(listing.pictures) - maps:
        by_stem.setdefault(name.rpartition("/")[2].rpartition(".")[0], []).append(name)
    pairs: dict[str, tuple[str, str]] = {}
    for name in files:
        folder, _, file = name.rpartition("/")
        photos = by_stem.get(file.rpartition(".")[0], [])
        if not photos:
            raise DataError(
                f"{listing.path(name)}: no picture {file.rpartition('.')[0]}.jpg below {listing.root}, "
                f"but the file describes it. "
                "Copy it there, or move the XML file away."
            )
        photo = max(photos, key=lambda each: shared(each, name)).rpartition("/")[0]
        split = next((part for part in reversed(folder.split("/")) if role_of(part)), ALL)
        if pairs.setdefault(split, (photo, folder)) != (photo, folder):
            raise DataError(
                f"{listing.root}: the XML files lie in several folders: "
                f"{few(sorted({n.rpartition('/')[0] for n in files}))}. "
                "Expected one, or one a split."
            )
    pictures, annotations = (
        one_pattern({split: each[n] for split, each in pairs.items()}, listing) for n in (0, 1)
    )
    texts = [each for each in listing.ending(".txt") if "ImageSets/" in f"/{each}"]
    texts.sort(key=lambda each: "ImageSets/Main/" in each)  # the last of a name counts: those of boxes
    named = {PurePosixPath(each).stem: each for each in texts}
    lists = [split for split in named if role_of(split)]
    if list(pairs) == [ALL] and len(lists) > 1:
        folder = named[lists[0]].rpartition("/")[0]
        return pictures, annotations, f"{folder}/{{split}}.txt", lists
    return pictures, annotations, None, list(pairs)


def shared(one: str, other: str) -> int:
    """How many folders two paths share from the start."""
    ours, theirs = (set(PurePosixPath(path).parents) for path in (one, other))
    return len(ours & theirs) - 1  # "." is above all
