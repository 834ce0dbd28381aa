"""The file that was written is asked by its own runtime, beside the network that was trained, and both answers compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvsn.errors import CheckpointError
from dvsn.export.formats import Ask
from dvsn.export.graph import Graph, Sides, example, example_inputs, fitting
from dvsn.export.shape import Shape

log = logging.getLogger("dvsn")


class Tolerance(NamedTuple):
    """The largest difference, and the least share of equal or near answers; None: not asked for."""

    difference: float | None
    share: float | None


TOLERANCES: dict[str, dict[str, Tolerance]] = {
    "fp32": {
        "ids": Tolerance(None, 0.999),
        "picture": Tolerance(1 / 255, None),
        "probabilities": Tolerance(1e-4, None),
        "points": Tolerance(0.05, None),
        "confidence": Tolerance(1e-3, None),
        "boxes": Tolerance(0.1, None),
        "labels": Tolerance(None, 1.0),
        "scores": Tolerance(1e-3, None),
        "masks": Tolerance(None, 0.999),
        "logits": Tolerance(1e-2, None),
        "heatmaps": Tolerance(1e-3, None),
    },
    # half the bits of a mantissa: pictures and points move, few decisions change
    "fp16": {
        "ids": Tolerance(None, 0.995), "picture": Tolerance(6 / 255, None), "probabilities": Tolerance(1e-2, None),
        "points": Tolerance(None, 0.99), "confidence": Tolerance(2e-2, None), "logits": Tolerance(None, None),
        "heatmaps": Tolerance(2e-2, None),
    },
    "bf16": {
        "ids": Tolerance(None, 0.98), "picture": Tolerance(24 / 255, None), "probabilities": Tolerance(5e-2, None),
        "points": Tolerance(None, 0.95), "confidence": Tolerance(1e-1, None), "logits": Tolerance(None, None),
        "heatmaps": Tolerance(1e-1, None),
    },
    # 8 bits: the score and the answers on many pictures decide (`drop`, `equal`); this finds a file that is broken
    "int8": {
        "ids": Tolerance(None, 0.8), "picture": Tolerance(None, 0.8), "probabilities": Tolerance(None, 0.9),
        "points": Tolerance(None, 0.8), "boxes": Tolerance(None, 0.5),
    },
}  # fmt: skip
"""By precision and output: what is asked of a file."""

NEAR = {"points": 1.0, "boxes": 2.0, "picture": 16 / 255, "probabilities": 0.1, "masks": 0.5}
"""How near an answer counts as the same in a share: pixels, or units of the output."""


class Difference(NamedTuple):
    """Of one output over all pictures: the largest difference and the share of equal or near answers."""

    output: str
    largest: float
    share: float
    tolerance: Tolerance

    @property
    def holds(self) -> bool:
        wanted = self.tolerance
        return (wanted.difference is None or self.largest <= wanted.difference) and (
            wanted.share is None or self.share >= wanted.share
        )

    def __str__(self) -> str:
        said = f"{self.output}: largest difference {self.largest:.3g}, {self.share:.4%} the same"
        asked = [f"at most {self.tolerance.difference:.3g}"] if self.tolerance.difference is not None else []
        asked += [f"at least {self.tolerance.share:.2%}"] if self.tolerance.share is not None else []
        return f"{said} (asked: {', '.join(asked) or 'nothing'})"


def inputs(graph: Graph, shape: Shape, pictures: Sequence[Tensor]) -> Iterator[Tensor]:
    """What the file is asked about: the pictures, in batches of one and of two where the batch is free, and at two sides
    where the sides are; made-up ones where there are none."""
    multiple, sides = int(getattr(graph.task.network, "multiple", 1)), [shape.example]
    if shape.sides is None:  # as large as the pictures are, and others
        known = (
            fitting((pictures[0].shape[-2], pictures[0].shape[-1]), multiple) if pictures else shape.example
        )
        sides = [known, other_sides(known, multiple)]
    count = shape.batch or 1
    for size in sides:
        shown = [resized(picture, size, ids=graph_takes_ids(graph)) for picture in pictures]
        if not shown:
            shown = [example(graph.task, 1, size, seed=seed)[0] for seed in range(2)]
        for start in range(0, len(shown), count):
            group = shown[start : start + count]
            yield torch.stack((group * count)[:count])
        if shape.batch is None and len(shown) > 1:
            yield torch.stack(shown[:2])


def graph_takes_ids(graph: Graph) -> bool:
    return int(getattr(graph.task, "input_classes", 0)) > 0


def other_sides(sides: Sides, multiple: int) -> Sides:
    """Others than those that were traced: one side longer by a half, one shorter."""
    return fitting((sides[0] * 3 // 2, max(multiple, sides[1] * 3 // 4)), multiple)


def resized(picture: Tensor, size: Sides, *, ids: bool) -> Tensor:
    """uint8 (C, H, W) at other sides; ids stay ids."""
    if tuple(picture.shape[-2:]) == size:
        return picture
    mode = "nearest" if ids else "bilinear"
    moved = torch.nn.functional.interpolate(
        picture[None].float(), size=size, mode=mode, antialias=False, align_corners=None if ids else False
    )
    return moved[0].round().to(torch.uint8)


@torch.no_grad()
def compare(graph: Graph, ask: Ask, images: Iterator[Tensor], precision: str) -> list[Difference]:
    """What differs between the float graph `graph` and the file that `ask` asks, an entry for each output."""
    names = [output.name for output in graph.outputs]
    largest, same, counted = (dict.fromkeys(names, 0.0) for _ in range(3))
    for image in images:
        given = example_inputs(graph, image)
        expected, found = graph(*given), ask(*given)
        for name, one, other in zip(names, *aligned(names, found, expected), strict=True):
            gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
            gap = np.where(np.isnan(gap), np.inf, gap)
            near = gap <= NEAR[name] if name in NEAR else gap == 0 if one.dtype.kind in "iu" else gap <= 1e-3
            largest[name] = max(largest[name], float(gap.max(initial=0)))
            same[name] += float(near.sum())
            counted[name] += near.size
    wanted = TOLERANCES[precision]
    return [
        Difference(
            name, largest[name], same[name] / max(1, counted[name]), wanted.get(name, Tolerance(None, None))
        )
        for name in names
    ]


Arrays = list[np.ndarray[Any, Any]]


def aligned(names: list[str], found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[Arrays, Arrays]:
    """Both answers as arrays of one shape. Of objects, those of the file are put in the order of the expected ones, by
    the overlap of boxes with one label: equal scores may come in any order. An object that is missing differs wholly."""
    have, want = ([np.asarray(each.cpu().numpy()) for each in side] for side in (found, expected))
    if "boxes" not in names:
        return have, want
    boxes, labels = names.index("boxes"), names.index("labels")
    order, taken = [], set()
    for box, label in zip(want[boxes], want[labels], strict=True):
        free = [i for i in range(len(have[boxes])) if i not in taken and have[labels][i] == label]
        best = min(free, key=lambda i: float(np.abs(have[boxes][i] - box).max()), default=None)
        order.append(best)
        taken.add(best)
    extra = [i for i in range(len(have[boxes])) if i not in taken]
    moved = []
    for mine, other in zip(have, want, strict=True):
        nothing = np.full(other.shape[1:] or (), np.inf if other.dtype.kind == "f" else -1, other.dtype)
        rows = [nothing if i is None else mine[i] for i in order] + [mine[i] for i in extra]
        moved.append(np.array(rows, other.dtype).reshape(-1, *other.shape[1:]))
    padded = [np.concatenate([each, np.full((len(extra), *each.shape[1:]), -1, each.dtype)]) for each in want]
    return moved, padded


def require(differences: Sequence[Difference], path: Any, *, parted: str = "") -> None:
    """Say what was found. Raises `CheckpointError` where a tolerance does not hold."""
    for each in differences:
        log.info("check  %s", each)
    broken = [each for each in differences if not each.holds]
    if broken:
        raise CheckpointError(
            f"{path}: the exported file does not answer as the trained network does: {'; '.join(map(str, broken))}."
            f"{parted} The file was not kept."
        )
