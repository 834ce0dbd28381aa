"""Pose networks and HRNetV2p written from their tables: keys with shapes, and the answers of a raw state dict."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tests.support.reference_hrnet import Reference, Shapes, conv, norm, pair, trunk_keys


def pose_keys(joints: int = 17, **options: Any) -> Shapes:
    return trunk_keys(**options, single=True) | conv("final_layer", joints, options["width"], 1, bias=True)


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_keys(depth: int) -> Shapes:
    wider = 1 if depth < 50 else 4
    shapes, inputs = conv("conv1", 64, 3, 7) | norm("bn1", 64), 64
    for layer, count in enumerate(BLOCKS[depth], start=1):
        planes = 32 * 2**layer
        for index in range(count):
            key = f"layer{layer}.{index}"
            kernels = (3, 3) if wider == 1 else (1, 3, 1)
            widths = (inputs, planes, planes, wider * planes)[: len(kernels) + 1]
            for n, kernel in enumerate(kernels, start=1):
                shapes |= conv(f"{key}.conv{n}", widths[n], widths[n - 1], kernel)
                shapes |= norm(f"{key}.bn{n}", widths[n])
            if index == 0 and (layer > 1 or wider > 1):
                shapes |= pair(f"{key}.downsample", wider * planes, inputs, 1)
            inputs = wider * planes
    return shapes


def baseline_keys(
    depth: int, joints: int = 17, deconvolutions: int = 3, width: int = 256, kernel: int = 4
) -> Shapes:
    shapes, inputs = resnet_keys(depth), 512 if depth < 50 else 2048
    for index in range(deconvolutions):
        shapes |= {f"deconv_layers.{3 * index}.weight": [inputs, width, kernel, kernel]}
        shapes |= norm(f"deconv_layers.{3 * index + 1}", width)
        inputs = width
    return shapes | conv("final_layer", joints, inputs, 1, bias=True)


class PoseReference(Reference):
    def pose(self, image: Tensor) -> Tensor:
        (finest,) = self.streams(image)
        return self.conv(finest, "final_layer")

    def pyramid(self, image: Tensor, stride: int = 1) -> list[Tensor]:
        reduced = self.conv(self.joined(image), "reduction_conv")
        levels = []
        for level in range(5):
            side = 2**level
            n, c, h, w = reduced.shape
            cut = reduced[:, :, : h // side * side, : w // side * side]
            means = cut.reshape(n, c, h // side, side, w // side, side).mean(dim=(3, 5))
            levels.append(self.conv(means, f"fpn_convs.{level}", stride))
        return levels

    def deconvolution(self, x: Tensor, key: str) -> Tensor:
        """Zeros between the pixels, then a convolution with the turned kernel, cut to twice the size."""
        weight = self.state[f"{key}.weight"]  # (inputs, outputs, k, k)
        kernel, (n, c, h, w) = weight.shape[-1], x.shape
        spread = x.new_zeros(n, c, 2 * h, 2 * w)
        spread[:, :, ::2, ::2] = x
        turned = weight.flip(2, 3).transpose(0, 1)
        full = F.conv2d(spread, turned, padding=kernel - 1)
        first = {4: 1, 3: 1, 2: 0}[kernel]
        return full[:, :, first : first + 2 * h, first : first + 2 * w]

    def strided(self, x: Tensor, key: str, stride: int) -> Tensor:
        """A residual block whose first 3x3 has the stride."""
        count, y, left = (3 if self.has(f"{key}.conv3") else 2), x, stride
        for n in range(1, count + 1):
            three = self.state[f"{key}.conv{n}.weight"].shape[-1] == 3
            y = self.norm(self.conv(y, f"{key}.conv{n}", left if three else 1), f"{key}.bn{n}")
            y, left = (F.relu(y) if n < count else y), 1 if three else left
        has = self.has(f"{key}.downsample")
        return F.relu(y + (self.pair(x, f"{key}.downsample", stride, relu=False) if has else x))

    def baseline(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(image, "conv1", 2), "bn1"))
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)  # what was rectified may be padded with 0
        for layer in (1, 2, 3, 4):
            index = 0
            while self.has(f"layer{layer}.{index}"):
                x = self.strided(x, f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1)
                index += 1
        index = 0
        while self.has(f"deconv_layers.{index}"):
            x = self.deconvolution(x, f"deconv_layers.{index}")
            x = F.relu(self.norm(x, f"deconv_layers.{index + 1}"))
            index += 3
        return self.conv(x, "final_layer")
