"""Pictures that belong together by their names: two folders, one folder with endings, with or without splits."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dvsn.data.folders import ALL, stem_of
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.naming import is_drawing, is_mask, is_photo
from dvsn.data_tools.init.splits import ROLES, role_of

Pair = tuple[str, str]
MOST = 12
"""Folders beside each other among which partners are looked for."""

ROLE_NAMES = sorted((name for names in ROLES.values() for name in names), key=len, reverse=True)


@dataclass
class Layout:
    """A way to read the folder as pairs, in the words of `dvsn.data.folders`: the names `first` and `second` of two folders
    in its layouts ("." twice where both lie in one), and the endings of both.

    `pairs` by split; `lonely`: files of each side without a partner.
    """

    first: str
    second: str
    endings: tuple[str, str]
    pairs: dict[str, list[Pair]]
    lonely: tuple[list[str], list[str]]

    @property
    def every(self) -> list[Pair]:
        return [pair for pairs in self.pairs.values() for pair in pairs]

    @property
    def claimed(self) -> frozenset[str]:
        """Its files, and those without a partner."""
        return frozenset(itertools.chain.from_iterable((*self.every, *self.lonely)))

    def example(self) -> str:
        """What a network for the first side could see: its last folder, if nothing else is in it, or its last picture."""
        first, second = self.every[-1]
        folder, other = first.rpartition("/")[0], second.rpartition("/")[0]
        return folder if folder and folder != other else first

    def drawn(self) -> bool:
        """Whether a name says that a side is drawings, such as edges."""
        return any(map(is_drawing, (self.first, self.second, *self.endings)))

    def named(self) -> int:
        """How plainly the names say that the second is a label and the first a photo."""
        one, two = (
            f"{name} {ending}" for name, ending in zip((self.first, self.second), self.endings, strict=True)
        )
        return 2 * (is_mask(two) - is_mask(one)) + (is_photo(one) - is_photo(two))


def layouts(listing: Listing) -> list[Layout]:
    """All ways by which at least half of one side has partners, those with the most pairs first; each way round."""
    found = []
    for first, second, folders in _folders(listing):
        for endings in _endings(listing, folders):
            made = _paired(listing, first, second, endings, folders)
            count = len(made.every)
            if count and count >= max(map(len, made.lonely)):
                found.append(made)
                if first != "." or second != ".":
                    break  # in one folder each way round has endings of its own
    found.sort(key=lambda each: (-len(each.every), sum(map(len, each.lonely)), -each.named()))
    return found


def _folders(listing: Listing) -> Iterator[tuple[str, str, dict[str, Pair]]]:
    """Names of the two sides, and the two folders of each split ("" is the root)."""
    above = {str(each) for name in listing.pictures for each in PurePosixPath(name).parents}
    top = sorted(each for each in above if each != "." and "/" not in each)[:64]
    below = {
        name: [each.rpartition("/")[2] for each in sorted(above) if each.rpartition("/")[0] == name]
        for name in top
    }
    roles = [name for name in top if role_of(name)]
    if roles:
        common = set.intersection(*(set(below[name]) for name in roles))
        for one, two in itertools.permutations(sorted(common)[:MOST], 2):
            yield one, two, {name: (f"{name}/{one}", f"{name}/{two}") for name in roles}
        yield ".", ".", {name: (name, name) for name in roles}
    sides = [name for name in top if not role_of(name)][:MOST]
    for one, two in itertools.permutations(sides, 2):
        splits = [name for name in below[one] if role_of(name) and name in below[two]]
        if splits:
            yield one, two, {name: (f"{one}/{name}", f"{two}/{name}") for name in splits}
        else:
            yield one, two, {ALL: (one, two)}
    yield from _joined_names(top)
    if not roles:
        yield ".", ".", {ALL: ("", "")}


def _joined_names(top: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Pair]]]:
    """Folders called after split and side, such as train and trainannot, or train_images and train_masks."""
    sides: dict[str, set[str]] = {}
    for name in top:
        role = next((each for each in ROLE_NAMES if name.lower().startswith(each)), None)
        if role is not None:
            sides.setdefault(name[: len(role)], set()).add(name[len(role) :])
    several = {split: each for split, each in sides.items() if len(each) > 1}
    if several:
        common = set.intersection(*several.values())
        for one, two in itertools.permutations(sorted(common)[:MOST], 2):
            yield one, two, {split: (f"{split}{one}", f"{split}{two}") for split in several}


def _endings(listing: Listing, folders: Mapping[str, Pair]) -> Iterator[tuple[str, str]]:
    """Endings that may part or join the names of the first split, the plainest first."""
    one, two = next(iter(folders.values()))
    first, second = listing.below(one), listing.below(two)
    if one == two:
        yield from _endings_of_one(first)
        return
    yield "", ""
    stems = [[name.rpartition(".")[0] for name in names] for names in (first, second)]
    tails = [_tail(each) for each in stems]
    yield "", tails[1]
    yield tails[0], tails[1]
    heads = [_head([stem.rpartition("/")[2] for stem in each]) for each in stems]
    if any(heads) and heads[0] != heads[1]:
        yield heads[0], heads[1]
    known = {stem[len(one) + 1 :] for stem in stems[0]}
    added = Counter(
        end
        for stem in stems[1]
        for place in range(len(stem) - 1, len(two), -1)
        if (end := stem[place:]) and stem[len(two) + 1 : place] in known
    )
    yield from (("", end) for end, _ in added.most_common(3))


def _endings_of_one(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Endings by which photos and labels lie in one folder: 1.jpg and 1.png, 1.jpg and 1_mask.png, 1_sat and 1_mask."""
    paths = [PurePosixPath(name) for name in names]
    kinds = Counter(path.suffix for path in paths).most_common(4)
    yield from itertools.permutations([kind for kind, _ in kinds], 2)
    stems = dict.fromkeys(path.with_suffix("").as_posix() for path in paths)
    added: Counter[str] = Counter()
    for stem in stems:
        for match in re.finditer(r"[_\-. ]", stem.rpartition("/")[2]):
            place = len(stem) - len(stem.rpartition("/")[2]) + match.start()
            if stem[:place] in stems:
                added[stem[place:]] += 1
    for end, _ in added.most_common(4):
        yield "", end
    yield from itertools.permutations(_heads(stems), 2)
    yield from itertools.permutations(_same_names(paths), 2)
    tails = Counter(tail.group() for stem in stems if (tail := re.search(r"[_\-. ][A-Za-z]\w*$", stem)))
    yield from itertools.permutations([tail for tail, _ in tails.most_common(5)], 2)


