"""Pictures and label maps from disk: decoded once, fast, and never half.

Five decisions hold for every dataset:

- Photos are RGB, and they and label maps are read *as stored*: an orientation tag is applied to no file of any format,
  because the label map that belongs to a photo carries none. `dvsn.predict` alone turns pictures upright: photos, maps of
  ids and maps of instances, each by its own tag.
- Only regular files are opened, and a picture is decoded only after its header was seen to have a size that is allowed.
- 16 bits a channel become 8 by a range that is stated (`Rule.deep_range`), or else by their upper 8.
- OpenCV decodes 8-bit JPEG and PNG (faster than Pillow: `experiments/speed/input_pipeline.md`), but only
  after the file was seen to be whole: depending on its version it returns half a picture for half a file.
  Everything else goes through Pillow, which raises.
- Label ids are read with Pillow, which keeps the indices of a palette picture; OpenCV makes colours of them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dvsn.errors import ConfigError, DataError
from dvsn.portable import headers
from dvsn.portable.band_files import read_bands
from dvsn.portable.bands import Bands
from dvsn.portable.headers import JPEG_START, PNG_START

MAX_PIXELS = 200_000_000
"""Of one picture, unless an option says otherwise: 600 MB as RGB."""

_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"
_AS_STORED_RGB = (
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION if hasattr(cv2, "IMREAD_COLOR_RGB") else None
)


@dataclass
class Rule:
    """How pictures are read: by a data set, or by `dvsn.predict`."""

    max_pixels: int = MAX_PIXELS
    deep_range: tuple[int, int] | None = None
    """Of 16-bit channels: what becomes 0 and what becomes 255; None: 0 and 65535."""
    upright: bool = False
    """Pictures, maps of ids too, are turned by their orientation tag."""
    part: Any = None
    """A `dvsn.portable.windows.Part`: the rectangle that is read of every file; None: all of it."""
    turned: list[str] = field(default_factory=list)
    """Files that were."""
    bands: Bands | None = None
    """How photos of other bands than red, green and blue are read; None: as RGB."""


_RULE: ContextVar[Rule] = ContextVar("rule", default=Rule())  # noqa: B039 - nobody writes into the default


@contextlib.contextmanager
def read_by(rule: Rule) -> Iterator[Rule]:
    """Within it, pictures are read by this rule."""
    token = _RULE.set(rule)
    try:
        yield rule
    finally:
        _RULE.reset(token)


def rule_in_force() -> Rule:
    """The rule of the nearest `read_by` around."""
    return _RULE.get()


def make_rule(
    *,
    max_pixels: int | None = None,
    deep_range: Sequence[int] | None = None,
    upright: bool = False,
    bands: Bands | None = None,
) -> Rule:
    """The rule of options `max_pixels` and `deep_range`, null being the usual. Raises `ConfigError` for wrong ones."""
    pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if type(pixels) is not int or pixels < 1:
        raise ConfigError(f"data.max_pixels: found {max_pixels}, expected a whole number above 0, or null.")
    if deep_range is not None and bands is not None:
        raise ConfigError("data.deep_range: is for RGB. Of bands it is data.bands.range, such as [0, 4095].")
    if deep_range is None:
        return Rule(pixels, None, upright, bands=bands)
    ends = tuple(deep_range)
    if len(ends) != 2 or any(type(end) is not int for end in ends) or not 0 <= ends[0] < ends[1] <= 65535:
        raise ConfigError(
            f"data.deep_range: found {list(ends)}, expected [LOWEST, HIGHEST] of 16-bit pictures, such as [0, 4095]."
        )
    return Rule(pixels, (ends[0], ends[1]), upright)


def read_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored. Grey becomes RGB, alpha is dropped, 16 bits become 8 by the rule in force. Where that
    has `bands`, (H, W, N) uint8 of these.

    Raises `DataError` with the file's name for a missing, empty, truncated, damaged or foreign file.
    """
    if (part := _RULE.get().part) is not None:
        return part.rgb(path)  # type: ignore[no-any-return]
    return to_photo(path, _read_bytes(path))


def to_photo(path: str | Path, data: bytes) -> np.ndarray:
    """`read_rgb` of a file's content; `path` names it in messages."""
    rule = _RULE.get()
    if rule.bands is None:
        return to_rgb(path, data)
    return _turned(read_bands(path, data, rule.bands, rule.max_pixels), path, data)


