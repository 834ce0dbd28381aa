"""Curves and test pictures of the runs: python figures.py RUN_DIR... (each with stage1.ckpt, stage2.ckpt and last.ckpt).

Needs matplotlib. Writes curves.png, and stages_NAME.jpg (label map | three stages | real) for each run, into this folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

import dvsn
from dvsn.engine import trainer as runtime
from dvsn.pictures.grids import grid, shrink, to_array, write_picture
from dvsn.seeding import seed_everything
from dvsn.tasks.pix2pix import to_bytes
from dvsn.weights import read_checkpoint

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PICTURES = [0, 60, 120, 180, 230]


def series(run: Path, name: str) -> tuple[list[int], list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]
    return [step for step, _ in rows], [value for _, value in rows]


def smooth(values: list[float], window: int) -> np.ndarray:
    padded = np.concatenate([[values[0]] * (window - 1), values])
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def curves(runs: list[Path]) -> None:
    names = ["l1", "gan", "discriminator_real", "discriminator_fake", "discriminator_accuracy"]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2))
    for run in runs:
        for axis, name in zip(axes, names, strict=True):
            steps, values = series(run, f"train/{name}")
            axis.plot(steps, smooth(values, max(1, len(values) // 40)), label=run.name)
            axis.set_title(name)
            axis.set_xlabel("step")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(HERE / "curves.png", dpi=70)


def stages(run: Path) -> None:
    files = [run / "stage1.ckpt", run / "stage2.ckpt", run / "checkpoints" / "last.ckpt"]
    columns: dict[str, list[np.ndarray]] = {}
    for file in files:
        task = dvsn.load(file)
        data = runtime.build_data({"data": task.data_recipe}).open("test")
        samples = [data[index] for index in PICTURES]
        title = f"step {read_checkpoint(file, verify=False)['global_step']}"
        columns.setdefault("label map", [to_array(s["image"][None])[0] for s in samples])
        columns[title] = []
        for sample in samples:
            seed_everything(0, rank=0, epoch=0, batch=0, stage=1)
            with torch.inference_mode():
                columns[title].append(to_array(to_bytes(task(sample["image"][None])))[0])
    columns["real"] = [to_array(s["target"][None])[0] for s in samples]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    name = run.name.removeprefix("camvid_")
    write_picture(HERE / f"stages_{name}.jpg", shrink(grid(rows, list(columns)), 1060))


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    curves(folders)
    for folder in folders:
        stages(folder)
