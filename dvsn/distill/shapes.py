"""What methods share about shapes: refusing what cannot be matched, maps of one size, rows of length one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.method import Shape, Side
from dvsn.errors import ConfigError


def tapped(
    name: str, student: Side, teacher: Side, *, maps: bool = False, channels: bool = False, least: int = 1
) -> list[tuple[Shape, Shape]]:
    """The shapes of the pairs of taps: at least `least` of them, maps (C, H, W) if asked, of equal C if asked."""
    where = f"distill.{name}.taps"
    if len(student.features) != len(teacher.features) or len(student.features) < least:
        raise ConfigError(
            f"{where}: found {len(student.features)} of the student and {len(teacher.features)} of the teacher, expected "
            f"{least} or more pairs. List them as [[STUDENT, TEACHER], ...] with module paths of both networks."
        )
    pairs = list(zip(student.features, teacher.features, strict=True))
    for number, (mine, theirs) in enumerate(pairs):
        found = (
            f"{where}: pair {number} is {mine} of the student and {theirs} of the teacher (batch left out)"
        )
        if len(mine) not in (1, 3) or len(theirs) not in (1, 3):
            raise ConfigError(
                f"{found}, expected maps (C, H, W) or vectors (D,). Tap a layer that answers with these."
            )
        if maps and (len(mine) != 3 or len(theirs) != 3):
            raise ConfigError(f"{found}, but {name} compares maps (C, H, W). Tap layers before the pooling.")
    if channels:
        require_equal_channels(name, pairs)
    return pairs


def require_equal_channels(name: str, pairs: Sequence[tuple[Shape, Shape]], otherwise: str = "") -> None:
    """Refuse pairs of unequal channels; `otherwise` is a further way out for the message."""
    for number, (mine, theirs) in enumerate(pairs):
        if mine[0] != theirs[0]:
            raise ConfigError(
                f"distill.{name}.taps: pair {number} is {mine} of the student and {theirs} of the teacher (batch left out), "
                f"but {name} needs equal channels in both. Choose layers of equal width, or a method with a connector or "
                f"without need of one, such as fitnet, at or nst{', ' if otherwise else ''}{otherwise}."
            )


def require_positions(
    name: str, pairs: Sequence[tuple[Shape, Shape]], pool: Callable[[int], int] = lambda side: side
) -> None:
    """Refuse pairs of maps all of which have one position, once the larger is pooled to the smaller and each side is
    pooled by `pool`: a method that compares the positions of a map would be exactly 0."""
    sides = [[pool(min(pair)) for pair in zip(mine[1:], theirs[1:], strict=True)] for mine, theirs in pairs]
    if all(max(each) <= 1 for each in sides):
        mine, theirs = pairs[0]
        raise ConfigError(
            f"distill.{name}.taps: pair 0 is {mine} of the student and {theirs} of the teacher (batch left out), and "
            f"{name} compares the positions of a map with each other, of which there is one here: it would teach nothing. "
            "Tap a finer map, train on larger pictures or pool less."
        )


def same_output(name: str, student: Side, teacher: Side, *, least: int = 1, why: str = "") -> int:
    """How many channels (classes, keypoints, points) both responses have. Raises `ConfigError` where they differ, or are
    fewer than `least`, because of `why`."""
    if not student.output or not teacher.output or student.output[0] != teacher.output[0]:
        raise ConfigError(
            f"distill.{name}: the student answers {student.output}, the teacher {teacher.output} (batch left out), "
            "expected equal first numbers. Choose a teacher of the same classes or keypoints, or a method that looks at "
            "features only, such as at or sp."
        )
    if student.output[0] < least:
        raise ConfigError(f"distill.{name}: with {student.output[0]} classes {why}.")
    return student.output[0]


def as_map(feature: Tensor) -> Tensor:
    """A vector (N, D) as a map of one pixel; maps as they are."""
    return feature if feature.ndim == 4 else feature[:, :, None, None]


def as_map_shape(shape: Shape) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def as_vector(feature: Tensor) -> Tensor:
    """A map averaged over its pixels, (N, C); vectors as they are."""
    return feature.mean(dim=(2, 3)) if feature.ndim == 4 else feature


def pool_to(feature: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling; by the plain kind, which is deterministic on a GPU, where the sizes divide."""
    h, w = feature.shape[-2:]
    if (h, w) == (height, width):
        return feature
    if h % height == 0 and w % width == 0:
        return F.avg_pool2d(feature, (h // height, w // width))
    return F.adaptive_avg_pool2d(feature, (height, width))


def match_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller height and width of both, the larger one average-pooled."""
    height, width = min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1])
    return pool_to(a, height, width), pool_to(b, height, width)


def on_grid(output: Tensor, like: Tensor) -> Tensor:
    """A dense response at the height and width of another one, bilinear (corners not aligned)."""
    if output.shape[-2:] == like.shape[-2:]:
        return output
    return F.interpolate(output, size=like.shape[-2:], mode="bilinear", align_corners=False)


def unit(rows: Tensor, *, added: float = 0.0) -> Tensor:
    """(..., D) rows over their length, plus `added`. A row of zeros stays so and gets no gradient, rather than NaN."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    divisor = length + added if added else length
    if added and not rows.requires_grad:
        return rows / divisor
    return rows / divisor.masked_fill(length == 0, torch.inf)


def summed(terms: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


def nothing(tensor: Tensor) -> Tensor:
    """Zero, with the tensor's graph behind it: for a batch too small to have relations."""
    return (tensor * 0).sum()
