"""End to end on the embedded data: what is learnt beats a picture that knows nothing of the labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from dvsn.train import train
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
            "data.height=64", "data.width=128", "network.width=12", "network.depth=5",
            f"transform.load_height={SIZE[0]}", f"transform.load_width={SIZE[1]}",
            f"transform.crop_height={SIZE[0]}", f"transform.crop_width={SIZE[1]}", "optim.lr=0.002",
            "trainer=cpu", "trainer.max_epochs=6", "trainer.enable_progress_bar=false", "logger=none",
            "trainer.check_val_every_n_epoch=6", "schedule.constant_epochs=6",
        ],
        tmp_path / "run",
    )  # fmt: skip
    result = train(config)
    baseline = blurred_mean_psnr(root)
    assert 8 < baseline < 20
    assert result["metrics"]["val/psnr"] > baseline + MARGIN
    assert (tmp_path / "run" / "pictures" / "latest.png").stat().st_size > 1000
