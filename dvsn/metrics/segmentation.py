"""Scores of class maps: from one confusion matrix, and of outlines."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from dvsn.types import IGNORE

Absent = Literal["skip", "zero"]


class SegmentationScore(Metric):
    """mIoU, Dice, pixel and class accuracy from one confusion matrix over the whole data set.

    `update` takes predicted ids (N, H, W) and true ids of the same shape, 255 where nothing is scored. The
    matrix has a row a true class and a column a predicted one, counted exactly in 64-bit integers, so that
    devices and batches add up without rounding.

    `absent` is about classes that neither labels nor predictions of the whole set hold: "skip" leaves them out of the
    means, as torchmetrics does; "zero" counts them as 0, as the code of PIDNet and HRNet does. It is the same for the
    accuracy of a class that no label holds.
    """

    full_state_update = False
    higher_is_better = True
    confusion: Tensor

    def __init__(self, *, classes: int, absent: Absent = "skip") -> None:
        super().__init__()
        self.classes, self.absent = classes, absent
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        for answer, truth in zip(predicted, target, strict=True):  # a picture at a time: little memory
            self.confusion += confusion_matrix(answer, truth, classes=self.classes)

    def table(self) -> dict[str, Tensor]:
        """`by_class` of the whole data set."""
        return by_class(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        rows = self.table()
        matrix = self.confusion.double()
        return {
            "miou": self._mean(rows["iou"]),
            "dice": self._mean(rows["dice"]),
            "class_accuracy": self._mean(rows["accuracy"]),
            "pixel_accuracy": (matrix.diagonal().sum() / matrix.sum().clamp(min=1)).float(),
        }

    def _mean(self, values: Tensor) -> Tensor:
        if self.absent == "zero":
            return values.nan_to_num(nan=0.0).mean().float()
        return values.nanmean().nan_to_num(nan=0.0).float()


def by_class(counts: Tensor) -> dict[str, Tensor]:
    """Of a confusion matrix (K, K): `iou`, `accuracy` and `dice` of each class, (K,) float64; NaN where not defined."""
    matrix = counts.double()
    right, truth, answer = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    return {
        "iou": right / (truth + answer - right),  # 0 / 0 is NaN
        "accuracy": right / truth,
        "dice": 2 * right / (truth + answer),
    }


def confusion_matrix(predicted: Tensor, target: Tensor, *, classes: int) -> Tensor:
    """(K, K) int64 counts of pixels by true (row) and predicted (column) class, those labelled 255 left out."""
    pairs = target.long() * classes + predicted.long() + 1
    pairs = pairs.masked_fill_(
        target == IGNORE, 0
    )  # a count of their own: a mask as an index would wait for a GPU
    counts = torch.bincount(pairs.flatten(), minlength=classes * classes + 1)
    return counts[1:].reshape(classes, classes)


class BoundaryScore(Metric):
    """Mean boundary F-score: the mean over pictures of the mean over the classes in label or answer.

    Csurka, Larlus and Perronnin, 2013 (BMVC):

    - Precision P is the share of the answer's outline within `tolerance` of the label's, recall R the reverse, and
      F = 2PR / (P + R). `tolerance` is a share of the picture's diagonal, 0.75 % in the paper.
    - An outline is every pixel of a class with a 4-neighbour outside of it. The picture's border is no outline; pixels
      labelled 255 belong to no class in label and answer.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self, *, classes: int, tolerance: float = 0.0075) -> None:
        super().__init__()
        self.classes, self.tolerance = classes, tolerance
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        for answer, truth in zip(predicted, target, strict=True):
            score = boundary_f_score(answer.cpu().numpy(), truth.cpu().numpy(), tolerance=self.tolerance)
            if score is not None:
                self.total += score
                self.count += 1

    def compute(self) -> dict[str, Tensor]:
        return {"boundary_f": (self.total / self.count.clamp(min=1)).float()}


def boundary_f_score(predicted: np.ndarray, target: np.ndarray, *, tolerance: float = 0.0075) -> float | None:
    """The score of one picture, ids (H, W) both; None where the label is ignored as a whole."""
    import cv2

    valid = target != IGNORE
    if not valid.any():
        return None
    reach = tolerance * float(np.hypot(*target.shape))
    scores = []
    for each in np.union1d(target[valid], predicted[valid]):
        edges = [outline((ids == each) & valid, valid) for ids in (predicted, target)]
        near = [cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= reach
                for edge in edges]  # fmt: skip
        sizes = [int(edge.sum()) for edge in edges]
        if not any(sizes):  # the class fills the picture in both
            scores.append(1.0)
            continue
        precision = float(near[1][edges[0]].mean()) if sizes[0] and sizes[1] else 0.0
        recall = float(near[0][edges[1]].mean()) if sizes[0] and sizes[1] else 0.0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.mean(scores))


def outline(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of `mask` with a valid 4-neighbour outside of it."""
    other = valid & ~mask
    edge = np.zeros_like(mask)
    edge[:, 1:] |= other[:, :-1]
    edge[:, :-1] |= other[:, 1:]
    edge[1:] |= other[:-1]
    edge[:-1] |= other[1:]
    return edge & mask
