"""Any classification model of torchvision, by its name there."""

from __future__ import annotations

import copy
import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest
from dvsn.networks.blocks import out_of_place, require_counts

WITHOUT_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
"""Models with training heads, which are left out."""
SIDE = 224
CONTAINERS = ("features", "layers", "trunk_output")
"""Where a model keeps its stages, when it has them below one module."""


class TorchvisionClassifier(nn.Module):
    """A classification model of torchvision.

    Input: (N, 3, H, W) normalised RGB; most models take any size from 32 on, transformers their own only.
    Output: logits (N, classes).

    `name` as torchvision lists it, such as resnet18, mobilenet_v3_small or convnext_tiny. It starts from random weights, as
    torchvision initialises; training heads are left out. ReLU and its like are not in place here, so that every module can
    be tapped. Keys are torchvision's behind `model.`.
    """

    response: ClassVar[str] = "classes"
    multiple = 1

    def __init__(self, *, classes: int, name: str = "resnet18") -> None:
        super().__init__()
        require_counts(self, classes=classes)
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise ConfigError(
                f"TorchvisionClassifier: torchvision has no classification model {name!r}. {nearest(str(name), known)}"
            )
        options: dict[str, Any] = WITHOUT_HEADS.get(name, {})
        self.name, self.classes = name, classes
        self.model = models.get_model(name, weights=None, num_classes=classes, **options)
        out_of_place(self.model)
        self.classifier = (f"model.{class_layer(self.model, classes)}",)
        self.pooled_tap = f"{self.classifier[0]}:in"

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)
        return logits

    @functools.cached_property
    def taps(self) -> tuple[str, ...]:
        """The last module at each size of map, finest first, without the finest of all; found by a dry run without memory.
        Empty where the model has no maps, as transformers."""
        return self.stages[1:]

    @functools.cached_property
    def stem_tap(self) -> str:
        """The last module at the finest size of map; empty where there are no maps."""
        return next(iter(self.stages), "")

    @functools.cached_property
    def stages(self) -> tuple[str, ...]:
        """The paths of `stem_tap` and of `taps`, in one tuple."""
        return find_stages(self.model)


def class_layer(model: nn.Module, classes: int) -> str:
    """The path of the last linear layer or convolution with `classes` outputs."""
    paths = [
        path
        for path, module in model.named_modules()
        if classes in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    return paths[-1]


def find_stages(model: nn.Module) -> tuple[str, ...]:
    """The paths, behind `model.`, of the last module that makes each size of square map, finest first."""
    ghost = copy.deepcopy(model).to(device="meta").eval()
    for module in ghost.modules():  # hooks of the caller must not see this dry run
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    parts = {path: module for path, module in ghost.named_children() if path not in CONTAINERS}
    for path in CONTAINERS:
        container = getattr(ghost, path, None)
        if isinstance(container, nn.Module):
            parts |= {f"{path}.{name}": module for name, module in container.named_children()}
    last: dict[int, str] = {}

    def note(path: str, made: Any) -> None:
        if isinstance(made, Tensor) and made.ndim == 4 and made.shape[2] == made.shape[3] > 1:
            last[int(made.shape[2])] = path

    for path, module in parts.items():
        module.register_forward_hook(lambda _, __, made, path=path: note(path, made))
    with torch.no_grad():
        ghost(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    return tuple(f"model.{last[side]}" for side in sorted(last, reverse=True))
