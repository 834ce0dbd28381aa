"""Pictures and label maps from disk: decoded once, fast, and never half.

Three decisions hold for every dataset:

- Photos are RGB and are read *as stored*: an EXIF rotation tag is applied to no file, because the label map
  that belongs to a photo carries none.
- OpenCV decodes 8-bit JPEG and PNG (faster than Pillow: `experiments/speed/input_pipeline.md`), but only
  after the file was seen to be whole: depending on its version it returns half a picture for half a file.
  Everything else goes through Pillow, which raises.
- Label ids are read with Pillow, which keeps the indices of a palette picture; OpenCV makes colours of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dvsn.errors import DataError, nearest

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
"""What counts as a picture when a folder is listed."""

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_AS_STORED_RGB = (
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION if hasattr(cv2, "IMREAD_COLOR_RGB") else None
)


def read_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored. Grey becomes RGB, alpha is dropped, 16 bits keep their upper 8.

    Raises `DataError` with the file's name for a missing, empty, truncated, damaged or foreign file.
    """
    return to_rgb(path, _read_bytes(path))


def read_colors(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a colour-coded label map; a single-channel picture of ids is refused."""
    data = _read_bytes(path)
    mode = _open(path, data, decode=False).mode
    if mode not in ("RGB", "RGBA", "P", "PA"):
        raise DataError(
            f"{path}: found a picture of mode '{mode}' (one channel, so probably ids), expected a "
            "colour-coded label map (RGB, RGBA, palette). Give the colour file, or read ids with labels=ids."
        )
    return to_rgb(path, data)


def read_labels(
    path: str | Path, *, advice: str = "A colour-coded label map is read with labels=color."
) -> np.ndarray:
    """(H, W) ids: uint8, or int32 for 16-bit files such as instance ids. Palettes keep their indices.

    `advice` tells what to do with a file that holds colours.
    """
    image = _open(path, _read_bytes(path))
    if image.format == "JPEG":
        raise DataError(
            f"{path}: label ids in a JPEG file are damaged by its compression; expected a PNG of ids."
        )
    if image.mode in ("L", "P", "1"):
        return np.array(image, dtype=np.uint8)
    if image.mode.startswith("I"):
        return np.array(image, dtype=np.int32)
    raise DataError(
        f"{path}: found a picture of mode '{image.mode}', expected label ids in one channel (8-bit grey, "
        f"palette or 16-bit). {advice}"
    )


def require_folder(path: str | Path, *, expected: str, option: str) -> Path:
    """`path` if it is a folder; else a `DataError` with the expected tree and the option that sets it."""
    path = Path(path)
    if path.is_dir():
        return path
    raise DataError(_missing(path, "folder", expected, option))


def require_file(path: str | Path, *, expected: str, option: str) -> Path:
    """`path` if it is a file; else a `DataError` with the expected tree and the option that sets it."""
    path = Path(path)
    if path.is_file():
        return path
    raise DataError(_missing(path, "file", expected, option))


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of one folder, sorted as strings; hidden files (macOS leaves `._name.png`) are none."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def read_list(path: Path) -> list[list[str]]:
    """The columns (separated by blanks or tabs) of every line that holds any; the last needs no newline."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file ({error.reason}); expected a list of file names."
        ) from error
    return [columns for line in text.splitlines() if (columns := line.split())]


def unique_names(paths: Iterable[Path]) -> list[str]:
    """One name a file, for pictures made from it: its stem if all stems differ, else with its folder."""
    paths = list(paths)
    for name in (
        lambda p: p.stem,
        lambda p: f"{p.parent.name}_{p.stem}",
        lambda p: f"{p.parent.name}_{p.name}",
    ):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{number:06d}_{path.stem}" for number, path in enumerate(paths)]


def _missing(path: Path, kind: str, expected: str, option: str) -> str:
    found = "it exists, but is something else" if path.exists() else "nothing is there"
    if not path.exists() and path.parent.is_dir():
        beside = nearest(
            path.name, (each.name for each in path.parent.iterdir() if not each.name.startswith("."))
        )
        found = f"nothing is there. {beside.replace('Valid:', 'In its folder:')}".rstrip()
    tree = expected.rstrip()
    return f"{path}: no such {kind}: {found}\nExpected this tree:\n{tree}\nSet its root with {option}."


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not data:
        raise DataError(
            f"{path}: the file is empty (0 bytes), expected a picture. Copy or download it again."
        )
    return data


def _is_whole_jpeg(data: bytes) -> bool:
    """Starts and ends as a JPEG. Its end mark cannot occur inside; a preview's end precedes any size, so that
    a file cut there does not decode at all."""
    return data.startswith(_JPEG_START) and data.endswith(_JPEG_END)


def _is_plain_png(data: bytes) -> bool:
    """A whole PNG with 8 bits a channel or less; byte 24 is the depth."""
    return data.startswith(_PNG_START) and data.endswith(_PNG_END) and data[24:25] <= b"\x08"


def to_rgb(path: str | Path, data: bytes) -> np.ndarray:
    """`read_rgb` of a file's content; `path` names it in messages."""
    if _is_whole_jpeg(data) or _is_plain_png(data):
        picture = _decode_rgb(data)
        if picture is not None:
            return picture
    image = _open(path, data)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise DataError(f"{path}: a picture of 32-bit floats; expected 8 or 16 bits a channel. Convert it.")
    return np.array(image.convert("RGB"))


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
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:
        start = "its start is that of a picture, so it is truncated or damaged"
        if not data.startswith((_PNG_START, _JPEG_START)):
            start = f"it starts with {data[:8]!r}"
        raise DataError(
            f"{path}: not a readable picture ({size}; {start}). Expected a JPEG or PNG file."
        ) from error
    if not decode:
        return image
    if data.startswith(_PNG_START) and _PNG_END not in data[-4096:]:
        raise DataError(f"{path}: truncated PNG ({size}, its end is missing). Copy or download it again.")
    try:
        image.load()
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise DataError(
            f"{path}: {kind} {image.format} ({size}: {error}). Copy or download it again."
        ) from error
    return image
