"""Segmentation and pix2pix of pictures that do not fit: read, asked and written by windows, with memory bounded by these.

The windows are those of `inference.mode=slide`, and the answer is the one that the picture would have in memory. It is a
tiled TIFF, with the georeference of its picture, and a small overview beside it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.atomic import replacing
from dvsn.errors import ConfigError, DataError
from dvsn.pictures.grids import write_picture
from dvsn.portable.frame import Frame
from dvsn.portable.memory import brightness, check_ids
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
    size_by_header,
)
from dvsn.predict.predictor import random_kept, replaced
from dvsn.predict.progress import Progress
from dvsn.seeding import seed_everything
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
        return self.inference is not None and self.inference.mode == "slide"

    def wants(self, path: Path) -> bool:
        """Whether a picture is read by windows: it is large, a TIFF, PNG or JPEG, and windows slide over it. Raises
        `ConfigError` where the other options do not allow that and it is too large to be read as a whole."""
        if not self.slides or path.suffix.lower() not in ENDINGS:
            return False
        size = size_by_header(path)
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
        if self.task.data_recipe.get("pair", {}).get("edges"):
            return "data.pair.edges: the network reads edges of instances, which are found in whole pictures."
        if self.options["side_by_side"]:
            return "side_by_side: is not for pictures that are read by windows. Set side_by_side=false."
        return None

    def advice(self, path: Path) -> str:
        """What can be done about a picture that could not be read whole, if it is too large for that."""
        size = None if self.inference is None or self.slides else size_by_header(path)
        if size is None or size[0] * size[1] <= self.options["max_pixels"]:
            return ""
        return " Or let it be read by windows: size=keep inference.mode=slide 'inference.window=[1024,1024]'."

    def targets(self, items: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
        """Each picture with the file of its result: of big ones a TIFF. Raises `DataError` where that would be a source, or
        its overview the result of another picture."""
        found = [(path, target.with_suffix(".tif") if self.wants(path) else target) for path, target in items]
        sources = {path.resolve() for path, _ in items}
        results = {target for _, target in found}
        for path, target in found:
            if target.suffix == ".tif" and target.resolve() in sources:
                raise DataError(
                    f"output: {target} is a picture that is read. Choose another folder than that of {path}."
                )
            if target.suffix == ".tif" and overview_of(target) in results:
                raise DataError(
                    f"output: {overview_of(target)} would be the overview of {path} and the result of another picture. "
                    "Predict them into different folders."
                )
        return found

    def __call__(self, path: Path, target: Path, kind: str) -> list[Path]:
        """Write the answer of a kind (`color`, `overlay`, `ids`, `submission`, `picture`), whole or not at all; files."""
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
                with Progress(str(path), count, unit="windows") as progress, random_kept():
                    seed_everything(int(self.options["seed"]), rank=0, epoch=0, batch=0, stage=1)
                    overview = self._write(picture, temporary, kind, progress)
                log.info("%s: %s", path, progress.summary())
        small = overview_of(target)
        write_picture(small, overview)
        return [target, small]

    def _write(self, picture: WindowedPicture, path: Path, kind: str, progress: Progress) -> Array:
        ids = self.task.input_classes > 0

        def read(*place: int) -> torch.Tensor:
            if ids:
                labels = picture.ids(Window(*place))
                check_ids(labels, self.task.input_classes)
                return torch.from_numpy(labels.astype(np.uint8)[None, None])
            photo = picture.photo(Window(*place))
            if self.task.input_channels == 1:
                photo = brightness(photo).reshape(*photo.shape[:2], 1)
            return torch.from_numpy(photo.transpose(2, 0, 1)[None].copy())

        look = Look(self.task, picture, kind)
        with written(path, picture, look) as writer, torch.inference_mode():
            pieces = self.task.predict_pieces(
                read, picture.size, device=self.device, together=int(self.options["batch_size"])
            )
            for top, left, answer in pieces:
                writer.add(top, left, answer)
                progress.add()
        return writer.overview


# Results -------------------------------------------------------------------------------------------------


def overview_of(target: Path) -> Path:
    """The small picture beside a result."""
    return target.with_name(f"{target.stem}_overview.png")


class Look:
    """How answers become the pixels of the result: class ids by `kind`, as `write` has it; pictures stay."""

    def __init__(self, task: Any, picture: WindowedPicture, kind: str) -> None:
        self.picture, self.kind, self.makes = picture, kind, task.kind == "pix2pix"
        self.words = None if self.makes else task.vocabulary
        self.bands = 1 if self.numbers or (self.makes and task.output_channels == 1) else 3

    @property
    def numbers(self) -> bool:
        return self.kind in ("ids", "submission")

    @property
    def classes(self) -> tuple[str, ...]:
        return () if self.words is None else tuple(self.words.names)

    def __call__(self, top: int, answer: Array) -> tuple[Array, Array]:
        """Rows of answers, the first being `top`, of the whole width -> what is written, and RGB (h, W, 3) to look at."""
        if self.makes:
            return (answer if self.bands == 3 else answer[..., 0]), np.repeat(
                answer, 4 - answer.shape[2], axis=2
            )[..., :3]
        colours = np.zeros((*answer.shape, 3), np.uint8)
        if self.kind == "overlay":
            colours = self.picture.shown(Window(top, 0, *answer.shape))
        drawn = self._drawn(colours, answer, self.kind)
        return drawn, drawn if drawn.ndim == 3 else self._drawn(colours, answer, "color")

    def _drawn(self, colours: Array, ids: Array, kind: str) -> Array:
        words: Any = self.words
        result = Record(
            kind="segmentation", frame=Frame(colours, "rows"), ids=ids, names=tuple(words.names), palette=words.palette,
            file_ids=dict(enumerate(words.file_ids)),
        )  # fmt: skip
        return render(result, kind, **({"legend": False, "outlines": False} if kind == "overlay" else {}))


class RowWriter:
    """Answers that come in pieces -> the rows of a tiled TIFF, a row of its tiles at a time."""

    def __init__(self, dataset: Any, look: Look) -> None:
        self.dataset, self.look, self.picture = dataset, look, look.picture
        height, width = self.picture.size
        self.top = 0  # of the rows that wait
        self.waiting: Array | None = None
        self.factor = -(-max(height, width) // OVERVIEW)
        small = (-(-height // self.factor), -(-width // self.factor))
        self.overview: Array = np.zeros((*small, 3), np.uint8)

    def add(self, top: int, left: int, answer: Array) -> None:
        """A piece (h, w) or (h, w, 3); pieces of a row come from left to right."""
        height, width = self.picture.size
        bottom, right = top + answer.shape[0], left + answer.shape[1]
        if self.waiting is None:
            self.waiting = np.zeros((0, width, *answer.shape[2:]), np.uint8)
        missing = bottom - self.top - len(self.waiting)
        if missing > 0:
            more = np.zeros((missing, *self.waiting.shape[1:]), np.uint8)
            self.waiting = np.concatenate([self.waiting, more])
        self.waiting[top - self.top : bottom - self.top, left:right] = answer
        if right < width:
            return
        while self.top < bottom and (bottom - self.top >= BLOCK or bottom == height):
            rows = min(BLOCK, height - self.top)
            self._write(self.top, self.waiting[:rows])
            self.waiting = self.waiting[rows:].copy()
            self.top += rows

    def _write(self, top: int, answer: Array) -> None:
        from rasterio.windows import Window as Place

        height, width = answer.shape[:2]
        valid = self.picture.valid(Window(top, 0, height, width))
        drawn, shown = self.look(top, answer)
        flat = drawn.ndim == 2
        if valid is not None:
            nothing = np.uint8(IGNORE if self.look.numbers else 0)
            drawn = np.where(valid if flat else valid[..., None], drawn, nothing)
            shown = shown * valid[..., None]
        place = Place(0, top, width, height)
        self.dataset.write(drawn[None] if flat else drawn.transpose(2, 0, 1), window=place)
        if valid is not None and not self.look.numbers:
            self.dataset.write_mask(valid.astype(np.uint8) * 255, window=place)
        first = -top % self.factor
        rows = shown[first :: self.factor, :: self.factor]
        start = (top + first) // self.factor
        self.overview[start : start + len(rows)] = rows


@contextlib.contextmanager
def written(path: Path, picture: WindowedPicture, look: Look) -> Iterator[RowWriter]:
    """A tiled TIFF as large as the picture, and where it is on the earth; within it pieces are added."""
    import rasterio

    height, width = picture.size
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "count": look.bands, "dtype": "uint8",
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    if look.numbers:
        profile["nodata"] = IGNORE if picture.masked else None
    elif look.bands == 3:
        profile |= {"photometric": "rgb", "interleave": "pixel"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(str(path.absolute()), "w", **profile) as dataset:
            locate(dataset, picture)
            if look.classes:
                dataset.update_tags(classes=", ".join(look.classes))
            if look.kind == "ids" and look.words is not None:
                dataset.write_colormap(1, {n: (*map(int, c), 255) for n, c in enumerate(look.words.palette)})
            yield RowWriter(dataset, look)


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
