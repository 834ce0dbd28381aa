"""Size, bits per channel and orientation of a picture from its first bytes, without decoding it."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dvsn.errors import DataError
from dvsn.reading import read_bytes

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
TIFF_STARTS, BIG_TIFF_STARTS = (b"II*\x00", b"MM\x00*"), (b"II+\x00", b"MM\x00+")
ORIENTATION = 0x0112
"""The tag of EXIF and TIFF that says how a picture is to be turned: 1 upright, 6 by 90 degrees clockwise, and so on."""

PEEK = 4096
AROUND = 64 << 20
"""Bytes of a file beside its pixels: previews, profiles, metadata."""
JUNK = 1 << 16
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG's markers of a frame
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
"""By orientation: from stored to upright, and back."""


@contextlib.contextmanager
def unbounded() -> Iterator[None]:
    """Within it Pillow opens pictures of any size: what is decoded has to be checked by `require_pixels`."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def require_pixels(path: str | Path, size: tuple[int, int], limit: int) -> None:
    """Raise `DataError` for a picture of a size (H, W) of more than `limit` pixels."""
    height, width = size
    if height * width > limit:
        raise DataError(
            f"{path}: a picture of {height}x{width} (height x width), {height * width:,} pixels; expected {limit:,} at "
            f"most, for memory. If it is meant, set data.max_pixels={height * width} (of dvsn.predict max_pixels)."
        )


def read_picture(path: str | Path, pixels: int, *, bands: int = 1) -> bytes:
    """The content of a file of a picture, which is not larger than `pixels` of three colours, or of `bands`, would be: 8
    bytes each, and `AROUND` for what else a file holds. Raises `DataError`, before any of it is read."""
    limit = AROUND + 8 * bands * pixels
    try:
        return read_bytes(path, limit=limit, expected="a picture")
    except DataError:
        file = Path(path)
        if not file.is_file() or (found := file.stat().st_size) <= limit:
            raise
        if (size := size_of(file)) is not None:
            require_pixels(file, size, pixels)
        raise DataError(
            f"{path}: {found:,} bytes, expected a picture of {limit:,} bytes at most, for memory. If it is meant, set "
            f"data.max_pixels={-(-(found - AROUND) // (8 * bands))} (of dvsn.predict max_pixels)."
        ) from None


def size_in(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG or PNG as stored, from its beginning; None for other formats or too few bytes."""
    if data.startswith(PNG_START):
        if len(data) < 24:
            return None
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if data.startswith(JPEG_START):
        for marker, place, _ in jpeg_segments(data):
            if marker in _SIZES and place + 5 <= len(data):
                height, width = struct.unpack(">HH", data[place + 1 : place + 5])
                return height, width
    return None


def size_of(path: str | Path) -> tuple[int, int] | None:
    """(height, width) of a file as stored; None if it is not readable as a picture: reading it raises the error."""
    if not Path(path).is_file():  # a pipe would never end
        return None
    try:
        with Path(path).open("rb") as file:
            data = file.read(PEEK)
        found = size_in(data)
        if found is None and data.startswith(JPEG_START):
            with Path(path).open("rb") as file:
                data = file.read(AROUND)
            found = size_in(data)
        if found is not None:
            return found
        if data.startswith(JPEG_START):
            with unbounded(), Image.open(io.BytesIO(up_to_frame(data))) as image:
                return stored_size(image)
        with unbounded(), Image.open(path) as image:
            return stored_size(image)
    except Exception:  # noqa: BLE001 - whatever it is, the reader that decodes the file names it
        return None


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) before any turn: Pillow swaps the sides of a TIFF that is to be turned."""
    height, width = image.size[1], image.size[0]
    turned = image.format == "TIFF" and tiff_orientation(image) > 4
    return (width, height) if turned else (height, width)


def orientation_in(data: bytes) -> int:
    """How a picture of this content is to be turned, 1 to 8, by EXIF in JPEG, PNG and WebP, and by TIFF's own tag."""
    if data.startswith(JPEG_START):
        bodies = (data[place : place + size] for marker, place, size in jpeg_segments(data) if marker == 0xE1)
        return next((exif_orientation(each) for each in bodies if each.startswith(b"Exif\0\0")), 1)
    if data.startswith(PNG_START):
        return next((exif_orientation(each) for each in chunks(data, b"eXIf", 8, ">")), 1)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return next((exif_orientation(each) for each in chunks(data, b"EXIF", 12, "<")), 1)
    if data.startswith(TIFF_STARTS):
        try:
            with Image.open(io.BytesIO(data)) as image:
                return tiff_orientation(image)
        except Exception:  # noqa: BLE001 - the reader that decodes the file says what is wrong
            return 1
    return 1


def orientation_of(path: str | Path) -> int:
    """`orientation_in` of a file; 1 where it cannot be read."""
    try:
        return orientation_in(read_bytes(path, limit=32 * AROUND))
    except ValueError:
        return 1


def is_deep(data: bytes) -> bool:
    """Whether a channel has 16 bits."""
    if data.startswith(PNG_START):
        return data[24:25] == b"\x10"
    if data.startswith(TIFF_STARTS):
        return deep_tiff(io.BytesIO(data))
    return data[:2] in (b"P5", b"P6") and b"\n65535\n" in data[:64]


def deep_tiff(file: str | Path | io.BytesIO) -> bool:
    """Whether a channel of a TIFF has 16 bits, by its tags, which may stand at its end."""
    try:
        with unbounded(), Image.open(file) as image:
            bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
            return max(bits if isinstance(bits, tuple) else (bits,)) == 16
    except Exception:  # noqa: BLE001 - as above
        return False


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, place of its body, length of its body) of a JPEG's segments up to its pixels."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
        elif marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:  # without a body
            place += 2
        elif marker in (0xD9, 0xDA):
            return
        else:
            length = (data[place + 2] << 8) + data[place + 3]
            yield marker, place + 4, length - 2
            place += 2 + length


