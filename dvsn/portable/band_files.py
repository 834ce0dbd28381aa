"""Files of any number of bands as numbers: PNG, TIFF, also of several pages, JPEG and `.npy`; 8 and 16 bits and floats."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dvsn.errors import ConfigError, DataError
from dvsn.portable import headers
from dvsn.portable.bands import TYPES, Array, Bands, checked, counted, to_bytes


def read_bands(path: str | Path, data: bytes, bands: Bands, limit: int) -> Array:
    """(H, W, `count`) uint8 of a file's content, as stored, with the bands of the file beside it. Raises `DataError` with
    the file's name for a file that is damaged, has other bands, numbers of an unknown type, or any that is not finite;
    `ConfigError` where a library is missing, or a range."""
    return to_bytes(read_numbers(path, data, bands, limit), bands, path)


def read_numbers(path: str | Path, data: bytes, bands: Bands, limit: int) -> list[Array]:
    """The numbers of `read_bands` before they become bytes: (H, W, n) of the picture, and those of the file beside it."""

    def content(file: str | Path) -> bytes:
        return data if file == path else headers.read_picture(file, limit, bands=bands.stored)

    return numbers_by(lambda file: stored(file, content(file), limit), path, bands)


def numbers_by(read: Callable[[str | Path], Array], path: str | Path, bands: Bands) -> list[Array]:
    """`read_numbers` of what `read` gives of a file, (H, W) or (H, W, N): all of it, or a part."""
    parts = [checked(read(path), path)]
    if bands.take is not None:
        have = parts[0].shape[2]
        if max(bands.take) > have:
            raise DataError(
                f"{path}: found {counted(have)}, and data.bands.take asks for number {max(bands.take)}."
            )
        parts[0] = parts[0][..., [each - 1 for each in bands.take]]
    if bands.beside is not None:
        beside = beside_of(path, bands)
        parts.append(checked(read(beside), beside))
        if parts[1].shape[:2] != parts[0].shape[:2]:
            sizes = [f"{each.shape[0]}x{each.shape[1]}" for each in parts]
            raise DataError(
                f"{path} is {sizes[0]}, {beside} is {sizes[1]} (height x width). Expected one size."
            )
    have = sum(each.shape[2] for each in parts)
    if have != bands.count:
        one = f" ({parts[0].shape[2]}, and {parts[1].shape[2]} in {bands.beside})" if len(parts) > 1 else ""
        raise DataError(
            f"{path}: found {counted(have)}{one}, expected {bands.in_words}. All files need the same bands: take some of "
            f"them (data.bands.take), or set data.input_channels={have}."
        )
    return parts


def beside_of(path: str | Path, bands: Bands) -> Path:
    """The second file of a picture. Raises `DataError` where it is not there."""
    path = Path(path)
    parts = list(path.parts[:-1])
    if bands.photos not in parts:
        raise DataError(
            f"{path}: no folder '{bands.photos}' (data.bands.photos) is in this path, in whose place '{bands.beside}' would "
            "hold the further bands. For a picture of memory give all bands in one array."
        )
    place = len(parts) - 1 - parts[::-1].index(str(bands.photos))
    parts[place] = str(bands.beside)
    stem = path.stem
    if bands.photo_ending and stem.endswith(bands.photo_ending):
        stem = stem[: -len(bands.photo_ending)]
    wanted, folder = f"{stem}{bands.beside_ending}", Path(*parts)
    found = _names(str(folder)).get(wanted)
    if found is None or not (folder / found).is_file():
        _names.cache_clear()  # it may have been written or removed since
        found = _names(str(folder)).get(wanted)
    if found is None:
        raise DataError(
            f"{path}: {folder / wanted}.* with its further bands (data.bands.beside) is not there."
        )
    return folder / found


@functools.lru_cache(maxsize=64)
def _names(folder: str) -> dict[str, str]:
    """Files of a folder by their stem."""
    try:
        return {Path(name).stem: name for name in sorted(os.listdir(folder))}  # noqa: PTH208 - names are all
    except OSError:
        return {}


def stored(path: str | Path, data: bytes, limit: int) -> Array:
    """The numbers of a file as they are stored, (H, W) or (H, W, N); no more than `limit` pixels are decoded."""
    if data.startswith(b"\x93NUMPY"):
        return _numpy(path, data, limit)
    if data.startswith(headers.TIFF_STARTS + headers.BIG_TIFF_STARTS):
        return _tiff(path, data, limit)
    return _picture(path, data, limit)


def _numpy(path: Any, data: bytes, limit: int) -> Array:
    """An array of numpy, whose shape is looked at first; nothing is unpickled."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, kind = read(file)
        if kind.name in TYPES and len(shape) in (2, 3):
            headers.require_pixels(path, (shape[0], shape[1]), limit)
            return np.load(io.BytesIO(data), allow_pickle=False)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a whole .npy file ({error}). Copy or write it again.") from error
    if kind.name not in TYPES:
        raise DataError(f"{path}: numbers of {kind}, expected one of {', '.join(TYPES)}. Convert it.")
    raise DataError(f"{path}: an array of the shape {tuple(shape)}, expected (H, W) or (H, W, bands).")


