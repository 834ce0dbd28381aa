"""`python -m dvsn.data check`: every split of a data set, file by file, and everything that is wrong with it."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from dvsn.atomic import write_json
from dvsn.data.dataset import split_parts
from dvsn.data.module import DataModule
from dvsn.data_tools.findings import Finding, counted
from dvsn.data_tools.walk import Tally, Walk, choose_kind, label_of, open_split, walk
from dvsn.engine import trainer as runtime
from dvsn.errors import DataError, MissingError
from dvsn.geometry.mirrors import lacking_pairs

log = logging.getLogger("dvsn")
Config = dict[str, Any]

SHOWN = 5  # findings of a kind on the screen, and files of a finding


class Report(NamedTuple):
    """What a walk over all splits found. `names` are the classes, none where the target is a picture."""

    names: tuple[str, ...]
    splits: dict[str, Tally]
    """By title: train, val, test, or "val + test" where both are one."""
    faults: list[Finding]
    notes: list[Finding]
    keypoints: tuple[str, ...] = ()
    """Their names, where the data set is one of people."""
    part: ModuleType | None = None
    """What looks at this kind of samples beside their pictures (see `part_of`)."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "classes": list(self.names),
            "splits": {
                title: _plain(tally, len(self.names)) | tally.plain(self.keypoints)
                for title, tally in self.splits.items()
            },
            "faults": [finding._asdict() for finding in self.faults],
            "notes": [finding._asdict() for finding in self.notes],
        }


def check(config: Config) -> Report:
    """Walks all splits of a resolved, plain config. Raises for wrong options only."""
    data = runtime.build_data(config)
    choose_kind(data, config)
    data.prepare_data()
    data.measure_bands(skip=True)
    part = part_of(data.wanted)
    splits: dict[str, Tally] = {}
    faults: list[Finding] = []
    notes: list[Finding] = []
    names: tuple[str, ...] = ()
    limit, workers = config.get("limit"), int(config.get("workers", 0))
    for title, split in titles(data).items():
        try:
            dataset = open_split(data, split)
        except (DataError, OSError) as error:
            if is_absent_test(data, title, error):
                notes.append(Finding("no test split", title, "it is not there; evaluate with split=val"))
                continue
            faults.append(
                Finding("split not readable", title, f"{error}\nNothing else of this split was checked.")
            )
            continue
        if not len(dataset):
            splits[title] = Tally()
            faults.append(Finding("empty split", title, f"the split '{split}' holds no sample"))
            continue
        label = label_of(data, dataset)
        names = class_names(data) if label else names
        walker: Any
        if part is None:
            walker = Walk(dataset, label=label, classes=data.classes)
            splits[title] = Tally(samples=len(walker))
        else:
            walker, splits[title] = part.start(dataset)
            notes += part.left_out(dataset, title)
        for record in walk(walker, title=title, workers=workers, limit=limit):
            splits[title].add(record)
    faults += [finding for title, tally in splits.items() for finding in broken(title, tally)]
    faults += list(leaks(data, splits))
    absent = [*absent_from_train(names, splits), *nowhere(names, splits)]
    faults += list(beyond_range(data, splits))
    faults += list(unpaired_classes(data, names))
    if part is not None:
        faults += part.faults(splits, data)
        notes += part.notes(splits, data)
    partial = any(tally.walked < tally.samples for tally in splits.values())
    partial = partial or data.check_classes != "refuse"  # then training does not mind either
    notes += [*(absent if partial else ()), *curious(names, splits), *deep_pictures(data, splits)]
    known = data.keypoints.names if data.wanted == "people" and data.keypoints else ()
    return Report(names, splits, merged(faults + ([] if partial else absent)), notes, known, part)


