"""What lies in a folder: one walk, by the rules of `dvsn.data.files`, in which no file is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from dvsn.data.files import JUNK, SUFFIXES
from dvsn.data_tools.init.naming import is_part
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError


@dataclass(frozen=True)
class Listing:
    """The files below `root`, by their paths relative to it, sorted, with `/` between folders.

    `pictures` have an ending of a picture, `others` are all the rest: annotations, lists, notes. Hidden files and folders
    and those of archivers are passed over and counted in `junk`. Links are followed, in no circle.
    """

    root: Path
    pictures: tuple[str, ...]
    others: tuple[str, ...] = ()
    junk: int = 0
    _by_folder: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, root: Path) -> Listing:
        """One walk. Raises `DataError` for a folder that is not there, is empty, or cannot be read."""
        if not root.is_dir():
            kind = "it is a file; give the folder that it lies in" if root.is_file() else "no such folder"
            raise DataError(f"{root}: {kind}. Expected a folder with pictures of your own.")
        pictures: list[str] = []
        others: list[str] = []
        junk = _walk(str(root), "", (os.path.realpath(root),), pictures, others)
        if not pictures and not others:
            raise DataError(
                f"{root}: the folder is empty{f' but for {junk} hidden files' if junk else ''}. Expected pictures of your "
                "own, such as photos/1.jpg and masks/1.png."
            )
        return cls(root, tuple(sorted(pictures)), tuple(sorted(others)), junk)._lowered()

    def _lowered(self) -> Listing:
        """Without the one folder that all files lie in, as archives have it, but for notes beside it."""
        files = [*self.pictures, *(each for each in self.others if "/" in each or not is_note(each))]
        top = {name.partition("/")[0] if "/" in name else "" for name in files}
        if len(top) != 1 or "" in top or not self.pictures:
            return self
        (only,) = top
        if role_of(only) or (is_part(only) and not any(name.count("/") > 1 for name in self.pictures)):
            return self
        return self.within(only)._lowered()

    def within(self, folder: str) -> Listing:
        """What lies below a folder, as if that had been given."""
        start = f"{folder}/"
        pictures, others = (
            tuple(name.removeprefix(start) for name in names if name.startswith(start))
            for names in (self.pictures, self.others)
        )
        return Listing(self.root / folder, pictures, others, self.junk)

    def path(self, name: str) -> Path:
        return self.root / name

    @cached_property
    def folders(self) -> dict[str, tuple[str, ...]]:
        """The pictures by the folder that they lie in directly, "" being the root."""
        found: dict[str, list[str]] = {}
        for name in self.pictures:
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return {folder: tuple(names) for folder, names in found.items()}

    def below(self, folder: str) -> tuple[str, ...]:
        """The pictures in a folder and in all below it."""
        start = f"{folder}/" if folder else ""
        return tuple(name for name in self.pictures if name.startswith(start))

    def named(self, *names: str) -> tuple[str, ...]:
        """The other files of these names (lower case), wherever they lie."""
        return tuple(each for each in self.others if PurePosixPath(each).name.lower() in names)

    def ending(self, *endings: str) -> tuple[str, ...]:
        """The other files with these endings (lower case, with the dot), wherever they lie."""
        return tuple(each for each in self.others if PurePosixPath(each).suffix.lower() in endings)

    def tree(self, limit: int = 8) -> str:
        """What is there in a few words: `images/ (24 .jpg), masks/ (24 .png)`."""
        counted: dict[str, Counter[str]] = {}
        for name in (*self.pictures, *self.others):
            folder, _, file = name.rpartition("/")
            counted.setdefault(folder, Counter())[PurePosixPath(file).suffix.lower() or "no ending"] += 1
        parts = [
            f"{folder + '/' if folder else 'the folder itself'} ({_endings(counts)})"
            for folder, counts in counted.items()
        ]
        more = f", and {len(parts) - limit} more folders" if len(parts) > limit else ""
        return ", ".join(parts[:limit]) + more


def _walk(folder: str, prefix: str, above: tuple[str, ...], pictures: list[str], others: list[str]) -> int:
    junk = 0
    try:
        items = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}). Expected a folder that you may read."
        ) from error
    for item in items:
        if item.name.startswith(".") or item.name in JUNK:
            junk += 1
        elif item.is_dir():
            real = os.path.realpath(item.path)
            if real not in above:
                junk += _walk(item.path, f"{prefix}{item.name}/", (*above, real), pictures, others)
        elif os.path.splitext(item.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a million of them
            pictures.append(f"{prefix}{item.name}")
        else:
            others.append(f"{prefix}{item.name}")
    return junk


def _endings(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common(3))


def is_note(name: str) -> bool:
    """Whether a file beside the data is there to be read by people: a read-me, a licence, a page."""
    path = PurePosixPath(name.lower())
    told = path.stem.startswith(("readme", "license", "licence", "notes", "about", "citation"))
    return path.suffix in (".md", ".pdf", ".html", "") or (path.suffix == ".txt" and told)


def few(names: Iterable[str], limit: int = 3) -> str:
    """The first few of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
