"""Segmentation networks of torchvision: FCN, DeepLabV3, LR-ASPP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest
from dvsn.networks.blocks import heads_wanted, out_of_place, require_counts, require_image
from dvsn.networks.decoders import require_batch
from dvsn.types import SegmentationOutput

Name = Literal[
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
]
RESNET = ("layer1", "layer2", "layer3", "layer4")
MOBILENET = ("3", "6", "12", "16")
"""The last block of each stage from stride 4 on."""


class Facts(NamedTuple):
    """What is not written in a model of torchvision."""

    stride: int
    """Of the logits."""
    stages: tuple[str, ...]
    auxiliary: bool = True
    """Whether it can have an auxiliary head."""


FACTS = {
    "deeplabv3_mobilenet_v3_large": Facts(16, MOBILENET),
    "deeplabv3_resnet50": Facts(8, RESNET),
    "deeplabv3_resnet101": Facts(8, RESNET),
    "fcn_resnet50": Facts(8, RESNET),
    "fcn_resnet101": Facts(8, RESNET),
    "lraspp_mobilenet_v3_large": Facts(8, MOBILENET, auxiliary=False),
}


def training_heads(
    *, name: str = "deeplabv3_mobilenet_v3_large", heads: bool = True, **_: Any
) -> tuple[int, bool]:
    """One auxiliary head, where the model has one, and none of boundaries."""
    return (int(heads and name in FACTS and FACTS[name].auxiliary), False)


class TorchvisionSegmenter(nn.Module):
    """A segmentation network of torchvision, from random weights.

    Input: (N, 3, H, W) normalised RGB of any size. Output: `logits` (N, classes, H/s, W/s), sides rounded up,
    s = 8, and 16 for DeepLabV3 on MobileNetV3: not yet enlarged to the picture's size, as torchvision's own
    are. In training also `auxiliary`, one map of logits of an earlier stage, where `heads` and the model has
    such a head; LR-ASPP has none.

    DeepLabV3: Chen et al., 2017, arXiv:1706.05587. LR-ASPP: Howard et al., 2019, arXiv:1905.02244, section 6.
    FCN: Long, Shelhamer and Darrell, 2015, arXiv:1411.4038. Keys are torchvision's behind `model.`, so
    `weights=` takes its published files. DeepLabV3 wants batches of two or more in training.
    """

    response: ClassVar[str] = "pixels"
    multiple = 1
    align_corners = False
    training_heads = staticmethod(training_heads)

    def __init__(
        self, *, classes: int, name: Name = "deeplabv3_mobilenet_v3_large", heads: bool = True
    ) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        if name not in FACTS:
            raise ConfigError(
                f"network.name: torchvision has no segmentation network {name!r}. {nearest(str(name), get_args(Name))}"
            )
        from torchvision import models

        facts = FACTS[name]
        self.heads = heads and facts.auxiliary
        options: dict[str, Any] = {"aux_loss": self.heads} if facts.auxiliary else {}
        self.model = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes, **options
        )
        out_of_place(self.model)
        self.name, self.stride = name, facts.stride
        self.taps = tuple(f"model.backbone.{stage}" for stage in facts.stages)
        self.pools = name.startswith("deeplabv3")
        last = len(self.model.classifier) - 1 if facts.auxiliary else None
        layers = ("high_classifier", "low_classifier") if last is None else (str(last),)
        self.classifier = tuple(f"model.classifier.{layer}" for layer in layers)
        if self.heads:
            self.classifier += (f"model.aux_classifier.{len(self.model.aux_classifier) - 1}",)

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        if self.pools:
            require_batch(self, image)
        maps = self.model.backbone(image)
        logits = self.model.classifier(maps.get("out", maps))
        auxiliary = (self.model.aux_classifier(maps["aux"]),) if heads_wanted(self, heads) else ()
        return SegmentationOutput(logits, auxiliary)

    def adopt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a classifier of torchvision in dvsn: its trunk is the backbone."""
        return self.adopt_published({key.removeprefix("model."): value for key, value in state.items()})

    def adopt_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of torchvision's own file for this model, or of a classifier for its backbone, under this network's
        names."""
        own = self.state_dict()

        def name(key: str) -> str:
            forms = (f"model.{key}", f"model.backbone.{key.removeprefix('features.')}")
            return next((form for form in forms if form in own), key)

        return {name(key): value for key, value in state.items()}
