"""What is asked: a teacher, the data, a budget, a floor, an amount of training; checked before anything is measured."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.atomic import write_json
from dvsn.benchmark.named import Named, read_named
from dvsn.compress import budget as budgets
from dvsn.compress import device as devices
from dvsn.compress.budget import Budget, Floor
from dvsn.compress.candidates import ALONE, Menu, load, own_words
from dvsn.compress.device import Device
from dvsn.config import python
from dvsn.config.folders import require_writable
from dvsn.config.types import number, require, whole
from dvsn.errors import ConfigError, UserError
from dvsn.export.scoring import main_score
from dvsn.reading import read_json

log = logging.getLogger("dvsn")
FACTS = ("classes", "label_classes", "input_channels", "output_channels", "keypoints")
"""Of a data set: what networks of a teacher and of its students must have alike."""


@dataclass(frozen=True)
class Question:
    """Everything that the command line asks for."""

    teacher: Path
    named: Named
    """The teacher, ready to be measured."""
    menu: Menu
    words: list[str]
    """Options of dvsn.train that every student has."""
    budget: Budget
    floor: Floor
    score: str
    """The name of the score that decides, without its split."""
    options: Mapping[str, Any]
    folder: Path
    device: Device | None = None
    """The table of another machine, where one is given."""
    conf: Path | None = None
    """A folder of configs of the candidates that are made of the teacher or of a smaller input, beside the user's own."""
    starts: Mapping[str, Path] = field(default_factory=dict)
    """By candidate the checkpoint that holds layers of the teacher."""
    untried: Sequence[str] = ()
    """Of what a compression can try: what this one does not."""

    @property
    def sign(self) -> float:
        return self.floor.sign

    @property
    def monitor(self) -> str:
        return f"val/{self.score}"

    @property
    def flags(self) -> list[str]:
        """Of the command line of a training: the user's folder of options, packages."""
        own = self.options["config_dir"]
        found = [] if own is None else ["--config-dir", str(own)]
        return [*found, *(f"--allow={name}" for name in listed(self.options["allow"]))]

    @property
    def root(self) -> str | None:
        """Where the students' data set lies, where the command line says so."""
        roots = [word.partition("=")[2] for word in self.words if word.startswith("data.root=")]
        return roots[-1] if roots else None

    def student_words(self, candidate: str, method: str, *, start: bool = False) -> list[str]:
        """The options of a training, without its epochs and seed. Without `distill` there is no teacher. `start`: from the
        teacher's layers."""
        own = self.menu.words(candidate, method)
        if start:
            own = [*own, f"weights={python.spelt(self.starts[candidate])}"]
        taught = any(word.startswith("distill=") and word != "distill=none" for word in own)
        teacher = [f"teacher={python.spelt(self.teacher)}"] if taught else []
        judged = [f"monitor.name={self.monitor}", f"monitor.mode={'max' if self.sign > 0 else 'min'}"]
        made = []
        if self.conf is not None:
            made = [f"hydra.searchpath={python.spelt([f'file://{self.conf.absolute()}'])}"]
        return [*own, *self.words, *teacher, *judged, *made]

    def composed(self, words: Sequence[str], job: Callable[[dict[str, Any]], Any]) -> Any:
        """What `job` returns for the config of a training with these words."""
        allow = listed(self.options["allow"])
        return python.call("train", job, words, {}, config_dir=self.options["config_dir"], allow=allow)


def listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def ask(options: Mapping[str, Any], words: Sequence[str]) -> Question:
    """The question of a command line: its own options, and those of dvsn.train. Raises `ConfigError` and `DataError`."""
    check(options)
    budget = budgets.read(options)
    teacher = Path(str(options["teacher"])).expanduser()
    named = read_named(str(teacher), threads=options["threads"])
    if named.engine is not None or named.path is None:
        raise ConfigError(f"teacher: found {teacher}, expected a dvsn checkpoint, such as best.ckpt.")
    score, mode = main_score(named.task)
    given = options["candidates"]
    of_file = isinstance(given, str) and given.endswith((".yaml", ".yml"))
    menu = load(named.task.kind, given)
    menu = menu.only(candidates=None if of_file else given, methods=options["methods"])
    folder = options["folder"] or Path("runs", "compress", teacher_name(named.path))
    floor = Floor(1.0 if mode == "max" else -1.0, drop=options["drop"], least=options["least"])
    table = options["device"]
    device = None if table is None else devices.read(Path(str(table)).expanduser(), options["threads"])
    return Question(
        named.path,
        named,
        menu,
        list(words),
        budget,
        floor,
        score,
        options,
        Path(folder),
        device,
        untried=not_tried(menu),
    )


def not_tried(menu: Menu) -> list[str]:
    """What a compression can try and these candidates do not have."""
    own = [own_words(words)[0] for words in menu.candidates.values()]
    found = {"pruned": "pruned forms of the teacher", "input": "networks that see a smaller picture"}
    missing = [said for key, said in found.items() if not any(key in each for each in own)]
    return [*missing, "networks outside the list of candidates"]


def teacher_name(path: Path) -> str:
    """The name of the run that wrote a checkpoint, else of the file."""
    if path.parent.name != "checkpoints":
        return path.stem
    run = path.absolute().parent.parent
    return run.parent.name if re.match(r"\d{4}-\d\d-\d\d_", run.name) else run.name


