"""Prediction of classification: the likeliest classes of each picture, drawn and as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dvsn.atomic import write_csv, write_json
from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.overlay import render
from dvsn.portable.result import RankedClass, Result
from dvsn.predict.command import refuse_others
from dvsn.predict.files import chosen_kind, write_results
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


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """A card for each (picture, target), and classes.csv and classes.json of all. Returns the files written."""
    refuse_others(options, OPTIONS, task.kind)
    kind = chosen_kind(options["write"], task)
    predictor = ClassPredictor(task, options, device, [source for source, _ in items])
    written, results = [], []
    found = write_results(predictor, items, lambda result: render(result, kind) if kind == "cards" else None)
    for result, file in found:
        written += [] if file is None else [file]
        results.append(entry(result))
    folder = Path(options["output"])
    write_json(folder / "classes.json", results)
    write_csv(folder / "classes.csv", [row(each) for each in results])
    log.info("%d pictures in %s", len(results), folder)
    return [*written, folder / "classes.csv", folder / "classes.json"]


def entry(result: Result) -> dict[str, Any]:
    """A picture's entry of classes.json: its file, and its classes with their numbers and scores, the best first."""
    found = [
        {"class": each.name, "number": each.number, "score": round(each.score, 6)}
        for each in result.classes or ()
    ]
    return {"file": str(result.frame.path or result.frame.name), "classes": found}


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A picture's line of the table: its file, then class and score by rank."""
    line = {"file": result["file"]}
    for rank, each in enumerate(result["classes"], start=1):
        line |= {f"class_{rank}": each["class"], f"score_{rank}": each["score"]}
    return line
