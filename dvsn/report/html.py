"""A report as one HTML file that needs no network: sections, tables, pictures, and charts by plotly.

Every text is escaped (jinja2's autoescape): what comes from a file is shown as it is written. The page's policy lets only
its own scripts run, by their hashes, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dvsn.portable.decode import read_rgb
from dvsn.report.table import is_number
from dvsn.version import VERSION

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FOLDER = Path(__file__).parent / "templates"
COLOURS = (
    "#3274c9",
    "#e07b28",
    "#2f9e6e",
    "#c9449a",
    "#8a63d2",
    "#b58900",
    "#17a2b8",
    "#d64545",
    "#7a7a7a",
    "#6b8e23",
)
"""Of curves, in their order; legible on light and on dark paper."""
DASHES = ("solid", "dash", "dot")
"""Of curves, of as many as there are colours each."""
SHORT = 36
"""Letters of a cell that is not broken into lines."""
NOTHING = "–"
"""What a table shows where there is no value."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its value: other words, a bar, a colour."""

    shown: str | Markup
    value: float | str | None = None
    """By which the column is sorted; None: by what is shown."""
    bar: float | None = None
    """The length of a bar below it, in [0, 1]."""
    tone: str = ""
    """`good`, `bad`, `quiet` or nothing."""


@dataclass(frozen=True)
class Encoded:
    """A picture as the bytes of a WebP file, its size in pixels."""

    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading that can be linked to."""

    title: str
    anchor: str
    parts: tuple[Markup, ...]


@dataclass
class Page:
    """A page: a heading, notes about what is missing or odd, and sections with a table of contents."""

    title: str
    subtitle: str = ""
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader has to know about the whole report, such as files that were gone; shown first."""

    def section(self, title: str, *parts: str | Markup, anchor: str | None = None) -> None:
        """Add a section. Plain text among its parts becomes paragraphs, escaped. Empty parts are left out."""
        taken = {each.anchor for each in self.sections} | {"top", "notes"}
        wanted = anchor or slug(title)
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        shown = tuple(part if isinstance(part, Markup) else paragraph(part) for part in parts if part)
        self.sections.append(Section(title, name, shown))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def render(self) -> str:
        """The page as HTML."""
        has_figures = any(MARK in part for section in self.sections for part in section.parts)
        scripts = [
            script((FOLDER / "page.js").read_text(encoding="utf-8"))
        ]  # tables and films work before charts
        scripts += [script(plotly_source())] if has_figures else []
        return environment().get_template("page.html").render(
            page=self, style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")), version=VERSION,
            scripts=scripts, hashes=Markup(" ".join(f"'{each.hash}'" for each in scripts)),
        )  # fmt: skip


@dataclass(frozen=True)
class Script:
    """A script in the page, and the hash by which its policy lets it run."""

    source: Markup
    hash: str


def script(source: str) -> Script:
    text = source.replace("</script", "<\\/script").replace("\r\n", "\n")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")


@cache
def plotly_source() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def environment() -> Environment:
    """Templates of this folder; every value is escaped unless it is Markup, and a name that is not given is an error."""
    found = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return found


def rendered(template: str, **values: Any) -> Markup:
    """A template of `templates/`, filled in."""
    return Markup(environment().get_template(template).render(**values))


# Words ---------------------------------------------------------------------------------------------------


def slug(title: str) -> str:
    """A name for a link: small letters, digits and hyphens."""
    words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in title.lower())
    return "-".join(words.split()) or "section"


def paragraph(text: str, *, quiet: bool = False) -> Markup:
    return Markup('<p class="quiet">{}</p>' if quiet else "<p>{}</p>").format(text)


def code(text: str) -> Markup:
    """Lines as they are typed, such as a command."""
    return Markup('<pre class="code">{}</pre>').format(text)


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def columns(*parts: Markup) -> Markup:
    """Parts side by side where the screen is wide enough."""
    return Markup('<div class="columns">{}</div>').format(
        Markup("").join(Markup("<div>{}</div>").format(p) for p in parts)
    )


def folded(title: str, *parts: Markup) -> Markup:
    """Parts that open with a click on their title."""
    return Markup("<details><summary>{}</summary>{}</details>").format(title, Markup("").join(parts))


def number(value: float | None, digits: int = 4) -> str:
    """A number in `digits` significant digits; a dash for none and for what is not finite."""
    if not is_number(value):
        return NOTHING
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10 ** max(digits, 4) else f"{value:.{digits}g}"


# Tables --------------------------------------------------------------------------------------------------

Value = str | int | float | None | Markup | Cell


