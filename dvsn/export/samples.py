"""Real pictures for the check and the calibration: of the data set of the recipe, or of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.config.build import build
from dvsn.data.files import make_rule, pictures_below, read_by, read_labels, read_rgb
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.portable.bands import bands_of
from dvsn.portable.memory import brightness


class Samples:
    """Where inputs of a task come from.

    `pictures` is a folder of them; null: the data set of the task's recipe, at `root` if it is given. Where there is
    neither, the check is made with made-up pictures, which `said` tells, and nothing can be calibrated.
    """

    def __init__(self, task: Any, *, pictures: Any = None, root: Any = None) -> None:
        self.task = task
        self.folder = None if pictures is None else Path(str(pictures))
        if self.folder is not None and not self.folder.is_dir():
            raise ConfigError(f"pictures: {self.folder} is not a folder. Give the folder of some pictures.")
        self.node = dict(task.data_recipe)
        if root is not None:
            self.node["root"] = str(root)
        self.asked = pictures is not None or root is not None
        self.said = ""

    def images(self, count: int, split: str = "val") -> list[Tensor]:
        """Up to `count` inputs (C, H, W) uint8, evenly spread; none, with the reason in `said`, where nothing is there."""
        try:
            found = (
                self.of_folder(count)
                if self.folder
                else [each["image"] for each in self.samples(count, split)]
            )
        except (UserError, OSError) as error:
            if self.asked:
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            self.said = f"made-up pictures ({reason}). For real ones give root=FOLDER of the data set, or pictures=FOLDER"
            return []
        where = self.folder or f"{split} in {self.node.get('root')}"
        self.said = f"{len(found)} pictures of {where}"
        return found

    def of_folder(self, count: int) -> list[Tensor]:
        """Pictures of the folder as the network sees crops and photos; of class ids as labels."""
        assert self.folder is not None
        ids = bool(getattr(self.task, "input_classes", 0))
        read = read_labels if ids else read_rgb
        with read_by(make_rule(bands=None if ids else bands_of(self.node))):
            names = sorted(pictures_below(self.folder))
            if not names:
                raise DataError(f"pictures: {self.folder} holds no picture.")
            arrays = [read(self.folder / names[place]) for place in spread(len(names), count)]
        if not ids and self.task.input_channels == 1:
            arrays = [brightness(each) for each in arrays]
        return [torch.from_numpy(np.atleast_3d(each).transpose(2, 0, 1).copy()) for each in arrays]

    def samples(self, count: int, split: str) -> list[dict[str, Any]]:
        """Samples of the data set as evaluation sees them, evenly spread over a split."""
        dataset = self.module().open(split)
        return [dataset[place] for place in spread(len(dataset), count)]

    def module(self) -> Any:
        """The data module of the recipe."""
        if not self.node:
            raise ConfigError("data: this checkpoint was converted and knows no data set.")
        root = Path(str(self.node.get("root")))
        if not root.is_dir():  # an embedded data set would be drawn, a published one be missed
            raise DataError(f"{root}: the data set does not lie there.")
        data = build(self.node, path="data")
        self.task.ask_data(data)
        data.prepare_data()
        return data


def spread(length: int, count: int) -> list[int]:
    """Up to `count` places, evenly spread over `length`."""
    return [int(place) for place in np.linspace(0, length - 1, min(length, count)).round()]
