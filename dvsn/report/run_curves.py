"""The curves of one run, or of several in the same charts: losses, scores, rates, memory and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from dvsn.report import html
from dvsn.report.run_folder import Folder
from dvsn.report.run_metrics import Metrics, thinned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SYSTEM: dict[str, tuple[tuple[str, ...], str]] = {
    "learning rate": (("system/lr_",), "learning rate"),
    "gradient norm": (("system/gradient_norm",), "norm of the gradient"),
    "images per second": (("system/images_per_second",), "images/s"),
    "memory": (("system/memory_gib", "system/peak_gpu_memory_gib"), "GiB"),
}
"""Charts of the machine: their columns, and the name of the axis."""
SIDE = 330
FEW = 8
"""Up to so many epochs each has a mark on the axis."""


def chart(title: str, axis: str, unit: str = "") -> Figure:
    from plotly.graph_objects import Figure

    found = Figure()
    found.update_layout(
        title={"text": html.plain(title)},
        xaxis={"title": {"text": axis}},
        yaxis={"title": {"text": html.axis_title(unit)}},
    )
    return found


def add(found: Figure, metrics: Metrics, column: str, name: str, *, colour: int = 0) -> None:
    """Add a column of a run as a curve; single points are drawn as such."""
    series = metrics.series[column]
    x, y = thinned(metrics.places(series), series.values)
    few = len(x) <= 40
    found.add_scatter(
        x=x, y=y, name=html.plain(name), mode="lines+markers" if few else "lines",
        line=html.line(colour), marker={"size": 5},
        hovertemplate=f"{metrics.axis} %{{x}}: %{{y:.5g}}",
    )  # fmt: skip


def settle(found: Figure) -> None:
    """Axes that plotly would choose badly: a constant stands between 0 and its double, 0 at the bottom; few epochs have
    whole numbers."""
    y = {value for trace in found.data for value in trace.y if value is not None and math.isfinite(value)}
    if len(y) == 1:
        value = y.pop()
        found.update_layout(yaxis={"range": sorted((0.0, 2 * value)) if value else [0.0, 1.0]})
    x = [value for trace in found.data for value in trace.x]
    if found.layout.xaxis.title.text == "epoch" and x and max(x) - min(x) <= FEW:
        found.update_layout(xaxis={"tick0": 0, "dtick": 1})


def draw(found: Figure, label: str) -> Markup:
    several = len(found.data) > 1
    settle(found)
    found.update_layout(showlegend=several)
    legend = 30 + 20 * max(0, math.ceil(len(found.data) / 3) - 2) if several else 0
    return html.figure(found, height=SIDE + legend, label=label, smooth=True)


def alone(metrics: Metrics, column: str, title: str) -> Markup:
    """A chart of one column."""
    found = chart(title, metrics.axis)
    add(found, metrics, column, title)
    return draw(found, f"{title} by {metrics.axis}")


# One run ---------------------------------------------------------------------------------------------------


def losses(run: Folder) -> list[Markup]:
    """A chart for each term of the loss, weighted as it is trained by. A score of the same name is another quantity."""
    names = run.metrics.names("train/")
    return [alone(run.metrics, column, column.removeprefix("train/")) for column in names]


def scores(run: Folder) -> list[Markup]:
    """The score that the run is judged by, with its best; the others between 0 and 1 together; each further one alone."""
    metrics, monitor = run.metrics, run.monitor
    names = metrics.names("val/")
    unmeasured = [name for name in names if set(metrics.series[name].values) == {-1.0}]
    names = [name for name in names if name not in unmeasured]
    drawn = []
    if monitor in metrics.names(""):
        names = [name for name in names if name != monitor]
        drawn.append(_judged(run, str(monitor)))
    shares = [name for name in names if all(0 <= value <= 1 for value in metrics.series[name].finite)]
    if shares:
        found = chart("other scores" if drawn else "scores", metrics.axis)
        for number, name in enumerate(shares):
            add(found, metrics, name, name.removeprefix("val/"), colour=number)
        drawn.append(draw(found, "scores in validation"))
    drawn += [alone(metrics, name, name.removeprefix("val/")) for name in names if name not in shares]
    if unmeasured:
        listed = ", ".join(name.removeprefix("val/") for name in unmeasured)
        drawn.append(html.paragraph(f"Nothing to measure (-1 in all validations): {listed}.", quiet=True))
    return drawn


def _judged(run: Folder, monitor: str) -> Markup:
    metrics, series = run.metrics, run.metrics.series[monitor]
    found = chart(monitor.removeprefix("val/"), metrics.axis)
    add(found, metrics, monitor, monitor.removeprefix("val/"))
    best = best_place(run)
    if best is not None:
        x, y = metrics.places(series)[best], series.values[best]
        found.add_scatter(
            x=[x], y=[y], mode="markers", name=f"best: {html.number(y)}",
            marker={"size": 12, "symbol": "star", "color": html.COLOURS[1]},
            hovertemplate=f"best, {metrics.axis} %{{x}}: %{{y:.5g}}",
        )  # fmt: skip
    return draw(found, f"{monitor} by {metrics.axis}")


def best_place(run: Folder) -> int | None:
    """Which value of the score is the best one."""
    series = run.metrics.series.get(run.monitor or "")
    if series is None:
        return None
    known = [number for number, value in enumerate(series.values) if math.isfinite(value)]
    return max(known, key=lambda number: run.sign * series.values[number], default=None)


def system(run: Folder) -> list[Markup]:
    """Learning rate, gradient norm, speed, memory, and where the time of each epoch went."""
    metrics, drawn = run.metrics, []
    shown: set[str] = set()
    for title, (starts, unit) in SYSTEM.items():
        names = [name for name in metrics.names("system/") if name.startswith(starts)]
        shown |= set(names)
        if not names:
            continue
        found = chart(title, metrics.axis, unit)
        for number, name in enumerate(names):
            add(found, metrics, name, spoken(name), colour=number)
        drawn.append(draw(found, f"{title} by {metrics.axis}"))
    drawn += [alone(metrics, name, spoken(name)) for name in metrics.names("system/") if name not in shown]
    times = metrics.names("time/")
    if times:
        drawn.append(_times(metrics, times))
    return drawn


def spoken(column: str) -> str:
    """The name of a column in words: `system/lr_network` is `network`, for its learning rate."""
    return column.rpartition("/")[2].removeprefix("lr_").replace("_", " ")


def _times(metrics: Metrics, names: Sequence[str]) -> Markup:
    """Seconds of each epoch by part, stacked."""
    found = chart("time of an epoch", metrics.axis, "seconds")
    for number, name in enumerate(names):
        series = metrics.series[name]
        x, y = thinned(metrics.places(series), series.values)
        found.add_bar(
            x=x, y=y, name=html.plain(spoken(name)), marker={"color": html.COLOURS[number % len(html.COLOURS)]},
            hovertemplate=f"{metrics.axis} %{{x}}: %{{y:.4g}} s",
        )  # fmt: skip
    settle(found)
    found.update_layout(barmode="stack", showlegend=True)
    return html.figure(found, height=SIDE + 30, label="seconds of each epoch by part")


# Several runs ----------------------------------------------------------------------------------------------


def together(runs: Sequence[Folder], names: Sequence[str]) -> dict[str, list[Markup]]:
    """Charts of the columns of all runs, a colour a run: `scores`, `losses`, `system`. Each first has what runs share."""
    groups: dict[str, list[Markup]] = {"scores": [], "losses": [], "system": []}
    columns: dict[str, int] = {}
    for run in runs:
        for name in run.metrics.names(""):
            columns[name] = columns.get(name, 0) + 1
    monitors = {run.monitor for run in runs}
    order = sorted(columns, key=lambda name: (name not in monitors, -columns[name]))
    parts = {"val": "scores", "train": "losses"}
    for column in order:
        having = [(number, run) for number, run in enumerate(runs) if column in run.metrics.names("")]
        axes = {run.metrics.axis for _, run in having}
        found = chart(column, " or ".join(sorted(axes)))
        for number, run in having:
            add(found, run.metrics, column, names[number], colour=number)
        settle(found)
        found.update_layout(showlegend=True)
        groups[parts.get(column.partition("/")[0], "system")].append(
            html.figure(
                found,
                height=SIDE + 30 + 20 * len(having),
                label=f"{column} of {len(having)} runs",
                smooth=True,
            )
        )
    return groups
