"""What several test files need: a composed config, and tiny pictures on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dvsn.config import conf_dir

TINY = [
    "task=pix2pix",
    "data=folders",
    "transform=none",
    "callbacks=none",
    "logger=none",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "network=unet_128",
    "network.depth=3",
    "network.width=4",
    "discriminator=n_layers",
    "discriminator.layers=1",
    "discriminator.width=4",
    "data.workers=0",
]
"""A pix2pix of a few thousand weights on 16 x 16 pictures: a step takes milliseconds."""


def composed(overrides: list[str], run_dir: Path) -> dict[str, Any]:
    """The resolved config of a command line, as plain data."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", overrides=["name=test", f"run_dir={run_dir}", *overrides])
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def write_pairs(root: Path, *, train: int = 10, val: int = 3, size: int = 16, seed: int = 0) -> Path:
    """Two folders of equal names: random colour blocks, and the same blocks inverted."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", val)):
        for folder in ("a", "b"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            picture = cv2.resize(blocks, (size, size), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(root / split / "a" / f"{index:03d}.png"), picture)
            cv2.imwrite(str(root / split / "b" / f"{index:03d}.png"), 255 - picture)
    return root
