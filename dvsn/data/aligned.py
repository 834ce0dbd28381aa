"""A|B pictures side by side in one file: facades, maps, edges2shoes and the reference's own Cityscapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import list_pictures, read_rgb, require_folder, unique_names
from dvsn.data.folders import split_folder
from dvsn.errors import ConfigError, DataError
from dvsn.types import Sample

TREE = """\
    ROOT/train/1.jpg     two pictures of one size side by side: A is the left half, B the right
    ROOT/val/1.jpg
    ROOT/test/1.jpg      or, of a split called all, ROOT/1.jpg"""

Half = Literal["photo", "label"]


class Aligned(ImageDataset):
    """Pairs from single files, cut at half the width; A is the left half. Names are sorted as strings.

    Isola et al., 2017, arXiv:1611.07004: facades, cityscapes (A photo, B labels), maps (A aerial, B map),
    edges2shoes (A edges, B photo). Keys `a` and `b`, (H, W / 2, 3) uint8 RGB each. `a_kind` and `b_kind` are
    "photo" for both, as published (the files are JPEG, so label colours are not exact anyway); "label"
    means nearest only.

    A picture that is not wider than high is refused, since it is most likely no pair. `narrow` allows it.
    """

    gives: ClassVar[dict[str, str]] = {"a": "photo", "b": "photo"}  # or labels, as colours

    def __init__(
        self,
        *,
        root: str,
        split: str,
        a_kind: Half = "photo",
        b_kind: Half = "photo",
        narrow: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        for option, kind in (("a_kind", a_kind), ("b_kind", b_kind)):
            if kind not in ("photo", "label"):
                raise ConfigError(f"data.dataset.{option}: found '{kind}', expected photo or label.")
        self.kinds = {"a": a_kind, "b": b_kind}
        super().__init__(transform=transform, seed=seed)
        require_folder(root, expected=TREE, option="data.root")
        folder = require_folder(split_folder(Path(root), split), expected=TREE, option="data.root")
        self.narrow = narrow
        self.paths = list_pictures(folder)
        if not self.paths:
            raise DataError(f"{folder}: no picture in this folder. Expected this tree:\n{TREE}")
        self.names = unique_names(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def photos(self, index: int) -> list[Path]:
        return [self.paths[index]]

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> Sample:
        picture = read_rgb(self.paths[index])  # (H, 2W, 3)
        height, width = picture.shape[:2]
        if width % 2:
            raise DataError(
                f"{self.paths[index]}: {width} pixels wide; expected A and B of "
                "equal width, so an even number."
            )
        if width <= height and not self.narrow:
            raise DataError(
                f"{self.paths[index]}: {height}x{width} (height x width) looks like a single picture; "
                "expected A and B side by side in one file. For pictures in two folders use data=folders; if "
                "the halves really are narrow, set data.dataset.narrow=true."
            )
        return {"a": picture[:, : width // 2], "b": picture[:, width // 2 :]}
