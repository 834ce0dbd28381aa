"""`dvsn.train` and `dvsn.evaluate` as functions: the command's runs, bit for bit; and docs/python.md, line by line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import dvsn
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.train import compose_and_train
from dvsn.weights import read_checkpoint
from tests.support.six_tasks import TASKS, write_checkpoint
from tests.support.tiny import TINY, TINY_SEGMENTATION, write_pairs, write_scenes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(path)["state_dict"]
    return found


def test_a_run_is_the_commands(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in one process, and by the command line: equal weights, scores and files."""
    write_pairs(inside / "pairs", train=4)
    lines = [*TINY, f"data.root={inside}/pairs", "name=tiny", "trainer.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", ["train", *lines, "run_dir=runs/command"])
    compose_and_train()
    first = dvsn.train(*TINY, root=inside / "pairs", name="tiny", max_epochs=1, run_dir="runs/first")
    second = dvsn.train(
        *TINY, root=inside / "pairs", name="tiny", max_epochs=1, run_dir="runs/second", seed=0
    )
    assert first.folder.name == "first" and first.last is not None and second.last is not None
    expected = weights(inside / "runs" / "command" / "checkpoints" / "last.ckpt")
    for run in (first, second):
        found = weights(run.folder / "checkpoints" / "last.ckpt")
        assert found.keys() == expected.keys() and all(
            torch.equal(found[key], expected[key]) for key in expected
        )
        files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
        command = inside / "runs" / "command"
        assert files == {
            path.relative_to(command).as_posix() for path in command.rglob("*") if path.is_file()
        }
    told = json.loads((inside / "runs" / "command" / "result.json").read_text())
    values = {key: value for key, value in told["metrics"].items() if key.startswith(("val/", "train/"))}
    assert {key: first.metrics[key] for key in values} == values
    assert (first.score, first.monitor, first.epochs, first.steps) == (
        told["best"],
        told["monitor"],
        1,
        told["steps"],
    )
    said = (first.folder / "command.txt").read_text()
    assert "name=tiny" in said and "trainer.max_epochs=1" in said and f"data.root={inside}/pairs" in said
    scores = dvsn.evaluate(first, split="val", accelerator="cpu", enable_progress_bar=False)
    assert (
        scores.samples == 3 and scores["l1"] == scores.metrics["l1"] and set(scores) == {"l1", "psnr", "ssim"}
    )
    assert scores.folder == first.folder / "evaluation" / f"{Path(scores.checkpoint).stem}_val"
    answers = [
        dvsn.predict(made, np.zeros((32, 32, 3), np.uint8)).picture for made in (first, dvsn.load(first))
    ]
    assert np.array_equal(*answers)
    other = dvsn.evaluate(
        first.last, split="test", accelerator="cpu", output=inside / "out", enable_progress_bar=False
    )
    assert other.folder == inside / "out" and other.split == "test" and "l1" in str(other)


def test_what_is_wrong_is_an_error_of_ours(inside: Path) -> None:
    with pytest.raises(ConfigError, match="nettwork: train has no such option"):
        dvsn.train(nettwork="unet_128")
    with pytest.raises(ConfigError, match=r"trainer.max_epochs: .* found 'many'"):
        dvsn.train(*TINY, max_epochs="many")
    with pytest.raises(ConfigError, match="--config-dir: there is no folder"):
        dvsn.train(*TINY, config_dir="nowhere")
    with pytest.raises(DataError, match="nowhere"):
        dvsn.train(*TINY, root=str(inside / "nowhere"), name="tiny")
    with pytest.raises(CheckpointError, match=r"gone.ckpt"):
        dvsn.evaluate("gone.ckpt", accelerator="cpu")
    with pytest.raises(ConfigError, match="split: found 'all'"):
        dvsn.evaluate("gone.ckpt", split="all")


def test_the_modules_of_the_commands_can_be_called() -> None:
    import dvsn.evaluate
    import dvsn.train

    assert callable(dvsn.train) and callable(dvsn.evaluate) and "max_epochs" in str(dvsn.train.__doc__)
    assert dvsn.train.COMMAND.name == "train" and dvsn.evaluate.COMMAND.name == "evaluate"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        dvsn.trian  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_about_python_runs(inside: Path) -> None:
    """Each of its blocks, in their order, in one process: six tasks, a training of one epoch, an evaluation."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks)
    for name in TASKS:
        write_checkpoint(name, inside)
    (inside / "photos").mkdir()
    random = np.random.default_rng(0)
    for name in ("photo.jpg", "photos/1.jpg", "photos/2.jpg"):
        picture = cv2.resize(random.integers(0, 256, (4, 4, 3), dtype=np.uint8), (64, 64))
        cv2.imwrite(str(inside / name), picture)
    write_scenes(inside / "scenes", train=2, val=1)
    (inside / "my_conf" / "data").mkdir(parents=True)
    (inside / "my_conf" / "data" / "mine.yaml").write_text(
        f"defaults: [segmentation, _self_]\nroot: {inside}/scenes\n"
    )
    tiny = [
        option for option in TINY_SEGMENTATION if option not in ("task=segmentation", "data=segmentation")
    ]
    call = '"data=mine", config_dir="my_conf", max_epochs=20'
    assert len(blocks) == 5 and code.count(call) == 1
    code = code.replace(call, f'"data=mine", *{tiny!r}, config_dir="my_conf", max_epochs=1')
    known: dict[str, Any] = {}
    exec(compile(code, "docs/python.md", "exec"), known)
    same = [each.ids for each in known["same"]]
    assert all(np.array_equal(same[0], each) for each in same[1:])
    assert known["objects"].to_json() == known["again"].to_json() and (inside / "seen.png").is_file()
    assert known["faces"].points.shape == (1, 68, 3) and known["faces"].boxes.tolist() == [[8, 8, 56, 56]]
    assert known["result"].names == ("left", "right", "rest") and known["scores"].samples == 1
