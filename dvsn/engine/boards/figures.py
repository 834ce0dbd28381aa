"""Charts and matrices as pictures, for loggers that have no plots of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dvsn.analysis.record import Chart, Matrix
from dvsn.pictures import figures, matrices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
LISTED = 20
"""Curves up to which a chart has a legend."""


def chart_picture(chart: Chart) -> Array:
    """RGB (H, W, 3) uint8: curves, steps or bars with axes and a legend."""
    return figures.pixels(lambda: draw_chart(chart), dpi=100)


def draw_chart(chart: Chart) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(chart.curves):
        y = np.array([np.nan if each is None else each for each in curve.y], np.float64)
        if chart.kind == "bars":
            width = 0.8 / len(chart.curves)
            axes.bar(np.arange(len(y)) + width * number, y, width, label=figures.words(curve.name))
            names = [figures.words(x, 24) for x in curve.x]
            axes.set_xlim(-0.5, len(y) + 0.3)
            axes.set_xticks(np.arange(len(y)) + 0.4 - width / 2, names, rotation=60, ha="right")
        else:
            x = np.array(curve.x, np.float64)
            style = "steps-post" if chart.kind == "steps" else "default"
            axes.plot(x, y, label=figures.words(curve.name), drawstyle=style)
    if chart.diagonal and chart.kind != "bars":
        axes.plot([0, 1], [0, 1], color=figures.GREY, linestyle="--")
    if 1 < len(chart.curves) <= LISTED:
        axes.legend(fontsize=8)
    axes.set_title(figures.words(chart.title))
    axes.set_xlabel(figures.words(chart.x))
    axes.set_ylabel(figures.words(chart.y))
    return figure


def matrix_picture(matrix: Matrix) -> Array:
    """RGB (H, W, 3) uint8: each row as shares of its true class. What has no row or no column of its own, such as `missed`,
    gets one that is grey or empty."""
    names = list(dict.fromkeys([*matrix.rows, *matrix.columns]))
    places = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    rows, columns = [places[each] for each in matrix.rows], [places[each] for each in matrix.columns]
    np.add.at(
        counts, np.ix_(rows, columns), np.array(matrix.counts, np.float64).reshape(len(rows), len(columns))
    )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return matrices.picture(shares, names)
