"""Losses in float32 whatever the precision of the networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from dvsn.distill.method import View

Step = TypeVar("Step", bound=Callable[..., Any])


def precise(step: Step) -> Step:
    """For `forward` and `initial` of a method: autocast off, and tensors of 16 bits made float32; float64 stays."""

    @functools.wraps(step)
    def run(self: Any, student: View, teacher: View, batch: Any) -> Any:
        seen = (
            teacher.features[0] if teacher.features else teacher.output
        )  # the student's may be empty in a stage
        student, teacher = widened(student), widened(teacher)
        if not torch.is_autocast_enabled(seen.device.type):
            return step(self, student, teacher, batch)
        with torch.autocast(seen.device.type, enabled=False):
            return step(self, student, teacher, batch)

    return cast(Step, run)


NARROW = (torch.float16, torch.bfloat16)


def widened(view: View) -> View:
    for tensor in view.features:
        if tensor.dtype in NARROW:
            break
    else:
        if view.output.dtype not in NARROW:
            return view  # as it nearly always is: the distiller has seen to it
    return View(wide(view.output), tuple(wide(feature) for feature in view.features))


def wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in NARROW else tensor
