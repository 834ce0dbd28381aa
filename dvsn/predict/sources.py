"""Where frames come from: pictures, folders, globs, lists, videos, a camera, standard input. All of them read lazily."""

from __future__ import annotations

import glob
import itertools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.files import SUFFIXES as PICTURES
from dvsn.data.files import pictures_below, read_rgb
from dvsn.errors import ConfigError, DataError
from dvsn.portable.bands import NUMPY
from dvsn.portable.frame import Frame
from dvsn.predict.video import SUFFIXES as VIDEOS
from dvsn.predict.video import Video
from dvsn.reading import read_text

log = logging.getLogger("dvsn")

STANDARD_INPUT = "-"
LISTS = frozenset({".txt", ".lst", ".list"})
LIST_LIMIT = 64 << 20  # bytes of a list of paths
MJPEG_RATE = 30
EXPECTED = (
    "a picture, a video, a folder, a glob such as 'labels/*.png', a list of paths (.txt), a camera's number such as 0, or - "
    "for frames on standard input"
)


@dataclass
class Skipped:
    """What could not be read, or not to its end. Each is said once, when it happens."""

    messages: list[str] = field(default_factory=list)
    alone: bool = False
    """Whether there is one input only: what is wrong with it is the error that ends the run, and said then."""

    def add(self, message: str) -> None:
        self.messages.append(message)
        if not self.alone:
            log.warning("skipped: %s", message)

    def cut(self, message: str) -> None:
        """A video of which there is a part."""
        self.messages.append(message)
        log.warning("incomplete: %s", message)


@dataclass
class Opened:
    """A source whose frames can be taken, once."""

    frames: Iterable[Frame]
    count: int | None = None
    rate: Fraction | None = None
    """Frames a second; None of pictures that stand for themselves."""
    time_base: Fraction | None = None
    short: Callable[[], str | None] = lambda: None
    """After the last frame: what is missing, in words."""


class Source:
    """Frames that belong together, and where their results go."""

    name: str
    """What messages call it."""
    moving = True
    """Whether the frames follow each other in time."""
    live = False
    """Whether it goes on until somebody stops it."""
    target: Path
    """Of a moving source the file of its result, without ending."""

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        raise NotImplementedError


class Pictures(Source):
    """Pictures, each with the file of its result. With a `rate` those of a folder are frames of a sequence.

    `read` makes a picture of a path. One that cannot be read is skipped, which `skipped` remembers. Those that are `done`
    already are left out.
    """

    moving = False

    def __init__(
        self, items: Sequence[tuple[Path, Path]], *, skipped: Skipped, rate: Fraction | None = None
    ) -> None:
        self.items, self.skipped, self.rate = list(items), skipped, rate
        self.name = str(self.items[0][0]) if len(self.items) == 1 else f"{len(self.items)} pictures"
        self.read: Callable[[Path], Any] = read_rgb
        self.done: Callable[[Path], bool] = lambda path: False

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        count = sum(not self.done(path) for path, _ in self.items)
        yield Opened(self._frames(), count=count, rate=self.rate)

    def _frames(self) -> Iterator[Frame]:
        for index, (path, _) in enumerate(self.items):
            if self.done(path):
                continue
            try:
                picture = self.read(path)
            except DataError as error:
                self.skipped.add(str(error))
                continue
            yield Frame(picture, path.stem, path, index)


class VideoFile(Source):
    """A video."""

    def __init__(self, path: Path, target: Path, *, upright: bool, limit: int | None = None) -> None:
        self.path, self.target, self.upright, self.limit = path, target, upright, limit
        self.name = str(path)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        with Video(self.path, name=str(self.path), upright=self.upright) as video:
            facts = video.facts
            count = facts.count
            if count is None and facts.seconds and facts.rate:
                count = round(facts.seconds * facts.rate)
            short = video.short if self.limit is None else lambda: None
            frames = itertools.islice(video, self.limit)
            yield Opened(frames, _least(count, self.limit), facts.rate, facts.time_base, short)


