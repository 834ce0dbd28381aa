"""The published checkpoints that dvsn reads: entries of `zoo.yaml`, and the two lines that convert and measure each."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvsn.errors import ConfigError, nearest

FILE = Path(__file__).with_name("zoo.yaml")
UNKNOWN = "not stated"


@dataclass(frozen=True)
class Family:
    """What files have in common: their authors, where they are offered and under which licence."""

    family: str
    task: str
    authors: str
    offered: str
    licence: str | None
    licence_from: str
    source: str


@dataclass(frozen=True)
class Entry:
    """One published checkpoint. `score` is in the unit of the table it was read in: percent."""

    name: str
    of: Family
    file: str
    metric: str | None
    score: float | None
    called: str = "published"
    protocol: str | None = None
    convert: tuple[str, ...] = ()
    evaluate: tuple[str, ...] | None = None
    why: str = ""
    note: str = ""

    @property
    def checkpoint(self) -> str:
        return f"{self.name}.ckpt"

    def convert_words(self, file: str | None = None, checkpoint: str | None = None) -> list[str]:
        """The words of the line that converts the file."""
        given = [f"source={file}", f"output={checkpoint}"] if file else [self.file, self.checkpoint]
        return ["python", "-m", "dvsn.convert", *given, *self.convert]

    def evaluate_words(self, checkpoint: str | None = None) -> list[str] | None:
        """The words of the line that measures it; None where there is nothing to measure it on."""
        if self.evaluate is None:
            return None
        return [
            "python", "-m", "dvsn.evaluate", f"checkpoint={checkpoint or self.checkpoint}", *self.evaluate
        ]  # fmt: skip

    def lines(self) -> list[str]:
        """The line that converts it, and the line that measures it where there is one, as a shell takes them."""
        both = (self.convert_words(), self.evaluate_words())
        return [shlex.join(words) for words in both if words is not None]

    def published(self) -> str:
        """The published score, in words."""
        return UNKNOWN if self.score is None else f"{self.metric} {self.score:g}"


@functools.cache
def entries() -> dict[str, Entry]:
    """Every entry by its name, in the order of the file."""
    import yaml

    found: dict[str, Entry] = {}
    for node in yaml.safe_load(FILE.read_text(encoding="utf-8")):
        files = node.pop("files")
        family = Family(**node)
        for name, fields in files.items():
            lists = {key: tuple(fields[key]) for key in ("convert", "evaluate") if fields.get(key)}
            found[name] = Entry(name=name, of=family, **(fields | lists))
    return found


def find(name: str) -> Entry:
    """The entry of this name. Raises `ConfigError`."""
    known = entries()
    if name not in known:
        near = nearest(name, known)
        raise ConfigError(
            f"{name}: no such checkpoint. {near} `python -m dvsn.zoo` lists them.".replace("  ", " ")
        )
    return known[name]


def families() -> Iterator[tuple[Family, list[Entry]]]:
    """The families with their entries."""
    found: dict[str, list[Entry]] = {}
    for entry in entries().values():
        found.setdefault(entry.of.family, []).append(entry)
    for group in found.values():
        yield group[0].of, group


# What is said of them ------------------------------------------------------------------------------------

HEAD = """# Published checkpoints

Files of other projects that `python -m dvsn.convert` reads. dvsn ships none of them and downloads none by itself: get a file
from where its authors offer it, under their licence, then run the two lines. The first writes a dvsn checkpoint, the second
measures it. `python -m dvsn.zoo verify NAME` runs both and compares with the published score.

**None of these files was at hand when dvsn was written.** The converters are tested with the published lists of names and
shapes, filled with numbers made up for the test, against independent code of the same networks. So no score below was
measured here: each is its authors' own, or that of the table named beside it, in percent. It has the name that
`python -m dvsn.evaluate` gives it. If `verify` finds another one, please say so.
"""


def page() -> str:
    """docs/zoo.md: every entry with its source, licence, published score, protocol and lines."""
    parts = [HEAD]
    for family, group in families():
        licence = family.licence or UNKNOWN
        parts.append(
            f"## {family.family}\n\n"
            f"*{family.task}*, by {family.authors}.\n\n"
            f"- Offered at {linked(family.offered)}\n"
            f"- Licence: {licence} ({family.licence_from})\n"
            f"- Scores from: {family.source}\n"
        )
        rows = ["| name | published score | protocol |", "|---|---|---|"]
        rows += [
            f"| `{entry.name}` | {entry.published()} | {'; '.join(filter(None, (entry.protocol, entry.note)))} |"
            for entry in group
        ]
        parts.append("\n".join(rows) + "\n")
        for entry in group:
            said = (
                f"`{entry.name}`: the file is not published under this name; save it so."
                if entry.called == "here"
                else f"`{entry.name}`:"
            )
            missing = f"\n\nNot measured: {entry.why}." if entry.evaluate is None else ""
            lines = "\n".join(f"    {line}" for line in entry.lines())
            parts.append(f"{said}\n\n{lines}{missing}\n")
    return "\n".join(parts)


def linked(text: str) -> str:
    """A text that starts with an address, with the address as a link."""
    address, _, rest = text.partition(" ")
    return f"<{address}>{' ' + rest if rest else ''}"


def told(entry: Entry) -> str:
    """One entry for the screen."""
    family = entry.of
    rows: dict[str, Any] = {
        "task": family.task,
        "authors": family.authors,
        "offered": family.offered,
        "licence": f"{family.licence or UNKNOWN} ({family.licence_from})",
        "file": entry.file + (" (save it under this name)" if entry.called == "here" else ""),
        "published": entry.published() + (f" ({entry.protocol}; {family.source})" if entry.protocol else ""),
        "note": "; ".join(filter(None, (entry.note, entry.why and f"not measured: {entry.why}"))),
        "at hand": "never; its layout is tested by its list of names and shapes",
    }
    head = "\n".join(f"{key:<10} {value}" for key, value in rows.items() if value)
    return f"{entry.name}\n{head}\n\n" + "\n".join(f"  {line}" for line in entry.lines()) + "\n"
