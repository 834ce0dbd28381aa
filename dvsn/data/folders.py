"""Pairs from two folders of equal names: the simplest way to bring one's own data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar, Literal, TypeVar

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import (
    list_pictures,
    read_by,
    read_labels,
    read_rgb,
    require_folder,
    rule_in_force,
    unique_names,
)
from dvsn.errors import ConfigError, DataError, MissingError
from dvsn.types import Sample

TREE = """\
    ROOT/{split}/{a}/NAME.png   ROOT/{split}/{b}/NAME.png     or
    ROOT/{a}/{split}/NAME.png   ROOT/{b}/{split}/NAME.png     or
    ROOT/{split}{a}/NAME.png    ROOT/{split}{b}/NAME.png    or, of a split called all,
    ROOT/{a}/NAME.png           ROOT/{b}/NAME.png
    A name (without its ending) must be in both folders, and in the same folder below them. With split={split}, a={a},
    b={b}."""

ALL = "all"
"""The split of a data set without folders of splits; ranges of it, such as all[:80%], are what is learnt and measured."""

Kind = Literal["photo", "label", "ids"]


class Folders(ImageDataset):
    """Two folders whose files match by stem; endings may differ. Keys `a` and `b`.

    `a` and `b` are the folders' names, `a_ending` and `b_ending` what their files' names have in addition (see `stem_of`):
    with them both may lie in one folder, "." for both. Their kinds: "photo" and "label" give (H, W, 3) uint8 RGB, a label
    being resized by nearest only; "ids" gives (H, W) label ids from 8-bit or palette pictures.
    """

    gives: ClassVar[dict[str, str]] = {"a": "photo", "b": "photo"}  # or labels, as colours
    takes_bands: ClassVar[bool] = True

    def __init__(
        self,
        *,
        root: str,
        split: str,
        a: str = "a",
        b: str = "b",
        a_kind: Kind = "photo",
        b_kind: Kind = "photo",
        a_ending: str = "",
        b_ending: str = "",
        skip_lonely: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        for option, kind in (("a_kind", a_kind), ("b_kind", b_kind)):
            if kind not in ("photo", "label", "ids"):
                raise ConfigError(f"data.dataset.{option}: found '{kind}', expected photo, label or ids.")
        self.readers = {
            "a": read_labels if a_kind == "ids" else read_rgb,
            "b": read_labels if b_kind == "ids" else read_rgb,
        }
        self.kinds = {
            "a": "photo" if a_kind == "photo" else "label",
            "b": "photo" if b_kind == "photo" else "label",
        }
        super().__init__(transform=transform, seed=seed)
        folders = find_folders(root, split, a, b)
        self.pairs = match(*folders, endings=(a_ending, b_ending), skip=skip_lonely)
        self.names = unique_names(first for first, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self, index: int) -> str:
        return " + ".join(map(str, self.pairs[index]))

    def photos(self, index: int) -> list[Path]:
        return [
            path for key, path in zip("ab", self.pairs[index], strict=True) if self.readers[key] is read_rgb
        ]

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> Sample:
        return {key: self._read(key, path) for key, path in zip("ab", self.pairs[index], strict=True)}

    def _read(self, key: str, path: Path) -> np.ndarray:
        """One of the two; only the one that is `banded` by the rule's bands."""
        rule = rule_in_force()
        if rule.bands is None or key == self.banded:
            return self.readers[key](path)
        with read_by(replace(rule, bands=None)):
            return self.readers[key](path)

    def banded_photo(self, index: int) -> Path:
        return self.pairs[index]["ab".index(self.banded)]


