"""pytorch-CycleGAN-and-pix2pix (Zhu and Park, 2017-2025): files `<epoch>_net_<G|D|G_A|...>.pth`.

Its networks are numbered (and, for the U-Net, nested) Sequentials, so the keys tell the architecture: depth,
width, channels, norm and, for the ResNet, dropout. They do not tell whether a U-Net was trained with dropout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dvsn.convert.release import (
    Converted,
    State,
    convert_renamed,
    find_norm,
    outputs,
    recipe,
    require_shape,
    split_channels,
)
from dvsn.networks.patchgan import PatchGan, PixelGan
from dvsn.networks.resnet_generator import ResNetGenerator
from dvsn.networks.unet import UNet

LAYOUTS = {
    "junyanz/unet": ("model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.bias"),
    "junyanz/resnet": ("model.1.weight", "model.10.conv_block.1.weight", "model.10.conv_block.5.weight"),
    "junyanz/patchgan": ("model.0.weight", "model.2.weight", "model.5.weight", "model.11.bias"),
    "junyanz/pixel": ("net.0.weight", "net.2.weight", "net.5.weight"),
}

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
UNUSED_STATISTICS = (
    "statistics which instance norm kept until 2018 and never used: each image is normalised by its own"
)
PUBLISHED = {"init": "normal", "init_gain": 0.02}

UNET_KEY = re.compile(r"^model\.model\.(?:[03]|1((?:\.model\.3)*)\.model\.\d+)\.\w+$")
RESNET_KEY = re.compile(r"^model\.(\d+)\.conv_block\.(\d+)\.\w+$")
PATCHGAN_KEY = re.compile(r"^model\.(\d+)\.\w+$")
PIXEL_KEY = re.compile(r"^net\.(\d+)\.\w+$")


def matches(state: State) -> bool:
    """Most keys look like one of the four layouts."""
    patterns = (UNET_KEY, RESNET_KEY, PATCHGAN_KEY, PIXEL_KEY)
    return 2 * sum(any(p.match(key) for p in patterns) for key in state) > len(state)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options: `dropout` (generators), `dropout_steps` (U-Net), `image_channels` (discriminators)."""
    if any(UNET_KEY.match(key) for key in state):
        return convert_unet(state, options)
    if any(RESNET_KEY.match(key) for key in state):
        return convert_resnet(state, options)
    if any(PIXEL_KEY.match(key) for key in state):
        return convert_pixel(state, options)
    return convert_patchgan(state, options)


def convert_unet(state: State, options: Mapping[str, Any]) -> Converted:
    """`unet_128`, `unet_256` and any other depth from 5 on."""
    nested = [match[1] for match in map(UNET_KEY.match, state) if match and match[1] is not None]
    depth = 2 + max((levels.count(".model.3") for levels in nested), default=0)
    width, input_channels = require_shape(state, "model.model.0.weight", dimensions=4)[:2]
    output_channels = require_shape(state, "model.model.3.weight", dimensions=4)[1]
    norm = find_norm(state, inner_bias=lambda key: key.startswith("model.model.1.") and key.endswith(".bias"))
    inferred = {
        "input_channels": input_channels,
        "output_channels": output_channels,
        "width": width,
        "depth": depth,
        "norm": norm["norm"],
        "bottleneck_norm": False,
        "bias": norm["bias"],
        "first_bias": None,
        "dropout": 0.5,
        "dropout_steps": None,
        "skip_order": "skip_up",
        "upsample": "transposed",
        **PUBLISHED,
    }
    node = recipe(UNet, inferred, options, free=("dropout", "dropout_steps"))

    level = ["model", "model.model.1"]  # Sequentials, outermost first
    level += [level[1] + ".model.3" * more for more in range(1, depth - 1)]
    modules = {"downs.0": "model.model.0", "head.conv": "model.model.3"}
    for index in range(1, depth):
        innermost = index == depth - 1
        modules[f"downs.{index}.conv"] = f"{level[index]}.model.1"
        modules[f"downs.{index}.norm"] = f"{level[index]}.model.2"
        up = f"ups.{depth - 1 - index}"
        modules[f"{up}.conv"] = f"{level[index]}.model.{3 if innermost else 5}"
        modules[f"{up}.norm"] = f"{level[index]}.model.{4 if innermost else 6}"
    del modules[f"downs.{depth - 1}.norm"]  # the bottleneck has none
    unused = unused_statistics(modules, norm)
    note = "The keys of a U-Net do not tell its dropout: the release's 0.5 is assumed (dropout=...)."
    notes = () if "dropout" in options else (note,)
    return convert_renamed(
        state, UNet, node, modules, "generator", f"junyanz/unet_{2**depth}", droppable=unused, notes=notes
    )


