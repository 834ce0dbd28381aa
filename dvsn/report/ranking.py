"""The runs of a sweep by setting and method: comparable ones in a section, ranked by score, with gain and doubt."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dvsn.report.collapsed import judged
from dvsn.report.naming import differing, labels, titled
from dvsn.report.paired import Comparison, Turn, compare
from dvsn.report.runs import ALONE, Run, key_of, same_for_all

SHARES = frozenset(
    ("top1", "top5", "accuracy", "miou", "dice", "pck", "pckh", "ap", "ap50", "map", "map_50", "ar")
)
UNITS = {
    "psnr": "dB",
    "nme": "share of the reference distance",
    "l1": "share of the range of colours",
    "angle_error_degrees": "degrees",
}


@dataclass(frozen=True)
class Spread:
    """A mean, and the standard deviation of a sample (n - 1), None for a single value."""

    mean: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Dot:
    """The last score of one run."""

    seed: int
    score: float | None
    collapsed: str = ""
    folder: str = ""
    fold: int = -1
    """-1 where the run has none."""

    @property
    def name(self) -> str:
        return f"seed {self.seed}" + ("" if self.fold < 0 else f", fold {self.fold}")


@dataclass
class Row:
    """The runs of one method in one setting."""

    method: str
    weight: str
    seeds: int
    last: Spread
    best: Spread
    epoch_seconds: float | None = None
    peak_bytes: float | None = None
    parameters: float | None = None
    latency: float | None = None
    dots: tuple[Dot, ...] = ()
    """Empty where only mean and deviation were kept."""
    collapsed: int = 0
    alone: bool = False
    """Whether it is the student without a teacher, with which the others are compared."""
    gain: float | None = None
    """Of the mean last score over the student alone; positive is better."""
    share: float | None = None
    """Of the gap between the student alone and its teacher."""
    comparison: Comparison | None = None
    """With the student alone, or with the first row where no method of distillation is compared."""
    runs: tuple[Run, ...] = ()


@dataclass
class Section:
    """Comparable runs, the best row first."""

    title: str
    monitor: str
    sign: float
    teacher: float | None
    rows: list[Row]
    task: str = ""
    arena: int = 0
    """Sections with the same number have the same task, score and data, so that their scores lie on one axis."""
    reference: str = ALONE
    """The name of the row that the others are compared with; empty for none."""
    notes: list[str] = field(default_factory=list)

    @property
    def alone(self) -> float | None:
        """The mean score of the student alone."""
        return next((row.last.mean for row in self.rows if row.alone), None)


def unit(monitor: str) -> str:
    """The unit of a score as far as its name says it; empty where it does not."""
    name = monitor.rpartition("/")[2].lower()
    if name in UNITS:
        return UNITS[name]
    return "share, 0 to 1" if name in SHARES else ""


# Sections -------------------------------------------------------------------------------------------------


def sections(runs: Sequence[Run], *, teacher: float | None = None) -> list[Section]:
    """The runs by task, score and data, and among these by setting.

    Students alone count in every section that differs from theirs only in the teacher. Where no run is distilled, the
    settings themselves are compared, a row each. The best setting comes first. `teacher` is the teacher's score where the
    runs do not know it.
    """
    arenas: dict[str, list[Run]] = {}
    for run in runs:
        arenas.setdefault(arena_of(run), []).append(run)
    names = arena_titles(list(arenas.values()))
    found = []
    for number, (name, members) in enumerate(zip(names, arenas.values(), strict=True)):
        made = distilled(members, teacher) if any(r.method != ALONE for r in members) else [plain(members)]
        for each in made:
            each.arena, each.title = number, ", ".join(part for part in (name, each.title) if part)
        found += sorted(made, key=lambda each: place_of(each.rows[0], each.sign))
    return found


def arena_of(run: Run) -> str:
    """What must be equal for scores to lie on one axis: the task, the score, and the data it is measured on."""
    data = run.setting.get("data")
    data = data if isinstance(data, Mapping) else {}
    measured_on = {key: data.get(key) for key in ("root", "dataset", "splits", "split_seed", "folds")}
    return key_of([run.task, run.monitor, run.sign, measured_on])


def arena_titles(arenas: Sequence[Sequence[Run]]) -> list[str]:
    """What tells arenas of the same task and score apart: their data. Empty where task or score do."""
    firsts = [members[0] for members in arenas]
    found = []
    for first in firsts:
        twins = [each for each in firsts if (each.task, each.monitor) == (first.task, first.monitor)]
        data = [{"data": each.setting.get("data")} for each in twins]
        found.append(titled(data)[twins.index(first)] if len(twins) > 1 else "")
    return found


def distilled(runs: Sequence[Run], teacher: float | None) -> list[Section]:
    """A section for each setting of distillation, and for each of students alone that is compared with none."""
    taught = [run for run in runs if run.method != ALONE]
    alone = [run for run in runs if run.method == ALONE]
    groups: dict[str, list[Run]] = {}
    for run in taught:
        groups.setdefault(key_of(run.setting), []).append(run)
    bare = {key_of(same_for_all(run)) for run in taught}
    for run in alone:
        key = key_of(same_for_all(run))
        if key not in bare:
            groups.setdefault(key, []).append(run)
    titles = titled([members[0].setting for members in groups.values()])
    found = []
    for title, members in zip(titles, groups.values(), strict=True):
        if members[0].method != ALONE:
            members = [*members, *(run for run in alone if same_for_all(run) == same_for_all(members[0]))]
        found.append(section(title, judged(members), teacher))
    return found


def section(title: str, runs: Sequence[Run], teacher: float | None) -> Section:
    """One setting: a row for each method, weight and options."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, run.weight, key_of(run.options)), []).append(run)
    rows = [row_of(members[0].method, members) for members in groups.values()]
    name_options(rows)
    known = [run.teacher for run in runs if run.teacher is not None]
    score = teacher if teacher is not None else statistics.fmean(known) if known else None
    sign, base = runs[0].sign, next((row for row in rows if row.runs[0].method == ALONE), None)
    if base is not None:
        base.alone = True
        for row in rows:
            if row is not base:
                add_gain(row, base, sign, score)
    made = Section(title, runs[0].monitor, sign, score, ranked(rows, sign), task=runs[0].task)
    made.reference = ALONE if base is not None else ""
    return made


