"""Cross entropy of logits that are smaller than the labels, without ever holding them at label size.

At label size the logits are the largest tensors of a training step by far: 12 x 19 x 1024 x 1024 of them take
912 MiB, and PIDNet's loss would hold four such: two heads, and the log softmax of each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvsn.types import IGNORE

STRIP = {"cpu": 2**17, "cuda": 2**26}
"""How many logits are at label size at a time: what a cache holds, or enough to keep a GPU busy."""


def resize(logits: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """(N, K, h, w) -> (N, K, H, W), bilinearly."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def resized_cross_entropy(logits: Tensor, target: Tensor, *, align_corners: bool) -> Tensor:
    """Cross entropy (N, H, W) of logits (N, K, h, w) at the size of the `target` (N, H, W) int64; 0 where ignored.

    Resized, log softmax, cross entropy; the order of summation apart, the result and its gradient are torch's. The
    logits are made taller first, and every line of pixels is then on its own: strips of lines are made wider
    one after the other, and once more in the backward pass. The largest tensor is (N, K, H, w). On a CPU
    strips that stay in the cache make PIDNet's loss take 0.55 of its time (`experiments/speed/segmentation_step.md`).
    """
    classes, width = logits.shape[1], logits.shape[-1]
    tall = resize(logits, (target.shape[1], width), align_corners=align_corners)  # (N, K, H, w)
    lines = tall.permute(0, 2, 3, 1).reshape(1, -1, width, classes).permute(0, 3, 1, 2)  # (1, K, N * H, w)
    values: Tensor = _Lines.apply(lines, target.flatten(0, 1), align_corners)  # type: ignore[no-untyped-call]
    return values.view_as(target)


class _Lines(torch.autograd.Function):
    """Lines of logits (1, K, L, w) and of labels (L, W) -> their cross entropy (L, W)."""

    @staticmethod
    def forward(ctx: Any, lines: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        ctx.save_for_backward(lines, target)
        ctx.align_corners = align_corners
        values = []
        for strip, labels in _strips(lines, target):
            wide = resize(strip, tuple(labels.shape), align_corners=align_corners)  # type: ignore[arg-type]
            true = wide.log_softmax(dim=1).gather(1, _index(labels))
            values.append(-true[0, 0])
        return torch.cat(values).masked_fill_(target == IGNORE, 0.0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        lines, target = ctx.saved_tensors
        slopes = slope.masked_fill(target == IGNORE, 0.0).split(_height(lines, target))
        found = []
        for (strip, labels), each in zip(_strips(lines, target), slopes, strict=True):
            with torch.enable_grad():
                strip = strip.detach().requires_grad_()
                wide = resize(strip, tuple(labels.shape), align_corners=ctx.align_corners)  # type: ignore[arg-type]
            change, index = wide.detach().softmax(dim=1), _index(labels)
            change.scatter_(1, index, change.gather(1, index) - 1).mul_(each)
            change = change.contiguous(memory_format=torch.channels_last)
            found.append(torch.autograd.grad(wide, strip, change)[0])
        return torch.cat(found, dim=2), None, None


def _height(lines: Tensor, target: Tensor) -> int:
    return max(1, STRIP.get(lines.device.type, 2**26) // (lines.shape[1] * target.shape[1]))


def _strips(lines: Tensor, target: Tensor) -> zip[tuple[Tensor, Tensor]]:
    height = _height(lines, target)
    return zip(lines.split(height, dim=2), target.split(height), strict=True)


def _index(labels: Tensor) -> Tensor:
    """(l, W) labels -> (1, 1, l, W) indices; ignored pixels take class 0, whose value nobody uses."""
    return labels.masked_fill(labels == IGNORE, 0)[None, None]
