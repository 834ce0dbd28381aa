"""A check before training: which classes the labels of train and val hold, and whether any pixel or object counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.objects import ObjectDataset
from dvsn.data.people import JoinedPeople, PeopleDataset
from dvsn.errors import DataError
from dvsn.types import IGNORE

log = logging.getLogger("dvsn")

Mode = Literal["refuse", "warn", "skip"]
People = PeopleDataset | JoinedPeople
LOOKED_AT = 500
"""Label files of a split, drawn evenly, after which only classes are looked for that neither split has shown."""


@dataclass
class Seen:
    """The classes found so far in the labels of one split, which are read in a random order, without photos."""

    dataset: ImageDataset
    label: str
    classes: int

    def __post_init__(self) -> None:
        self.found = np.zeros(self.classes, bool)
        self.pixels = self.ignored = self.read = 0
        self._order = iter(np.random.default_rng(0).permutation(len(self.dataset)).tolist())

    @property
    def complete(self) -> bool:
        return self.read == len(self.dataset)

    def look(self, wanted: np.ndarray, *, most: int | None = None) -> None:
        """Read labels until all `wanted` (K,) classes were seen, or `most` files, or all."""
        while not (self.found | ~wanted).all() and not self.complete and (most is None or self.read < most):
            with self.dataset.ruled():
                ids = self.dataset.read_label(next(self._order), self.label)
            self.read += 1
            counts = np.bincount(ids.ravel(), minlength=256)
            self.found |= counts[: self.classes] > 0
            self.pixels += ids.size
            self.ignored += int(counts[IGNORE])


def look_for_classes(train: Seen, val: Seen) -> None:
    """Read labels until it is known which classes are in neither split."""
    everything = np.ones(train.classes, bool)
    for seen in (train, val):
        seen.look(everything, most=LOOKED_AT)
    for seen in (train, val):
        missing = ~(train.found | val.found)
        if missing.any() and not seen.complete:
            log.info(
                "looking for classes that the first %d labels do not show; data.check_classes=skip leaves that out",
                train.read + val.read,
            )
            seen.look(missing)


def check_pixels_of_classes(train: Seen, val: Seen, names: Sequence[str], *, mode: Mode, where: str) -> None:
    """Refuse, or warn of, classes that no label holds, after `look_for_classes`."""
    for split, seen in (("train", train), ("val", val)):
        if seen.complete and not seen.found.any():
            raise DataError(
                f"{where}: no pixel of the split '{split}' belongs to a class: all are ignored, in {seen.read} labels. "
                f"Nothing could be {'learnt' if split == 'train' else 'measured'}. {advice(train, val)}".rstrip()
            )
    report(
        ~(train.found | val.found), train.found & ~val.found & val.complete,
        val.found & ~train.found & train.complete,
        names, f"in {train.read + val.read} labels", mode=mode, where=where, hint=advice(train, val),
    )  # fmt: skip


def check_numbers_of_classes(
    train: np.ndarray, val: np.ndarray, names: Sequence[str], *, mode: Mode, where: str
) -> None:
    """The same of whole pictures; `train` and `val` are their classes (N,)."""
    found = [np.bincount(each, minlength=len(names))[: len(names)] > 0 for each in (train, val)]
    report(
        ~(found[0] | found[1]), found[0] & ~found[1], found[1] & ~found[0], names,
        f"among {len(train) + len(val)} pictures", mode=mode, where=where, hint="",
    )  # fmt: skip


def report(
    nowhere: np.ndarray,
    not_in_val: np.ndarray,
    not_in_train: np.ndarray,
    names: Sequence[str],
    among: str,
    *,
    mode: Mode,
    where: str,
    hint: str,
) -> None:
    """Log which classes are in no label, or in those of one split only."""
    if not_in_val.any():
        log.warning("%s: not in val, so not in its score: %s", where, listed(not_in_val, names))
    if not_in_train.any():
        log.warning(
            "%s: in val, but never in train, so nobody can learn it: %s", where, listed(not_in_train, names)
        )
    if not nowhere.any():
        return
    message = f"{where}: neither train nor val has {listed(nowhere, names)}, {among}"
    if mode == "refuse":
        raise DataError(
            f"{message}. Such a class leaves the mean, so that scores look better than they are. {hint} Correct "
            "data.dataset.names, id_map or ignore_ids; if it is meant, set data.check_classes=warn."
        )
    log.warning("%s", message)


def advice(train: Seen, val: Seen) -> str:
    """What to try where much is ignored, as it is by default in masks of 0 and 255."""
    ignored, pixels = train.ignored + val.ignored, train.pixels + val.pixels
    if not ignored:
        return ""
    share = (
        f"{100 * ignored / pixels:.1f} % of the pixels are ignored (id {IGNORE} and what ignore_ids names)."
    )
    if train.classes != 2 or (train.found | val.found).all():
        return share
    return f"{share} Of masks of 0 and 255: 'data.dataset.id_map={{0: 0, 255: 1}}'."


def check_keypoints(train: People, val: People, *, where: str) -> None:
    """Refuse a split without a labelled keypoint, and warn of keypoints that one split lacks, or both: they are left out of
    the mean. People of detected boxes have no labels of their own, and are passed over."""
    found = []
    for split, people in (("train", train), ("val", val)):
        rows = [record.labelled for record in people.records if record.number >= 0]
        seen = np.any(rows, axis=0) if rows else np.ones(len(people.keypoints), bool)
        if not seen.any():
            raise DataError(
                f"{where}: the split '{split}' has no labelled keypoint, in {len(rows)} people or faces: nothing could be "
                f"{'learnt' if split == 'train' else 'measured'}. Expected one or more; a keypoint counts where its flag of "
                "visibility is above 0."
            )
        found.append(seen)
    report(
        ~(found[0] | found[1]), found[0] & ~found[1], found[1] & ~found[0], train.keypoints.names,
        f"among {len(train.records) + len(val.records)} people or faces", mode="warn", where=where, hint="",
    )  # fmt: skip


def check_objects(train: ObjectDataset, val: ObjectDataset) -> None:
    """Refuse a split in which no object counts, and warn of classes that one split lacks, or both."""
    found = [labels_of(train, trained=True), labels_of(val, trained=False)]
    for split, dataset, (labels, _) in zip(("train", "val"), (train, val), found, strict=True):
        if not labels:
            what = "trained on" if split == "train" else "measured"
            raise DataError(
                f"{dataset.file}: the split '{split}' has no object that can be {what}, in {len(dataset)} pictures: there "
                "is none, or all are crowd regions (iscrowd: 1), or have no area within their picture. Expected one or more."
            )
    for label, name in train.categories.items():
        absent = [
            split
            for split, (labels, complete) in zip(("train", "val"), found, strict=True)
            if complete and label not in labels
        ]
        if absent:
            log.warning(
                "data.objects: no object of class %d '%s' in %s", label, name, " nor in ".join(absent)
            )


def labels_of(dataset: ObjectDataset, *, trained: bool) -> tuple[set[int], bool]:
    """The labels of all objects that are no crowd (`trained`: of those that can be trained on), and whether all pictures
    were looked at: not once every class was seen, nor beyond `LOOKED_AT` where each has a file of its own."""
    found: set[int] = set()
    for count, index in enumerate(np.random.default_rng(0).permutation(len(dataset)).tolist()):
        if found >= dataset.categories.keys() or (found and count >= LOOKED_AT and not dataset.in_memory):
            return found, found >= dataset.categories.keys()
        for each in dataset.trained(index) if trained else dataset.truth(index):
            if not each["iscrowd"]:
                found.add(each["category_id"])
    return found, True


def listed(chosen: np.ndarray, names: Sequence[str]) -> str:
    """Classes by number and name, of many the first ten."""
    numbers = np.flatnonzero(chosen).tolist()
    words = [f"{number} {names[number]}" for number in numbers[:10]]
    return ", ".join(words) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