def add_gain(row: Row, base: Row, sign: float, teacher: float | None) -> None:
    row.comparison = compare(scores(row), scores(base), sign=sign)
    if row.last.mean is None or base.last.mean is None:
        return
    row.gain = sign * (row.last.mean - base.last.mean)
    gap = None if teacher is None else sign * (teacher - base.last.mean)
    row.share = row.gain / gap if gap is not None and gap > 0 else None


def plain(runs: Sequence[Run]) -> Section:
    """Runs without distillation: a row for each setting, named by the options that tell it from the others."""
    groups: dict[str, list[Run]] = {}
    for run in judged(runs):
        groups.setdefault(key_of(run.setting), []).append(run)
    names = labels(list(groups.values()))
    rows = [row_of(name, members) for name, members in zip(names, groups.values(), strict=True)]
    sign = runs[0].sign
    rows = ranked(rows, sign)
    for row in rows[1:]:
        row.comparison = compare(scores(row), scores(rows[0]), sign=sign)
    made = Section("", runs[0].monitor, sign, None, rows, task=runs[0].task)
    made.reference = rows[0].method if len(rows) > 1 else ""
    return made


def ranked(rows: Sequence[Row], sign: float) -> list[Row]:
    """The best mean first; rows without a score at the end."""
    return sorted(rows, key=lambda row: place_of(row, sign))


def place_of(row: Row, sign: float) -> float:
    """By which rows are sorted."""
    return math.inf if row.last.mean is None else -sign * row.last.mean


def row_of(name: str, runs: Sequence[Run]) -> Row:
    return Row(
        method=name,
        weight=runs[0].weight,
        seeds=len(runs),
        last=spread([run.last for run in runs]),
        best=spread([run.best for run in runs]),
        epoch_seconds=spread([run.epoch_seconds for run in runs]).mean,
        peak_bytes=spread([run.peak_bytes for run in runs]).mean,
        parameters=spread([run.parameters for run in runs]).mean,
        latency=spread([run.latency for run in runs]).mean,
        dots=tuple(Dot(run.seed, run.last, run.collapsed, str(run.folder), run.turn[1]) for run in runs),
        collapsed=sum(bool(run.collapsed) for run in runs),
        runs=tuple(runs),
    )


def spread(values: Iterable[float | None]) -> Spread:
    """Of the values that are there."""
    known = [value for value in values if value is not None]
    if not known:
        return Spread()
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def scores(row: Row) -> list[tuple[Turn, float]]:
    return [((dot.seed, dot.fold), dot.score) for dot in row.dots if dot.score is not None]


def limits(section: Section, rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of an axis on which all that has not collapsed lies, with the student alone, the teacher and a margin."""
    sound = [dot.score for row in rows for dot in row.dots if dot.score is not None and not dot.collapsed]
    sound += [row.last.mean for row in rows if row.last.mean is not None and not row.collapsed]
    sound += [
        row.last.mean + side * row.last.deviation for row in rows for side in (-1, 1)
        if row.last.mean is not None and row.last.deviation is not None and not row.collapsed
    ]  # fmt: skip
    sound += [value for value in (section.teacher, section.alone) if value is not None]
    if not sound:
        sound = [row.last.mean for row in rows if row.last.mean is not None] or [0.0]
    low, high = min(sound), max(sound)
    margin = 0.06 * (high - low) or 0.01 * (abs(high) or 1.0)
    return low - margin, high + margin


def name_options(rows: Sequence[Row]) -> None:
    """Add to the names of rows of the same method and weight the options in which they differ: `dkd beta=2`."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.weight), []).append(row)
    for twins in groups.values():
        for row, own in zip(twins, differing([each.runs[0].options for each in twins]), strict=True):
            words = [f"{key.rpartition('.')[2]}={json.loads(value)}" for key, value in own.items()]
            row.method = " ".join([row.method, *words])
