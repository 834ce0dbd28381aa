"""Names for the places in a classifier that methods of distillation read."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from dvsn.networks.blocks import require_image


class Tapped(nn.Module):
    """Base of classifiers that name their taps. A tap is a module's path for its output, or `PATH:in` for its first input.

    These networks have no operations in place, so no tapped value is overwritten later.
    """

    response: ClassVar[str] = "classes"
    taps: tuple[str, ...] = ()
    """The output of each stage, finest first, as the distillation benchmarks take it."""
    stem_tap: str = ""
    """The input of the first stage."""
    pooled_tap: str = ""
    """The input (N, D) of the class layer."""
    map_tap: str = ""
    """The map whose average over the pixels is that vector, where this is not the last of `taps`. Of a network that answers
    with maps what its trunk hands to a head of several layers."""
    dense_tap: str = ""
    """Of a network that answers with maps what its head reads: the last map before the classes, at the answer's size."""
    pre_activation_taps: tuple[str, ...] = ()
    """The value of each of `taps` before the ReLU that ends its stage; the tap itself where there is no ReLU."""
    tap_norms: tuple[str | None, ...] = ()
    """The batch norm right before each of `pre_activation_taps`, whose running statistics describe its distribution."""

    multiple: ClassVar[int] = 1
    minimum: ClassVar[int] = 1
    """The least side of a picture."""

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> the map (N, D, h, w) whose average over the pixels the class layer reads."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=1, minimum=self.minimum)
        class_layer = self.get_submodule(self.pooled_tap.removesuffix(":in"))
        logits: Tensor = class_layer(self.features(image).mean(dim=(2, 3)))
        return logits
