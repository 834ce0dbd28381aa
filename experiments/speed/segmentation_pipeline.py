"""Training crops of Cityscapes a second on one core, and where the time goes.

    OMP_NUM_THREADS=1 python experiments/speed/segmentation_pipeline.py > experiments/speed/segmentation_pipeline.md

Two scenes of 1024x2048 with the file sizes of the real data (drawn by `input_pipeline.py`) go through the data
module of `experiment=pidnet_s_cityscapes`: decode photo and label ids, outlines, RandomScale, pad, crop of
1024x1024, mirror, tensors. Each part is timed inside the same runs, by the process's own processor time on one
thread; the fastest of several rounds over the same items counts. Lasts half a minute. `rounds=`, `epochs=`.
"""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations.augmentations.geometric.functional as geometric
import cv2
import numpy as np
import torch
from hydra import compose
from input_pipeline import SCENES, draw
from omegaconf import OmegaConf

from dvsn.config.build import build
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data import augment, cityscapes, transforms
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_rgb
from dvsn.engine import trainer as runtime
from dvsn.engine.run_folder import environment

SETTINGS = {"rounds": "4", "epochs": "16"}
WATCHED: dict[str, tuple[Any, str]] = {
    "decode photo": (cityscapes, "read_rgb"),
    "decode label ids": (cityscapes, "read_labels"),
    "outlines of the label": (transforms, "boundary_map"),
    "resize photo, label and outlines": (augment, "_resize"),
    "pad (which copies, needed or not)": (geometric, "copy_make_border_with_value_extension"),
    "tensors": (transforms, "_tensor"),
}
REST = "rest (class ids, crop, mirror, checks)"


class Watch:
    """Adds up the processor time that the watched functions take, in milliseconds."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(WATCHED, 0.0)
        for part, (module, name) in WATCHED.items():
            setattr(module, name, self._timed(part, getattr(module, name)))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            self.spent[part] += 1e3 * (time.process_time() - start)
            return result

        return call

    def items(self, data: ImageDataset, keys: list[tuple[int, int]]) -> dict[str, float]:
        """Milliseconds an item by part, `whole` included."""
        self.spent.update(dict.fromkeys(self.spent, 0.0))
        start = time.process_time()
        for key in keys:
            data[key]
        found = self.spent | {"whole": 1e3 * (time.process_time() - start)}
        found[REST] = found["whole"] - sum(self.spent.values())
        return {part: value / len(keys) for part, value in found.items()}


def training_set(root: Path, *overrides: str) -> ImageDataset:
    """The training split as `python -m dvsn.train experiment=pidnet_s_cityscapes` opens it."""
    words = [
        "experiment=pidnet_s_cityscapes",
        f"data.root={root}",
        f"run_dir={root}",
        "name=speed",
        *overrides,
    ]
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose("train", overrides=words), resolve=True)
    data = runtime.build_data(config)
    data.outlines = build(config["loss"], path="loss").boundary_options
    return data.open("train", augment=True)


def window_only(photo: np.ndarray, factor: float, side: int = 1024) -> tuple[float, float, float]:
    """Milliseconds of resizing all and cropping, of computing the crop alone, and the share of other bytes."""
    height, width = (round(factor * each) for each in photo.shape[:2])
    top, left = (height - side) // 2, (width - side) // 2
    rows = (np.arange(top, top + side, dtype=np.float32) + 0.5) * photo.shape[0] / height - 0.5
    columns = (np.arange(left, left + side, dtype=np.float32) + 0.5) * photo.shape[1] / width - 0.5
    grid = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    times, results = [], []
    for run in (
        lambda: cv2.resize(photo, (width, height))[top : top + side, left : left + side],
        lambda: cv2.remap(photo, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    ):
        start = time.process_time()
        results.append(run())
        times.append(1e3 * (time.process_time() - start))
    return times[0], times[1], float((results[0] != results[1]).mean())


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    settings = SETTINGS | dict(argument.split("=") for argument in sys.argv[1:])
    keys = [(epoch, index) for epoch in range(int(settings["epochs"])) for index in range(SCENES)]
    watch = Watch()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root)
        sets = {
            "as published": training_set(root),
            "always scaled by 2.1": training_set(root, "transform.low=2.1"),
            "without outlines": training_set(root, "loss=cross_entropy"),
        }
        best: dict[str, dict[str, float]] = {}
        for _ in range(int(settings["rounds"])):
            for name, data in sets.items():
                found = watch.items(data, keys)
                best[name] = min(found, best.get(name, found), key=lambda parts: parts["whole"])
        sizes = {kind: np.mean([path.stat().st_size for path in root.rglob(f"*{kind}.png")]) / 2**20
                 for kind in ("leftImg8bit", "labelIds")}  # fmt: skip
        photo = read_rgb(next(root.rglob("*_leftImg8bit.png")))
        windows = [window_only(photo, factor) for factor in (1.3, 2.1) for _ in range(5)]

    facts = environment()
    command = " ".join(["python", "experiments/speed/segmentation_pipeline.py", *sys.argv[1:]])
    print("# Training crops of Cityscapes on one core\n")
    print(f"`{command}`, {datetime.date.today()}\n")
    print(
        f"{facts['processor']}, shared with other jobs (load average {load:.1f} at the start); Python",
        end=" ",
    )
    print(f"{facts['python']}, torch {facts['versions']['torch']}, OpenCV {cv2.__version__}.")
    print(
        f"One thread, processor time; the mean of {len(keys)} items, the fastest of {settings['rounds']} rounds.\n"
    )
    print(
        f"{SCENES} scenes of 1024x2048: photo {sizes['leftImg8bit']:.2f} MB, ids {sizes['labelIds']:.2f} MB, PNG.\n"
    )
    print("| part | " + " | ".join(f"{name}, ms | share" for name in best) + " |")
    print("|---|" + "---|---|" * len(best))
    for part in (*WATCHED, REST):
        cells = [f"{parts[part]:.1f} | {parts[part] / parts['whole']:.0%}" for parts in best.values()]
        print(f"| {part} | " + " | ".join(cells) + " |")
    print("| **whole** | " + " | ".join(f"**{parts['whole']:.1f}** | " for parts in best.values()) + " |")
    print(
        "| **crops a second** | " + " | ".join(f"**{1e3 / p['whole']:.1f}** | " for p in best.values()) + " |"
    )
    usual = best["as published"]
    share = (usual["decode photo"] + usual["decode label ids"]) / usual["whole"]
    print(
        f"\nDecoding is {share:.0%} of the work. A PNG is one stream from its first line to its last, so no crop"
    )
    print("can be read without what stands before it.\n")
    (all_1, part_1, other_1), (all_2, part_2, other_2) = (
        (*(min(row[i] for row in rows) for i in (0, 1)), rows[0][2]) for rows in (windows[:5], windows[5:])
    )
    print("To resize only what the crop needs, OpenCV has `remap`, which is not `resize` to the bit:")
    print(
        f"at 1.3 it takes {part_1:.1f} ms instead of {all_1:.1f} and {other_1:.0%} of the bytes differ, at 2.1",
        end=" ",
    )
    print(f"{part_2:.1f} instead of {all_2:.1f} and {other_2:.0%}.")


if __name__ == "__main__":
    main()
