"""A matrix of shares as a still picture, such as a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dvsn.pictures import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
WRITTEN = 40
"""Up to so many classes a side, cells hold their percentage."""
NAMED = 120
"""Up to so many classes a side, rows and columns have their names."""


def picture(shares: Array, names: Sequence[str], *, cell: int = 30) -> Array:
    """(H, W, 3) uint8, RGB, of `shares` (classes, classes) in [0, 1]: white is 0, dark blue 1; NaN is grey.

    Rows are true classes, columns predicted ones. A cell has a side of about `cell` pixels, fewer beyond 40 classes.
    """
    cell = cell if len(names) <= WRITTEN else max(4, 1200 // max(1, len(names)))
    return figures.pixels(lambda: draw(shares, names, cell=cell), dpi=100)


def draw(shares: Array, names: Sequence[str], *, cell: int) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    side = len(names)
    size = (max(3.2, 2.2 + side * cell / 100), max(2.9, 1.9 + side * cell / 100))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["Blues"].with_extremes(bad="0.8")
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0.0, vmax=1.0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    shown = [figures.words(name, 24) for name in names] if side <= NAMED else []
    small = 8.0 if cell >= 16 else max(2.0, 0.5 * cell)
    axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=small)
    axes.set_yticks(range(len(shown)), shown, fontsize=small)
    axes.tick_params(length=0)
    figure.colorbar(
        image, ax=axes, label="share of the true class", fraction=0.045, pad=0.02
    ).outline.set_visible(False)  # type: ignore[operator]
    if side <= WRITTEN:
        write_percentages(axes, shares)
    return figure


def write_percentages(axes: Axes, shares: Array) -> None:
    """Those of half a percent and more."""
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share) and share >= 0.005:
            ink = "white" if share > 0.55 else figures.INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.0, color=ink)