def up_to_frame(data: bytes) -> bytes:
    """The beginning of a JPEG in which its frame has to stand: its segments and `JUNK` behind them, through which Pillow
    goes byte by byte, some 100,000 a second, up to the end of what it is given."""
    ends = [place + size for _, place, size in jpeg_segments(data)]
    return data[: max(ends, default=2) + JUNK]


def chunks(data: bytes, wanted: bytes, start: int, order: str) -> Iterator[bytes]:
    """The bodies of the chunks of one kind: PNG has length, kind, body, sum; RIFF has kind, length, body, filling."""
    place, png = start, order == ">"
    while place + 8 <= len(data):
        head = data[place : place + 8]
        kind = head[4:] if png else head[:4]
        (length,) = struct.unpack(f"{order}I", head[:4] if png else head[4:])
        if kind == wanted:
            yield data[place + 8 : place + 8 + length]
        place += 8 + length + (4 if png else length % 2)


def exif_orientation(body: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(body)
        return valid_turn(exif.get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a damaged tag turns nothing
        return 1


def orientation_of_header(image: Image.Image) -> int:
    """The turn of an opened picture of any format, of which nothing has been decoded."""
    if image.format == "TIFF":
        return tiff_orientation(image)
    try:
        return valid_turn(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a damaged tag turns nothing
        return 1


def tiff_orientation(image: Image.Image) -> int:
    """Before the picture is loaded: Pillow turns it then, and forgets the tag."""
    return valid_turn(image.tag_v2.get(ORIENTATION, 1))  # type: ignore[attr-defined]


def valid_turn(value: object) -> int:
    return value if type(value) is int and 1 <= value <= 8 else 1


def turn(picture: np.ndarray, orientation: int, *, back: bool = False) -> np.ndarray:
    """(H, W, ...) as stored -> upright; or, with `back`, upright -> as stored."""
    if orientation not in _TURNS:
        return picture
    step = _TURNS[orientation][int(back)]
    if step in (Image.Transpose.FLIP_LEFT_RIGHT,):
        result = picture[:, ::-1]
    elif step == Image.Transpose.FLIP_TOP_BOTTOM:
        result = picture[::-1]
    elif step == Image.Transpose.ROTATE_180:
        result = picture[::-1, ::-1]
    elif step == Image.Transpose.ROTATE_90:  # counter-clockwise, as Pillow counts
        result = np.rot90(picture, 1)
    elif step == Image.Transpose.ROTATE_270:
        result = np.rot90(picture, 3)
    elif step == Image.Transpose.TRANSPOSE:
        result = picture.swapaxes(0, 1)
    else:  # TRANSVERSE
        result = picture[::-1, ::-1].swapaxes(0, 1)
    return np.ascontiguousarray(result)


def turn_corners(corners: np.ndarray, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) x1, y1, x2, y2 of a picture of `size` (H, W) as stored -> of the upright one, edges being numbers."""
    height, width = size
    x1, y1, x2, y2 = np.asarray(corners, np.float64).reshape(-1, 4).T
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    if orientation > 4:
        x1, y1, x2, y2 = y1, x1, y2, x2
    return np.stack([x1, y1, x2, y2], axis=-1)
