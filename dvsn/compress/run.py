"""The steps of a compression, in their order."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dvsn.benchmark import compare
from dvsn.benchmark.measure import randomise
from dvsn.compress import derived, device, finish, halving, measure, question, training
from dvsn.compress.answer import Answer
from dvsn.compress.budget import spoken
from dvsn.compress.finish import TEACHER, File
from dvsn.compress.question import Question
from dvsn.compress.training import Student
from dvsn.config import python
from dvsn.config.folders import require_writable
from dvsn.engine.starving import cores
from dvsn.errors import ConfigError, UserError
from dvsn.sweep.pool import locked_folder

log = logging.getLogger("dvsn")


def run(options: Mapping[str, Any], words: Sequence[str]) -> str:
    torch.set_num_threads(options["threads"] or cores())
    asked = question.ask(options, words)
    made = question.check_students(asked, asked.menu.plain())  # a refused line leaves no folder behind
    with locked_folder(asked.folder, option="folder", what="a compression", unit="a training") as lock:
        with question.claimed(asked):
            asked, out = derived.derive(asked)
            rest = {name: words for name, words in asked.menu.candidates.items() if name not in made}
            made |= question.check_students(asked, replace(asked.menu, candidates=rest))
        made = {name: made[name] for name in asked.menu.candidates}
        tasks = {name: task for name, (task, _) in made.items()}
        asked = replace(asked, starts=derived.starts(asked, tasks))
        return Compression(asked, made, lock, out).run()


class Compression:
    """One question, answered step by step; what a step leaves in the folder is not made again."""

    def __init__(
        self,
        asked: Question,
        made: Mapping[str, tuple[Any, tuple[int, int]]],
        lock: int,
        out: Mapping[str, str],
    ) -> None:
        self.asked, self.lock, self.made, self.out = asked, lock, made, out
        self.measured: dict[str, dict[str, Any]] = {}

    def run(self) -> str:
        if self.asked.options["files"] is not None:
            return self.write_files(Path(str(self.asked.options["files"])))
        inside, excluded = self.measure()
        students = training.students(self.asked, inside)
        batches = {name: self.made[name][1] for name in inside}
        epoch = training.epoch_seconds(self.asked, batches, self.lock)
        rungs = training.plan(self.asked, len(students), epoch)
        log.info("%s", self.told(rungs, inside, excluded, epoch))
        if self.asked.options["dry_run"]:
            return "dry_run=true: nothing was trained."
        finalists, rows = training.halve(self.asked, rungs, students, self.latencies(inside), self.lock)
        files = self.files(finalists, rows)
        finish.clock(self.asked, files)
        answer = Answer(self.asked, files, rows, {**self.out, **excluded})
        self.test(file for file in files if file in (answer.best, answer.teacher, *answer.order))
        return f"{answer.write()}\n{self.asked.folder / 'answer.md'}"

    # Before training -----------------------------------------------------------------------------------

    def measure(self) -> tuple[list[str], dict[str, str]]:
        """Measure the teacher and every candidate. Returns the candidates that meet the budget, and why others do not.
        Raises `ConfigError` where none does, or the teacher meets it itself."""
        asked = self.asked
        named, levers = asked.named, measure.variants(asked)
        tasks = {TEACHER: named.task, **{name: task for name, (task, _) in self.made.items()}}
        lacking = {}
        for name, task in tasks.items():
            own = name == TEACHER
            try:
                self.measured[name] = measure.measure(
                    asked,
                    name,
                    task if own else randomise(task),
                    levers=levers,
                    header=named.header if own else None,
                )
            except ConfigError as error:
                if asked.device is None:
                    raise
                lacking[name] = str(error)
                continue
            log.info("%s%s", "teacher  " if own else f"candidate  {name}: ", self.costs(name))
            if own:
                self.refuse_what_the_teacher_meets()
        if asked.device is not None and lacking:
            said = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
            raise ConfigError(
                f"device: of {len(tasks)} networks the table {asked.device.path} does not have {len(lacking)} as asked: "
                f"{said}. Write their files by files=FOLDER in the place of device, and measure these there."
            )
        candidates = {name: self.measured[name] for name in self.made}
        inside, excluded = measure.split_by_budget(candidates, asked.budget)
        for name, reason in excluded.items():
            log.info("left out  %s: %s", name, reason)
        return inside, excluded

    def write_files(self, folder: Path) -> str:
        """Write the files of the teacher and of every candidate with random weights, for a table of another machine."""
        require_writable(folder, option="files")
        asked, written = self.asked, list[Path]()
        levers = measure.variants(asked)
        tasks = {TEACHER: asked.named.task, **{name: task for name, (task, _) in self.made.items()}}
        for name, task in tasks.items():
            own = name == TEACHER
            named = measure.named_of(
                name, task if own else randomise(task), asked.named.header if own else None
            )
            subject = compare.Subject(named, measure.config_of(asked), torch.device("cpu"))
            written += device.write_files(subject, name, levers, folder)
        return device.told(written, folder)

    def costs(self, name: str) -> str:
        found = self.measured[name]
        parts = [f"{found['parameters'] / 1e6:.3g} M parameters", spoken("macs", found["macs"])]
        for int8 in (False, True):
            variant = measure.fastest(found, self.asked.budget, int8=int8)
            if variant is not None:
                parts.append(
                    f"{variant.removeprefix('folded+')} {spoken('latency', found['variants'][variant]['p50'])}"
                )
        return ", ".join(parts)

    def refuse_what_the_teacher_meets(self) -> None:
        """Raises `ConfigError` where the teacher in full precision meets all bounds: there is nothing to do."""
        budget, found = self.asked.budget, self.measured[TEACHER]
        variant = measure.fastest(found, budget, int8=False)
        if not budget.asked or variant is None:
            return
        costs = measure.costs_of(found, variant, budget)
        if not budget.beyond(costs):
            said = ", ".join(f"{name} {spoken(name, costs[name] or 0.0)}" for name in budget.asked)
            raise ConfigError(
                f"budget: the teacher meets it as it is: {said} ({variant}). Ask for less, or export the teacher: "
                f"python -m dvsn.export {self.asked.teacher}"
            )

    def latencies(self, names: Sequence[str]) -> dict[str, float]:
        """The lowest latency of each candidate."""
        budget = self.asked.budget
        found = {}
        for name in names:
            variant = measure.fastest(self.measured[name], budget)
            assert variant is not None
            found[name] = float(measure.costs_of(self.measured[name], variant, budget)["latency"] or 0.0)
        return found

    def told(
        self,
        rungs: Sequence[halving.Rung],
        inside: Sequence[str],
        excluded: Mapping[str, str],
        epoch: float,
    ) -> str:
        """The plan in words."""
        methods = ", ".join(self.asked.menu.methods)
        steps = "; ".join(f"{rung.students} students for {rung.epochs} epochs" for rung in rungs)
        total = halving.seconds(rungs, epoch=epoch, seeds=self.asked.options["seeds"])
        return (
            f"plan  {len(inside)} candidates ({len(excluded)} left out) x {methods}: {steps}. An epoch takes about "
            f"{epoch:.1f} s, all trainings, one at a time, about {total / 3600:.2f} hours."
        )

    # After training --------------------------------------------------------------------------------------

    def files(self, finalists: Sequence[Student], rows: Sequence[Mapping[str, Any]]) -> list[File]:
        """The teacher's files, that of full precision first, and those of the finalists, with their scores on val. Raises
        `UserError` where the teacher cannot be exported or measured."""
        found = finish.export(self.asked, TEACHER, self.asked.teacher, self.measured[TEACHER], "")
        if not found or found[0].precision == "int8":
            raise UserError(
                f"teacher: {self.asked.teacher} cannot be exported; see {self.asked.folder / 'files'}"
            )
        last = max(row["rung"] for row in rows)
        for student in finalists:
            own = [
                r
                for r in rows
                if r["rung"] == last and r["student"] == student.name and r["score"] is not None
            ]
            kept = max(own, key=lambda row: self.asked.sign * row["score"])
            deviation = halving.spread([row["score"] for row in own])[1]
            words = training.words_of(self.asked, student, epochs=kept["epochs"], seed=kept["seed"])
            run_dir = f"hydra.run.dir={python.spelt(kept['folder'])}"
            line = shlex.join(["python", "-m", "dvsn.train", *self.asked.flags, *words, run_dir])
            checkpoint = checkpoint_of(Path(kept["folder"]))
            for file in finish.export(
                self.asked, student.name, checkpoint, self.measured[student.candidate], line
            ):
                file.deviation = deviation
                found.append(file)
        for file in found:
            score = finish.evaluate(self.asked, file.name, file.path, "val")
            if score is not None:
                file.scores["val"] = score
        if "val" not in found[0].scores:
            raise UserError(
                f"teacher: its score on val cannot be measured; see {self.asked.folder / 'scores' / found[0].name}"
            )
        return found

    def test(self, files: Iterable[File]) -> None:
        """The front, the recommended file and the teacher once on test, where there is one."""
        for file in files:
            score = finish.evaluate(self.asked, file.name, file.path, "test")
            if score is None:
                return
            file.scores["test"] = score


def checkpoint_of(folder: Path) -> Path:
    """The best checkpoint of a run, else the last."""
    best = folder / "checkpoints" / "best.ckpt"
    return best if best.exists() else folder / "checkpoints" / "last.ckpt"
