"""Pictures of any number of bands: PNG, TIFF (also of several pages), `.npy`; 8 and 16 bits and floats. In uint8 they leave.

A `Bands` says how files are read. Each band has a range [LOWEST, HIGHEST] that becomes 0 to 255, linearly and to the nearest
number; what lies beyond is 0 or 255. 8 bits without a range stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dvsn.errors import ConfigError, DataError, nearest

Array = np.ndarray[Any, Any]
Range = tuple[float, float]

NUMPY = ".npy"
TYPES = ("uint8", "uint16", "int16", "float16", "float32", "float64")
"""Of the numbers of a picture."""
OPTIONS: dict[str, Any] = {
    "take": None, "range": None, "percentiles": [1, 99], "shown": None, "beside": None, "photos": None,
    "photo_ending": "", "beside_ending": "",
}  # fmt: skip
"""The options of `data.bands`, with what they are where nobody says otherwise."""


@dataclass(frozen=True)
class Bands:
    """How pictures of `count` bands are read.

    - `take`: which bands of a file, the first being 1, in this order; None: all.
    - `ranges`: of each band what becomes 0 and 255; None: 8 bits as they are, others have to be measured first.
    - `percentiles`: between which the values of a band are measured to lie.
    - `shown`: the three that pictures of them show as red, green and blue, or one, in grey; the first being 1. None: see
      `shown_bands`.
    - `beside`: a folder with a second file of each picture, whose bands come behind. It stands in the path of a picture
      in the place of the last folder called `photos`. The files' names are equal but for their suffixes and for what
      they have in addition, `photo_ending` and `beside_ending`.
    """

    count: int
    take: tuple[int, ...] | None = None
    ranges: tuple[Range, ...] | None = None
    percentiles: tuple[float, float] = (1.0, 99.0)
    shown: tuple[int, ...] | None = None
    beside: str | None = None
    photos: str | None = None
    photo_ending: str = ""
    beside_ending: str = ""

    @property
    def stored(self) -> int:
        """Bands of a file, as far as the options tell: it may have more than are taken."""
        return max(self.count, *(self.take or (1,)))

    @property
    def in_words(self) -> str:
        """The option that says how many there are."""
        return f"{self.count} ({'data.bands.take' if self.take else 'data.input_channels'})"


# Options -----------------------------------------------------------------------------------------------


def bands_of(data: Mapping[str, Any] | None) -> Bands | None:
    """How a data node (`data.bands`, `data.input_channels`) wants pictures read; None: as RGB, or as their brightness.
    Raises `ConfigError` with the option for a value without a meaning."""
    data = data or {}
    channels = data.get("input_channels", 3)
    return make_bands(data.get("bands"), channels if not data.get("label_classes") else 3)


def make_bands(options: Mapping[str, Any] | None, channels: int) -> Bands | None:
    """`bands_of` of the options, for pictures of so many channels."""
    options = options or {}
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"data.bands.{name}: unknown key. {nearest(str(name), OPTIONS)}")
    given = {**OPTIONS, **options}
    if channels in (1, 3) and all(given[name] is None for name in ("take", "range", "beside")):
        return None
    if type(channels) is not int or channels < 1:
        raise ConfigError(f"data.input_channels: found {channels!r}, expected a whole number above 0.")
    found = Bands(
        channels,
        _numbers(given["take"], "take"),
        read_ranges(given["range"], channels),
        _percentiles(given["percentiles"]),
        check_shown(given["shown"], channels),
        beside=_text(given["beside"], "beside"),
        photos=_text(given["photos"], "photos"),
        photo_ending=str(given["photo_ending"] or ""),
        beside_ending=str(given["beside_ending"] or ""),
    )
    if (found.beside is None) != (found.photos is None):
        raise ConfigError(
            "data.bands.beside, data.bands.photos: expected both, the folder of the second files and that of the photos in "
            "whose place it stands, such as data.bands.beside=depth data.bands.photos=images; or neither."
        )
    if found.take and (len(found.take) > channels or (found.beside is None and len(found.take) != channels)):
        raise ConfigError(
            f"data.bands.take: names {len(found.take)} bands, and data.input_channels is {channels}. Set "
            f"data.input_channels={len(found.take)}, and more with data.bands.beside."
        )
    return found


def _numbers(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not numbers or any(type(each) is not int or each < 1 for each in numbers):
        raise ConfigError(
            f"data.bands.{name}: found {value!r}, expected numbers of bands, the first being 1, such as [4, 3, 2]; or null."
        )
    return numbers


def check_shown(value: Any, channels: int) -> tuple[int, ...] | None:
    """`data.bands.shown`: three bands, or one."""
    shown = _numbers(value, "shown")
    if shown is not None and (len(shown) not in (1, 3) or max(shown) > channels):
        raise ConfigError(
            f"data.bands.shown: found {list(shown)}, expected three bands, or one, of 1 to {channels}; or null."
        )
    return shown


def _text(value: Any, name: str) -> str | None:
    if value is not None and (
        not isinstance(value, str) or not value or "/" in value or value in (".", "..")
    ):
        raise ConfigError(f"data.bands.{name}: found {value!r}, expected the name of a folder, or null.")
    return value


def _percentiles(value: Any) -> tuple[float, float]:
    fits = isinstance(value, list | tuple) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    if not fits or not 0 <= value[0] < value[1] <= 100:
        raise ConfigError(
            f"data.bands.percentiles: found {value!r}, expected [LOWEST, HIGHEST], such as [1, 99]."
        )
    return float(value[0]), float(value[1])


def read_ranges(value: Any, channels: int) -> tuple[Range, ...] | None:
    """`data.bands.range`: one pair for all bands, or a pair for each."""
    if value is None:
        return None
    pairs = (
        value if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple) else [value]
    )
    for pair in pairs:
        numbers = (
            isinstance(pair, list | tuple) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)
        )
        if not numbers or not all(map(math.isfinite, pair)) or not pair[0] < pair[1]:
            raise ConfigError(
                f"data.bands.range: found {value!r}, expected [LOWEST, HIGHEST] such as [0, 10000], one such pair for each "
                "band, or null."
            )
    if len(pairs) not in (1, channels):
        raise ConfigError(
            f"data.bands.range: found {len(pairs)} pairs, expected one for each of {channels} bands, or one for all."
        )
    found = [(float(low), float(high)) for low, high in pairs]
    return tuple(found * channels if len(found) == 1 else found)


def shown_bands(channels: int, shown: Sequence[int] | None = None) -> tuple[int, int, int]:
    """Which bands, from 0, a picture of them has as red, green and blue: those `shown`, from 1; else the first three; of
    fewer the first one, in grey."""
    if shown:
        one, two, three = shown if len(shown) == 3 else (shown[0],) * 3
        return one - 1, two - 1, three - 1
    return (0, 1, 2) if channels >= 3 else (0, 0, 0)


def as_rgb(picture: Array, bands: Bands | None = None) -> Array:
    """Bands (H, W, N) as RGB (H, W, 3); RGB stays, unless other bands are to be shown."""
    shown = None if bands is None else bands.shown
    if picture.shape[2] == 3 and shown is None:
        return picture
    return np.ascontiguousarray(picture[..., list(shown_bands(picture.shape[2], shown))])


# Numbers ----------------------------------------------------------------------------------------------


def counted(count: int) -> str:
    """Bands, in words."""
    return f"{count} band{'s' * (count != 1)}"


def to_bytes(parts: Sequence[Array], bands: Bands, path: Any) -> Array:
    """Numbers (H, W, n) of one or two files as one uint8 (H, W, N), by the ranges of their bands."""
    made, place = [], 0
    for part in parts:
        ends = None if bands.ranges is None else bands.ranges[place : place + part.shape[2]]
        if ends is None and part.dtype != np.uint8:
            raise ConfigError(
                f"{path}: numbers of {part.dtype}, which become 8 bits by a range that is not known. State it, such as "
                "data.bands.range=[0,10000]; training measures it and keeps it in the checkpoint."
            )
        made.append(part if ends is None else scaled(part, ends))
        place += part.shape[2]
    return np.ascontiguousarray(made[0] if len(made) == 1 else np.concatenate(made, axis=2))


def scaled(numbers: Array, ends: Sequence[Range]) -> Array:
    """(H, W, N) of any type -> uint8, each band by its range."""
    if numbers.dtype == np.uint8 and all(pair == (0.0, 255.0) for pair in ends):
        return numbers
    kind = np.float64 if numbers.dtype == np.float64 else np.float32
    low = np.array([pair[0] for pair in ends], kind)
    factor = np.array([255 / (pair[1] - pair[0]) for pair in ends], kind)
    values = np.multiply(np.subtract(numbers.astype(kind), low), factor)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def checked(numbers: Array, path: Any) -> Array:
    """(H, W) or (H, W, N) as (H, W, N). Raises `DataError` for other shapes and types, and for what is not finite."""
    if numbers.dtype.name not in TYPES:
        raise DataError(
            f"{path}: numbers of {numbers.dtype}, expected one of {', '.join(TYPES)}. Convert it."
        )
    if numbers.ndim == 2:
        numbers = numbers[..., None]
    if numbers.ndim != 3 or not numbers.size:
        raise DataError(
            f"{path}: an array of the shape {tuple(numbers.shape)}, expected (H, W) or (H, W, bands)."
        )
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise DataError(
            f"{path}: {count} of {numbers.size:,} values are not finite (NaN or infinite). Write numbers in their place, "
            "such as the lowest of the range."
        )
    return numbers


# Measuring ---------------------------------------------------------------------------------------------

SAMPLED = 100_000
"""Pixels of a picture that are looked at, at most, evenly spread."""


def measured(pictures: Sequence[Sequence[Array]], bands: Bands) -> Bands:
    """With ranges between the percentiles of what the files hold, by band; 8 bits keep 0 to 255. `pictures`: for each file
    what `read_numbers` gives."""
    ranges: list[Range] = []
    for part in range(len(pictures[0])):
        parts = [each[part] for each in pictures]
        if all(each.dtype == np.uint8 for each in parts):
            ranges += [(0.0, 255.0)] * parts[0].shape[2]
            continue
        chosen = [spread(each) for each in parts]
        ends = np.percentile(np.concatenate(chosen).astype(np.float64), bands.percentiles, axis=0)  # (2, n)
        for low, high in ends.T.tolist():
            ranges.append((float(f"{low:.6g}"), float(f"{high:.6g}")))
    fixed = [(low, high) if low < high else (low, low + 1.0) for low, high in ranges]
    return replace(bands, ranges=tuple(fixed))


def spread(numbers: Array) -> Array:
    """(H, W, n) -> (pixels, n), some of them, evenly."""
    flat = numbers.reshape(-1, numbers.shape[2])
    return flat[:: max(1, len(flat) // SAMPLED)]


def from_memory(picture: Any, bands: Bands, name: str = "predict") -> Array:
    """An array (H, W, N), or (H, W) of one band, as a file of these bands would be read."""
    array = checked(np.asarray(picture), name)
    if bands.beside is None and bands.take is not None and array.shape[2] != bands.count:
        if max(bands.take) > array.shape[2]:
            raise DataError(f"{name}: found {counted(array.shape[2])}, expected {bands.in_words}.")
        array = array[..., [each - 1 for each in bands.take]]
    if array.shape[2] != bands.count:
        raise DataError(
            f"{name}: found an array of the shape {tuple(array.shape)}, expected (H, W, {bands.count}), as many bands as "
            "the checkpoint was trained on."
        )
    return to_bytes([array], bands, name)
