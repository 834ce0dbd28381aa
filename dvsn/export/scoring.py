"""The score of an exported network on some pictures of the validation split, by the task's own metrics."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.data.module import collate
from dvsn.errors import ConfigError, DataError
from dvsn.export.check import NEAR
from dvsn.export.samples import Samples, spread
from dvsn.export.shape import Shape
from dvsn.portable.engine import Engine
from dvsn.tasks.exported import answer_by

MAIN = {
    "pixels": ("miou", "max"),
    "classes": ("top1", "max"),
    "objects": ("map", "max"),
    "image": ("ssim", "max"),
}
"""By a task's response: the score that decides, and which way is better. Of keypoints: the data set's own."""

COMPARED = {"pixels": "ids", "heatmaps": "points", "points": "points"}
"""By a task's response: the output whose answers are compared one by one."""

LOWER = ("nme",)
"""Scores of keypoints of which less is better."""


class Scorer:
    """Measures ONNX models on up to `count` evenly spread samples of val. `name` is the score; `sign` is 1 where more of it
    is better, else -1. `equal` is, of the model that was asked last, the share of answers that are those of the first one:
    of `compared`, the classes of pixels (`ids`) or coordinates within one pixel (`points`); of other tasks nothing is.

    A score lies in [0, 1], so that 0.01 is one point of a hundred. Raises `DataError` where no data set is there.
    """

    def __init__(self, task: Any, samples: Samples, shape: Shape, *, count: int) -> None:
        if count < 1:
            raise ConfigError(f"scored: found {count}, expected 1 or more.")
        self.task = task
        self.name, mode = main_score(task)
        self.sign = 1.0 if mode == "max" else -1.0
        try:
            self.dataset = samples.module().open("val")
        except DataError as error:
            raise DataError(
                f"precision: for int8 the score is measured on val of the data set: {error} Give root=FOLDER of it."
            ) from error
        join = getattr(self.dataset, "collate", collate)
        places = spread(len(self.dataset), count)
        size = shape.batch or 1
        groups = [places[start : start + size] for start in range(0, len(places), size)]
        self.batches = [join([self.dataset[place] for place in group]) for group in groups]
        self.count = len(places)
        self.compared = COMPARED.get(str(task.response), "")
        self.first: list[Any] = []
        self.equal = 1.0

    def worse(self, plain: float, found: float) -> float:
        """By how much a score is worse than the plain one, in its own units; below 0: better."""
        return self.sign * (plain - found)

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        """The score of an ONNX model on the pictures."""
        held = Held(model, self.task)
        task = answer_by(copy.copy(self.task), held, alone=False)  # the task itself goes on answering
        task.use_metrics()
        attach(task, self.dataset)
        for number, batch in enumerate(self.batches):
            task.validation_step(batch, number)
        if self.compared:
            self.compare(held.given)
        values = {name: float(value) for name, value in task.metrics.compute().items()}
        task.metrics.reset()
        if self.name not in values:
            raise ConfigError(
                f"precision: the task '{task.kind}' has no score '{self.name}'; it has {', '.join(values)}."
            )
        return values[self.name]

    def compare(self, given: list[Any]) -> None:
        """Answers to all pictures beside those of the first model."""
        self.first = self.first or given
        near = NEAR.get(self.compared, 0)
        pairs = zip(self.first, given, strict=True)
        same = sum(
            int(((one == other) if not near else np.abs(one - other) <= near).sum()) for one, other in pairs
        )
        self.equal = same / max(1, sum(one.size for one in given))


def attach(task: Any, dataset: Any) -> None:
    """Give the data set to those metrics of a task that read it themselves, as `dvsn.tasks.scored` does."""
    for metric in task.metrics.values():
        if hasattr(metric, "attach"):
            metric.attach(dataset)


class Held(Engine):
    """ONNX Runtime on a model in memory; `given` are the ids or points that it has answered with."""

    def __init__(self, model: Any, task: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        entry = self.session.get_inputs()[0]
        shape = [side if isinstance(side, int) else None for side in entry.shape]
        names = [{"name": output.name} for output in self.session.get_outputs()]
        multiple = int(getattr(task.network, "multiple", 1))
        offset = len(self.session.get_inputs()) > 1
        contract = {"shape": shape, "multiple": multiple, "offset": offset}
        super().__init__(Path(), {"input": contract, "outputs": names})
        self.given: list[Any] = []

    def ask(self, inputs: dict[str, Any]) -> Any:
        answer = self.session.run(None, inputs)
        if self.names[0] in COMPARED.values():
            self.given.append(answer[0].copy())
        return answer


def main_score(task: Any) -> tuple[str, str]:
    """The score by which a network of the task is judged, and whether `max` or `min` of it is better."""
    if task.response in MAIN:
        return MAIN[task.response]
    name = str(task.data_fact("score", "pck"))
    return name, "min" if name in LOWER else "max"
