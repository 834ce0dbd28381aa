"""The order in which a split is cut into ranges, such as `all[:80%]`, where it is shuffled first.

The place of an item follows from its own name and the seed, not from its number: a picture that is added later moves no
other one, so that what was held back for validation stays held back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dvsn.data.dataset import ImageDataset
from dvsn.errors import ConfigError

WORDS = {"prefix": r"(?:.*/)?[^/_.\- ]+", "folder": r".*/"}
"""Rules by name: what stands before the first of `_ - .` or a blank of the file's name; the folder it lies in."""


class Order(NamedTuple):
    """Items in a shuffled order, and the places at which it may be cut: between groups, 0 and the end among them."""

    items: tuple[int, ...]
    cuts: tuple[int, ...]


def order(
    keys: Sequence[str], *, seed: int, group: str | None = None, classes: Sequence[int] | None = None
) -> Order:
    """Shuffles items by their keys, paths relative to the root. Items of one key, such as the people of one photo, stay
    together, and so do those in which `group`, a regular expression that is matched from the start of the path without
    its ending (or a word of `WORDS`), finds the same text (of its first group in brackets, if it has one).

    With `classes`, one a key, each range has its share of every class; `group` goes before.
    """
    groups = _groups(keys, group)
    members: dict[str, list[int]] = {}
    for item, name in enumerate(groups):
        members.setdefault(name, []).append(item)
    names = sorted(members, key=lambda name: _hash(seed, name))
    if classes is not None and group is None:
        by_class: dict[int, list[str]] = {}
        for name in names:
            by_class.setdefault(int(classes[members[name][0]]), []).append(name)
        share = {
            name: (place + 0.5) / len(each) for each in by_class.values() for place, name in enumerate(each)
        }
        names.sort(key=lambda name: share[name])
    items = tuple(item for name in names for item in members[name])
    cuts = [0]
    for name in names:
        cuts.append(cuts[-1] + len(members[name]))
    return Order(items, tuple(cuts))


def chosen(made: Order, first: int, last: int) -> tuple[int, ...]:
    """The items from `first` to `last` percent, cut between groups."""
    return made.items[cut(made, first) : cut(made, last)]


def fold_of(made: Order, fold: int, folds: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The items outside and inside of one of `folds` parts, each in the order of its numbers; cut between groups.

    Raises `ConfigError` where there are fewer groups than folds.
    """
    if len(made.cuts) - 1 < folds:
        raise ConfigError(
            f"data.folds: found {folds}, but data.splits.train has {len(made.cuts) - 1} items or groups that must stay "
            f"together. Set data.folds={max(2, len(made.cuts) - 1)} or fewer, or another data.split_group."
        )
    ends = [cut(made, 100 * number / folds) for number in range(folds + 1)]
    for number in range(1, folds):  # no fold is empty
        later = made.cuts[-1 - (folds - number)]
        ends[number] = min(
            max(ends[number], next(place for place in made.cuts if place > ends[number - 1])), later
        )
    held = made.items[ends[fold] : ends[fold + 1]]
    return tuple(sorted(set(made.items).difference(held))), tuple(sorted(held))


def cut(made: Order, percent: float) -> int:
    """The place nearest to a percentage at which the order may be cut; within it, unless it is 0 or 100 percent."""
    size = len(made.items)
    if percent in (0, 100) or len(made.cuts) < 3:
        return int(size * percent // 100) if percent in (0, 100) else made.cuts[-1]
    wanted = size * percent / 100
    return min(made.cuts[1:-1], key=lambda place: (abs(place - wanted), place))


def check_group(group: str | None) -> None:
    """Raise `ConfigError` for a rule that is none."""
    if group is None:
        return
    try:
        re.compile(WORDS.get(group, group))
    except (re.error, TypeError) as error:
        raise ConfigError(
            f"data.split_group: found '{group}', which is no regular expression ({error}). Expected prefix, folder, or one "
            r"such as '([^_]+)_' or '(scene\d+)'."
        ) from error


def keys_of(dataset: ImageDataset, root: str | Path) -> list[str]:
    """The photo of each item by its path below `root`; where it is no file, its name."""
    root, keys = Path(root), []
    for index in range(len(dataset)):
        photo = next(iter(dataset.photos(index)), None)
        if photo is None:
            keys.append(dataset.name(index))
        else:
            keys.append(photo.relative_to(root).as_posix() if photo.is_relative_to(root) else str(photo))
    return keys


def _groups(keys: Sequence[str], group: str | None) -> list[str]:
    if group is None:
        return list(keys)
    check_group(group)
    rule = re.compile(WORDS.get(group, group))
    found = []
    for key in keys:
        head, dot, _ = key.rpartition(".")
        match = rule.match(head if dot else key)
        found.append(key if match is None else (match.group(1) or "") if rule.groups else match.group())
    if keys and not any(rule.match(key) for key in keys):
        raise ConfigError(
            f"data.split_group: '{group}' matches no name, such as {keys[0]}. It is matched from the start of the path "
            "below data.root."
        )
    return found


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(errors="surrogateescape"), digest_size=16).digest()