def part_of(wanted: str) -> ModuleType | None:
    """`dvsn/data_tools/check_WANTED.py`, for instance check_people: what there is to see in a kind of samples. None where
    there is no such file: then pictures and labels are all.

    It has `start(dataset)`, a `Dataset` of records and the `Tally` that they are added to; the findings `left_out(dataset,
    title)`, `faults(splits, data)` and `notes(splits, data)`; and `table(splits, keypoints)` for the screen.
    """
    name = f"dvsn.data_tools.check_{wanted}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def is_absent_test(data: DataModule, title: str, error: Exception) -> bool:
    """Whether a split that could not be opened is a test split that the data set simply does not have."""
    if title != "test" or not isinstance(error, MissingError):
        return False
    return (
        Path(data.root).is_dir() and error.path != Path(data.root) and data.splits["test"] in error.path.stem
    )


def titles(data: DataModule) -> dict[str, str]:
    """The data set's own split names by title; roles that share a split are walked once, and joined ones apart."""
    roles: dict[str, list[str]] = {}
    for role, split in data.splits.items():
        for part in split.split("+"):
            roles.setdefault(part, []).append(role)
    return {" + ".join(each): split for split, each in roles.items()}


def class_names(data: DataModule) -> tuple[str, ...]:
    vocabulary = data.vocabulary
    return vocabulary.names if vocabulary else tuple(f"class {number}" for number in range(data.classes))


def broken(title: str, tally: Tally) -> Iterator[Finding]:
    """Items that cannot be read or that teach nothing. Unknown ids are gathered by value."""
    for record in tally.faulty:
        if record.kind != "unknown ids":
            yield Finding(record.kind, title, record.message, (record.files,))
    messages = {record.files: record.message for record in tally.faulty}
    for value, files in sorted(tally.unknown.items()):
        yield Finding(
            "unknown ids",
            title,
            f"id {value} on {sum(files.values())} pixels of {counted(len(files), 'file')}. {messages[next(iter(files))]}",
            tuple(files),
        )
    if tally.blank:
        message = f"every pixel is ignored in {counted(len(tally.blank), 'file')}"
        yield Finding("label without a class", title, message, tuple(tally.blank))


def leaks(data: DataModule, splits: dict[str, Tally]) -> Iterator[Finding]:
    """Pictures that are in two splits, by their pixels."""
    train = split_parts(data.splits["train"]) if "train" in data.splits else []
    for role, split in data.splits.items():
        for name, begin, end in split_parts(split):
            shared = any(name == other and begin < last and first < end for other, first, last in train)
            if role != "train" and shared:
                yield Finding("split used twice", f"train and {role}", f"both are the split '{name}'")
    for (one, tally), (two, again) in itertools.combinations(splits.items(), 2):
        for content in tally.digests.keys() & again.digests.keys():
            files = [each.names[each.digests[content][0]] for each in (tally, again)]
            yield Finding("picture in two splits", f"{one} and {two}", "the same pixels", tuple(files))


def absent_from_train(names: tuple[str, ...], splits: dict[str, Tally]) -> Iterator[Finding]:
    """Classes that are asked for although nothing can be learnt of them."""
    parts = [tally for title, tally in splits.items() if "train" in title.split(" + ")]
    walked, samples = sum(each.walked for each in parts), sum(each.samples for each in parts)
    if not walked:
        return
    faulty, pixels = sum(len(each.faulty) for each in parts), np.sum([each.pixels for each in parts], axis=0)
    skipped = f" ({counted(faulty, 'sample')} could not be read)" if faulty else ""
    among = f" among the first {walked} samples" if walked < samples else ""
    for number, name in enumerate(names):
        others = {title: tally.pixels[number] for title, tally in splits.items() if tally.pixels[number]}
        if others and not pixels[number]:
            elsewhere = ", ".join(f"{pixels} in {title}" for title, pixels in others.items())
            message = f"{number} {name}: no pixel in train{among}{skipped}, but {elsewhere}"
            yield Finding("class not in train", "train", message)


def seen_nowhere(names: tuple[str, ...], splits: dict[str, Tally]) -> set[int]:
    return {number for number in range(len(names)) if not any(t.pixels[number] for t in splits.values())}


