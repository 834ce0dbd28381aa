"""Latencies of runs, from the file that `python -m dvsn.benchmark RUNS... output=FILE.json` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvsn.errors import DataError
from dvsn.reading import entries, read_json, shown, to_number, to_text
from dvsn.report.runs import Run

EXPECTED = "what python -m dvsn.benchmark RUNS... output=FILE.json writes"
VARIANT = "plain"
"""The row of a checkpoint that counts: eager, in float32, as every checkpoint has it."""


def give(runs: Sequence[Run], file: Path) -> list[str]:
    """Set `latency` of the runs that the file names, by their folders; returns notes about those that it does not fit.

    Raises `DataError` for a file that is none of a benchmark, naming the place in it.
    """
    known = read(file)
    folders = [run.folder.resolve().name for run in runs]
    notes = []
    for name, milliseconds in known.items():
        fitting = [run for run, folder in zip(runs, folders, strict=True) if folder == name]
        if len(fitting) == 1:
            fitting[0].latency = milliseconds
        else:
            said = "no run here is called so" if not fitting else f"{len(fitting)} runs here are called so"
            notes.append(f"{file}: {name}: {said}; its latency was left out.")
    if not known:
        notes.append(f"{file}: names no checkpoint of a run, so no latency is known.")
    return notes


def read(file: Path) -> dict[str, float]:
    """Milliseconds of a picture (median) by the name of a run's folder."""
    content = read_json(file, expected=EXPECTED)
    if not isinstance(content, dict):
        raise DataError(f"{file}: found {shown(content)}, expected {EXPECTED}.")
    found = {}
    for number, group in enumerate(entries(content, "groups", file)):
        batch = to_number(group.get("batch", 1), f"{file}: groups[{number}].batch")
        for place, row in enumerate(entries(group, "rows", f"{file}: groups[{number}]")):
            where = f"{file}: groups[{number}].rows[{place}]"
            folder, slash, _ = to_text(row.get("name"), f"{where}.name").partition("/")
            times = row.get("milliseconds")
            if row.get("variant") == VARIANT and slash and isinstance(times, dict):
                median = to_number(times.get("median"), f"{where}.milliseconds.median")
                found[folder] = median / max(1.0, batch)
    return found
