"""The picture of a comparison: score against latency, a panel a task. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvsn.atomic import replacing
from dvsn.benchmark.compare_table import by_task, where

MARKS = "osD^vP*X<>hd"
SAME = 0.999
"""Back ends whose answers agree on this share have the score of their checkpoint."""


class Point:
    """A row that was timed, and the score that it has: its own, or its checkpoint's where the answers are the same."""

    def __init__(self, group: Mapping[str, Any], row: Mapping[str, Any], label: str) -> None:
        self.name, self.label = str(row["name"]), label
        self.latency = float(row["milliseconds"]["median"])
        self.score: float | None = row.get("score")
        if self.score is None and row.get("same", 0.0) >= SAME:
            self.score = next(
                (each["score"] for each in group["rows"] if each.get("score") is not None), None
            )


def points_of(groups: Sequence[Mapping[str, Any]]) -> list[Point]:
    found = []
    for group in groups:
        for row in group["rows"]:
            if "milliseconds" in row:
                found.append(
                    Point(group, row, "exported file" if row["variant"] == "file" else row["variant"])
                )
    return found


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Writes the picture. A task of which no score is known has its names in the place of scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = by_task(result)
    figure, panels = plt.subplots(
        len(tasks), 1, figsize=(9.5, 0.4 + 4.3 * len(tasks)), squeeze=False, layout="constrained"
    )
    try:
        for panel, (task, groups) in zip(panels[:, 0], tasks.items(), strict=True):
            fill(panel, task, groups, plt.get_cmap("tab10"))
        figure.text(0.005, 0.004, where(result), fontsize=7, color="0.35")
        engine: Any = figure.get_layout_engine()
        engine.set(rect=(0, 0.03, 1, 0.97))
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=130)
    finally:
        plt.close(figure)


def fill(panel: Any, task: str, groups: Sequence[Mapping[str, Any]], colours: Any) -> None:
    """One panel: a colour a name, a mark a back end."""
    points = points_of(groups)
    scored = [point for point in points if point.score is not None]
    names = list(dict.fromkeys(point.name for point in points))
    labels = list(dict.fromkeys(point.label for point in points))
    for point in scored or points:
        height = point.score if scored else names.index(point.name)
        panel.scatter(
            point.latency, height, s=64, marker=MARKS[labels.index(point.label) % len(MARKS)], alpha=0.85,
            color=colours(names.index(point.name) % 10), edgecolors="black", linewidths=0.5, zorder=3,
        )  # fmt: skip
    frame(panel, [point.latency for point in scored or points])
    better = groups[0]["score"]
    if scored:
        panel.set_ylabel(f"{better[0]} on val ({'higher' if better[1] == 'max' else 'lower'} is better)")
        panel.margins(y=0.15)
    else:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(-0.6, len(names) - 0.4)
    left = (
        f"; {len(points) - len(scored)} rows of unknown score left out"
        if scored and len(scored) < len(points)
        else ""
    )
    title = "score against latency" if scored else "latency; no score is known"
    panel.set_title(f"{task}: {title}{left}", fontsize=10, loc="left")
    legend(
        panel, names, labels if not scored else list(dict.fromkeys(p.label for p in scored)), labels, colours
    )


def frame(panel: Any, latencies: Sequence[float]) -> None:
    """A logarithmic axis of milliseconds with numbers that can be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    low, high = min(latencies), max(latencies)
    panel.set_xlim(low / 1.25, high * 1.25)
    steps = (1, 2, 3, 5, 7) if high / low < 8 else (1, 2, 5)
    panel.xaxis.set_major_locator(LogLocator(base=10, subs=steps))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("latency, ms (median)")
    panel.grid(True, which="major", color="0.88", zorder=0)


def legend(
    panel: Any, names: Sequence[str], shown: Sequence[str], labels: Sequence[str], colours: Any
) -> None:
    """Beside the panel: which mark is which back end, which colour which name."""
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"linestyle": "", "color": "0.6", "markeredgecolor": "black"}
    marks = [
        Line2D([], [], marker=MARKS[labels.index(each) % len(MARKS)], label=each, **grey) for each in shown
    ]
    inks = [
        Line2D([], [], linestyle="", color=colours(place % 10), marker="s", markersize=9, label=name)
        for place, name in enumerate(names)
    ]
    panel.legend(
        handles=[*inks, *marks], loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False
    )