def find_folders(
    root: str, split: str, a: str, b: str, *, options: str = "data.dataset.a, data.dataset.b"
) -> tuple[Path, Path]:
    """The two folders, in the first layout of `TREE` that is there. `options` set their names."""
    tree = TREE.format(split=split, a=a, b=b)
    base = require_folder(root, expected=tree, option="data.root")
    layouts = [(base / split / a, base / split / b), (base / a / split, base / b / split)]
    layouts.append((base / f"{split}{a}", base / f"{split}{b}"))
    if split == ALL:
        layouts.append((base / a, base / b))
    for first, second in layouts:
        if first.is_dir() and second.is_dir():
            return first, second
    found = (
        ", ".join(sorted(each.name + "/" for each in base.iterdir() if each.is_dir())) or "no folder at all"
    )
    there = any(folder.is_dir() for layout in layouts for folder in layout)
    raise (DataError if there else partial(MissingError, path=base / split))(
        f"{base}: found {found}. Expected one of these trees:\n{tree}\n"
        f"Set the names with {options} and data.splits."
    )


def split_folder(base: Path, split: str) -> Path:
    """The folder of a split; of one called all that has none, the whole."""
    return base if split == ALL and not (base / split).is_dir() else base / split


AnyPath = TypeVar("AnyPath", bound=PurePath)


def stem_of(path: AnyPath, ending: str) -> AnyPath | None:
    """The path without the ending of its name; None where it has another one. An ending with a dot is one of the whole
    name, such as .jpg or _mask.png, any other one is of the stem. With a star it is the form of the whole stem, the star
    being what both sides share: mask_*, or */mask, which is a file called mask in a folder of each name."""
    start, star, end = ending.partition("*")
    if not star:
        name = path.name if "." in ending else path.stem
        return path.with_name(name.removesuffix(ending)) if name.endswith(ending) and name != ending else None
    if end.startswith("/"):
        return path.parent if path.stem == end[1:] and path.parent.name.startswith(start) else None
    if (
        not path.stem.startswith(start)
        or not path.stem.endswith(end)
        or len(path.stem) <= len(start) + len(end)
    ):
        return None
    return path.with_name(path.stem[len(start) : len(path.stem) - len(end)])


def match(
    first: Path, second: Path, *, endings: tuple[str, str] = ("", ""), skip: bool = False
) -> list[tuple[Path, Path]]:
    """The pairs of two folders, sorted by name; a `DataError` lists what has no partner, unless it is to be skipped.

    `endings` of the names do not count (see `stem_of`), and a file without its folder's ending is another kind of file, as
    is in one folder for both a file with the other's longer ending. Folders below them count: a/1.png belongs to a/1.jpg.
    """
    stems = []
    for folder, ending, other in zip((first, second), endings, reversed(endings), strict=True):
        files: dict[str, Path] = {}
        longer = first == second and len(other) > len(ending)
        for path in list_pictures(folder):
            without = stem_of(path, ending)
            if without is None or (longer and stem_of(path, other) is not None):
                continue
            stem = without.relative_to(folder).as_posix()
            if stem in files:
                raise DataError(
                    f"{path}: a second file of this name beside {files[stem].name}; expected one."
                )
            files[stem] = path
        stems.append(files)
    lonely = {
        folder: sorted(stems[i].keys() - stems[1 - i].keys()) for i, folder in enumerate((first, second))
    }
    if any(lonely.values()) and not skip:
        lines = [
            f"  {len(names)} only in {folder}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for folder, names in lonely.items()
            if names
        ]
        raise DataError(
            f"{first} + {second}: the folders' names differ.\n" + "\n".join(lines) + "\n"
            "Expected the same names in both (endings may differ): add what is missing or move the rest away."
        )
    both = sorted(stems[0].keys() & stems[1].keys())
    if not both:
        named = [
            f"{folder}/**/{ending if '*' in ending else f'*{ending}'}{'' if '.' in ending else '.png'}"
            for folder, ending in zip((first, second), endings, strict=True)
        ]
        raise DataError(f"{first} + {second}: no picture in these folders; expected {' and '.join(named)}.")
    return [(stems[0][name], stems[1][name]) for name in both]
