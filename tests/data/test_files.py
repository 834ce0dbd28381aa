"""Pictures at the boundary: too large, turned, of 16 bits, or no files at all; and how folders are walked."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dvsn.data.files import (
    Rule,
    deep_file,
    highest_deep,
    list_pictures,
    make_rule,
    read_by,
    read_colors,
    read_grey,
    read_labels,
    read_rgb,
    to_eight_bits,
)
from dvsn.errors import ConfigError, DataError
from dvsn.portable import headers
from dvsn.portable.bands import bands_of

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 16, 3), np.uint8)


def save(path: Path, array: np.ndarray, orientation: int = 1, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[headers.ORIENTATION] = orientation
    lossless = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    Image.fromarray(array).save(path, exif=exif, **lossless, **options)  # type: ignore[arg-type]
    return path


def bomb(height: int, width: int) -> bytes:
    """A PNG of a few bytes that says it is a picture of this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return headers.PNG_START + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# Size ------------------------------------------------------------------------------------------------


def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(30_000, 30_000))
    for read in (read_rgb, read_colors, read_labels):
        with pytest.raises(
            DataError, match=r"bomb.png: a picture of 30000x30000 .* 900,000,000 pixels.*data.max_pixels"
        ):
            read(path)


@pytest.mark.parametrize(
    "start", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00\x04", b"\x93NUMPY\x01\x00"]
)
def test_a_file_of_20_gigabytes_is_not_read(
    tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it starts with: 8 bytes for each pixel and band that is allowed, and 64 MiB, are enough for any picture."""
    path = tmp_path / "long.png"
    path.write_bytes(start)
    os.truncate(path, 20 << 30)  # with a hole, so that it takes no room
    four = make_rule(max_pixels=1_000_000, bands=bands_of({"input_channels": 4}))
    for read in (read_rgb, read_labels, read_grey):
        with pytest.raises(
            DataError, match=r"long.png: 21,474,836,480 bytes, .* at most, .*data.max_pixels=2675965952"
        ):
            read(path)
    with (
        read_by(four),
        pytest.raises(DataError, match=f"expected a picture of {(64 << 20) + 32_000_000:,} bytes"),
    ):
        read_rgb(path)
    monkeypatch.setattr(headers, "AROUND", 1 << 16)  # so much of a JPEG is looked through for its size
    assert headers.size_of(path) in (None, (0, 0)) and headers.orientation_of(path) == 1


def test_a_jpeg_that_is_filled_with_zeros_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow looks for the next mark byte by byte: ten minutes for a gigabyte. A little filling is passed over."""
    path = save(tmp_path / "x.jpg", PHOTO)
    whole, given = path.read_bytes(), []
    (_, place, size), *_ = headers.jpeg_segments(whole)
    end = place + size
    opened = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, *a: (given.append(len(file.getvalue())), opened(file, *a))[1]
    )
    path.write_bytes(whole[:end] + bytes(100) + whole[end:])
    assert headers.size_of(path) == (12, 16) and read_rgb(path).shape == (12, 16, 3)
    with (
        read_by(make_rule(max_pixels=12 * 16 - 1)),
        pytest.raises(DataError, match="192 pixels; expected 191"),
    ):
        read_rgb(path)  # whose size is behind the filling
    given.clear()
    path.write_bytes(whole[:end] + bytes(1 << 20) + whole[end:])
    assert headers.size_of(path) is None
    with pytest.raises(DataError, match=r"x.jpg: not a readable picture .* truncated or damaged"):
        read_rgb(path)
    assert max(given) < 1 << 17


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif", "ppm"])
def test_the_limit_is_an_option_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(PHOTO).save(path)
    assert headers.size_of(path) == (12, 16)
    with read_by(make_rule(max_pixels=12 * 16)):
        assert read_rgb(path).shape == (12, 16, 3)
    with read_by(make_rule(max_pixels=12 * 16 - 1)), pytest.raises(DataError, match=rf"x.{suffix}: .*12x16"):
        read_rgb(path)
    assert read_rgb(path).shape == (12, 16, 3)  # the rule ends with its block


def test_pillows_own_limit_gives_way_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = tmp_path / "x.bmp"
    path.write_bytes(cv2.imencode(".bmp", PHOTO)[1].tobytes())
    assert read_rgb(path).shape == (12, 16, 3) and Image.MAX_IMAGE_PIXELS == 50


def test_wrong_rules_are_refused() -> None:
    for wrong in ({"max_pixels": 0}, {"max_pixels": True}, {"deep_range": [5, 5]}, {"deep_range": [0, 65536]},
                  {"deep_range": [0.5, 1]}, {"deep_range": [1]}):  # fmt: skip
        with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}"):
            make_rule(**wrong)  # type: ignore[arg-type]


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    for read in (read_rgb, read_colors, read_labels):
        with pytest.raises(DataError, match=r"x.png: cannot be read \(it is a named pipe\)"):
            read(tmp_path / "x.png")
    assert headers.size_of(tmp_path / "x.png") is None and not deep_file(tmp_path / "x.png")
    assert headers.orientation_of(tmp_path / "x.png") == 1


