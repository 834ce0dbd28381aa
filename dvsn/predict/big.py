"""Segmentation of pictures that do not fit: read, asked and written by windows, with memory bounded by the window.

The windows are those of `inference.mode=slide`, and the answer is the one that the picture would have in memory. It is a
tiled TIFF, with the georeference of its picture, and a small overview beside it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dvsn.atomic import replacing
from dvsn.data.files import check_pixels
from dvsn.errors import ConfigError, DataError
from dvsn.pictures.grids import write_picture
from dvsn.portable.frame import Frame
from dvsn.portable.headers import size_of
from dvsn.portable.overlay import render
from dvsn.portable.record import Record
from dvsn.portable.tiling import windows
from dvsn.portable.windows import (
    ENDINGS,
    NEEDED,
    Window,
    WindowedPicture,
    has_rasterio,
    open_windows,
    orientation_by_header,
)
from dvsn.predict.predictor import replaced
from dvsn.predict.progress import Progress
from dvsn.tasks.inference import Inference, checked_window
from dvsn.types import IGNORE

log = logging.getLogger("dvsn")
Array = np.ndarray[Any, Any]

BLOCK = 256  # side of the tiles of results
OVERVIEW = 1024  # pixels of the longer side


class BigPictures:
    """Which pictures of a run are read by windows, and how.

    `changes`: the attributes of the task that options change; `steps`: whether the recipe's evaluation treats pictures
    first; `options`: those of `python -m dvsn.predict`.
    """

    def __init__(
        self, task: Any, options: Mapping[str, Any], changes: Mapping[str, Any], device: str, *, steps: bool
    ) -> None:
        self.task, self.options, self.device, self.steps = task, options, device, steps
        self.changes = dict(changes)
        self.inference: Inference | None = self.changes.get("inference", getattr(task, "inference", None))
        self.from_pixels = options["big_pixels"]
        if type(self.from_pixels) is not int or self.from_pixels < 0:
            raise ConfigError(f"big_pixels: found {self.from_pixels!r}, expected a whole number, 0 or more.")

    @property
    def slides(self) -> bool:
        return (
            self.inference is not None and self.inference.mode == "slide" and self.task.kind == "segmentation"
        )

    def wants(self, path: Path) -> bool:
        """Whether a picture is read by windows: it is large, a TIFF, PNG or JPEG, and windows slide over it. Raises
        `ConfigError` where the other options do not allow that and it is too large to be read as a whole."""
        if not self.slides or path.suffix.lower() not in ENDINGS:
            return False
        size = size_of(path)
        if size is None or size[0] * size[1] < self.from_pixels:
            return False
        reason = self._reason_not_to()
        if reason is None:
            assert self.inference is not None
            checked_window(
                self.inference,
                int(getattr(self.task.network, "multiple", 1)),
                type(self.task.network).__name__,
            )
            return True
        if size[0] * size[1] > self.options["max_pixels"]:
            raise ConfigError(
                f"{path}: {size[0]}x{size[1]} (height x width) is too large to be read whole. {reason}"
            )
        return False

    def _reason_not_to(self) -> str | None:
        """Why pictures cannot be read by windows here, and what to do."""
        assert self.inference is not None
        if not has_rasterio():
            return f"dvsn.predict {NEEDED}"
        if self.options["size"] not in ("recipe", "keep") or (
            self.options["size"] == "recipe" and self.steps
        ):
            return "size: pictures that are read by windows are asked at their own size. Set size=keep."
        if self.inference.scales != (1.0,) or self.inference.resize is not None:
            return (
                "inference.scales, inference.resize: pictures that are read by windows are asked at one scale, their own. "
                "Set inference.scales=[1.0] and no inference.resize."
            )
        if self.options["side_by_side"]:
            return "side_by_side: is not for pictures that are read by windows. Set side_by_side=false."
        return None

    def refuse(self, path: Path) -> None:
        """Raise `DataError` for a picture that is too large to be read whole, with what can be done."""
        if self.inference is None or self.slides or self.task.kind != "segmentation":
            return
        size = size_of(path)
        if size is not None and size[0] * size[1] > self.options["max_pixels"]:
            try:
                check_pixels(path, size)
            except DataError as error:
                raise DataError(
                    f"{error} Or let it be read by windows: size=keep inference.mode=slide 'inference.window=[1024,1024]'."
                ) from error

    def targets(self, items: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
        """Each picture with the file of its result: of big ones a TIFF. Raises `DataError` where that would be a source."""
        found = [(path, target.with_suffix(".tif") if self.wants(path) else target) for path, target in items]
        sources = {path.resolve() for path, _ in items}
        for path, target in found:
            if target.suffix == ".tif" and target.resolve() in sources:
                raise DataError(
                    f"output: {target} is a picture that is read. Choose another folder than that of {path}."
                )
        return found

    def __call__(self, path: Path, target: Path, kind: str) -> list[Path]:
        """Write the answer of a kind (`color`, `overlay`, `ids`, `submission`), whole or not at all; the files."""
        assert self.inference is not None and self.inference.window is not None
        if self.options["upright"] and (turn := orientation_by_header(path)) != 1:
            raise DataError(
                f"{path}: its orientation tag ({turn}) turns it, and pictures that are read by windows are taken as stored. "
                "Set upright=false."
            )
        tall, wide = self.inference.window
        with open_windows(path, tall=tall) as picture, replaced(self.task, **self.changes):
            count = 1
            for size, window, step in zip(picture.size, (tall, wide), self.inference.steps, strict=True):
                count *= len(windows(size, window, step))
            with replacing(target) as temporary:
                with Progress(str(path), count, unit="windows") as progress:
                    overview = self._write(picture, temporary, kind, progress)
                log.info("%s: %s", path, progress.summary())
        small = target.with_name(f"{target.stem}_overview.png")
        write_picture(small, overview)
        return [target, small]

    def _write(self, picture: WindowedPicture, path: Path, kind: str, progress: Progress) -> Array:
        def read(top: int, left: int, height: int, width: int) -> torch.Tensor:
            pixels = picture.rgb(Window(top, left, height, width))
            return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())

        words = self.task.vocabulary
        with written(path, picture, kind, words) as writer, torch.inference_mode():
            pieces = self.task.predict_pieces(
                read, picture.size, device=self.device, together=int(self.options["batch_size"])
            )
            for top, left, ids in pieces:
                writer.add(top, left, ids)
                progress.add()
        return writer.overview


# Results -------------------------------------------------------------------------------------------------


class Strip(NamedTuple):
    """Finished rows of the whole width."""

    top: int
    ids: Array
    """(h, W) uint8."""


class StripWriter:
    """Class ids that come in pieces -> the rows of a tiled TIFF, a row of its tiles at a time."""

    def __init__(self, dataset: Any, picture: WindowedPicture, kind: str, words: Any) -> None:
        self.dataset, self.picture, self.kind, self.words = dataset, picture, kind, words
        height, width = picture.size
        self.top = 0  # of the rows that wait
        self.waiting = np.zeros((0, width), np.uint8)
        self.factor = -(-max(height, width) // OVERVIEW)
        small = (-(-height // self.factor), -(-width // self.factor))
        self.overview: Array = np.zeros((*small, 3), np.uint8)

    def add(self, top: int, left: int, ids: Array) -> None:
        """A piece (h, w); pieces of a row come from left to right."""
        height, width = self.picture.size
        missing = top + ids.shape[0] - self.top - len(self.waiting)
        if missing > 0:
            self.waiting = np.concatenate([self.waiting, np.zeros((missing, width), np.uint8)])
        self.waiting[top - self.top : top - self.top + ids.shape[0], left : left + ids.shape[1]] = ids
        if left + ids.shape[1] < width:
            return
        bottom = top + ids.shape[0]
        while self.top < bottom and (bottom - self.top >= BLOCK or bottom == height):
            rows = min(BLOCK, height - self.top)
            self._write(Strip(self.top, self.waiting[:rows]))
            self.waiting = self.waiting[rows:].copy()
            self.top += rows

    def _write(self, strip: Strip) -> None:
        from rasterio.windows import Window as Place

        window = Window(strip.top, 0, *strip.ids.shape)
        valid = self.picture.valid(window)
        colours = np.zeros((*strip.ids.shape, 3), np.uint8)
        if self.kind == "overlay":
            colours = self.picture.rgb(window)
        drawn = self._drawn(Frame(colours, "strip"), strip.ids, self.kind)
        shown = drawn if drawn.ndim == 3 else self._drawn(Frame(colours, "strip"), strip.ids, "color")
        if valid is not None:
            drawn = np.where(
                valid if drawn.ndim == 2 else valid[..., None], drawn, IGNORE if drawn.ndim == 2 else 0
            )
            shown = shown * valid[..., None]
        place = Place(0, strip.top, strip.ids.shape[1], strip.ids.shape[0])
        self.dataset.write(drawn[None] if drawn.ndim == 2 else drawn.transpose(2, 0, 1), window=place)
        if valid is not None and drawn.ndim == 3:
            self.dataset.write_mask(valid.astype(np.uint8) * 255, window=place)
        first = -strip.top % self.factor
        rows = shown[first :: self.factor, :: self.factor]
        start = (strip.top + first) // self.factor
        self.overview[start : start + len(rows)] = rows

    def _drawn(self, frame: Frame, ids: Array, kind: str) -> Array:
        words = self.words
        result = Record(
            kind="segmentation", frame=frame, ids=ids, names=tuple(words.names),
            palette=words.palette,
            file_ids=dict(enumerate(words.file_ids)),
        )  # fmt: skip
        drawing = {} if kind != "overlay" else {"legend": False, "outlines": False}
        return render(result, kind, **drawing)


@contextlib.contextmanager
def written(path: Path, picture: WindowedPicture, kind: str, words: Any) -> Iterator[StripWriter]:
    """A tiled TIFF as large as the picture, and where it is on the earth; within it pieces are added."""
    import rasterio

    height, width = picture.size
    numbers = kind in ("ids", "submission")
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "count": 1 if numbers else 3, "dtype": "uint8", "tiled": True,
        "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    if numbers:
        profile["nodata"] = IGNORE if picture.masked else None
    else:
        profile |= {"photometric": "rgb", "interleave": "pixel"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(str(path.absolute()), "w", **profile) as dataset:
            locate(dataset, picture)
            dataset.update_tags(classes=", ".join(words.names))
            if kind == "ids":
                dataset.write_colormap(1, {n: (*map(int, c), 255) for n, c in enumerate(words.palette)})
            yield StripWriter(dataset, picture, kind, words)


def locate(dataset: Any, picture: WindowedPicture) -> None:
    """Give a result the place of its picture: by a grid, by ground control points, or by rational polynomials."""
    source = picture.dataset
    points, system = source.gcps
    if source.crs is not None:
        dataset.crs = source.crs
    if not source.transform.is_identity:
        dataset.transform = source.transform
    elif points:
        dataset.gcps = (points, system)
    if source.rpcs is not None:
        dataset.rpcs = source.rpcs
    other = set(source.tag_namespaces()) & {"GEOLOCATION"}
    if other:
        log.warning(
            "%s: its place is given by arrays (GEOLOCATION), which is not taken over: the result is in pixels",
            picture.path,
        )
