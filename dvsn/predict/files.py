"""Files as frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.portable.frame import Frame

Array = np.ndarray[Any, Any]


def read_frame(path: Path, reads: str, index: int = 0) -> Frame:
    """A picture file by the rule in force (`dvsn.data.files.read_by`); `reads` is what a predictor wants of it."""
    from dvsn.data.files import read_labels, read_rgb

    picture = read_labels(path) if reads == "ids" else read_rgb(path)
    return Frame(picture, path.stem, path, index)


def read_frames(paths: Iterable[Path], reads: str) -> Iterator[Frame]:
    """Picture files, each read when it is asked for."""
    for index, path in enumerate(paths):
        yield read_frame(path, reads, index)
