"""What a network says of its own depths: where distillation may look."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Tapped(nn.Module):
    """A network with named places. A place is a module's path for its output, or `PATH:in` for its first input.

    No operation below overwrites what stands at any of these places: the networks of this kind have none in place.
    """

    taps: tuple[str, ...] = ()
    """The output of each stage, finest first, as the distillation benchmarks take it."""
    stem_tap: str = ""
    """What enters the first stage."""
    pooled_tap: str = ""
    """The vector (N, D) that the class layer sees."""
    map_tap: str = ""
    """The map whose average over the pixels is that vector, where this is not the last of `taps`."""
    pre_activation_taps: tuple[str, ...] = ()
    """The value of each of `taps` before the ReLU that ends its stage; the tap itself where there is no ReLU."""
    tap_norms: tuple[str | None, ...] = ()
    """Of each of `pre_activation_taps` the batch norm right in front of it, whose statistics tell what it looks like."""

    multiple: ClassVar[int] = 1
