"""The objective of picture classification."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, DataError
from dvsn.types import Batch, Terms


class ClassCrossEntropy(nn.Module):
    """Cross entropy of a picture's class, averaged over the batch: the term `cross_entropy`.

    `label_smoothing` e mixes the target with the uniform distribution over all classes, e of it (Szegedy et
    al., 2016, arXiv:1512.00567, section 7): (1 - e) times the cross entropy plus e times the mean over the
    classes of minus their log probability. With `partly` the mean is over the pictures that have a class, and 0 where none
    has. Worked out in float32, whatever the precision of the network.
    """

    reads: ClassVar[tuple[str, ...]] = ("classes",)

    def __init__(self, *, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"loss.classes: found {classes}, expected 2 or more. Set data.classes.")
        if not 0.0 <= label_smoothing < 1.0:
            raise ConfigError(
                f"loss.label_smoothing: found {label_smoothing!r}, expected 0 or more and below 1."
            )
        self.classes, self.label_smoothing = classes, label_smoothing
        self.partly = False  # whether pictures may have no class, which is -1

    def forward(self, output: Any, batch: Batch) -> Terms:
        """`output`: logits (N, K); `batch["target"]`: class numbers (N,) int64. A mixed batch also has `other`, the second
        class of each picture (N,), and `share`, that of the first (N,)."""
        target = batch["target"]
        if not isinstance(output, Tensor) or output.ndim != 2:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"network: answers {found}, expected logits (N, {self.classes}), one row a picture. Choose a "
                "classifier, such as network=pidnet_s_classifier."
            )
        if output.shape[1] != self.classes:
            raise ConfigError(
                f"network: answers {output.shape[1]} classes, but data.classes is {self.classes}. Set both to one number."
            )
        least = -1 if self.partly else 0
        if target.device.type == "cpu" and not bool(((target >= least) & (target < self.classes)).all()):
            raise DataError(
                f"classes: found numbers from {int(target.min())} to {int(target.max())} in a batch, expected 0 to "
                f"{self.classes - 1}. Set data.classes."
            )
        return {"cross_entropy": self._value(output.float(), batch)}

    def _value(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of mixed pictures that of their two classes, each by its share, which is the cross entropy of soft targets."""
        smooth, target = self.label_smoothing, batch["target"]
        if self.partly:
            values = F.cross_entropy(logits, target, label_smoothing=smooth, reduction="sum", ignore_index=-1)
            return values / (target >= 0).sum().clamp(min=1)
        if "other" not in batch:
            return F.cross_entropy(logits, target, label_smoothing=smooth)
        first, second = (
            F.cross_entropy(logits, batch[key], label_smoothing=smooth, reduction="none")
            for key in ("target", "other")
        )
        return (batch["share"] * first + (1 - batch["share"]) * second).mean()
