"""Sources through a predictor to sinks: decoding, the network, drawing and encoding each in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.errors import ConfigError, DataError, nearest
from dvsn.hub.resolve import is_name, local
from dvsn.pictures.grids import write_picture
from dvsn.portable.result import Result
from dvsn.predict.asked import make_predictor
from dvsn.predict.big import BigPictures
from dvsn.predict.files import read_frame
from dvsn.predict.following import make_following
from dvsn.predict.overlap import ahead
from dvsn.predict.progress import Progress
from dvsn.predict.sinks import LOSSLESS, TABLES, Array, Clip, Journal, Look, Table, Window, entries
from dvsn.predict.sources import Opened, Pictures, Skipped, Source

log = logging.getLogger("dvsn")

DRAWN_AHEAD = 4
BY_WINDOWS = ("segmentation", "pix2pix")
FOUND = {"detection": "objects", "pose": "people", "landmarks": "faces"}
UNKEYED = (
    "checkpoint",
    "input",
    "output",
    "device",
    "batch_size",
    "resume",
    "show",
    "limit",
    "debug",
    "max_unpacked",
)
"""Options that change nothing in the result of a picture."""
Options = dict[str, Any]


class Drawn(NamedTuple):
    """A result, and the picture to write, if one is wanted."""

    result: Result
    picture: Array | None


@dataclass
class Outcome:
    """What a run has done."""

    skipped: Skipped
    written: list[Path] = field(default_factory=list)
    frames: int = 0
    found: int = 0
    """Objects, people or faces, over all frames."""
    without: int = 0
    """Frames in which nothing was found."""
    kept: int = 0
    """Results that were there already."""


class Run:
    """A checkpoint's task on sources, by the options of `dvsn.predict.command`."""

    def __init__(
        self, task: Any, sources: Sequence[Source], options: Options, device: str, skipped: Skipped
    ) -> None:
        self.task, self.sources, self.options = task, sources, options
        self.output = Path(options["output"])
        self.outcome = Outcome(skipped)
        skipped.alone = sum(len(each.items) if isinstance(each, Pictures) else 1 for each in sources) == 1
        self.pictures = [source for source in sources if isinstance(source, Pictures)]
        files = [path for source in self.pictures for path, _ in source.items]
        moving = any(source.moving for source in sources)
        self.predictor = make_predictor(task, asked(options, moving=moving, kind=task.kind), device, files)
        self.following = make_following(options, task.kind)
        self.big = self._big(device) if task.kind in BY_WINDOWS else None
        for source in self.pictures:
            source.read = self.read
            if self.big is not None:
                source.items = self.big.targets(source.items)
        self.window = Window() if options["show"] else None

    def _big(self, device: str) -> BigPictures:
        reader, changes = getattr(self.predictor, "reader", None), getattr(self.predictor, "changes", {})
        steps = bool(reader is not None and reader.transform.steps)
        return BigPictures(self.task, self.options, changes, device, steps=steps)

    def read(self, path: Path) -> Array:
        """A picture as the task wants it."""
        try:
            return read_frame(path, self.predictor.reads).picture
        except DataError as error:
            advice = "" if self.big is None else self.big.advice(path)
            if not advice:
                raise
            raise DataError(f"{error}{advice}") from error

    def __call__(self) -> Outcome:
        """All sources. Raises `DataError` where none of them could be read."""
        key = {name: value for name, value in self.options.items() if name not in UNKEYED}
        resume = bool(self.options["resume"]) and not self.follows
        with ExitStack() as stack:
            if self.window is not None:
                stack.enter_context(closing(self.window))
            journal = Journal(self.output, self.stamp() | {"options": key}, resume=resume)
            stack.enter_context(journal)
            for source in self.sources:
                if isinstance(source, Pictures):
                    self.run_pictures(source, journal)
                else:
                    self.run_moving(source, journal)
            self.write_table(journal)
        self.settle(journal)
        return self.outcome

    @property
    def follows(self) -> bool:
        return bool(self.options["track"] or self.options["smooth"])

    def stamp(self) -> dict[str, Any]:
        """What tells this checkpoint from another: its name and, of a file, size and time."""
        name = str(self.options["checkpoint"])
        file = Path(name) if is_name(name) else local(name)
        if not file.is_file():
            return {"checkpoint": name}
        status = file.stat()
        return {"checkpoint": str(file), "stamp": [status.st_size, status.st_mtime_ns]}

    def run_pictures(self, source: Pictures, journal: Journal) -> None:
        """A picture file for each, and a line of the journal."""
        source.done = journal.done
        kept = [target for path, target in source.items if journal.done(path)]
        if kept:
            log.info(
                "%d of %d pictures are there from a run that was broken off", len(kept), len(source.items)
            )
        self.outcome.kept += len(kept)
        self.outcome.written += kept
        self.run_big(source, journal)
        targets = dict(source.items)
        look = self.look(moving=False)
        with source.opened() as opened:
            for result, picture in self.results(source, opened, look):
                assert result.frame.path is not None
                target = targets[result.frame.path]
                if picture is not None:
                    write_picture(target, picture)
                    self.outcome.written.append(target)
                journal.add(result.frame.path, target if picture is not None else None, entries(result))

    def run_big(self, source: Pictures, journal: Journal) -> None:
        """Those of the pictures that are read by windows, each to a TIFF; the others are left to the source."""
        if self.big is None:
            return
        kind = chosen_kind(self.options["write"], self.task, moving=False)
        for path, target in [item for item in source.items if item[1].suffix == ".tif"]:
            if journal.done(path):
                continue
            try:
                self.outcome.written += self.big(path, target, str(kind))
            except DataError as error:
                self.outcome.skipped.add(str(error))
                continue
            self.outcome.frames += 1
            journal.add(path, target, [])
        source.items = [item for item in source.items if item[1].suffix != ".tif"]

    def run_moving(self, source: Source, journal: Journal) -> None:
        """A video or a folder of pictures, and a file of all results, both complete or not at all."""
        path = getattr(source, "path", None)
        if path is not None and journal.done(path):
            log.info("%s: its result is there from a run that was broken off", path)
            self.outcome.kept += 1
            return
        try:
            with source.opened() as opened:
                self._run_moving(source, opened, journal, path)
        except DataError as error:
            if self.outcome.frames and not str(error).startswith(source.name):
                raise
            self.outcome.skipped.add(str(error))

    def _run_moving(self, source: Source, opened: Opened, journal: Journal, path: Path | None) -> None:
        look = self.look(moving=True)
        pictures = self.options["frames"] == "pictures" or (look is not None and look.kind in LOSSLESS)
        clip = Clip(source.target, rate=opened.rate, time_base=opened.time_base, pictures=pictures)
        name = TABLES.get(self.task.kind)
        table = None if name is None else Table(source.target.with_name(f"{source.target.name}_{name}"))
        before = self.outcome.frames
        with ExitStack() as stack:
            if table is not None:
                stack.enter_context(table.opened())
            if look is not None:
                stack.enter_context(clip.opened())
            try:
                for result, picture in self.results(source, opened, look):
                    if table is not None:
                        table.add(entries(result))
                    if picture is not None:
                        clip.add(picture, result.frame.seconds)
            except KeyboardInterrupt:
                if not source.live:
                    raise
                log.info("%s: stopped", source.name)
            if self.outcome.frames == before:
                raise DataError(f"{source.name}: no frame could be read.")
        missing = opened.short()
        if missing is not None:
            self.outcome.skipped.cut(f"{source.name}: {missing}.")
        self.outcome.written += [clip.path] if look is not None else []
        self.outcome.written += table.files if table is not None else []
        if look is not None:
            log.info(
                "%s%s",
                clip.path,
                "" if clip.encoder in ("libx264", "png") else f" (encoded by {clip.encoder})",
            )
        if path is not None and look is not None and missing is None:
            journal.add(path, clip.path, [])

    def results(self, source: Source, opened: Opened, look: Look | None) -> Iterator[Drawn]:
        """Results with their pictures, in order. Counts and shows them."""
        unit = "frames" if source.moving else "pictures"
        depth = 2 * self.predictor.batch_size
        frames = ahead(opened.frames, depth)
        results: Iterable[Result] = self.predictor(frames)
        if self.following is not None:
            results = self.following(results, opened.rate)
        drawn = ahead(drawing(ahead(results, depth), look), DRAWN_AHEAD)
        with closing(drawn), Progress(source.name, opened.count, unit=unit) as progress:
            for each in drawn:
                self.outcome.frames += 1
                self.outcome.found += len(each.result)
                self.outcome.without += not len(each.result)
                yield each
                progress.add()
                if self.window is not None and not self.window.add(self.shown(each, look)):
                    log.info("%s: the window was closed", source.name)
                    return
            if source.moving or progress.terminal:
                progress.clear()
                log.info("%s: %s", source.name, progress.summary())

    def shown(self, drawn: Drawn, look: Look | None) -> Array:
        if drawn.picture is not None and look is not None and look.kind not in LOSSLESS:
            return drawn.picture
        return Look("overlay" if drawn.result.ids is not None else None)(drawn.result)

    def look(self, *, moving: bool) -> Look | None:
        """How results become pictures: by `write` and the drawing options; None where no picture is wanted."""
        kind = chosen_kind(self.options["write"], self.task, moving=moving)
        if kind == "table":
            return None
        drawing = {}
        if self.task.kind == "landmarks":
            names = {"points": "points", "lines": "outline", "axes": "axes"}
            drawing = {ours: bool(self.options[theirs]) for ours, theirs in names.items()}
        beside = bool(self.options["side_by_side"])
        return Look(kind, side_by_side=beside, keep_size=moving, **drawing)

    def write_table(self, journal: Journal) -> None:
        """The results of all pictures, those of before included."""
        name = TABLES.get(self.task.kind)
        if name is None or not any(
            journal.done(path) for source in self.pictures for path, _ in source.items
        ):
            return
        table = Table(self.output / name)
        with table.opened():
            for source in self.pictures:
                table.add(journal.found(path for path, _ in source.items))
        self.outcome.written += table.files

    def settle(self, journal: Journal) -> None:
        """What is said at the end, and whether the journal is still of use."""
        outcome = self.outcome
        messages = outcome.skipped.messages
        if not outcome.frames and not outcome.kept and messages:
            journal.remove()
            if not any(self.output.iterdir()):
                self.output.rmdir()
            more = "" if len(messages) == 1 else f" None of the {len(messages)} inputs could be read."
            raise DataError(f"{messages[0]}{more}")
        if not messages:
            journal.remove()
        log.info("%s, in %s", self.summary(), self.output)
        if messages:
            log.warning(
                "skipped or incomplete: %d, see above. Once they are whole, the same line does the rest.",
                len(messages),
            )

    def summary(self) -> str:
        """Such as `7 faces in 3 pictures (1 without, written as it is)`."""
        outcome = self.outcome
        unit = "frames" if any(source.moving for source in self.sources) else "pictures"
        text = f"{outcome.frames + (outcome.kept if unit == 'pictures' else 0)} {unit}"
        if self.task.kind in FOUND:
            without = f" ({outcome.without} without any)" if outcome.without else ""
            text = f"{outcome.found} {FOUND[self.task.kind]} in {text}{without}"
        if self.following is not None and self.following.count:
            text += f"; {self.following.count} different ones were followed"
        return text


def drawing(results: Iterable[Result], look: Look | None) -> Iterator[Drawn]:
    for result in results:
        yield Drawn(result, None if look is None else look(result))


def asked(options: Options, *, moving: bool, kind: str) -> Options:
    """The options as predictors know them."""
    inference = {
        name.partition(".")[2]: value for name, value in options.items() if name.startswith("inference.")
    }
    found = {name: value for name, value in options.items() if not name.startswith("inference.")}
    found["inference"] = {name: value for name, value in inference.items() if value is not None} or None
    if moving:
        found["original_size"] = True
    if not options["smooth"]:
        found["fps"] = 30.0  # it is the rate of a stream then, which predictors do not know
    return found


def chosen_kind(write: Any, task: Any, *, moving: bool) -> str | None:
    """What `write=...` says, else the task's first kind, of a moving segmentation overlay; None of tasks with one way."""
    answers = tuple(getattr(task, "answers", ()) or ())
    if write is None:
        return "overlay" if moving and "overlay" in answers else (str(answers[0]) if answers else None)
    if str(write) not in answers:
        raise ConfigError(f"write: the task '{task.kind}' has no '{write}'. {nearest(str(write), answers)}")
    return str(write)
