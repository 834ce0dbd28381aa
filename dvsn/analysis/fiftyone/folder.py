"""A data set on the disk in the form that FiftyOne imports as `fiftyone.types.FiftyOneDataset`.

    FOLDER/metadata.json  samples.json  data/PICTURE.jpg  fields/ground_truth/PICTURE.png  fields/predictions/PICTURE.png

Nothing of it needs FiftyOne. Each process adds its samples to a file of its own, so that memory stays flat; `finish` puts
them together.
"""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.analysis.fiftyone.labels import Label
from dvsn.analysis.kept import file_name
from dvsn.atomic import replacing, write_json
from dvsn.pictures.grids import write_picture

PARTS = ".samples_*.jsonl"


class Folder:
    """The samples of one process. `rank` is its number; the first one calls `finish` when all have added theirs."""

    def __init__(self, path: Path, *, rank: int = 0) -> None:
        self.path, self.rank = path, rank

    def start(self) -> None:
        """In the first process, before the others add anything: forget an earlier data set in this folder."""
        for each in [*self.path.glob(PARTS), self.path / "samples.json", self.path / "metadata.json"]:
            each.unlink(missing_ok=True)
        for pattern in ("data/[0-9]*_*.jpg", "fields/*/[0-9]*_*.png"):
            for each in self.path.glob(pattern):
                each.unlink()

    def add(
        self,
        index: int,
        name: str,
        picture: np.ndarray,
        fields: dict[str, Label],
        *,
        split: str,
        **values: float,
    ) -> None:
        """One sample: `picture` (H, W, 3) uint8 RGB, its labels by field, and further numbers by name."""
        stem = f"{index:07d}_{file_name(name)}"
        write_picture(self.path / "data" / f"{stem}.jpg", picture)
        sample: dict[str, Any] = {"filepath": f"data/{stem}.jpg", "tags": [split], "name": name}
        for field, label in fields.items():
            label = dict(label)
            if "mask" in label:
                label["mask_path"] = f"fields/{field}/{stem}.png"
                write_picture(self.path / label["mask_path"], label.pop("mask"))
            sample[field] = label
        for key, value in values.items():
            if math.isfinite(value):
                sample[re.sub(r"\W", "_", key)] = value
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / f".samples_{self.rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{index}\t{json.dumps(sample)}\n")

    def finish(self, *, name: str, info: dict[str, Any]) -> None:
        """samples.json in the order of the data set, and metadata.json. `name` is the data set's in FiftyOne."""
        parts = sorted(self.path.glob(PARTS))
        with (
            replacing(self.path / "samples.json") as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            file.write('{"samples": [')
            for number, (_, line) in enumerate(heapq.merge(*map(lines, parts))):
                file.write(f"{',' if number else ''}\n{line}")
            file.write("\n]}\n")
        for each in parts:
            each.unlink()
        write_json(self.path / "metadata.json", {"name": name, "media_type": "image", "info": info})


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The samples of a part: their place in the data set, which rises, and their JSON."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            index, _, content = line.rstrip("\n").partition("\t")
            yield int(index), content
