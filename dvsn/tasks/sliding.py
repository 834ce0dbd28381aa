"""Windows that slide over a picture: where they lie, how their scores are joined, and which part is finished when.

The scores of a window are added to a buffer of what lies under it. What no later window reaches is finished and handed out;
kept are the rows that the next row of windows overlaps, and the columns that the next window does. So a picture that is read
window by window is answered as one that is in memory, to the bit, and its size does not matter to the memory that is
needed, but for the kept rows: (overlap of two rows of windows) x (width of the picture) x classes x 4 bytes. `centre` keeps
none; of `even` the last row of windows may overlap the one before it almost wholly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dvsn.portable.tiling import centres, spread, windows

Blend = Literal["even", "ramp", "centre"]
BLENDS: tuple[Blend, ...] = ("even", "ramp", "centre")


class Span(NamedTuple):
    """A window along one side of a picture, and the part of it whose scores are used."""

    start: int
    """Where the window begins."""
    first: int
    """Where the used part begins."""
    last: int
    """Its end, exclusive."""
    weights: Tensor
    """(last - first,) float32: how much each place counts."""


class Piece(NamedTuple):
    """A finished rectangle."""

    top: int
    left: int
    scores: Tensor
    """(N, K, h, w) float32."""


Look = Callable[[int, Sequence[int]], Sequence[Tensor]]
"""The start of a row of windows and those of some that follow each other in it -> the scores (N, K, H, W) of each."""


def spans(size: int, window: int, stride: int, blend: Blend) -> list[Span]:
    """The windows along one side of `size`, which is no smaller than a window.

    `even`: each window counts the same where they overlap. `ramp`: its weight falls in equal steps over the overlap towards
    its border, and windows are spread evenly, since a last one that is shifted back may overlap almost wholly, which costs
    memory. `centre`: each place is answered by the window whose centre is nearest.
    """
    starts = spread(size, window, stride) if blend == "ramp" else windows(size, window, stride)
    if blend == "centre":
        parts = centres(starts, window, size)
        return [
            Span(start, first, last, torch.ones(last - first))
            for start, (first, last) in zip(starts, parts, strict=True)
        ]
    weights = torch.ones(window)
    if blend == "ramp" and len(starts) > 1:
        inside = torch.arange(window)
        steps = window - starts[1] + 1
        weights = torch.minimum(inside, window - 1 - inside).add(1).clamp(max=steps) / steps
    return [Span(start, start, start + window, weights) for start in starts]


def total_weights(parts: Sequence[Span]) -> Tensor:
    """(size,) the sum of the weights at each place of a side."""
    total = torch.zeros(parts[-1].last)
    for part in parts:
        total[part.first : part.last] += part.weights
    return total


def slide(look: Look, rows: Sequence[Span], columns: Sequence[Span], *, together: int = 1) -> Iterator[Piece]:
    """The finished pieces of a picture: row after row of windows, from left to right; each pixel lies in one piece.

    `together`: how many windows of a row are looked at at a time.
    """
    down, across = total_weights(rows), total_weights(columns)
    least = [other.first for other in rows[1:]] + [rows[-1].last]  # the first row that later windows reach
    most = max(row.last - until for row, until in zip(rows, least, strict=True))
    carried: Tensor | None = None  # sums of rows that earlier windows reach, from the first of this row on
    reached = 0  # how many these are
    for row, until in zip(rows, least, strict=True):
        beside: Tensor | None = None  # sums of columns that the window before has reached
        for place, logits in enumerate(_looked(look, row, columns, together)):
            column = columns[place]
            end = columns[place + 1].first if place + 1 < len(columns) else column.last
            above = None if carried is None else carried[..., :reached, :]
            total = _under(row, column, above, beside, logits)
            done, beside = total[..., : end - column.first], total[..., end - column.first :].clone()
            if until < row.last:
                if carried is None:
                    carried = done.new_empty(*done.shape[:2], most, columns[-1].last)
                carried[..., : row.last - until, column.first : end] = done[..., until - row.first :, :]
            weight = down[row.first : until, None] * across[None, column.first : end]
            scores = done[..., : until - row.first, :].div_(weight.to(done.device))
            yield Piece(row.first, column.first, scores)
        reached = row.last - until


def _looked(look: Look, row: Span, columns: Sequence[Span], together: int) -> Iterator[Tensor]:
    starts = [column.start for column in columns]
    for first in range(0, len(starts), together):
        yield from look(row.start, starts[first : first + together])


def _under(row: Span, column: Span, above: Tensor | None, beside: Tensor | None, logits: Tensor) -> Tensor:
    """The sums (N, K, h, w) under a window, its own scores among them."""
    used = logits[
        ...,
        row.first - row.start : row.last - row.start,
        column.first - column.start : column.last - column.start,
    ]
    total = used.new_zeros(used.shape)
    reached = 0
    if beside is not None:
        reached = beside.shape[-1]
        total[..., :reached] = beside
    if above is not None:
        total[..., : above.shape[-2], reached:] = above[..., column.first + reached : column.last]
    weights = (row.weights[:, None] * column.weights[None]).to(used.device)
    total.addcmul_(used, weights)
    return total
