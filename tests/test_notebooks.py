"""The notebooks: cells in order, and, slow, each runs from an empty folder and does what it says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LEFT = {
    "segmentation_own_data": ("seen.png", "my_conf/data/coins.yaml"),
    "teach_a_small_network": ("runs/classification_resnet8_imagefolder/latest",),
    "faces_in_a_video": ("seen/face.mp4", "last.png"),
}
"""What each leaves, beside others."""


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


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(notebook)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in LEFT[notebook.stem]:
        assert (tmp_path / name).exists(), name
