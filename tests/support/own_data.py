"""Small data sets as people bring them: textured photos, masks of blocks, and ways to store these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (32, 48)
PALETTE = np.array([[0, 0, 0], [220, 20, 60], [0, 160, 0], [0, 0, 255]], np.uint8)
Coder = Callable[[np.ndarray], np.ndarray]


def scene(number: int, *, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A photo (H, W, 3) of spots and noise in which blocks are tinted, and their ids (H, W); every class is in each."""
    rng = np.random.default_rng(number)
    spots = cv2.resize(
        rng.integers(60, 150, (4, 6, 3), dtype=np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC
    )
    ids = np.zeros(SIZE, np.uint8)
    for each in range(1, classes):
        x, y = 12 * each + int(rng.integers(-2, 2)), int(rng.integers(2, 16))
        ids[y : y + 12, x - 4 : x + 5] = each
    tints = np.array([[0, 0, 0], [90, 0, -50], [-50, 80, 0], [-40, -20, 100]])[ids]
    noise = rng.integers(-20, 20, (*SIZE, 3))
    return np.clip(spots + tints + noise, 0, 255).astype(np.uint8), ids


def save(path: Path, array: np.ndarray, *, palette: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.ravel().tolist())
    image.save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))


def write_masks(
    root: Path,
    photo: str = "images/{i}.jpg",
    mask: str = "labels/{i}.png",
    code: Coder = lambda ids: ids,
    *,
    count: int = 6,
    splits: Sequence[str] = ("",),
    palette: np.ndarray | None = None,
) -> None:
    """`count` photos and masks for each split; `{s}` and `{i}` in the names are split and number."""
    for place, split in enumerate(splits):
        for number in range(count):
            picture, ids = scene(100 * place + number)
            save(root / photo.format(s=split, i=f"p{number}"), picture)
            save(root / mask.format(s=split, i=f"p{number}"), code(ids), palette=palette)


def write_classes(root: Path, counts: dict[str, int]) -> None:
    """Pictures of noise by folder: {"train/cat": 3}."""
    for place, (folder, count) in enumerate(counts.items()):
        for number in range(count):
            rng = np.random.default_rng([place, number])
            save(
                root / folder / f"{folder[-3:]}{number}.png",
                rng.integers(0, 256, (20, 20, 3), dtype=np.uint8),
            )
