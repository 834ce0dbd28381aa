"""Names of classes from the lists that lie beside masks."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

from dvsn import reading
from dvsn.data_tools.init.listing import Listing
from dvsn.errors import DataError

FILES = (
    "_classes.csv", "classes.csv", "class_dict.csv", "labelmap.txt", "label_colors.txt", "classes.txt", "codes.txt",
    "labels.txt", "names.txt", "class_names.txt", "obj.names", "classes.json", "id2label.json", "data.yaml", "dataset.yaml",
)  # fmt: skip
"""Lists that annotation tools write, the plainest first: by Roboflow, CVAT, Kaggle's CamVid, fastai and others."""

NUMBER = re.compile(r"\d{1,5}")


class Names:
    """`by_id` (file id), `by_colour` (packed), `in_order` (no number given); `file` it is from, "" where there is none."""

    def __init__(self) -> None:
        self.by_id: dict[int, str] = {}
        self.by_colour: dict[int, str] = {}
        self.in_order: list[str] = []
        self.file = ""

    def known(self, *, colours: bool) -> dict[int, str]:
        """By value of the masks, as far as the file says."""
        return self.by_colour if colours else self.by_id


def read_names(listing: Listing) -> Names:
    """From the first list that says anything. A file that cannot be read as one says nothing."""
    lying: dict[str, str] = {}
    for name in listing.others:
        lying.setdefault(PurePosixPath(name).name.lower(), name)
    for wanted in FILES:
        if wanted in lying:
            names = Names()
            names.file = lying[wanted]
            try:
                text = reading.read_text(
                    listing.path(names.file), expected="a list of classes", limit=1 << 20
                )
            except DataError:
                continue
            _fill(names, text, wanted)
            if names.by_id or names.by_colour or names.in_order:
                return names
    return Names()


def _fill(names: Names, text: str, kind: str) -> None:
    if kind.endswith((".json", ".yaml")):
        _from_tree(names, text, kind)
        return
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        fields = [each.strip().strip("\"'") for each in re.split(r"[,;:\t]+", line) if each.strip()]
        if len(fields) == 1 or not any(NUMBER.fullmatch(each) for each in fields):
            fields = _by_blanks(line, fields)
        numbers = [int(each) for each in fields if NUMBER.fullmatch(each)]
        name = next((each for each in fields if not NUMBER.fullmatch(each)), "")
        if not name:
            continue
        if len(numbers) >= 3 and max(numbers[-3:]) <= 255:
            red, green, blue = numbers[-3:]
            names.by_colour[red << 16 | green << 8 | blue] = name
            if len(numbers) == 4:
                names.by_id[numbers[0]] = name
        elif len(numbers) == 1:
            names.by_id[numbers[0]] = name
        elif not numbers and not re.fullmatch(r"(class|name|label|pixel value|classes|names)", name.lower()):
            names.in_order.append(name)
    if names.by_id or names.by_colour:
        names.in_order = []


def _by_blanks(line: str, fields: list[str]) -> list[str]:
    """Numbers before or after a name that stand apart by blanks: `64 128 64 Animal`, `3 traffic light`."""
    match = re.fullmatch(r"((?:\d+\s+)*)(.*?)((?:\s+\d+)*)", line)
    if match is None or not (match[1] or match[3]) or (len(fields) > 1 and not match[1]):
        return fields
    return [*match[1].split(), match[2].strip("\"' \t"), *match[3].split()]


def _from_tree(names: Names, text: str, kind: str) -> None:
    import yaml

    try:
        tree = json.loads(text) if kind.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return
    if isinstance(tree, dict) and isinstance(tree.get("names"), dict | list):
        tree = tree["names"]
    if isinstance(tree, list):
        names.in_order = [str(each) for each in tree if isinstance(each, str | int)]
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if str(key).isdecimal() and isinstance(value, str):
                names.by_id[int(key)] = value
            elif isinstance(value, int) and not isinstance(value, bool):
                names.by_id[value] = str(key)
