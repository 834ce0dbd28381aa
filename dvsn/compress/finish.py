"""Finalists as files: exported in full precision and in 8 bits, measured on val, and timed together, in turns."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dvsn.benchmark import compare
from dvsn.benchmark.named import read_named
from dvsn.benchmark.stopwatch import Stopwatch
from dvsn.compress import measure
from dvsn.compress.question import Question
from dvsn.config import python
from dvsn.errors import UserError
from dvsn.portable.measure import size_of
from dvsn.reading import read_json
from dvsn.sweep.job import reason

log = logging.getLogger("dvsn")
TEACHER = "teacher"
SECONDS, TURNS = 2.0, 5
CONFIG = {
    "images": None, "root": None, "size": None, "calibration": None, "calibration_pictures": 8, "rest": "f32",
}  # fmt: skip


@dataclass
class File:
    """An exported network."""

    name: str
    """Of the student with its precision, such as `pidnet_s.cwd.int8`."""
    path: Path
    precision: str
    student: str
    checkpoint: Path
    costs: dict[str, float | None] = field(default_factory=dict)
    """By the names of a budget, and `p50`, `p95`."""
    scores: dict[str, float] = field(default_factory=dict)
    """By split: the score that decides."""
    deviation: float | None = None
    """Of the training's seeds."""
    lines: list[str] = field(default_factory=list)
    """The commands that make it."""

    @property
    def is_teacher(self) -> bool:
        return self.student == TEACHER

    @property
    def latency(self) -> float:
        """Milliseconds, by the percentile of the budget."""
        return self.costs["latency"] or 0.0


def command(module: str, words: Sequence[str], log_file: Path) -> None:
    """Run `python -m MODULE`, its output in a file. Raises `UserError` with its last message; a signal ends it, too."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if code:
        said = log_file.read_text(encoding="utf-8", errors="replace")
        raise UserError(reason(said, code).removeprefix("error: "))


def export(
    question: Question, student: str, checkpoint: Path, measured: Mapping[str, Any], train: str
) -> list[File]:
    """The files of a network, by the back end that was the fastest in full precision, and the fastest in 8 bits. What is
    there is left; a file that the export refuses is missing, and the log says why."""
    found = []
    for int8 in (False, True):
        variant = measure.fastest(measured, question.budget, int8=int8)
        if variant is None:
            continue
        precision = measure.precision_of(variant)
        how = dict(part.split("=") for part in compare.as_export(variant).split())
        ending = ".onnx" if how["format"] == "onnx" else ".xml"
        name = f"{student}.{precision}"
        path = question.folder / "files" / f"{name}{ending}"
        words = [f"format={how['format']}", f"precision={precision}", *options_of_export(question, int8=int8)]
        line = ["python -m dvsn.export", word_of(checkpoint), *words, f"output={word_of(path)}"]
        file = File(
            name,
            path,
            precision,
            student,
            checkpoint,
            lines=[train, " ".join(line)] if train else [" ".join(line)],
        )
        times = measured["variants"][variant]
        file.costs = {
            **measure.costs_of(measured, variant, question.budget),
            "p50": times["p50"],
            "p95": times["p95"],
        }
        if not path.is_file():
            log.info("export  %s", name)
            try:
                command(
                    "dvsn.export", [str(checkpoint), *words, f"output={path}"], path.with_name(f"{name}.log")
                )
            except UserError as error:
                log.warning("export  %s: left out: %s", name, error)
                continue
        file.costs["size"] = float(size_of(path))
        found.append(file)
    return found


def options_of_export(question: Question, *, int8: bool) -> list[str]:
    options, found = question.options, [f"batch={question.options['batch']}"]
    if int8:
        if question.floor.drop is not None:
            found.append(f"drop={question.floor.drop:g}")
        found.append(f"scored={options['scored']}")
        if options["finetune"] is not None:
            found.append(f"finetune={options['finetune']}")
    return found


def word_of(path: Path) -> str:
    """A path as a word of a command line, for a shell too."""
    return python.spelt(str(path))


def evaluate(question: Question, name: str, path: Path, split: str) -> float | None:
    """The score of a checkpoint or a file on a split, kept in `scores/NAME/SPLIT`; None where it cannot be measured, such as
    on a split that the data set has not, and the log says why."""
    output = question.folder / "scores" / name / split
    file = output / "metrics.json"
    if not file.is_file():
        words = [f"checkpoint={word_of(path)}", f"split={split}", f"output={word_of(output)}"]
        own = (
            [f"root={question.root}"] if name.startswith(f"{TEACHER}.") and question.root is not None else []
        )
        try:
            command("dvsn.evaluate", [*question.flags, *words, *own, "trainer.enable_progress_bar=false"],
                    output.with_name(f"{split}.log"))  # fmt: skip
        except UserError as error:
            log.warning("score  %s on %s: %s", name, split, error)
            return None
    value = read_json(file)["metrics"].get(question.score)
    return None if value is None else float(value)


def clock(question: Question, files: Sequence[File]) -> None:
    """Time the files in turns, on real pictures where the data set is there, and put p50 and p95 into their costs. With a
    table of another machine they are those of its rows, which `export` has put there."""
    if question.device is not None:
        return
    threads = torch.get_num_threads()
    watches = []
    for file in files:
        named = read_named(str(file.path), threads=threads)
        subject = compare.Subject(named, {**CONFIG, "batch": question.options["batch"]}, torch.device("cpu"))
        built = compare.of_file(named, subject)
        watches.append(Stopwatch(built.run, subject.source.image, seconds=SECONDS, runs=None, turns=TURNS))  # type: ignore[arg-type]
    for _ in range(TURNS):
        for watch in watches:
            watch.turn()
    for file, watch in zip(files, watches, strict=True):
        times = watch.latency()
        file.costs |= {"p50": times.median, "p95": times.p95}
        file.costs["latency"] = times.p95 if question.budget.percentile == 95 else times.median
