"""dvsn-portable by itself: its wheel in an environment without torch answers as the checkpoints do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from old_runs import ALLOWED, unpack

import dvsn
from dvsn.export.__main__ import COMMAND, export
from dvsn.portable.result import Result
from dvsn.tasks.recipe import build_task
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
        task: Any = dvsn.load(f"{name}.ckpt")
        theirs, peaks = task.predict(pictures), [None] * PICTURES
        if getattr(task, "codec", None) is not None:
            task.codec.refine = "none"
            peaks = task.predict(pictures)
        answers = json.loads((tmp_path / f"{name}.answers").read_text())
        assert len(answers) == PICTURES
        for found, other, peak in zip(answers, theirs, peaks, strict=True):
            require_near(Result.from_json(found), other, peak)


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


def require_near(ours: Result, theirs: Result, peaks: Result | None) -> None:
    """Classes equal but for 0.01 % of pixels, boxes within 0.01 pixels, pictures within 1 of 255, points within 0.002.

    `peaks` is `theirs` with points at the largest pixel of each heatmap. From there a parabola leads to the point; where an
    untrained map is nearly flat it leads far away, dividing by nearly 0, which enlarges the last digits of the maps. A
    thousandth of that way is allowed; the way of a trained network's points is under one pixel of the map.
    """
    for key, near in {"boxes": 1e-2, "scores": 1e-4, "keypoints": 2e-3, "points": 2e-3}.items():
        one, other = getattr(ours, key), getattr(theirs, key)
        assert (one is None) == (other is None)
        if one is None:
            continue
        way = 0.0 if peaks is None else np.abs(getattr(peaks, key) - other).max(axis=-1, keepdims=True)
        assert (np.abs(one - other) <= near + 1e-3 * np.asarray(way)).all(), key
    for key, near in {"ids": 0, "picture": 1}.items():
        one, other = getattr(ours, key), getattr(theirs, key)
        if other is not None:
            assert (np.abs(one.astype(int) - other) > near).mean() <= 1e-4
    if theirs.classes is not None:
        assert ours.classes is not None and ours.classes[0].number == theirs.classes[0].number


MEASURE = """
import json, sys, time
from dvsn.portable import Model
import numpy as np
model = Model(sys.argv[1], threads=1)
started = time.process_time()
photo = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), np.uint8)
for _ in range(3):
    result = model(photo, size="keep")
assert result.ids.shape == (1024, 2048)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([started, peak / 1000]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_pidnet_s_starts_in_a_second_and_stays_below_500_megabytes(tmp_path: Path) -> None:
    checkpoint = unpack("segmentation", tmp_path)
    content = torch.load(checkpoint, weights_only=False)
    header = content["dvsn"]
    header["recipe"]["network"] |= {
        "width": 32, "blocks": 2, "deep_blocks": 3, "pyramid_width": 96, "head_width": 128, "heads": False,
    }  # fmt: skip
    torch.manual_seed(0)
    content["state_dict"] = build_task(header["recipe"], data=header["data"]).state_dict()
    torch.save(content, checkpoint)
    file = export(COMMAND.parse([str(checkpoint), "size=1024x2048", "batch=1"]))
    run_line = [sys.executable, "-c", MEASURE, str(file)]
    done = subprocess.run(
        run_line, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    started, peak = json.loads(done.stdout)
    assert started < 1, f"{started:.2f} seconds of processor time"
    assert peak < 500, f"{peak:.0f} MB"
