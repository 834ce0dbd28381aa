"""Inference of dense classifiers: whole pictures or windows, at several scales, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError, nearest
from dvsn.portable.tiling import windows
from dvsn.tasks.sliding import BLENDS, Blend, Piece, slide, spans

__all__ = [
    "Ask", "Inference", "Piece", "Read", "answers", "checked_window", "joined", "pieces", "read_options", "resize", "scores",
    "windows",
]  # fmt: skip

Ask = Callable[[Tensor], Tensor]
"""Normalised pictures (N, 3, H, W) -> logits (N, K, h, w)."""


class Inference(NamedTuple):
    """How a picture is classified.

    - `mode`: `whole`, or `slide` for a `window` (H, W) that moves by `stride` (H, W; null: two thirds of the window). The
      last window is shifted back inside the picture.
    - `blend`: what counts where windows overlap: all the same (`even`, as published), each less towards its border (`ramp`),
      or only that whose centre is nearest (`centre`). See `dvsn.tasks.sliding.spans`.
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
    blend: Blend = "even"

    @property
    def steps(self) -> tuple[int, int]:
        """How far the windows of `slide` move, (H, W)."""
        assert self.window is not None
        return self.stride or (max(1, self.window[0] * 2 // 3), max(1, self.window[1] * 2 // 3))

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
    blend = given.get("blend", "even")
    if blend not in BLENDS:
        raise ConfigError(f"{path}.blend: found {blend!r}. {nearest(str(blend), BLENDS)}")
    if window and stride and (stride[0] > window[0] or stride[1] > window[1]):
        raise ConfigError(
            f"{path}.stride: found {list(stride)} with windows of {list(window)}: between them pixels would be left out. "
            "Expected no more than the window; their difference is the overlap."
        )
    return Inference(mode, window, stride, tuple(float(scale) for scale in scales), flip, resize_to, blend)


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

    - One scale: logits; a view and its mirror are averaged as logits, window by window, as in HRNet's code.
    - Several scales: the mean of their soft-max probabilities. HRNet's code sums exponentials of logits over the scales
      instead, so that the scale with the largest logits decides.
    """
    exchange = _exchange(swaps)

    def view(picture: Tensor) -> Tensor:
        if options.mode == "slide":
            return joined(ask, picture, options, align_corners=align_corners, swaps=swaps)
        size = picture.shape[-2:]
        logits = resize(ask(picture), size, align_corners=align_corners)
        if not options.flip:
            return logits
        mirrored = resize(ask(picture.flip(-1)), size, align_corners=align_corners).flip(-1)
        return (logits + exchange(mirrored)) / 2

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


def _exchange(swaps: Sequence[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
    """What exchanges the classes of `swaps` in logits (N, K, H, W)."""
    order: list[int] = list(range(1 + max((max(pair) for pair in swaps), default=-1)))
    for one, other in swaps:
        order[one], order[other] = other, one
    if not order:
        return lambda logits: logits
    return lambda logits: torch.cat([logits[:, order], logits[:, len(order) :]], dim=1)


# Windows -----------------------------------------------------------------------------------------------

Read = Callable[[int, int, int, int], Tensor]
"""Top, left, height and width of a rectangle that lies in a picture -> its pixels (N, C, height, width)."""


def pieces(
    ask: Ask,
    read: Read,
    size: tuple[int, int],
    options: Inference,
    *,
    align_corners: bool,
    swaps: Sequence[tuple[int, int]] = (),
    together: int = 1,
) -> Iterator[Piece]:
    """The logits of a picture of `size` (H, W) that is read, asked and handed out by windows (`options.mode` is `slide`), at
    one scale: those of `scores`, to the bit, where `together`, the windows that are asked at a time, is 1. `read` gives
    pixels as `ask` takes them.

    A view and its mirror are averaged window by window, as in HRNet's code.
    """
    assert options.window is not None
    tall, wide = options.window
    exchange = _exchange(swaps)
    height, width = size

    def seen(top: int, left: int) -> Tensor:
        part = read(top, left, min(tall, height), min(wide, width))
        return F.pad(part, (0, max(0, wide - width), 0, max(0, tall - height)))  # with the mean colour

    def look(top: int, lefts: Sequence[int]) -> Sequence[Tensor]:
        parts = [seen(top, left) for left in lefts]
        together = torch.cat(parts)
        logits = resize(ask(together), (tall, wide), align_corners=align_corners)
        if options.flip:
            turned = resize(ask(together.flip(-1)), (tall, wide), align_corners=align_corners).flip(-1)
            logits = (logits + exchange(turned)) / 2
        return logits.split(len(parts[0]))

    down, across = options.steps
    rows = spans(max(tall, height), tall, down, options.blend)
    columns = spans(max(wide, width), wide, across, options.blend)
    for piece in slide(look, rows, columns, together=together):
        inside = piece.scores[..., : max(0, height - piece.top), : max(0, width - piece.left)]
        if inside.shape[-2] and inside.shape[-1]:
            yield piece._replace(scores=inside)


def joined(
    ask: Ask,
    image: Tensor,
    options: Inference,
    *,
    align_corners: bool,
    swaps: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """What windows answer (N, K, H, W) of a picture in memory, joined."""
    total: Tensor | None = None

    def read(top: int, left: int, height: int, width: int) -> Tensor:
        return image[..., top : top + height, left : left + width]

    size = (image.shape[-2], image.shape[-1])
    for top, left, part in pieces(ask, read, size, options, align_corners=align_corners, swaps=swaps):
        if total is None:
            total = part.new_empty(*part.shape[:2], *size)
        total[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    assert total is not None
    return total


def checked_window(options: Inference, multiple: int, network: str) -> tuple[int, int]:
    """The window of `slide`, whose sides the network can take. Raises `ConfigError`."""
    assert options.window is not None
    if any(side % multiple for side in options.window):
        fitting = [-(-side // multiple) * multiple for side in options.window]
        raise ConfigError(
            f"inference.window: found {list(options.window)}; {network} needs sides that {multiple} divides. Set "
            f"inference.window={fitting}."
        )
    return options.window
