"""Names of splits as people write them, and the parting of a data set that has none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dvsn.data.shuffled import WORDS, chosen, order
from dvsn.data_tools.findings import counted
from dvsn.errors import ConfigError, DataError

ROLES = {
    "train": ("train", "training", "trn", "train2017", "train2014", "trainset", "tr"),
    "val": ("val", "valid", "validation", "dev", "eval", "val2017", "val2014", "valset"),
    "test": ("test", "testing", "tst", "test2017", "testset", "holdout"),
}
"""What splits are called, by what they are for."""

SEEDS = 64
"""How many seeds are tried until each class is in train and in val."""


def role_of(name: str) -> str | None:
    """train, val or test, if the name of a folder or file (without its ending) is one of theirs."""
    return next((role for role, names in ROLES.items() if name.lower() in names), None)


class Plan(NamedTuple):
    """`data.splits` and what beside it: the numbers of items by role, and lines that say so."""

    splits: dict[str, str]
    counts: dict[str, int]
    says: list[str]
    seed: int | None = None
    group: str | None = None


def shares(text: str) -> tuple[int, ...]:
    """`80/20` or `70/15/15`: whole percent of train, val and, if given, test. Raises `ConfigError`."""
    parts = text.replace("%", "").split("/")
    numbers = tuple(int(part) for part in parts if part.strip().isdigit())
    if len(numbers) != len(parts) or len(numbers) not in (2, 3) or sum(numbers) != 100 or 0 in numbers:
        raise ConfigError(
            f"ratio: found '{text}', expected whole percent of train, val and perhaps test that make 100, such as 80/20 "
            "or 70/15/15."
        )
    return numbers


def plan(
    counts: Mapping[str, int],
    *,
    ratio: tuple[int, ...] = (80, 20),
    seed: int | None = None,
    group: str | None = None,
    items: Sequence[str] = (),
    shows: Sequence[frozenset[int]] = (),
    targets: Sequence[int] = (),
) -> Plan:
    """Roles for the splits that are there, and ranges of a split for those that are not."""
    by_role: dict[str, str] = {role: name for name in counts if (role := role_of(name))}
    if len(counts) == 1:
        ((name, count),) = counts.items()
        made = _parted(name, count, ratio, seed, group, (items, shows, targets))
        if role_of(name) not in ("val", "test"):
            return made
        told = f"{name} is the only split, and is taken for the whole: "
        return made._replace(says=[each.replace("no splits: ", told, 1) for each in made.says])
    if "train" not in by_role:
        raise DataError(
            f"splits: found {', '.join(counts)}, and none to train on. Expected one called train, or none at all: then "
            "one is made by ratio."
        )
    if "val" not in by_role and "test" not in by_role:
        raise DataError(f"splits: found {', '.join(counts)}; expected names such as train, val and test.")
    splits: dict[str, str] = {role: by_role[role] for role in ("train", "val", "test") if role in by_role}
    numbers = {role: counts[name] for role, name in splits.items()}
    if "val" in splits:
        says = [] if "test" in splits else ["no test split: val is measured in its place"]
        return Plan({**splits, "test": splits.get("test", splits["val"])}, numbers, says)
    train = splits["train"]
    made = _parted(train, counts[train], (ratio[0], 100 - ratio[0]), seed, group, (items, shows, targets))
    says = [each.replace("no splits: ", "no val split: train ", 1) for each in made.says]
    return made._replace(
        splits=made.splits | {"test": splits["test"]},
        says=says,
        counts=made.counts | {"test": counts[splits["test"]]},
    )


def _parted(
    name: str,
    count: int,
    ratio: tuple[int, ...],
    seed: int | None,
    group: str | None,
    known: tuple[Sequence[str], Sequence[frozenset[int]], Sequence[int]],
) -> Plan:
    """Ranges of one split, shuffled by a seed."""
    items, shows, targets = known
    if count < 2:
        raise DataError(
            f"found {count} item to train on; expected 2 at least: one to learn from and one to measure by."
        )
    ends = [ratio[0], 100] if len(ratio) == 2 else [ratio[0], ratio[0] + ratio[1], 100]
    ranges = {"train": (0, ends[0]), "val": (ends[0], ends[1])}
    ranges["test"] = (ends[1], ends[2]) if len(ends) == 3 else ranges["val"]
    used, missed = best_seed(items, shows, ranges, group) if seed is None and not targets else (seed or 0, 0)
    numbers = {role: count * last // 100 - count * first // 100 for role, (first, last) in ranges.items()}
    if items:
        made = order(items, seed=used, group=group, classes=targets or None)
        numbers = {role: len(chosen(made, *each)) for role, each in ranges.items()}
        if targets:
            seen = [{targets[item] for item in chosen(made, *ranges[role])} for role in ("train", "val")]
            missed = len(set(targets) - (seen[0] & seen[1]))
    if len(ends) == 2:
        numbers.pop("test")
    empty = [role for role, number in numbers.items() if not number]
    if empty:
        raise DataError(
            f"{count} items by the ratio {'/'.join(map(str, ratio))} leave none for {' and '.join(empty)}. Give another "
            "ratio=..., such as ratio=50/50" + (", or leave out group=..." if group else "") + "."
        )
    splits = {
        role: f"{name}[{f'{a}%' if a else ''}:{f'{b}%' if b < 100 else ''}]"
        for role, (a, b) in ranges.items()
    }
    shown = ", ".join(f"{number} {role}" for role, number in numbers.items())
    says = [f"no splits: parted by ratio {'/'.join(map(str, ratio))}, shuffled by seed {used}: {shown}"]
    if group is None:
        says += shared_prefixes(items)
    if missed:
        says.append(
            f"{counted(missed, 'class is', 'classes are')} in too few pictures to be in both train and val"
        )
    return Plan(splits, numbers, says, used, group)


def shared_prefixes(items: Sequence[str]) -> list[str]:
    """What to consider where many names begin alike, as those of the frames of a few videos do."""
    heads = [match.group().rpartition("/")[2] for each in items if (match := re.match(WORDS["prefix"], each))]
    known = sorted(set(heads))
    if not 2 <= len(known) <= len(items) // 4:
        return []
    shown = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
    return [
        f"names begin alike ({shown}): if they are frames of a video or views of one thing, add group=prefix"
    ]


def best_seed(
    items: Sequence[str],
    shows: Sequence[frozenset[int]],
    ranges: Mapping[str, tuple[int, int]],
    group: str | None,
) -> tuple[int, int]:
    """The first seed by which train and val show the most classes, and how many classes one of them lacks still."""
    if not items or not shows:
        return 0, 0
    every = frozenset().union(*shows)
    best = (0, len(every) + 1)
    for seed in range(SEEDS):
        made = order(items, seed=seed, group=group)
        seen = [
            frozenset().union(*(shows[i] for i in chosen(made, *ranges[role]))) for role in ("train", "val")
        ]
        missed = len(every - (seen[0] & seen[1]))
        if missed < best[1]:
            best = (seed, missed)
        if not missed:
            break
    return best
