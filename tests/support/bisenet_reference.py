"""BiSeNet a second time, from the tables alone: key lists, weights, and the networks as functions of a state dict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.types import SegmentationOutput

Shapes = dict[str, list[int]]
State = Mapping[str, Tensor]
Maps = list[Tensor]


# The published keys and shapes, from the tables --------------------------------------------------------


def conv(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False) -> Shapes:
    return {f"{key}.weight": [outputs, inputs, kernel, kernel]} | ({f"{key}.bias": [outputs]} if bias else {})


def norm(key: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{key}.{name}": [channels] for name in vectors} | {f"{key}.num_batches_tracked": []}


def cbr_keys(key: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
    return conv(f"{key}.conv", outputs, inputs, kernel) | norm(f"{key}.bn", outputs)


def numbered(key: str, outputs: int, inputs: int, kernel: int, first: int = 0) -> Shapes:
    return conv(f"{key}.{first}", outputs, inputs, kernel) | norm(f"{key}.{first + 1}", outputs)


def block_keys(key: str, inputs: int, widths: list[tuple[int, int]]) -> Shapes:
    """A residual block with convolutions of (outputs, kernel); a shortcut where the width changes."""
    shapes, width = {}, inputs
    for number, (outputs, kernel) in enumerate(widths, start=1):
        shapes |= conv(f"{key}.conv{number}", outputs, width, kernel) | norm(f"{key}.bn{number}", outputs)
        width = outputs
    return shapes | (numbered(f"{key}.downsample", width, inputs, 1) if width != inputs else {})


def resnet_keys(key: str) -> Shapes:
    shapes, width = conv(f"{key}.conv1", 64, 3, 7) | norm(f"{key}.bn1", 64), 64
    for stage, planes in enumerate((64, 128, 256, 512), start=1):
        for index in (0, 1):
            shapes |= block_keys(f"{key}.layer{stage}.{index}", width, [(planes, 3), (planes, 3)])
            width = planes
    return shapes


def head_keys(key: str, inputs: int, middle: int, classes: int) -> Shapes:
    return cbr_keys(f"{key}.conv", middle, inputs) | conv(f"{key}.conv_out", classes, middle, 1, bias=True)


def v1_keys(classes: int = 19, *, derivative: bool = False) -> Shapes:
    shapes = resnet_keys("cp.resnet")
    for name, width in (("arm16", 256), ("arm32", 512)):
        shapes |= cbr_keys(f"cp.{name}.conv", 128, width)
        shapes |= conv(f"cp.{name}.conv_atten", 128, 128, 1) | norm(f"cp.{name}.bn_atten", 128)
    shapes |= cbr_keys("cp.conv_head32", 128, 128) | cbr_keys("cp.conv_head16", 128, 128)
    shapes |= cbr_keys("cp.conv_avg", 128, 512, 1)
    shapes |= cbr_keys("sp.conv1", 64, 3, 7) | cbr_keys("sp.conv2", 64, 64) | cbr_keys("sp.conv3", 64, 64)
    shapes |= cbr_keys("sp.conv_out", 128, 64, 1)
    shapes |= cbr_keys("ffm.convblk", 256, 256, 1) | conv("ffm.conv", 256, 256, 1) | norm("ffm.bn", 256)
    shapes |= head_keys("conv_out", 256, 256, classes)
    shapes |= head_keys("conv_out16", 128, 64, classes) | head_keys("conv_out32", 128, 64, classes)
    if derivative:
        shapes |= numbered("cp.diff3", 64, 256, 3) | numbered("cp.diff4", 64, 512, 3)
        shapes |= block_keys("cp.convD1", 128, [(64, 3), (64, 3)])
        shapes |= block_keys("cp.convD2", 64, [(64, 3), (64, 3)])
        shapes |= block_keys("cp.convD3", 64, [(64, 1), (64, 3), (128, 1)])
        shapes |= numbered("dfm.conv_p", 256, 128, 1) | numbered("dfm.conv_i", 256, 128, 1)
        shapes |= head_keys("conv_outd", 64, 64, 1)
    return shapes


def v2_keys(classes: int = 19) -> Shapes:
    shapes: Shapes = {}
    width = 3
    for stage, (count, outputs) in enumerate(((2, 64), (3, 64), (3, 128)), start=1):
        for index in range(count):
            shapes |= cbr_keys(f"detail.S{stage}.{index}", outputs, width)
            width = outputs
    stem = "segment.S1S2"
    shapes |= cbr_keys(f"{stem}.conv", 16, 3) | cbr_keys(f"{stem}.left.0", 8, 16, 1)
    shapes |= cbr_keys(f"{stem}.left.1", 16, 8) | cbr_keys(f"{stem}.fuse", 16, 32)
    for stage, inputs, count in (("S3", 16, 2), ("S4", 32, 2), ("S5_4", 64, 4)):
        down, outputs, middle = f"segment.{stage}.0", 2 * inputs, 6 * inputs
        shapes |= cbr_keys(f"{down}.conv1", inputs, inputs) | numbered(f"{down}.dwconv1", middle, 1, 3)
        shapes |= numbered(f"{down}.dwconv2", middle, 1, 3) | numbered(f"{down}.conv2", outputs, middle, 1)
        shapes |= numbered(f"{down}.shortcut", inputs, 1, 3)
        shapes |= numbered(f"{down}.shortcut", outputs, inputs, 1, first=2)
        for index in range(1, count):
            keep = f"segment.{stage}.{index}"
            shapes |= cbr_keys(f"{keep}.conv1", outputs, outputs)
            shapes |= numbered(f"{keep}.dwconv", 6 * outputs, 1, 3)
            shapes |= numbered(f"{keep}.conv2", outputs, 6 * outputs, 1)
    shapes |= norm("segment.S5_5.bn", 128) | cbr_keys("segment.S5_5.conv_gap", 128, 128, 1)
    shapes |= cbr_keys("segment.S5_5.conv_last", 128, 128)
    for name in ("left1", "right2"):
        shapes |= numbered(f"bga.{name}", 128, 1, 3) | conv(f"bga.{name}.2", 128, 128, 1)
    for name in ("left2", "right1", "conv"):
        shapes |= numbered(f"bga.{name}", 128, 128, 3)
    shapes |= cbr_keys("head.conv", 1024, 128) | conv("head.conv_out.1", classes, 1024, 1, bias=True)
    for name, inputs, stride in (("aux2", 16, 4), ("aux3", 32, 8), ("aux4", 64, 16), ("aux5_4", 128, 32)):
        shapes |= cbr_keys(f"{name}.conv", 128, inputs) | cbr_keys(f"{name}.conv_out.0.1", stride**2, 128)
        shapes |= conv(f"{name}.conv_out.1", classes, stride**2, 1, bias=True)
    return shapes


# name: our key list and the digest of the published one
PUBLISHED: dict[str, tuple[Shapes, str]] = {
    "bisenetv1": (v1_keys(), "1cb2b417bd4c5e42"),
    "bisenetv1_adb_bag": (v1_keys(derivative=True), "d270de1c9268d306"),
    "bisenetv2": (v2_keys(), "6c4196d9921de232"),
}
HEADS = ("conv_out16", "conv_out32", "conv_outd", "aux2", "aux3", "aux4", "aux5_4")


def digest(shapes: Shapes) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:16]


def weights(shapes: Shapes, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The same values on every machine: signals keep their size, statistics are far from 0 and 1."""
    state: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        random = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) > 1:
            inputs = torch.Size(shape[1:]).numel()
            state[key] = torch.randn(shape, generator=random, dtype=dtype) * (2 / inputs) ** 0.5
        elif key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape, generator=random, dtype=dtype)
        elif key.endswith(".weight"):
            state[key] = 0.6 + 0.8 * torch.rand(shape, generator=random, dtype=dtype)
        else:
            state[key] = 0.3 * torch.randn(shape, generator=random, dtype=dtype)
    return state


