"""An evaluation as a data set that FiftyOne opens: pictures as the network has seen them, with truth and prediction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from dvsn.analysis.fiftyone.folder import Folder
from dvsn.analysis.fiftyone.labels import find_labels
from dvsn.analysis.record import Picture
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")


class FiftyOneFolder(Callback):
    """While testing: every picture of the split with its labels, in `folder`.

    `name` is what FiftyOne shall call the data set. `scores` gives the records of the last batch, where pictures are
    scored, else an empty list.
    """

    def __init__(
        self, task: Any, *, folder: Path, name: str, split: str, scores: Callable[[], list[Picture]]
    ) -> None:
        found = find_labels(task)
        if found is None:
            raise ConfigError(
                f"fiftyone: FiftyOne has no labels for what the task '{task.kind}' answers. Set fiftyone=null."
            )
        self.part, self.task = found, task
        self.folder, self.name, self.split, self.scores = Folder(folder), name, split, scores

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.folder.rank = trainer.global_rank
        if trainer.is_global_zero:
            self.folder.start()
        trainer.strategy.barrier()

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        fields, pictures = self.part.labels(self.task, batch, outputs), self.scores()
        for number, labels in enumerate(fields):
            shown = self.task.show_input(batch["image"][number][None])[0].permute(1, 2, 0).cpu().numpy()
            values = {}
            if pictures:
                values = {**pictures[number].values, "score": pictures[number].score}
            self.folder.add(
                int(batch["index"][number]), batch["name"][number], shown, labels, split=self.split, **values
            )

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.folder.finish(name=self.name, info=self.part.info(self.task))
            log.info("%s (fiftyone.types.FiftyOneDataset, called %s)", self.folder.path, self.name)
