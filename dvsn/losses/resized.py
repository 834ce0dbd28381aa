"""Cross entropy of logits that are smaller than the labels, without ever holding them at label size.

At label size the logits are the largest tensors of a training step by far: 12 x 19 x 1024 x 1024 of them take
912 MiB, and PIDNet's loss would hold four such: two heads, and the log softmax of each.

Linear interpolation along an axis is a product with a matrix that has two numbers a column beside zeros. It is done in
parts, each with only those rows that are not zero; its gradient is the product with the transposed part. It runs in
float32, also under autocast, at the precision of `torch.set_float32_matmul_precision` ("highest" by default).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvsn.types import IGNORE

STRIP = {"cpu": 2**18, "cuda": 2**26}
"""How many logits are at label size at a time: what a cache holds, or enough to keep a GPU busy."""
LINES = 8
"""A strip takes in further pictures as long as it holds this many lines of each."""
COLUMNS = 128
"""The length of the parts of an axis that is interpolated at once."""


def resize(logits: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """(N, K, h, w) -> (N, K, H, W), bilinearly."""
    tall = stretch(logits.mT, size[0], align_corners=align_corners).mT  # (N, K, H, w)
    return stretch(tall, size[1], align_corners=align_corners)


def stretch(values: Tensor, size: int, *, align_corners: bool) -> Tensor:
    """(..., w) -> (..., size), linearly."""
    if values.shape[-1] == size:
        return values
    found: Tensor = _Stretch.apply(values, size, align_corners)  # type: ignore[no-untyped-call]
    return found


def resized_cross_entropy(logits: Tensor, target: Tensor, *, align_corners: bool) -> Tensor:
    """Cross entropy (N, H, W) of logits (N, K, h, w) at the size of the `target` (N, H, W); 0 where ignored.

    The target is uint8 or int64; bytes are read faster. Resized, log softmax, cross entropy; the order of summation
    apart, the result and its gradient are torch's. The logits are made wider first. Then strips of lines, which stay in
    the cache of a CPU, are made one after the other, and once more in the backward pass. The largest tensor is
    (N, h, K, W); the sums of the softmax are kept.
    What it costs: `experiments/speed/segmentation_step.md`.
    """
    values: Tensor = _CrossEntropy.apply(logits, target, align_corners)  # type: ignore[no-untyped-call]
    return values


class _CrossEntropy(torch.autograd.Function):
    """`resized_cross_entropy`, with the softmax in powers of two.

    Each pixel's largest logit is subtracted before the logits are resized: that changes no softmax, and no value in
    between overflows.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
        bits = (logits - logits.amax(dim=1, keepdim=True)) * math.log2(math.e)
        rows = _stretch(bits.transpose(1, 2), target.shape[2], align_corners)  # (N, h, K, W)
        ctx.width, ctx.align_corners, ctx.level = logits.shape[3], align_corners, _is_level(bits)
        values, totals, room = rows.new_empty(target.shape), rows.new_empty(target.shape), _room(rows)
        for pictures, part in _strips(rows, target, align_corners):
            labels = target[pictures, part.outputs]
            ignored = labels == IGNORE
            lines = _lines(rows[pictures, part.inputs], part, level=ctx.level, room=room)
            true = lines.gather(2, labels.masked_fill(ignored, 0).long().unsqueeze(2)).squeeze(2)
            total = torch.sum(lines.exp2_(), dim=2, out=totals[pictures, part.outputs])
            values[pictures, part.outputs] = total.log2().sub_(true).masked_fill_(ignored, 0.0)
        ctx.save_for_backward(rows, target, totals)
        return values.mul_(math.log(2))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        rows, target, totals = ctx.saved_tensors
        change, last, room = torch.zeros_like(rows), rows.shape[2] - 1, _room(rows)
        for pictures, part in _strips(rows, target, ctx.align_corners):
            labels = target[pictures, part.outputs].unsqueeze(2)
            factor = slope[pictures, part.outputs].unsqueeze(2).masked_fill(labels == IGNORE, 0.0)
            lines = _lines(rows[pictures, part.inputs], part, level=ctx.level, room=room).exp2_()
            lines.mul_(factor / totals[pictures, part.outputs].unsqueeze(2))
            lines.scatter_add_(2, labels.clamp(max=last).long(), factor.neg_())
            weights = part.weights.expand(len(lines), -1, -1)
            change[pictures, part.inputs].flatten(2).baddbmm_(weights, lines.flatten(2))
        return _shrink(change, ctx.width, ctx.align_corners).transpose(1, 2), None, None


