"""What is documented works as it stands: each line goes through its real command, up to where the work would begin."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from dvsn import evaluate, networks, train
from dvsn.benchmark import __main__ as benchmark
from dvsn.config import build, folders, menu
from dvsn.convert import __main__ as convert
from dvsn.data_tools import check, faces, show, weights
from dvsn.engine import tap_table
from dvsn.predict import command as predict
from dvsn.sweep import report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORK = (
    (train, "train"),
    (evaluate, "evaluate"),
    (benchmark, "benchmark"),
    (predict, "predict"),
    (convert, "convert"),
    (report, "report"),
    (check, "check"),
    (show, "draw"),
    (weights, "weigh"),
    (faces, "write"),
    (tap_table, "show"),
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


def documented() -> Iterator[tuple[str, str]]:
    """(line, section of the README that it stands in): those of the README, of `make demo` and of comments in conf/."""
    for section in re.split(r"^## ", README, flags=re.MULTILINE):
        yield from ((line, section) for line in lines_of(section))
    others = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)/", "")]
    others += [file.read_text(encoding="utf-8") for file in sorted((ROOT / "conf").rglob("*.yaml"))]
    for line in re.findall(r"python -m dvsn\.\w+ (?!--help)[^`\\\n]*", " \n".join(others)):
        yield line, ""


LINES = dict(documented())


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


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs `python -m NAME ARGUMENT...` in an empty folder: what its work is given, or else the jobs it would start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVSN_ALLOW", "")
    monkeypatch.setattr(subprocess, "Popen", Started)
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


# The tests --------------------------------------------------------------------------------------------------


def test_the_readme_shows_both_commands_the_real_one_and_files() -> None:
    assert "    make demo " in README and "    make test " in README
    assert any("task=pix2pix data=cityscapes" in line for line in LINES)
    shown = [path for section in {*LINES.values()} for path in files_of(section)]
    wanted = ["my_conf/data/mine.yaml"] * 3 + ["conf/network/mine.yaml", "dvsn/networks/mine.py"]
    assert sorted(shown) == sorted(wanted)


@pytest.mark.parametrize("line", [pytest.param(line, id=line.partition("  ")[0]) for line in LINES])
def test_a_documented_line_reaches_its_work(
    line: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, section = words_of(line), LINES[line]
    name = words[2].removeprefix("dvsn.") if words[0] == "python" else words[1]
    files = files_of(section)
    if "dvsn/networks/mine.py" in files:
        be_in_a_checkout(tmp_path, monkeypatch)
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    given = start([*words, *ADDED.get(name, [])])
    several = "-m" in words[2:] or name == "search"
    assert several == isinstance(given, list)
    if several:
        check_jobs(given, start)
        following = section.partition(line)[2].splitlines()[1:2]
        if following and "dvsn.report" in following[0]:  # the table of what this line leaves
            assert Path(words_of(following[0])[3]).is_dir()
    elif name == "benchmark":
        benchmark.check_options(given)
    elif "data=mine" in words:
        assert given["data"]["root"] == "/data/mine"
    elif "network=mine" in words:
        network = build.build(given["network"], path="network")
        assert type(network).__module__ == "dvsn.networks.mine"
        assert network(torch.zeros(2, given["data"]["input_channels"], 8, 8)).shape == (2, 3, 8, 8)


def test_the_short_command_is_the_same(start: Start) -> None:
    assert "`dvsn train ...` is the same as `python -m dvsn.train ...`" in README
    assert start(["dvsn", "train", "experiment=demo"])["name"] == "pix2pix_unet_128_street"


def be_in_a_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` the checkout that networks and configs are found in."""
    for name in ("dvsn", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(menu, "PACKAGE", folder / "dvsn")
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(folder / "dvsn" / "networks")])
    monkeypatch.delitem(sys.modules, "dvsn.networks.mine", raising=False)


def check_jobs(jobs: Sequence[Started], start: Start) -> None:
    """Each job composes and validates by its own command line, and has its place. Seeds make no difference."""
    place = jobs[0].folder.parent
    swept: dict[str, dict[str, None]] = {}
    for job in jobs:
        for word in job.argv[3:-1]:
            key, _, value = word.partition("=")
            swept.setdefault(key, {})[value] = None
    distinct = {tuple(word for word in job.argv[3:-1] if not word.startswith("seed=")): job for job in jobs}
    for job in distinct.values():
        assert job.argv[:2] == [sys.executable, "-m"] and job.folder.parent == place
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(folders.JOB_FOLDER, job.environment[folders.JOB_FOLDER])
            given = start(["python", *job.argv[1:]])
        assert given["run_dir"] == str(job.folder)
        name = place.parent.relative_to(Path("runs").absolute()).as_posix()
        for key, _, value in (word.partition("=") for word in job.argv[3:-1]):
            name = name.replace("+".join(swept[key]), value)  # the folder names all options of a swept group
        assert name == given["name"] and "None" not in name


def test_a_sweep_trains(tmp_path: Path) -> None:
    """Real processes, from an empty folder, with a training as small as it can be."""
    small = """
        trainer.max_epochs=1 trainer.limit_train_batches=1 trainer.limit_val_batches=1 trainer.accelerator=cpu
        data.root=street data.scenes.train=1 data.scenes.val=1 data.scenes.test=1 data.height=64 data.width=128
        data.workers=0 network.width=4 network.depth=3 discriminator.width=4 callbacks=none logger=none
        transform.load_height=32 transform.load_width=64 transform.crop_height=32 transform.crop_width=64
    """
    line = "-m experiment=demo seed=0,1 trainer=fast_dev_run"
    done = subprocess.run(
        [sys.executable, "-m", "dvsn.train", *line.split(), *small.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs finished" in done.stdout
    results = sorted(tmp_path.glob("runs/pix2pix_unet_128_street/sweep_*/?/result.json"))
    assert [file.parent.name for file in results] == ["0", "1"]
    first, second = (json.loads(file.read_text()) for file in results)
    assert first["epochs"] == second["epochs"] == 1 and first["objective"] != second["objective"]
