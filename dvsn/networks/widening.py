"""A network for RGB made to read pictures of any number of channels: its first convolutions, and the weights for them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError

SIDES = (256, 224, 64, 32, 512)
"""Of the pictures on which a network is tried, until it takes one."""


def widen(network: nn.Module, channels: int) -> nn.Module:
    """The network, whose convolutions that read the picture now read `channels` channels; as it is for three.

    Their kernels are drawn anew from a normal distribution of the mean 0 and the standard deviation s * sqrt(3 / channels),
    s being that of the kernels before, so that the answer varies as much. Weights of RGB that are loaded later are
    made to fit by `widened`. The network gets `image_layers`, their paths, and with its parts that are shown the
    picture `image_channels`, which `require_image` reads.

    Raises `ConfigError` for a network of which no such convolution is found.
    """
    if channels == 3:
        return network
    layers, shown = readers_of(network)
    if not layers:
        raise ConfigError(
            f"task.mean: has {channels} numbers, for pictures of {channels} channels, and no convolution of "
            f"{type(network).__name__} was found that reads the picture. Choose another network, or data.input_channels=3."
        )
    for path in layers:
        convolution: Any = network.get_submodule(path)
        with torch.no_grad():
            old = convolution.weight
            kernels = torch.randn_like(old[:, :1].expand(-1, channels, -1, -1))
            spread = old.std() if old.numel() > 1 else old.new_tensor(1.0)
            convolution.weight = nn.Parameter(kernels * spread * (3 / channels) ** 0.5)
        convolution.in_channels = channels
    for path in ("", *shown):
        network.get_submodule(path).image_channels = channels  # type: ignore[assignment]
    network.image_layers = tuple(layers)  # type: ignore[assignment]
    return network


def readers_of(network: nn.Module) -> tuple[list[str], list[str]]:
    """Paths of the convolutions that read the picture, and of the other modules that are given it. They are found in a dry
    run of a copy without memory: what has three channels and is as large as the picture, or is padded to be larger, is
    the picture."""
    for side in SIDES:
        found = _tried(network, side)
        if found is not None:
            return found
    return [], []


def _tried(network: nn.Module, side: int) -> tuple[list[str], list[str]] | None:
    """`readers_of` by a picture of these sides; None where the network does not take it."""
    ghost = copy.deepcopy(network).to(device="meta").eval()
    layers: list[str] = []
    shown: list[str] = []

    def note(path: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        image = given[0] if given else None
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or image.shape[-1] < side:
            return
        if not isinstance(module, nn.Conv2d):
            shown.append(path)
        elif module.groups == 1:
            layers.append(path)

    for path, module in ghost.named_modules():
        module.register_forward_pre_hook(lambda module, given, path=path: note(path, module, given))
    try:
        with torch.no_grad():
            ghost(torch.empty(1, 3, side, side, device="meta"))
    except (UserError, RuntimeError, AssertionError, NotImplementedError):
        return None
    return list(dict.fromkeys(layers)), list(dict.fromkeys(path for path in shown if path))


def widened(kernels: Tensor, channels: int) -> Tensor:
    """Kernels (n, C, h, w) for pictures of C channels, such as RGB -> (n, `channels`, h, w): the mean over C, times
    C / `channels`, for every channel. So a picture whose channels are equal is answered as before."""
    own = kernels.shape[1]
    if own == channels:
        return kernels
    mean = kernels.mean(dim=1, keepdim=True) * (own / channels)
    return mean.repeat(1, channels, 1, 1)


def fitted(state: dict[str, Any], network: nn.Module, own: dict[str, Tensor]) -> dict[str, Any]:
    """Weights by name, those of the convolutions that read the picture `widened` to what the network has: `own`."""
    layers: tuple[str, ...] = getattr(network, "image_layers", ())
    result = dict(state)
    for path in layers:
        key = f"{path}.weight"
        given, like = state.get(key), own[key]
        if isinstance(given, Tensor) and given.ndim == 4 and given.shape[1] != like.shape[1]:
            result[key] = widened(given, like.shape[1])
    return result
