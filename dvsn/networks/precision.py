"""A network that computes in another precision or memory layout than its callers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Adapted(nn.Module):
    """A network run in another precision or memory layout. Takes float32 images and gives a float32 answer."""

    def __init__(
        self, network: nn.Module, *, dtype: torch.dtype, autocast: bool = False, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.network, self.dtype, self.autocast = network, dtype, autocast
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self.format)  # type: ignore[call-overload]
        if not autocast:
            network.to(dtype)

    def forward(self, image: Tensor, **options: Any) -> Any:
        """A tensor, or a NamedTuple. `options` are those that the task calls its network with, such as `heads`."""
        image = image.to(torch.float32 if self.autocast else self.dtype, memory_format=self.format)
        with torch.autocast(image.device.type, self.dtype, enabled=self.autocast):
            output = self.network(image, **options)
        if isinstance(output, Tensor):
            return output.float()
        return type(output)(output[0].float())  # what is left out is for training
