"""The interactive charts of a sweep, by plotly: seeds as dots, score against cost, and the curves of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dvsn.pictures.figures import words
from dvsn.report import curves as curve_files
from dvsn.report.curves import Curves
from dvsn.report.html import COLOURS, plain
from dvsn.report.pareto import Cost, Point
from dvsn.report.ranking import Dot, Row, Section, limits
from dvsn.report.sweep_table import measured, named, spread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GREY, GREEN, RED = "#8a8a8a", "#2f9e6e", "#d64545"
MOST_ROWS = 100
COLOURED = 8
"""So many rows have a colour of their own among the curves; the others are grey."""
SEPARATE = 60
"""Up to so many runs each has a curve of its own; of more, the runs of a colour share one."""


def shown(text: str, most: int = 60) -> str:
    """A name for plotly: shortened, and neither markup nor a formula to it."""
    return plain(words(text, most)).replace("$", "&#36;")


def label(row: Row, most: int = 30) -> str:
    return shown(named(row), most)


# Dots -----------------------------------------------------------------------------------------------------


def dot_plot(section: Section) -> tuple[Figure, int]:
    """Every seed a dot, mean and deviation beside it, and how many pixels high the chart is.

    Collapsed runs are crosses; those that lie beyond the axis, or have no finite score, stand at its edge.
    """
    from plotly import graph_objects as go

    rows = section.rows[:MOST_ROWS]
    low, high = limits(section, rows)
    chart = go.Figure([*spreads(rows), *seeds(rows, low, high)])
    lines = [(section.alone, GREY, "alone"), (section.teacher, GREEN, "teacher")]
    known = [(value, colour, name) for value, colour, name in lines if value is not None]
    for place, (value, colour, name) in enumerate(known):  # each in a line of its own above the rows
        side = "left" if value > (low + high) / 2 else "right"
        chart.add_vline(
            value, line_color=colour, line_width=1.5, annotation_text=f"{name} {value:.4g}",
            annotation_font_color=colour, annotation_position=f"top {side}", annotation_yanchor="bottom",
            annotation_yshift=14 * place,
        )  # fmt: skip
    chart.update_layout(
        margin={"l": 20, "r": 20, "t": 45, "b": 60},
        xaxis={"title": {"text": shown(f"{measured(section.monitor)}, last epoch", 90)}, "range": [low, high]},
        yaxis={
            "tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": [label(row) for row in rows],
            "range": [len(rows) - 0.4, -0.6], "showgrid": False, "zeroline": False, "automargin": True,
        },
        legend={"y": -60 / (24 * len(rows) + 110), "x": 0},
    )  # fmt: skip
    return chart, 24 * len(rows) + 185


def spreads(rows: Sequence[Row]) -> list[Any]:
    """The means, with one deviation to both sides."""
    from plotly import graph_objects as go

    known = [(place, row) for place, row in enumerate(rows) if row.last.mean is not None]
    colours = [RED if row.collapsed else GREY if row.alone else COLOURS[0] for _, row in known]
    return [
        go.Scatter(
            x=[row.last.mean for _, row in known], y=[place for place, _ in known], mode="markers", name="mean, deviation",
            marker={"symbol": "line-ns", "size": 13, "line": {"width": 3, "color": colours}, "color": colours},
            error_x={"type": "data", "array": [row.last.deviation or 0.0 for _, row in known], "thickness": 1.5,
                     "width": 0, "color": COLOURS[0]},
            text=[f"{label(row, 60)}<br>{spread(row.last)}, {row.seeds} seeds{doubt(row)}" for _, row in known],
            hovertemplate="%{text}<extra></extra>",
        )
    ]  # fmt: skip


def doubt(row: Row) -> str:
    return "" if row.comparison is None else f"<br>{plain(row.comparison.reason)}"


def seeds(rows: Sequence[Row], low: float, high: float) -> list[Any]:
    """The runs: dots, and crosses for those that have collapsed, the latter between `low` and `high` in any case."""
    from plotly import graph_objects as go

    inset = 0.012 * (high - low)
    found = []
    for fallen, name, mark in ((False, "a seed", "circle-open"), (True, "collapsed", "x")):
        marks = [
            (place, row, dot)
            for place, row in enumerate(rows)
            for dot in (row.dots or kept_dots(row))
            if bool(dot.collapsed) == fallen
        ]
        if not marks:
            continue
        places = [low if dot.score is None else dot.score for _, _, dot in marks]
        if fallen:
            places = [min(max(place, low + inset), high - inset) for place in places]
        said = [
            f"{label(row, 60)}, {dot.name}<br>{'' if dot.score is None else f'{dot.score:.4f} '}{plain(dot.collapsed)}"
            for _, row, dot in marks
        ]
        found.append(
            go.Scatter(
                x=places, y=[place for place, _, _ in marks], mode="markers", name=name, text=said,
                marker={"symbol": mark, "size": 8, "color": RED if fallen else COLOURS[0], "opacity": 0.8},
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return found


def kept_dots(row: Row) -> tuple[Dot, ...]:
    """Of a row whose single scores were not kept: its mean, where it has collapsed."""
    return (Dot(0, row.last.mean, "by its mean"),) if row.collapsed else ()


# Costs ----------------------------------------------------------------------------------------------------


def cost_plot(section: Section, cost: Cost, points: Sequence[Point]) -> Figure:
    """Score against one cost, with the Pareto front as steps. Its points have their rank in the table or, of several tables,
    numbers from the cheapest on; the legend names them."""
    from plotly import graph_objects as go

    front = [point for point in points if point.front]
    chart = go.Figure(
        go.Scatter(
            x=[point.cost for point in front], y=[point.score for point in front], mode="lines", name="Pareto front",
            line={"color": GREEN, "shape": "hv", "width": 1.5}, hoverinfo="skip",
        )
    )  # fmt: skip
    for number, point in enumerate(front, 1):
        place = point.rank or number
        add_points(chart, [point], f"{place} {shown(point.name, 40)}", GREEN, text=str(place))
    for name, colour in (("others", COLOURS[0]), ("collapsed", RED)):
        add_points(chart, [point for point in points if kind_of(point) == name], name, colour)
    chart.update_layout(
        xaxis={"title": {"text": cost.title}}, yaxis={"title": {"text": shown(measured(section.monitor), 90)}},
        margin={"t": 20, "b": 60, "l": 60, "r": 14},
    )  # fmt: skip
    return chart


def add_points(
    chart: Figure, points: Sequence[Point], name: str, colour: str, text: str | None = None
) -> None:
    if points:
        chart.add_scatter(
            x=[point.cost for point in points], y=[point.score for point in points], name=name, cliponaxis=False,
            mode="markers" if text is None else "markers+text", text=text, textposition="top left", textfont={"size": 12},
            marker={"color": colour, "symbol": "x" if colour == RED else "circle", "size": 9},
            hovertext=[shown(point.name, 80) for point in points],
            hovertemplate="%{hovertext}<br>%{y:.4f} at %{x:.4g}<extra></extra>",
        )  # fmt: skip


def kind_of(point: Point) -> str:
    return "collapsed" if point.collapsed else "on the front" if point.front else "others"


# Curves ---------------------------------------------------------------------------------------------------


def curve_plot(
    rows: Sequence[tuple[str, Sequence[Curves]]], column: str, *, allowed: int
) -> tuple[Figure, bool]:
    """One column of all runs over the steps: the first rows in colours, the rest in grey, behind. `rows` has names with
    the curves of their runs, the best first. Also returns whether each run is a curve of its own, which can be smoothed."""
    from plotly import graph_objects as go

    own = sum(len(runs) for _, runs in rows) <= SEPARATE
    traces = []
    for number, (name, runs) in enumerate(rows):
        colour = COLOURS[number] if number < COLOURED else GREY
        group = name if number < COLOURED else "others"
        parts = [each for each in runs if each.columns.get(column)]
        traces += (
            separate(parts, column, group, colour, allowed)
            if own
            else together(parts, column, group, colour, allowed)
        )
    named = set[str]()
    for trace in traces:
        trace.showlegend = trace.legendgroup not in named
        named.add(trace.legendgroup)
    chart = go.Figure(traces[::-1])  # the best are drawn last
    chart.update_layout(
        xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": shown(column)}}, margin={"t": 20, "b": 60, "l": 60},
        legend={"traceorder": "reversed"},
    )  # fmt: skip
    return chart, own


def separate(runs: Sequence[Curves], column: str, group: str, colour: str, allowed: int) -> list[Any]:
    """A trace a run."""
    from plotly import graph_objects as go

    found = []
    for run in runs:
        points = curve_files.thinned(run.columns[column], allowed)
        found.append(
            go.Scatter(
                x=[step for step, _ in points], y=[rounded(value) for _, value in points], name=shown(group),
                legendgroup=shown(group), text=shown(run.name), line={"color": colour, "width": 1.5},
                mode="lines+markers" if len(points) <= 3 else "lines", opacity=0.35 if colour == GREY else 0.85,
                hovertemplate="%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
            )
        )  # fmt: skip
    return found


def together(runs: Sequence[Curves], column: str, group: str, colour: str, allowed: int) -> list[Any]:
    """One trace for all runs of a row, with a gap between them."""
    from plotly import graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for run in runs:
        points = curve_files.thinned(run.columns[column], allowed)
        x += [*(step for step, _ in points), None]
        y += [*(rounded(value) for _, value in points), None]
        text += [shown(run.name, 24)] * (len(points) + 1)
    if not x:
        return []
    return [
        go.Scatter(
            x=x, y=y, name=shown(group), legendgroup=shown(group), text=text, mode="lines",
            line={"color": colour, "width": 1}, opacity=0.35 if colour == GREY else 0.85, connectgaps=False,
            hovertemplate="%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
        )
    ]  # fmt: skip


def rounded(value: float) -> float:
    """Five significant digits, which a screen shows."""
    return float(f"{value:.5g}")
