"""End to end on the embedded data: what is learnt beats a picture that knows nothing of the labels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from dvsn.train import train
from tests.support.documented import ROOT, Start, start_fixture  # noqa: F401
from tests.support.tiny import composed

SIZE = (32, 64)
MARGIN = 0.5  # dB above the baseline that the run must reach; measured: 0.9


def blurred_mean_psnr(root: Path) -> float:
    """The mean training photo, blurred, against each validation photo: mean PSNR in dB."""
    photos = {
        split: [
            cv2.resize(cv2.imread(str(file)), SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float64)
            / 255
            for file in sorted((root / "leftImg8bit" / split).rglob("*.png"))
        ]
        for split in ("train", "val")
    }
    mean = cv2.GaussianBlur(np.mean(photos["train"], axis=0), (0, 0), sigmaX=2)
    return float(np.mean([-10 * np.log10(np.mean((photo - mean) ** 2)) for photo in photos["val"]]))


def test_the_demo_recipe_learns(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "street"
    config = composed(
        [
            "experiment=demo", f"data.root={root}", "data.workers=0", "data.scenes={train: 40, val: 8, test: 1}",
            "data.height=64", "data.width=128", "network.width=12", "network.depth=5", "monitor.name=val/psnr",
            f"transform.load_height={SIZE[0]}", f"transform.load_width={SIZE[1]}",
            f"transform.crop_height={SIZE[0]}", f"transform.crop_width={SIZE[1]}", "optim.lr=0.002",
            "trainer=cpu", "trainer.max_epochs=6", "trainer.enable_progress_bar=false", "logger=none",
            "trainer.check_val_every_n_epoch=6",
        ],
        tmp_path / "run",
    )  # fmt: skip
    result = train(config)
    baseline = blurred_mean_psnr(root)
    assert 8 < baseline < 20
    assert result["metrics"]["val/psnr"] > baseline + MARGIN
    assert (tmp_path / "run" / "pictures" / "latest.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "experiments" / "demo" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["pix2pix", "segmentation", "detection", "pose"])
def test_every_line_of_the_demonstration_reaches_its_work(task: str, demo: ModuleType, start: Start) -> None:
    given = start(demo.command(task))
    assert given["task"]["_target_"].lower().endswith(f".{task}")
    assert (
        Path(given["run_dir"]) == Path("runs/demo", task).absolute()
        and given["data"]["root"] == "data/street"
    )
    assert given["trainer"]["max_epochs"] % given["trainer"]["check_val_every_n_epoch"] == 0, (
        "the last one counts"
    )
    scenes = [given["data"][key] for key in ("scenes", "height", "width", "scene_seed")]
    assert scenes == [{"train": 200, "val": 20, "test": 20}, 256, 512, 0], "the same for all, drawn once"


def test_the_strip_shows_what_has_been_trained(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a segmenter alone: the photos of the chosen scenes, and their classes."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    train(
        composed(
            [
                "experiment=demo_segmentation", "data.root=data/street", "data.scenes={train: 8, val: 1, test: 2}",
                "data.height=64", "data.width=128", "data.workers=0", "network.width=4", "transform.crop_height=64",
                "transform.crop_width=64", "trainer=cpu", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1",
                "trainer.enable_progress_bar=false", "logger=none", "callbacks=none",
            ],
            tmp_path / "runs" / "demo" / "segmentation",
        )
    )  # fmt: skip
    columns = demo.columns_of([demo.scene(index) for index in (0, 1)])
    assert list(columns) == ["photo", "classes"]
    assert [picture.shape for picture in columns["classes"]] == [(64, 128, 3)] * 2
    assert demo.strip((0, 1)) == Path("runs/demo/strip.png")
    strip = cv2.imread("runs/demo/strip.png")
    assert strip.shape[1] > 2 * 128 and len(demo.true_boxes(demo.scene(0), least=1e9)) == 0


def test_an_unknown_task_is_refused(demo: ModuleType) -> None:
    with pytest.raises(SystemExit, match="TASK: found poses, expected pix2pix"):
        demo.main(["poses"])
