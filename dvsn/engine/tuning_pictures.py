"""The pictures of a search: the loss over the learning rate, and speed and memory over the batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.atomic import replacing
from dvsn.pictures import figures
from dvsn.pictures.figures import BLUE, GREY, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rate_picture(found: Mapping[str, Any], path: Path) -> None:
    """Write the curve of a learning-rate search, with the rate that is suggested and the one of the config."""
    _write(path, lambda: rate_figure(found))


def batch_picture(found: Mapping[str, Any], path: Path) -> None:
    """Write speed and memory of a batch-size search."""
    _write(path, lambda: batch_figure(found))


def _write(path: Path, draw: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = figures.files(draw)["png"]
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def rate_figure(found: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    rates, losses = found["rates"], found["losses"]
    axes.plot(rates, losses, ".", color=GREY, markersize=3, alpha=0.6, label="each step")
    axes.plot(rates, found["smooth"], color=BLUE, linewidth=1.8, label="mean over half a decade")
    if rates:
        figures.logarithmic(axes)
        low, start = min(losses), max(losses[: max(1, len(losses) // 3)])
        room = start - low or 1.0
        axes.set_ylim(low - 0.1 * room, start + 0.6 * room)  # what explodes at the end is cut off
    for name, rate, colour in (("suggested", found["suggested"], RED), ("now", found["now"], GREY)):
        if rate is not None and rates and rates[0] <= rate <= rates[-1]:
            axes.axvline(rate, color=colour, linewidth=1.1, linestyle="--", label=f"{name}: {rate:g}")
    axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("learning rate (optim.lr)")
    axes.set_ylabel("training loss")
    axes.set_title(f"Batches of {found['batch_size']}, {len(rates)} of {found['asked']} steps")
    return figure


def batch_figure(found: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    sizes = [each["batch_size"] for each in found["trials"]]
    speed = [each["images_per_second"] for each in found["trials"]]
    memory = [each["memory_gib"] for each in found["trials"]]
    left.plot(sizes, speed, color=BLUE, marker="o", label="images/s")
    right.plot(sizes, memory, color=ORANGE, marker="s", label="memory")
    left.axvline(found["suggested"], color=RED, linewidth=1.1, linestyle="--")
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    right.spines["right"].set_visible(True)
    left.set_xlabel("batch size (data.batch_size)")
    left.set_ylabel("training images per second", color=BLUE)
    right.set_ylabel("peak memory, GiB", color=ORANGE)
    left.set_title(f"{found['device']}: {found['suggested']} suggested")
    return figure
