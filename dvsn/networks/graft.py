"""Grafts: layers that a method of distillation adds to a classifier, between its last map and its class layer.

A graft is part of the network, not of the method: it stands in the recipe (`task.graft`), in the state dict and in what is
shipped, and it is rebuilt without the teacher that it was made for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest
from dvsn.networks.blocks import conv_bn
from dvsn.networks.initialise import kaiming


class Grafted(nn.Module):
    """A module followed by a graft, in the place of that module.

    Taps of its path still record the output of `base`; taps of PATH.graft record that of the graft.
    """

    def __init__(self, base: nn.Module, graft: nn.Module) -> None:
        super().__init__()
        self.base, self.graft = base, graft

    def forward(self, *given: Any, **named: Any) -> Tensor:
        answer: Tensor = self.graft(self.base(*given, **named))
        return answer


class Graft(nn.Module):
    """Base of all grafts.

    `at` is the path of the module whose output (N, C, H, W) goes through the graft, `head` that of the linear class layer,
    which reads the average over the pixels.
    """

    def __init__(self, *, at: str, head: str) -> None:
        super().__init__()
        self.at, self.head = at, head

    def install(self, network: nn.Module) -> None:
        """Make it part of the network. Raises `ConfigError` where the network has no module of these paths."""
        base = find(network, self.at, "graft.at")
        layer = find(network, self.head, "graft.head")
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"graft.head: '{self.head}' is a {type(layer).__name__}, expected the linear class layer."
            )
        network.set_submodule(self.at, Grafted(base, self))

    def shipped(self, network: nn.Module) -> nn.Module:
        """The network that it is part of, as it is shipped."""
        return network


class Projector(Graft):
    """1x1, 3x3 and 1x1 convolution, each with batch norm and ReLU: (N, inputs, H, W) -> (N, outputs, H/p, W/p); and behind
    it, instead of the network's own class layer, one of another network, which is not trained.

    The student of SimKD (Chen et al., 2022, arXiv:2203.14001): it learns to answer with the teacher's last map, and the
    teacher's classifier, `outputs` -> `classes`, makes classes of it. `pool` is p, height and width, where the student's map
    is the larger one: it is averaged before the first convolution. `without` are modules between the map and the class
    layer, such as MobileNetV2's last convolution, that the network does without from now on. Convolutions have no bias.
    """

    def __init__(
        self,
        *,
        at: str,
        head: str,
        inputs: int,
        middle: int,
        outputs: int,
        classes: int,
        bias: bool = True,
        pool: Sequence[int] = (1, 1),
        without: Sequence[str] = (),
    ) -> None:
        super().__init__(at=at, head=head)
        self.classes, self.outputs, self.bias = classes, outputs, bias
        self.pool, self.without = (int(pool[0]), int(pool[1])), tuple(without)
        self.layers = nn.Sequential(
            *conv_bn(inputs, middle, 1),
            nn.ReLU(),
            *conv_bn(middle, middle, 3),
            nn.ReLU(),
            *conv_bn(middle, outputs, 1),
            nn.ReLU(),
        )

    def install(self, network: nn.Module) -> None:
        super().install(network)
        for path in self.without:
            find(network, path, "graft.without")
            network.set_submodule(path, nn.Identity())
        reused = nn.Linear(self.outputs, self.classes, bias=self.bias)
        network.set_submodule(self.head, reused.requires_grad_(False))

    def forward(self, feature: Tensor) -> Tensor:
        if self.pool != (1, 1):
            feature = F.avg_pool2d(feature, self.pool)
        projected: Tensor = self.layers(feature)
        return projected


class LinearPair(Graft):
    """x + contract(expand(x)): two 1x1 convolutions with batch norm and nothing between, (N, channels, H, W) to `width` and
    back. The module behind `expand` is the one to tap.

    The feature transform of NORM (Liu et al., 2023, arXiv:2305.13803). In evaluation all of it is linear, as are the average
    over the pixels and the class layer behind it, so `shipped` puts it into the class layer's weight and bias: the network
    has its own layers and parameters again.
    """

    def __init__(self, *, at: str, head: str, channels: int, width: int) -> None:
        super().__init__(at=at, head=head)
        self.expand = conv_bn(channels, width, 1)
        self.contract = conv_bn(width, channels, 1)
        kaiming(self)

    def forward(self, feature: Tensor) -> Tensor:
        transformed: Tensor = feature + self.contract(self.expand(feature))
        return transformed

    def shipped(self, network: nn.Module) -> nn.Module:
        """A copy of the network without it, in eval mode: the same answers up to rounding. Products are made in float64."""
        bare = copy.deepcopy(network).eval()
        grafted = bare.get_submodule(self.at)
        assert isinstance(grafted, Grafted) and isinstance(grafted.graft, LinearPair)
        bare.set_submodule(self.at, grafted.base)
        grafted.graft.fold_into(bare.get_submodule(self.head))
        return bare

    @torch.no_grad()
    def fold_into(self, layer: nn.Module) -> None:
        """W' = W (1 + C E), b' = b + W (C e + c), where E x + e and C x + c are the two convolutions with their norms."""
        assert isinstance(layer, nn.Linear) and layer.bias is not None
        first, second = affine(self.expand), affine(self.contract)
        weight = layer.weight.double()
        layer.bias.add_((weight @ (second[0] @ first[1] + second[1])).to(layer.bias.dtype))
        layer.weight.add_((weight @ second[0] @ first[0]).to(layer.weight.dtype))


def affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution with batch norm in evaluation as (outputs, inputs) and (outputs,) float64."""
    assert isinstance(layer, nn.Sequential)
    convolution, norm = layer
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    return convolution.weight.double().flatten(1) * scale[:, None], norm.bias.double() - mean.double() * scale


def find(network: nn.Module, path: str, where: str) -> nn.Module:
    """The module of a path. Raises `ConfigError` with the nearest ones."""
    modules = dict(network.named_modules())
    modules.pop("", None)
    if path not in modules:
        raise ConfigError(
            f"{where}: {type(network).__name__} has no module '{path}'. {nearest(path, modules)}"
        )
    return modules[path]


def behind(module: nn.Module) -> nn.Module:
    """The module that a tap of a path records: under a graft, the one that it was put behind."""
    return module.base if isinstance(module, Grafted) else module


def shipped(network: nn.Module) -> nn.Module:
    """The network as it is shipped: itself, or a copy whose graft is folded away."""
    for module in network.modules():
        if isinstance(module, Graft):
            return module.shipped(network)
    return network
