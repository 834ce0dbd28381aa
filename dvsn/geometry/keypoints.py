"""A set of keypoints: names, mirror pairs, skeleton and tolerances, as written in YAML."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dvsn.errors import ConfigError, nearest
from dvsn.geometry.mirrors import lacking_pairs

HEAD_POINTS = 14  # that the angles of a head are made of: dvsn.geometry.head_angles


class KeypointSet:
    """The K keypoints of a data set, by name.

    - `pairs`: those that a mirror exchanges, each at most once. null: what left and right in the names tell; where they
      tell nothing it is not known what a mirror does, and nothing is mirrored (`mirrors`). []: it exchanges none.
    - `skeleton`: the lines of a drawing.
    - `sigmas`: how far annotators disagree, relative to the person's size, one a keypoint; COCO's score needs them
      (Ronchi and Perona, 2017, arXiv:1707.05388).
    - `upper_body`: of the half-body augmentation, which shows these or the others.
    - `joint_weights`: factors of the loss, one a keypoint; 1 if null.
    - `head`: of a face, the 14 points that tell how the head is turned, in the order of `dvsn.geometry.head_angles.MODEL`:
      brows (outer, inner, inner, outer, from the left of the picture), eyes likewise, nostrils, corners of the mouth, the
      middle of the lower lip, chin. Empty: this set does not tell.

    In the attributes of the same names keypoints are numbers. `mirror` (K,) int64: in a mirrored picture, keypoint i
    is what was keypoint `mirror[i]`; `mirrors`: whether that is known.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        pairs: Sequence[Sequence[str]] | None = None,
        skeleton: Sequence[Sequence[str]] = (),
        sigmas: Sequence[float] | None = None,
        upper_body: Sequence[str] = (),
        joint_weights: Sequence[float] | None = None,
        head: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ConfigError(
                f"data.keypoints.names: found {list(names)}, expected one name or more, each once."
            )
        told = lacking_pairs(self.names, ()) if pairs is None else pairs
        self.mirrors = pairs is not None or bool(told) or len(self.names) == 1
        self.pairs = self._couples("pairs", told)
        self.skeleton = self._couples("skeleton", skeleton)
        paired = [number for pair in self.pairs for number in pair]
        twice = sorted({self.names[number] for number in paired if paired.count(number) > 1})
        if twice:
            raise ConfigError(
                f"data.keypoints.pairs: {', '.join(twice)} is in two pairs; a mirror exchanges each keypoint with one "
                "other, or leaves it where it is."
            )
        self.upper_body = tuple(self._number("upper_body", name) for name in upper_body)
        self.sigmas = self._numbers("sigmas", sigmas)
        self.joint_weights = self._numbers("joint_weights", joint_weights)
        self.head = tuple(self._number("head", name) for name in head)
        if self.head and (len(self.head) != HEAD_POINTS or len(set(self.head)) != HEAD_POINTS):
            raise ConfigError(
                f"data.keypoints.head: found {len(self.head)} points, expected {HEAD_POINTS} different ones: brows, eyes, "
                "nostrils, corners of the mouth, lower lip, chin, as dvsn.geometry.head_angles.MODEL orders them; or none."
            )
        self.mirror = np.arange(len(self.names))
        for one, other in self.pairs:
            self.mirror[one], self.mirror[other] = other, one

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        """The number of a keypoint. Raises `ConfigError` with the nearest name."""
        return self._number("names", name)

    def _number(self, option: str, name: str) -> int:
        if name not in self.names:
            raise ConfigError(
                f"data.keypoints.{option}: no keypoint is called {name!r}. {nearest(str(name), self.names)}"
            )
        return self.names.index(name)

    def _couples(self, option: str, couples: Sequence[Sequence[str]]) -> tuple[tuple[int, int], ...]:
        found = []
        for couple in couples:
            if isinstance(couple, str) or len(couple) != 2 or couple[0] == couple[1]:
                raise ConfigError(
                    f"data.keypoints.{option}: found {couple!r}, expected two different names, such as "
                    "[left_eye, right_eye]."
                )
            found.append((self._number(option, couple[0]), self._number(option, couple[1])))
        return tuple(found)

    def _numbers(self, option: str, values: Sequence[float] | None) -> tuple[float, ...]:
        if values is None:
            return ()
        if len(values) != len(self.names) or not all(value > 0 for value in values):
            raise ConfigError(
                f"data.keypoints.{option}: found {len(values)} numbers, expected {len(self.names)} above 0, one a keypoint."
            )
        return tuple(float(value) for value in values)
