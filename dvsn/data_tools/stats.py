"""`python -m dvsn.data stats`: mean and standard deviation of each channel of the training pictures, and their ranges."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

from dvsn.atomic import write_json
from dvsn.data.dataset import ImageDataset
from dvsn.data_tools.walk import walk
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.portable.memory import brightness

log = logging.getLogger("dvsn")
Config = dict[str, Any]


class Sums(NamedTuple):
    """Of one picture: its pixels, and by channel the sum and the sum of squares of its bytes; or why it cannot be read."""

    pixels: int
    first: np.ndarray
    second: np.ndarray
    fault: str = ""


class Counter(Dataset[Any]):
    """The sums of each item's picture `name`, which is `grey` where the network sees its brightness."""

    def __init__(self, dataset: ImageDataset, name: str, *, grey: bool) -> None:
        self.dataset, self.name, self.grey = dataset, name, grey

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sums:
        try:
            with self.dataset.ruled():
                picture = self.dataset.read(index)[self.name]
        except UserError as error:
            return Sums(0, np.zeros(1), np.zeros(1), str(error))
        picture = brightness(picture) if self.grey else picture
        planes = picture.reshape(picture.shape[0] * picture.shape[1], -1)
        numbers = np.arange(256, dtype=np.float64)
        counts = np.stack([np.bincount(plane, minlength=256) for plane in planes.T])  # (channels, 256)
        return Sums(len(planes), counts @ numbers, counts @ numbers**2)


def count(config: Config) -> dict[str, Any]:
    """What the file holds: `channels`, `pixels` and `pictures`; by channel `mean` and `std`, of bytes over 255, and `range`,
    where it was measured, else null."""
    data = runtime.build_data(config)
    if data.wanted != "dataset" or data.label_classes:
        raise ConfigError(
            "data: statistics are those of pictures that a network sees as they are. Use a data set of photos, such as "
            "data=segmentation task=segmentation."
        )
    data.prepare_data()
    measured = data.measure_bands()
    dataset = data.read(data.splits["train"])
    source = data.pair.source
    if dataset.kinds.get(source) != "photo":
        raise ConfigError(f"data.pair.source: '{source}' is no photo, expected one of {list(dataset.kinds)}.")
    grey = data.input_channels == 1 and data.rule.bands is None
    pixels, first, second = 0, np.zeros(1), np.zeros(1)
    counter = Counter(dataset, source, grey=grey)
    pictures = 0
    found: Any = walk(counter, title="train", workers=int(config["workers"]), limit=config["limit"])
    for sums in found:
        if sums.fault:
            raise DataError(f"{sums.fault}\n`python -m dvsn.data check` lists all files that cannot be read.")
        if pictures and len(sums.first) != len(first):
            raise DataError(f"{data.root}: pictures of {len(first)} and of {len(sums.first)} channels.")
        pixels, first, second, pictures = (
            pixels + sums.pixels, first + sums.first, second + sums.second, pictures + 1,
        )  # fmt: skip
    if not pixels:
        raise DataError(f"{data.root}: the training split holds no picture.")
    mean = first / pixels / 255
    spread = np.sqrt(np.maximum(second / pixels / 255**2 - mean**2, 0))
    bands = data.rule.bands
    ranges = list(map(list, bands.ranges)) if measured and bands and bands.ranges else None
    return {
        "channels": len(mean), "pictures": pictures, "pixels": pixels,
        "mean": [round(float(each), 6) for each in mean], "std": [round(float(each), 6) for each in spread], "range": ranges,
    }  # fmt: skip


def options(content: dict[str, Any]) -> list[str]:
    """The options of a training on these pictures. A channel without any spread is divided by 1."""
    found = [f"data.input_channels={content['channels']}"]
    std = [each or 1.0 for each in content["std"]]
    named = [("task.mean", content["mean"]), ("task.std", std)]
    if content["range"] is not None:
        named.append(("data.bands.range", content["range"]))
    return found + [f"{name}={str(value).replace(' ', '')}" for name, value in named]


def show(content: dict[str, Any]) -> None:
    """A row for each channel."""
    table = Table("channel", title=f"{content['pictures']} pictures of train", title_justify="left")
    for column in ("mean", "std", *(("becomes 0 and 255",) if content["range"] else ())):
        table.add_column(column, justify="right")
    for number, (mean, std) in enumerate(zip(content["mean"], content["std"], strict=True)):
        more = [" to ".join(f"{end:g}" for end in content["range"][number])] if content["range"] else []
        table.add_row(str(number + 1), f"{mean:.4f}", f"{std:.4f}", *more)
    Console().print(table)


def job(config: Config) -> None:
    content = count(config)
    show(content)
    if not all(content["std"]):
        log.warning("a channel has one value everywhere: nothing can be learnt of it")
    if config["output"]:
        write_json(Path(config["output"]), content)
        log.info("%s", config["output"])
    log.info("train with: %s", " ".join(map(shlex.quote, options(content))))
