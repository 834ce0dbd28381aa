"""A network that sees a smaller picture than it is given."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError


class Shrinking:
    """Makes pictures (N, C, H, W) smaller before a network sees them, by `factor` in (0, 1). Of 1/2, 1/3, ... each pixel is
    the mean of those that it stands for; of other factors they are interpolated."""

    def __init__(self, factor: float) -> None:
        self.factor, self.times = factor, round(1 / factor)

    @property
    def whole(self) -> bool:
        return abs(self.factor * self.times - 1) < 1e-9

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        image: Tensor = arguments[0]
        if self.whole:
            small = F.avg_pool2d(image, self.times)
        else:
            sides = [round(self.factor * side) for side in image.shape[-2:]]
            small = F.interpolate(image, size=sides, mode="bilinear", align_corners=False)
        return (small, *arguments[1:])


class Shrunk(nn.Module):
    """`network` that is given a picture and sees `factor` of its sides. It is an object of the network's own class, so that
    its taps and names stay as they are.

    Its answer is that of the smaller picture: logits of pixels are resized to the label by the task, as always, and classes
    have no place. Answers with places in pixels, boxes and heatmaps, would lie elsewhere: their size is an option of the
    transform. `factor` is 1/2, 1/3, ..., or between 1/2 and 1.
    """

    def __new__(cls, *, network: nn.Module, factor: float) -> Any:
        shrinking = Shrinking(factor) if 0 < factor < 1 else None
        if shrinking is None or not (shrinking.whole or factor > 0.5):
            raise ConfigError(
                f"factor: found {factor!r}, expected 1/2, 1/3, ..., or a number between 0.5 and 1."
            )
        own = int(getattr(network, "multiple", 1))
        multiple = own * shrinking.times
        if not shrinking.whole:
            multiple = next((each for each in range(own, 64 * own + 1, own) if divides(each, factor, own)), 0)
        if not multiple:
            raise ConfigError(
                f"factor: sides that divide by {own} after a factor of {factor:g} would be too long. Give another one."
            )
        network.multiple = multiple  # type: ignore[assignment]
        network.register_forward_pre_hook(shrinking)
        return network

    def __init__(self, *, network: nn.Module, factor: float) -> None:
        super().__init__()  # the class of what is made is the network's: this only says the options


def divides(side: int, factor: float, multiple: int) -> bool:
    """Whether a side becomes a whole number that divides by `multiple`."""
    small = side * factor
    return abs(small - round(small)) < 1e-6 and round(small) % multiple == 0
