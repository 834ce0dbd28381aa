"""A backbone from outside of dvsn, as `DVSN_ALLOW=old_backbone` lets a config name it; the old detector has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 5


class TinyPyramid(nn.Module):
    """Input (N, 3, H, W), output five maps "0" to "4" of `out_channels`, at 1/8, 1/16, ... 1/128."""

    first_stride, multiple = 8, 128

    def __init__(self, *, channels: int = 32) -> None:
        super().__init__()
        self.out_channels = channels  # torchvision's FCOS normalises 32 groups of channels, so no fewer
        self.stem = nn.Conv2d(3, channels, 8, stride=8, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.levels = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(LEVELS)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.norm(self.stem(image)))
        return {
            str(number): level(F.avg_pool2d(x, 2**number) if number else x)
            for number, level in enumerate(self.levels)
        }
