"""A network with fewer channels, as structured pruning leaves it: the network itself, with narrower layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dvsn.errors import ConfigError, nearest

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)


class Narrowed(nn.Module):
    """`network` whose modules at the paths of `layers` have other numbers of channels. It is an object of the network's own
    class, so that its taps, its names and what a task asks of it stay as they are.

    `layers`: of a convolution [inputs, outputs, groups], of a linear layer [inputs, outputs], of a batch norm [channels].
    Weights of these are drawn anew; a checkpoint or the option `weights` brings those that pruning has kept.
    """

    def __new__(cls, *, network: nn.Module, layers: Mapping[str, Sequence[int]]) -> Any:
        modules = dict(network.named_modules())
        for path, widths in layers.items():
            if not path or path not in modules:
                raise ConfigError(
                    f"layers: {type(network).__name__} has no module {path!r}. {nearest(path, modules)}"
                )
            network.set_submodule(path, narrower(modules[path], widths, path))
        return network

    def __init__(self, *, network: nn.Module, layers: Mapping[str, Sequence[int]]) -> None:
        super().__init__()  # the class of what is made is the network's: this only says the options


def narrower(module: nn.Module, widths: Sequence[int], path: str) -> nn.Module:
    """A layer of the same kind and options with other numbers of channels."""
    count = 3 if isinstance(module, CONVOLUTIONS) else 2 if isinstance(module, nn.Linear) else 1
    right = len(widths) == count and all(isinstance(each, int) and each > 0 for each in widths)
    if type(module) not in (*CONVOLUTIONS, *NORMS, nn.Linear) or not right:
        raise ConfigError(
            f"layers.{path}: found {list(widths)!r} for {type(module).__name__}, expected [inputs, outputs, groups] of a "
            "convolution, [inputs, outputs] of a linear layer, or [channels] of a batch norm."
        )
    if isinstance(module, nn.Linear):
        return nn.Linear(widths[0], widths[1], bias=module.bias is not None)
    if isinstance(module, NORMS):
        return type(module)(
            widths[0],
            eps=module.eps,
            momentum=module.momentum,
            affine=module.affine,
            track_running_stats=module.track_running_stats,
        )
    assert isinstance(module, CONVOLUTIONS)
    more: dict[str, Any] = {}
    if isinstance(module, nn.ConvTranspose2d):
        more["output_padding"] = module.output_padding
    if widths[0] % widths[2] or widths[1] % widths[2]:
        raise ConfigError(
            f"layers.{path}: {widths[0]} and {widths[1]} channels do not divide by {widths[2]} groups."
        )
    return type(module)(
        widths[0],
        widths[1],
        module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        padding=module.padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=widths[2],
        bias=module.bias is not None,
        padding_mode=module.padding_mode,  # type: ignore[arg-type]
        **more,
    )


def widths_of(module: nn.Module) -> list[int] | None:
    """The numbers of channels of a layer, as `layers` of `Narrowed` has them; None of a module without any of its own."""
    if isinstance(module, CONVOLUTIONS):
        return [module.in_channels, module.out_channels, module.groups]
    if isinstance(module, nn.Linear):
        return [module.in_features, module.out_features]
    return [module.num_features] if isinstance(module, NORMS) else None
