"""What samplers and mixes ask of a task: the loss of each sample of a batch, and labels that can be joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dvsn.data.mixes import BatchMix, CopyPaste
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

VIEWED = ("classification", "segmentation")
"""Tasks of whole pictures, of which a teacher can see another view."""


def item_losses(objective: Callable[[Any, Batch], Terms], output: Any, batch: Batch) -> Tensor:
    """The sum of a task's terms (N,) float32 for each sample alone, without gradients. `output` is the network's answer for
    the batch: a tensor (N, ...), or tuples of such."""
    count = len(batch["index"])
    with torch.no_grad():
        losses = []
        for place in range(count):
            terms = objective(part(output, place, count), part(batch, place, count))
            losses.append(torch.stack([term.float() for term in terms.values()]).sum())
    return torch.stack(losses).detach()


def part(tree: Any, place: int, count: int) -> Any:
    """Of each tensor and list of `count` entries the one at `place`, as a batch of one; all else as it is."""
    if isinstance(tree, Tensor):
        return tree.detach()[place : place + 1] if tree.ndim and len(tree) == count else tree
    if isinstance(tree, Mapping):
        return {key: part(value, place, count) for key, value in tree.items()}
    if isinstance(tree, tuple):
        parts = [part(value, place, count) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree[place : place + 1] if isinstance(tree, list) and len(tree) == count else tree


def require_items(task: Any, data: Any) -> None:
    """Raise `ConfigError` where the sampler of the data learns from losses that the task cannot tell."""
    sampler = getattr(data, "sampler", None)
    if sampler is not None and sampler.reads_losses and not task.tells_items:
        raise ConfigError(
            f"sampler: {type(sampler).__name__} needs the loss of each sample, and task={task.kind} has one of the whole "
            "batch alone. Choose another sampler=..., such as repeat_factor or null."
        )


def require_views(task: Any, data: Any, *, distilled: bool) -> None:
    """Raise `ConfigError` for a second view that nobody sees, and for unlabelled pictures that the task cannot use."""
    strong, unlabelled = getattr(data, "strong", None) is not None, getattr(data, "has_unlabelled", False)
    if not strong and not unlabelled:
        return
    option = "data.strong" if strong else "data.more"
    if not distilled:
        advice = "Set it to null" if strong else "Leave unlabelled: true out"
        raise ConfigError(
            f"{option}: is for a teacher, who tells what the other view, or a picture without label, shows. {advice}, or "
            "set teacher=ema ema=0.99 distill=kd, or pixel_kd of segmentation."
        )
    if task.kind not in VIEWED:
        raise ConfigError(f"{option}: is for {' and '.join(VIEWED)}, found task={task.kind}.")
    if unlabelled and getattr(task.loss, "boundary_options", None) is not None:
        raise ConfigError(
            "data.more: the outlines of unlabelled pictures are not known, and the loss learns them. Set loss=ohem "
            "network.heads=false"
        )


def require_mix(task: Any, data: Any, *, distilled: bool) -> None:
    """Raise `ConfigError` for a mix whose labels the task, or the data set, cannot join."""
    mix = getattr(data, "mix", None)
    if mix is None:
        return
    name = type(mix).__name__
    if task.kind not in mix.tasks:
        raise ConfigError(
            f"mix: {name} joins labels of {' and '.join(mix.tasks)}, found task={task.kind}, whose labels cannot be joined. "
            "Set mix=null."
        )
    if isinstance(mix, BatchMix) and distilled:
        raise ConfigError(
            f"mix: {name} gives a picture two classes, and methods of distillation know one. Set mix=null or distill=none."
        )
    keywords = getattr(data.reader, "keywords", {})
    if isinstance(mix, CopyPaste) and task.kind == "detection" and not keywords.get("masks"):
        raise ConfigError(
            f"mix: {name} needs a mask of each object, and none are read. Set network.detector=mask_rcnn on data that has "
            "masks, or mix=mosaic."
        )
