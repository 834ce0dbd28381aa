"""What methods that change the student share: checks of the class layer, and sizes of maps that divide."""

from __future__ import annotations

from typing import Literal

from dvsn.distill.method import Joint, Shape, Side
from dvsn.distill.taps import INPUT
from dvsn.errors import ConfigError

FITTING = (
    "a network whose class layer is linear and reads the average of its last map: every network of conf/network for small "
    "pictures (resnet8x4, wrn_16_2, vgg8, mobilenetv2_half, shufflenet_v1, shufflenet_v2, resnet50_cifar, ...), and "
    "network=torchvision with resnet18, mobilenet_v2, shufflenet_v2_x1_0, efficientnet_b0, regnet_y_400mf and their like"
)
Steps = tuple[int, int]


def require_joint(name: str, which: Literal["student", "teacher"], side: Side) -> Joint:
    """The joint of a side. Raises `ConfigError` where it has no linear class layer, or its tap is no module's answer."""
    if side.joint is None:
        raise ConfigError(
            f"distill.{name}: the {which} names no class layer that is linear (pooled_tap, or the only one of classifier). "
            f"Expected {FITTING}."
        )
    if side.joint.at.endswith(INPUT):
        raise ConfigError(
            f"distill.{name}.taps: found '{side.joint.at}' of the {which}, an input; expected a module's answer."
        )
    return side.joint


def steps(name: str, student: Shape, teacher: Shape) -> tuple[Steps, Steps]:
    """How many pixels (down, right) of the student's and of the teacher's map (C, H, W) become one, so that both have the
    smaller size. Raises `ConfigError` where the sides do not divide."""
    sides = list(zip(student[1:], teacher[1:], strict=True))
    if any(max(pair) % min(pair) for pair in sides):
        raise ConfigError(
            f"distill.{name}.taps: the maps are {student[1]} x {student[2]} of the student and {teacher[1]} x {teacher[2]} "
            f"of the teacher, and {name} pools whole blocks: expected sides that divide. Choose other taps or "
            "distillation.size."
        )
    down, right = ((max(1, mine // theirs), max(1, theirs // mine)) for mine, theirs in sides)
    return (down[0], right[0]), (down[1], right[1])
