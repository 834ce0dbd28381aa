"""Inference of dense classifiers: whole pictures or windows, at several scales, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError, nearest

Ask = Callable[[Tensor], Tensor]
"""Normalised pictures (N, 3, H, W) -> logits (N, K, h, w)."""


class Inference(NamedTuple):
    """How a picture is classified.

    - `mode`: `whole`, or `slide` for a `window` (H, W) that moves by `stride` (H, W; null: two thirds of the window). The
      last window is shifted back inside the picture.
    - `scales`, `flip`: average over resized and mirrored views.
    - `resize`: the size that a picture is resized to first, bilinearly: (H, W) whatever its shape, or the pixels of its
      shorter side. The answer has the picture's own size. LIP is measured at (473, 473), COCO-Stuff-10k at a shorter
      side of 520. None: pictures as they are.
    """

    mode: Literal["whole", "slide"] = "whole"
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    resize: tuple[int, int] | int | None = None

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """The size (H, W) that the network sees of a picture of this one, at scale 1."""
        if not isinstance(self.resize, int):
            return self.resize or (height, width)
        shorter = min(height, width)
        return (max(1, round(height * self.resize / shorter)), max(1, round(width * self.resize / shorter)))

    @property
    def views(self) -> int:
        return len(self.scales) * (1 + self.flip)


def read_options(options: dict[str, Any] | None, *, path: str = "task.inference") -> Inference:
    """The options of a YAML node. Raises `ConfigError` with the path."""
    given = dict(options or {})
    for key in given:
        if key not in Inference._fields:
            raise ConfigError(f"{path}.{key}: unknown option. {nearest(str(key), Inference._fields)}")
    mode, flip = given.get("mode", "whole"), given.get("flip", False)
    if mode not in ("whole", "slide"):
        raise ConfigError(f"{path}.mode: found {mode!r}, expected whole or slide.")
    if not isinstance(flip, bool):
        raise ConfigError(f"{path}.flip: found {flip!r}, expected true or false.")
    scales = given.get("scales") or [1.0]
    scales = [scales] if isinstance(scales, int | float) else scales
    if not all(isinstance(scale, int | float) and scale > 0 for scale in scales):
        raise ConfigError(f"{path}.scales: found {scales!r}, expected a list of numbers above 0.")
    window, stride = (_size(given.get(key), f"{path}.{key}") for key in ("window", "stride"))
    side = given.get("resize")
    shorter = side if type(side) is int and side > 0 else None
    resize_to = shorter or _size(side, f"{path}.resize", " or one for the shorter side")
    if mode == "slide" and window is None:
        raise ConfigError(f"{path}.window: {path}.mode=slide needs it. Set {path}.window=[HEIGHT,WIDTH].")
    return Inference(mode, window, stride, tuple(float(scale) for scale in scales), flip, resize_to)


def _size(value: Any, path: str, also: str = "") -> tuple[int, int] | None:
    if value is None:
        return None
    pair = [value, value] if type(value) is int else value
    if (
        not isinstance(pair, list | tuple)
        or len(pair) != 2
        or not all(isinstance(v, int) and v > 0 for v in pair)
    ):
        raise ConfigError(
            f"{path}: found {value!r}, expected [HEIGHT, WIDTH], two whole numbers above 0{also}."
        )
    return (pair[0], pair[1])


def resize(logits: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Resize maps (N, C, h, w) to (N, C, H, W), bilinearly and in float32; as they are where the size is right already."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits.float()
    return F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=align_corners)


def windows(size: int, window: int, stride: int) -> list[int]:
    """Where windows start along one side: every `stride`, the last one shifted back inside."""
    if size <= window:
        return [0]
    starts = list(range(0, size - window, stride))
    return [*starts, size - window]


def answers(
    ask: Ask, image: Tensor, options: Inference, *, align_corners: bool, swaps: Sequence[tuple[int, int]] = ()
) -> Iterator[Tensor]:
    """For each picture of normalised (N, 3, H, W), its `scores` (1, K, H, W) at its own size, one after the other.

    A whole view is asked of all pictures together and enlarged a picture at a time, which saves memory; several scales are
    asked of each picture alone.
    """
    if options.scales != (1.0,):
        for picture in image.split(1):
            yield scores(ask, picture, options, align_corners=align_corners, swaps=swaps)
        return
    for small in scores(ask, image, options, align_corners=align_corners, swaps=swaps).split(1):
        yield resize(small, image.shape[-2:], align_corners=align_corners)


def scores(
    ask: Ask, image: Tensor, options: Inference, *, align_corners: bool, swaps: Sequence[tuple[int, int]] = ()
) -> Tensor:
    """Normalised (N, 3, H, W) -> logits of the one view, or the mean of the views' probabilities, (N, K, H, W); of a single
    whole view that is not mirrored at the network's own stride, (N, K, h, w). A mirror exchanges the classes of `swaps`.

    A picture that `options.resize` resizes is asked at that size, and its single view stays there.

    - One scale: logits; a view and its mirror are averaged as logits, as in HRNet's code.
    - Several scales: the mean of their soft-max probabilities. HRNet's code sums exponentials of logits over the scales
      instead, so that the scale with the largest logits decides.
    """
    order: list[int] = list(range(1 + max((max(pair) for pair in swaps), default=-1)))
    for one, other in swaps:
        order[one], order[other] = other, one

    def view(picture: Tensor) -> Tensor:
        logits = _window_logits(ask, picture, options, align_corners)
        if not options.flip:
            return logits
        mirrored = _window_logits(ask, picture.flip(-1), options, align_corners).flip(-1)
        if order:
            mirrored = torch.cat([mirrored[:, order], mirrored[:, len(order) :]], dim=1)
        return (logits + mirrored) / 2

    height, width = image.shape[-2:]
    if options.resize is not None:
        image = resize(image, options.seen(height, width), align_corners=False)  # as OpenCV resizes pictures
    if options.scales == (1.0,):
        return ask(image) if options.mode == "whole" and not options.flip else view(image)
    total: Tensor | None = None
    for scale in options.scales:
        size = (max(1, round(image.shape[-2] * scale)), max(1, round(image.shape[-1] * scale)))
        scaled = image if size == tuple(image.shape[-2:]) else F.interpolate(
            image, size=size, mode="bilinear", align_corners=align_corners
        )  # fmt: skip
        shares = resize(view(scaled), (height, width), align_corners=align_corners).softmax(dim=1)
        total = shares if total is None else total + shares
    assert total is not None
    return total / len(options.scales)


def _window_logits(ask: Ask, image: Tensor, options: Inference, align_corners: bool) -> Tensor:
    """Logits (N, K, H, W) at the picture's size, of the whole or averaged over windows."""
    height, width = image.shape[-2:]
    if options.mode == "whole":
        return resize(ask(image), (height, width), align_corners=align_corners)
    assert options.window is not None
    tall, wide = options.window
    down, across = options.stride or (max(1, tall * 2 // 3), max(1, wide * 2 // 3))
    padded = F.pad(image, (0, max(0, wide - width), 0, max(0, tall - height)))  # with the mean colour
    total: Tensor | None = None
    count = image.new_zeros(1, 1, *padded.shape[-2:], dtype=torch.float32)
    for top in windows(padded.shape[-2], tall, down):
        for left in windows(padded.shape[-1], wide, across):
            part = padded[..., top : top + tall, left : left + wide]
            logits = resize(ask(part), (tall, wide), align_corners=align_corners)
            if total is None:
                total = logits.new_zeros(len(image), logits.shape[1], *padded.shape[-2:])
            total[..., top : top + tall, left : left + wide] += logits
            count[..., top : top + tall, left : left + wide] += 1
    assert total is not None
    return (total / count)[..., :height, :width]
