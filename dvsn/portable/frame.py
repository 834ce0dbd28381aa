"""One picture on its way to a prediction: of a file, a video, a camera, or a caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.portable.decode import Rule, rule_in_force

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture and where it comes from."""

    picture: Array
    """uint8 (H, W, 3) RGB; for a task whose input is a map of class ids, ids (H, W), uint8 or int32."""
    name: str
    """A file's name without its ending; `clip_000012` of a video; `picture_3` of a list of arrays. No folder."""
    path: Path | None = None
    """The file, of a video the video's; None where there is none."""
    index: int = 0
    """Its place in its source, from 0: in the list of files, or in the video."""
    seconds: float | None = None
    """When it is shown, from the start of its video or camera; None of a picture that stands for itself."""
    rule: Rule = field(default_factory=rule_in_force)
    """By which its file was read, and files beside it are."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.picture.shape[0]), int(self.picture.shape[1])
