"""The base of tasks whose score reads the data set itself, such as COCO's average precision."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from dvsn.tasks.network import NetworkTask

log = logging.getLogger("dvsn")


class ScoredTask(NetworkTask):
    """Base of tasks with one metric called `score`, which has `attach(dataset)` and `coverage()`.

    `attach` gives the score its data set; `coverage` is how many samples were scored, and of how many. A run that sees a
    part of a split (`trainer.limit_val_batches`, `limit_test_batches`, `fast_dev_run`) is scored on that part, and logs it.
    """

    measured: ClassVar[str] = "samples"
    """The word for what is counted."""

    @property
    def score(self) -> Any:
        return self.metrics["score"]

    def on_validation_start(self) -> None:
        super().on_validation_start()
        self.score.attach(self.trainer.datamodule.datasets["val"])  # type: ignore[attr-defined]

    def on_test_start(self) -> None:
        super().on_test_start()
        self.score.attach(self.trainer.datamodule.datasets["test"])  # type: ignore[attr-defined]

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.tell_coverage("val")
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        self.tell_coverage("test")
        super().on_test_epoch_end()

    def tell_coverage(self, split: str) -> None:
        """Log how many samples of a split are scored, unless all are."""
        found, count = self.score.coverage()  # gathers
        if found < count and self.trainer.is_global_zero:
            log.warning(
                "%s: scored on %d of %d %s, those that the run has looked at (trainer.limit_%s_batches, fast_dev_run)",
                split, found, count, self.measured, split,
            )  # fmt: skip

    def coverage_table(self) -> list[dict[str, Any]]:
        """One row for `details`, unless all of the split is scored."""
        found, count = self.score.coverage()
        return [{"scored": f"{found} of {count} {self.measured}"}] if found < count else []
