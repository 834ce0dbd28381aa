"""8 bits in float32: numbers rounded to whole steps of a scale, and gradients that pass as if they were not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic

OPSET = 18
"""Of ONNX, two of whose operations stand for a rounding in an exported file."""


class Rounding(nn.Module):
    """x -> (clamp(round(x / scale) + zero, low, high) - zero) * scale; halves are rounded to even, as in ONNX.

    - `scale`, `zero`: (C,), a step and a whole number for each place of `axis`; or of one element, with `axis` None, for
      the whole tensor.
    - `low`, `high`: the least and the largest of the whole numbers, such as -128 and 127, or 0 and 255.

    The gradient of x is that of the identity inside the range and 0 outside of it (Bengio et al., 2013, arXiv:1308.3432);
    that of the scale is Esser et al., 2020, arXiv:1902.08153, eq. 3. What is learned is the logarithm of a factor, so that a
    learning rate means the same share of every scale (Jain et al., 2020, arXiv:1903.08066). After `hold` the scale stands
    still.
    """

    base: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, zero: Tensor, *, low: int, high: int, axis: int | None = None) -> None:
        super().__init__()
        self.low, self.high, self.axis = low, high, axis
        shape = [-1] if axis is not None else []
        self.register_buffer("base", scale.detach().clone().float().reshape(shape))
        self.register_buffer("zero", zero.detach().clone().to(torch.int32).reshape(shape))
        self.logarithm = nn.Parameter(torch.zeros_like(self.base))

    @property
    def scale(self) -> Tensor:
        """The steps, as they are learned."""
        return self.base * self.logarithm.exp()

    @property
    def held(self) -> bool:
        """Whether the scale stands still."""
        return not self.logarithm.requires_grad

    @torch.no_grad()
    def hold(self) -> None:
        """Let the scale stand still from here on."""
        self.base.copy_(self.scale)
        self.logarithm.zero_()
        self.logarithm.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.exported(x)
        if self.held:
            return rounded(x, self.base, self.zero, self.low, self.high, self.axis)
        answer: Tensor = Rounded.apply(x, self.scale, self.zero, self.low, self.high, self.axis)  # type: ignore[no-untyped-call]
        return answer

    def exported(self, x: Tensor) -> Tensor:
        """As ONNX's QuantizeLinear and DequantizeLinear. torch.export knows no shapes of torch's own rounding."""
        kind = torch.int8 if self.low < 0 else torch.uint8
        given = self.base, self.zero.to(kind)
        axis: Any = {} if self.axis is None else {"axis": self.axis}
        steps = symbolic("QuantizeLinear", (x, *given), axis, dtype=kind, shape=x.shape, version=OPSET)
        return symbolic(
            "DequantizeLinear", (steps, *given), axis, dtype=x.dtype, shape=x.shape, version=OPSET
        )


def rounded(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, axis: int | None) -> Tensor:
    """The rounding without a gradient of the scale."""
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)
    return torch.fake_quantize_per_channel_affine(x, scale, zero, axis, low, high)


class Rounded(torch.autograd.Function):
    """`rounded`, whose backward pass also has the gradient of the scale."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, axis: int | None
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero)
        ctx.low, ctx.high, ctx.axis = low, high, axis
        return rounded(x, scale, zero, low, high, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale, zero = ctx.saved_tensors
        shape = [1] * x.ndim
        if ctx.axis is not None:
            shape[ctx.axis] = -1
        steps = x / scale.view(shape)
        nearest = steps.round()
        least, most = (bound - zero.view(shape) for bound in (ctx.low, ctx.high))
        inside = (nearest >= least) & (nearest <= most)
        slope = torch.where(inside, nearest - steps, nearest.clamp(least, most)) * gradient
        others = [dim for dim in range(x.ndim) if dim != ctx.axis]
        own = slope.sum() if ctx.axis is None else slope.sum(dim=others)
        return gradient * inside, own.view_as(scale), None, None, None, None