class Camera(Source):
    """A camera by its number, through OpenCV, which knows those of Linux, macOS and Windows. It goes on until Ctrl-C."""

    live = True

    def __init__(self, number: int, target: Path, *, limit: int | None = None) -> None:
        self.number, self.target, self.limit = number, target, limit
        self.name = f"camera {number}"

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        import cv2

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said once, by us
        capture = cv2.VideoCapture(self.number)
        try:
            if not capture.isOpened():
                raise DataError(f"{self.name}: is not there or is in use. {cameras()}")
            rate = capture.get(cv2.CAP_PROP_FPS)
            known = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(30)
            frames = itertools.islice(self._frames(capture), self.limit)
            yield Opened(frames, self.limit, known, Fraction(1, 90_000))
        finally:
            capture.release()

    def _frames(self, capture: Any) -> Iterator[Frame]:
        start: float | None = None
        for index in itertools.count():
            there, picture = capture.read()
            if not there:
                return
            now = time.monotonic()
            start = now if start is None else start
            rgb = np.ascontiguousarray(picture[..., ::-1])
            yield Frame(rgb, f"camera_{self.number}_{index:06d}", None, index, now - start)


def cameras() -> str:
    """The cameras that can be seen, in words."""
    found = sorted(each.name.removeprefix("video") for each in Path("/dev").glob("video*"))
    if sys.platform.startswith("linux"):
        return f"Cameras here: {', '.join(found)}." if found else "This machine has none (no /dev/video*)."
    return "Try another number: 0 is the first camera."


class Piped(Source):
    """Frames on standard input: JPEGs one after the other (MJPEG), or raw pixels of a known size and format."""

    live = True

    def __init__(
        self, target: Path, *, rate: Fraction, raw_size: tuple[int, int] | None = None, pixel_format: str = "rgb24",
        limit: int | None = None,
    ) -> None:  # fmt: skip
        self.target, self.rate, self.limit, self.raw_size = target, rate, limit, raw_size
        self.name = "standard input"
        self.options = {"framerate": str(rate)}
        if raw_size is not None:
            self.options |= {"video_size": f"{raw_size[0]}x{raw_size[1]}", "pixel_format": pixel_format}

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError(
                "-: standard input is the keyboard. Send frames, such as: ffmpeg -i clip.mp4 -f mjpeg - | python -m "
                "dvsn.predict best.ckpt -"
            )
        form = "mjpeg" if self.raw_size is None else "rawvideo"
        stream: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        with Video(stream, name=self.name, form=form, options=self.options) as video:
            frames = itertools.islice(video, self.limit)
            yield Opened(frames, self.limit, self.rate, 1 / self.rate, lambda: _broken(video))


def _broken(video: Video) -> str | None:
    if video.damaged:
        return f"{video.damaged} damaged frames; {video.decoded} were read"
    return None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


# What the command line names --------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """How sources are opened."""

    upright: bool = True
    limit: int | None = None
    """Of a video, a camera or a stream: at most so many frames."""
    sequence_rate: Fraction | None = None
    """Where pictures of a folder are frames of a sequence, their rate; None where they stand for themselves."""
    stream_rate: Fraction = Fraction(MJPEG_RATE)
    raw_size: tuple[int, int] | None = None
    """Width and height of raw frames on standard input."""
    pixel_format: str = "rgb24"


def open_sources(
    names: Sequence[str], output: Path, skipped: Skipped, choices: Choices | None = None
) -> list[Source]:
    """The sources of the command line, in its order; pictures that follow each other are one source.

    A result keeps its place below the folder in which it was found. Raises `DataError` for a name at which nothing is,
    for results that would be written twice, and for a result that would be written over a source.
    """
    choices = choices or Choices()
    found = [item for name in names for item in _find(name, output)]
    _refuse_overwriting([each for each in found if isinstance(each, tuple)])
    sources: list[Source] = []
    for pictures, group in itertools.groupby(found, key=_is_picture):
        members: list[Any] = list(group)
        if pictures:
            sources.append(_pictures(members, skipped, choices))
        else:
            sources += [_moving(each, output, choices) for each in members]
    return sources


