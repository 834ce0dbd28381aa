"""Charts and matrices as pictures, for loggers that have no plots of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from dvsn.analysis.record import Chart, Matrix

Array = np.ndarray[Any, Any]
MANY = 25
"""Classes of a matrix from which on its cells hold no numbers."""


def chart_picture(chart: Chart) -> Array:
    """RGB (H, W, 3) uint8: curves, steps or bars with axes and a legend."""
    figure, axes = blank(7.0, 4.5)
    for number, curve in enumerate(chart.curves):
        y = [np.nan if each is None else each for each in curve.y]
        if chart.kind == "bars":
            width = 0.8 / len(chart.curves)
            places = np.arange(len(y)) + width * number
            axes.bar(places, y, width, label=plain(curve.name))
            axes.set_xticks(
                np.arange(len(y)) + 0.4 - width / 2, [plain(str(x)) for x in curve.x], rotation=60, ha="right"
            )
        else:
            axes.plot(
                curve.x,
                y,
                label=plain(curve.name),
                drawstyle="steps-post" if chart.kind == "steps" else "default",
            )
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--")
    if 1 < len(chart.curves) <= MANY:
        axes.legend(fontsize=8)
    axes.set(title=plain(chart.title), xlabel=plain(chart.x), ylabel=plain(chart.y))
    return drawn(figure)


def matrix_picture(matrix: Matrix) -> Array:
    """RGB (H, W, 3) uint8: each row as shares of its true class, with the share in the cell where there are few classes."""
    counts = np.array(matrix.counts, np.float64).reshape(len(matrix.rows), len(matrix.columns))
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    side = min(14.0, 3.0 + 0.42 * max(counts.shape))
    figure, axes = blank(side + 1, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(counts.shape[1]), [plain(each) for each in matrix.columns], rotation=90, fontsize=8)
    axes.set_yticks(range(counts.shape[0]), [plain(each) for each in matrix.rows], fontsize=8)
    if max(counts.shape) <= MANY:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if share > 0.5 else "black")  # fmt: skip
    axes.set(title=f"{plain(matrix.title)}, % of the true class", xlabel="predicted", ylabel="true")
    return drawn(figure)


def blank(width: float, height: float) -> Any:
    """A figure of so many inches and its axes, without a window or a state of matplotlib's own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def drawn(figure: Any) -> Array:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