def convert_resnet(state: State, options: Mapping[str, Any]) -> Converted:
    """`resnet_6blocks`, `resnet_9blocks`, or another number. Dropout shifts a block's second convolution."""
    found = [(int(match[1]), match[2], key) for key in state if (match := RESNET_KEY.match(key))]
    blocks = min(max(index for index, _, _ in found) - 9, len(state))
    seconds = [position for _, position, key in found if key.endswith(".weight") and state[key].ndim == 4]
    dropout = "6" in seconds and "5" not in seconds
    width, input_channels = require_shape(state, "model.1.weight", dimensions=4)[:2]
    last = f"model.{17 + blocks}"
    output_channels = outputs(state, f"{last}.weight")
    norm = find_norm(state, inner_bias=lambda key: key.endswith(".bias") and key != f"{last}.bias")
    inferred = {
        "input_channels": input_channels,
        "output_channels": output_channels,
        "width": width,
        "blocks": blocks,
        "norm": norm["norm"],
        "bias": norm["bias"],
        "dropout": 0.5 if dropout else 0.0,
        "upsample": "transposed",
        **PUBLISHED,
    }
    node = recipe(ResNetGenerator, inferred, options, free=("dropout",))

    modules = {"head": last}
    places = {"stem": 1, "downs.0": 4, "downs.1": 7, "ups.0": 10 + blocks, "ups.1": 13 + blocks}
    for ours, place in places.items():
        modules |= {f"{ours}.conv": f"model.{place}", f"{ours}.norm": f"model.{place + 1}"}
    second = 6 if dropout else 5
    for index in range(blocks):
        for ours, place in {"conv1": 1, "norm1": 2, "conv2": second, "norm2": second + 1}.items():
            modules[f"blocks.{index}.{ours}"] = f"model.{10 + index}.conv_block.{place}"
    unused = unused_statistics(modules, norm)
    return convert_renamed(
        state, ResNetGenerator, node, modules, "generator", f"junyanz/resnet_{blocks}blocks", droppable=unused
    )


def convert_patchgan(state: State, options: Mapping[str, Any]) -> Converted:
    """`basic` (three layers) and `n_layers`, conditional or not."""
    places = [int(match[1]) for match in map(PATCHGAN_KEY.match, state) if match]
    layers = min(max((max(places, default=0) - 2) // 3, 1), len(state))
    width, channels = require_shape(state, "model.0.weight", dimensions=4)[:2]
    ends = ("model.0.bias", f"model.{2 + 3 * layers}.bias")
    norm = find_norm(state, inner_bias=lambda key: key.endswith(".bias") and key not in ends)
    split, notes = split_channels(channels, options)
    inferred = {
        **split,
        "image_first": False,
        "width": width,
        "layers": layers,
        "norm": norm["norm"],
        "bias": norm["bias"],
        **PUBLISHED,
    }
    node = recipe(PatchGan, inferred, options, free=("image_channels",))

    modules = {"stages.0.conv": "model.0", "head": f"model.{2 + 3 * layers}"}
    for index in range(1, layers + 1):
        modules[f"stages.{index}.conv"] = f"model.{3 * index - 1}"
        modules[f"stages.{index}.norm"] = f"model.{3 * index}"
    unused = unused_statistics(modules, norm)
    layout = "junyanz/basic" if layers == 3 else f"junyanz/n_layers_{layers}"
    return convert_renamed(
        state, PatchGan, node, modules, "discriminator", layout, droppable=unused, notes=notes
    )


def convert_pixel(state: State, options: Mapping[str, Any]) -> Converted:
    """`pixel`: three 1x1 convolutions."""
    width, channels = require_shape(state, "net.0.weight", dimensions=4)[:2]
    norm = find_norm(state, inner_bias=lambda key: key in ("net.2.bias", "net.5.bias"))
    split, notes = split_channels(channels, options)
    inferred = {
        **split,
        "image_first": False,
        "width": width,
        "norm": norm["norm"],
        "bias": norm["bias"],
        **PUBLISHED,
    }
    node = recipe(PixelGan, inferred, options, free=("image_channels",))
    modules = {"conv1": "net.0", "conv2": "net.2", "norm": "net.3", "head": "net.5"}
    unused = unused_statistics(modules, norm)
    return convert_renamed(
        state, PixelGan, node, modules, "discriminator", "junyanz/pixel", droppable=unused, notes=notes
    )


def unused_statistics(modules: Mapping[str, str], norm: Mapping[str, Any]) -> dict[str, str]:
    """The published keys of an instance norm's statistics, with the reason to drop them."""
    if norm["norm"] != "instance":
        return {}
    places = [theirs for ours, theirs in modules.items() if ours.rpartition(".")[2].startswith("norm")]
    return {f"{place}.{leaf}": UNUSED_STATISTICS for place in places for leaf in STATISTICS}
