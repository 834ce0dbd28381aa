"""SimpleBaseline: a ResNet down to 1/32 and a few transposed convolutions back up, one heatmap per joint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts, require_image, require_number
from dvsn.networks.initialise import small_normal
from dvsn.networks.resnet import ResNet

PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}
"""By the kernel of a transposed convolution: padding and output padding, so that it doubles both sides."""


class SimpleBaseline(ResNet):
    """A ResNet and deconvolutions, for top-down pose.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by 32. Output: heatmaps (N, joints, H/4, W/4) with three
    deconvolutions, no activation.

    Xiao, Wu and Wei, 2018, arXiv:1804.06208. Torchvision's ImageNet weights fit by name. The release's own weights want
    BGR: its pictures stay as OpenCV reads them, under the mean and deviation of RGB (`task.channels`). Without ImageNet
    weights the trunk starts after He et al., not as the rest from N(0, 0.001).
    """

    response: ClassVar[str] = "heatmaps"
    multiple = 32
    classifier: tuple[str, ...] = ("final_layer",)

    def __init__(
        self,
        *,
        joints: int,
        depth: int = 50,
        deconvolutions: int = 3,
        deconvolution_width: int = 256,
        deconvolution_kernel: int = 4,
    ) -> None:
        super().__init__(depth=depth)
        require_counts(self, joints=joints, deconvolution_width=deconvolution_width)
        require_number(self, "deconvolutions", deconvolutions, least=0, most=5)
        if deconvolution_kernel not in PADDING:
            raise ConfigError(
                f"SimpleBaseline: deconvolution_kernel must be one of {sorted(PADDING)}, found {deconvolution_kernel!r}."
            )
        self.stride = 2 ** (5 - deconvolutions)
        inputs = self.feature_width
        self.deconv_layers = nn.Sequential()
        for _ in range(deconvolutions):
            self.deconv_layers.extend(doubling(inputs, deconvolution_width, deconvolution_kernel))
            inputs = deconvolution_width
        self.final_layer = nn.Conv2d(inputs, joints, 1)
        small_normal(self.deconv_layers, zero_biases=True)
        small_normal(self.final_layer, zero_biases=True)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=32, minimum=32)
        heatmaps: Tensor = self.final_layer(self.deconv_layers(self.features(image)))
        return heatmaps

    @staticmethod
    def adopt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a ResNet-18 that was named for BiSeNet, under this network's names."""
        return {key.removeprefix("cp.resnet."): value for key, value in state.items()}


def doubling(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Transposed convolution without bias, batch norm, ReLU: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    padding, extra = PADDING[kernel]
    layer = nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=padding, output_padding=extra, bias=False
    )
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
