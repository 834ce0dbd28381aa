"""FCN score: do generated street scenes look right to a segmentation network?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from dvsn.types import IGNORE


class FcnScore(Metric):
    """Per-pixel accuracy, per-class accuracy and class IoU of a segmenter on generated photos.

    Isola et al., 2017, arXiv:1611.07004, section 3.4. The paper scores with its own FCN-8s: numbers of another segmenter
    cannot be compared with its tables.

    - `segmenter` maps RGB (N, 3, H, W), float in [0, 1], to class ids (N, h, w).
    - `ids` (N, H', W') are the labels that the photos were painted from, `ignore_index` where nothing is scored.
      Predictions are brought to their size by nearest neighbour.
    - `absent_as_zero`: a class without ground truth counts as zero in both means, as in the paper's script. False: it is
      left out of the accuracy, and out of the IoU if it is not predicted either.
    """

    full_state_update = False
    higher_is_better = True
    confusion: Tensor

    def __init__(
        self,
        *,
        segmenter: Callable[[Tensor], Tensor],
        classes: int,
        ignore_index: int = 255,
        absent_as_zero: bool = True,
    ) -> None:
        super().__init__()
        self._segmenter = (segmenter,)  # a tuple, so that its weights stay out of the state
        self.classes, self.ignore_index, self.absent_as_zero = classes, ignore_index, absent_as_zero
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, generated: Tensor, ids: Tensor) -> None:
        predicted = self._segmenter[0](generated)
        if predicted.shape[-2:] != ids.shape[-2:]:
            resized = torch.nn.functional.interpolate(
                predicted[:, None].float(), size=ids.shape[-2:], mode="nearest"
            )
            predicted = resized[:, 0].long()
        valid = (ids != self.ignore_index) & (ids < self.classes)
        pairs = ids[valid].long() * self.classes + predicted[valid].long()
        counts = torch.bincount(pairs, minlength=self.classes**2)
        self.confusion += counts.reshape(self.classes, self.classes).to(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Rows of the confusion matrix are ground truth."""
        right = self.confusion.diagonal()
        rows, columns = self.confusion.sum(dim=1), self.confusion.sum(dim=0)
        union = rows + columns - right
        every = torch.ones_like(rows, dtype=torch.bool)
        tiny = 1e-12
        return {
            "pixel_accuracy": (right.sum() / (rows.sum() + tiny)).float(),
            "class_accuracy": (right / (rows + tiny))[every if self.absent_as_zero else rows > 0]
            .mean()
            .float(),
            "class_iou": (right / (union + tiny))[every if self.absent_as_zero else union > 0].mean().float(),
        }


def ids_of_colors(colors: Tensor, palette: Tensor) -> Tensor:
    """uint8 RGB (N, 3, H, W) -> the class (N, H, W) of exactly that colour in `palette` (K, 3), else 255."""
    place = torch.tensor([65536, 256, 1], device=colors.device)
    packed = (colors.long() * place.view(1, 3, 1, 1)).sum(dim=1)
    ids = torch.full_like(packed, IGNORE)
    for number, code in enumerate((palette.long().to(colors.device) * place).sum(dim=1).tolist()):
        ids[packed == code] = number
    return ids
