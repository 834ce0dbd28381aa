"""Run folders as training and evaluation leave them, made by hand in milliseconds, for tests of reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dvsn.analysis.record import Analysis, Cell, Chart, Curve, Matrix, Picture
from dvsn.pictures.grids import grid
from dvsn.pictures.layout import place

CLASSES = ("road", "<b>person</b>", "rider & horse")
COUNTS = ((90.0, 0.0, 10.0), (0.0, 60.0, 40.0), (5.0, 0.0, 95.0))
"""By hand: 40 persons were taken for riders; of riders nothing was taken for a person."""


def write_run(
    folder: Path, *, name: str = "tiny", epochs: int = 3, shift: float = 0.0, **changes: Any
) -> Path:
    """A run of segmentation of two steps an epoch, whose miou at epoch e is 0.1 e + `shift`."""
    folder.mkdir(parents=True)
    config = {
        "seed": 0, "name": name, "run_dir": str(folder), "monitor": {"name": "val/miou", "mode": "max"},
        "network": {"_target_": "dvsn.networks.ddrnet.DDRNet", "width": 24},
        "data": {"dataset": {"_target_": "dvsn.data.cityscapes.Cityscapes"}, "root": "data/street", "classes": 3},
        "loss": {"terms": {"main": {"weight": 1.0}}}, "optim": {"_target_": "torch.optim.AdamW", "lr": 0.003},
        "trainer": {"max_epochs": epochs}, "logger": {"csv": {"folder": str(folder)}},
    }  # fmt: skip
    config |= changes
    config["task"] = {"_target_": "dvsn.tasks.segmentation.Segmentation", "network": config["network"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "command.txt").write_text("python -m dvsn.train experiment=demo_segmentation name=<tiny>\n")
    head = "step,train/main,epoch,system/lr_network,system/gradient_norm,val/miou,val/dice"
    lines = [head]
    for epoch in range(epochs):
        lines.append(f"{2 * epoch},{3.0 - epoch},{epoch},0.003,1.5,,")
        lines.append(f"{2 * epoch + 1},{2.5 - epoch},{epoch},0.002,1.25,{0.1 * (epoch + 1) + shift:.6g},0.5")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    result = {
        "monitor": "val/miou", "best": 0.1 * epochs + shift, "best_epoch": epochs, "epochs": epochs, "seconds": 75.0,
        "parameters": 12345, "metrics": {"val/miou": 0.1 * epochs + shift},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_grids(folder: Path, epochs: Sequence[int] = (1, 2, 3), *, layout: bool = True) -> None:
    """Grids of two pictures, whose prediction becomes lighter from epoch to epoch; the photo and the label stay."""
    (folder / "pictures").mkdir(exist_ok=True)
    titles = ["photo", "prediction", "label"]
    for epoch in epochs:
        shades = [40, 60 * epoch, 200]
        rows = [[np.full((32, 48, 3), shade + row, np.uint8) for shade in shades] for row in range(2)]
        Image.fromarray(grid(rows, titles)).save(folder / "pictures" / f"epoch_{epoch:04d}.png")
        if layout:
            place(rows, ["a", "b"], titles).write(folder / "pictures")


def write_analysis(folder: Path, *, shift: float = 0.0, pictures: int = 4, **changes: Any) -> Path:
    """An evaluation of some pictures `town_N` of miou 0.1 N + 0.1, of which the two worst and the best are kept."""
    place_of = folder / "evaluation" / "best_val"
    files = {
        0: "worst/0001_town_0.jpg",
        1: "worst/0002_town_1.jpg",
        pictures - 1: f"best/0001_town_{pictures - 1}.jpg",
    }
    for number, file in files.items():
        (place_of / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 120, 3), min(255, 60 * number), np.uint8)).save(place_of / file)
    record = {
        "task": "segmentation", "checkpoint": "best.ckpt", "split": "val", "samples": pictures, "score": "miou",
        "better": "more", "classes": CLASSES,
        "tables": {"Classes": [{"class": name, "iou": 0.25 * number + shift, "pixels": 100 * number, "note": None}
                               for number, name in enumerate(CLASSES, start=1)]},
        "charts": (
            Chart("calibration", "Calibration", "confidence", "accuracy", (Curve("all", (0.1, 0.9), (0.2, 0.7)),),
                  diagonal=True, note="Below the line it is too sure."),
            Chart("kinds", "Kinds of errors", "kind", "errors", (Curve("val", CLASSES, (1.0, 2.0, None)),), kind="bars"),
        ),
        "matrices": (Matrix("confusion", "Confusion", CLASSES, CLASSES, COUNTS, unit="pixels"),),
        "pictures": tuple(
            Picture(f"town_{number}", round(0.1 * number + 0.1 + shift * number, 6), {"accuracy": 0.5}, files.get(number),
                    (Cell(1, 2, 10.0 * (number + 1)),), "<i>person</i> taken for rider")
            for number in range(pictures)
        ),
    }  # fmt: skip
    return Analysis(**{**record, **changes}).write(place_of)
