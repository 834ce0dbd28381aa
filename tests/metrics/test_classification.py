"""The table by class is torchmetrics', and says where it has no answer."""

from __future__ import annotations

import torch
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from dvsn.metrics.classification import ClassScore


def test_the_table_by_hand() -> None:
    """Truth 0 0 1 1 1, answers 0 1 1 1 0; class 2 has no pictures and is said once, for class 1; class 3 is nowhere."""
    truth, answers = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0, 2])
    metric = ClassScore(4)
    metric.update(torch.nn.functional.one_hot(answers, 4).float(), truth)
    table = {name: values.tolist() for name, values in metric.table().items()}
    assert table["precision"][:3] == [1 / 2, 2 / 3, 0.0] and table["recall"][:2] == [1 / 2, 2 / 4]
    assert table["f1"][:3] == [2 / 4, 4 / 7, 0.0]
    missing = {
        name: [n for n, value in enumerate(values) if value != value] for name, values in table.items()
    }
    assert missing == {"precision": [3], "recall": [2, 3], "f1": [3]}


def test_it_is_torchmetrics_own() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(200, 7), torch.randint(0, 7, (200,))
    metric = ClassScore(7)
    for part in range(0, 200, 50):
        metric.update(logits[part : part + 50], truth[part : part + 50])
    table = metric.table()
    for name, function in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        torch.testing.assert_close(table[name].float(), function(logits, truth, 7, average=None))