# Orientation -----------------------------------------------------------------------------------------

LOSSLESS = ("png", "tif", "webp")
UPRIGHT = {  # by tag: what a person should see, by hand
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_every_format_is_read_as_stored_or_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save(tmp_path / f"x.{suffix}", PHOTO, orientation)
    assert headers.orientation_of(path) == orientation and headers.size_of(path) == (12, 16)
    np.testing.assert_array_equal(read_rgb(path), PHOTO)
    with read_by(Rule(upright=True)) as rule:
        np.testing.assert_array_equal(read_rgb(path), UPRIGHT[orientation](PHOTO))
    assert rule.turned == ([] if orientation == 1 else [str(path)])
    ids = PHOTO[..., 0]
    if suffix != "webp":
        labels = save(tmp_path / f"l.{suffix}", ids, orientation)
        np.testing.assert_array_equal(read_labels(labels), ids)
        with read_by(Rule(upright=True)):
            np.testing.assert_array_equal(read_labels(labels), UPRIGHT[orientation](ids))
            np.testing.assert_array_equal(read_grey(labels), UPRIGHT[orientation](ids))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_too(tmp_path: Path, orientation: int) -> None:
    large = cv2.resize(PHOTO, (64, 48))
    path = save(tmp_path / "x.jpg", large, orientation, quality=95)
    stored = read_rgb(path)
    assert stored.shape == (48, 64, 3) and headers.orientation_of(path) == orientation
    with read_by(Rule(upright=True)):
        np.testing.assert_array_equal(read_rgb(path), UPRIGHT[orientation](stored))


def test_a_damaged_tag_turns_nothing(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(PHOTO).save(data, "PNG", exif=b"Exif\0\0rubbish")
    (tmp_path / "x.png").write_bytes(data.getvalue())
    assert headers.orientation_of(tmp_path / "x.png") == 1
    np.testing.assert_array_equal(read_rgb(tmp_path / "x.png"), PHOTO)


# 16 bits ---------------------------------------------------------------------------------------------


def test_twelve_bits_fill_the_range_that_is_stated(tmp_path: Path) -> None:
    deep = np.array([[0, 15, 16, 2048, 4095]], np.uint16)
    for name in ("g.png", "g.tif"):
        assert cv2.imwrite(str(tmp_path / name), deep)
        assert highest_deep(tmp_path / name) == 4095
        assert read_rgb(tmp_path / name)[0, :, 0].tolist() == [
            0,
            0,
            0,
            8,
            15,
        ]  # the upper 8 bits, unless told
        with read_by(make_rule(deep_range=[0, 4095])):
            assert read_rgb(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    colours = np.stack([deep, deep // 2, deep // 4], axis=-1)
    for name in ("c.png", "c.tif"):
        assert cv2.imwrite(str(tmp_path / name), colours[..., ::-1])
        assert highest_deep(tmp_path / name) == 4095
        with read_by(make_rule(deep_range=[0, 4095])):
            np.testing.assert_array_equal(read_rgb(tmp_path / name), colours >> 4)


def test_a_range_of_any_ends() -> None:
    deep = np.array([99, 100, 150, 200, 300], np.uint16)
    assert to_eight_bits(deep, (100, 200)).tolist() == [0, 0, 128, 255, 255]
    assert to_eight_bits(np.array([0, 255, 256, 65535], np.uint16), None).tolist() == [0, 0, 1, 255]


def test_eight_bits_have_no_range(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", PHOTO)
    assert highest_deep(path) is None
    with read_by(make_rule(deep_range=[0, 4095])):
        np.testing.assert_array_equal(read_rgb(path), PHOTO)


# Folders ---------------------------------------------------------------------------------------------


def test_folders_are_walked_by_one_rule(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b.PNG", "a.gif", "sub/c.jpg", "sub/deep/d.tif", "._b.png", ".hidden/e.png", "__MACOSX/f.png",
                 "@eaDir/g.png", "notes.txt"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "h.png").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "circle").symlink_to(root)
    (root / "i.png").symlink_to(tmp_path / "elsewhere" / "h.png")
    found = [path.relative_to(root).as_posix() for path in list_pictures(root)]
    assert found == ["a.gif", "b.PNG", "i.png", "linked/h.png", "sub/c.jpg", "sub/deep/d.tif"]


def test_masks_of_gif_keep_their_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [1, 0]], np.uint8)
    mask = Image.fromarray(ids, "P")
    mask.putpalette([0, 0, 0, 255, 255, 255])
    mask.save(tmp_path / "m.gif")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.gif"), ids)
