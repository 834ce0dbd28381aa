"""Initial weights, as published."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from torch import nn

from dvsn.networks.blocks import require_choice, require_number

Init = Literal["normal", "xavier", "kaiming", "orthogonal", "none"]


def convolutions(network: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    """The convolutions of a network, itself included, in the order of its modules."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            yield module


def kaiming(
    network: nn.Module,
    *,
    mode: Literal["fan_in", "fan_out"] = "fan_out",
    slope: float = 0.0,
    zero_biases: bool = False,
) -> None:
    """Kernels normal with the deviation of He et al., 2015, arXiv:1502.01852, for a leaky ReLU of this slope (0: ReLU).

    Biases stay as PyTorch has them unless `zero_biases`; norms and linear layers stay.
    """
    for layer in convolutions(network):
        nn.init.kaiming_normal_(layer.weight, a=slope, mode=mode)
        if zero_biases and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def small_normal(network: nn.Module, *, zero_biases: bool = False) -> None:
    """Kernels N(0, 0.001), as the heads of HRNet and of SimpleBaseline start. Biases as in `kaiming`."""
    for layer in convolutions(network):
        nn.init.normal_(layer.weight, std=0.001)
        if zero_biases and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialise(network: nn.Module, *, init: Init, gain: float) -> None:
    """Fill every convolution and batch norm of an image-to-image network.

    Weights: `normal` N(0, gain); `xavier` normal, scaled by gain; `kaiming` normal, fan in, for ReLU (gain
    does not apply); `orthogonal`, scaled by gain. Under each of them biases are zero, a batch norm's scale
    N(1, gain) (second number: standard deviation) and its shift zero. `none` leaves the framework's defaults.
    Isola et al., 2017, arXiv:1611.07004, section 6.2, have `normal` with 0.02.
    """
    require_choice(network, "init", init, Init)
    require_number(network, "init_gain", gain, least=0.0)
    if init == "none":
        return
    fill = {
        "normal": partial(nn.init.normal_, mean=0.0, std=gain),
        "xavier": partial(nn.init.xavier_normal_, gain=gain),
        "kaiming": partial(nn.init.kaiming_normal_, a=0.0, mode="fan_in"),
        "orthogonal": partial(nn.init.orthogonal_, gain=gain),
    }[init]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fill(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=gain)
            nn.init.zeros_(module.bias)
