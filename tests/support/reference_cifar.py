"""The networks of the distillation benchmarks by their published keys alone: shapes, and the answer of a state dict.

Nothing of dvsn is used. What is written as tables here was checked against the published key lists, whose digests are
in `GOLDEN`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, Tensor]

GOLDEN = {
    "resnet8x4": "24fde7736e367e54",
    "resnet32x4": "f91bd88f6c81ce6e",
    "wrn_40_2": "bd195e115bd475de",
    "vgg8": "bd663d1945427f81",
}
"""Of the published lists, by `digest`."""


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of keys and shapes in their order."""
    lines = [f"{key} {'x'.join(map(str, shape))}" for key, shape in shapes.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def norm(path: str, channels: int) -> Shapes:
    vectors = dict.fromkeys(
        (f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var")), (channels,)
    )
    return {**vectors, f"{path}.num_batches_tracked": ()}


def resnet_keys(depth: int, widths: tuple[int, int, int, int], classes: int = 100) -> Shapes:
    keys: Shapes = {"conv1.weight": (widths[0], 3, 3, 3), **norm("bn1", widths[0])}
    inputs = widths[0]
    for stage, width in enumerate(widths[1:], start=1):
        for block in range((depth - 2) // 6):
            path = f"layer{stage}.{block}"
            keys |= {f"{path}.conv1.weight": (width, inputs, 3, 3), **norm(f"{path}.bn1", width)}
            keys |= {f"{path}.conv2.weight": (width, width, 3, 3), **norm(f"{path}.bn2", width)}
            if inputs != width:
                keys |= {f"{path}.downsample.0.weight": (width, inputs, 1, 1)}
                keys |= norm(f"{path}.downsample.1", width)
            inputs = width
    return keys | {"fc.weight": (classes, inputs), "fc.bias": (classes,)}


def wrn_keys(depth: int, widen: int, classes: int = 100) -> Shapes:
    keys: Shapes = {"conv1.weight": (16, 3, 3, 3)}
    inputs = 16
    for stage in (1, 2, 3):
        width = 16 * widen * 2 ** (stage - 1)
        for block in range((depth - 4) // 6):
            path = f"block{stage}.layer.{block}"
            keys |= {**norm(f"{path}.bn1", inputs), f"{path}.conv1.weight": (width, inputs, 3, 3)}
            keys |= {**norm(f"{path}.bn2", width), f"{path}.conv2.weight": (width, width, 3, 3)}
            if inputs != width:
                keys |= {f"{path}.convShortcut.weight": (width, inputs, 1, 1)}
            inputs = width
    return {**keys, **norm("bn1", inputs), "fc.weight": (classes, inputs), "fc.bias": (classes,)}


def vgg_keys(counts: tuple[int, ...], classes: int = 100) -> Shapes:
    keys: Shapes = {}
    inputs = 3
    for block, (count, width) in enumerate(zip(counts, (64, 128, 256, 512, 512), strict=True)):
        for number in range(count):
            path = f"block{block}.{3 * number}"
            keys |= {f"{path}.weight": (width, inputs, 3, 3), f"{path}.bias": (width,)}
            keys |= norm(f"block{block}.{3 * number + 1}", width)
            inputs = width
    return keys | {"classifier.weight": (classes, inputs), "classifier.bias": (classes,)}


def fill(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Deterministic weights under which no activation dies or grows without end, and no norm is the identity."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        name, values = key.rpartition(".")[2], torch.randn(shape, generator=random)
        if name == "num_batches_tracked":
            state[key] = torch.tensor(7)
        elif name == "running_var" or (name == "weight" and len(shape) == 1):
            state[key] = 0.8 + 0.2 * values.abs()
        elif name == "weight":
            state[key] = values * (2 / values[0].numel()) ** 0.5
        else:
            state[key] = 0.1 * values
    return state


def normed(state: State, path: str, x: Tensor) -> Tensor:
    """Batch norm in evaluation, by hand."""
    mean, var, weight, bias = (
        state[f"{path}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def blocks(state: State, path: str) -> int:
    """How many numbered modules lie below a path."""
    return len({key[len(path) + 1 :].split(".")[0] for key in state if key.startswith(f"{path}.")})


def resnet(state: State, image: Tensor) -> Tensor:
    x = normed(state, "bn1", F.conv2d(image, state["conv1.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(blocks(state, f"layer{stage}")):
            path, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = F.conv2d(x, state[f"{path}.conv1.weight"], stride=stride, padding=1)
            inner = normed(state, f"{path}.bn1", inner).clamp(min=0)
            inner = normed(state, f"{path}.bn2", F.conv2d(inner, state[f"{path}.conv2.weight"], padding=1))
            if f"{path}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{path}.downsample.0.weight"], stride=stride)
                x = normed(state, f"{path}.downsample.1", x)
            x = (inner + x).clamp(min=0)
    return F.avg_pool2d(x, 8).flatten(1) @ state["fc.weight"].T + state["fc.bias"]


def wrn(state: State, image: Tensor) -> Tensor:
    x = F.conv2d(image, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for block in range(blocks(state, f"block{stage}.layer")):
            path, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            active = normed(state, f"{path}.bn1", x).clamp(min=0)
            inner = F.conv2d(active, state[f"{path}.conv1.weight"], stride=stride, padding=1)
            inner = normed(state, f"{path}.bn2", inner).clamp(min=0)
            inner = F.conv2d(inner, state[f"{path}.conv2.weight"], padding=1)
            if f"{path}.convShortcut.weight" in state:
                x = F.conv2d(active, state[f"{path}.convShortcut.weight"], stride=stride)
            x = x + inner
    x = normed(state, "bn1", x).clamp(min=0)
    return F.avg_pool2d(x, 8).flatten(1) @ state["fc.weight"].T + state["fc.bias"]


def vgg(state: State, image: Tensor) -> Tensor:
    x = image
    for block in range(5):
        if block in (1, 2, 3):
            x = F.max_pool2d(x, 2)
        for number in range((blocks(state, f"block{block}")) // 2):
            path = f"block{block}.{3 * number}"
            x = F.conv2d(x, state[f"{path}.weight"], state[f"{path}.bias"], padding=1)
            x = normed(state, f"block{block}.{3 * number + 1}", x).clamp(min=0)
    return x.mean(dim=(2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
