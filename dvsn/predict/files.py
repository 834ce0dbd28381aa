"""Files as frames."""

from __future__ import annotations

from pathlib import Path

from dvsn.data.files import read_labels, read_rgb
from dvsn.portable.frame import Frame


def read_frame(path: Path, reads: str, index: int = 0) -> Frame:
    """A picture file by the rule in force (`dvsn.data.files.read_by`); `reads` is what a predictor wants of it."""
    picture = read_labels(path) if reads == "ids" else read_rgb(path)
    return Frame(picture, path.stem, path, index)
