"""Files of data sets: listed, required, named. `dvsn.portable.decode` decodes pictures, its names stand here too."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from dvsn.errors import MissingError, nearest
from dvsn.portable.bands import NUMPY
from dvsn.portable.decode import (
    MAX_PIXELS,
    Rule,
    check_pixels,
    deep_file,
    highest_deep,
    make_rule,
    open_stored,
    read_by,
    read_colors,
    read_grey,
    read_labels,
    read_rgb,
    rule_in_force,
    to_eight_bits,
    to_rgb,
)

__all__ = [
    "JUNK",
    "MAX_PIXELS",
    "SUFFIXES",
    "Rule",
    "check_pixels",
    "deep_file",
    "highest_deep",
    "list_pictures",
    "make_rule",
    "open_stored",
    "pictures_below",
    "read_by",
    "read_colors",
    "read_grey",
    "read_labels",
    "read_rgb",
    "require_file",
    "require_folder",
    "rule_in_force",
    "to_eight_bits",
    "to_rgb",
    "unique_names",
]

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
"""What counts as a picture when a folder is listed."""

JUNK = frozenset({"__MACOSX", "@eaDir"})
"""Folders that archivers and file servers leave behind; hidden ones, such as .ipynb_checkpoints, are none either."""


def require_folder(path: str | Path, *, expected: str, option: str) -> Path:
    """`path` if it is a folder; else a `DataError` with the expected tree and the option that sets it."""
    path = Path(path)
    if path.is_dir():
        return path
    raise MissingError(_missing(path, "folder", expected, option), path)


def require_file(path: str | Path, *, expected: str, option: str) -> Path:
    """`path` if it is a file; else a `DataError` with the expected tree and the option that sets it."""
    path = Path(path)
    if path.is_file():
        return path
    raise MissingError(_missing(path, "file", expected, option), path)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and all folders below it, sorted by their names; see `pictures_below`."""
    return sorted(folder / name for name in pictures_below(folder))


def pictures_below(
    folder: str | Path, *, prefix: str = "", skip: Path | None = None, suffixes: Container[str] | None = None
) -> Iterator[str]:
    """Paths of all pictures below a folder, each starting with `prefix`, in no order: the one rule of every reader and of
    `dvsn.predict`, which wants videos too and says so by `suffixes`. Where the rule in force has bands, arrays of numpy are
    pictures too.

    Hidden files and folders (macOS leaves `._name.png`) and `JUNK` are none. Links are followed, in no circle. `skip` is a
    folder that is left out.
    """
    if suffixes is None:
        suffixes = SUFFIXES if rule_in_force().bands is None else SUFFIXES | {NUMPY}
    return _below(str(folder), prefix, skip, (os.path.realpath(folder),), suffixes)


def _below(
    folder: str, prefix: str, skip: Path | None, above: tuple[str, ...], suffixes: Container[str]
) -> Iterator[str]:
    for item in os.scandir(folder):
        if item.name.startswith(".") or item.name in JUNK:
            continue
        if item.is_dir():
            real = os.path.realpath(item.path)
            if real not in above and (skip is None or real != os.path.realpath(skip)):
                yield from _below(item.path, f"{prefix}{item.name}/", skip, (*above, real), suffixes)
        elif os.path.splitext(item.name)[1].lower() in suffixes:  # noqa: PTH122 - a million of them
            yield f"{prefix}{item.name}"


def unique_names(paths: Iterable[Path]) -> list[str]:
    """One name a file, for pictures made from it: its stem if all stems differ, else with its folder."""
    paths = list(paths)
    for name in (
        lambda p: p.stem,
        lambda p: f"{p.parent.name}_{p.stem}",
        lambda p: f"{p.parent.name}_{p.name}",
    ):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{number:06d}_{path.stem}" for number, path in enumerate(paths)]


def _missing(path: Path, kind: str, expected: str, option: str) -> str:
    found = "it exists, but is something else" if path.exists() else "nothing is there"
    if not path.exists() and path.parent.is_dir():
        beside = nearest(
            path.name, (each.name for each in path.parent.iterdir() if not each.name.startswith("."))
        )
        found = f"nothing is there. {beside.replace('Valid:', 'In its folder:')}".rstrip()
    tree = expected.rstrip()
    return f"{path}: no such {kind}: {found}\nExpected this tree:\n{tree}\nSet its root with {option}."
