"""What several test files need: a composed config, and tiny pictures on disk."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from dvsn.config.compose import initialized
from dvsn.config.menu import choices, conf_dir

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


TINY_CLASSIFICATION = [
    "task=classification", "network=resnet8", "transform=none", "callbacks=none", "logger=none", "trainer=cpu",
    "trainer.enable_progress_bar=false", "data.workers=0", "data.classes=3", "data.batch_size=3", "data.eval_batch_size=3",
]  # fmt: skip
"""A classifier of `nine_blobs`, three steps an epoch."""


PLAIN_VALUE = re.compile(
    r"(?P<key>\w+(\.\w+)*)=(?P<value>/[^\s,\[\]{}'\"]*|-?\d+(\.\d+)?|true|false|[a-z]\w*)"
)
"""An override whose value is a number, a truth, a word or an absolute path."""
ABSENT = object()
TABLES = ("data.dataset.", "hydra.", "name=")
"""Overrides that the composition itself has to see."""


def composed(overrides: list[str], run_dir: Path) -> dict[str, Any]:
    """The resolved config of a command line, as plain data.

    Plain values are set afterwards, so that lines that choose the same groups are composed once.
    """
    whole = [each.partition("=")[0].lstrip("+~") for each in overrides if not is_plain(each)]
    plain = [each for each in overrides if is_plain(each) and not within(each.partition("=")[0], whole)]
    others = tuple(each for each in overrides if each not in plain)
    config = copy.deepcopy(_composed(conf_dir(), others))
    for each in (f"run_dir={run_dir}", *plain):
        key, _, value = each.partition("=")
        if not key.startswith("run_dir") and OmegaConf.select(config, key, default=ABSENT) is ABSENT:
            return composed_whole(overrides, run_dir)  # ends in Hydra's own message
        OmegaConf.update(config, key, value_of(value))
    return resolved(config)


def within(key: str, others: list[str]) -> bool:
    """Whether one of the others is this key, or a mapping around it: their order matters then."""
    return any(f"{key}.".startswith(f"{each}.") for each in others if each not in groups())


def is_plain(override: str) -> bool:
    found = PLAIN_VALUE.fullmatch(override)
    own = {"null", "nan", "inf"}  # words that have a meaning in Hydra
    return bool(
        found
        and found["value"] not in own
        and found["key"] not in groups()
        and not override.startswith(TABLES)
    )


@functools.cache
def groups() -> set[str]:
    return set(choices())


def value_of(text: str) -> str | int | float | bool:
    """A value of `PLAIN_VALUE`."""
    if text in ("true", "false"):
        return text == "true"
    if text.lstrip("-").isdigit():
        return int(text)
    return float(text) if text[0] in "-0123456789" else text


def composed_whole(overrides: list[str], run_dir: Path) -> dict[str, Any]:
    """The same by Hydra alone."""
    return resolved(_composed(conf_dir(), (*overrides, f"run_dir={run_dir}")))


def resolved(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@functools.cache
def _composed(folder: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialized(folder):
        return compose("train", overrides=["name=test", *overrides])


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


TINY_SEGMENTATION = [
    "task=segmentation",
    "data=segmentation",
    "data.dataset.names=[left,right,rest]",
    "data.dataset.palette=null",
    "data.classes=3",
    "data.batch_size=2",
    "data.drop_last=false",
    "data.workers=0",
    "transform.base=0",
    "transform.crop_height=64",
    "transform.crop_width=64",
    "callbacks=none",
    "logger=none",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "network.width=4",
    "network.pyramid_width=4",
    "network.head_width=8",
    "loss.terms.main.min_kept=100",
    "loss.terms.main_at_boundary.min_kept=100",
]
"""A PIDNet of some hundred thousand weights on 64 x 64 pictures."""


def write_scenes(root: Path, *, train: int = 6, val: int = 3, size: int = 64, seed: int = 0) -> Path:
    """Photos of two coloured halves on a grey ground, and their label files: 0 left, 1 right, 2 the rest."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", val)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            top, left = random.integers(4, size // 3, 2)
            ids = np.full((size, size), 2, np.uint8)
            ids[top:-top, left : size // 2] = 0
            ids[top:-top, size // 2 : -left] = 1
            colours = np.array([[200, 40, 40], [40, 40, 200], [120, 120, 120]], np.float64)[ids]
            photo = (colours + random.normal(0, 12, colours.shape)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(root / split / "images" / f"{split}{index}.png"), photo)
            cv2.imwrite(str(root / split / "labels" / f"{split}{index}.png"), ids)
    return root


TINY_POSE = [
    "task=pose",
    "data=lspet",
    "data.keypoints.names=[nose,left_hand,right_hand,tail]",
    "data.keypoints.pairs=[[left_hand,right_hand]]",
    "data.keypoints.skeleton=[[nose,tail],[left_hand,right_hand]]",
    "data.keypoints.upper_body=[nose]",
    "data.joints=4",
    "data.batch_size=4",
    "data.workers=0",
    "transform.size=[64,64]",
    "callbacks=none",
    "logger=none",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "network=hrnet_small",
    "network.width=4",
    "network.bottlenecks=1",
    "network.bottleneck_width=8",
    "network.blocks=1",
]
"""An HRNet of some ten thousand weights on crops of 64 x 64."""


def write_people(root: Path, *, train: int = 12, val: int = 4, size: int = 80, seed: int = 0) -> Path:
    """Kites, a coloured spot at each keypoint, as a table; the last of each split lacks its tail."""
    random = np.random.default_rng(seed)
    colours = {
        "nose": (255, 255, 255),
        "left_hand": (220, 40, 40),
        "right_hand": (40, 40, 220),
        "tail": (40, 200, 40),
    }
    (root / "images").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        lines = ["image,width,height," + ",".join(f"{name}_{part}" for name in colours for part in "xyv")]
        for index in range(count):
            x, y = random.uniform(0.35 * size, 0.65 * size, 2)
            reach = random.uniform(0.15, 0.25) * size
            points = [(x, y - reach), (x + reach, y), (x - reach, y), (x, y + 1.2 * reach)]
            picture = random.integers(90, 130, (size, size, 3), dtype=np.uint8)
            values = []
            for number, (point, colour) in enumerate(zip(points, colours.values(), strict=True)):
                place = (round(16 * point[0]), round(16 * point[1]))
                cv2.circle(picture, place, 16 * size // 16, colour[::-1], -1, cv2.LINE_AA, shift=4)
                seen = not (index == count - 1 and number == 3)
                values += [f"{point[0]:.2f},{point[1]:.2f},1" if seen else "0,0,0"]
            cv2.imwrite(str(root / "images" / f"{split}{index}.png"), picture)
            lines.append(f"{split}{index}.png,{size},{size}," + ",".join(values))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


COLOURS = {"blue": (220, 40, 40), "green": (40, 220, 40), "red": (40, 40, 220)}  # as OpenCV has them: BGR


def write_blobs(root: Path, *, size: int = 32, train: int = 6, val: int = 2) -> Path:
    """Noise in three colours, a class each."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", val)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                noise = random.integers(-40, 41, (size, size, 3))
                picture = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{index}.png"), picture)
    return root


TINY_DETECTION = [
    "task=detection", "network=detector_small", "network.backbone.channels=8", "network.min_size=48",
    "network.max_size=64", "network.anchors=[8,16,24,32,48]", "network.proposals=50", "network.sampled=16",
    "data.people=null", "data.object_classes=4", "data.batch_size=2", "data.workers=0",
    "network.score_threshold=0.001", "optim.lr=0.005", "schedule=constant",
    "callbacks=none", "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1",
]  # fmt: skip
