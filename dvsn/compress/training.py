"""Trainings of students: a short one that times them, and the rungs of successive halving."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvsn.compress import halving
from dvsn.compress.candidates import ALONE
from dvsn.compress.halving import Rung, Trained
from dvsn.compress.question import Question, listed
from dvsn.errors import UserError
from dvsn.reading import read_json
from dvsn.sweep.job import Job, read_result
from dvsn.sweep.pool import Pool

log = logging.getLogger("dvsn")
PROBE = (6, 2)
"""Batches of training and of validation in the training that times a candidate."""
VALIDATION = 1 / 3
"""What a batch of validation takes of one of training: it has no backward pass."""


@dataclass(frozen=True)
class Student:
    """A candidate and how it is taught."""

    candidate: str
    method: str
    start: bool = False
    """From the teacher's layers, where shapes agree."""

    @property
    def name(self) -> str:
        return f"{self.candidate}.{self.method}{'.from_teacher' if self.start else ''}"

    def folder(self, question: Question, epochs: int, seed: int) -> Path:
        return question.folder / "students" / f"{self.name}_{epochs}_epochs_seed_{seed}"


def students(question: Question, candidates: Sequence[str]) -> list[Student]:
    """Each candidate with each method, from each start that there is."""
    wanted = listed(question.options["starts"]) or ["random", "teacher"]
    found = []
    for name in candidates:
        ways = [False] if "random" in wanted or name not in question.starts else []
        ways += [True] if name in question.starts else []
        found += [Student(name, method, way) for method in question.menu.methods for way in ways]
    return found


def better_starts(order: Sequence[Student]) -> list[Student]:
    """Of students that differ by their start alone the better one; `order` has the best first."""
    found: dict[tuple[str, str], Student] = {}
    for each in order:
        found.setdefault((each.candidate, each.method), each)
    return list(found.values())


EVERY_EPOCH = "trainer.check_val_every_n_epoch=1"
"""Added to trainings whose line says nothing of it: long recipes validate more seldom than a first rung ends."""


def words_of(question: Question, student: Student, *, epochs: int, seed: int) -> list[str]:
    """The options of a training as they are typed."""
    shared = question.student_words(student.candidate, student.method, start=student.start)
    key = EVERY_EPOCH.partition("=")[0]
    often = [] if any(word.startswith(f"{key}=") for word in shared) else [EVERY_EPOCH]
    return [*shared, f"seed={seed}", f"trainer.max_epochs={epochs}", *often]


def run(question: Question, jobs: Mapping[Path, Sequence[str]], lock: int) -> dict[Path, Job]:
    """Train in folders, so many at a time as `jobs` says; one that was stopped goes on, one that has ended is left. Returns
    the jobs that were started, once they have ended."""
    waiting = [folder for folder in jobs if read_result(folder / "result.json") is None]
    command = [sys.executable, "-m", "dvsn.train", *question.flags]
    ended: dict[Path, Job] = {}
    with Pool(
        question.options["jobs"], what="compress", unit="training", group=question.folder.name, files=[lock]
    ) as pool:
        while waiting or pool.running:
            while waiting and not pool.full:
                folder = waiting.pop(0)
                again = any((folder / "checkpoints").glob("*.ckpt"))
                if not again:
                    (folder / "metrics.csv").unlink(missing_ok=True)
                resume = ["resume=auto"] if again else []
                pool.start(
                    len(ended) + len(pool.running),
                    list(jobs[folder]),
                    folder,
                    [*command, *resume],
                    again=again,
                )
            for process in pool.wait():
                ended[process.folder] = process.job()
    return ended


# How long an epoch takes --------------------------------------------------------------------------------


