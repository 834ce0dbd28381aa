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
        self.deconv_layers, self.final_layer, self.stride = heatmap_head(
            self,
            self.feature_width,
            joints,
            multiple=self.multiple,
            deconvolutions=deconvolutions,
            width=deconvolution_width,
            kernel=deconvolution_kernel,
        )

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=32, minimum=32)
        heatmaps: Tensor = self.final_layer(self.deconv_layers(self.features(image)))
        return heatmaps

    @staticmethod
    def adopt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a ResNet-18 that was named for BiSeNet, under this network's names."""
        return {key.removeprefix("cp.resnet."): value for key, value in state.items()}


def heatmap_head(
    owner: nn.Module,
    inputs: int,
    joints: int,
    *,
    multiple: int,
    deconvolutions: int,
    width: int,
    kernel: int,
) -> tuple[nn.Sequential, nn.Conv2d, int]:
    """Deconvolutions on a map (N, inputs, H/multiple, W/multiple), the last layer, which makes heatmaps (N, joints,
    H/stride, W/stride) of what they give, and this stride. Both start from N(0, 0.001). Raises `ConfigError`."""
    require_counts(owner, joints=joints, deconvolution_width=width)
    require_number(owner, "deconvolutions", deconvolutions, least=0, most=multiple.bit_length() - 1)
    if kernel not in PADDING:
        raise ConfigError(
            f"{type(owner).__name__}: deconvolution_kernel must be one of {sorted(PADDING)}, found {kernel!r}."
        )
    layers = nn.Sequential()
    for _ in range(deconvolutions):
        layers.extend(doubling(inputs, width, kernel))
        inputs = width
    final = nn.Conv2d(inputs, joints, 1)
    small_normal(layers, zero_biases=True)
    small_normal(final, zero_biases=True)
    return layers, final, multiple // 2**deconvolutions


def doubling(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Transposed convolution without bias, batch norm, ReLU: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    padding, extra = PADDING[kernel]
    layer = nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=padding, output_padding=extra, bias=False
    )
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