def nowhere(names: tuple[str, ...], splits: dict[str, Tally]) -> Iterator[Finding]:
    """Classes that no label of any split holds: they leave the mean, so that scores look better than they are."""
    missing = seen_nowhere(names, splits)
    if not missing or not any(tally.pixels.any() for tally in splits.values()):
        return
    ignored = sum(int(tally.pixels[255]) for tally in splits.values())
    share = 100 * ignored / max(1, sum(int(tally.pixels.sum()) for tally in splits.values()))
    hint = f" {share:.1f} % of the pixels are ignored: is a class among them?" if ignored else ""
    message = f"no pixel of {_listed(names, missing)} in what was read.{hint}"
    yield Finding("class nowhere", ", ".join(splits), message)


def unpaired_classes(data: DataModule, names: tuple[str, ...]) -> Iterator[Finding]:
    """Classes of a left and a right that a mirror does not exchange."""
    vocabulary = data.vocabulary
    pairs = lacking_pairs(names, vocabulary.swaps) if vocabulary and names else []
    if pairs:
        listed = ",".join(f"[{one},{other}]" for one, other in pairs)
        message = f"a mirrored picture shows the one as the other: {listed}. Add to data.dataset.swaps."
        yield Finding("class without its mirror", ", ".join(data.splits), message)


def deep_pictures(data: DataModule, splits: dict[str, Tally]) -> Iterator[Finding]:
    """How much of 16 bits the photos use, and what becomes of it."""
    for title, tally in splits.items():
        if tally.deep:
            highest = max(tally.deep.values())
            ends = data.rule.deep_range or (0, (1 << max(8, highest.bit_length())) - 1)
            known = (
                "data.deep_range"
                if data.rule.deep_range
                else "training measures it, and sets data.deep_range"
            )
            message = (
                f"{counted(len(tally.deep), 'file')}, the highest value {highest}; {ends[0]} to {ends[1]} becomes 0 to 255 "
                f"({known}={list(ends)})"
            )
            yield Finding("16 bits a channel", title, message, tuple(tally.deep))


def beyond_range(data: DataModule, splits: dict[str, Tally]) -> Iterator[Finding]:
    """Photos that use more of their 16 bits than the range that is stated."""
    if data.rule.deep_range is None:
        return
    top = data.rule.deep_range[1]
    for title, tally in splits.items():
        files = {file: value for file, value in tally.deep.items() if value > top}
        if files:
            message = f"values up to {max(files.values())} in {counted(len(files), 'file')}, data.deep_range ends at {top}"
            yield Finding("16 bits beyond the range", title, message, tuple(files))


def curious(names: tuple[str, ...], splits: dict[str, Tally]) -> Iterator[Finding]:
    """What may well be meant so."""
    absent = seen_nowhere(names, splits)
    for title, tally in splits.items():
        for same in tally.digests.values():
            if len(same) > 1:
                files = tuple(tally.names[name] for name in same)
                yield Finding("picture twice", title, f"the same pixels in {len(same)} samples", files)
        if tally.turned:
            message = (
                f"EXIF says turned, in {counted(len(tally.turned), 'file')}; read as stored, as is the label (only "
                "dvsn.predict turns pictures upright)"
            )
            yield Finding("turned photo", title, message, tuple(tally.turned))
        missing = {number for number in range(len(names)) if not tally.pixels[number]} - absent
        if missing and "train" not in title.split(" + ") and tally.walked == tally.samples:
            yield Finding("class not scored", title, f"no pixel of {_listed(names, missing)}")


def merged(findings: list[Finding]) -> list[Finding]:
    """Findings in order; those that say the same of several splits, such as a missing root, become one."""
    found: dict[Finding, list[str]] = {}
    for finding in findings:
        found.setdefault(finding._replace(split=""), []).append(finding.split)
    return [finding._replace(split=", ".join(where)) for finding, where in found.items()]


