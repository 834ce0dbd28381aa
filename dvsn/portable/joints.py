"""What is drawn of a set of keypoints: names, pairs of a mirror, lines, and which of them tell how a head is turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Joints(Protocol):
    """Keypoints as numbers: `Skeleton` here, and `KeypointSet` of the training side."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]: ...

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]: ...

    @property
    def head(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Skeleton:
    """The K keypoints of a result, by number."""

    names: tuple[str, ...]
    """One a keypoint, such as `left_wrist`."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Those that a mirror exchanges."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """The lines of a drawing."""
    head: tuple[int, ...] = ()
    """The 14 points of a face that tell how the head is turned; empty where they are not known."""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, joints: Joints) -> Skeleton:
        """The part of any set of keypoints that a drawing needs."""
        return cls(tuple(joints.names), tuple(joints.pairs), tuple(joints.skeleton), tuple(joints.head))

    def to_json(self) -> dict[str, Any]:
        """Plain types, as `from_json` takes them."""
        return {
            "names": list(self.names),
            "pairs": [list(pair) for pair in self.pairs],
            "skeleton": [list(line) for line in self.skeleton],
            "head": list(self.head),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Skeleton:
        pairs, lines = (
            tuple((int(one), int(other)) for one, other in content[key]) for key in ("pairs", "skeleton")
        )
        return cls(tuple(map(str, content["names"])), pairs, lines, tuple(map(int, content["head"])))
