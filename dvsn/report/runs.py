"""The runs of a sweep of distillation: read from their folders, grouped by setting and method, ranked by score."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.errors import DataError

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


@dataclass
class Run:
    """One finished run."""

    folder: Path
    method: str
    weight: str
    seed: int
    options: Config
    """Of the methods, what is not their weight."""
    setting: Config
    monitor: str
    sign: float
    """1 where more is better, -1 where less is."""
    last: float
    best: float
    teacher: float | None
    epoch_seconds: float | None
    peak_bytes: int | None
    parameters: int | None = None
    """Of the network as it is shipped."""


@dataclass
class Row:
    """The runs of one method in one setting."""

    method: str
    weight: str
    runs: list[Run] = field(default_factory=list)
    gain: float | None = None
    """Of the mean last score over the student alone; positive is better."""
    share: float | None = None
    """Of the gap between the student alone and its teacher."""

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def mean(self, name: str) -> float | None:
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return statistics.fmean(values) if values else None

    def deviation(self, name: str) -> float | None:
        """Standard deviation of a sample (n - 1); None for a single run."""
        values = [getattr(run, name) for run in self.runs]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass
class Section:
    """Comparable runs, the best method first."""

    title: str
    monitor: str
    teacher: float | None
    rows: list[Row]


def read_runs(folder: Path) -> tuple[list[Run], int]:
    """The finished runs below a folder, and how many began and have no result."""
    import yaml

    runs, open_ones = [], 0
    for file in sorted(folder.rglob("config.yaml")):
        if not (file.parent / "result.json").is_file():
            open_ones += 1
            continue
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
            result = json.loads((file.parent / "result.json").read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            raise DataError(
                f"{file.parent}: its config.yaml or result.json cannot be read: {error}"
            ) from error
        try:
            run = read_run(file.parent, config, result)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{file.parent}: its config.yaml or result.json is not as a run of dvsn leaves it: {error}. Restore both, "
                "or leave the folder out."
            ) from error
        if run is not None:
            runs.append(run)
    return runs, open_ones


def read_run(folder: Path, config: Config, result: Config) -> Run | None:
    """One run from its config.yaml and result.json; None where it has no score."""
    monitor = config.get("monitor") or {}
    name = str(monitor.get("name"))
    last, best = (result.get("metrics") or {}).get(name), result.get("best")
    if last is None or not math.isfinite(last):
        return None
    parts = {key: node for key, node in (config.get("distill") or {}).items() if node}
    weights = [f"{node['weight']:g}" for node in parts.values()]
    setting: Config = stated({key: config.get(key) for key in SETTINGS})
    for key in ("measure", "cache"):  # what is learned does not depend on it
        setting.get("distillation", {}).pop(key, None)
    if "data" in setting:
        setting["data"] = {key: value for key, value in setting["data"].items() if key != "seed"}
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
        last=float(last),
        best=float(last if best is None else best),
        teacher=result.get("teacher_score"),
        epoch_seconds=result.get("epoch_seconds"),
        peak_bytes=result.get("peak_memory_bytes"),
        parameters=result.get("parameters"),
    )


def stated(node: Any) -> Any:
    """A config node without null values, so that runs made before an option existed compare equal to later ones."""
    if not isinstance(node, Mapping):
        return node
    return {key: stated(value) for key, value in node.items() if value is not None}


def flat(node: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(node)


def same_for_all(run: Run) -> Config:
    """The part of a run's setting that a student trained alone shares with a distilled one: no teacher, no distillation."""
    return {key: value for key, value in run.setting.items() if key not in ("teacher", "distillation")}


def sections(runs: Sequence[Run], *, teacher: float | None = None) -> list[Section]:
    """The runs by setting and method. Students alone count in every section that differs from theirs only in the teacher."""
    taught = [run for run in runs if run.method != ALONE]
    alone = [run for run in runs if run.method == ALONE]
    groups: dict[str, list[Run]] = {}
    for run in taught:
        groups.setdefault(json.dumps(run.setting, sort_keys=True), []).append(run)
    bare = {json.dumps(same_for_all(run), sort_keys=True) for run in taught}
    for run in alone:
        key = json.dumps(same_for_all(run), sort_keys=True)
        if key not in bare:
            groups.setdefault(key, []).append(run)
    titles = titled([members[0] for members in groups.values()])
    found = []
    for title, members in zip(titles, groups.values(), strict=True):
        if members[0].method != ALONE:
            members = [*members, *(run for run in alone if same_for_all(run) == same_for_all(members[0]))]
        found.append(section(title, members, teacher))
    return found


def titled(firsts: Sequence[Run]) -> list[str]:
    """A title for each setting: `key=value` of the options in which the settings differ."""
    tables = [dict(flat(run.setting)) for run in firsts]
    keys = dict.fromkeys(key for table in tables for key in table)
    differ = [key for key in keys if len({table.get(key) for table in tables}) > 1]
    return [", ".join(f"{key}={table[key]}" for key in differ[:6] if key in table) for table in tables]


def name_options(rows: Sequence[Row]) -> None:
    """Add to the names of rows of the same method and weight the options in which they differ: `dkd beta=2`."""
    for row in rows:
        twins = [
            each for each in rows if (each.runs[0].method, each.weight) == (row.runs[0].method, row.weight)
        ]
        tables = [dict(flat(each.runs[0].options)) for each in twins]
        own = dict(flat(row.runs[0].options))
        keys = [key for key in own if len({table.get(key) for table in tables}) > 1]
        row.method = " ".join(
            [row.method, *(f"{key.rpartition('.')[2]}={json.loads(own[key])}" for key in keys)]
        )


def section(title: str, runs: Sequence[Run], teacher: float | None) -> Section:
    rows: dict[tuple[str, str, str], Row] = {}
    for run in runs:
        key = run.method, run.weight, json.dumps(run.options, sort_keys=True)
        rows.setdefault(key, Row(run.method, run.weight)).runs.append(run)
    name_options(list(rows.values()))
    sign = runs[0].sign
    known = [run.teacher for run in runs if run.teacher is not None]
    score = teacher if teacher is not None else statistics.fmean(known) if known else None
    base = next((row.mean("last") for row in rows.values() if row.method == ALONE), None)
    for row in rows.values():
        last = row.mean("last")
        if base is None or last is None or row.method == ALONE:
            continue
        row.gain = sign * (last - base)
        gap = None if score is None else sign * (score - base)
        row.share = row.gain / gap if gap is not None and gap > 0 else None
    ranked = sorted(rows.values(), key=lambda row: -sign * (row.mean("last") or 0.0))
    return Section(title, runs[0].monitor, score, ranked)
