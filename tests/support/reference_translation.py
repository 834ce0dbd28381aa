"""Published pix2pix networks from the tables: keys, shapes, random weights, and the pictures they give."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, list[int]]
State = dict[str, Tensor]


def conv(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool) -> Shapes:
    return {f"{key}.weight": [outputs, inputs, kernel, kernel]} | ({f"{key}.bias": [outputs]} if bias else {})


def up_conv(key: str, inputs: int, outputs: int, kernel: int, *, bias: bool) -> Shapes:
    return {f"{key}.weight": [inputs, outputs, kernel, kernel]} | ({f"{key}.bias": [outputs]} if bias else {})


def batch_norm(key: str, channels: int, norm: str = "batch") -> Shapes:
    if norm == "tracked":  # instance norm of 2018
        return {
            f"{key}.running_mean": [channels],
            f"{key}.running_var": [channels],
            f"{key}.num_batches_tracked": [],
        }
    if norm != "batch":
        return {}
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": [channels] for name in vectors} | {f"{key}.num_batches_tracked": []}


def reference_unet(depth: int, norm: str, width: int = 64, inputs: int = 3, outputs: int = 3) -> Shapes:
    bias = norm in ("instance", "tracked")
    widths = [width * min(2**level, 8) for level in range(depth)]

    def level(index: int, key: str) -> Shapes:
        down = conv(f"{key}.1", widths[index], widths[index - 1], 4, bias=bias)
        if index == depth - 1:
            return (
                down
                | up_conv(f"{key}.3", widths[index], widths[index - 1], 4, bias=bias)
                | batch_norm(f"{key}.4", widths[index - 1], norm)
            )
        return (
            down
            | batch_norm(f"{key}.2", widths[index], norm)
            | level(index + 1, f"{key}.3.model")
            | up_conv(f"{key}.5", 2 * widths[index], widths[index - 1], 4, bias=bias)
            | batch_norm(f"{key}.6", widths[index - 1], norm)
        )

    return (
        conv("model.model.0", width, inputs, 4, bias=bias)
        | level(1, "model.model.1.model")
        | up_conv("model.model.3", 2 * width, outputs, 4, bias=True)
    )


def reference_resnet(blocks: int, norm: str, *, dropout: bool, width: int = 64) -> Shapes:
    bias = norm in ("instance", "tracked")
    shapes = conv("model.1", width, 3, 7, bias=bias) | batch_norm("model.2", width, norm)
    for place, factor in ((4, 2), (7, 4)):
        shapes |= conv(f"model.{place}", factor * width, factor * width // 2, 3, bias=bias)
        shapes |= batch_norm(f"model.{place + 1}", factor * width, norm)
    for block in range(10, 10 + blocks):
        for place in (1, 6 if dropout else 5):
            shapes |= conv(f"model.{block}.conv_block.{place}", 4 * width, 4 * width, 3, bias=bias)
            shapes |= batch_norm(f"model.{block}.conv_block.{place + 1}", 4 * width, norm)
    for place, factor in ((10 + blocks, 4), (13 + blocks, 2)):
        shapes |= up_conv(f"model.{place}", factor * width, factor * width // 2, 3, bias=bias)
        shapes |= batch_norm(f"model.{place + 1}", factor * width // 2, norm)
    return shapes | conv(f"model.{17 + blocks}", 3, width, 7, bias=True)


def reference_patchgan(layers: int, norm: str, channels: int, width: int = 64) -> Shapes:
    shapes = conv("model.0", width, channels, 4, bias=True)
    for index in range(1, layers + 1):
        now, before = (width * min(2**power, 8) for power in (index, index - 1))
        shapes |= conv(f"model.{3 * index - 1}", now, before, 4, bias=norm in ("instance", "tracked"))
        shapes |= batch_norm(f"model.{3 * index}", now, norm)
    return shapes | conv(f"model.{3 * layers + 2}", 1, width * min(2**layers, 8), 4, bias=True)


def reference_pixel(norm: str, channels: int = 6, width: int = 64) -> Shapes:
    bias = norm in ("instance", "tracked")
    return (
        conv("net.0", width, channels, 1, bias=True)
        | conv("net.2", 2 * width, width, 1, bias=bias)
        | batch_norm("net.3", 2 * width, norm)
        | conv("net.5", 1, 2 * width, 1, bias=bias)
    )


def post_unet(width: int = 64) -> Shapes:
    widths = [width * min(2**level, 8) for level in range(8)]
    shapes = conv("down1", width, 3, 4, bias=True)
    for name, level in [(f"down{level + 1}", level) for level in range(1, 7)] + [("center", 7)]:
        shapes |= conv(f"{name}.layers.1", widths[level], widths[level - 1], 4, bias=False)
        shapes |= batch_norm(f"{name}.layers.2", widths[level])
    for number in range(7, 0, -1):
        inputs = widths[7] if number == 7 else 2 * widths[number]
        shapes |= up_conv(f"up{number}.layers.1", inputs, widths[number - 1], 4, bias=False)
        shapes |= batch_norm(f"up{number}.layers.2", widths[number - 1])
    return shapes | up_conv("output_block.1", 2 * width, 3, 4, bias=True)


def post_patchgan(width: int = 64) -> Shapes:
    shapes = conv("layers.0", width, 6, 4, bias=True)
    for place, factor in ((2, 2), (3, 4), (4, 8)):
        shapes |= conv(f"layers.{place}.layers.0", factor * width, factor * width // 2, 4, bias=False)
        shapes |= batch_norm(f"layers.{place}.layers.1", factor * width)
    return shapes | conv("layers.5", 1, 8 * width, 4, bias=True)


def weights(shapes: Shapes) -> State:
    """Deterministic weights of a size that keeps activations alive through the network."""
    state = {}
    for key, shape in shapes.items():
        generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) == 4:
            state[key] = torch.randn(shape, generator=generator) * (
                1.5 / (shape[0] * shape[1]) ** 0.5 / shape[2]
            )
        elif key.endswith(("running_var", ".weight")):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[key] = torch.randn(shape, generator=generator) * 0.1
    return state


class Published:
    """Walks published keys. With `train`, batch norm takes the statistics of the batch."""

    def __init__(self, state: State, norm: str, *, train: bool = False) -> None:
        self.state, self.kind, self.train = state, norm, train

    def conv(self, key: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"), **options)

    def up(self, key: str, x: Tensor, **options: int) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, **options)

    def norm(self, key: str, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        if self.kind == "instance":
            return (x - x.mean((2, 3), keepdim=True)) / (
                x.var((2, 3), keepdim=True, correction=0) + 1e-5
            ).sqrt()
        weight, bias, mean, var = (
            self.state[f"{key}.{name}"][:, None, None]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        if self.train:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def reference_unet(self, x: Tensor, depth: int) -> Tensor:
        def level(index: int, key: str, x: Tensor) -> Tensor:
            x = F.leaky_relu(x, 0.2)  # the release does this in place, so the skip carries it too
            down = self.conv(f"{key}.1", x, stride=2, padding=1)
            if index == depth:
                up = self.norm(f"{key}.4", self.up(f"{key}.3", F.relu(down)))
            else:
                inner = level(index + 1, f"{key}.3.model", self.norm(f"{key}.2", down))
                up = self.norm(f"{key}.6", self.up(f"{key}.5", F.relu(inner)))
            return torch.cat([x, up], dim=1)

        x = self.conv("model.model.0", x, stride=2, padding=1)
        return torch.tanh(self.up("model.model.3", F.relu(level(2, "model.model.1.model", x))))

    def reference_resnet(self, x: Tensor, blocks: int, dropout: bool) -> Tensor:
        def pad(x: Tensor, by: int) -> Tensor:
            return F.pad(x, (by, by, by, by), mode="reflect")

        x = F.relu(self.norm("model.2", self.conv("model.1", pad(x, 3))))
        for place in (4, 7):
            x = F.relu(self.norm(f"model.{place + 1}", self.conv(f"model.{place}", x, stride=2, padding=1)))
        second = 6 if dropout else 5
        for block in range(10, 10 + blocks):
            key = f"model.{block}.conv_block"
            inner = F.relu(self.norm(f"{key}.2", self.conv(f"{key}.1", pad(x, 1))))
            x = x + self.norm(f"{key}.{second + 1}", self.conv(f"{key}.{second}", pad(inner, 1)))
        for place in (10 + blocks, 13 + blocks):
            x = F.relu(self.norm(f"model.{place + 1}", self.up(f"model.{place}", x, output_padding=1)))
        return torch.tanh(self.conv(f"model.{17 + blocks}", pad(x, 3)))

    def reference_patchgan(self, x: Tensor, layers: int) -> Tensor:
        x = F.leaky_relu(self.conv("model.0", x, stride=2, padding=1), 0.2)
        for index in range(1, layers + 1):
            x = self.conv(f"model.{3 * index - 1}", x, stride=2 if index < layers else 1, padding=1)
            x = F.leaky_relu(self.norm(f"model.{3 * index}", x), 0.2)
        return self.conv(f"model.{3 * layers + 2}", x, stride=1, padding=1)

    def reference_pixel(self, x: Tensor) -> Tensor:
        x = self.conv("net.2", F.leaky_relu(self.conv("net.0", x), 0.2))
        return self.conv("net.5", F.leaky_relu(self.norm("net.3", x), 0.2))

    def post_unet(self, x: Tensor) -> Tensor:
        maps = [self.conv("down1", x, stride=2, padding=1)]
        for name in ("down2", "down3", "down4", "down5", "down6", "down7", "center"):
            x = self.conv(f"{name}.layers.1", F.leaky_relu(maps[-1], 0.2), stride=2, padding=1)
            maps.append(self.norm(f"{name}.layers.2", x))
        x = maps.pop()
        for number in range(7, 0, -1):
            x = self.norm(f"up{number}.layers.2", self.up(f"up{number}.layers.1", F.relu(x)))
            x = torch.cat([x, maps.pop()], dim=1)
        return torch.tanh(self.up("output_block.1", F.relu(x)))

    def post_patchgan(self, x: Tensor) -> Tensor:
        """The probability map."""
        x = F.leaky_relu(self.conv("layers.0", x, stride=2, padding=1), 0.2)
        for place, stride in ((2, 2), (3, 2), (4, 1)):
            x = self.conv(f"layers.{place}.layers.0", x, stride=stride, padding=1)
            x = F.leaky_relu(self.norm(f"layers.{place}.layers.1", x), 0.2)
        return torch.sigmoid(self.conv("layers.5", x, stride=1, padding=1))
