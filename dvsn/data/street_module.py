"""The embedded street scenes as a data module: drawn on first use."""

from __future__ import annotations

from typing import Any, ClassVar

from dvsn.data.module import DataModule
from dvsn.data.street import ensure_street


class StreetModule(DataModule):
    """Draws `scenes` (a count a split) of `height` x `width` into `root` unless they lie there.

    The files depend on `scene_seed`, the counts and the size alone, not on the seed of the run.
    """

    draws: ClassVar[str] = "street.json"  # the file that tells that its pictures lie in a folder

    def __init__(
        self, *, scenes: dict[str, int], height: int, width: int, scene_seed: int = 0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.parts = getattr(options.get("dataset"), "keywords", {}).get("labels") == "parts"
        self.scenes, self.height, self.width, self.scene_seed = scenes, height, width, scene_seed

    def prepare_data(self) -> None:
        ensure_street(
            self.root,
            seed=self.scene_seed,
            height=self.height,
            width=self.width,
            parts=self.parts,
            **self.scenes,
        )