def _picture(path: Any, data: bytes, limit: int) -> Array:
    """PNG, JPEG and what else Pillow opens. 16 bits a channel are decoded by OpenCV."""
    image = _opened(path, data, limit)
    if headers.is_deep(data) and image.mode != "I;16":
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16:
            raise DataError(f"{path}: a picture of 16 bits that cannot be decoded. Write it as TIFF or .npy.")
        if found.ndim == 2 or image.mode == "LA":
            return found if found.ndim == 2 else found[..., [0, -1]]
        order = [2, 1, 0, 3][: found.shape[2]]
        return found[..., order]
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    return np.array(image)


def _opened(path: Any, data: bytes, limit: int) -> Image.Image:
    """The picture as Pillow has it, decoded to its last pixel."""
    try:
        with headers.unbounded():
            image = Image.open(io.BytesIO(data))
        headers.require_pixels(path, (image.size[1], image.size[0]), limit)
        if data.startswith(headers.PNG_START) and b"IEND" not in data[-4096:]:
            raise OSError("truncated: its end is missing")
        image.load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: not a whole picture ({len(data)} bytes: {error}). Expected PNG, TIFF, JPEG or .npy; copy it again."
        ) from error
    return image


def _tiff(path: Any, data: bytes, limit: int) -> Array:
    """All bands of all pages. Pages of one band, and RGB of 8 bits, by Pillow; all else by tifffile."""
    by_pillow = _tiff_by_pillow(path, data, limit)
    if by_pillow is not None:
        return by_pillow
    try:
        import tifffile
    except ImportError as error:
        raise ConfigError(
            f"{path}: a TIFF of several bands a page needs tifffile. Install it with: pip install 'dvsn[bands]'"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            sides = shape[axes.index("Y")], shape[axes.index("X")]
            headers.require_pixels(path, sides, limit)
            numbers = np.asarray(series.asarray())
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: not a TIFF that can be read ({type(error).__name__}: {error}). Copy it again, or write it as .npy."
        ) from error
    order = [axes.index("Y"), axes.index("X")]
    rest = [place for place in range(len(axes)) if place not in order]
    return numbers.transpose(*order, *rest).reshape(*sides, -1)


def _tiff_by_pillow(path: Any, data: bytes, limit: int) -> Array | None:
    """None for a file whose bands Pillow does not keep as they are."""
    try:
        with headers.unbounded(), Image.open(io.BytesIO(data)) as image:
            turned = headers.tiff_orientation(image)
            pages: list[Array] = []
            for number in range(int(getattr(image, "n_frames", 1))):
                image.seek(number)
                tags: Any = image.tag_v2  # type: ignore[attr-defined]
                bits = tags.get(258, (8,))
                several = int(tags.get(277, 1)) > 1
                colours = image.mode == "RGB" and set(bits if isinstance(bits, tuple) else (bits,)) == {8}
                if several and not colours:
                    return None
                headers.require_pixels(path, (image.size[1], image.size[0]), limit)
                image.load()
                pages.append(_page(image))
    except DataError:
        raise
    except Exception:  # noqa: BLE001 - tifffile is asked next, and says what is wrong
        return None
    if len({each.shape[:2] for each in pages}) != 1 or len({each.dtype for each in pages}) != 1:
        listed = ", ".join(f"{each.shape[0]}x{each.shape[1]} of {each.dtype}" for each in pages[:4])
        raise DataError(f"{path}: its pages differ ({listed}). Expected bands of one size and one type.")
    numbers = np.concatenate([each[..., None] if each.ndim == 2 else each for each in pages], axis=2)
    return headers.turn(numbers, turned, back=True)


def _page(image: Image.Image) -> Array:
    if image.mode == "1":
        return np.array(image.convert("L"))
    if image.mode == "P":
        return np.array(image)
    numbers = np.array(image)
    bits: Any = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
    whole = int(bits[0] if isinstance(bits, tuple) else bits)
    signed = int((image.tag_v2.get(339, (1,)) or (1,))[0]) == 2  # type: ignore[attr-defined]
    if numbers.dtype == np.int32 and whole == 16:
        return numbers.astype(np.int16 if signed else np.uint16)
    return numbers
