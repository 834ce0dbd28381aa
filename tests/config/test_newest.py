"""`resume=auto` finds the newest checkpoint that is whole, over all folders of a name."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from dvsn.config.folders import run_stamp
from dvsn.config.newest import best_of
from dvsn.hub.resolve import local

AGES = {"2026-01-01_a": 1, "2026-01-02_b": 2, "2026-01-03_c": 3}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs of one name, each with last.ckpt and, a little older, best.ckpt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name, age in AGES.items():
        for file, minutes in (("last", 1), ("best", 0)):
            write(tmp_path / "runs" / "mine" / name / "checkpoints" / f"{file}.ckpt", age * 1000 + minutes)
    return tmp_path / "runs" / "mine"


def write(path: Path, age: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(range(256)) * 8)
    os.utime(path, (age, age))


def cut(path: Path) -> None:
    """Damage a file and keep its time."""
    time = path.stat().st_mtime
    path.write_bytes(path.read_bytes()[:1000])
    os.utime(path, (time, time))


def flip(path: Path) -> None:
    time, content = path.stat().st_mtime, bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, (time, time))


def test_the_newest_of_all(runs: Path) -> None:
    assert run_stamp("mine", "auto") == "2026-01-03_c"
    os.utime(runs / "2026-01-01_a" / "checkpoints" / "best.ckpt", (9000, 9000))
    assert run_stamp("mine", "auto") == "2026-01-01_a"


@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_ones_are_passed_over(damage: object, runs: Path) -> None:
    newest = runs / "2026-01-03_c" / "checkpoints"
    damage(newest / "last.ckpt")  # type: ignore[operator]
    assert run_stamp("mine", "auto") == "2026-01-03_c", "its best.ckpt is whole"
    damage(newest / "best.ckpt")  # type: ignore[operator]
    assert run_stamp("mine", "auto") == "2026-01-02_b"


def test_with_none_whole_the_newest_is_named_and_none_is_new(runs: Path) -> None:
    for path in runs.glob("*/checkpoints/*.ckpt"):
        cut(path)
    assert run_stamp("mine", "auto") == "2026-01-03_c"


def test_without_checkpoints_a_run_is_new(runs: Path) -> None:
    (runs.parent / "empty" / "2026-01-01_x" / "checkpoints").mkdir(parents=True)
    (runs.parent / "empty" / "2026-01-01_x" / "checkpoints" / ".last.ckpt.1.tmp").write_bytes(b"half")
    assert run_stamp("empty", "auto") not in ("2026-01-01_x", *AGES)
    assert run_stamp("mine", None) not in AGES and run_stamp("nowhere", "auto") not in AGES


def test_a_slurm_job_takes_its_own_first(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert run_stamp("mine", None) == "slurm_7"
    assert run_stamp("mine", "auto") == "2026-01-03_c", "a new job goes on with what is there"
    write(runs / "slurm_7" / "checkpoints" / "last.ckpt", 10)
    assert run_stamp("mine", "auto") == "slurm_7"
    cut(runs / "slurm_7" / "checkpoints" / "last.ckpt")
    assert run_stamp("mine", "auto") == "2026-01-03_c"


def test_a_folder_stands_for_the_best_of_its_newest_run(runs: Path) -> None:
    newest = runs / "2026-01-03_c" / "checkpoints"
    assert local(runs) == best_of(runs) == newest / "best.ckpt"
    assert local(runs / "2026-01-01_a") == runs / "2026-01-01_a" / "checkpoints" / "best.ckpt"
    (newest / "best.ckpt").unlink()
    assert best_of(runs) == newest / "last.ckpt"
    assert best_of(runs / "2026-01-03_c" / "pictures") is None
    assert local(runs.parent) == runs.parent  # of no single name