def epoch_seconds(question: Question, batches: Mapping[str, tuple[int, int]], lock: int) -> float:
    """About how long an epoch takes with a teacher, the mean of the candidates: each is trained on a few batches, in
    `probe/NAME`. `batches`: of train and val by candidate. Raises `UserError` where one cannot be trained."""
    method = next((name for name in question.menu.methods if name != ALONE), ALONE)
    train, val = PROBE
    jobs = {}
    for name in batches:
        words = words_of(question, Student(name, method), epochs=1, seed=question.options["seed"])
        limits = [f"trainer.limit_train_batches={train}", f"trainer.limit_val_batches={val}"]
        jobs[question.folder / "probe" / name] = [*words, *limits, "callbacks=none", "logger=none"]
    for folder, job in run(question, jobs, lock).items():
        if job.code:
            raise UserError(
                f"candidates.{folder.name}: it cannot be trained: {job.error.removeprefix('error: ')}"
            )
    found = []
    for name, (in_epoch, in_val) in batches.items():
        spent = float(read_json(question.folder / "probe" / name / "result.json")["epoch_seconds"])
        had = min(train, in_epoch) + VALIDATION * min(val, in_val)
        found.append(spent * (in_epoch + VALIDATION * in_val) / had)
    return sum(found) / len(found)


def plan(question: Question, count: int, epoch: float) -> list[Rung]:
    """The rungs of so many students: by `epochs` where they are given, else by the hours. Raises `ConfigError` for hours
    that are too few."""
    options = question.options
    shape = {
        "count": options["rungs"],
        "keep": options["keep"],
        "finalists": min(options["finalists"], count),
    }
    if options["epochs"] is not None:
        return halving.rungs(count, epochs=options["epochs"], **shape)
    return halving.affordable(count, hours=options["hours"], epoch=epoch, seeds=options["seeds"], **shape)


# Rungs ---------------------------------------------------------------------------------------------------


def halve(
    question: Question,
    rungs: Sequence[Rung],
    chosen: Sequence[Student],
    latencies: Mapping[str, float],
    lock: int,
) -> tuple[list[Student], list[dict[str, Any]]]:
    """Train by rungs; returns the finalists, the best first, and a row for each training. A student whose training failed,
    or has no finite score, is out, and its row says why. Raises `UserError` where all of a rung have failed."""
    left, rows = list(chosen), []
    seed = question.options["seed"]
    for number, rung in enumerate(rungs, 1):
        left = left[: rung.students]
        last = number == len(rungs)
        seeds = range(seed, seed + (question.options["seeds"] if last else 1))
        log.info("rung %d of %d: %d students, %d epochs", number, len(rungs), len(left), rung.epochs)
        jobs = {
            student.folder(question, rung.epochs, each): words_of(
                question, student, epochs=rung.epochs, seed=each
            )
            for student in left
            for each in seeds
        }
        ended = run(question, jobs, lock)
        scores: dict[str, float | None] = {}
        for student in left:
            found = []
            for each in seeds:
                folder = student.folder(question, rung.epochs, each)
                row = row_of(question, student, rung, number, each, folder, ended.get(folder))
                rows.append(row)
                if row["score"] is not None:
                    found.append(row["score"])
            scores[student.name] = halving.spread(found)[0] if found else None
        kept = halving.known(
            scores, {each.name: latencies[each.candidate] for each in left}, sign=question.sign
        )
        if not kept:
            errors = [row["error"] for row in rows if row["error"]]
            raise UserError(
                f"all trainings of rung {number} have failed: {errors[0] if errors else 'without a score'}"
            )
        order = halving.best(kept, len(kept), by_latency=question.budget.latency is None)
        by_name = {each.name: each for each in left}
        left = better_starts([by_name[each.name] for each in order])
        tell(question, number, order)
    return left, rows


def tell(question: Question, number: int, order: Sequence[Trained]) -> None:
    width = max(len(each.name) for each in order)
    for each in order:
        log.info(
            "  %-*s  %s %.4f  %.2f ms",
            width,
            each.name,
            question.score,
            question.sign * each.score,
            each.latency,
        )


def row_of(
    question: Question, student: Student, rung: Rung, number: int, seed: int, folder: Path, job: Job | None
) -> dict[str, Any]:
    """What is kept of a training."""
    file = folder / "result.json"
    content: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    value = content.get("best") if content.get("monitor") == question.monitor else None
    return {
        "rung": number,
        "student": student.name,
        "epochs": rung.epochs,
        "seed": seed,
        "score": value if isinstance(value, float) else None,
        "seconds": content.get("seconds"),
        "error": job.error if job is not None and job.code else "",
        "folder": str(folder),
    }
