"""The runs below a folder, read from their files: what each was asked for, and what came of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_json, read_text

Config = dict[str, Any]
ALONE = "student alone"
SETTINGS = (
    "network",
    "data",
    "transform",
    "loss",
    "optim",
    "schedule",
    "trainer",
    "epochs",
    "ema",
    "teacher",
    "distillation",
)
"""The keys of a config that make runs comparable; runs that differ in them get sections of their own."""
ACCURACIES = ("top1", "accuracy")
"""Scores whose value by chance is one in the number of classes."""
CONFIG = "config.yaml"
LIMIT = 64 * MEGABYTE
"""Of a config.yaml or result.json; a run's own have some kilobytes."""


@dataclass
class Run:
    """One finished run."""

    folder: Path
    method: str
    """The names of its methods of distillation, or `student alone`."""
    weight: str
    seed: int
    options: Config
    """Of the methods, what is not their weight."""
    setting: Config
    monitor: str
    sign: float
    """1 where more is better, -1 where less is."""
    last: float | None
    """None where the score is not finite: the run has collapsed."""
    best: float | None
    teacher: float | None
    epoch_seconds: float | None
    peak_bytes: float | None
    parameters: float | None = None
    """Of the network as it is shipped."""
    task: str = ""
    """The class of its task."""
    name: str = ""
    overrides: tuple[str, ...] | None = None
    """Those of its job in a sweep; None for a run that was started by itself."""
    chance: float | None = None
    """The score of guessing, where it is known."""
    latency: float | None = None
    """Milliseconds of a picture, where a benchmark says it."""
    collapsed: str = ""
    """Why the run counts as collapsed; empty for one that has not."""
    fold: int | None = None
    """The part of the training split that was held back as val; None where the data set has a val of its own."""

    @property
    def turn(self) -> tuple[int, int]:
        """What tells it from other runs of the same setting, and pairs it with runs of another: seed and fold."""
        return self.seed, -1 if self.fold is None else self.fold

    @property
    def turn_name(self) -> str:
        return str(self.seed) if self.fold is None else f"{self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Open:
    """A run without a result: it still runs, was killed, or failed."""

    folder: Path
    method: str


@dataclass
class Found:
    """What lies below a folder."""

    runs: list[Run] = field(default_factory=list)
    open: list[Open] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Of runs that could not be read, a sentence each."""
    remarks: list[str] = field(default_factory=list)
    """Of the report itself, such as a latency that fits no run."""


def read_runs(folder: Path) -> Found:
    """The runs below a folder. One that is damaged is left out and named in the notes."""
    found = Found()
    for file in sorted(folder.rglob(CONFIG), key=lambda each: natural(str(each))):
        place = file.parent
        if not (place / "result.json").is_file():
            found.open.append(Open(place, method_of(place)))
            continue
        try:
            found.runs.append(read_folder(place))
        except DataError as error:
            found.notes.append(str(error))
    return found


def natural(text: str) -> list[str | int]:
    """A key that sorts `2` before `10`."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", text))]


def read_folder(folder: Path) -> Run:
    """The run of a folder. Raises `DataError`, naming the file, where one of its files is not as a run leaves it."""
    config = parse_yaml(read_config(folder), folder / CONFIG)
    result = read_json(folder / "result.json", expected="the result of a run", limit=LIMIT)
    try:
        run = read_run(folder, config, result)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{folder}: its config.yaml or result.json is not as a run of dvsn leaves it: {error}. Restore both, "
            "or leave the folder out."
        ) from error
    run.overrides = overrides_of(folder)
    return run


def read_config(folder: Path) -> str:
    """The text of a run's config.yaml."""
    return read_text(folder / CONFIG, expected="the config of a run", limit=LIMIT)


