"""Whether a transform is random: whether the picture of an item differs from epoch to epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FIXED = frozenset({
    "AutoContrast", "CenterCrop", "Crop", "Equalize", "FromFloat", "HorizontalFlip", "InvertImg",
    "LongestMaxSize", "MirrorWithSwaps", "NoOp", "Normalize", "Pad", "PadIfNeeded", "Resize", "SmallestMaxSize", "ToFloat",
    "ToGray", "ToRGB", "ToSepia", "Transpose", "VerticalFlip",
})  # fmt: skip
"""Transforms of albumentations that draw nothing but whether they are applied."""

DRAWN = ("half_body", "zoom", "rotation", "shift", "flip", "occlusion")
"""Options of the crops of people, faces and objects that are random above 0; a flip also below 1."""


def random_part(transform: Any) -> str:
    """The name of the first random part of a list of albumentations, or of a transform of people, faces or objects; empty if
    there is none.

    Options are read, nothing is sampled, so a step with a probability of 0.001 counts. An unknown transform counts as random
    unless it has an attribute `random` that is false.
    """
    if isinstance(transform, Sequence):
        return next((found for found in map(random_step, transform) if found), "")
    told = getattr(transform, "random", None)
    if told is not None:
        return type(transform).__name__ if told else ""
    recolour = getattr(transform, "recolour", None)
    if recolour is None:
        return type(transform).__name__
    for name in DRAWN:
        value = getattr(transform, name, 0)
        if value and not (name == "flip" and value == 1):
            return f"{type(transform).__name__} with {name}={value:g}"
    return random_part(list(recolour.steps))


def random_step(step: Any) -> str:
    """The same of one albumentations transform, which may hold others."""
    name, probability = type(step).__name__, float(getattr(step, "p", 1.0))
    if probability == 0:
        return ""
    if probability < 1:
        return f"{name} with p={probability:g}"
    told = getattr(step, "random", None)
    if told is not None:
        return name if told else ""
    if name in ("Compose", "Sequential"):
        return random_part(list(step.transforms))
    if name == "RandomScale" and hasattr(step, "low"):
        return (
            ""
            if step.low == step.high and not step.aspect
            else f"{name} with low={step.low:g}, high={step.high:g}"
        )
    places = getattr(step, "position", "center"), getattr(step, "pad_position", "center")
    sizes = getattr(step, "max_size", None)  # of several one is drawn
    several = isinstance(sizes, Sequence) and len(sizes) > 1
    return "" if name in FIXED and "random" not in places and not several else name
