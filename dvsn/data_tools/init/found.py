"""What a recogniser has understood of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COULD, LOOKS, STATED = 1, 2, 3
"""How sure a recogniser is: the folders alone allow it; names and content agree; a file says so."""


@dataclass
class Found:
    """One understanding of a folder: what it is in words, and the YAML of its data set.

    - `kind`: in words, such as "photos beside masks". `task`: the choice of the group `task` that trains on it.
    - `base`: the YAML of `conf/data` that it builds on. `node`: what the new YAML says beside it and beside `root` and
      `splits`, nested, as short as can be. `comments`: a reason by dotted key of the node, `dataset.id_map`.
    - `counts`: items by the data set's own name of a split; one name alone, such as `all`, is parted by ratio.
    - `items`: the photo of each item of that one split, relative to the root, and `shows`: the classes (numbers) that it
      shows, where known: the seed of the parting is chosen so that each class is in train and in val. `targets`: the one
      class of each item where it has one; then each part has its share of every class.
    - `sizes`: (height, width) of photos, counted. `classes`: names in the order of their numbers.
    - `says`: what was found, a line each. `odd`: files that are left out, or that are wrong, a sentence each.
    - `sure`: `COULD`, `LOOKS` or `STATED`. `claimed`: the files that it explains, relative to the root.
    - `facts`: what else the recipe is made of.
    """

    kind: str
    task: str
    base: str
    counts: Mapping[str, int]
    sure: int
    claimed: frozenset[str]
    node: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Sequence[str] = ()
    items: Sequence[str] = ()
    shows: Sequence[frozenset[int]] = ()
    targets: Sequence[int] = ()
    says: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> tuple[int, int]:
        """The usual (height, width) of a photo: the median of each."""
        if not self.sizes:
            return (256, 256)
        heights = sorted(height for (height, _), count in self.sizes.items() for _ in range(count))
        widths = sorted(width for (_, width), count in self.sizes.items() for _ in range(count))
        return heights[len(heights) // 2], widths[len(widths) // 2]

    @property
    def train(self) -> int:
        """Pictures to learn from; set by the frame once the splits are known."""
        return int(self.facts.get("train", sum(self.counts.values())))

    def parts_words(self) -> str:
        """The items of each split that is there, in words to append: `: 8 train, 4 val`."""
        if len(self.counts) == 1:
            return ""
        return ": " + ", ".join(f"{count} {split}" for split, count in self.counts.items())

    def size_words(self) -> str:
        """The sizes in words: `all 120x160` or `120x160 to 480x640, most 240x320` (height x width)."""
        if not self.sizes:
            return "sizes unknown"
        if len(self.sizes) == 1:
            ((height, width),) = self.sizes
            return f"all {height}x{width}"
        (height, width), _ = self.sizes.most_common(1)[0]
        low, high = (pick(self.sizes, key=lambda each: (each[0] * each[1], each[0])) for pick in (min, max))
        return f"{low[0]}x{low[1]} to {high[0]}x{high[1]}, most {height}x{width}"