def _pictures(items: list[tuple[Path, Path]], skipped: Skipped, choices: Choices) -> Pictures:
    if choices.sequence_rate is not None:
        items = sorted(items, key=lambda item: in_order(item[0]))
    return Pictures(items, skipped=skipped, rate=choices.sequence_rate)


def _moving(item: Any, output: Path, choices: Choices) -> Source:
    limit = choices.limit
    if isinstance(item, int):
        return Camera(item, output / f"camera_{item}", limit=limit)
    if item == STANDARD_INPUT:
        return Piped(
            output / "stdin", rate=choices.stream_rate, raw_size=choices.raw_size,
            pixel_format=choices.pixel_format, limit=limit,
        )  # fmt: skip
    path, target = item
    return VideoFile(path, target.with_suffix(""), upright=choices.upright, limit=limit)


def _is_picture(item: Any) -> bool:
    return isinstance(item, tuple) and item[0].suffix.lower() not in VIDEOS


def _find(name: str, output: Path) -> list[tuple[Path, Path] | int | str]:
    """What one name of the command line means: (file, file of its result), a camera's number, or standard input."""
    path = Path(name)
    if name == STANDARD_INPUT:
        return [name]
    if path.is_dir():
        below = sorted(pictures_below(path, skip=output, suffixes=PICTURES | VIDEOS))
        below = below or sorted(pictures_below(path, skip=output, suffixes={NUMPY}))
        found = [(path / each, _target(output / each)) for each in below]
        if not found:
            raise DataError(
                f"input: nothing found at '{name}': a folder with neither pictures nor videos below it."
            )
        return [*found]
    if name.isdecimal() and not path.exists():
        return [int(name)]
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        raise DataError(
            f"input: '{name}' is an address, and nothing is downloaded here. Expected {EXPECTED}."
        )
    if path.is_file() and path.suffix.lower() in LISTS:
        return [*((each, _target(output / each.name)) for each in read_list(path))]
    files = [path] if path.exists() else sorted(Path(each) for each in glob.glob(name, recursive=True))  # noqa: PTH207
    files = [each for each in files if not each.is_dir()]
    if not files:
        raise DataError(f"input: nothing found at '{name}'; expected {EXPECTED}.")
    return [*((each, _target(output / each.name)) for each in files)]


def _target(path: Path) -> Path:
    return path.with_suffix(".mp4" if path.suffix.lower() in VIDEOS else ".png")


def read_list(file: Path) -> list[Path]:
    """The paths in a list, one a line, absolute or from the list's folder, else from the working one. Empty lines and those
    that start with # are none. Raises `DataError` for an empty list, and for a path at which nothing is."""
    text = read_text(file, limit=LIST_LIMIT, expected="a list of paths, one a line")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        places = (file.parent / name, Path(name))
        path = next((each for each in places if each.is_file()), None)
        if path is None:
            raise DataError(
                f"{file}, line {number}: '{name}' is no file; expected the path of a picture or a video, from the list's "
                "folder or from here."
            )
        found.append(path)
    if not found:
        raise DataError(f"{file}: the list is empty; expected a path of a picture or a video on each line.")
    return found


def _refuse_overwriting(items: list[tuple[Path, Path]]) -> None:
    """Raise `DataError` where two results have one file, or a result has that of a source."""
    sources = {path.resolve(): path for path, _ in items}
    taken: dict[Path, Path] = {}
    for source, target in items:
        if target in taken:
            raise DataError(
                f"input: {taken[target]} and {source} would both be written to {target}. Give a folder instead of a "
                "glob, or rename one."
            )
        if (same := sources.get(target.resolve())) is not None:
            whose = "the picture itself" if same == source else f"{same}, which is read too"
            raise DataError(f"output: {target} is {whose}. Choose another folder with output=...")
        taken[target] = source


def in_order(path: Path) -> tuple[str, list[tuple[bool, int, str]]]:
    """What frames are sorted by: the folder, then the name, in which numbers count as such: 9.png before 10.png."""
    parts = re.split(r"(\d+)", path.stem)
    return str(path.parent), [
        (each.isdecimal(), int(each) if each.isdecimal() else 0, each) for each in parts
    ]
