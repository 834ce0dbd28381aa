"""What tasks share whose score knows the data set: it is told before it measures, and says of how much it speaks."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from dvsn.tasks.network import NetworkTask

log = logging.getLogger("dvsn")


class ScoredTask(NetworkTask):
    """Base of tasks with one metric called `score`, which has `attach(dataset)` and `coverage()`.

    A run that does not look at all of a split (`trainer.limit_val_batches`, `limit_test_batches`, `fast_dev_run`) is
    measured by what it has looked at, and says so.
    """

    measured: ClassVar[str] = "samples"
    """What is counted, in words."""

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
        """Log how much of a split is scored, where it is not all."""
        found, count = self.score.coverage()  # gathers
        if found < count and self.trainer.is_global_zero:
            log.warning(
                "%s: scored on %d of %d %s, those that the run has looked at (trainer.limit_%s_batches, fast_dev_run)",
                split, found, count, self.measured, split,
            )  # fmt: skip

    def coverage_table(self) -> list[dict[str, Any]]:
        """One row, for `details`, where not all of the split is scored."""
        found, count = self.score.coverage()
        return [{"scored": f"{found} of {count} {self.measured}"}] if found < count else []
