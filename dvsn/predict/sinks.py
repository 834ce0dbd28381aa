"""Where results go: pictures, videos, a window, and the files of a task in its customary format."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from dvsn.atomic import locked_out, replacing
from dvsn.errors import ConfigError
from dvsn.pictures.grids import grid, write_picture
from dvsn.portable.legend import draw_legend
from dvsn.portable.overlay import background, render
from dvsn.portable.result import Result
from dvsn.predict.video import VideoWriter

log = logging.getLogger("dvsn")

TABLES = {
    "detection": "detections.json", "pose": "keypoints.json", "landmarks": "landmarks.json",
    "classification": "classes.json",
}  # fmt: skip
"""The file of all results by task; those of segmentation and pix2pix are the pictures themselves."""
TITLES = {
    "pose": ("photo", "prediction"),
    "landmarks": ("photo", "prediction"),
    "detection": ("input", "objects"),
}
"""Over a picture and its answer beside each other."""
CAPTION = 3  # classes on a frame of a video
LOSSLESS = ("ids", "submission")
"""What a video would spoil: of these each frame is a picture of its own."""
Array = np.ndarray[Any, Any]
Entry = dict[str, Any]


class Look:
    """How a result becomes a picture: what is drawn, beside the input or not."""

    def __init__(
        self, kind: str | None, *, side_by_side: bool = False, keep_size: bool = False, **drawing: Any
    ) -> None:
        self.kind, self.side_by_side, self.keep_size, self.drawing = kind, side_by_side, keep_size, drawing

    def __call__(self, result: Result) -> Array:
        """The picture to write: uint8 (H, W, 3), or ids or grey (H, W). With `keep_size`, of videos, RGB as large as the
        frame."""
        kind = self.kind or ("overlay" if result.ids is not None else "")
        if self.keep_size and result.classes is not None:
            drawn = captioned(result)
        else:
            drawn = render(result, kind, **(self.drawing if kind not in ("color", *LOSSLESS) else {}))
        if result.picture is not None and drawn.ndim == 2 and (self.side_by_side or self.keep_size):
            drawn = np.stack([drawn] * 3, axis=-1)
        if self.keep_size and drawn.shape[:2] != result.frame.size:
            drawn = fitted(drawn, result)
        if not self.side_by_side or drawn.ndim != 3:
            return drawn
        return grid(
            [[np.ascontiguousarray(shown(result)), drawn]], list(TITLES.get(result.kind, ("input", kind)))
        )


def shown(result: Result) -> Array:
    """What the network was shown, as RGB."""
    return background(result) if result.seen is None else result.seen


def captioned(result: Result) -> Array:
    """A frame with its likeliest classes on a plate: a card would have another size."""
    picture = background(result)
    lines = [(f"{each.score:.0%} {each.name}", None) for each in (result.classes or ())[:CAPTION]]
    draw_legend(picture, lines)
    return picture


def fitted(drawn: Array, result: Result) -> Array:
    """A drawing in the size of its frame."""
    size = result.frame.size[::-1]
    nearest = drawn.ndim == 2 or result.ids is not None
    return cv2.resize(drawn, size, interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC)


def entries(result: Result) -> list[Entry]:
    """The result in its task's customary format: COCO's results, of classification the ranked classes by file.

    Of a frame of a video also its number, `frame`, from 0, and `seconds`. Nothing of tasks that answer by pictures.
    """
    frame = result.frame
    when: Entry = {} if frame.seconds is None else {"frame": frame.index, "seconds": round(frame.seconds, 6)}
    if result.classes is not None:
        found = [
            {"class": each.name, "number": each.number, "score": round(each.score, 6)}
            for each in result.classes
        ]
        return [{"file": str(frame.path or frame.name), **when, "classes": found}]
    if result.kind not in TABLES:
        return []
    return [
        {key: value for key, value in each.items() if (key, value) != ("track", 0)} | when  # 0: nobody yet
        for each in result.to_coco()
    ]


def row(entry: Entry) -> Entry:
    """A line of a table of classes: the file, then class and score by rank."""
    line = {key: value for key, value in entry.items() if key != "classes"}
    for rank, each in enumerate(entry["classes"], start=1):
        line |= {f"class_{rank}": each["class"], f"score_{rank}": each["score"]}
    return line


class Table:
    """All results of a source as JSON, of classes also as CSV, written as they come: memory stays flat."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.files = [path.with_suffix(".csv"), path] if path.name.endswith("classes.json") else [path]

    @contextmanager
    def opened(self) -> Iterator[Table]:
        """Within it entries are taken; at its end the files appear, whole."""
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write("[")
            if len(self.files) == 1:
                self._json, self._csv = file, None
                yield self
                file.write("\n]\n" if self.count else "]\n")
                return
            with replacing(self.files[0]) as beside, beside.open("w", encoding="utf-8", newline="") as table:
                self._json, self._csv = file, table
                yield self
                file.write("\n]\n" if self.count else "]\n")

    def add(self, found: Iterable[Entry]) -> None:
        for entry in found:
            self._json.write(",\n" if self.count else "\n")
            self._json.write(json.dumps(entry))
            if self._csv is not None:
                self._add_row(row(entry), self._csv)
            self.count += 1

    def _add_row(self, line: Entry, file: IO[str]) -> None:
        if not self.count:
            self.writer = csv.DictWriter(file, fieldnames=list(line))
            self.writer.writeheader()
        self.writer.writerow(line)


