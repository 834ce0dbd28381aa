"""What the processes of a run must have in common before they train, and how one of them tells the others of its fault."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from dvsn.config import board


class Together(Callback):
    """Refuses, before the first batch, processes that have not the same number of samples, the same precision or the same
    checkpoint to go on from: they would wait for each other or learn something else. Tells the others of a fault at once.

    `started_from`: epoch and step of the checkpoint that is continued, or None.
    """

    def __init__(self, started_from: tuple[int, int] | None = None) -> None:
        self.started_from = started_from

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        counts = {f"samples of {split}": len(each) for split, each in getattr(data, "datasets", {}).items()}
        start = (
            "the beginning" if self.started_from is None else "epoch {} step {}".format(*self.started_from)
        )
        board.agree(
            "start",
            {**counts, "precision": str(trainer.precision), "goes on from": start},
            advice="Give every machine the same data and, to go on, the folder of the run (a shared disk); set "
            "trainer.precision by name where machines differ.",
        )

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        board.tell(exception)
