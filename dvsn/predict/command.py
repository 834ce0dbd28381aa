"""What `python -m dvsn.predict` does: the sources are opened, then the checkpoint is loaded and asked."""

from __future__ import annotations

import importlib
import logging
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.config.folders import require_writable
from dvsn.config.light_imports import import_lightning
from dvsn.data.files import SUFFIXES as PICTURES
from dvsn.data.files import make_rule, read_by
from dvsn.errors import ConfigError
from dvsn.portable.bands import bands_of
from dvsn.predict.following import FOLLOWED
from dvsn.predict.following import OPTIONS as FOLLOWING
from dvsn.predict.options import refuse_others
from dvsn.predict.sources import Choices, Skipped, open_sources
from dvsn.predict.video import SUFFIXES as VIDEOS
from dvsn.reading import unpacking

if TYPE_CHECKING:
    from dvsn.predict.running import Outcome

log = logging.getLogger("dvsn")


def read_choices(options: dict[str, Any]) -> Choices:
    """How sources are opened. Raises `ConfigError` for options that are none."""
    for name in ("limit", "batch_size"):
        value = options[name]
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{name}: found {value}, expected 1 or more.")
    rate = options["fps"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1000:
        raise ConfigError(f"fps: found {rate}, expected the frames in a second, above 0 and up to 1000.")
    if options["frames"] not in ("video", "pictures"):
        raise ConfigError(f"frames: found {options['frames']!r}, expected video or pictures.")
    raw = options["raw"]
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(raw)) if raw is not None else None
    if raw is not None and sides is None:
        raise ConfigError(f"raw: found {raw!r}, expected WIDTHxHEIGHT of the frames, such as 640x480.")
    exact = Fraction(rate).limit_denominator(1001)
    return Choices(
        upright=bool(options["upright"]),
        limit=options["limit"],
        sequence_rate=exact if options["track"] or options["smooth"] else None,
        stream_rate=exact,
        raw_size=None if sides is None else (int(sides[1]), int(sides[2])),
        pixel_format=str(options["pixel_format"]),
    )


def refuse_file(output: Path) -> None:
    """Raise `ConfigError` for an `output` that has the ending of a file, as if it named the result itself."""
    if output.suffix.lower() in PICTURES | VIDEOS | {".json", ".csv"} and not output.is_dir():
        folder = output.with_suffix("")
        raise ConfigError(
            f"output: found {output}, expected a folder, such as output={folder}. Results have the names of their sources: "
            f"of clip.mp4 that is {folder}/clip.mp4."
        )


def predict(options: dict[str, Any]) -> list[Path]:
    """Returns the files written: see `run`."""
    return run(options).written


def run(options: dict[str, Any]) -> Outcome:
    """Predict all that `input` names. What is written is up to the checkpoint's task: see `dvsn.predict.running`."""
    with unpacking(options):
        return run_all(options)


def run_all(options: dict[str, Any]) -> Outcome:
    """`run`, within its bound of checkpoints."""
    refuse_file(Path(str(options["output"])))
    options = options | {"output": str(require_writable(str(options["output"]), option="output"))}
    choices, skipped = read_choices(options), Skipped()
    names = options["input"] if isinstance(options["input"], list) else [str(options["input"])]
    sources = open_sources(names, Path(options["output"]), skipped, choices)
    import_lightning()
    from dvsn.predict.predictor import find_device
    from dvsn.predict.running import Run  # torch, which a source that is not there does without
    from dvsn.tasks.exported import is_exported, open_task

    exported = is_exported(str(options["checkpoint"])) and options["device"] == "auto"
    device = "cpu" if exported else find_device(str(options["device"]))
    task: Any = open_task(options["checkpoint"], device=device)
    part = importlib.import_module(f"dvsn.predict.{task.shows}")
    refuse_others(options, [*part.OPTIONS, *(FOLLOWING if task.kind in FOLLOWED else ())], task.kind)
    rule = make_rule(
        max_pixels=options["max_pixels"],
        deep_range=getattr(task, "data_recipe", {}).get("deep_range"),
        upright=bool(options["upright"]),
        bands=bands_of(getattr(task, "data_recipe", {})),
    )
    with read_by(rule):
        outcome = Run(task, sources, options, device, skipped)()
    turned = sorted(set(rule.turned))
    if turned:
        log.info(
            "%d of %d pictures were turned upright by their orientation tag, such as %s; positions are those of the upright "
            "picture (upright=false: as stored, as in training)", len(turned), outcome.frames, turned[0],
        )  # fmt: skip
    return outcome
