"""Any classification model of timm, by its name there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import out_of_place, require_counts, require_image
from dvsn.networks.timm_encoder import Expected, KeepsTimm, create, expected_of, require_size, require_whole

STAGES = 4
"""The most taps, the coarsest maps."""
SIDES = (224, 448)
"""Of the picture of a dry run: height and width differ, and divide by 7, 14 and 32."""
ROUNDED = 4
"""Pixels by which a map may miss the size that its stride says."""


class TimmClassifier(KeepsTimm):
    """A classification model of timm, with or without features.

    Input: (N, 3, H, W) normalised RGB; convolutional models take any size from 32 on, some transformers one
    only. Output: logits (N, classes).

    `name`, `size`: see `dvsn.networks.timm_encoder.TimmEncoder`. It starts from random weights. Activations
    are not in place, so that every module can be tapped. Keys are timm's behind `model.`.

    `multiple`: what the sides must divide by, of a transformer the side of its patches.

    Taps: the modules that timm names as its features, where they make maps in this layout. Where they make
    tokens, or keep channels last, as transformers do, the maps that timm's `forward_intermediates` makes of
    them go through the identities of `stages`, beside the path to the classes: there a graft would not be
    read, so methods that add one take other networks.
    """

    response: ClassVar[str] = "classes"
    kept: ClassVar[str] = "model"

    def __init__(self, *, classes: int, name: str = "resnet18", size: Sequence[int] | None = None) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        self.name, self.classes = name, classes
        self.model, self.fixed = create(name, size, num_classes=classes)
        out_of_place(self.model)
        require_whole(size, patch_of(self.model), name)
        self.multiple = patch_of(self.model) if self.fixed is None else 1
        layers = self.model.get_classifier()
        wanted = {id(each) for each in (layers if isinstance(layers, tuple | list) else (layers,))}
        self.classifier = tuple(
            f"model.{path}" for path, part in self.model.named_modules() if id(part) in wanted
        )
        single = len(self.classifier) == 1 and isinstance(layers, nn.Linear)
        self.pooled_tap = f"{self.classifier[0]}:in" if single else ""
        infos = list(getattr(self.model, "feature_info", None) or ())
        inside = modules_of_maps(self.model, infos, self.fixed)[-STAGES:]
        beside = min(len(infos), STAGES) if not inside and hasattr(self.model, "forward_intermediates") else 0
        self.stages = nn.ModuleList(nn.Identity() for _ in range(beside))
        self.taps = tuple(f"model.{path}" for path in inside) or tuple(f"stages.{n}" for n in range(beside))

    @property
    def expects(self) -> Expected | None:
        """See `TimmEncoder.expects`."""
        return expected_of(self.name)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=3, multiple=self.multiple, minimum=self.multiple)
        require_size(self, image, self.name, self.fixed)
        if not self.stages:
            logits: Tensor = self.model(image)
            return logits
        found, maps = self.model.forward_intermediates(image, indices=len(self.stages), output_fmt="NCHW")
        for stage, each in zip(self.stages, maps, strict=True):
            stage(each)
        logits = self.model.forward_head(found)
        return logits


def patch_of(model: Any) -> int:
    """The side in pixels of the patches that a model cuts a picture into; 1 of one that cuts none."""
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    sides = size if isinstance(size, tuple | list) else (size,)
    return max((side for side in sides if isinstance(side, int)), default=1)


def modules_of_maps(model: nn.Module, infos: Sequence[Any], fixed: tuple[int, int] | None) -> tuple[str, ...]:
    """The paths of timm's `feature_info`, finest first, if all are modules that make the maps (N, C, H, W) that it says;
    else none. Found by a dry run without memory."""
    ghost: Any = copy.deepcopy(model).to(device="meta").eval()
    parts = dict(ghost.named_modules())
    if not infos or any(info["module"] not in parts for info in infos):
        return ()
    made: dict[str, tuple[int, ...]] = {}

    def note(path: str, output: Any) -> None:
        made[path] = tuple(output.shape) if isinstance(output, Tensor) else ()

    for info in infos:
        path = info["module"]
        parts[path].register_forward_hook(lambda _, __, output, path=path: note(path, output))
    height, width = fixed or SIDES
    with torch.no_grad():
        ghost(torch.empty(1, int(getattr(model, "in_chans", 3)), height, width, device="meta"))
    for info in infos:
        shape, stride = made.get(info["module"], ()), info["reduction"]
        if len(shape) != 4 or shape[1] != info["num_chs"]:
            return ()
        if abs(shape[2] - height / stride) > ROUNDED or abs(shape[3] - width / stride) > ROUNDED:
            return ()
    return tuple(info["module"] for info in infos)
