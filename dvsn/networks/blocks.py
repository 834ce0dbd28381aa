"""What many networks share: convolutions with a norm, up-sampling, and checks of options and of the input."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError, nearest

Norm = Literal["batch", "instance", "none"]
Upsample = Literal["transposed", "resize"]


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride), padded by half the kernel unless
    `padding` says otherwise."""
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, padding: int | None = None, bias: bool = False
) -> nn.Sequential:
    """`conv_bn` and a ReLU in place."""
    layers = conv_bn(inputs, outputs, kernel, stride, padding=padding, bias=bias)
    return layers.append(nn.ReLU(inplace=True))


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """`batch`: affine, with running statistics; `instance`: neither; `none`: identity. Keeps (N, C, H, W)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels) if norm == "instance" else nn.Identity()


def conv_bias(bias: bool | None, norm: Norm) -> bool:
    """Whether a convolution before a norm has a bias: `bias`; None: where the norm has no shift of its own."""
    return norm != "batch" if bias is None else bias


def upsampling(
    kind: Upsample, inputs: int, outputs: int, *, kernel: int, bias: bool
) -> OrderedDict[str, nn.Module]:
    """Named layers that double both sides, (N, inputs, H, W) -> (N, outputs, 2H, 2W).

    `transposed` is the published stride-2 transposed convolution (kernel 3 or 4, padding 1). `resize` is
    nearest-neighbour enlargement, reflection padding and a 3x3 convolution: it cannot draw the checkerboard
    that overlapping kernels draw (Odena, Dumoulin and Olah, 2016, doi:10.23915/distill.00003).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "transposed":
        layers["conv"] = nn.ConvTranspose2d(
            inputs, outputs, kernel, stride=2, padding=1, output_padding=4 - kernel, bias=bias
        )
    else:
        layers["resize"] = nn.Upsample(scale_factor=2, mode="nearest")
        layers["conv"] = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=bias)
    return layers


def out_of_place(network: nn.Module) -> None:
    """Let activations write into tensors of their own, so that every map can be tapped."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]


def class_layers(network: nn.Module) -> tuple[str, ...]:
    """The paths of the layers that make the answer: `classifier`, a tuple of them; or, as in torchvision's networks, the
    module of that name itself. Empty where the network has neither."""
    own = getattr(network, "classifier", ())
    if isinstance(own, nn.Module):
        return ("classifier",)
    return own if isinstance(own, tuple) else ()


def heads_wanted(network: nn.Module, heads: bool | None) -> bool:
    """Whether `forward` answers with the heads for training: they were built (`network.heads`), and `heads` says so;
    None: in training only."""
    return bool(network.heads and (network.training if heads is None else heads))


def training_heads(auxiliary: int, *, boundary: bool = False) -> Callable[..., tuple[int, bool]]:
    """What a class of segmenters says of its options: how many auxiliary heads it has in training, and whether one of
    boundaries; none with `heads=False`."""

    def told(*, heads: bool = True, **_: Any) -> tuple[int, bool]:
        return (auxiliary, boundary) if heads else (0, False)

    return told


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def require_choice(owner: nn.Module, name: str, value: object, choices: object) -> None:
    """Refuse `value` unless it is one of the words of the Literal `choices`."""
    valid = get_args(choices)
    if value not in valid:
        raise ConfigError(f"{type(owner).__name__}: unknown {name}={value!r}. {nearest(str(value), valid)}")


def require_number(
    owner: nn.Module, name: str, value: float, *, least: float, most: float = float("inf")
) -> None:
    """Refuse `value` unless it is a number and least <= value <= most."""
    if not isinstance(value, int | float) or not least <= value <= most:
        limits = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise ConfigError(f"{type(owner).__name__}: {name} must be {limits}, found {value!r}.")


def require_counts(owner: nn.Module, **numbers: float) -> None:
    """Refuse numbers below 1; the message has their names."""
    for name, value in numbers.items():
        require_number(owner, name, value, least=1)


def require_image(owner: nn.Module, image: Tensor, *, channels: int, multiple: int, minimum: int) -> None:
    """Refuse all but float (N, channels, H, W) with sides of at least `minimum`, divisible by `multiple`. A network that was
    made to read another number of channels (`dvsn.networks.widening`) has it as `image_channels`."""
    name, channels = type(owner).__name__, getattr(owner, "image_channels", channels)
    if image.ndim != 4 or image.shape[1] != channels:
        raise UserError(f"{name} expects (N, {channels}, H, W), found {tuple(image.shape)}.")
    if not image.is_floating_point():
        raise UserError(
            f"{name} expects floating point values, found {image.dtype}: normalise the image first."
        )
    sides = tuple(image.shape[-2:])
    if all(side % multiple == 0 and side >= minimum for side in sides):
        return
    least = -(-minimum // multiple) * multiple
    larger = [max(-(-side // multiple) * multiple, least) for side in sides]
    smaller = [max(side // multiple * multiple, least) for side in sides]
    nearby = " or ".join(dict.fromkeys(f"{height} x {width}" for height, width in (smaller, larger)))
    needs = f"divisible by {multiple}" if multiple > 1 else ""
    needs += " and " * bool(needs) + f"of at least {least}"
    raise UserError(
        f"{name} needs sides {needs}, found {sides[0]} x {sides[1]} (H x W). Nearest valid: {nearby}. "
        f"Resize, crop or pad the images, or choose a network that halves them less often."
    )
