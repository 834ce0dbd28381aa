"""Prediction of classification: the likeliest classes of each picture, drawn and as a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from dvsn.atomic import write_csv, write_json
from dvsn.data.files import read_rgb
from dvsn.errors import ConfigError, nearest
from dvsn.pictures.grids import write_picture
from dvsn.predict.command import refuse_others
from dvsn.predict.pictures import Reader, batches
from dvsn.tasks.classification import GREY, card

log = logging.getLogger("dvsn")

OPTIONS = ("size", "write", "top")
DRAWN = 3  # classes on a card


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """A card for each (picture, target), and classes.csv and classes.json of all. Returns the files written.

    A picture's score for a class is the softmax of the network's logits.
    """
    refuse_others(options, OPTIONS, task.kind)
    kind, top = str(options["write"] or task.answers[0]), int(options["top"])
    if kind not in task.answers:
        raise ConfigError(f"write: the task '{task.kind}' has no '{kind}'. {nearest(kind, task.answers)}")
    if top < 1:
        raise ConfigError(f"top: found {top}, expected 1 or more.")
    names, written = task.names, []
    results: list[dict[str, Any]] = []
    reader = Reader(task, str(options["size"]))
    for batch in batches(items, reader, int(options["batch_size"])):
        image = torch.stack([entry[2] for entry in batch]).to(device)
        with torch.inference_mode():
            scores = task(image).softmax(dim=1).cpu()
        best = scores.topk(min(top, scores.shape[1]), dim=1)
        for (source, target, _, _), shares, numbers in zip(
            batch, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            found = [
                {"class": names[number], "number": number, "score": round(share, 6)}
                for share, number in zip(shares, numbers, strict=True)
            ]
            results.append({"file": str(source), "classes": found})
            if kind == "cards":
                lines = [(f"{each['score']:.0%} {each['class']}", GREY) for each in found[:DRAWN]]
                write_picture(target, card(read_rgb(source), lines))
                written.append(target)
    folder = Path(options["output"])
    write_json(folder / "classes.json", results)
    write_csv(folder / "classes.csv", [row(each) for each in results])
    log.info("%d pictures in %s", len(results), folder)
    return [*written, folder / "classes.csv", folder / "classes.json"]


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A picture's line of the table: its file, then class and score by rank."""
    line = {"file": result["file"]}
    for rank, each in enumerate(result["classes"], start=1):
        line |= {f"class_{rank}": each["class"], f"score_{rank}": each["score"]}
    return line
