"""`experiments/gpu/run.sh`, as it runs on the CPU: its GPU part needs a GPU, and has not been run on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "trains": 7 + 2 + 2 + 2,  # every task; one in bf16 and in fp16; one in two layouts; two compiled
    "evaluates": 7,
    "resumes": 1,
    "pidnet_s": 1,
    "hrnet_w32": 2,
    "input pipeline": 1,
    "two ranks": 1,
}


def run(tmp_path: Path, device: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    output = tmp_path / "gpu.md"
    given = {
        "DEVICE": device,
        "RUNS": str(tmp_path / "runs"),
        "OUTPUT": str(output),
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["bash", str(ROOT / "experiments/gpu/run.sh")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **given},
        capture_output=True,
        text=True,
        timeout=5400,  # minutes on a quiet machine, half an hour and more on a busy one
        check=False,
    )
    return done, output


@pytest.mark.slow
def test_it_says_so_where_there_is_no_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done, output = run(tmp_path, "cuda")
    assert done.returncode == 2 and "There is no GPU here" in done.stderr and not output.exists()


@pytest.mark.slow
def test_it_runs_on_the_cpu(tmp_path: Path) -> None:
    done, output = run(tmp_path, "cpu")
    page = output.read_text(encoding="utf-8")
    assert done.returncode == 0 and "FAILED" not in page, page
    assert "no row of this page ran on a GPU" in page
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    for what, count in ROWS.items():
        assert sum(what in row.split("|")[1] for row in rows) == count, what
    assert sum("left out: needs a GPU" in row for row in rows) == 3  # float16, and two compiled