# The networks, written from the tables on the bare weights ------------------------------------------------


class Plain:
    """Functions of a state dict; `key` names a module."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(self, x: Tensor, key: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{key}.weight"]
        padding = (weight.shape[-1] - 1) // 2
        return F.conv2d(x, weight, self.state.get(f"{key}.bias"), stride, padding, groups=groups)

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance, scale, shift = (
            self.state[f"{key}.{name}"].view(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5) ** 0.5 * scale + shift

    def cn(self, x: Tensor, key: str, stride: int = 1, groups: int = 1, first: int = 0) -> Tensor:
        return self.norm(self.conv(x, f"{key}.{first}", stride, groups), f"{key}.{first + 1}")

    def cbr(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        return self.norm(self.conv(x, f"{key}.conv", stride), f"{key}.bn").relu()


def average(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def bigger(x: Tensor, factor: int, mode: str = "bilinear") -> Tensor:
    return nn.Upsample(scale_factor=factor, mode=mode)(x)  # bilinear: align_corners is False


class PlainV1(Plain):
    def block(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        """A basic block or a bottleneck, without the last ReLU."""
        strided = {1: stride}  # of a basic block the first convolution
        count = 3 if f"{key}.conv3.weight" in self.state else 2
        y = x
        for number in range(1, count + 1):
            y = self.norm(self.conv(y, f"{key}.conv{number}", strided.get(number, 1)), f"{key}.bn{number}")
            y = y.relu() if number < count else y
        has_shortcut = f"{key}.downsample.0.weight" in self.state
        return y + (self.cn(x, f"{key}.downsample", stride) if has_shortcut else x)

    def trunk(self, image: Tensor, key: str) -> Maps:
        x = self.norm(self.conv(image, f"{key}conv1", 2), f"{key}bn1").relu()
        x = F.max_pool2d(x, 3, 2, 1)
        stages = []
        for stage in (1, 2, 3, 4):
            x = self.block(x, f"{key}layer{stage}.0", 1 if stage == 1 else 2).relu()
            x = self.block(x, f"{key}layer{stage}.1").relu()
            stages.append(x)
        return stages[1:]

    def gated(self, x: Tensor, conv: str, norm: str) -> Tensor:
        return x * self.norm(self.conv(average(x), conv), norm).sigmoid()

    def context(self, maps: Maps, mode: str) -> tuple[Tensor, Tensor]:
        _, feat16, feat32 = maps
        t32 = self.gated(self.cbr(feat32, "cp.arm32.conv"), "cp.arm32.conv_atten", "cp.arm32.bn_atten")
        t32 = t32 + self.cbr(average(feat32), "cp.conv_avg")
        t32 = self.cbr(bigger(t32, 2, mode), "cp.conv_head32")
        t16 = self.gated(self.cbr(feat16, "cp.arm16.conv"), "cp.arm16.conv_atten", "cp.arm16.bn_atten")
        return self.cbr(bigger(t16 + t32, 2, mode), "cp.conv_head16"), t32

    def spatial(self, image: Tensor) -> Tensor:
        for name in ("conv1", "conv2", "conv3"):
            image = self.cbr(image, f"sp.{name}", 2)
        return self.cbr(image, "sp.conv_out")

    def fuse(self, both: Tensor) -> Tensor:
        f = self.cbr(both, "ffm.convblk")
        return f + self.gated(f, "ffm.conv", "ffm.bn")

    def head(self, x: Tensor, key: str, factor: int) -> Tensor:
        return bigger(self.conv(self.cbr(x, f"{key}.conv"), f"{key}.conv_out"), factor)

    def __call__(self, image: Tensor) -> Maps:
        """Main, then the auxiliary maps from the context at 1/8 and 1/16."""
        at8, at16 = self.context(self.trunk(image, "cp.resnet."), "nearest")
        both = self.fuse(torch.cat([self.spatial(image), at8], dim=1))
        return [
            self.head(both, "conv_out", 8),
            self.head(at8, "conv_out16", 8),
            self.head(at16, "conv_out32", 16),
        ]


class PlainDerivative(PlainV1):
    def __init__(self, state: State, *, rectified: bool = True) -> None:
        super().__init__(state)
        self.rectified = rectified

    def __call__(self, image: Tensor) -> Maps:
        """As V1, and last the boundary."""
        maps = self.trunk(image, "cp.resnet.")
        at8, at16 = self.context(maps, "bilinear")
        d = self.block(maps[0], "cp.convD1") + bigger(self.cn(maps[1], "cp.diff3"), 2)
        d = self.block(d.relu(), "cp.convD2") + bigger(self.cn(maps[2], "cp.diff4"), 4)
        tap = d.relu() if self.rectified else d
        a = self.block(d.relu(), "cp.convD3").sigmoid()
        p = self.spatial(image)
        both = self.cn((1 - a) * at8 + p, "dfm.conv_p") + self.cn(at8 + a * p, "dfm.conv_i")
        return [
            self.head(self.fuse(both), "conv_out", 8),
            self.head(at8, "conv_out16", 8),
            self.head(at16, "conv_out32", 16),
            self.head(tap, "conv_outd", 8),
        ]


class PlainV2(Plain):
    def gather(self, x: Tensor, key: str) -> Tensor:
        channels = x.shape[1]
        y = self.cbr(x, f"{key}.conv1")
        if f"{key}.dwconv.0.weight" in self.state:
            y = self.cn(y, f"{key}.dwconv", groups=channels).relu()
            return (self.cn(y, f"{key}.conv2") + x).relu()
        y = self.cn(y, f"{key}.dwconv1", stride=2, groups=channels)
        y = self.cn(y, f"{key}.dwconv2", groups=6 * channels).relu()
        short = self.cn(x, f"{key}.shortcut", stride=2, groups=channels)
        return (self.cn(y, f"{key}.conv2") + self.cn(short, f"{key}.shortcut", first=2)).relu()

    def detail(self, x: Tensor) -> Tensor:
        for stage, count in ((1, 2), (2, 3), (3, 3)):
            for index in range(count):
                x = self.cbr(x, f"detail.S{stage}.{index}", 2 if index == 0 else 1)
        return x

    def semantic(self, image: Tensor) -> Maps:
        x = self.cbr(image, "segment.S1S2.conv", 2)
        left = self.cbr(self.cbr(x, "segment.S1S2.left.0"), "segment.S1S2.left.1", 2)
        maps = [self.cbr(torch.cat([left, F.max_pool2d(x, 3, 2, 1)], dim=1), "segment.S1S2.fuse")]
        for stage, count in (("S3", 2), ("S4", 2), ("S5_4", 4)):
            x = maps[-1]
            for index in range(count):
                x = self.gather(x, f"segment.{stage}.{index}")
            maps.append(x)
        mean = self.cbr(self.norm(average(x), "segment.S5_5.bn"), "segment.S5_5.conv_gap")
        return [*maps, self.cbr(mean + x, "segment.S5_5.conv_last")]

    def aggregate(self, d: Tensor, s: Tensor) -> Tensor:
        keep = self.conv(self.cn(d, "bga.left1", groups=128), "bga.left1.2")
        down = F.avg_pool2d(self.cn(d, "bga.left2", 2), 3, 2, 1, count_include_pad=True)
        up = bigger(self.cn(s, "bga.right1"), 4, "nearest")
        gate = self.conv(self.cn(s, "bga.right2", groups=128), "bga.right2.2").sigmoid()
        return self.cn(keep * up.sigmoid() + bigger(down * gate, 4, "nearest"), "bga.conv").relu()

    def auxiliary(self, x: Tensor, key: str, stride: int) -> Tensor:
        x = self.cbr(bigger(self.cbr(x, f"{key}.conv"), 2, "nearest"), f"{key}.conv_out.0.1")
        return bigger(self.conv(x, f"{key}.conv_out.1"), stride // 2)

    def __call__(self, image: Tensor) -> Maps:
        """Main, then the auxiliary maps of 1/4, 1/8, 1/16 and 1/32."""
        *maps, last = self.semantic(image)
        joined = self.aggregate(self.detail(image), last)
        main = bigger(self.conv(self.cbr(joined, "head.conv"), "head.conv_out.1"), 8)
        heads = zip(maps, ("aux2", "aux3", "aux4", "aux5_4"), (4, 8, 16, 32), strict=True)
        return [main, *(self.auxiliary(x, key, stride) for x, key, stride in heads)]


PLAIN: dict[str, type[Plain]] = {
    "bisenetv1": PlainV1,
    "bisenetv1_adb_bag": PlainDerivative,
    "bisenetv2": PlainV2,
}


def picture(height: int, width: int, *, count: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.randn((count, 3, height, width), generator=random, dtype=torch.float64)


def flat(output: SegmentationOutput) -> Maps:
    return [output.logits, *output.auxiliary, *([] if output.boundary is None else [output.boundary])]


def far(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())
