"""The notebooks: every cell is executed as a kernel would, with few pictures and one epoch; slow, as they stand."""

from __future__ import annotations

import ast
import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LEFT = {
    "segmentation_own_data": ("seen.png", "my_conf/data/coins.yaml"),
    "teach_a_small_network": ("runs/classification_resnet8_imagefolder/*/checkpoints/best.ckpt",),
    "faces_in_a_video": ("seen/face.mp4", "last.png"),
}
"""Patterns of what each leaves, beside others."""
RUN = subprocess.run


def cells(notebook: Path) -> list[str]:
    """The source of each cell of code; lines of a cell keep their numbers."""
    found, lines = [], notebook.read_text(encoding="utf-8").splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith("# %%")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        if lines[start].strip() == "# %%":
            found.append("\n" * (start + 1) + "\n".join(lines[start + 1 : end]))
    return found


def execute(notebook: Path) -> list[Any]:
    """Runs the cells one after the other in one name space. What a kernel would show: their last expressions."""
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for source in cells(notebook):
        tree = ast.parse(source, str(notebook))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(notebook), "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), str(notebook), "eval"), names))
    return shown


def here(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run`, but `python -m dvsn...` in this process: starting another costs more than what it does."""
    if words[:2] != [sys.executable, "-m"]:
        return RUN(words, **more)
    said, arguments, code = io.StringIO(), sys.argv, 0
    sys.argv = words[2:]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            runpy.run_module(words[2], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = arguments
    assert code == 0, said.getvalue()
    return subprocess.CompletedProcess(words, code, said.getvalue(), "")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:") and "# %% [markdown]\n# # " in text
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert {"train", "load", "predict", "plot"} <= calls
    assert notebook.stem in LEFT


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUICK", "1")
    monkeypatch.setattr(subprocess, "run", here)
    picture = execute(notebook)[-1]
    assert picture._repr_png_().startswith(b"\x89PNG")  # what a notebook shows below its last cell
    for name in LEFT[notebook.stem]:
        assert list(tmp_path.glob(name)), name


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(notebook)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in LEFT[notebook.stem]:
        assert list(tmp_path.glob(name)), name
