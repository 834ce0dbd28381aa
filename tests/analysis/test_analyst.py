"""How an analyst is found, and what is done for a task without one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.regression import MeanAbsoluteError

from dvsn.analysis import segmentation
from dvsn.analysis.analyst import Plain, add_up, find_analyst, one
from dvsn.tasks.segmentation import Segmentation


class Mine(Segmentation):
    kind = "mine"


class Foreign:
    """A task of a user, with the metric `MAE` and a network that says 0.5."""

    kind = "record"  # a file of dvsn.analysis, but no analyst
    device = torch.device("cpu")

    def __init__(self) -> None:
        self._metrics = (MetricCollection({"MAE": MeanAbsoluteError(), "mean": MeanMetric()}),)

    @property
    def metrics(self) -> MetricCollection:
        return self._metrics[0]

    def _evaluate(self, batch: dict[str, Any]) -> Tensor:
        answer = torch.full_like(batch["target"], 0.5)
        self.metrics["MAE"].update(answer, batch["target"])
        self.metrics["mean"].update(batch["target"])
        return answer


def test_it_is_found_by_the_kind_of_the_task_or_of_its_base() -> None:
    assert find_analyst(Segmentation.__new__(Segmentation)) is segmentation.Found
    assert find_analyst(Mine.__new__(Mine)) is segmentation.Found
    assert find_analyst(Foreign()) is Plain


@pytest.mark.parametrize("kind", ["../evil", "os.path", "", "a b"])
def test_a_kind_that_is_no_name_is_looked_for_nowhere(kind: str) -> None:
    class Odd(Foreign):
        pass

    Odd.kind = kind
    assert find_analyst(Odd()) is Plain


def test_a_task_without_one_is_scored_by_its_first_metric() -> None:
    task = Foreign()
    batch = {"target": torch.tensor([0.5, 1.0, 0.0]), "name": ["a", "b", "c"]}
    output = task._evaluate(batch)
    found = Plain(task)
    found.begin()
    pictures = found.look(batch, output)
    assert (found.score, found.better) == ("MAE", "less")
    assert [each.score for each in pictures] == [0.0, 0.5, 0.5]
    assert [each.values["mean"] for each in pictures] == [0.5, 1.0, 0.0]
    assert float(task.metrics.compute()["MAE"]) == pytest.approx(1 / 3), (
        "the task's own metrics know nothing of it"
    )


def test_a_metric_that_reads_the_data_set_scores_no_picture() -> None:
    task = Foreign()
    task.metrics["MAE"].attach = lambda dataset: None
    found = Plain(task)
    found.begin()
    (picture,) = found.look({"name": ["a"]}, None)
    assert picture.name == "a" and math.isnan(picture.score)


class Answer(NamedTuple):
    points: Tensor
    angles: Tensor | None = None


def test_one_picture_of_a_batch() -> None:
    batch = {
        "image": torch.arange(6).view(2, 3),
        "name": ["a", "b"],
        "boxes": [{"n": 1}, {"n": 2}],
        "step": 7,
    }
    assert {key: value for key, value in one(batch, 1).items() if key != "image"} == {
        "name": ["b"], "boxes": [{"n": 2}], "step": 7
    }  # fmt: skip
    assert one(batch, 1)["image"].tolist() == [[3, 4, 5]]
    answer = one(Answer(torch.tensor([[1], [2]])), 0)
    assert isinstance(answer, Answer) and answer.points.tolist() == [[1]] and answer.angles is None
    assert one((torch.tensor([1, 2]), [3, 4]), 1)[1] == [4] and one(torch.tensor(3.0), 1) == 3


def test_counts_add_up() -> None:
    assert add_up(lambda own: [own, own + 1], torch.tensor([1, 2])).tolist() == [3, 5]