def table(names: Sequence[str], rows: Sequence[Sequence[Value]], *, caption: str = "") -> Markup:
    """A table in a box of its own that scrolls. A click on a heading sorts several rows by that column.

    Numbers are aligned to the right; a value of None is a dash, and is last in every order.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    right = [_is_numeric([row[place] for row in rows]) for place in range(len(names))]
    return rendered(
        "table.html",
        names=names,
        rows=cells,
        right=right,
        sortable=len(rows) > 1,
        caption=caption,
    )


def pairs(rows: Sequence[tuple[str, str]]) -> Markup:
    """Names with what they are: a table of two columns without a heading."""
    line = Markup('<tr><th scope="row">{}</th><td>{}</td></tr>')
    lines = Markup("").join(line.format(name, value) for name, value in rows)
    return Markup('<div class="scroll"><table class="pairs"><tbody>{}</tbody></table></div>').format(lines)


def _cell(value: Value) -> dict[str, Any]:
    """What the template needs of a cell: its text, what it is sorted by, its bar in percent and its colour."""
    if isinstance(value, Cell):
        known = value.bar is not None and math.isfinite(value.bar)
        bar = round(100 * min(1.0, max(0.0, value.bar or 0.0)), 1) if known else None
        tone = " ".join(filter(None, [value.tone, _fit(value.shown)]))
        return {"shown": value.shown, "key": _key(value.value), "bar": bar, "tone": tone}
    if value is None:
        return {"shown": NOTHING, "key": "", "bar": None, "tone": ""}
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, str):
        return {"shown": value, "key": None, "bar": None, "tone": _fit(value)}
    return {"shown": number(value), "key": _key(value), "bar": None, "tone": ""}


def _fit(text: str) -> str:
    """Short words stay on one line."""
    return "short" if len(text.striptags() if isinstance(text, Markup) else text) <= SHORT else ""


def _key(value: float | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return repr(float(value)) if is_number(value) else ""


def _is_numeric(values: Sequence[Value]) -> bool:
    found = [value.value if isinstance(value, Cell) else value for value in values]
    known = [value for value in found if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


# Charts --------------------------------------------------------------------------------------------------

MARK = "data-figure"


def figure(
    chart: Figure, *, label: str, height: int = 360, smooth: bool = False, least_width: int | None = None,
    brush: bool = False,
) -> Markup:  # fmt: skip
    """A plotly figure, `height` pixels high and as wide as its place; its colours follow light and dark.

    `label` says what it shows to who cannot see it. With `smooth` it obeys the `controls()` of its section. With
    `least_width` (pixels) it scrolls in a box of its own on screens that are narrower. With `brush` it is one of parallel
    coordinates, whose lines are chosen by a drag along an axis.
    """
    from plotly.io.json import to_json_plotly

    content = chart.to_plotly_json()
    content.get("layout", {}).pop("template", None)
    return rendered(
        "figure.html", content=script_json(to_json_plotly(content)), height=height, label=label, smooth=smooth,
        least_width=least_width, brush=brush,
    )  # fmt: skip


def script_json(content: Any) -> Markup:
    """JSON to stand in a `<script type="application/json">`: no character of it can end the element."""
    text = content if isinstance(content, str) else json.dumps(content, allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def controls() -> Markup:
    """A slider that smooths, and a button for logarithmic axes, for the figures of the section with `smooth`."""
    return rendered("controls.html")


def line(number: int) -> dict[str, Any]:
    """Colour and dashes of the curve with a number, so that the next ones after the last colour look otherwise."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "dash": DASHES[number // len(COLOURS) % len(DASHES)],
        "width": 2,
    }


def axis_title(text: str, *, width: int = 34) -> str:
    """The name of an axis for plotly: escaped, and in lines of at most `width` characters, so that none is cut off."""
    return "<br>".join(map(plain, textwrap.wrap(text, width, break_long_words=False) or [""]))


def plain(text: str) -> str:
    """A text for plotly, which reads some markup in titles and names: its signs are escaped."""
    return str(escape(text))


# Pictures ------------------------------------------------------------------------------------------------


def encode(source: np.ndarray[Any, Any] | Path, *, max_side: int = 800, quality: int = 80) -> Encoded:
    """A picture, (H, W, 3) uint8 RGB or a file, as WebP of `max_side` pixels at most. Raises `DataError` for a file that
    is gone or no picture."""
    from PIL import Image

    picture = Image.fromarray(read_rgb(source) if isinstance(source, Path) else np.ascontiguousarray(source))
    if max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=4)
    return Encoded(stream.getvalue(), *picture.size)


def picture(
    source: np.ndarray[Any, Any] | Path | Encoded, caption: str | Markup = "", *, max_side: int = 800, quality: int = 80,
    anchor: str = "",
) -> Markup:  # fmt: skip
    """A picture with its caption, in the page itself; a click shows it in full size. `anchor` names it for links."""
    shown = source if isinstance(source, Encoded) else encode(source, max_side=max_side, quality=quality)
    words = caption.striptags() if isinstance(caption, Markup) else caption
    return rendered(
        "picture.html", picture=shown, uri=Markup(shown.uri), caption=caption, alt=words, anchor=anchor
    )


def gallery(parts: Sequence[Markup]) -> Markup:
    """Pictures side by side, as many as fit."""
    return Markup('<div class="gallery">{}</div>').format(Markup("").join(parts))


def film(frames: Sequence[tuple[str, Encoded]], *, label: str) -> Markup:
    """Pictures of one size behind each other, with a slider, a button that plays them, and the caption of each."""
    shown = [
        {"caption": caption, "uri": Markup(each.uri), "width": each.width, "height": each.height}
        for caption, each in frames
    ]
    return rendered("film.html", frames=shown, label=label)