def check(options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for an option without meaning."""
    counts = {name: whole(options[name], 1) for name in ("rungs", "finalists", "seeds", "batch", "jobs")}
    above = {
        name: options[name] is None or (number(options[name]) and options[name] > 0)
        for name in ("hours", "drop")
    }
    rows = [
        *((name, options[name], right, "a whole number, 1 or more") for name, right in counts.items()),
        *((name, options[name], right, "null, or a number above 0") for name, right in above.items()),
        ("keep", options["keep"], number(options["keep"]) and options["keep"] > 1, "a number above 1"),
        ("seed", options["seed"], whole(options["seed"], 0), "a whole number, 0 or more"),
        ("least", options["least"], options["least"] is None or number(options["least"]), "null, or a score in [0, 1]"),
        *(
            (name, options[name], options[name] is None or whole(options[name], 1), "null, or a whole number, 1 or more")
            for name in ("epochs", "threads", "finetune")
        ),
    ]  # fmt: skip
    require(rows, "")
    if set(listed(options["starts"])) - {"random", "teacher"}:
        raise ConfigError(f"starts: found {options['starts']}, expected random, teacher, or both.")
    if options["files"] is not None and options["device"] is not None:
        raise ConfigError("files: writes the files that device=... is measured on. Give one of the two.")


# Checks that compose trainings --------------------------------------------------------------------------


def check_students(question: Question, menu: Menu) -> dict[str, Any]:
    """Compose a training of every candidate of a menu and of every method, as dvsn.train will. Returns {candidate: (task,
    sizes)}, the task with random weights and how many batches its epochs have.

    Raises `ConfigError` with the name of the one that cannot be trained, and `DataError` where the data set has no val.
    """
    from dvsn.engine.trainer import build_data, make_task

    first = next(iter(menu.candidates), None)
    for method in question.menu.methods if first is not None else ():
        with blamed(f"methods.{method}"):
            question.composed(question.student_words(str(first), method), lambda config: None)

    def made(config: dict[str, Any]) -> tuple[Any, tuple[int, int]]:
        task = make_task(config)
        same_data(question, task)
        module = build_data(config)
        size = int(config["data"]["batch_size"])
        train, val = (len(module.open(split)) for split in ("train", "val"))
        return task, (max(1, train // size), max(1, val // size))

    found = {}
    for name in menu.candidates:
        with blamed(f"candidates.{name}"):
            found[name] = question.composed(
                [*question.student_words(name, ALONE), f"seed={question.options['seed']}"], made
            )
    return found


@contextmanager
def blamed(who: str) -> Iterator[None]:
    """Within it, the message of a `ConfigError` begins with who is to blame, if that is not the data or the teacher."""
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(("teacher:", "data")):
            raise
        raise ConfigError(f"{who}: {error}") from error


def same_data(question: Question, task: Any) -> None:
    """Raises `ConfigError` where a student's data set is of other classes or keypoints than the teacher's."""
    own, theirs = task.data_recipe, question.named.task.data_recipe
    if own.get("splits") != theirs.get("splits"):
        log.warning(
            "teacher: it was trained with the splits %s, and the students' data set has %s: their scores on val may be of "
            "other pictures",
            theirs.get("splits"), own.get("splits"),
        )  # fmt: skip
    for name in FACTS:
        mine, other = (node.get(name) for node in (own, theirs))
        if mine is not None and other is not None and mine != other:
            raise ConfigError(
                f"teacher: {question.teacher} was trained on data with {name} {brief(other)}, and the students' data set "
                f"has {brief(mine)}. Give data=... of the teacher, or a teacher of this data."
            )


def brief(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


# The folder -----------------------------------------------------------------------------------------------


@contextmanager
def claimed(question: Question) -> Iterator[None]:
    """Within it, candidates are made in a folder that holds the question. Where a new one is refused, what was made of it
    goes, so that a corrected line finds no other question there."""
    new = claim(question)
    try:
        yield
    except UserError:
        if new:
            for name in ("conf", "starts"):
                shutil.rmtree(question.folder / name, ignore_errors=True)
            (question.folder / "question.json").unlink()
        raise


def claim(question: Question) -> bool:
    """Write what is asked into the folder; returns whether nothing was asked there before. Raises `ConfigError` where it
    holds the answer to another question: of another teacher, with other options, or with another candidate of one name.
    Budget, floor and hours may change."""
    require_writable(question.folder, option="folder")
    file = question.folder / "question.json"
    mine: dict[str, Any] = {
        "teacher": digest(question.teacher),
        "with": question.words,
        "students": {"candidates": dict(question.menu.candidates), "methods": dict(question.menu.methods)},
    }
    new = not file.is_file()
    if not new:
        before = read_json(file)
        other = [key for key in ("teacher", "with") if before.get(key) != mine[key]]
        for kind, known in mine["students"].items():
            earlier = before.get("students", {}).get(kind, {})
            other += [f"{kind}.{name}" for name, words in known.items() if earlier.get(name, words) != words]
            known |= {name: words for name, words in earlier.items() if name not in known}
        if other:
            raise ConfigError(
                f"folder: {question.folder} holds another question, with another {', '.join(other)}. Give it a folder of "
                f"its own: folder={question.folder}_2"
            )
    question.folder.mkdir(parents=True, exist_ok=True)
    write_json(file, mine)
    return new


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(os.fspath(path), "rb") as file:  # noqa: PTH123 - hashlib takes a file object
        return hashlib.file_digest(file, "sha256").hexdigest()
