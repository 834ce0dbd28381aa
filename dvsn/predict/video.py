"""Videos, read and written by PyAV, the extra `video`: FFmpeg with timestamps, rotation and an encoder of H.264."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from dvsn.atomic import replacing
from dvsn.errors import ConfigError, DataError
from dvsn.portable.frame import Frame
from dvsn.reading import require_regular

log = logging.getLogger("dvsn")

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".mjpeg", ".3gp"}
)  # fmt: skip
ENCODERS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {},
    "h264": {},
    "mpeg4": {"qscale": "3"},
}
"""By name, in the order of preference, with their options. The first that this build of FFmpeg has is used."""
UNREADABLE = "{}: not a readable video ({}): truncated, damaged or of a format that FFmpeg does not know. Copy it again."
FINEST = 65_535  # the finest time base of MPEG-4, in parts of a second
BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
"""What players take a video without tags for; what is written says so."""


def import_av() -> Any:
    """PyAV. Raises `ConfigError` with the line that installs it."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            "video: PyAV reads and writes videos, and is not installed. Install it: pip install 'dvsn[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by us
    return av


@dataclass(frozen=True)
class Facts:
    """What a video's header says. Counts and durations of headers are promises, not facts: see `Video.short`."""

    rate: Fraction | None
    """Frames a second, on average."""
    count: int | None
    """Frames."""
    seconds: float | None
    """Its length."""
    time_base: Fraction
    """Seconds of a tick of its clock."""


class Video:
    """The frames of a video in the order in which they are shown, turned by its rotation tag unless not `upright`.

    `file` is a path or a binary file that is read from its front, such as standard input, in which case `form` names
    FFmpeg's format (`mjpeg`, `rawvideo`) and `options` are those of the format. Close it, or use it as a context.
    """

    def __init__(
        self,
        file: Path | IO[bytes],
        *,
        name: str,
        upright: bool = True,
        form: str | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        av = import_av()
        self.name, self.upright, self.failed = name, upright, (av.error.FFmpegError, ValueError)
        self.path = file if isinstance(file, Path) else None
        self.damaged = self.decoded = 0
        self.end = 0.0  # seconds: when the last frame ends
        if isinstance(file, Path):
            require_regular(file, expected="a video")  # FFmpeg would wait for a pipe to be written
        try:
            place: Any = str(file) if isinstance(file, Path) else file
            self.container = av.open(place, format=form, options=options or {})
        except self.failed as error:
            raise DataError(UNREADABLE.format(name, _reason(error))) from error
        streams = self.container.streams.video
        if not streams or streams[0].codec_context is None:  # decoding without a codec would end the process
            self.container.close()
            raise DataError(
                UNREADABLE.format(name, "without a known codec" if streams else "there are no pictures in it")
            )
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        base = self.stream.time_base or Fraction(1, 90_000)
        length = None if self.stream.duration is None else float(self.stream.duration * base)
        if length is None and self.container.duration is not None:
            length = self.container.duration / 1e6
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.facts = Facts(rate, self.stream.frames or None, length, base)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames as RGB. Damaged ones are left out and counted in `damaged`."""
        start: float | None = None
        step = float(1 / self.facts.rate) if self.facts.rate else 1 / 30
        seconds = -step
        for decoded in self._decode():
            at = decoded.time
            if at is None:
                seconds += step
            else:
                start = at if start is None else start
                seconds = at - start
            yield Frame(
                self._picture(decoded), f"{self.name}_{self.decoded:06d}", self.path, self.decoded, seconds
            )
            self.decoded += 1
            self.end = seconds + step

    def _decode(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self.failed:  # the file ends inside of a packet
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except self.failed:
                self.damaged += 1
                continue
            yield from frames

    def _picture(self, decoded: Any) -> np.ndarray:
        picture: np.ndarray = decoded.to_ndarray(format="rgb24")
        turns = round(decoded.rotation / 90) % 4 if self.upright else 0
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def short(self) -> str | None:
        """What is missing once all frames were read: in words, or None.

        A header's count alone says little, since frames that an edit list leaves out are counted too, and a length alone
        is often rounded: it is short if both are not reached, as far as they are known.
        """
        facts, step = self.facts, float(1 / self.facts.rate) if self.facts.rate else 1 / 30
        if self.damaged:
            return f"{self.damaged} damaged packets; {self.decoded} frames were read"
        few = None if facts.count is None else self.decoded < facts.count
        early = (
            None
            if facts.seconds is None
            else self.end < facts.seconds - max(1.5 * step, 0.02 * facts.seconds * (few is None))
        )
        if (few is None and early is None) or few is False or early is False:
            return None
        promised = f"{facts.count} frames" if facts.count else f"{facts.seconds:.2f} s"
        found = f"{self.decoded}" if facts.count else f"{self.end:.2f}"
        return f"it ends after {found} of the {promised} that its header promises"


class VideoWriter:
    """A video of frames of one size: H.264 in MP4, or what the build of FFmpeg has; complete at `path` or not at all.

    Each frame is shown at its own `seconds`, so that a variable rate stays one; `rate` is the nominal one. Frames without a
    time follow each other at `rate`.
    """

    def __init__(self, path: Path, *, rate: Fraction, time_base: Fraction | None = None) -> None:
        self.path, self.rate = path, rate
        self.base = time_base or 1 / rate
        self.count, self.last = 0, -1
        self.av = import_av()
        self.encoder = next(name for name in ENCODERS if _can_encode(self.av, name))
        if self.encoder == "mpeg4" and self.base.denominator > FINEST:
            self.base = Fraction(1, FINEST)
        self.stream: Any = None

    def __call__(self, picture: np.ndarray, seconds: float | None) -> None:
        """Add a picture, uint8 (H, W, 3) RGB."""
        if self.stream is None:
            self._begin(*picture.shape[:2])
        image = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        image = image.reformat(
            format=self.stream.codec_context.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        when = self.count / self.rate if seconds is None else seconds
        image.pts = self.last = max(round(when / self.base), self.last + 1)
        image.time_base = self.base
        self.count += 1
        for packet in self.stream.encode(image):
            self.container.mux(packet)

    def _begin(self, height: int, width: int) -> None:
        options = dict(ENCODERS[self.encoder])
        self.stream = self.container.add_stream(self.encoder, rate=self.rate, options=options)
        self.stream.width, self.stream.height = width, height
        even = height % 2 == 0 and width % 2 == 0
        self.stream.pix_fmt = "yuv420p" if even or self.encoder != "libx264" else "yuv444p"
        context = self.stream.codec_context
        context.time_base = self.base
        for key, value in BT709.items():
            setattr(context, key, value)

    @contextmanager
    def opened(self) -> Iterator[VideoWriter]:
        """Within it frames are taken; at its end the file appears."""
        with replacing(self.path) as temporary:
            self.container = self.av.open(
                str(temporary), "w", format="mp4", options={"movflags": "faststart"}
            )
            try:
                yield self
                for packet in self.stream.encode() if self.stream is not None else ():
                    self.container.mux(packet)
            finally:
                self.container.close()


def _can_encode(av: Any, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
