"""Coding and mirror test compared, and the best and worst people drawn.

    python experiments/pose_lspet/compare.py runs/pose_lspet

Writes table.csv and, of the recipe, people.jpg into this folder. Each of the runs msra, dark and udp is evaluated on
val by every reading that its geometry allows, without the mirrored crop, and with it moved by 0 or 1 columns.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dvsn
from dvsn.engine import trainer as runtime
from dvsn.pictures.grids import grid, write_picture
from dvsn.portable.draw import draw_skeleton
from dvsn.tasks.keypoints import to_picture

HERE = Path(__file__).parent
READINGS = ("none", "quarter", "dark", "udp")


def data_of(task: Any) -> Any:
    data = runtime.build_data({"data": task.data_recipe})
    task.ask_data(data)
    return data.open("val")


def predict(task: Any, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points (R, K, 2) in the pictures, and confidences (R, K)."""
    points, confidence = [], []
    for first in range(0, len(dataset), 50):
        items = [dataset[i] for i in range(first, min(first + 50, len(dataset)))]
        batch = {key: torch.stack([item[key] for item in items]) for key in ("image", "inverse")}
        with torch.inference_mode():
            answer = task(batch["image"])
        points.append(to_picture(answer[..., :2], batch["inverse"]).numpy())
        confidence.append(answer[..., 2].numpy())
    return np.concatenate(points), np.concatenate(confidence)


def errors(points: np.ndarray, dataset: Any) -> np.ndarray:
    """(R, K) distances over the torso's length; NaN where not labelled or the torso is unknown."""
    names = dataset.keypoints
    one, other = names.number("left_shoulder"), names.number("right_hip")
    truth = np.stack([record.keypoints for record in dataset.records])
    labelled = np.stack([record.labelled for record in dataset.records]) > 0
    torso = np.linalg.norm(truth[:, one] - truth[:, other], axis=1)
    torso[~(labelled[:, one] & labelled[:, other])] = np.nan
    distance = np.linalg.norm(points - truth, axis=-1) / torso[:, None]
    return np.where(labelled, distance, np.nan)


def share(errors: np.ndarray, threshold: float) -> float:
    known = errors[np.isfinite(errors)]
    return float((known <= threshold).mean())


def rows(folder: Path) -> list[dict[str, Any]]:
    """Every reading and mirror of one run."""
    task: Any = dvsn.load(folder / "checkpoints" / "last.ckpt").eval()
    dataset = data_of(task)
    found = []
    for refine in READINGS:
        for mirror in ("no", 0, 1):
            task.codec.refine, task.flip_test = refine, mirror != "no"
            task.codec.flip_shift = 0 if mirror == "no" else mirror
            distances = errors(predict(task, dataset)[0], dataset)
            found.append(
                {
                    "targets": folder.name,
                    "reading": refine,
                    "mirror, shift": mirror,
                    **{f"PCK@{t}": round(100 * share(distances, t), 2) for t in (0.05, 0.1, 0.2)},
                }
            )
    return found


def people(folder: Path, count: int = 8) -> np.ndarray:
    """The recipe's answers: people where all is right, from the middle, and the worst; prediction and label."""
    task: Any = dvsn.load(folder / "checkpoints" / "last.ckpt").eval()
    dataset = data_of(task)
    points, confidence = predict(task, dataset)
    mean = np.nanmean(np.minimum(errors(points, dataset), 2), axis=1)
    order = [i for i in np.argsort(mean) if np.isfinite(mean[i])]
    middle = len(order) // 2 - count // 2
    table = []
    for chosen in (order[:count], order[middle : middle + count], order[-count:]):
        for answered in (True, False):
            row = []
            for i in chosen:
                photo = dataset.read(i)["photo"].copy()
                record = dataset.records[i]
                given = (points[i], confidence[i]) if answered else (record.keypoints, record.labelled)
                draw_skeleton(photo, *given, dataset.keypoints, threshold=0.05)
                canvas = np.full((200, 200, 3), 255, np.uint8)
                scale = 200 / max(photo.shape[:2])
                import cv2

                small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:200, :200]
                canvas[: small.shape[0], : small.shape[1]] = small
                row.append(canvas)
            table.append(row)
    return grid(table, [""] * count)


def main() -> None:
    runs = Path(sys.argv[1])
    if (runs / "recipe").is_dir():
        write_picture(HERE / "people.jpg", people(runs / "recipe"))
    table = [row for name in ("msra", "dark", "udp") if (runs / name).is_dir() for row in rows(runs / name)]
    if table:
        with (HERE / "table.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        for row in table:
            print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
