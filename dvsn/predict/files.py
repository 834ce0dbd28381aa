"""Files as frames, and results as picture files beside each other: what `predict_files` of every task does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import ConfigError, nearest
from dvsn.pictures.grids import grid, write_picture
from dvsn.portable.frame import Frame
from dvsn.portable.result import Result
from dvsn.predict.predictor import Predictor

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


def chosen_kind(write: Any, task: Any) -> str:
    """What `write=...` says, the task's first kind where it says nothing. Raises `ConfigError`."""
    kind = str(write or task.answers[0])
    if kind not in task.answers:
        raise ConfigError(f"write: the task '{task.kind}' has no '{kind}'. {nearest(kind, task.answers)}")
    return kind


def write_results(
    predictor: Predictor,
    items: list[tuple[Path, Path]],
    draw: Callable[[Result], Array | None],
    *,
    beside: tuple[str, str] | None = None,
) -> Iterator[tuple[Result, Path | None]]:
    """Predict each (picture, target) and write what `draw` makes of it; gives each result and the file, None where `draw`
    gives nothing. `beside`: titles of the picture and the answer where they are to stand beside each other."""
    frames = read_frames([source for source, _ in items], predictor.reads)
    for (_, target), result in zip(items, predictor(frames), strict=True):
        picture = draw(result)
        if picture is not None:
            if beside is not None and picture.ndim == 3:
                seen = result.frame.picture if result.seen is None else result.seen
                picture = grid([[np.ascontiguousarray(seen), picture]], list(beside))
            write_picture(target, np.ascontiguousarray(picture))
        yield result, None if picture is None else target
