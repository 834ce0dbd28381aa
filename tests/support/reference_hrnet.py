"""HRNet written from the tables of its papers and release: keys with shapes, and the answers of a raw state dict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, list[int]]

LARGE: dict[str, Any] = {"bottlenecks": 4, "bottleneck_width": 64, "modules": (1, 4, 3), "blocks": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "w18_small_v1": {
        "width": 16,
        "bottlenecks": 1,
        "bottleneck_width": 32,
        "modules": (1, 1, 1),
        "blocks": 2,
    },
    "w18_small_v2": {
        "width": 18,
        "bottlenecks": 2,
        "bottleneck_width": 64,
        "modules": (1, 3, 2),
        "blocks": 2,
    },
    "w18": {"width": 18, **LARGE},
    "w32": {"width": 32, **LARGE},
    "w48": {"width": 48, **LARGE},
}


# Published keys and shapes ----------------------------------------------------------------------------------


def conv(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False) -> Shapes:
    return {f"{key}.weight": [outputs, inputs, kernel, kernel]} | ({f"{key}.bias": [outputs]} if bias else {})


def norm(key: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": [channels] for name in vectors} | {f"{key}.num_batches_tracked": []}


def pair(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False) -> Shapes:
    return conv(f"{key}.0", outputs, inputs, kernel, bias=bias) | norm(f"{key}.1", outputs)


def bottleneck(key: str, inputs: int, planes: int) -> Shapes:
    shapes = conv(f"{key}.conv1", planes, inputs, 1) | norm(f"{key}.bn1", planes)
    shapes |= conv(f"{key}.conv2", planes, planes, 3) | norm(f"{key}.bn2", planes)
    shapes |= conv(f"{key}.conv3", 4 * planes, planes, 1) | norm(f"{key}.bn3", 4 * planes)
    return shapes | (pair(f"{key}.downsample", 4 * planes, inputs, 1) if inputs != 4 * planes else {})


def trunk_keys(
    *,
    width: int,
    bottlenecks: int,
    bottleneck_width: int,
    modules: tuple[int, int, int],
    blocks: int,
    single: bool = False,
) -> Shapes:
    """`single`: the last exchange makes the finest stream only, as for pose."""
    w = [width * 2**r for r in range(4)]
    shapes = conv("conv1", 64, 3, 3) | norm("bn1", 64) | conv("conv2", 64, 64, 3) | norm("bn2", 64)
    stage1 = 4 * bottleneck_width
    for index in range(bottlenecks):
        shapes |= bottleneck(f"layer1.{index}", stage1 if index else 64, bottleneck_width)
    shapes |= pair("transition1.0", w[0], stage1, 3) | pair("transition1.1.0", w[1], stage1, 3)
    shapes |= pair("transition2.2.0", w[2], w[1], 3) | pair("transition3.3.0", w[3], w[2], 3)
    for stage, count in zip((2, 3, 4), modules, strict=True):
        for module in range(count):
            key = f"stage{stage}.{module}"
            for r in range(stage):
                for block in range(blocks):
                    for n in (1, 2):
                        shapes |= conv(f"{key}.branches.{r}.{block}.conv{n}", w[r], w[r], 3)
                        shapes |= norm(f"{key}.branches.{r}.{block}.bn{n}", w[r])
            last = single and stage == 4 and module == count - 1
            for i in range(1 if last else stage):
                for j in range(stage):
                    path = f"{key}.fuse_layers.{i}.{j}"
                    if j > i:
                        shapes |= pair(path, w[i], w[j], 1)
                    for step in range(i - j):
                        shapes |= pair(f"{path}.{step}", w[i] if step == i - j - 1 else w[j], w[j], 3)
    return shapes


def mixing_keys(key: str, channels: int, classes: int) -> Shapes:
    return pair(key, channels, channels, 1, bias=True) | conv(f"{key}.3", classes, channels, 1, bias=True)


def segmenter_keys(variant: str, classes: int = 19) -> Shapes:
    options = VARIANTS[variant]
    return trunk_keys(**options) | mixing_keys("last_layer", 15 * options["width"], classes)


def ocr_keys(variant: str = "w48", classes: int = 19, channels: int = 512, keys: int = 256) -> Shapes:
    options = VARIANTS[variant]
    joined, block = 15 * options["width"], "ocr_distri_head.object_context_block"
    shapes = trunk_keys(**options) | mixing_keys("aux_head", joined, classes)
    shapes |= pair("conv3x3_ocr", channels, joined, 3, bias=True)
    steps = [("f_pixel.0", keys, channels), ("f_pixel.2", keys, keys), ("f_object.0", keys, channels)]
    steps += [("f_object.2", keys, keys), ("f_down.0", keys, channels), ("f_up.0", channels, keys)]
    steps = [(f"{block}.{name}", outputs, inputs) for name, outputs, inputs in steps]
    for path, outputs, inputs in [*steps, ("ocr_distri_head.conv_bn_dropout.0", channels, 2 * channels)]:
        before, _, place = path.rpartition(".")
        shapes |= conv(path, outputs, inputs, 1) | norm(f"{before}.{int(place) + 1}.0", outputs)
    return shapes | conv("cls_head", classes, channels, 1, bias=True)


def classifier_keys(variant: str, classes: int = 1000) -> Shapes:
    options = VARIANTS[variant]
    shapes = trunk_keys(**options)
    for r, planes in enumerate((32, 64, 128, 256)):
        shapes |= bottleneck(f"incre_modules.{r}.0", options["width"] * 2**r, planes)
        if r < 3:
            shapes |= pair(f"downsamp_modules.{r}", 8 * planes, 4 * planes, 3, bias=True)
    shapes |= pair("final_layer", 2048, 1024, 1, bias=True)
    return shapes | {"classifier.weight": [classes, 2048], "classifier.bias": [classes]}


def digest(shapes: Mapping[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:16]


def fill(shapes: Mapping[str, list[int]], *, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of activations, and running statistics that are not those of a fresh norm."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        name = key.rpartition(".")[2]
        if name == "num_batches_tracked":
            state[key] = torch.tensor(7)
        elif name == "running_var" or (name == "weight" and len(shape) == 1):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan_in = torch.Size(shape[1:]).numel()
            scale = fan_in**-0.5 if name == "weight" else 0.2
            state[key] = scale * torch.randn(shape, generator=generator)
    return state


# Answers ----------------------------------------------------------------------------------------------------


def sampling(inputs: int, outputs: int, mode: str, align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (outputs, inputs) that resizes one side."""
    place = torch.arange(outputs, dtype=torch.float64)
    if mode == "nearest":
        return F.one_hot((place * inputs / outputs).floor().long(), inputs).to(like)
    if align_corners:
        place = place * (inputs - 1) / max(outputs - 1, 1)
    else:
        place = ((place + 0.5) * inputs / outputs - 0.5).clamp(min=0)
    place = place.clamp(max=inputs - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=inputs - 1)
    part = (place - low).unsqueeze(1)
    return ((1 - part) * F.one_hot(low, inputs) + part * F.one_hot(high, inputs)).to(like)


