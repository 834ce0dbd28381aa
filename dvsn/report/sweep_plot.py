"""The still pictures of a sweep: every seed as a dot, and score against cost with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dvsn.pictures import figures
from dvsn.pictures.figures import BLUE, GREEN, GREY, INK, RED, words
from dvsn.report import pareto
from dvsn.report.pareto import Cost, Panel, Point
from dvsn.report.ranking import Row, Section, limits
from dvsn.report.sweep_table import head, measured, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, LINE = 8.6, 0.24  # inches: of a figure, and of a row of the dot plot
MOST_ROWS, MOST_SECTIONS = 60, 8
NAMED = 12
"""Up to so many points of a cost plot have their names; of more, those on the front."""


def pictures(sections: Sequence[Section]) -> dict[str, bytes]:
    """The files of both pictures by name; of costs only where some are known and differ."""
    dots = figures.files(lambda: dot_plot(sections))
    found = {f"report.{ending}": content for ending, content in dots.items()}
    known = pareto.panels(sections)[:MOST_SECTIONS]
    if known:
        costs = figures.files(lambda: cost_plot(known))
        found |= {f"report_cost.{ending}": content for ending, content in costs.items()}
    return found


# Dots -----------------------------------------------------------------------------------------------------


def dot_plot(sections: Sequence[Section]) -> Figure:
    """A panel a section, the best row at its top."""
    from matplotlib.figure import Figure

    shown = sections[:MOST_SECTIONS]
    heights = [LINE * min(len(each.rows), MOST_ROWS) + 0.95 for each in shown]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, section in zip(grid[:, 0], shown, strict=True):
        fill(axes, section)
    if len(sections) > len(shown):
        figure.supxlabel(f"{len(sections) - len(shown)} further settings are in the tables", fontsize=8)
    return figure


def fill(axes: Axes, section: Section) -> None:
    rows = section.rows[:MOST_ROWS]
    low, high = limits(section, rows)
    draw_lines(axes, section, low, high)
    for place, row in enumerate(rows):
        draw_row(axes, row, place, low, high)
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.set_yticks(range(len(rows)), [words(named(row), 40) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(words(head(section), 110), fontsize=9, color=INK)
    left = len(section.rows) - len(rows)
    more = f"; {left} further rows are in the table" if left else ""
    axes.set_xlabel(f"{words(measured(section.monitor), 80)}, last epoch{more}")


def draw_lines(axes: Axes, section: Section, low: float, high: float) -> None:
    """The student alone and the teacher, with their names above the rows."""
    for value, colour, name in ((section.alone, GREY, "alone"), (section.teacher, GREEN, "teacher")):
        if value is not None:
            axes.axvline(value, color=colour, linewidth=1.1, zorder=1)
            right = value > low + 0.85 * (high - low)
            axes.annotate(
                name, (value, 0), xycoords=("data", "axes fraction"), xytext=(-3 if right else 3, 3), color=colour,
                textcoords="offset points", ha="right" if right else "left", fontsize=8,
            )  # fmt: skip


def draw_row(axes: Axes, row: Row, place: int, low: float, high: float) -> None:
    """Dots of the seeds, a bar at the mean, and a line of one deviation to both sides. Collapsed runs are red crosses, at
    the edge with their score where they lie beyond it."""
    colour = GREY if row.alone else BLUE
    mean, deviation = row.last.mean, row.last.deviation
    sound = [dot.score for dot in row.dots if dot.score is not None and not dot.collapsed]
    axes.plot(sound, [place] * len(sound), "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0)
    if mean is not None and not (row.collapsed and not low <= mean <= high):
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.2)
        if deviation is not None:
            axes.plot([mean - deviation, mean + deviation], [place, place], color=colour, linewidth=1.3)
    fallen = [dot.score for dot in row.dots if dot.collapsed] if row.dots else [mean] * bool(row.collapsed)
    inset = 0.012 * (high - low)
    crosses = [
        low + inset if score is None else min(max(score, low + inset), high - inset) for score in fallen
    ]
    axes.plot(crosses, [place] * len(crosses), "x", color=RED, markersize=6, markeredgewidth=1.6, zorder=4)
    if fallen:
        listed = ", ".join("no finite score" if score is None else f"{score:.4g}" for score in fallen[:3])
        right = max(crosses) > low + 0.6 * (high - low)
        axes.annotate(
            f"collapsed: {listed}", (min(crosses) if right else max(crosses), place), xytext=(-8 if right else 8, 0),
            textcoords="offset points", va="center", ha="right" if right else "left", color=RED, fontsize=8,
        )  # fmt: skip
    elif mean is not None:
        said = f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
        axes.annotate(
            said, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=INK, fontsize=8, annotation_clip=False,
        )  # fmt: skip


# Costs ----------------------------------------------------------------------------------------------------


def cost_plot(known: Sequence[Panel]) -> Figure:
    """A row of panels for each arena, a panel for each cost."""
    from matplotlib.figure import Figure

    across = max(len(costs) for _, costs in known)
    figure = Figure(figsize=(max(6.0, 4.6 * across), 3.8 * len(known)), layout="constrained")
    grid = figure.subplots(len(known), across, squeeze=False)
    for line, (arena, costs) in zip(grid, known, strict=True):
        for axes in line[len(costs) :]:
            axes.set_axis_off()
        for axes, (cost, points) in zip(line[: len(costs)], costs, strict=True):
            fill_cost(axes, arena, cost, points)
    return figure


def fill_cost(axes: Axes, arena: Sequence[Section], cost: Cost, points: Sequence[Point]) -> None:
    section = arena[0]
    sound = [point for point in points if not point.collapsed] or list(points)
    best = [point for point in points if point.front]
    axes.plot(
        [p.cost for p in best], [p.score for p in best], color=GREEN, linewidth=1.2, drawstyle="steps-post", zorder=1
    )  # fmt: skip
    for point in points:
        colour = RED if point.collapsed else GREEN if point.front else GREY if point.alone else BLUE
        axes.plot([point.cost], [point.score], "x" if point.collapsed else "o", color=colour, markersize=5)
    low, high = min(p.score for p in sound), max(p.score for p in sound)
    margin = 0.1 * (high - low) or 0.01 * (abs(high) or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.margins(x=0.15)
    if min(p.cost for p in points) > 0 and max(p.cost for p in points) > 20 * min(p.cost for p in points):
        figures.logarithmic(axes)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlabel(cost.title)
    better = "more is better" if section.sign > 0 else "less is better"
    axes.set_ylabel(f"{words(measured(section.monitor), 80)}, {better}")
    name_points(axes, points if len(points) <= NAMED else best)
    beyond = sum(not low - margin <= point.score <= high + margin for point in points)
    unknown = sum(len(section.rows) for section in arena) - len(points)
    notes = [f"{beyond} collapsed beyond the axis"] * bool(beyond) + [f"{unknown} rows unknown"] * bool(
        unknown
    )
    axes.set_title("; ".join(["green: the Pareto front", *notes]), fontsize=8)


def name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside points, the front first; one that would lie on another, or on a point, is left out."""
    per_point = 72 / axes.figure.dpi  # from pixels to typographic points
    places = [axes.transData.transform((point.cost, point.score)) * per_point for point in points]
    taken = [(across - 3, up - 3, across + 3, up + 3) for across, up in places]
    (left, _), (right, _) = axes.transAxes.transform([(0, 0), (1, 0)]) * per_point
    order = sorted(range(len(points)), key=lambda at: (points[at].collapsed, not points[at].front))
    for at in order:
        name, (across, up) = words(points[at].name, 26), places[at]
        wide = 4.2 * len(name)
        for aside, above in ((-4 - wide, 3), (4, -10), (4, 3), (-4 - wide, -10)):
            box = (across + aside, up + above, across + aside + wide, up + above + 8)
            free = not any(b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in taken)
            if free and left < box[0] and box[2] < right:
                taken.append(box)
                axes.annotate(
                    name, (points[at].cost, points[at].score), xytext=(aside, above), textcoords="offset points",
                    fontsize=7,
                )  # fmt: skip
                break
