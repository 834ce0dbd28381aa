"""An uploaded file becomes a picture: its kind and size are read from the header before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from dvsn.errors import DataError
from dvsn.portable import headers
from dvsn.portable.decode import Rule, read_by, to_labels, to_photo
from dvsn.serve.refusal import Refusal

Array = np.ndarray[Any, Any]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What is decoded. Pillow knows more, some of which start other programs (EPS)."""
NAME = "the picture"


class Header(NamedTuple):
    """What is known of a picture before it is decoded."""

    format: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Raises `Refusal`: 415 for what is no picture of `FORMATS`, 413 for one of too many pixels."""
    if not data:
        raise Refusal(400, "empty", "The request holds no picture: its body is empty.")
    size = headers.size_in(data)
    if size is not None:
        check_pixels(*size, max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            found = Header(str(image.format), image.size[1], image.size[0])
    except Image.DecompressionBombError as error:
        raise Refusal(
            413, "too_many_pixels", f"The picture has too many pixels; expected {max_pixels:,} at most."
        ) from error
    except Exception as error:  # Pillow's plug-ins raise anything
        raise Refusal(415, "no_picture", _what_it_is(data)) from error
    check_pixels(found.height, found.width, max_pixels)
    return found


def check_pixels(height: int, width: int, limit: int) -> None:
    if height * width > limit:
        raise Refusal(
            413,
            "too_many_pixels",
            f"The picture has {width:,} x {height:,} = {width * height:,} pixels; expected {limit:,} at most. Make it "
            "smaller, or start the server with a larger max_pixels.",
        )


def _what_it_is(data: bytes) -> str:
    """The sentence for a file that is no picture."""
    start, expected = data[:512], "expected a picture: JPEG, PNG, WebP or BMP."
    if start.startswith((headers.PNG_START, headers.JPEG_START)):
        return f"The file begins as a picture, and is damaged or cut off; {expected}"
    known = {b"GIF8": "a GIF", b"%PDF": "a PDF", b"PK\x03\x04": "an archive or a checkpoint", b"II*\x00": "a TIFF",
             b"MM\x00*": "a TIFF"}  # fmt: skip
    for mark, kind in known.items():
        if start.startswith(mark):
            return f"The file is {kind}; {expected}"
    if b"ftyp" in start[4:12]:
        return f"The file is a video, HEIC or AVIF; {expected}"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        text = start[: error.start].decode("utf-8") if error.start > 500 else ""
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        return f"The file is text, whatever it is called; {expected}"
    return f"The file is of an unknown kind; {expected}"


def decode(data: bytes, *, ids: bool, rule: Rule) -> Array:
    """RGB (H, W, 3) uint8, or the rule's bands, turned upright; or of `ids` class ids (H, W). Raises `Refusal` (422) for a
    damaged file, and for other bands."""
    try:
        with read_by(replace(rule, turned=[])):
            return to_labels(NAME, data) if ids else to_photo(NAME, data)
    except DataError as error:
        raise Refusal(422, "damaged", sentence(str(error))) from error


def sentence(text: str) -> str:
    """A message that begins with the picture, as a sentence; one that begins with the name of an option stays."""
    return text[:1].upper() + text[1:] if text.startswith("the ") else text


def png(picture: Array) -> bytes:
    """RGB (H, W, 3) uint8 as a PNG file."""
    done, data = cv2.imencode(
        ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise OSError("a picture could not be encoded as PNG")
    return data.tobytes()
