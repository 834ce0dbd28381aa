"""Rectangles of big pictures, read without decoding the rest: tiled and striped TIFF, PNG and JPEG by their rows.

rasterio (BSD-3-Clause; extra `geo`) reads them, by GDAL. What becomes of the pixels is as `dvsn.portable.decode` has it:
pictures are RGB and as stored, alpha is dropped, 16 bits become 8 by the rule in force, ids keep their numbers. Memory is
that of the rectangle and of a cache of `CACHE` bytes, or of the rows that a rectangle needs where that is more.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dvsn.errors import ConfigError, DataError
from dvsn.portable import decode
from dvsn.portable.band_files import numbers_by
from dvsn.portable.bands import as_rgb, to_bytes
from dvsn.portable.headers import (
    BIG_TIFF_STARTS,
    JPEG_START,
    PNG_START,
    TIFF_STARTS,
    orientation_of_header,
    size_of,
    unbounded,
)
from dvsn.reading import require_regular

Array = np.ndarray[Any, Any]

ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jfif")
CACHE = 64 << 20
BLOCK = 256 << 20  # bytes of the largest tile or strip that is decoded at once
NEEDED = "reads pictures by windows, which needs rasterio: pip install 'dvsn[geo]'"


class Window(NamedTuple):
    """A rectangle of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def has_rasterio() -> bool:
    return importlib.util.find_spec("rasterio") is not None


def size_by_header(path: str | Path) -> tuple[int, int] | None:
    """(H, W) of a picture of any size and any bands, as stored; None where it is not readable as a picture."""
    found = size_of(path)
    if found is not None or not has_rasterio() or Path(path).suffix.lower() not in (".tif", ".tiff"):
        return found
    try:
        with open_windows(path) as picture:  # bands that Pillow does not know
            return picture.size
    except (DataError, ConfigError):
        return None  # the reader that decodes the file says what is wrong


def orientation_by_header(path: str | Path) -> int:
    """The turn that the tag of a picture of any size asks for; 1 where there is none."""
    try:
        with unbounded(), Image.open(path) as image:
            return orientation_of_header(image)
    except Exception:  # noqa: BLE001 - as above
        return 1


# One picture ------------------------------------------------------------------------------------------


