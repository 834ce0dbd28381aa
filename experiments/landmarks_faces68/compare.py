"""Every run of the study measured, and the best and worst faces of the recipe drawn.

    python experiments/landmarks_faces68/compare.py runs/landmarks_faces68

Writes into this folder: table.csv, the inter-ocular NME of each run's last checkpoint on the validation range and on test,
with the crop made from the true points and from the picture's frame; and of the recipe metrics.csv, config.yaml, ced.png and
faces.jpg: the best, middle and worst faces of test (truth above, prediction with the head's axes below).
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dvsn
from dvsn.engine import trainer as runtime
from dvsn.geometry.head_angles import head_angles
from dvsn.metrics.ced import area_under_curve, failure_rate
from dvsn.pictures import distributions
from dvsn.pictures.grids import grid, write_picture
from dvsn.portable.draw import draw_head, draw_skeleton
from dvsn.tasks.keypoints import to_picture

HERE = Path(__file__).parent
EYES = (36, 45)  # outer corners
SHOWN = 6  # faces a row
SIDE = 224  # pixels of a face in the picture


def open_data(task: Any, split: str) -> Any:
    data = runtime.build_data({"data": task.data_recipe})
    task.ask_data(data)
    return data.open(split)


def measure(task: Any, dataset: Any) -> np.ndarray:
    """The inter-ocular NME of each face, (R,)."""
    errors = []
    for first in range(0, len(dataset), 64):
        items = [dataset[i] for i in range(first, min(first + 64, len(dataset)))]
        batch = {key: torch.stack([item[key] for item in items]) for key in ("image", "inverse", "offset")}
        with torch.inference_mode():
            points = to_picture(task(batch["image"], batch["offset"])[..., :2], batch["inverse"]).numpy()
        truth = np.stack([dataset.records[i].keypoints for i in range(first, first + len(items))])
        apart = np.linalg.norm(truth[:, EYES[0]] - truth[:, EYES[1]], axis=1)
        errors.append(np.linalg.norm(points - truth, axis=2).mean(axis=1) / apart)
    return np.concatenate(errors)


def draw(task: Any, dataset: Any, errors: np.ndarray) -> np.ndarray:
    """A picture of the best, the middle and the worst faces."""
    order = np.argsort(errors)
    middle = len(order) // 2 - SHOWN // 2
    chosen = [order[:SHOWN], order[middle : middle + SHOWN], order[::-1][:SHOWN]]
    rows = []
    for numbers in chosen:
        truth, predicted = [], []
        for number in numbers:
            item = dataset[int(number)]
            crop = item["image"].permute(1, 2, 0).numpy()
            zoom = SIDE / crop.shape[0]
            with torch.inference_mode():
                points = task(item["image"][None])[0, :, :2].numpy()
            large = np.kron(crop, np.ones((round(zoom), round(zoom), 1), np.uint8))
            for panels, places in ((truth, item["keypoints"].numpy()), (predicted, points)):
                picture = large.copy()
                draw_skeleton(picture, zoom * places, np.ones(len(places)), task.keypoints)
                angles = head_angles(places / crop.shape[0], head=task.keypoints.head)
                if angles is not None:
                    draw_head(picture, zoom * places, angles, task.keypoints)
                panels.append(picture)
        rows += [truth, predicted]
    titles = [
        f"{100 * errors[n]:.1f} / {100 * errors[m]:.1f} / {100 * errors[w]:.1f} %"
        for n, m, w in zip(*chosen, strict=True)
    ]
    return grid(rows, titles)


def main(runs: Path) -> None:
    table = []
    for folder in sorted(path.parent for path in runs.glob("*/config.yaml")):
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if not checkpoint.is_file():
            continue
        task = dvsn.load(str(checkpoint)).eval()
        row: dict[str, Any] = {"run": folder.name}
        for split in ("val", "test"):
            errors = measure(task, open_data(task, split))
            row |= {f"{split}_faces": len(errors), f"{split}_nme": round(100 * float(errors.mean()), 3)}
        row |= {
            "test_fr_10": round(100 * failure_rate(errors, 0.10), 2),
            "test_auc_10": round(area_under_curve(errors, 0.10), 4),
        }
        task.flip_test, mirrored = False, task.flip_test
        row["test_nme_without_mirror"] = round(100 * float(measure(task, open_data(task, "test")).mean()), 3)
        task.flip_test = mirrored
        table.append(row)
        sys.stdout.write(f"{row}\n")
        if folder.name == "recipe":
            dataset = open_data(task, "test")
            write_picture(HERE / "faces.jpg", draw(task, dataset, errors))
            write_picture(HERE / "ced.png", distributions.picture({"test": errors}))
            shutil.copy(folder / "metrics.csv", HERE / "metrics.csv")
            config = (folder / "config.yaml").read_text(encoding="utf-8")
            for own, shown in ((task.data_recipe["root"], "$DVSN_DATA/faces68"), (folder.resolve(), "RUN")):
                config = config.replace(str(own), shown)
            (HERE / "config.yaml").write_text(config, encoding="utf-8")
    with (HERE / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
