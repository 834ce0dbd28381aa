"""Prediction of classification: the likeliest classes of each picture, drawn and as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.result import RankedClass, Result
from dvsn.predict.pictures import Reader, batches
from dvsn.predict.predictor import Options, Predictor

log = logging.getLogger("dvsn")

ASKED = ("size", "top")
OPTIONS = (*ASKED, "write")


class ClassPredictor(Predictor):
    """The `top` likeliest classes of each frame; a class's score is the softmax of the network's logits.

    Options: `size`, `top`, `batch_size`.
    """

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        super().__init__(task, options, device, sources)
        self.top = int(options["top"])
        if self.top < 1:
            raise ConfigError(f"top: found {self.top}, expected 1 or more.")
        self.reader = Reader(task, str(options["size"]))

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]:
        for batch in batches(frames, self.reader, self.batch_size):
            image = torch.stack([ready.image for ready in batch]).to(self.device)
            with torch.inference_mode():
                scores = self.task(image).softmax(dim=1).cpu()
            best = scores.topk(min(self.top, scores.shape[1]), dim=1)
            for ready, shares, numbers in zip(
                batch, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                names = self.task.names
                ranked = [
                    RankedClass(names[number], number, share)
                    for share, number in zip(shares, numbers, strict=True)
                ]
                yield Result(kind=self.task.kind, frame=ready.frame, names=tuple(names), classes=ranked)
