"""Features of torchvision's VGG for perceptual losses, read from a file and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import CheckpointError, ConfigError
from dvsn.weights import compare, read_checkpoint

COUNTS = {"VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}  # convolutions of each block
WIDTHS = (64, 128, 256, 512, 512)
USED = 4  # blocks
SMALLEST = 2 ** (USED - 1)  # side of a picture that leaves a pixel in the last of them
FILES = "vgg16-397923af.pth or vgg19-dcbb9e9d.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which it was trained with


class Vgg:
    """RGB or grey pictures (N, 3 or 1, H, W) in [0, 1], sides of 8 or more -> the last ReLU of each of the first four
    blocks: 64, 128, 256 and 512 channels at H, H/2, H/4 and H/8.

    Simonyan and Zisserman, 2015, arXiv:1409.1556. `weights` is the file of torchvision's VGG-16 or VGG-19 without batch
    norm, a state dict, of which `features.*` is read. `where` is the config path for messages; a file that is missing is a
    `ConfigError`, one that is another network's a `CheckpointError`. `normalise` takes ImageNet's mean and standard
    deviation off the pictures first, as torchvision trained it.

    Like a `Teacher` no module, so that it is in no state dict, checkpoint, optimiser, average or copy. It follows its
    pictures to their device and number type. Gradients go through it, and none is kept for its weights; a picture of
    256 x 256 needs 97 MiB until the backward pass.
    """

    def __init__(self, weights: str, *, where: str, normalise: bool) -> None:
        self.name, self.blocks = read(weights, where)
        self.scale = (torch.tensor(MEAN), torch.tensor(STD)) if normalise else None

    def __deepcopy__(self, _: Any) -> Vgg:
        return self

    def __call__(self, picture: Tensor) -> list[Tensor]:
        picture = picture.expand(-1, 3, -1, -1)  # a grey one as three equal channels
        self._follow(picture)
        if self.scale is not None:
            mean, std = (each[:, None, None] for each in self.scale)
            picture = (picture - mean) / std
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if number:
                picture = F.max_pool2d(picture, 2)
            for weight, bias in block:
                picture = F.relu(F.conv2d(picture, weight, bias, padding=1), inplace=True)
            found.append(picture)
        return found

    def _follow(self, picture: Tensor) -> None:
        first = self.blocks[0][0][0]
        if first.device != picture.device or first.dtype != picture.dtype:
            self.blocks = [[(w.to(picture), b.to(picture)) for w, b in block] for block in self.blocks]
            self.scale = self.scale and (self.scale[0].to(picture), self.scale[1].to(picture))


def read(weights: str, where: str) -> tuple[str, list[list[tuple[Tensor, Tensor]]]]:
    """Which network the file holds, and weight and bias of each convolution of the blocks in use."""
    if not Path(weights).is_file():
        raise ConfigError(
            f"{where}: no file at {weights}. Expected torchvision's {FILES}. dvsn downloads nothing by itself."
        )
    try:
        content = read_checkpoint(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    state = {key: value for key, value in content.items() if str(key).startswith("features.")}
    differences = {
        name: compare(
            {key: torch.empty(shape, device="meta") for key, shape in shapes(counts).items()}, state
        )
        for name, counts in COUNTS.items()
    }
    name = min(differences, key=lambda each: len(differences[each]))
    if differences[name]:
        raise CheckpointError(
            f"{where}: {weights} is no VGG-16 or VGG-19 of torchvision without batch norm: {differences[name][0]}. Expected "
            f"{FILES}."
        )
    pairs = iter([state[key].detach().float() for key in shapes(COUNTS[name])])
    return name, [[(next(pairs), next(pairs)) for _ in range(count)] for count in COUNTS[name][:USED]]


def shapes(counts: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The keys of the convolutions by torchvision's numbers, which also count ReLUs and poolings."""
    result: dict[str, tuple[int, ...]] = {}
    place, channels = 0, 3
    for count, width in zip(counts, WIDTHS, strict=True):
        for _ in range(count):
            result[f"features.{place}.weight"] = (width, channels, 3, 3)
            result[f"features.{place}.bias"] = (width,)
            place, channels = place + 2, width
        place += 1
    return result