class WindowedPicture:
    """An open picture of which rectangles are read. `dataset` is rasterio's."""

    def __init__(self, path: str | Path, dataset: Any) -> None:
        self.path, self.dataset = path, dataset
        self.size: tuple[int, int] = (int(dataset.height), int(dataset.width))
        self.bands = int(dataset.count)
        structure = dataset.tags(1, ns="IMAGE_STRUCTURE") | dataset.tags(ns="IMAGE_STRUCTURE")
        self.bits = int(structure.get("NBITS", 0)) or None
        self.inverted = structure.get("MINISWHITE") == "YES"
        self.colours = [each.name for each in dataset.colorinterp]
        self.kind = np.dtype(dataset.dtypes[0])

    def raw(self, window: Window) -> Array:
        """(h, w, bands) as stored. Raises `DataError` for a file that cannot be read there."""
        from rasterio.errors import RasterioIOError
        from rasterio.windows import Window as Place

        top, left, height, width = window
        try:
            found = self.dataset.read(window=Place(left, top, width, height))
        except RasterioIOError as error:
            raise DataError(
                f"{self.path}: damaged or truncated in rows {top} to {top + height} ({_reason(error)}). Copy or download it "
                "again."
            ) from error
        return np.ascontiguousarray(np.moveaxis(found, 0, -1))

    def rgb(self, window: Window) -> Array:
        """(h, w, 3) uint8: see `dvsn.portable.decode.read_rgb`."""
        raw = self.raw(window)
        if self.colours[0] == "palette":
            table = np.zeros((256, 3), np.uint8)
            for number, colour in self.dataset.colormap(1).items():
                if number < 256:
                    table[number] = colour[:3]
            return table[raw[..., 0]]
        picture = self._eight_bits(raw)
        colours = picture.shape[-1] - (self.colours[-1] == "alpha")
        if colours not in (1, 3):
            raise DataError(
                f"{self.path}: a picture of {self.bands} bands ({', '.join(self.colours)}), expected grey or RGB, with or "
                "without alpha. Write a file of three of them, such as by `rio stack --bidx 1,2,3`."
            )
        return np.ascontiguousarray(
            np.repeat(picture[..., :1], 3, axis=-1) if colours == 1 else picture[..., :3]
        )

    def photo(self, window: Window) -> Array:
        """(h, w, N) uint8: RGB, or the bands of the rule in force (`dvsn.portable.bands`)."""
        bands = decode.rule_in_force().bands
        if bands is None:
            return self.rgb(window)

        def read(file: str | Path) -> Array:
            if file == self.path:
                return self.numbers(window)
            with open_windows(file, tall=window.height) as beside:
                if beside.size != self.size:
                    raise DataError(
                        f"{file}: is {beside.size}, and {self.path} is {self.size}. Expected one size (H, W)."
                    )
                return beside.numbers(window)

        return to_bytes(numbers_by(read, self.path, bands), bands, self.path)

    def numbers(self, window: Window) -> Array:
        """(h, w, bands) as stored; the colours of a palette, and 0 and 255 of single bits."""
        if self.colours[0] == "palette":
            return self.rgb(window)
        raw = self.raw(window)
        return raw if self.bits is None or raw.dtype != np.uint8 else self._eight_bits(raw)

    def shown(self, window: Window) -> Array:
        """(h, w, 3) uint8 RGB to look at."""
        bands = decode.rule_in_force().bands
        return self.rgb(window) if bands is None else as_rgb(self.photo(window), bands)

    def _eight_bits(self, raw: Array) -> Array:
        if raw.dtype == np.uint16:
            raw = decode.to_eight_bits(raw, decode.rule_in_force().deep_range)
        elif raw.dtype != np.uint8:
            raise DataError(
                f"{self.path}: a picture of {raw.dtype}; expected 8 or 16 bits a channel. Convert it."
            )
        elif self.bits == 1:
            raw = raw * np.uint8(255)
        elif self.bits is not None and self.bits < 8:
            raw = (raw.astype(np.uint16) * 255 // (2**self.bits - 1)).astype(np.uint8)
        return 255 - raw if self.inverted else raw

    def ids(self, window: Window, *, advice: str = "") -> Array:
        """(h, w) uint8 or int32: see `dvsn.portable.decode.read_labels`."""
        if self.bands != 1 or self.kind.kind not in "iu":
            raise DataError(
                f"{self.path}: found {self.bands} bands of {self.kind}, expected label ids in one channel of whole "
                f"numbers. {advice}".rstrip()
            )
        raw = self.raw(window)[..., 0]
        return raw if raw.dtype == np.uint8 else raw.astype(np.int32)

    @property
    def masked(self) -> bool:
        """Whether the file says which of its pixels hold nothing: by a value (`nodata`), a mask or alpha."""
        return not all("all_valid" in {flag.name for flag in flags} for flags in self.dataset.mask_flag_enums)

    def valid(self, window: Window) -> Array | None:
        """(h, w) bool, false where the file says that there is nothing; None of a file that says nothing."""
        from rasterio.windows import Window as Place

        if not self.masked:
            return None
        place = Place(window.left, window.top, window.width, window.height)
        return np.asarray(self.dataset.dataset_mask(window=place) > 0)


@contextlib.contextmanager
def open_windows(path: str | Path, *, tall: int = 1024) -> Iterator[WindowedPicture]:
    """A picture that is read by windows of `tall` rows. Raises `DataError` for one that cannot be, and `ConfigError` without
    rasterio."""
    if not has_rasterio():
        raise ConfigError(f"{path}: {NEEDED}")
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    require_regular(path, expected="a picture")
    driver = check_whole(path)  # named, for other formats of GDAL, such as VRT, open files of their own
    with rasterio.Env(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            dataset = rasterio.open(str(Path(path).absolute()), driver=driver)
        except RasterioIOError as error:
            raise DataError(
                f"{path}: not a TIFF, PNG or JPEG that can be read by windows ({_reason(error)})."
            ) from error
        with dataset:
            _check_blocks(path, dataset)
            item = np.dtype(dataset.dtypes[0]).itemsize * dataset.count
            needed = 2 * (tall + dataset.block_shapes[0][0]) * dataset.width * item
            rows = (
                dataset.block_shapes[0][1] == dataset.width
            )  # strips and rows: others are read block by block
            rasterio.env.set_gdal_config("GDAL_CACHEMAX", min(max(CACHE, needed if rows else 0), 1 << 30))
            yield WindowedPicture(path, dataset)


def _check_blocks(path: str | Path, dataset: Any) -> None:
    """Raise `DataError` where the smallest part that can be decoded is too large for memory."""
    height, width = dataset.block_shapes[0]
    size = height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
    if size > BLOCK:
        raise DataError(
            f"{path}: is stored in blocks of {height}x{width} (height x width), {size:,} bytes, each of which must be "
            f"decoded as a whole; expected {BLOCK:,} at most. Write it as a tiled TIFF, such as by `rio convert IN OUT "
            "--co TILED=YES --co COMPRESS=DEFLATE`."
        )


def check_whole(path: str | Path) -> str:
    """GDAL's name of the format. Raises `DataError` for a file that ends too early, or is not stored by rows."""
    status = Path(path).stat()
    return _checked(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _checked(path: str, size: int, _: int) -> str:
    """`check_whole`, once for a file of this size and time."""
    with Path(path).open("rb") as file:
        start = file.read(64)
        file.seek(max(0, size - 4096))
        end = file.read()
    if start.startswith((*TIFF_STARTS, *BIG_TIFF_STARTS)):
        _check_whole_tiff(path, size)
        return "GTiff"
    if start.startswith(PNG_START):
        if b"IEND" not in end:
            raise DataError(
                f"{path}: truncated PNG ({size} bytes, its end is missing). Copy or download it again."
            )
        if start[28:29] == b"\x01":
            raise DataError(
                f"{path}: an interlaced PNG, which can only be decoded as a whole. Write it as a tiled TIFF, or as a PNG "
                "without interlacing."
            )
        return "PNG"
    if start.startswith(JPEG_START):
        if b"\xff\xd9" not in end:
            raise DataError(
                f"{path}: truncated JPEG ({size} bytes, its end is missing). Copy or download it again."
            )
        return "JPEG"
    raise DataError(
        f"{path}: starts with {start[:8]!r}; only TIFF, PNG and JPEG are read by windows. Write it as a tiled TIFF."
    )


def _check_whole_tiff(path: str | Path, size: int) -> None:
    """Whether all blocks of the first picture lie inside the file, by their offsets and lengths."""
    try:
        with unbounded(), Image.open(path) as image:
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            places, lengths = tags.get(324) or tags.get(273), tags.get(325) or tags.get(279)
    except Exception:  # noqa: BLE001 - compressions that Pillow does not know: GDAL finds it when it reads
        return
    if places is None or lengths is None:
        return
    end = int((np.asarray(places, np.int64) + np.asarray(lengths, np.int64)).max())
    if end > size:
        raise DataError(
            f"{path}: truncated TIFF ({size:,} bytes, its pixels reach to {end:,}). Copy or download it again."
        )


def _reason(error: BaseException) -> str:
    """What GDAL found."""
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


# By the rule in force ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The rectangle that the readers of `dvsn.portable.decode` give, of every file, while it is the rule's `part`.

    `size` (H, W) is that of the whole pictures: a file of another size is refused. TIFF is read by windows where rasterio
    is there; other files are decoded whole and cut, up to the rule's `max_pixels`, and above it read by windows too.
    """

    window: Window
    size: tuple[int, int]

    def rgb(self, path: str | Path) -> Array:
        if self._by_windows(path):
            with self._opened(path) as picture:
                return picture.photo(self.window)
        with self._whole():
            return self._cut(path, decode.read_rgb(path))

    def colors(self, path: str | Path) -> Array:
        if self._by_windows(path):
            with self._opened(path) as picture:
                if picture.bands < 3 and picture.colours[0] != "palette":
                    raise DataError(
                        f"{path}: found {picture.bands} bands (so probably ids), expected a colour-coded label map. Give "
                        "the colour file, or read ids with data.dataset.labels=ids."
                    )
                return picture.rgb(self.window)
        with self._whole():
            return self._cut(path, decode.read_colors(path))

    def labels(self, path: str | Path, **words: Any) -> Array:
        if self._by_windows(path):
            with self._opened(path) as picture:
                if picture.dataset.driver == "JPEG" and not words.get("lossy"):
                    raise DataError(f"{path}: label ids in a JPEG file are damaged by its compression.")
                return picture.ids(self.window, advice=words.get("advice", ""))
        with self._whole():
            return self._cut(path, decode.read_labels(path, **words))

    def _by_windows(self, path: str | Path) -> bool:
        if not has_rasterio():
            return False
        is_tiff = Path(path).suffix.lower() in (".tif", ".tiff")
        return is_tiff or self.size[0] * self.size[1] > decode.rule_in_force().max_pixels

    @contextlib.contextmanager
    def _opened(self, path: str | Path) -> Iterator[WindowedPicture]:
        with open_windows(path, tall=self.window.height) as picture:
            self._check(path, picture.size)
            yield picture

    def _whole(self) -> contextlib.AbstractContextManager[Any]:
        return decode.read_by(replace(decode.rule_in_force(), part=None))

    def _cut(self, path: str | Path, picture: Array) -> Array:
        self._check(path, (picture.shape[0], picture.shape[1]))
        top, left, height, width = self.window
        return np.ascontiguousarray(picture[top : top + height, left : left + width])

    def _check(self, path: str | Path, size: tuple[int, int]) -> None:
        if size != self.size:
            raise DataError(
                f"{path}: is {size[0]}x{size[1]} (height x width), and what belongs to it is "
                f"{self.size[0]}x{self.size[1]}. Expected one size."
            )