def read_colors(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a colour-coded label map; a single-channel picture of ids is refused."""
    if (part := _RULE.get().part) is not None:
        return part.colors(path)  # type: ignore[no-any-return]
    data = _read_bytes(path)
    mode = _open(path, data, decode=False).mode
    if mode not in ("RGB", "RGBA", "P", "PA"):
        raise DataError(
            f"{path}: found a picture of mode '{mode}' (one channel, so probably ids), expected a "
            "colour-coded label map (RGB, RGBA, palette). Give the colour file, or read ids with data.dataset.labels=ids."
        )
    return to_rgb(path, data)


def read_labels(
    path: str | Path,
    *,
    advice: str = "A colour-coded label map is read with data.dataset.labels=color.",
    lossy: bool = False,
    lossy_advice: str = "",
) -> np.ndarray:
    """(H, W) ids: uint8, or int32 for 16-bit files such as instance ids. Palettes keep their indices. As stored, or
    upright by the rule in force.

    `advice` tells what to do with a file that holds colours. A JPEG is refused unless `lossy`, since compression changes
    ids; `lossy_advice` tells what else can be done.
    """
    if (part := _RULE.get().part) is not None:
        return part.labels(path, advice=advice, lossy=lossy, lossy_advice=lossy_advice)  # type: ignore[no-any-return]
    return to_labels(path, _read_bytes(path), advice=advice, lossy=lossy, lossy_advice=lossy_advice)


def to_labels(
    path: str | Path, data: bytes, *, advice: str = "", lossy: bool = False, lossy_advice: str = ""
) -> np.ndarray:
    """`read_labels` of a file's content; `path` names it in messages."""
    image = _open(path, data)
    if image.format == "JPEG" and not lossy:
        raise DataError(
            f"{path}: label ids in a JPEG file are damaged by its compression; expected a PNG of ids. {lossy_advice}"
        )
    if image.mode in ("L", "P", "1"):
        return _turned(_as_stored(np.array(image, dtype=np.uint8), data), path, data)
    if image.mode.startswith("I"):
        return _turned(_as_stored(np.array(image, dtype=np.int32), data), path, data)
    raise DataError(
        f"{path}: found a picture of mode '{image.mode}', expected label ids in one channel (8-bit grey, "
        f"palette or 16-bit). {advice}"
    )


def read_grey(path: str | Path) -> np.ndarray:
    """(H, W) uint8 brightness of a mask as stored, in any format: of a palette its colours, of 16 bits by the rule."""
    with read_by(replace(_RULE.get(), bands=None)):  # a mask has no bands
        return cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY)


def open_stored(path: str | Path) -> Image.Image:
    """A picture decoded to its last pixel, in the mode that its file has: palettes keep their indices.

    Raises `DataError` as `read_rgb` does.
    """
    return _open(path, _read_bytes(path))


def _read_bytes(path: str | Path) -> bytes:
    rule = _RULE.get()
    data = headers.read_picture(path, rule.max_pixels, bands=rule.bands.stored if rule.bands else 1)
    if not data:
        raise DataError(
            f"{path}: the file is empty (0 bytes), expected a picture. Copy or download it again."
        )
    return data


def _is_whole_jpeg(data: bytes) -> bool:
    """Starts and ends as a JPEG. Its end mark cannot occur inside; a preview's end precedes any size, so that
    a file cut there does not decode at all."""
    return data.startswith(JPEG_START) and data.endswith(_JPEG_END)


def _is_plain_png(data: bytes) -> bool:
    """A whole PNG with 8 bits a channel or less; byte 24 is the depth."""
    return data.startswith(PNG_START) and data.endswith(_PNG_END) and data[24:25] <= b"\x08"


