"""What is documented: the lines of README.md, docs/, `make demo` and conf/, and how each is run up to its work."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import pytest
import torch  # noqa: F401 - once a process: what a command imports within a test is imported anew
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from dvsn import evaluate, train, tune
from dvsn.benchmark import __main__ as benchmark
from dvsn.compress import command as compress
from dvsn.convert import command as convert
from dvsn.dashboard import command as dashboard
from dvsn.data_tools import check, faces, shard, show, stats, weights
from dvsn.data_tools.init import command as init
from dvsn.engine import soup, tap_table
from dvsn.export import __main__ as export
from dvsn.hub import __main__ as hub
from dvsn.predict import command as predict
from dvsn.report import command as report
from dvsn.serve import __main__ as serve
from dvsn.shards.index import Index
from dvsn.sweep import cluster, storage

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MADE = ("zoo.md", "methods.md")
"""Pages that are made from data, whose lines tests of their own look at."""
PAGES = sorted(file for file in (ROOT / "docs").rglob("*.md") if file.name not in MADE)
WORK = (
    (train, "train"),
    (tune, "tune"),
    (evaluate, "evaluate"),
    (benchmark, "benchmark"),
    (predict, "run"),
    (convert, "convert"),
    (report, "report"),
    (check, "check"),
    (show, "draw"),
    (weights, "weigh"),
    (stats, "count"),
    (faces, "job"),
    (shard, "shard"),
    (tap_table, "show"),
    (hub, "push"),
    (export, "export"),
    (compress, "compress"),
    (serve, "serve"),
    (dashboard, "dashboard"),
    (init, "init"),
    (soup, "average"),
)
"""The last function of each command, which does the work."""
ADDED = {"search": ["search.trials=1"]}
"""What is added to the lines of a command, so that a test is short."""
SPECIAL = "()[]{}<>|&;*?!$"
"""What a shell does not leave alone, bash or zsh, unless it is quoted."""
BLOCK = re.compile(r"((?:^    .*\n)(?:^    .*\n|^\n+(?=    ))*)", re.MULTILINE)


# What is documented -----------------------------------------------------------------------------------------


def lines_of(section: str) -> list[str]:
    """The commands in the indented blocks of a section of the README."""
    return re.findall(r"^    ((?:python -m )?dvsn.*)$", section, re.MULTILINE)


def sections(page: str) -> list[str]:
    """A page by its headings of the second level; the first part is what stands above them."""
    return re.split(r"^## ", page, flags=re.MULTILINE)


def documented() -> Iterator[tuple[str, str]]:
    """(line, section that it stands in): those of the README, of docs/, of `make demo` and of comments in conf/."""
    for page in (README, *(file.read_text(encoding="utf-8") for file in PAGES)):
        for section in sections(page):
            yield from ((line, section) for line in lines_of(section))
    others = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)/", "")]
    others += [file.read_text(encoding="utf-8") for file in sorted((ROOT / "conf").rglob("*.yaml"))]
    for line in re.findall(r"python -m dvsn\.\w+ (?!--help)[^`\\\n]*", " \n".join(others)):
        yield line, ""


LINES = dict(reversed(list(documented())))  # of a line that stands twice the first counts


def words_of(line: str) -> list[str]:
    """The words of a line, as a shell reads it. Every one of them must mean what it says to any shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=SPECIAL)
    lexer.whitespace_split = True
    words = list(lexer)
    assert not [word for word in words if word.endswith("...")], "a line that nobody can run"
    assert not [word for word in words if set(word) <= set(SPECIAL)], "characters that must be quoted"
    return words


def files_of(section: str) -> dict[str, str]:
    """The files that a section shows, by their paths: named in the first line, or at the end of the text before it."""
    found, parts = {}, BLOCK.split(section)
    for before, block in zip(parts[::2], parts[1::2], strict=False):
        named = re.findall(r"`([\w/]+\.(?:yaml|py))`", before.strip().rpartition("\n\n")[2])
        named += re.findall(r"\A    # ([\w/]+\.yaml):", block)
        if named and not lines_of(block):
            found[named[-1]] = textwrap.dedent(block)
    return found


