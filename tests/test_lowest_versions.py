"""The lower bounds of pyproject.toml: safe ones, and such that the core of this suite passes with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAFE = {
    "torch": (2, 10),  # CVE-2026-24747: before, weights-only unpickling of a hostile file could run code
    "hydra-core": (1, 3, 8),
    "pytorch-lightning": (2, 6, 6),  # 2.6.2 and 2.6.3 were compromised; load_from_checkpoint
}
CORE = (
    "tests/config",
    "tests/networks/test_pidnet.py",
    "tests/losses/test_segmentation.py",
    "tests/metrics/test_segmentation.py",
    "tests/data/test_transforms.py",
    "tests/engine/test_checkpoint.py",
    "tests/tasks/test_segmentation.py",
    "tests/tasks/test_detection.py",
    "tests/tasks/test_landmarks.py",
    "tests/distill/test_taps.py",
)


def bounds() -> dict[str, tuple[int, ...]]:
    """The lowest version of each dependency."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.match(r"([\w-]+)>=([\d.]+)", each) for each in listed)
    return {each[1]: tuple(map(int, each[2].split("."))) for each in found if each}


def test_no_version_with_a_known_hole_is_allowed() -> None:
    lowest = bounds()
    assert {name: lowest[name] for name in SAFE if lowest[name] < SAFE[name]} == {}


@pytest.mark.slow
def test_the_lowest_versions_pass_the_core_of_the_suite(tmp_path: Path) -> None:
    """Some gigabytes of wheels from the registry that uv is set up for."""
    own = Path(sys.executable).parent  # make installs it there, which need not be on the path
    uv = shutil.which("uv") or shutil.which("uv", path=str(own))
    if uv is None or shutil.disk_usage(tmp_path).free < 10 * 2**30:
        pytest.skip("needs uv, and 10 GB of disk")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "env")], check=True)
    lowest = ["--resolution", "lowest-direct", "-r", str(ROOT / "pyproject.toml"), "--extra", "test"]
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *lowest], check=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "pytest", "-q", "-n", "0", "-x", *CORE]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
