"""Prediction of detection: objects drawn on each picture, and all of them as COCO JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.atomic import replacing
from dvsn.data.files import read_rgb
from dvsn.metrics.detection import coco_results, with_file_ids
from dvsn.pictures.grids import grid, write_picture
from dvsn.predict.command import refuse_others
from dvsn.predict.person_boxes import picture_ids

log = logging.getLogger("dvsn")

OPTIONS = ("annotations", "score", "side_by_side")


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """A drawn picture for each (picture, target), and detections.json of all. Returns the files written.

    The JSON is in COCO's results format, the best objects of a picture first. It holds all that the network answers,
    so that `dvsn.predict` of pose can choose; drawn are those above the recipe's `shown`. `score` replaces both.
    """
    refuse_others(options, OPTIONS, task.kind)
    file = options["annotations"]
    ids = picture_ids([source for source, _ in items], None if file is None else Path(file))
    least = 0.0 if options["score"] is None else float(options["score"])
    if options["score"] is not None:
        task.shown_from = least
    results: list[dict[str, Any]] = []
    for start in range(0, len(items), int(options["batch_size"])):
        batch = items[start : start + int(options["batch_size"])]
        photos = [read_rgb(source) for source, _ in batch]
        images = [torch.from_numpy(photo.transpose(2, 0, 1)).to(device) for photo in photos]
        with torch.inference_mode():
            answers = task(images)
        for (source, target), photo, found in zip(batch, photos, answers, strict=True):
            results += [each for each in coco_results(found, ids[source]) if each["score"] >= least]
            picture = task.draw(photo, found)
            if options["side_by_side"]:
                picture = grid([[np.ascontiguousarray(photo), picture]], ["input", "objects"])
            write_picture(target, picture)
    known = (task.data_recipe.get("objects") or {}).get("ids") or {}
    results = with_file_ids(results, {int(label): int(number) for label, number in known.items()})
    path = Path(options["output"]) / "detections.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(results), encoding="utf-8")
    log.info("%d objects in %d pictures, in %s", len(results), len(items), options["output"])
    return [*(target for _, target in items), path]
