"""The networks of the `post` recipe: a U-Net with norm at the bottleneck, a PatchGAN with the image first.

The published discriminator ends in a sigmoid; ours leaves it to the loss, and `PatchGan.probability` is that
map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dvsn.convert.release import Converted, State, convert_renamed, recipe, require_shape, split_channels
from dvsn.networks.patchgan import PatchGan
from dvsn.networks.unet import UNet

LAYOUTS = {
    "post/unet": ("down1.weight", "down2.layers.1.weight", "center.layers.1.weight", "output_block.1.weight"),
    "post/patchgan": ("layers.0.weight", "layers.2.layers.0.weight", "layers.5.weight"),
}

UNET_KEY = re.compile(r"^(?:down1|(?:down|up)(\d+)\.layers\.[12]|center\.layers\.[12]|output_block\.1)\.\w+$")
PATCHGAN_KEY = re.compile(r"^layers\.(\d+)(?:\.layers\.[01])?\.\w+$")


def matches(state: State) -> bool:
    """Most keys look like one of the two layouts."""
    return 2 * sum(bool(UNET_KEY.match(key) or PATCHGAN_KEY.match(key)) for key in state) > len(state)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options: `dropout`, `dropout_steps` (generator), `image_channels` (discriminator)."""
    is_generator = any(UNET_KEY.match(key) for key in state)
    return convert_unet(state, options) if is_generator else convert_patchgan(state, options)


def convert_unet(state: State, options: Mapping[str, Any]) -> Converted:
    """`down1` to `down7`, `center`, `up7` to `up1` and `output_block`; or another number of them."""
    levels = [int(match[1]) for match in map(UNET_KEY.match, state) if match and match[1]]
    depth = min(max(levels, default=1), len(state)) + 1
    width, input_channels = require_shape(state, "down1.weight", dimensions=4)[:2]
    output_channels = require_shape(state, "output_block.1.weight", dimensions=4)[1]
    inferred = {
        "input_channels": input_channels,
        "output_channels": output_channels,
        "width": width,
        "depth": depth,
        "norm": "batch",
        "bottleneck_norm": True,
        "bias": None,
        "first_bias": True,
        "dropout": 0.5,
        "dropout_steps": [step for step in (1, 2, 3) if step < depth],
        "skip_order": "up_skip",
        "upsample": "transposed",
        "init": "none",
        "init_gain": 0.02,
    }
    node = recipe(UNet, inferred, options, free=("dropout", "dropout_steps"))

    modules = {"downs.0": "down1", "head.conv": "output_block.1"}
    for index in range(1, depth):
        down = "center" if index == depth - 1 else f"down{index + 1}"
        modules |= {f"downs.{index}.conv": f"{down}.layers.1", f"downs.{index}.norm": f"{down}.layers.2"}
        up = f"up{depth - index}"
        modules |= {f"ups.{index - 1}.conv": f"{up}.layers.1", f"ups.{index - 1}.norm": f"{up}.layers.2"}
    note = "The keys of a U-Net do not tell its dropout: the recipe's 0.5 is assumed (dropout=...)."
    notes = () if "dropout" in options else (note,)
    return convert_renamed(state, UNet, node, modules, "generator", "post/unet", notes=notes)


def convert_patchgan(state: State, options: Mapping[str, Any]) -> Converted:
    """Convolution, activation, blocks of convolution and norm, convolution."""
    places = [int(match[1]) for match in map(PATCHGAN_KEY.match, state) if match]
    layers = min(max(max(places) - 2, 1), len(state))
    width, channels = require_shape(state, "layers.0.weight", dimensions=4)[:2]
    split, notes = split_channels(channels, options)
    inferred = {
        **split,
        "image_first": True,
        "width": width,
        "layers": layers,
        "norm": "batch",
        "bias": None,
        "init": "none",
        "init_gain": 0.02,
    }
    node = recipe(PatchGan, inferred, options, free=("image_channels",))
    modules = {"stages.0.conv": "layers.0", "head": f"layers.{layers + 2}"}
    for index in range(1, layers + 1):
        modules[f"stages.{index}.conv"] = f"layers.{index + 1}.layers.0"
        modules[f"stages.{index}.norm"] = f"layers.{index + 1}.layers.1"
    return convert_renamed(state, PatchGan, node, modules, "discriminator", "post/patchgan", notes=notes)
