"""What is documented works as it stands: each line goes through its real command, up to where the work would begin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dvsn import networks
from dvsn.benchmark import __main__ as benchmark
from dvsn.config import build, folders, menu
from tests.support.documented import (
    ADDED,
    LINES,
    PAGES,
    README,
    ROOT,
    Start,
    Started,
    files_of,
    sections,
    start_fixture,  # noqa: F401
    words_of,
)


def test_the_readme_is_short_and_shows_both_commands_and_the_real_one() -> None:
    assert "    make demo " in README and "    make test " in README
    assert any("task=pix2pix data=cityscapes" in line for line in LINES)
    assert len(README.split()) < 700


def test_the_pages_show_files() -> None:
    pages = [README, *(file.read_text(encoding="utf-8") for file in PAGES)]
    shown = {path for page in pages for section in sections(page) for path in files_of(section)}
    assert {"my_conf/data/mine.yaml", "conf/network/mine.yaml", "dvsn/networks/mine.py"} <= shown


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
    elif name == "compress":  # of which the other words are those of a training
        assert given["teacher"].endswith(".ckpt")
    elif "data=mine" in words:
        assert given["data"]["root"] == "/data/mine"
    elif "network=mine" in words:
        network = build.build(given["network"], path="network")
        assert type(network).__module__ == "dvsn.networks.mine"
        assert network(torch.zeros(2, given["data"]["input_channels"], 8, 8)).shape == (2, 3, 8, 8)


def test_the_short_command_is_the_same(start: Start) -> None:
    assert "`dvsn train ...` is the same as `python -m dvsn.train ...`" in README
    assert start(["dvsn", "train", "experiment=demo"])["name"] == "pix2pix_unet_128_street_parts"


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
        if job.argv[2] == "dvsn.evaluate":  # whose results lie beside the checkpoint
            continue
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
    results = sorted(tmp_path.glob("runs/pix2pix_unet_128_street_parts/sweep_*/?/result.json"))
    assert [file.parent.name for file in results] == ["0", "1"]
    first, second = (json.loads(file.read_text()) for file in results)
    assert first["epochs"] == second["epochs"] == 1 and first["objective"] != second["objective"]
