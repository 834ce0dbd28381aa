"""SimpleBaseline: a ResNet down to 1/32 and a few transposed convolutions back up, one heatmap per joint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_image, require_number
from dvsn.networks.dual_resolution import BasicBlock
from dvsn.networks.hrnet import Bottleneck
from dvsn.networks.hrnet_pose import initialise

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)
PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}
"""By the kernel of a transposed convolution: padding and output padding, so that it doubles both sides."""


class SimpleBaseline(nn.Module):
    """A ResNet and deconvolutions, for top-down pose.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by 32. Output: heatmaps (N, joints, H/4, W/4) with three
    deconvolutions, no activation.

    Xiao, Wu and Wei, 2018, arXiv:1804.06208, on He et al., 2016, arXiv:1512.03385, in the form with the stride in the
    3x3 of a bottleneck. Names are torchvision's, so its ImageNet weights fit. The release's own weights want BGR: its
    pictures stay as OpenCV reads them, under the mean and deviation of RGB (`task.channels`). Without ImageNet weights
    the trunk starts after He et al., in the release as the rest from N(0, 0.001).
    """

    multiple = 32
    classifier: tuple[str, ...] = ("final_layer",)
    taps = ("layer1", "layer2", "layer3", "layer4")  # at 1/4 to 1/32

    def __init__(
        self,
        *,
        joints: int,
        depth: int = 50,
        deconvolutions: int = 3,
        deconvolution_width: int = 256,
        deconvolution_kernel: int = 4,
    ) -> None:
        super().__init__()
        require_number(self, "joints", joints, least=1)
        require_number(self, "deconvolutions", deconvolutions, least=0, most=5)
        require_number(self, "deconvolution_width", deconvolution_width, least=1)
        for name, value, known in (
            ("depth", depth, BLOCKS),
            ("deconvolution_kernel", deconvolution_kernel, PADDING),
        ):
            if value not in known:
                raise ConfigError(f"SimpleBaseline: {name} must be one of {sorted(known)}, found {value!r}.")
        self.stride = 2 ** (5 - deconvolutions)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wider = 1 if depth in BASIC else Bottleneck.expansion
        layer = partial(residual_layer, expansion=wider)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = layer(64, 64, first, stride=1)
        self.layer2 = layer(wider * 64, 128, second, stride=2)
        self.layer3 = layer(wider * 128, 256, third, stride=2)
        self.layer4 = layer(wider * 256, 512, fourth, stride=2)
        inputs = wider * 512
        self.deconv_layers = nn.Sequential()
        for _ in range(deconvolutions):
            self.deconv_layers.extend(doubling(inputs, deconvolution_width, deconvolution_kernel))
            inputs = deconvolution_width
        self.final_layer = nn.Conv2d(inputs, joints, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in (*self.deconv_layers, self.final_layer):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                initialise(module)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=32, minimum=32)
        x = self.maxpool(F.relu(self.bn1(self.conv1(image)), inplace=True))  # (N, 64, H/4, W/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512 or 2048, H/32, W/32)
        heatmaps: Tensor = self.final_layer(self.deconv_layers(x))
        return heatmaps

    @staticmethod
    def adopt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a ResNet-18 that was named for BiSeNet, under this network's names."""
        return {key.removeprefix("cp.resnet."): value for key, value in state.items()}


def residual_layer(inputs: int, planes: int, count: int, *, expansion: int, stride: int) -> nn.Sequential:
    """`count` blocks, the first with the stride: (N, inputs, H, W) -> (N, expansion planes, H/stride, W/stride)."""
    block = partial(BasicBlock, rectify=True) if expansion == 1 else Bottleneck
    rest = [block(expansion * planes, planes) for _ in range(count - 1)]
    return nn.Sequential(block(inputs, planes, stride=stride), *rest)


def doubling(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Transposed convolution without bias, batch norm, ReLU: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    padding, extra = PADDING[kernel]
    layer = nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=padding, output_padding=extra, bias=False
    )
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
