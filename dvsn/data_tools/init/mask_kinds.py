"""From what masks hold to classes: which values are classes, which are ignored, and how the reader is to take the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dvsn.data.class_ids import RGB
from dvsn.data_tools.init.mask_content import Content, unpacked
from dvsn.errors import DataError
from dvsn.types import IGNORE

MOST = 255
FEW = 64
"""Values of untouched masks: more are a soft or compressed mask."""


@dataclass
class Kind:
    """`values`: what stands for each class in the files, ids or packed colours, in the order of the classes. `says`: the
    kind in words. `options`: of the reader, beside names and ids. `reasons` by option."""

    says: str
    values: list[int]
    colours: bool = False
    ignored: list[int] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def nearest(self, colour: RGB) -> int:
        """The class whose value is nearest; of two brightnesses that is what a threshold of 128 says."""
        known = [unpacked(value) if self.colours else (value, value, value) for value in self.values]
        return min(range(len(known)), key=lambda place: distance(known[place], colour))

    def class_of(self, value: int) -> int | None:
        return self.values.index(value) if value in self.values else None


def decide(content: Content, known: Mapping[int, str]) -> Kind:
    """The kind of masks. `known`: names by id or packed colour, where a file gives them.

    Raises `DataError` where the values are no classes, such as a number for each object.
    """
    kind = _of_colours(content, known) if content.colours else _of_ids(content, known)
    if len(kind.values) < 2:
        what = f"id {kind.values[0]}" if not kind.colours else "colour"
        raise DataError(
            f"every mask is of one {what} all over, so there is nothing to tell apart. Expected at least two classes, such "
            "as 0 for the background and 1 for an object."
        )
    return kind


def _of_ids(content: Content, known: Mapping[int, str]) -> Kind:
    values = sorted(content.values)
    if set(values) == {0, 255} and not content.lossy:
        return Kind(
            "masks of 0 and 255",
            [0, 255],
            reasons={"id_map": "255 is the object: there is no other id beside 0"},
        )
    soft = content.lossy or (len(values) > 8 and 128 < max(values) <= 255 and _blends(content, known))
    if soft or (len(values) > FEW and content.palette is None and max(values) <= 255 and not known):
        return _soft(content)
    if len(values) > MOST:
        raise DataError(
            f"masks hold {len(values)} different ids, {values[0]} to {values[-1]}: a number for each object rather than for "
            "each class. Expected at most 255 classes; for objects give a COCO JSON."
        )
    ignored = [IGNORE] if _ignores_255(values, known) else []
    classes = [value for value in values if value not in ignored]
    if not classes:
        raise DataError("every pixel of the masks is 255. Expected an id for each class, such as 0 and 1.")
    reasons = {}
    if ignored:
        rest = f"{classes[0]} to {classes[-1]}" if len(classes) > 1 else str(classes[0])
        reasons["ignore_ids"] = (
            f"255 is taken for 'ignore': the other ids, {rest}, are counted on from 0 and end far below"
        )
    words = "palette masks" if content.palette is not None else "masks of ids"
    return Kind(
        f"{words} {_listed(classes)}" + (", 255 ignored" if ignored else ""),
        classes,
        ignored=ignored,
        reasons=reasons,
    )


def _ignores_255(values: list[int], known: Mapping[int, str]) -> bool:
    """255 is a class where a file names it, or where it is one of evenly spread greys (0, 85, 170, 255); else it is the
    usual mark of pixels that do not count."""
    if IGNORE not in values or known.get(IGNORE):
        return False
    rest = [value for value in values if value != IGNORE]
    return bool(rest) and max(rest) < 128 and (max(rest) - min(rest) < 2 * len(rest) + 8)


def _soft(content: Content) -> Kind:
    """Brightness between a few levels: two of them are parted by a threshold, more by the nearest."""
    peaks = _peaks({value: (value, value, value) for value in content.values}, content, apart=24)
    how = "JPEG masks" if content.lossy else "soft masks"
    if len(peaks) == 2 and peaks[0] < 64 and peaks[1] > 191:
        reason = "half-way between black and white: of soft or compressed masks each pixel goes to the nearer"
        return Kind(
            f"{how} of two brightnesses", [0, 255], options={"threshold": 128},
            reasons={"threshold": reason},
        )  # fmt: skip
    if len(peaks) < 2:
        raise DataError(
            "the masks are grey all over, without levels that could be classes. Expected ids or colours."
        )
    reason = "the files are compressed or soft: each pixel is the nearest of these levels"
    return Kind(
        f"{how} of levels {_listed(peaks)}", peaks, options={"nearest": True}, reasons={"nearest": reason}
    )


def _of_colours(content: Content, known: Mapping[int, str]) -> Kind:
    every = {value: unpacked(value) for value in content.values}
    exact = not content.lossy and len(every) <= FEW and not _blends(content, known)
    if exact:
        return Kind(f"masks of {len(every)} colours", _ordered(every), colours=True)
    named = [value for value in known if value > 255 or value in every]
    peaks = named or _peaks(every, content, apart=48)
    explained = sum(
        count for value, count in content.values.items()
        if min(distance(every[value], unpacked(peak)) for peak in peaks) < 48
    ) if peaks else 0  # fmt: skip
    if len(peaks) < 2 or explained < 0.8 * content.total or len(peaks) > MOST:
        raise DataError(
            f"the masks hold {len(every)} colours that are no classes: {len(peaks)} of them stand out. "
            "Expected a colour for each class, or ids."
        )
    greys = [unpacked(peak) for peak in peaks]
    if len(peaks) == 2 and not named and all(max(each) - min(each) < 8 for each in greys):
        low, high = sorted(each[0] for each in greys)
        if low < 64 and high > 191:
            reason = (
                "half-way between black and white: of soft or compressed masks each pixel goes to the nearer"
            )
            return Kind(
                "soft masks of two brightnesses",
                [0, 255],
                options={"threshold": 128},
                reasons={"threshold": reason},
            )
    how = "JPEG masks" if content.lossy else "masks with soft edges"
    reason = f"{len(every)} colours in all: the files are compressed or soft, and each pixel is the nearest of these"
    return Kind(
        f"{how} of {len(peaks)} colours", _ordered({peak: unpacked(peak) for peak in peaks}), colours=True,
        options={"nearest": True}, reasons={"nearest": reason},
    )  # fmt: skip


def _blends(content: Content, known: Mapping[int, str]) -> bool:
    """Whether most values are at edges alone, as those are that a soft edge is blended of."""
    edge = [value for value in content.values if value not in content.inner and value not in known]
    return len(edge) > 2 and len(edge) > len(content.values) / 2


def _peaks(every: Mapping[int, RGB], content: Content, *, apart: int) -> list[int]:
    """Values that stand out: frequent ones of even areas, each far from more frequent ones; in order."""
    total = max(1, content.inner.total())
    found: list[int] = []
    for value, count in content.inner.most_common():
        if count / total < 0.0005 or len(found) > MOST:
            break
        if all(distance(every[value], every[other]) >= apart for other in found):
            found.append(value)
    return sorted(found)


def distance(one: RGB, two: RGB) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one, two, strict=True))) ** 0.5


def _ordered(every: Mapping[int, RGB]) -> list[int]:
    """Black first, the usual background, then by number."""
    return sorted(every)


def _listed(values: list[int]) -> str:
    if len(values) > 3 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    shown = ", ".join(map(str, values[:12]))
    return shown if len(values) <= 12 else f"{shown}, ... {values[-1]}"
