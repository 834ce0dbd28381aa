"""Videos: what is written is what is read, in number, time, place and colour; what is broken is said."""

from __future__ import annotations

import io
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dvsn.errors import ConfigError, DataError
from dvsn.portable.frame import Frame
from dvsn.predict import video as module
from dvsn.predict.video import Video, VideoWriter

av = pytest.importorskip("av")

COLOURS = ((200, 30, 30), (30, 180, 60), (40, 60, 200), (220, 220, 40))


def quarters(height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """A picture whose four quarters have colours of their own."""
    picture = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        row, column = divmod(number, 2)
        picture[row * height // 2 :, column * width // 2 :] = colour
    return picture


def write(path: Path, count: int, *, rate: Fraction = Fraction(30), times: Any = None, **size: int) -> Path:
    """A video whose frames are `quarters`, with a grey square that says the frame's number."""
    base = None if times is None else Fraction(1, 1000)
    with VideoWriter(path, rate=rate, time_base=base).opened() as writer:
        for number in range(count):
            picture = quarters(**size)
            picture[16:32, 20:44] = number * 8 % 256
            writer(picture, None if times is None else times[number])
    return path


def read(path: Path, **options: Any) -> tuple[list[Frame], Video]:
    with Video(path, name=path.name, **options) as video:
        return list(video), video


def number_of(frame: Frame) -> int:
    return round(float(frame.picture[20:28, 26:38].mean()) / 8)


@pytest.mark.parametrize(
    "rate", [Fraction(30), Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(12)], ids=str
)
def test_frames_order_rate_and_times_are_kept(rate: Fraction, tmp_path: Path) -> None:
    frames, video = read(write(tmp_path / "x.mp4", 31, rate=rate))
    assert [number_of(frame) for frame in frames] == list(range(31))
    assert (video.facts.rate, video.facts.count) == (rate, 31)
    assert [frame.seconds for frame in frames] == pytest.approx([float(n / rate) for n in range(31)])
    assert frames[7].name == "x.mp4_000007" and frames[7].index == 7
    assert video.short() is None


def test_colours_come_back(tmp_path: Path) -> None:
    frames, _ = read(write(tmp_path / "x.mp4", 3, height=96, width=128))
    for number, colour in enumerate(COLOURS):
        row, column = divmod(number, 2)
        found = frames[1].picture[row * 48 + 34 : row * 48 + 44, column * 64 + 4 : column * 64 + 60]
        assert np.abs(found.mean(axis=(0, 1)) - colour).max() <= 4


def test_another_reader_sees_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", 20, rate=Fraction(25))
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    count = 0
    while (answer := capture.read())[0]:
        assert answer[1].shape == (48, 64, 3)
        count += 1
    assert count == 20


def test_a_variable_rate_stays_one(tmp_path: Path) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).integers(1, 9, 39)]) * 0.01
    frames, video = read(write(tmp_path / "x.mp4", 40, times=times))
    assert [frame.seconds for frame in frames] == pytest.approx(times.tolist(), abs=1e-9)
    assert video.short() is None


def test_odd_sides_are_kept(tmp_path: Path) -> None:
    frames, _ = read(write(tmp_path / "x.mp4", 3, height=47, width=63))
    assert frames[0].picture.shape == (47, 63, 3)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_rotation_tag_is_obeyed(turn: int, tmp_path: Path) -> None:
    """As OpenCV's reader turns it, and by hand."""
    content = write(tmp_path / "x.mp4", 3).read_bytes()
    one = 1 << 16
    cosine, sine = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[turn]
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    place = content.index(plain, content.index(b"tkhd"))
    matrix = struct.pack(">9i", cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:place] + matrix + content[place + 36 :])
    frames, _ = read(turned)
    stored, _ = read(turned, upright=False)
    expected = np.rot90(stored[0].picture, -turn // 90)  # clockwise
    assert np.array_equal(frames[0].picture, expected)
    other = cv2.VideoCapture(str(turned)).read()[1][..., ::-1]
    assert other.shape == expected.shape and np.abs(other.astype(int) - expected).mean() < 6


def test_a_truncated_video_gives_its_frames_and_says_so(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.mp4", 200, height=96, width=128)
    half = tmp_path / "half.mp4"
    content = whole.read_bytes()
    half.write_bytes(content[: len(content) * 6 // 10])
    frames, video = read(half)
    assert 5 < len(frames) < 200
    said = video.short()
    assert said is not None and str(len(frames)) in said and ("200 frames" in said or "damaged" in said)


def test_a_header_that_counts_too_many_is_believed_only_if_the_time_is_short_too(tmp_path: Path) -> None:
    _, video = read(write(tmp_path / "x.mp4", 30))
    facts = video.facts
    for count, seconds, short in (
        (40, 1.0, False),
        (30, 2.0, False),
        (40, 2.0, True),
        (None, 2.0, True),
        (None, 1.0, False),
    ):
        video.facts = module.Facts(facts.rate, count, seconds, facts.time_base)
        assert (video.short() is not None) == short, (count, seconds)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99, b"\x00\x00\x00\x18ftypmp42" + bytes(50)])
def test_what_is_no_video_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"x.mp4: not a readable video"):
        read(tmp_path / "x.mp4")


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would wait for somebody to write into it, for ever."""
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(DataError, match=r"x.mp4: cannot be read \(it is a named pipe\); expected a video"):
        read(tmp_path / "x.mp4")


def test_a_video_without_its_end_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:  # its index at the end
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"x.mp4: not a readable video .*truncated"):
        read(path)


def test_streams(tmp_path: Path) -> None:
    pictures = [quarters() // (1 + number) for number in range(4)]
    jpegs = b"".join(cv2.imencode(".jpg", each[..., ::-1])[1].tobytes() for each in pictures)
    with Video(io.BytesIO(jpegs), name="-", form="mjpeg", options={"framerate": "10"}) as video:
        frames = list(video)
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(np.abs(f.picture.astype(int) - p).mean() < 6 for f, p in zip(frames, pictures, strict=True))
    raw = b"".join(each[..., ::-1].tobytes() for each in pictures)
    options = {"framerate": "5", "video_size": "64x48", "pixel_format": "bgr24"}
    with Video(io.BytesIO(raw), name="-", form="rawvideo", options=options) as video:
        frames = list(video)
    assert (
        all(np.array_equal(f.picture, p) for f, p in zip(frames, pictures, strict=True)) and len(frames) == 4
    )


def test_without_pyav_the_line_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'dvsn\[video\]'"):
        Video(tmp_path / "x.mp4", name="x.mp4")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "x.mp4", rate=Fraction(30))
    with pytest.raises(KeyError), writer.opened():
        writer(quarters(), None)
        raise KeyError("the network failed")
    assert list(tmp_path.iterdir()) == []
