"""PIDNet and DDRNet a second time: functions of a raw state dict, by key, and the mistakes that are easy to make.

Nothing of `dvsn.networks` is used here. A reference answers in evaluation mode; `trap` names one deviation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]
Shapes = dict[str, list[int]]

PIDNETS: dict[str, dict[str, Any]] = {
    "s": {},
    "m": {"width": 64},
    "l": {
        "width": 64, "blocks": 3, "deep_blocks": 4, "pyramid": "dappm", "pyramid_width": 112, "head_width": 256,
        "fusion": "bag", "derivative": "wide",
    },
}  # fmt: skip
DDRNETS: dict[str, dict[str, Any]] = {
    "23_slim": {"width": 32, "head_width": 64},
    "23": {},
    "39": {"blocks": [3, 4, 6, 3], "split": True, "head_width": 256},
    "23_adb_bag": {"derivative": True},
}
DIGESTS = {  # of the published keys and shapes, 19 classes and the training form, or 1000 classes
    "pidnet_s": "ed10da51f3cb2a50",
    "pidnet_m": "4fec0d5c3e942a42",
    "pidnet_l": "25066313b3738998",
    "ddrnet_23_slim": "024d37a079ebf958",
    "ddrnet_23": "d23e443eb8a507db",
    "ddrnet_39": "aea1af6fc88abbfc",
    "ddrnet_23_adb_bag": "694ddeb1f659124b",
    "ddrnet_23_slim_classifier": "01ad0225d425b3d4",
    "ddrnet_23_classifier": "c2dbe9eaf452de38",
    "ddrnet_39_classifier": "960d4d46cc0f6f1a",
}


def digest(shapes: Mapping[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(dict(shapes), sort_keys=True).encode()).hexdigest()[:16]


def shapes_of(network: nn.Module) -> Shapes:
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def weights(shapes: Mapping[str, list[int]]) -> State:
    """Deterministic weights and running statistics, of a size that keeps activations alive."""
    state = {}
    generator = torch.Generator().manual_seed(3)
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) == 4:
            state[key] = torch.randn(shape, generator=generator) * (shape[1] * shape[2] * shape[3]) ** -0.5
        elif len(shape) == 2 or key.endswith("running_mean"):
            state[key] = torch.randn(shape, generator=generator) * 0.2
        elif key.endswith(("running_var", ".weight")):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[key] = torch.randn(shape, generator=generator) * 0.2
    return state


def picture(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def far(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max())


def multiply_adds(network: nn.Module, *size: int, **arguments: Any) -> int:
    """Of convolutions and linear layers, for one picture. The network has no memory (meta)."""
    total = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += weight[0].numel() * output.numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    network.eval()(torch.empty(1, 3, *size, device="meta"), **arguments)
    for hook in hooks:
        hook.remove()
    return total


class Reference:
    """What both networks are made of, reading weights by key."""

    def __init__(self, state: State, trap: str = "") -> None:
        self.state, self.trap = state, trap

    def conv(self, x: Tensor, key: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def norm(self, x: Tensor, key: str) -> Tensor:
        gain, shift, mean, variance = (
            self.state[f"{key}.{name}"].view(-1, 1, 1)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        eps = 1e-3 if self.trap == "eps" else 1e-5
        return (x - mean) / torch.sqrt(variance + eps) * gain + shift

    def conv_norm(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        return self.norm(self.conv(x, f"{key}.0", stride), f"{key}.1")

    def norm_conv(self, x: Tensor, key: str, first: int = 0, groups: int = 1) -> Tensor:
        return self.conv(F.relu(self.norm(x, f"{key}.{first}")), f"{key}.{first + 2}", groups=groups)

    def up(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=self.trap == "align_corners")

    def stem(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(image, "conv1.0", 2), "conv1.1"))
        return F.relu(self.norm(self.conv(x, "conv1.3", 2), "conv1.4"))

    def shortcut(self, x: Tensor, key: str, stride: int) -> Tensor:
        projected = f"{key}.downsample.0.weight" in self.state
        return self.conv_norm(x, f"{key}.downsample", stride) if projected else x

    def basic(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{key}.conv1", stride), f"{key}.bn1"))
        return self.norm(self.conv(y, f"{key}.conv2"), f"{key}.bn2") + self.shortcut(x, key, stride)

    def bottleneck(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{key}.conv1"), f"{key}.bn1"))
        y = F.relu(self.norm(self.conv(y, f"{key}.conv2", stride), f"{key}.bn2"))
        return self.norm(self.conv(y, f"{key}.conv3"), f"{key}.bn3") + self.shortcut(x, key, stride)

    def layer(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        """Numbered blocks of either kind. Basic blocks are joined by ReLUs, bottlenecks are not."""
        count = len({name.split(".")[1] for name in self.state if name.startswith(f"{key}.")})
        thin = f"{key}.0.conv3.weight" in self.state
        for index in range(count):
            x = (self.bottleneck if thin else self.basic)(x, f"{key}.{index}", stride if index == 0 else 1)
            between = index < count - 1
            if between and (not thin or self.trap == "relu between bottlenecks"):
                x = F.relu(x)
            if not between and self.trap == "relu after the last block":
                x = F.relu(x)
        return x

    def head(self, x: Tensor, key: str) -> Tensor:
        x = self.conv(F.relu(self.norm(x, f"{key}.bn1")), f"{key}.conv1")
        return self.conv(F.relu(self.norm(x, f"{key}.bn2")), f"{key}.conv2")

    def scales(self, x: Tensor) -> list[Tensor]:
        size = (x.shape[-2], x.shape[-1])
        padding = self.trap != "padding left out of averages"
        averages = [F.avg_pool2d(x, k, k // 2, k // 2, count_include_pad=padding) for k in (5, 9, 17)]
        averages.append(x.mean((2, 3), keepdim=True))
        rest = [self.up(self.norm_conv(a, f"spp.scale{i}", 1), size) for i, a in enumerate(averages, 1)]
        return [self.norm_conv(x, "spp.scale0"), *rest]

    def pyramid(self, x: Tensor) -> Tensor:
        finest, *averages = self.scales(x)
        if "spp.process1.0.weight" in self.state:
            scales = [finest]
            for index, average in enumerate(averages, 1):
                scales.append(self.norm_conv(average + scales[-1], f"spp.process{index}"))
        else:
            together = torch.cat([average + finest for average in averages], 1)
            scales = [finest, self.norm_conv(together, "spp.scale_process", groups=4)]
        return self.norm_conv(torch.cat(scales, 1), "spp.compression") + self.norm_conv(x, "spp.shortcut")

    def twice_down(self, x: Tensor, key: str) -> Tensor:
        x = F.relu(self.norm(self.conv(x, f"{key}.0", 2), f"{key}.1"))
        return self.norm(self.conv(x, f"{key}.3", 2), f"{key}.4")


class PlainPidNet(Reference):
    """Answers main, auxiliary and boundary logits. For sides divisible by 8."""

    def pag(self, detail: Tensor, context: Tensor, key: str) -> Tensor:
        size = (detail.shape[-2], detail.shape[-1])
        product = self.conv_norm(detail, f"{key}.f_x") * self.up(self.conv_norm(context, f"{key}.f_y"), size)
        trust = torch.sigmoid(product.sum(1, keepdim=True))
        if self.trap == "pag the other way":
            trust = 1 - trust
        return (1 - trust) * detail + trust * self.up(context, size)

    def fuse(self, detail: Tensor, context: Tensor, derivative: Tensor) -> Tensor:
        edge = torch.sigmoid(derivative)
        if "dfm.conv.0.weight" in self.state:
            mixed = edge * detail + (1 - edge) * context
            if self.trap == "bag after its convolution":
                return F.relu(self.norm(self.conv(mixed, "dfm.conv.2"), "dfm.conv.0"))
            return self.norm_conv(mixed, "dfm.conv")
        first, second = ("i", "p") if self.trap == "light bag swapped" else ("p", "i")
        one = self.conv_norm((1 - edge) * context + detail, f"dfm.conv_{first}")
        return one + self.conv_norm(context + edge * detail, f"dfm.conv_{second}")

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = (image.shape[-2] // 8, image.shape[-1] // 8)
        fine = F.relu(self.layer(F.relu(self.layer(self.stem(image), "layer1")), "layer2", 2))
        detail, edge = self.layer(fine, "layer3_"), self.basic(fine, "layer3_d")
        context = F.relu(self.layer(fine, "layer3", 2))
        detail = self.pag(detail, self.conv_norm(context, "compression3"), "pag3")
        edge = edge + self.up(self.conv_norm(context, "diff3"), size)
        tap = detail if self.trap == "raw taps" else F.relu(detail)
        context = F.relu(self.layer(context, "layer4", 2))
        detail = self.layer(F.relu(detail), "layer4_")
        wide = "layer4_d.conv1.weight" in self.state
        edge = (self.basic if wide else self.layer)(F.relu(edge), "layer4_d")
        detail = self.pag(detail, self.conv_norm(context, "compression4"), "pag4")
        edge = edge + self.up(self.conv_norm(context, "diff4"), size)
        outline = edge if self.trap == "raw taps" else F.relu(edge)
        detail, edge = self.layer(F.relu(detail), "layer5_"), self.layer(F.relu(edge), "layer5_d")
        context = self.up(self.pyramid(self.layer(context, "layer5", 2)), size)
        logits = self.head(self.fuse(detail, context, edge), "final_layer")
        return logits, self.head(tap, "seghead_p"), self.head(outline, "seghead_d")


class PlainDdrNet(Reference):
    """Answers main and auxiliary logits, and boundary logits where there are any. For sides divisible by 8."""

    def trunk(self, image: Tensor) -> dict[str, Tensor]:
        size = (image.shape[-2] // 8, image.shape[-1] // 8)
        fine = self.layer(F.relu(self.layer(self.stem(image), "layer1")), "layer2", 2)
        split = "layer3_1.0.conv1.weight" in self.state
        maps = {"fine": F.relu(fine)}
        low = high = fine
        for part in ("3_1", "3_2", "4") if split else ("3", "4"):
            before = self.layer(F.relu(low), f"layer{part}", 1 if part == "3_2" else 2)
            high = self.layer(F.relu(high), f"layer{part}_")
            down = self.twice_down if part == "4" else self.conv_norm
            extra = (F.relu(high), f"down{part}") if part == "4" else (F.relu(high), f"down{part}", 2)
            low = before + down(*extra)
            read = low if self.trap == "compression after the addition" else before
            high = high + self.up(self.conv_norm(F.relu(read), f"compression{part}"), size)
            maps[part[0]] = F.relu(before)
            maps[f"tap{part[0]}"] = F.relu(high) if self.trap == "rectified taps" else high
        return maps | {"low": low, "high": high}

    def fuse(self, detail: Tensor, context: Tensor, derivative: Tensor) -> Tensor:
        edge = torch.sigmoid(derivative)
        sums = ("p", (1 - edge) * context + detail), ("i", context + edge * detail)
        found = [self.norm(self.norm_conv(x, f"dfm.conv_{name}"), f"dfm.conv_{name}.3") for name, x in sums]
        return found[0] + found[1]

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        size = (image.shape[-2] // 8, image.shape[-1] // 8)
        maps = self.trunk(image)
        detail = self.layer(F.relu(maps["high"]), "layer5_")
        context = self.up(self.pyramid(self.layer(F.relu(maps["low"]), "layer5", 2)), size)
        extra = self.head(maps["tap3"], "seghead_extra")
        if "diff3.0.weight" not in self.state:
            return self.head(context + detail, "final_layer"), extra
        edge = self.basic(maps["fine"], "layer3_d") + self.up(self.conv_norm(maps["3"], "diff3"), size)
        edge = self.basic(F.relu(edge), "layer4_d") + self.up(self.conv_norm(maps["4"], "diff4"), size)
        outline = F.relu(edge) if self.trap == "rectified taps" else edge
        fused = self.fuse(detail, context, self.layer(F.relu(edge), "layer5_d"))
        return self.head(fused, "final_layer"), extra, self.head(outline, "seghead_bd")

    def classify(self, image: Tensor) -> Tensor:
        """The ImageNet form."""
        maps = self.trunk(image)
        context = self.layer(F.relu(maps["low"]), "layer5")
        if self.trap != "raw bottleneck":
            context = F.relu(context)
        down = self.twice_down(F.relu(self.layer(F.relu(maps["high"]), "layer5_")), "down5")
        pooled = F.relu(self.conv_norm(F.relu(context + down), "last_layer")).mean((2, 3))
        return F.linear(pooled, self.state["linear.weight"], self.state["linear.bias"])


def filled(network: nn.Module) -> nn.Module:
    """In evaluation mode, with deterministic weights and running statistics."""
    network.load_state_dict(weights(shapes_of(network)), assign=True)
    return network.eval()
