"""A job of a sweep: its overrides, folder, result and error; and the summary of all jobs."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Job:
    """A finished job of a sweep."""

    number: int
    overrides: list[str]
    folder: Path
    code: int
    seconds: float
    result: float | None
    error: str


def filtered(overrides: Sequence[str]) -> list[str]:
    """The overrides without those of Hydra's own node."""
    return [each for each in overrides if not each.startswith("hydra.")]


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides that tell one job from another, sorted: without those of Hydra's node and of the node `sweep`."""
    own = filtered(overrides)
    return sorted(each for each in own if not each.lstrip("+").startswith("sweep."))


def find_place(folder: Path, number: int, overrides: Sequence[str]) -> Path:
    """The folder of a job in a repeated sweep.

    That of an earlier job with the same overrides; else the folder named `number`; else the next number that is free.
    """
    wanted = own_overrides(overrides)
    for file in sorted(folder.glob("*/job.json")):
        with suppress(OSError, ValueError):
            if json.loads(file.read_text(encoding="utf-8")).get("overrides") == wanted:
                return file.parent
    taken = {item.name for item in folder.glob("*")}
    while str(number) in taken:
        number += 1
    return folder / str(number)


def read_result(file: Path) -> float | None:
    """The number in a result.json that a sweeper gets: "objective", or else "score". None where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key in ("objective", "score"):
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def reason(tail: str, code: int) -> str:
    """Why a job failed: its last message, else its last lines."""
    lines = [line.strip() for line in tail.replace("\r", "\n").splitlines() if line.strip()]
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith(("error: ", "internal error: ", "interrupted", "stopped by")):
            return lines[i]
    ended = f"ended by signal {signal.Signals(-code).name}" if code < 0 else ""
    return " | ".join(filter(None, [ended, *lines[-3:]])) or f"no output, exit code {code}"


def summary(jobs: Sequence[Job]) -> str:
    """A line per job: number, state, seconds, result, overrides, and the error of a failed one."""
    good = sum(job.code == 0 for job in jobs)
    lines = [f"[sweep] {good} of {len(jobs)} jobs finished"]
    for job in jobs:
        state = "finished" if job.code == 0 else f"FAILED ({job.code})"
        result = "-" if job.result is None or math.isnan(job.result) else f"{job.result:.6g}"
        words = [*job.overrides, job.error[:160]]
        lines.append(
            f"  {job.number:>3}  {state:<12} {job.seconds:7.1f} s  {result:>10}  {' '.join(words).rstrip()}"
        )
    if jobs:
        lines.append(f"  results: {jobs[0].folder.parent}")
    return "\n".join(lines) + "\n"