def _heads(stems: Iterable[str]) -> list[str]:
    """What many names of one folder start with, as forms: img_* and mask_*; and "" where many are what follows a start."""
    names = [stem.rpartition("/")[2] for stem in stems]
    starts = [match.group() for name in names if (match := re.match(r"[A-Za-z]+(?:[_\-. ]|(?=\d))", name))]
    found = [f"{start}*" for start, count in Counter(starts).most_common(3) if 4 * count >= len(names)]
    return [*found, ""] if found else []


def _same_names(paths: Iterable[PurePosixPath]) -> list[str]:
    """Names without a number in several folders, as forms: case1/image.png and case1/mask.png are */image and */mask."""
    stems = Counter(path.stem for path in paths if len(path.parts) > 1 and not re.search(r"\d", path.stem))
    return [f"*/{stem}" for stem, count in stems.most_common(4) if count > 1]


def _head(stems: Sequence[str]) -> str:
    """What all names start with, without the first digits of a number, as a form: img_*."""
    start = os.path.commonprefix(stems)  # noqa: RUF071 - of characters
    match = re.match(r"(.*[A-Za-z_\-. ])\d*$", start) if len(stems) > 1 else None
    return f"{match.group(1)}*" if match else ""


def _tail(stems: Sequence[str]) -> str:
    """What all stems end with, from a separator on, if it has a letter."""
    if len(stems) < 2:
        return ""
    end = stems[0]
    for stem in stems[1:]:
        while not stem.endswith(end):
            end = end[1:]
    match = re.search(r"[_\-. ].*[A-Za-z].*", end)
    return match.group() if match else ""


def _paired(
    listing: Listing, first: str, second: str, endings: tuple[str, str], folders: Mapping[str, Pair]
) -> Layout:
    pairs: dict[str, list[Pair]] = {}
    lonely: tuple[list[str], list[str]] = ([], [])
    for split, sides in folders.items():
        known: list[dict[str, str]] = [{}, {}]
        for number, (folder, ending) in enumerate(zip(sides, endings, strict=True)):
            other = endings[1 - number]
            for name in listing.below(folder):
                path = PurePosixPath(name)
                stem = stem_of(path, ending)
                if stem is None or (
                    sides[0] == sides[1] and len(other) > len(ending) and stem_of(path, other)
                ):
                    continue
                known[number].setdefault(stem.relative_to(folder or ".").as_posix(), name)
        shared = sorted(known[0].keys() & known[1].keys())
        pairs[split] = [(known[0][stem], known[1][stem]) for stem in shared]
        for number in (0, 1):
            lonely[number].extend(known[number][stem] for stem in sorted(known[number].keys() - set(shared)))
    return Layout(first, second, endings, {split: each for split, each in pairs.items() if each}, lonely)
