"""`python -m dvsn.data weights`: how much each class shall count, from the pixels of the training split."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dvsn.atomic import write_json
from dvsn.data_tools.check import class_names
from dvsn.data_tools.walk import Tally, Walk, label_of, open_split, walk
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.losses.class_weights import enet, median_frequency
from dvsn.types import IGNORE

log = logging.getLogger("dvsn")
Config = dict[str, Any]

METHODS = ("median_frequency", "enet")


def weigh(config: Config) -> dict[str, Any]:
    """What the file holds: `method`; by class `weights`, `classes` (names), `counts` (pixels) and `images`; `ignored`."""
    method = config["method"]
    if method not in METHODS:
        raise ConfigError(f"method: found '{method}'. {nearest(str(method), METHODS)}")
    data = runtime.build_data(config)
    data.prepare_data()
    dataset = open_split(data, data.splits["train"])
    label = label_of(data, dataset)
    if label is None:
        raise ConfigError(
            "data: the target of this pair holds no class ids. Use task=segmentation with a data set that has "
            "classes, such as data=camvid."
        )
    tally = Tally(samples=len(dataset))
    walker = Walk(dataset, label=label, classes=data.classes)
    for record in walk(walker, title="train", workers=int(config["workers"])):
        tally.add(record)
    if tally.faulty:
        raise DataError(
            f"{len(tally.faulty)} of {tally.samples} training samples cannot be counted; the first: "
            f"{tally.faulty[0].message}\n`python -m dvsn.data check` lists them all."
        )
    counts, beside = (each[: data.classes].tolist() for each in (tally.pixels, tally.beside))
    total = int(tally.pixels.sum())
    if not any(counts):
        raise DataError(f"{data.root}: no pixel of the training split belongs to a class.")
    return {
        "method": method,
        "weights": enet(counts, total=total) if method == "enet" else median_frequency(counts, beside),
        "classes": list(class_names(data)),
        "counts": counts,
        "ignored": int(tally.pixels[IGNORE]),
        "images": tally.images[: data.classes].tolist(),
    }


def show(content: dict[str, Any]) -> None:
    """The weights as a table on the screen."""
    table = Table("id", "class", title=f"{content['method']}, train", title_justify="left")
    for column in ("pixels", "% of all", "images", "weight"):
        table.add_column(column, justify="right")
    total = sum(content["counts"]) + content["ignored"]
    columns = (content[key] for key in ("classes", "counts", "images", "weights"))
    for number, (name, count, images, weight) in enumerate(zip(*columns, strict=True)):
        table.add_row(
            str(number), name, f"{count:,}", f"{100 * count / total:.2f}", str(images), f"{weight:.4f}"
        )
    Console().print(table)


def job(config: Config) -> None:
    output = Path(config["output"])
    content = weigh(config)
    write_json(output, content)
    show(content)
    for name, count in zip(content["classes"], content["counts"], strict=True):
        if not count:
            log.warning("%s never occurs in train, so its weight means nothing", name)
    log.info("%s: use it with loss.class_weights=%s", output, output)
