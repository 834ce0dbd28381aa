"""Of which inputs an exported file is: how many pictures at a time, of which sides."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.export.graph import Graph, Sides, fitting, recipe_sides

USUAL = (256, 256)
"""The sides of an example where nothing says which."""


class Shape(NamedTuple):
    """`batch` and `sides` (height, width) of the input; None: any, which the runtime is told when it is asked."""

    batch: int | None
    sides: Sides | None
    example: Sides
    """The sides that the graph is traced with: the fixed ones, or such as the recipe's."""


def chosen(graph: Graph, *, batch: Any, size: Any, like: Tensor | None = None) -> Shape:
    """The shape by the options `batch` (a number or `dynamic`) and `size` (`recipe`, `dynamic` or HEIGHTxWIDTH). Where the
    sides are free, those of the example are as large as the input `like`.

    Raises `ConfigError` for what the task cannot be asked with.
    """
    task: Any = graph.task
    multiple = int(getattr(task.network, "multiple", 1))
    sides, traced = read_sides(graph, size, recipe_sides(task), multiple)
    if sides is None and like is not None:
        traced = fitting((like.shape[-2], like.shape[-1]), multiple)
    return Shape(read_batch(graph, batch), sides, traced)


def read_batch(graph: Graph, batch: Any) -> int | None:
    text = str(batch)
    if graph.one_at_a_time:
        if text not in ("auto", "1"):
            raise ConfigError(
                f"batch: found {text}, but detectors are exported for one picture at a time. Give batch=1."
            )
        return 1
    if getattr(graph.task, "test_norm", "") == "batch":
        if text not in ("auto", "1"):
            raise ConfigError(
                f"batch: found {text}, but the recipe normalises by the statistics of what is asked together, so every "
                "picture is asked alone. Give batch=1."
            )
        return 1
    if text in ("auto", "dynamic"):
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"batch: found {text}, expected a number of pictures or dynamic.")
    return int(text)


def read_sides(graph: Graph, size: Any, own: Sides | None, multiple: int) -> tuple[Sides | None, Sides]:
    """The fixed sides or None, and those of the example."""
    text = str(size).lower()
    if not graph.any_sides:
        assert own is not None
        if text not in ("recipe", f"{own[0]}x{own[1]}"):
            raise ConfigError(
                f"size: found {size}, but this task sees crops of {own[0]}x{own[1]} (height x width). Leave size out."
            )
        return own, own
    if text == "recipe":
        return own, own or fitting(USUAL, multiple)
    if text == "dynamic":
        return None, fitting(own or USUAL, multiple)
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"size: found '{size}', expected recipe, dynamic or HEIGHTxWIDTH such as 512x1024.")
    sides = (int(parts[0]), int(parts[1]))
    if any(side % multiple for side in sides):
        high = fitting(sides, multiple)
        raise ConfigError(
            f"size: found {text}, but sides must divide by {multiple}. The next that do: size={high[0]}x{high[1]}"
        )
    return sides, sides