def _is_level(bits: Tensor) -> bool:
    """Whether no interpolated pixel needs a maximum of its own: one of its classes is above 2^-100 as it is.

    True if between any four neighbours of (N, K, h, w) some class lies above -100 in all four. Always False on a GPU, where
    the answer would have to be waited for.
    """
    if bits.device.type != "cpu":
        return False
    for dim in (2, 3):
        pairs = max(1, bits.shape[dim] - 1)
        bits = torch.minimum(bits.narrow(dim, 0, pairs), bits.narrow(dim, bits.shape[dim] - pairs, pairs))
    return bool(bits.amax(dim=1).amin() > -100)


def _lines(rows: Tensor, part: _Part, *, level: bool, room: Tensor) -> Tensor:
    """Rows (n, r, K, W) of a strip -> its lines (n, l, K, W), the largest class at 0 unless they are `level`.

    They are written to `room`, a buffer that all strips share, so that it stays in the CPU's cache.
    """
    count, _, classes, width = rows.shape
    shape = (count, part.weights.shape[1], classes * width)
    lines = room[: math.prod(shape)].view(shape)
    torch.bmm(part.weights.T.expand(count, -1, -1), rows.flatten(2), out=lines)  # `out`: no autocast
    lines = lines.unflatten(2, (classes, width))
    return lines if level else lines.sub_(lines.amax(dim=2, keepdim=True))


def _room(rows: Tensor) -> Tensor:
    """An empty buffer for the lines of the largest strip."""
    count, _, classes, width = rows.shape
    pictures, length = _strip_shape(rows)
    return rows.new_empty(min(count, pictures) * length * classes * width)


def _strip_shape(rows: Tensor) -> tuple[int, int]:
    """The number of pictures of a strip, and of lines of each."""
    count, _, classes, width = rows.shape
    lines = STRIP.get(rows.device.type, 2**26) // (classes * width)  # of all pictures together
    pictures = min(count, max(1, lines // LINES))
    return pictures, max(1, lines // pictures)


def _strips(rows: Tensor, target: Tensor, align_corners: bool) -> Iterator[tuple[slice, _Part]]:
    """The strips of a batch: a slice of its pictures, and the part of their lines."""
    count, height = rows.shape[:2]
    pictures, length = _strip_shape(rows)
    parts = _parts(height, target.shape[1], length, align_corners, rows.dtype, rows.device)
    for start in range(0, count, pictures):
        for part in parts:
            yield slice(start, start + pictures), part


class _Stretch(torch.autograd.Function):
    """`stretch`, with `_shrink` as its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, size: int, align_corners: bool) -> Tensor:
        ctx.width, ctx.align_corners = values.shape[-1], align_corners
        return _stretch(values, size, align_corners)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _shrink(slope, ctx.width, ctx.align_corners), None, None


def _stretch(values: Tensor, size: int, align_corners: bool) -> Tensor:
    """(..., w) -> (..., size), linearly."""
    width = values.shape[-1]
    if width == size:
        return values.contiguous()
    flat = values.reshape(-1, width)
    found = flat.new_empty(len(flat), size)
    for part in _parts(width, size, COLUMNS, align_corners, values.dtype, values.device):
        torch.mm(flat[:, part.inputs], part.weights, out=found[:, part.outputs])
    return found.view(*values.shape[:-1], size)


def _shrink(slope: Tensor, width: int, align_corners: bool) -> Tensor:
    """The adjoint of `_stretch`: (..., size) -> (..., width)."""
    size = slope.shape[-1]
    if size == width:
        return slope
    flat = slope.reshape(-1, size)
    found = flat.new_zeros(len(flat), width)
    for part in _parts(width, size, COLUMNS, align_corners, slope.dtype, slope.device):
        found[:, part.inputs].addmm_(flat[:, part.outputs], part.weights.T)
    return found.view(*slope.shape[:-1], width)


class _Part(NamedTuple):
    """Outputs of an interpolation, the inputs that they need, and the weights (inputs, outputs)."""

    outputs: slice
    inputs: slice
    weights: Tensor


@functools.lru_cache(256)
def _parts(
    inputs: int, outputs: int, length: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> list[_Part]:
    """Linear interpolation of `inputs` values in parts of `length` outputs; the weights are torch's for unit vectors."""
    matrix = torch.eye(inputs, dtype=dtype)
    if inputs != outputs:
        matrix = F.interpolate(matrix[None], size=outputs, mode="linear", align_corners=align_corners)[0]
    parts = []
    for start in range(0, outputs, length):
        weights = matrix[:, start : start + length]
        used = weights.any(dim=1).nonzero()
        rows = slice(int(used[0]), int(used[-1]) + 1)
        parts.append(_Part(slice(start, start + length), rows, weights[rows].to(device)))
    return parts
