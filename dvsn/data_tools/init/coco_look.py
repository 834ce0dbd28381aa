"""COCO's JSON files in a folder, for recognisers of objects and keypoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from dvsn.data.coco_files import list_pictures
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.patterns import ALL, best, by_pattern, picture_folder
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError
from dvsn.reading import read_json

MOST = 64  # JSON files that are opened


class Coco(NamedTuple):
    """The annotation files of one pattern."""

    annotations: str
    """With `{split}`, relative to the root."""
    images: str
    """The folder of the pictures, likewise."""
    contents: dict[str, dict[str, Any]]
    """What they hold, by split."""
    files: dict[str, str]
    names: dict[str, dict[int, str]]
    """The names of the pictures by id, by split, as the file has them."""

    def photo(self, split: str, image_id: int) -> str:
        """A picture relative to the root."""
        folder = self.images.replace("{split}", split)
        name = self.names[split][image_id]
        return name if folder == "." else f"{folder}/{name}"


def coco(listing: Listing, needs: str) -> Coco | None:
    """The files whose annotations hold `needs`; None where there are none. Raises `DataError` for files that are broken, or
    whose pictures are not there."""
    found: dict[str, dict[str, Any]] = {}
    broken: list[DataError] = []
    for name in listing.ending(".json")[:MOST]:
        try:
            content = read_json(listing.path(name))
        except DataError as error:
            broken.append(error)
            continue
        if is_coco(content) and any(
            needs in each for each in content["annotations"] if isinstance(each, dict)
        ):
            found[name] = content
    if not found:
        if broken:
            raise broken[0]
        return None
    patterns = alike_once(by_pattern(found), found)
    pattern, files = best(patterns, listing, "annotations in COCO's format")
    contents = {split: found[name] for split, name in files.items()}
    names: dict[str, dict[int, str]] = {}
    for split, name in files.items():
        path = listing.path(name)
        listed = list_pictures(contents[split]["images"], path.parent, path, sizes_from="picture")
        by_id = {each["id"]: each["file_name"] for each in contents[split]["images"]}
        names[split] = {
            number: str(by_id.get(number, picture.path.name)) for number, picture in listed.items()
        }
    wanted = {split: list(each.values()) for split, each in names.items() if each}
    return Coco(pattern, picture_folder(listing, wanted, files), contents, files, names)


def alike_once(
    patterns: Mapping[str, Mapping[str, str]], contents: Mapping[str, Any]
) -> dict[str, Mapping[str, str]]:
    """Of single files that describe the same pictures, such as several versions of one, that of the shortest name."""
    found: dict[str, Mapping[str, str]] = {}
    seen = set()
    for pattern in sorted(patterns, key=lambda each: (-len(patterns[each]), len(each), each)):
        names = [contents[path]["images"] for path in patterns[pattern].values()]
        told = repr(
            [
                sorted(str(each.get("file_name")) for each in images if isinstance(each, dict))
                for images in names
            ]
        )
        if told not in seen:
            seen.add(told)
            found[pattern] = patterns[pattern]
    return found


def is_coco(content: Any) -> bool:
    keys = ("images", "annotations", "categories")
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys)


def categories(found: Coco, listing: Listing) -> dict[int, str]:
    """Names by category id, of all splits. Raises `DataError` where an id means one class here and another one there."""
    known: dict[int, tuple[str, str]] = {}
    for split, content in found.contents.items():
        for each in content["categories"]:
            number, name = each.get("id"), each.get("name")
            if type(number) is not int or not isinstance(name, str) or not name.strip():
                raise DataError(f"{listing.path(found.files[split])}: a category has id {number!r} and "
                                f"name {name!r}, expected a "
                                "whole number and a name.")  # fmt: skip
            before, where = known.setdefault(number, (name, split))
            if before != name:
                raise DataError(
                    f"{listing.path(found.files[split])}: category {number} is '{name}', but '{before}' "
                    f"in {where}. Expected "
                    "the same categories in the files of all splits."
                )
    return {number: name for number, (name, _) in sorted(known.items())}


def check_learnt(counts: Mapping[str, Counter[str]], root: Any, what: str = "objects") -> list[str]:
    """Lines about classes that are in train alone; `counts` are by split and class. Raises `DataError` for a class that is
    measured and never learnt."""
    train = next((split for split in counts if role_of(split) == "train"), None)
    if train is None or ALL in counts:
        return []
    lines = []
    for split, each in counts.items():
        unknown = sorted(each.keys() - counts[train].keys())
        if unknown:
            shown = few([f"{name} ({each[name]})" for name in unknown])
            raise DataError(
                f"{root}: {split} has {what} of classes that train has none of: {shown}. Nothing can be "
                f"learnt of them: move "
                f"some of their pictures to train, or take them out of {split}."
            )
        absent = sorted(counts[train].keys() - each.keys())
        if absent and split != train:
            lines.append(f"{split} has no {few(absent)}: learnt, and not measured there")
    return lines
