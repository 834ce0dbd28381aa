"""Still pictures by matplotlib: figures without the state of pyplot, whose files are equal for equal content."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
DPI = 130
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "dvsn",  # ids in the file are digests instead of random numbers
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with dollars in it is no formula
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
}
BLUE, ORANGE, GREEN, GREY, RED, INK = "#2f6db5", "#d9822b", "#00813c", "#8a8a8a", "#c23030", "#262626"


def files(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """The PNG and the SVG of the figure that `draw` makes, by ending."""
    found = {}
    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    with plain_style():
        figure = draw()
        for ending, said in metadata.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, dpi=DPI, metadata=said)
            found[ending] = buffer.getvalue()
    return found


def pixels(draw: Callable[[], Figure], *, dpi: int = DPI) -> Array:
    """The figure that `draw` makes as (H, W, 3) uint8, RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with plain_style():
        figure = draw()
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


@contextmanager
def plain_style() -> Iterator[None]:
    """Within it matplotlib draws as this file says, whatever a user's matplotlibrc has."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def logarithmic(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers (matplotlib's own are formulas, which this style does not read)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1,) if high / low > 100 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def words(text: object, most: int = 48) -> str:
    """A name as it can be drawn: one line of printable characters, shortened in its middle."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    line = " ".join(line.split())
    if len(line) <= most:
        return line
    return f"{line[: most // 2]}…{line[len(line) - (most - most // 2 - 1) :]}"
