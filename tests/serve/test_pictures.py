"""An uploaded file is known by its first bytes, and refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dvsn.portable.bands import Bands
from dvsn.portable.decode import make_rule
from dvsn.serve.pictures import decode, png, read_header
from dvsn.serve.refusal import Refusal


def stored(kind: str, size: tuple[int, int] = (6, 4), mode: str = "RGB", **options: object) -> bytes:
    """A file of a picture; `size` is width, height."""
    buffer = io.BytesIO()
    Image.new(mode, size, 200 if mode in ("L", "P") else (200, 100, 50)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A PNG that says that it is huge. What follows its header is never looked at."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_known_kinds(kind: str) -> None:
    header = read_header(stored(kind), max_pixels=24)
    assert header == (kind, 4, 6)
    assert header.pixels == 24
    with pytest.raises(Refusal, match=r"6 x 4 = 24 pixels; expected 23 at most") as refused:
        read_header(stored(kind), max_pixels=23)
    assert (refused.value.status, refused.value.code) == (413, "too_many_pixels")


def test_bombs_are_refused_by_their_header() -> None:
    """Also where Pillow has a limit of its own, and where the size stands in the file of another kind."""
    for data in (
        bomb(30_000),
        bomb(3),
        b"BM" + stored("BMP")[2:18] + struct.pack("<ii", 40_000, 40_000) + stored("BMP")[26:],
    ):
        with pytest.raises(Refusal) as refused:
            read_header(data, max_pixels=8)
        assert refused.value.status == 413


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name,score\nroad,3\n" * 99, "is text, whatever it is called"),
        ("Straße\n".encode() * 200, "is text"),
        (stored("GIF", mode="P"), "is a GIF"),
        (stored("TIFF"), "is a TIFF"),
        (b"PK\x03\x04" + bytes(99), "is an archive or a checkpoint"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "expected a picture"),
        (b"\0\0\0\x20ftypheic" + bytes(99), "is a video, HEIC or AVIF"),
        (b"\x80\x04\x95" + bytes(99), "of an unknown kind"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "damaged or cut off"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "damaged or cut off"),
    ],
)
def test_what_is_no_picture(data: bytes, said: str) -> None:
    with pytest.raises(Refusal, match=said) as refused:
        read_header(data, max_pixels=10**6)
    assert refused.value.status == 415


def test_an_empty_file() -> None:
    with pytest.raises(Refusal, match="empty") as refused:
        read_header(b"", max_pixels=9)
    assert refused.value.status == 400


def test_pictures_are_decoded_upright_and_to_their_end() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rule = make_rule(upright=True)
    data = stored("JPEG", exif=exif)
    assert decode(data, ids=False, rule=rule).shape == (6, 4, 3)
    assert not rule.turned  # it would grow with every request
    with pytest.raises(Refusal, match=r"^The picture: truncated") as refused:
        decode(stored("PNG", (64, 64))[:-20], ids=False, rule=rule)
    assert refused.value.status == 422


def test_bands_are_those_of_the_rule() -> None:
    four = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(four, "RGBA").save(buffer, "PNG")
    rule = make_rule(bands=Bands(4))
    np.testing.assert_array_equal(decode(buffer.getvalue(), ids=False, rule=rule), four)
    with pytest.raises(Refusal, match="found 3 bands, expected 4"):
        decode(stored("PNG"), ids=False, rule=rule)


def test_ids_are_kept() -> None:
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6)
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), ids=True, rule=make_rule()), ids)
    with pytest.raises(Refusal, match="expected label ids in one channel"):
        decode(stored("PNG"), ids=True, rule=make_rule())


def test_a_drawn_picture_is_a_png_of_its_colours() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png(picture)))), picture)
