"""The interactive charts of a search, by plotly: history, parallel coordinates, and the score over each option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dvsn.pictures.figures import words
from dvsn.report.html import COLOURS
from dvsn.report.search_plot import Option, running_best
from dvsn.report.search_table import Row
from dvsn.report.sweep_charts import GREEN, GREY, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GROUPS = (("best tenth", GREEN, 2.2), ("best half", COLOURS[0], 1.4), ("the rest", COLOURS[1], 1.0))
"""Of the finished trials by score: name, colour, width of a line."""
PRUNED = "pruned"
MARGIN = {"t": 20, "b": 60, "l": 60, "r": 14}


def grouped(scored: Sequence[Row]) -> dict[str, list[Row]]:
    """Trials with a score by group; `scored` is ranked, the finished ones first. At least one is in the best tenth."""
    done = [row for row in scored if row.state == "finished"]
    tenth, half = max(1, len(done) // 10), max(1, (len(done) + 1) // 2)
    found = {
        "best tenth": done[:tenth], "best half": done[tenth:half], "the rest": done[max(tenth, half) :],
        PRUNED: [row for row in scored if row.state != "finished"],
    }  # fmt: skip
    return {name: rows for name, rows in found.items() if rows}


def described(row: Row) -> str:
    """A trial as it is shown when the mouse is over it."""
    values = "".join(f"<br>{shown(key, 40)} = {shown(value, 40)}" for key, value in row.values.items())
    return f"trial {row.number}, {row.state}: {row.score:.6g}{values}"


def dots(scored: Sequence[Row], places: dict[int, float]) -> list[Any]:
    """A dot a trial at its place, in the colour of its group."""
    from plotly import graph_objects as go

    colours = {name: colour for name, colour, _ in GROUPS} | {PRUNED: GREY}
    found = []
    for name, rows in grouped(scored).items():
        marked = [row for row in rows if row.number in places]
        found.append(
            go.Scatter(
                x=[places[row.number] for row in marked], y=[row.score for row in marked], mode="markers", name=name,
                text=[described(row) for row in marked], hovertemplate="%{text}<extra></extra>",
                marker={"color": colours[name], "size": 8, "symbol": "circle-open" if name == PRUNED else "circle"},
            )
        )  # fmt: skip
    return found


def history(scored: Sequence[Row], *, more: bool, score: str) -> Figure:
    """Scores in the order of the trials, and the best so far."""
    from plotly import graph_objects as go

    numbers, best = running_best(scored, more=more)
    chart = go.Figure(dots(scored, {row.number: float(row.number) for row in scored}))
    chart.add_scatter(
        x=numbers, y=best, mode="lines", name="best so far", line={"shape": "hv", "color": GREEN}, hoverinfo="skip"
    )  # fmt: skip
    chart.update_layout(
        xaxis={"title": {"text": "trial"}}, yaxis={"title": {"text": shown(score)}}, margin=MARGIN
    )
    if len({row.number for row in scored}) <= 10:
        chart.update_layout(xaxis={"tick0": 0, "dtick": 1})  # else there are halves of trials
    return chart


def over(option: Option, scored: Sequence[Row], *, score: str) -> Figure:
    """Scores over one option."""
    from plotly import graph_objects as go

    chart = go.Figure(dots(scored, option.values))
    axis: dict[str, Any] = {
        "title": {"text": shown(option.key)},
        "type": "log" if option.log else "linear",
    }
    if option.choices:
        axis |= {
            "tickmode": "array", "tickvals": list(range(len(option.choices))), "range": [-0.5, len(option.choices) - 0.5],
            "ticktext": [shown(each, 20) for each in option.choices],
        }  # fmt: skip
    chart.update_layout(xaxis=axis, yaxis={"title": {"text": shown(score)}}, margin=MARGIN)
    return chart


# Parallel coordinates -------------------------------------------------------------------------------------


def parallel(searched: Sequence[Option], scored: Sequence[Row], *, score: str) -> Figure:
    """An upright axis for each option and for the score, a line for each trial; a click in the legend hides a group.

    Drawn as lines of an ordinary chart: plotly's own kind needs WebGL and a policy that lets text become a script.
    """
    from plotly import graph_objects as go

    axes = [*searched, score_axis(scored, score)]
    chart = go.Figure()
    styles = {name: (colour, width) for name, colour, width in GROUPS} | {PRUNED: (GREY, 0.7)}
    for name, rows in reversed(list(grouped(scored).items())):  # the best are drawn last
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for row in rows:
            places = [
                height(axis, axis.values[row.number]) if row.number in axis.values else None for axis in axes
            ]
            x += [*map(float, range(len(axes))), None]
            y += [*places, None]
            text += [described(row)] * (len(axes) + 1)
        colour, width = styles[name]
        chart.add_scatter(
            x=x, y=y, text=text, mode="lines+markers", name=name, connectgaps=False, opacity=0.75,
            line={"color": colour, "width": width}, marker={"size": 4}, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    for place, axis in enumerate(axes):
        add_axis(chart, place, axis)
    chart.update_layout(
        xaxis={"range": [-0.35, len(axes) - 0.65], "fixedrange": True, "showgrid": False, "zeroline": False,
               "tickmode": "array", "tickvals": list(range(len(axes))), "ticktext": [shown(axis.key, 24) for axis in axes]},
        yaxis={"range": [-0.06, 1.06], "visible": False, "fixedrange": True}, margin={"t": 40, "b": 60, "l": 20, "r": 20},
        legend={"traceorder": "reversed"}, dragmode=False, uirevision="kept",
    )  # fmt: skip
    return chart


def score_axis(scored: Sequence[Row], score: str) -> Option:
    values = {row.number: row.score for row in scored if row.score is not None}
    return Option(score, False, (), values, (min(values.values()), max(values.values())))


def height(axis: Option, value: float) -> float:
    """Where a value lies on an upright axis from 0 to 1."""
    if axis.choices:
        return value / max(1, len(axis.choices) - 1)
    assert axis.ends is not None
    low, high = axis.ends
    if axis.log and low > 0:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return 0.5 if high == low else (value - low) / (high - low)


def add_axis(chart: Figure, place: int, axis: Option) -> None:
    """The line of an axis, with its choices or its ends and middle."""
    chart.add_shape(
        type="line", x0=place, x1=place, y0=0, y1=1, line={"color": GREY, "width": 1.5}, layer="below"
    )
    for value, text in ticks(axis):
        chart.add_annotation(
            x=place, y=height(axis, value), text=shown(text), showarrow=False, xanchor="left", xshift=5, font={"size": 11},
            bgcolor="rgba(128,128,128,0.18)",
        )  # fmt: skip


def ticks(axis: Option) -> list[tuple[float, str]]:
    if axis.choices:
        return [(float(place), words(each, 16)) for place, each in enumerate(axis.choices)][:20]
    assert axis.ends is not None
    low, high = axis.ends
    middle = math.sqrt(low * high) if axis.log and low > 0 else (low + high) / 2
    return [(value, f"{value:.4g}") for value in dict.fromkeys((low, middle, high))]
