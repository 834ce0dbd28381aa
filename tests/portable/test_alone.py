"""dvsn-portable by itself: its wheel in an environment without torch answers as the checkpoints do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from old_runs import ALLOWED, unpack

import dvsn
from dvsn.export.__main__ import COMMAND, export
from dvsn.portable.result import Result
from dvsn.version import VERSION

ROOT = Path(__file__).parents[2]
TASKS = ("segmentation", "pix2pix", "classification", "pose", "landmarks", "landmarks_heatmaps", "detection")
PICTURES = 20
ASK = """
import json, sys
from pathlib import Path
from dvsn.portable import Model
folder = Path(sys.argv[1])
pictures = sorted((folder / "pictures").glob("*.png"))
for file in sorted(folder.glob("*.onnx")):
    answers = [result.to_json() for result in Model(file, threads=1)(pictures)]
    file.with_suffix(".answers").write_text(json.dumps(answers))
loaded = [name for name in ("torch", "torchvision", "albumentations", "scipy", "hydra") if name in sys.modules]
assert not loaded, loaded
"""


def test_the_package_has_the_version_and_the_needs_of_dvsn() -> None:
    alone, whole = (
        tomllib.loads((ROOT / name).read_text()) for name in ("portable/pyproject.toml", "pyproject.toml")
    )
    assert alone["project"]["version"] == whole["project"]["version"] == VERSION
    assert set(alone["project"]["dependencies"]) <= set(whole["project"]["dependencies"])
    for source in alone["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / "portable" / source).exists(), source


@pytest.mark.slow
def test_a_wheel_without_torch_answers_as_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    if not Path(uv).is_file():
        pytest.skip("uv is not installed")
    monkeypatch.setenv("DVSN_ALLOW", ALLOWED)
    monkeypatch.chdir(tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    run(uv, "build", "--wheel", "-o", str(tmp_path), str(ROOT / "portable"))
    (wheel,) = tmp_path.glob("*.whl")
    assert not any("tasks" in name or "torch" in name for name in zipfile.ZipFile(wheel).namelist())
    run(uv, "venv", "--python", sys.executable, str(tmp_path / "venv"))
    run(uv, "pip", "install", "--python", python, f"{wheel}[onnx]")
    write_pictures(tmp_path / "pictures")
    for name in TASKS:
        sides = ["size=128x256"] if name == "detection" else []
        export(COMMAND.parse([str(unpack(name, tmp_path)), f"output={name}.onnx", *sides]))
    (tmp_path / "ask.py").write_text(ASK)
    run(python, "-I", "ask.py", str(tmp_path))
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    for name in TASKS:
        theirs = dvsn.load(f"{name}.ckpt").predict(pictures)
        answers = json.loads((tmp_path / f"{name}.answers").read_text())
        assert len(answers) == PICTURES
        for found, other in zip(answers, theirs, strict=True):
            require_near(Result.from_json(found), other)


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def write_pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((256, 128), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")


def require_near(ours: Result, theirs: Result) -> None:
    for key, near in {"boxes": 1e-2, "scores": 1e-4, "keypoints": 0.05, "points": 0.05}.items():
        one, other = getattr(ours, key), getattr(theirs, key)
        assert (one is None) == (other is None)
        if one is not None and key in (
            "keypoints",
            "points",
        ):  # where a map is flat, float noise moves its peak
            assert (np.abs(one - other) > near).mean() < 0.03
            np.testing.assert_allclose(one, other, rtol=0, atol=0.5)
        elif one is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=near)
    for key, near in {"ids": 0, "picture": 1}.items():
        one, other = getattr(ours, key), getattr(theirs, key)
        if other is not None:
            assert (np.abs(one.astype(int) - other) > near).mean() <= 1e-4
    if theirs.classes is not None:
        assert ours.classes is not None and ours.classes[0].number == theirs.classes[0].number
