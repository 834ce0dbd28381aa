"""What the command line names becomes frames, in order; what is wrong is said by name."""

from __future__ import annotations

import io
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dvsn.data.files import make_rule, read_by
from dvsn.errors import ConfigError, DataError
from dvsn.predict.overlap import ahead
from dvsn.predict.sources import (
    Camera,
    Choices,
    Pictures,
    Piped,
    Skipped,
    Source,
    VideoFile,
    in_order,
    open_sources,
    read_list,
)


def paint(path: Path, value: int = 9, size: tuple[int, int] = (6, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def opened(output: Path, *names: Any, **choices: Any) -> tuple[list[Source], Skipped]:
    skipped = Skipped()
    return open_sources([str(name) for name in names], output, skipped, Choices(**choices)), skipped


def test_names_of_every_kind_in_their_order(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "c/1.png", "c/deep/2.png", "d/x.bmp", "d/y.bmp"):
        paint(tmp_path / name)
    for name in ("c/film.mp4", "z.mkv"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("# two\n\na.png\n" + str(tmp_path / "c" / "1.png") + "\n")
    out = tmp_path / "out"
    found, _ = opened(
        out, tmp_path / "b.jpg", f"{tmp_path}/d/*.bmp", tmp_path / "z.mkv", tmp_path / "c", 0, "-"
    )
    kinds = [Pictures, VideoFile, Pictures, VideoFile, Camera, Piped]
    assert [type(each) for each in found] == kinds
    first, second = found[0], found[2]
    assert isinstance(first, Pictures) and isinstance(second, Pictures)
    assert [(s.name, t.relative_to(out).as_posix()) for s, t in first.items] == [
        ("b.jpg", "b.png"), ("x.bmp", "x.png"), ("y.bmp", "y.png")
    ]  # fmt: skip
    assert [t.relative_to(out).as_posix() for _, t in second.items] == ["1.png", "deep/2.png"]
    targets = [each.target.relative_to(out).as_posix() for each in found if each.moving]
    assert targets == ["z", "film", "camera_0", "stdin"]
    (listed,), _ = opened(out, tmp_path / "list.txt")
    assert isinstance(listed, Pictures) and [s.name for s, _ in listed.items] == ["a.png", "1.png"]


def test_a_file_called_by_a_number_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "0.png").rename(tmp_path / "0")
    monkeypatch.chdir(tmp_path)
    assert isinstance(opened(tmp_path / "out", 0)[0][0], Pictures)
    assert isinstance(opened(tmp_path / "out", 1)[0][0], Camera)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/*.png", "nothing found at 'nowhere/\\*.png'; expected a picture, a video, a folder"),
        ("https://example.org/x.png", "is an address, and nothing is downloaded here"),
        ("empty", "nothing found at .*neither pictures nor videos"),
        ("bad.txt", "bad.txt, line 2: 'gone.png' is no file"),
        ("none.txt", "none.txt: the list is empty"),
    ],
)
def test_names_at_which_nothing_is(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    paint(Path("a.png"))
    Path("bad.txt").write_text("a.png\ngone.png\n")
    Path("none.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "out", name)


def test_no_source_is_ever_written_over(tmp_path: Path) -> None:
    png = paint(tmp_path / "x.png")
    jpg = paint(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"x.png is the picture itself"):
        opened(tmp_path, png)
    with pytest.raises(DataError, match=r"would both be written to"):
        opened(tmp_path / "out", jpg, png)
    other = paint(tmp_path / "in" / "x.jpg")
    link = tmp_path / "linked" / "y.png"
    link.parent.mkdir()
    link.symlink_to(png)
    with pytest.raises(DataError, match=r"x.png is .*y.png, which is read too"):
        opened(tmp_path, other, link)
    film = tmp_path / "film.mp4"
    film.touch()
    with pytest.raises(DataError, match=r"film.mp4 is the picture itself"):
        opened(tmp_path, film)
    assert png.read_bytes() and film.exists()


def test_broken_pictures_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(paint(tmp_path / "a.png", 1).read_bytes()[:40])
    paint(tmp_path / "c.png", 3)
    (tmp_path / "d.jpg").write_text("no picture")
    (source,), skipped = opened(tmp_path / "out", tmp_path)
    with source.opened() as found:
        frames = list(found.frames)
    assert [(frame.name, frame.index) for frame in frames] == [("a", 0), ("c", 2)]
    assert [message.partition(":")[0] for message in skipped.messages] == [
        str(tmp_path / "b.png"), str(tmp_path / "d.jpg")
    ]  # fmt: skip
    assert caplog.text.count("skipped: ") == 2


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    """100,000 pixels a side: 30 GB as RGB, in a file of a few bytes."""
    content = bytearray(paint(tmp_path / "x.png").read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    (tmp_path / "x.png").write_bytes(content)
    (source,), skipped = opened(tmp_path / "out", tmp_path / "x.png")
    tracemalloc.start()
    with read_by(make_rule()), source.opened() as found:
        assert list(found.frames) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "100000x100000 (height x width), 10,000,000,000 pixels" in skipped.messages[0] and peak < 10**7


def test_frames_of_a_folder_come_by_their_numbers(tmp_path: Path) -> None:
    for name in ("b/10.png", "b/9.png", "a/2.png"):
        paint(tmp_path / name)
    (source,), _ = opened(tmp_path / "out", tmp_path, sequence_rate=Fraction(25))
    assert isinstance(source, Pictures)
    names = [path.relative_to(tmp_path).as_posix() for path, _ in source.items]
    assert names == ["a/2.png", "b/9.png", "b/10.png"] and source.rate == 25
    assert sorted([Path("x10"), Path("x9")], key=in_order) == [Path("x9"), Path("x10")]


def test_a_camera_that_is_not_there() -> None:
    with (
        pytest.raises(
            DataError, match=r"camera 93: is not there or is in use\. (This machine has none|Cameras here)"
        ),
        Camera(93, Path("x")).opened(),
    ):
        pass


def test_a_camera_gives_rgb_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pretended:
        """A camera of two frames, blue in OpenCV's order."""

        def __init__(self, number: int) -> None:
            self.left = 2

        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return 15.0

        def read(self) -> tuple[bool, Any]:
            self.left -= 1
            time.sleep(0.01)
            return self.left >= 0, np.full((4, 4, 3), (255, 0, 0), np.uint8)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Pretended)
    with Camera(2, Path("x")).opened() as found:
        frames = list(found.frames)
    assert found.rate == 15 and [frame.name for frame in frames] == ["camera_2_000000", "camera_2_000001"]
    assert frames[0].picture[0, 0].tolist() == [0, 0, 255]
    assert frames[0].seconds == 0 and frames[1].seconds is not None and frames[1].seconds >= 0.01


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        def __init__(self, content: bytes) -> None:
            self.buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return not self.buffer.getbuffer().nbytes

    pictures = [np.full((6, 8, 3), value, np.uint8) for value in (20, 90, 200)]
    monkeypatch.setattr(sys, "stdin", Input(b"".join(cv2.imencode(".jpg", p)[1].tobytes() for p in pictures)))
    with Piped(Path("x"), rate=Fraction(10)).opened() as found:
        frames = list(found.frames)
        assert found.short() is None
    assert [round(float(f.picture.mean()), -1) for f in frames] == [20, 90, 200]
    assert [f.seconds for f in frames] == pytest.approx([0, 0.1, 0.2])
    monkeypatch.setattr(sys, "stdin", Input(b"".join(p.tobytes() for p in pictures)))
    with Piped(Path("x"), rate=Fraction(10), raw_size=(8, 6), limit=2).opened() as found:
        assert [int(f.picture[0, 0, 0]) for f in found.frames] == [20, 90]
    monkeypatch.setattr(sys, "stdin", Input(b""))
    keyboard = Piped(Path("x"), rate=Fraction(10))
    with pytest.raises(ConfigError, match="standard input is the keyboard"), keyboard.opened():
        pass


def test_lists_are_read_from_their_folder_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "lists" / "a.png")
    here = paint(tmp_path / "b.png")
    (tmp_path / "lists" / "l.txt").write_text("a.png\nb.png\n")
    monkeypatch.chdir(tmp_path)
    assert [each.resolve() for each in read_list(Path("lists/l.txt"))] == [tmp_path / "lists" / "a.png", here]


# Ahead -----------------------------------------------------------------------------------------------


def test_ahead_keeps_the_order_and_is_bounded() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    found = []
    for number in ahead(items(), 3):
        time.sleep(0.001)
        found.append(number)
        assert len(made) <= number + 1 + 3 + 1  # taken, waiting, and in the thread's hand
    assert found == list(range(50))


def test_two_steps_overlap() -> None:
    def slow() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.03)
            yield number

    start = time.monotonic()
    for _ in ahead(slow(), 2):
        time.sleep(0.03)
    assert time.monotonic() - start < 0.5  # one after the other: 0.6 s


def test_ahead_raises_where_the_item_would_have_come_and_stops_with_its_reader() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("broken")

    found = ahead(items(), 4)
    assert next(found) == 1
    with pytest.raises(DataError, match="broken"):
        next(found)
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    stopped = ahead(endless(), 2)
    next(stopped)
    stopped.close()
    assert closed.wait(2)
