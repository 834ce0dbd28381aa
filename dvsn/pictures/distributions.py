"""Cumulative distributions of errors as a still picture: which share of the faces has at most which error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dvsn.metrics.ced import cumulative
from dvsn.pictures import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


def picture(errors: Mapping[str, Array], *, limit: float = 0.15) -> Array:
    """(H, W, 3) uint8, RGB: the distributions of errors (N,), as shares of a length, by name, up to `limit`."""
    return figures.pixels(lambda: draw(errors, limit=limit), dpi=100)


def draw(errors: Mapping[str, Array], *, limit: float) -> Figure:
    """A step a face; names without errors stand in the legend alone."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    colours = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, figures.GREY)
    lines = ("-", "--", ":", "-.")
    for number, (name, own) in enumerate(errors.items()):
        places = np.concatenate([[0.0], np.sort(own[own <= limit]), [limit]])
        style = lines[number // len(colours) % len(lines)]
        axes.step(
            100 * places, cumulative(own, places), where="post", color=colours[number % len(colours)], linestyle=style,
            label=figures.words(f"{name} ({len(own)})"),
        )  # fmt: skip
    axes.set_xlim(0, 100 * limit)
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("NME in %")
    axes.set_ylabel("faces with at most this NME")
    axes.grid(color="0.9")
    if errors:
        axes.legend(loc="lower right", frameon=False)
    return figure
