"""Segmenters on an encoder of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from dvsn.networks.blocks import require_choice, require_counts, require_number, training_heads
from dvsn.networks.decoders import DECODERS, Kind
from dvsn.networks.timm_encoder import OnEncoder, TimmEncoder
from dvsn.types import SegmentationOutput


class TimmSegmenter(OnEncoder):
    """A model of timm and a decoder.

    Input: (N, 3, H, W) normalised RGB of any size: right and below it is padded with zeros, the mean colour,
    until its sides divide by the encoder's `multiple`. A transformer may take one size only (`network.size`).
    Output: `logits` (N, classes, H/s, W/s), sides rounded up, with s the stride of the finest map that the
    decoder uses: 4 where the encoder has it, and for a U-Net 2. There is no head for training only, so
    `heads` in `forward` changes nothing.

    - `name`, `size`: see `dvsn.networks.timm_encoder.TimmEncoder`;
    - `decoder`, `channels`: see `dvsn.networks.decoders`;
    - `dropout`: the share of channels of the decoder's map that is left out in training.
    """

    response: ClassVar[str] = "pixels"
    classifier: tuple[str, ...] = ("last_layer",)
    align_corners = False
    training_heads = staticmethod(training_heads(0))

    def __init__(
        self,
        *,
        classes: int,
        name: str = "resnet18",
        decoder: Kind = "fpn",
        channels: int = 128,
        dropout: float = 0.1,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require_counts(self, classes=classes, channels=channels)
        require_choice(self, "decoder", decoder, Kind)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        self.encoder = TimmEncoder(name=name, size=size)
        finest = 2 if decoder == "unet" else 4
        self.first = next((place for place, each in enumerate(self.encoder.strides) if each >= finest), -1)
        self.stride = self.encoder.strides[self.first]
        self.decoder = DECODERS[decoder](self.encoder.widths[self.first :], channels)
        self.dropout = nn.Dropout2d(dropout)
        self.last_layer = nn.Conv2d(self.decoder.width, classes, 1)

    @property
    def multiple(self) -> int:
        """Any size will do."""
        return 1

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        height, width = image.shape[-2:]
        maps = self.encoder(self.padded(image))
        logits = self.last_layer(self.dropout(self.decoder(maps[self.first :])))
        return SegmentationOutput(logits[..., : -(-height // self.stride), : -(-width // self.stride)])
