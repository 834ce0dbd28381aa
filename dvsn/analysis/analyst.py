"""Who looks at the answers of an evaluation: the base of the analysts, one file a kind of task, found by its name."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvsn.analysis.record import Chart, Matrix, Picture, PrecisionRecall, Row
from dvsn.types import Batch

Gather = Callable[[Any], list[Any]]
"""An object of this process -> those of all processes, by their rank. Each process must call it, in the same order."""


class Analyst:
    """Scores each picture of a split, and says at the end what was found.

    The file `dvsn/analysis/KIND.py` has one called `Found`, where KIND is the task's `kind`. It is asked in this order:

    1. `begin`, when the test starts, after the task's own preparation;
    2. for each batch `look`, and for each picture that is kept `panels`;
    3. `close` in each process, while the task's metrics still hold the whole split;
    4. in the first process `settle` for each picture, `tables`, `charts`, `matrices` and `curves`.

    Where only the scores are wanted (`worst=null`) it is asked for 1, 3 and 4, so what `look` collects may be missing.

    `task` is the one that is measured. `teacher` is another task of its kind on the same device, in eval mode, or None.
    """

    score: str = "score"
    """The name of a picture's score."""
    better: str = "more"
    """`more` or `less`."""
    compares: ClassVar[bool] = False
    """Whether it can set a teacher beside the task."""

    def __init__(self, task: Any, teacher: Any = None) -> None:
        self.task, self.teacher = task, teacher

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in their order; empty where the task has none."""
        return ()

    def begin(self, *, look: bool = True) -> None:
        """Prepare for a split, of which pictures will be looked at or not."""

    def look(self, batch: Batch, output: Any) -> list[Picture]:
        """A record of each picture of a batch, in its order, for the task's `output`. A score of NaN: there is none."""
        raise NotImplementedError

    def panels(self, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Side by side by title, uint8 RGB (1, 3, H, W): of a batch of one picture, right after `look` has seen it."""
        found: dict[str, Tensor] = self.task.panels(batch, output)
        return found

    def close(self, gather: Gather) -> None:
        """Put together what the processes have found."""

    def settle(self, picture: Picture) -> Picture:
        """The record of a picture as it is written, after `close`."""
        return picture

    def tables(self) -> dict[str, list[Row]]:
        """Rows by title, beside those of the task's own `details`."""
        return {}

    def charts(self) -> tuple[Chart, ...]:
        return ()

    def matrices(self) -> tuple[Matrix, ...]:
        return ()

    def curves(self) -> tuple[PrecisionRecall, ...]:
        """Precision and recall by threshold."""
        return ()


class Plain(Analyst):
    """For tasks without a file of their own: each picture by the first of the task's metrics, for which the task is asked
    about each picture once more. Metrics of a whole split, such as FID, make no sense of one picture; one that reads the
    data set (`attach`) gives no picture a score."""

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self._alone: Any = None
        metrics = dict(task.metrics)
        if not metrics or any(hasattr(metric, "attach") for metric in metrics.values()):
            return
        self._alone = task.metrics.clone()
        for metric in self._alone.values():
            metric.distributed_available_fn = lambda: False  # of this process alone
        self.score = next(iter(metrics))
        self.better = "less" if metrics[self.score].higher_is_better is False else "more"

    def begin(self, *, look: bool = True) -> None:
        if self._alone is not None:
            self._alone.to(self.task.device)

    def look(self, batch: Batch, output: Any) -> list[Picture]:
        if self._alone is None:
            return [Picture(name, math.nan) for name in batch["name"]]
        metrics, pictures = self.task._metrics, []
        try:
            for number, name in enumerate(batch["name"]):
                self._alone.reset()
                self.task._metrics = (self._alone,)
                self.task._evaluate(one(batch, number))
                values = {
                    key: float(value) for key, value in self._alone.compute().items() if value.numel() == 1
                }
                self.score = self.score if self.score in values else next(iter(values), "score")
                pictures.append(Picture(name, values.pop(self.score, math.nan), values))
        finally:
            self.task._metrics = metrics
        return pictures


def find_analyst(task: Any) -> type[Analyst]:
    """The analyst of a task: of its kind, or of the kind of the task that it is made from; else `Plain`."""
    part = kind_of_part("dvsn.analysis", task, "Found")
    return Plain if part is None else part.Found  # type: ignore[no-any-return]


def kind_of_part(package: str, task: Any, wanted: str) -> ModuleType | None:
    """The file of `package` that is named as the kind of a task, or of the task that it is made from, and holds `wanted`."""
    kinds = [vars(each)["kind"] for each in type(task).__mro__ if "kind" in vars(each)]
    for kind in kinds:
        name = f"{package}.{kind}"
        if kind.isidentifier() and importlib.util.find_spec(name) is not None:
            part = importlib.import_module(name)
            if hasattr(part, wanted):
                return part
    return None


def one(value: Any, number: int) -> Any:
    """Of a batch, or of what was answered for it, the part of one picture, as a batch of one."""
    if isinstance(value, Tensor):
        return value[number : number + 1] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: one(each, number) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(one(each, number) for each in value))
    if isinstance(value, tuple):
        return tuple(one(each, number) for each in value)
    if isinstance(value, list):
        return value[number : number + 1]
    return value


def add_up(gather: Gather, counts: Tensor) -> Tensor:
    """Counts of all processes together, on the CPU."""
    return torch.stack(gather(counts.cpu())).sum(dim=0)