# Commands without their work --------------------------------------------------------------------------------


class Reached(BaseException):
    """The work of a command would begin, with what it is given."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given


def reached(given: Any, *_: Any, **__: Any) -> NoReturn:
    raise Reached(given)


class Cluster:
    """In place of a scheduler: runs each job here, at once."""

    def submit(self, jobs: Sequence[Any]) -> list[Any]:
        return [SimpleNamespace(done=lambda: True, outcome=functools.partial(dict, job())) for job in jobs]


class Started:
    """In place of a process: a job of a sweep that ends at once, with a result."""

    every: ClassVar[list[Started]] = []
    stdout = Path(os.devnull).open("rb")  # noqa: SIM115 - of every one of them, and never closed
    returncode = 0

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], **_: Any) -> None:
        self.argv, self.environment = list(argv), dict(env)
        self.folder = Path(json.loads(self.argv[-1].removeprefix("hydra.run.dir=")))
        (self.folder / "result.json").write_text('{"objective": 0.5}')
        Started.every.append(self)

    def poll(self) -> int:
        return self.returncode


Start = Callable[[Sequence[str]], Any]


def index_of(root: Any) -> Index:
    """What the index of shards says that a line names, which are not there."""
    options: dict[str, Any] = {
        "classes": 11, "joints": 0, "input_channels": 3, "output_channels": 1, "label_classes": 0, "pair.source": "photo",
        "pair.target": "label", "pair.edges": False, "pair.blend_labels": False, "facts.mean": [0.5, 0.5, 0.5],
        "facts.std": [0.2, 0.2, 0.2], "facts.boundary_frame": 0, "facts.padding": 1.25, "facts.face_box": "points",
        "facts.score": "pck", "dataset.labels": "classes",
        **{f"splits.{role}": role for role in ("train", "val", "test")},
    }  # fmt: skip
    return Index("dataset", {"photo": "photo", "label": "label"}, {"label": "|u1"}, options)


@pytest.fixture(name="start")
def start_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs `python -m NAME ARGUMENT...` in an empty folder: what its work is given, or else the jobs it would start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVSN_ALLOW", "")
    monkeypatch.setattr(subprocess, "Popen", Started)
    monkeypatch.setattr(cluster, "backend", lambda *_: Cluster())
    monkeypatch.setattr(
        storage, "opened", lambda _: importlib.import_module("optuna.storages").InMemoryStorage()
    )
    monkeypatch.setattr("dvsn.shards.storage.open_storage", lambda url, **_: url)
    monkeypatch.setattr("dvsn.shards.index.read_index", index_of)
    for module, name in WORK:
        monkeypatch.setattr(module, name, reached)

    def run_module(name: str, **_: Any) -> None:
        """What `python -m` does, except that the module is imported: its last function has been replaced there."""
        found = importlib.util.find_spec(name)
        assert found is not None, f"there is no module {name}"
        package = found.submodule_search_locations is not None
        module = importlib.import_module(f"{name}.__main__" if package else name)
        monkeypatch.setitem(sys.modules, "__main__", module)  # by which a sweep starts its jobs
        module.main()

    monkeypatch.setattr(runpy, "run_module", run_module)

    def call(words: Sequence[str]) -> Any:
        words = [*(["python", "-m"] if words[0] == "dvsn" else []), *words]
        assert words[:2] == ["python", "-m"]
        Started.every.clear()
        HydraConfig.instance().cfg = None  # as in a new process
        OmegaConf.clear_resolver("run_stamp")
        monkeypatch.setattr(sys, "argv", words[2:])
        try:
            run_module(words[2])
        except Reached as work:
            return work.given
        assert Started.every, "neither the work nor a job was started"
        return list(Started.every)

    return call