def to_rgb(path: str | Path, data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file's content, whatever bands the rule has; `path` names it in messages."""
    rule = _RULE.get()
    picture = None
    if (_is_whole_jpeg(data) or _is_plain_png(data)) and (size := headers.size_in(data)) is not None:
        check_pixels(path, size, rule)
        picture = _decode_rgb(data)
    if picture is None:
        picture = _decode_other(path, data, rule)
    return _turned(picture, path, data)


def _turned(picture: np.ndarray, path: str | Path, data: bytes) -> np.ndarray:
    """A picture as stored -> upright, where the rule in force asks for that."""
    rule = _RULE.get()
    if not rule.upright or (orientation := headers.orientation_in(data)) == 1:
        return picture
    rule.turned.append(str(path))
    return headers.turn(picture, orientation)


def check_pixels(path: str | Path, size: tuple[int, int] | None, rule: Rule | None = None) -> None:
    """Raise `DataError` for a picture of more pixels than the rule allows, before it is decoded."""
    if size is not None:
        headers.require_pixels(path, size, (rule or _RULE.get()).max_pixels)


def _decode_other(path: str | Path, data: bytes, rule: Rule) -> np.ndarray:
    """What OpenCV is not asked for at first, as stored: other formats, 16 bits, and files that are not whole."""
    image = _open(path, data)
    if image.mode == "F":
        raise DataError(
            f"{path}: a picture of 32-bit floats; expected 8 or 16 bits a channel. Convert it, or read it as a band: "
            "data.input_channels=1 data.bands.take=[1]."
        )
    if (deep := _deep(image, data)) is not None:
        return to_eight_bits(deep, rule.deep_range)
    return _as_stored(np.array(image.convert("RGB")), data)


def _deep(image: Image.Image, data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint16 of a decoded picture of 16 bits a channel; None of 8. Pillow alone keeps their upper 8 only."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535).astype(np.uint16)
        return _as_stored(np.stack([grey] * 3, axis=-1), data)
    if not headers.is_deep(data):
        return None
    with contextlib.suppress(cv2.error):
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is not None and found.dtype == np.uint16 and found.ndim == 3 and found.shape[2] >= 3:
            return _as_stored(np.ascontiguousarray(found[..., 2::-1]), data)
    return None


def _as_stored(picture: np.ndarray, data: bytes) -> np.ndarray:
    """Undo the turn that Pillow and OpenCV give to a TIFF."""
    if not data.startswith(headers.TIFF_STARTS):
        return picture
    return headers.turn(picture, headers.orientation_in(data), back=True)


def to_eight_bits(deep: np.ndarray, ends: tuple[int, int] | None) -> np.ndarray:
    """uint16 -> uint8: the upper 8 bits of the range where it is 0 to a power of two, else linear; beyond it the ends."""
    low, high = ends or (0, 65535)
    bits = high.bit_length()
    if low == 0 and high == (1 << bits) - 1 and bits >= 8:
        return (deep.clip(max=high) >> (bits - 8)).astype(np.uint8)
    values = (deep.astype(np.int64).clip(low, high) - low) * 255
    return ((values + (high - low) // 2) // (high - low)).astype(np.uint8)


def deep_file(path: str | Path) -> bool:
    """Whether a picture has 16 bits a channel; False where it cannot be read, which reading will say."""
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            start = file.read(headers.PEEK)
        return headers.deep_tiff(path) if start.startswith(headers.TIFF_STARTS) else headers.is_deep(start)
    except OSError:
        return False


def highest_deep(path: str | Path) -> int | None:
    """The highest value of a picture with 16 bits a channel; None of any other."""
    data = _read_bytes(path)
    if not headers.is_deep(data):
        return None
    deep = _deep(_open(path, data), data)
    return None if deep is None else int(deep.max(initial=0))


def _decode_rgb(data: bytes) -> np.ndarray | None:
    buffer = np.frombuffer(data, np.uint8)
    try:
        if _AS_STORED_RGB is not None:
            return cv2.imdecode(buffer, _AS_STORED_RGB)
        picture = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None  # Pillow is asked next and says what is wrong
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _open(path: str | Path, data: bytes, *, decode: bool = True) -> Image.Image:
    """The picture as Pillow has it, decoded to its last pixel (or, not `decode`, its header only)."""
    size = f"{len(data)} bytes"
    try:
        with headers.unbounded():
            if data.startswith(JPEG_START) and headers.size_in(data) is None:
                Image.open(io.BytesIO(headers.up_to_frame(data)))
            image = Image.open(io.BytesIO(data))
    except Exception as error:
        start = "its start is that of a picture, so it is truncated or damaged"
        if not data.startswith((PNG_START, JPEG_START)):
            start = f"it starts with {data[:8]!r}"
        raise DataError(
            f"{path}: not a readable picture ({size}; {start}). Expected a JPEG or PNG file."
        ) from error
    check_pixels(path, (image.size[1], image.size[0]))
    if not decode:
        return image
    if data.startswith(PNG_START) and _PNG_END not in data[-4096:]:
        raise DataError(f"{path}: truncated PNG ({size}, its end is missing). Copy or download it again.")
    try:
        image.load()
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise DataError(
            f"{path}: {kind} {image.format} ({size}: {error}). Copy or download it again."
        ) from error
    return image
