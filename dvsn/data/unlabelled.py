"""Pictures without labels beside those of a data set that has some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import list_pictures, read_rgb, require_folder
from dvsn.errors import ConfigError, DataError
from dvsn.types import IGNORE, Sample

UNLABELLED = -1
"""The class of a picture that has none."""


class Unlabelled(ImageDataset):
    """The pictures below a folder, in the form of the samples of another data set: every pixel of a label is ignored, and a
    class is `UNLABELLED`.

    `source` is the array of `like` that is a photo. Raises `ConfigError` where `like` does not read classes of pictures or
    pixels, `DataError` for a folder without pictures.
    """

    def __init__(
        self,
        *,
        root: str,
        like: ImageDataset,
        source: str,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        self.kinds, self.palettes = dict(like.kinds), {}
        others = [name for name in self.kinds if name != source]
        if (
            self.kinds.get(source) != "photo"
            or like.palettes
            or any(self.kinds[name] == "photo" for name in others)
        ):
            raise ConfigError(
                "data.more: unlabelled pictures go with labels that are classes, of pictures or of pixels, and this data "
                "set has others. Leave out unlabelled: true."
            )
        super().__init__(transform=transform, seed=seed)
        self.source = source
        folder = require_folder(root, expected="any tree of pictures", option="data.more")
        self.paths = list_pictures(folder)
        if not self.paths:
            raise DataError(
                f"{root}: holds no picture. Expected some, at any depth; set another root in data.more."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Sample:
        photo = read_rgb(self.paths[index])
        sample: dict[str, Any] = {self.source: photo}
        for name, kind in self.kinds.items():
            if name != self.source:
                sample[name] = UNLABELLED if kind == "number" else np.full(photo.shape[:2], IGNORE, np.uint8)
        return sample

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def photos(self, index: int) -> list[Path]:
        return [self.paths[index]]

    def name(self, index: int) -> str:
        return f"unlabelled_{index}_{self.paths[index].stem}"