# Pictures --------------------------------------------------------------------------------------------


class Journal:
    """What of a folder of results is done already, so that a run that was broken off can go on.

    A file of lines: first what makes the results (checkpoint and options), then for each picture that is written its
    entries. It is removed when all is done; a run that had to skip pictures keeps it, so that the same line does the rest.
    """

    NAME = "unfinished.jsonl"

    def __init__(self, folder: Path, key: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path, self.key = folder / self.NAME, json.loads(json.dumps(key))
        self.places: dict[str, int] = {}
        """By source, where its line begins."""
        if resume:
            self._read()
        elif self.path.is_file():
            log.info("%s: begun again from the first picture (resume=false)", folder)
        self._file: IO[bytes] | None = None

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                header = _parsed(file.readline())
                if header != self.key:
                    log.info(
                        "%s: begun with another checkpoint or other options; all is done again",
                        self.path.parent,
                    )
                    return
                place = file.tell()
                for line in file:
                    entry = _parsed(line)
                    if isinstance(entry, dict) and _is_entry(entry) and _still_there(entry):
                        self.places[entry["source"]] = place
                    place += len(line)
        except OSError:
            return

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        going_on = bool(self.places)
        self._file = self.path.open("ab")
        self._lock(self._file)
        if going_on:
            self._file.write(b"\n")  # a line that was broken off ends here
        else:
            self._file.truncate(0)
            self._file.write(json.dumps(self.key).encode() + b"\n")
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _lock(self, file: IO[bytes]) -> None:
        """Raise `ConfigError` while another run writes here."""
        if locked_out(file.fileno()):
            file.close()
            raise ConfigError(
                f"output: another prediction writes to {self.path.parent} now. Wait for it, or choose another folder with "
                "output=..."
            )

    def done(self, source: Path) -> bool:
        return str(source) in self.places

    def add(self, source: Path, target: Path | None, found: list[Entry]) -> None:
        """A picture whose result is written, or None where only the table wants it."""
        assert self._file is not None
        status = source.stat()
        entry = {
            "source": str(source), "stamp": [status.st_size, status.st_mtime_ns], "target": str(target or ""),
            "entries": found,
        }  # fmt: skip
        self.places[str(source)] = self._file.tell()
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def found(self, sources: Iterable[Path]) -> Iterator[Entry]:
        """The entries of these pictures, in their order."""
        with self.path.open("rb") as file:
            for source in sources:
                if str(source) in self.places:
                    file.seek(self.places[str(source)])
                    yield from (_parsed(file.readline()) or {}).get("entries", ())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _parsed(line: bytes) -> Any:
    """A line of a journal; None for one that was broken off."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_entry(entry: Entry) -> bool:
    stamp, found = entry.get("stamp"), entry.get("entries")
    texts = isinstance(entry.get("source"), str) and isinstance(entry.get("target"), str)
    return (
        texts
        and isinstance(stamp, list)
        and isinstance(found, list)
        and all(isinstance(e, dict) for e in found)
    )


def _still_there(entry: Entry) -> bool:
    """Whether the result is there, and its picture is the one that it was made from."""
    try:
        status = Path(entry["source"]).stat()
    except OSError:
        return False
    there = not entry["target"] or Path(entry["target"]).exists()
    return [status.st_size, status.st_mtime_ns] == entry["stamp"] and there


# Videos and windows ----------------------------------------------------------------------------------


class Clip:
    """The drawn frames of a moving source: a video, or a picture each in a folder of its name."""

    def __init__(
        self, target: Path, *, rate: Fraction | None, time_base: Fraction | None, pictures: bool
    ) -> None:
        self.rate, self.time_base, self.pictures = rate or Fraction(30), time_base, pictures
        self.path = target if pictures else target.with_name(f"{target.name}.mp4")
        self.count = 0
        self.encoder = "png"
        self._writer: VideoWriter | None = None

    @contextmanager
    def opened(self) -> Iterator[Clip]:
        """Within it frames are taken; at its end the video appears, if there was a frame."""
        if self.pictures:
            yield self
            return
        writer = VideoWriter(self.path, rate=self.rate, time_base=self.time_base)
        self.encoder = writer.encoder
        with writer.opened():
            self._writer = writer
            yield self

    def add(self, picture: Array, seconds: float | None) -> None:
        if self._writer is None:
            write_picture(self.path / f"{self.count:06d}.png", np.ascontiguousarray(picture))
        else:
            self._writer(picture, seconds)
        self.count += 1


class Window:
    """A window that shows what comes; q or Escape ends it."""

    TITLE = "dvsn"

    def __init__(self) -> None:
        try:
            cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL)
        except (cv2.error, AttributeError) as error:
            raise ConfigError(
                "show: this OpenCV has no windows, for it is the headless one (or there is no screen). Exchange it: pip "
                "uninstall -y opencv-python-headless && pip install opencv-python"
            ) from error

    def add(self, picture: Array) -> bool:
        """Whether the reader wants more."""
        bgr = picture[..., ::-1] if picture.ndim == 3 else picture
        cv2.imshow(self.TITLE, np.ascontiguousarray(bgr))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        cv2.destroyAllWindows()