@dataclass
class Reference:
    """Reads a raw state dict by key. Everything after `align_corners` is a trap that the tests walk into."""

    state: Mapping[str, Tensor]
    align_corners: bool = False
    mode: str = "bilinear"
    rectify_inner: bool = True
    rectify_last: bool = False
    mixing_bias: bool = True
    soft_over: int = 2

    def conv(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        if not self.mixing_bias and key.startswith(("last_layer", "aux_head")):
            bias = None
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{key}.{name}"].view(-1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def pair(self, x: Tensor, key: str, stride: int = 1, *, relu: bool = True) -> Tensor:
        x = self.norm(self.conv(x, f"{key}.0", stride), f"{key}.1")
        return F.relu(x) if relu else x

    def has(self, key: str) -> bool:
        return any(name.startswith(f"{key}.") for name in self.state)

    def resize(self, x: Tensor, like: Tensor, mode: str | None = None) -> Tensor:
        mode = mode or self.mode
        rows, columns = (
            sampling(x.shape[axis], like.shape[axis], mode, self.align_corners, x) for axis in (2, 3)
        )
        return torch.einsum("ph,nchw,qw->ncpq", rows, x, columns)

    def block(self, x: Tensor, key: str) -> Tensor:
        count = 3 if self.has(f"{key}.conv3") else 2
        y = x
        for n in range(1, count + 1):
            y = self.norm(self.conv(y, f"{key}.conv{n}"), f"{key}.bn{n}")
            y = F.relu(y) if n < count else y
        shortcut = self.pair(x, f"{key}.downsample", relu=False) if self.has(f"{key}.downsample") else x
        return F.relu(y + shortcut)

    def chain(self, x: Tensor, key: str) -> Tensor:
        index = 0
        while self.has(f"{key}.{index}"):
            x = self.block(x, f"{key}.{index}")
            index += 1
        return x

    def exchange(self, streams: list[Tensor], key: str) -> list[Tensor]:
        streams = [self.chain(x, f"{key}.branches.{r}") for r, x in enumerate(streams)]
        fused = []
        for i, like in enumerate(streams):
            if not self.has(f"{key}.fuse_layers.{i}"):
                break
            total = torch.zeros_like(like)
            for j, x in enumerate(streams):
                path = f"{key}.fuse_layers.{i}.{j}"
                if j > i:
                    x = self.resize(self.pair(x, path, relu=False), like)
                for step in range(i - j):
                    last = step == i - j - 1
                    relu = self.rectify_last if last else self.rectify_inner
                    x = self.pair(x, f"{path}.{step}", 2, relu=relu)
                total = total + x
            fused.append(F.relu(total))
        return fused

    def streams(self, image: Tensor) -> list[Tensor]:
        x = F.relu(self.norm(self.conv(image, "conv1", 2), "bn1"))
        x = F.relu(self.norm(self.conv(x, "conv2", 2), "bn2"))
        x = self.chain(x, "layer1")
        streams = [self.pair(x, "transition1.0"), self.pair(x, "transition1.1.0", 2)]
        for stage in (2, 3, 4):
            if stage > 2:
                new = f"transition{stage - 1}.{stage - 1}.0"
                streams = [*streams, self.pair(streams[-1], new, 2)]
            module = 0
            while self.has(f"stage{stage}.{module}"):
                streams = self.exchange(streams, f"stage{stage}.{module}")
                module += 1
        return streams

    def joined(self, image: Tensor) -> Tensor:
        first, *rest = self.streams(image)
        return torch.cat([first, *(self.resize(x, first, "bilinear") for x in rest)], dim=1)

    def segment(self, image: Tensor) -> Tensor:
        return self.conv(self.pair(self.joined(image), "last_layer"), "last_layer.3")

    def ocr(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The main and the auxiliary logits, pixel by pixel."""
        joined = self.joined(image)
        regions = self.conv(self.pair(joined, "aux_head"), "aux_head.3")
        features = self.pair(joined, "conv3x3_ocr")
        n, c, h, w = features.shape
        share = torch.softmax(regions.reshape(n, -1, h * w), dim=self.soft_over)
        classes = torch.einsum("nkp,ncp->nck", share, features.reshape(n, c, h * w)).unsqueeze(-1)

        def steps(x: Tensor, name: str, *places: int) -> Tensor:
            for place in places:
                x = F.relu(self.norm(self.conv(x, f"{name}.{place}"), f"{name}.{place + 1}.0"))
            return x

        block = "ocr_distri_head.object_context_block"
        query = steps(features, f"{block}.f_pixel", 0, 2).flatten(2)  # (N, D, pixels)
        key = steps(classes, f"{block}.f_object", 0, 2).flatten(2)  # (N, D, K)
        value = steps(classes, f"{block}.f_down", 0).flatten(2)
        score = torch.einsum("ndp,ndk->npk", query, key) * query.shape[1] ** -0.5
        context = torch.einsum("npk,ndk->ndp", torch.softmax(score, dim=2), value).reshape(n, -1, h, w)
        context = steps(context, f"{block}.f_up", 0)
        mixed = steps(torch.cat([context, features], dim=1), "ocr_distri_head.conv_bn_dropout", 0)
        return self.conv(mixed, "cls_head"), regions

    def classify(self, image: Tensor) -> Tensor:
        streams = self.streams(image)
        x = self.block(streams[0], "incre_modules.0.0")
        for r in range(1, 4):
            wide = self.block(streams[r], f"incre_modules.{r}.0")
            x = wide + self.pair(x, f"downsamp_modules.{r - 1}", 2)
        pooled = self.pair(x, "final_layer").mean(dim=(2, 3))
        return pooled @ self.state["classifier.weight"].T + self.state["classifier.bias"]
