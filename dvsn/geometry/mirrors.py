"""Names that say left and right, and whether a mirror exchanges what they name."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIDES = {"left": "right", "l": "r"}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


def other_side(name: str) -> tuple[str, ...] | None:
    """The words of the mirrored name of a left one, in lower case: left_eye, LEye and eye.left; None of another."""
    words = [word.lower() for word in WORD.findall(name)]
    if len(words) < 2:
        return None
    return tuple(SIDES.get(word, word) for word in words) if any(word in SIDES for word in words) else None


def lacking_pairs(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    """Left and right names that are no pair, in the order of the names; `pairs` are numbers in `names`."""
    known = {frozenset(pair) for pair in pairs}
    by_words = {
        tuple(word.lower() for word in WORD.findall(name)): number for number, name in enumerate(names)
    }
    found = []
    for number, name in enumerate(names):
        mirrored = other_side(name)
        partner = None if mirrored is None else by_words.get(mirrored)
        if partner is not None and partner != number and frozenset((number, partner)) not in known:
            found.append((name, names[partner]))
    return found
