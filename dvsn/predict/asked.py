"""The options of `predict` in Python: those of the command that change the answer, by keyword, checked by name and type."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvsn.errors import ConfigError, nearest
from dvsn.predict.following import FOLLOWED
from dvsn.predict.following import OPTIONS as FOLLOWING
from dvsn.predict.options import COMMAND
from dvsn.predict.predictor import Predictor

WINDOWS = ("mode", "window", "stride", "blend")
INFERENCE = (*WINDOWS, "scales", "flip", "resize")
SHARED = ("batch_size", "seed", "max_pixels", "upright")
USUAL: dict[str, Any] = {"original_size": True}
"""Where Python differs from the command: answers are as large as their pictures, so that both lie on each other."""
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def answer_module(task: Any) -> Any:
    """`dvsn.predict.NAME` of what a task shows."""
    return importlib.import_module(f"dvsn.predict.{task.shows}")


def make_predictor(
    task: Any, options: Mapping[str, Any], device: str, sources: Sequence[Path] = ()
) -> Predictor:
    """The predictor of a task."""
    part = answer_module(task)
    (kind,) = (
        each
        for _, each in inspect.getmembers(part, inspect.isclass)
        if issubclass(each, Predictor) and each.__module__ == part.__name__
    )
    predictor: Predictor = kind(task, options, device, sources)
    return predictor


def known_options(task: Any) -> tuple[str, ...]:
    """The names of the options that a task has in Python."""
    names = [name for name in answer_module(task).ASKED if name != "inference"]
    names += inference_options(task)
    if task.kind in FOLLOWED:
        names += [*FOLLOWING, "fps"]
    return (*dict.fromkeys(names), *SHARED)


def inference_options(task: Any) -> tuple[str, ...]:
    """The options of `dvsn.tasks.inference.Inference` that a task has: of segmentation all, of pix2pix those of windows."""
    if getattr(task, "inference", None) is None:
        return ()
    return INFERENCE if task.kind == "segmentation" else WINDOWS


def python_options(task: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the command with the given ones. Raises `ConfigError` for one that the task has not, by its name."""
    known = known_options(task)
    defaults = {option.name: option.default for option in COMMAND.options}
    options = {**defaults, **USUAL, "inference": None}
    inference: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"{name}: predict of the task '{task.kind}' has no such option. {nearest(name, known)}"
            )
        if name in inference_options(task):
            inference[name] = list(value) if isinstance(value, tuple) else value
            continue
        options[name] = _fitting(name, value, defaults.get(name))
    check_windows(task, inference)
    rate = options["fps"]
    if isinstance(rate, bool) or not 0 < rate <= 1000:
        raise ConfigError(f"fps: found {rate}, expected the frames in a second, above 0 and up to 1000.")
    if int(options["batch_size"]) < 1:
        raise ConfigError(f"batch_size: found {options['batch_size']}, expected 1 or more.")
    return options | {"inference": inference or None}


def check_windows(task: Any, inference: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a window or a stride of windows where whole pictures are looked at."""
    alone = [name for name in ("window", "stride", "blend") if inference.get(name) is not None]
    if alone and (inference.get("mode") or task.inference.mode) != "slide":
        raise ConfigError(
            f"{alone[0]}: is of the windows of the mode 'slide', and whole pictures are looked at. Give that mode, and the "
            "height and width of a window, too; every second frame of a video is itertools.islice(..., 0, None, 2)."
        )


def _fitting(name: str, value: Any, default: Any) -> Any:
    """A value of the type of the command's default; a path as text, and of `size` also (H, W)."""
    if name == "size" and isinstance(value, tuple | list):
        return "x".join(str(side) for side in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if name == "boxes":
        return value
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        kind = "recipe, keep or (height, width)" if name == "size" else KINDS.get(wanted, wanted.__name__)
        raise ConfigError(f"{name}: found {value!r}, expected {kind}.")
    return value
