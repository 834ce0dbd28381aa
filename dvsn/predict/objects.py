"""Prediction of detection: objects drawn on each picture, and all of them as COCO JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.result import Result
from dvsn.predict.person_boxes import PictureIds
from dvsn.predict.predictor import Options, Predictor, grouped

log = logging.getLogger("dvsn")

ASKED = ("annotations", "score")
OPTIONS = (*ASKED, "side_by_side")


class ObjectPredictor(Predictor):
    """The objects of each frame, the best first: all that the network answers, or those from `score` on.

    Drawn are those above the recipe's `shown`, or from `score` on. Options: `annotations`, a COCO file with the pictures'
    numbers, `score`, `batch_size`.
    """

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        super().__init__(task, options, device, sources)
        score, file = options["score"], options["annotations"]
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise ConfigError(f"score: found {score!r}, expected a number from 0 to 1.")
        self.least = 0.0 if score is None else float(score)
        self.shown = float(task.shown_from) if score is None else self.least
        self.ids = PictureIds(self.sources, None if file is None else Path(file))
        known = (task.data_recipe.get("objects") or {}).get("ids") or {}
        self.file_ids = {int(label): int(number) for label, number in known.items()}

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]:
        for batch in grouped(frames, self.batch_size):
            images = [
                torch.from_numpy(np.ascontiguousarray(frame.picture.transpose(2, 0, 1))).to(self.device)
                for frame in batch
            ]
            with torch.inference_mode():
                answers = self.task(images)
            for frame, found in zip(batch, answers, strict=True):
                yield self.result(frame, found)

    def result(self, frame: Frame, found: dict[str, Any]) -> Result:
        boxes, scores, labels = (found[key].double().cpu().numpy() for key in ("boxes", "scores", "labels"))
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= self.least]
        codes = None
        if "masks" in found:
            codes = [
                {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
                for code in (found["masks"][place] for place in order.tolist())
            ]
        words = self.task.vocabulary
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in words.palette)
        return Result(
            kind=self.task.kind, frame=frame, names=tuple(words.names), palette=palette,
            boxes=boxes[order].reshape(-1, 4), scores=scores[order], labels=labels[order].astype(np.int64),
            mask_codes=codes, image_id=self.ids(frame), file_ids=self.file_ids, shown_from=self.shown,
        )  # fmt: skip