def parse_yaml(text: str, path: Path) -> Any:
    """What a text says, which `path` names in errors. Raises `DataError` where it is no YAML."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a YAML file ({reason}). Restore it, or leave the run out.") from error


def overrides_of(folder: Path) -> tuple[str, ...] | None:
    try:
        found = read_json(folder / "job.json", limit=LIMIT)["overrides"]
    except (DataError, KeyError, TypeError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def method_of(folder: Path) -> str:
    """The method of a run that is not finished, as far as its config says it."""
    try:
        parts = (parse_yaml(read_config(folder), folder / CONFIG) or {}).get("distill")
    except (DataError, AttributeError):
        return ""
    return " + ".join(map(str, parts)) if isinstance(parts, Mapping) and parts else ""


def read_run(folder: Path, config: Config, result: Config) -> Run:
    """One run from its config.yaml and result.json. Raises `KeyError` where it has no score of its monitor."""
    monitor = config.get("monitor") or {}
    name = str(monitor.get("name"))
    metrics = result.get("metrics") or {}
    if name not in metrics:
        raise KeyError(f"it has no score {name}")
    parts = {key: node for key, node in (config.get("distill") or {}).items() if node}
    weights = [f"{node['weight']:g}" for node in parts.values()]
    setting: Config = stated({key: config.get(key) for key in SETTINGS})
    for key in ("measure", "cache"):  # what is learned does not depend on it
        setting.get("distillation", {}).pop(key, None)
    if "data" in setting:
        setting["data"] = without_turn(setting["data"])
    last, best = score_of(metrics[name]), score_of(result.get("best"))
    return Run(
        folder=folder,
        method=" + ".join(parts) or ALONE,
        weight=" + ".join(weights) or "-",
        seed=int(config.get("seed", 0)),
        options=stated(
            {name: {k: v for k, v in node.items() if k != "weight"} for name, node in parts.items()}
        ),
        setting=setting,
        monitor=name,
        sign=-1.0 if monitor.get("mode") == "min" else 1.0,
        last=last,
        best=last if best is None else best,
        teacher=score_of(result.get("teacher_score")),
        epoch_seconds=score_of(result.get("epoch_seconds")),
        peak_bytes=score_of(result.get("peak_memory_bytes")),
        parameters=score_of(result.get("parameters")),
        task=str((config.get("task") or {}).get("_target_", "")).rpartition(".")[2],
        name=str(config.get("name") or ""),
        chance=chance(config, name),
        fold=fold_of(config.get("data")),
    )


def fold_of(data: Any) -> int | None:
    fold = data.get("fold") if isinstance(data, Mapping) else None
    return fold if type(fold) is int else None


def without_turn(data: Config) -> Config:
    """A data node without what differs between the runs of one setting: the seed, and which fold is held back."""
    left_out = ("seed", "fold") if fold_of(data) is not None else ("seed", "fold", "folds")
    return {key: value for key, value in data.items() if key not in left_out}


def score_of(value: Any) -> float | None:
    """A number, or None for null and for one that is not finite. Raises `TypeError` for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"found {value!r}, expected a number")
    return float(value) if math.isfinite(value) else None


def chance(config: Config, monitor: str) -> float | None:
    """What guessing gives: one in the number of classes for accuracies; None for other scores."""
    data = config.get("data") or {}
    classes = data.get("classes") if isinstance(data, Mapping) else None
    known = monitor.rpartition("/")[2] in ACCURACIES and type(classes) is int and classes > 1
    return 1.0 / classes if known else None  # type: ignore[operator]


def stated(node: Any) -> Any:
    """A config node without null values, so that runs made before an option existed compare equal to later ones."""
    if not isinstance(node, Mapping):
        return node
    return {key: stated(value) for key, value in node.items() if value is not None}


def same_for_all(run: Run) -> Config:
    """The part of a run's setting that a student trained alone shares with a distilled one: no teacher, no distillation."""
    return {key: value for key, value in run.setting.items() if key not in ("teacher", "distillation")}


def key_of(node: Any) -> str:
    return json.dumps(node, sort_keys=True, default=str)