def _plain(tally: Tally, classes: int) -> dict[str, Any]:
    content: dict[str, Any] = {
        "samples": tally.samples,
        "checked": tally.walked,
        "faulty": len(tally.faulty),
        "sizes": {f"{height}x{width}": count for (height, width), count in tally.sizes.most_common()},
    }
    if not classes:
        return content
    total = max(1, int(tally.pixels.sum()))
    return content | {
        "pixels": tally.pixels[:classes].tolist(),
        "shares": [count / total for count in tally.pixels[:classes].tolist()],
        "images": tally.images[:classes].tolist(),
        "ignored_pixels": int(tally.pixels[255]),
        "unknown_ids": {str(value): files for value, files in sorted(tally.unknown.items())},
    }


def _listed(names: tuple[str, ...], numbers: set[int]) -> str:
    return ", ".join(f"{number} {names[number]}" for number in sorted(numbers))


# On the screen -------------------------------------------------------------------------------------------


def show(report: Report) -> None:
    """Two tables, then the findings by kind; of many of a kind the first few, and how many more there are."""
    console = Console()
    what = "samples" if report.part is None else "pictures"
    table = Table("split", title=what, title_justify="left")
    for column in (what, "checked", "faulty"):
        table.add_column(column, justify="right")
    table.add_column("height x width")
    for title, tally in report.splits.items():
        sizes = [f"{count} of {height}x{width}" for (height, width), count in tally.sizes.most_common()]
        more = f", {len(sizes) - SHOWN} more sizes" if len(sizes) > SHOWN else ""
        table.add_row(
            title,
            *map(str, (tally.samples, tally.walked, len(tally.faulty))),
            ", ".join(sizes[:SHOWN]) + more,
        )
    console.print(table)
    if report.names:
        console.print(class_table(report))
    if report.part is not None:
        console.print(report.part.table(report.splits, report.keypoints))
    for heading, findings in (("FAULT", report.faults), ("note", report.notes)):
        for kind, group in itertools.groupby(
            sorted(findings, key=lambda each: each.kind), lambda each: each.kind
        ):
            for line in lines(heading, kind, list(group)):
                console.print(line, soft_wrap=True, markup=False, highlight=False)


def class_table(report: Report) -> Any:
    """The share of each class in each split, in percent of all pixels."""
    table = Table("id", "class", title="pixels in % of all", title_justify="left")
    for title in report.splits:
        table.add_column(title, justify="right")
    rows = [(str(number), name, number) for number, name in enumerate(report.names)] + [("", "ignored", 255)]
    for label, name, number in rows:
        shares = []
        for tally in report.splits.values():
            total = int(tally.pixels.sum())
            shares.append(f"{100 * tally.pixels[number] / total:.2f}" if tally.pixels[number] else "-")
        table.add_row(label, name, *shares)
    return table


def lines(heading: str, kind: str, findings: list[Finding]) -> Iterator[str]:
    yield f"{heading}  {kind} ({len(findings)})"
    for finding in findings[:SHOWN]:
        yield f"  {finding.split}: {finding.message}"
        for file in finding.files[:SHOWN]:
            if file not in finding.message:
                yield f"    {file}"
        if len(finding.files) > SHOWN:
            yield f"    and {len(finding.files) - SHOWN} more files"
    if len(findings) > SHOWN:
        yield f"  and {len(findings) - SHOWN} more of this kind"


def job(config: Config) -> None:
    report = check(config)
    show(report)
    output = config["output"]
    if output:
        write_json(Path(output), report.plain())
        log.info("%s", output)
    if report.faults:
        where = f"all are in {output}" if output else "output=report.json writes them all, file by file"
        raise DataError(f"{config['data']['root']}: {counted(len(report.faults), 'fault')}; {where}.")
    log.info("no fault%s", f", {counted(len(report.notes), 'note')}" if report.notes else "")
