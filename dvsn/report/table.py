"""Tables of results: as text, Markdown and CSV; and a report, which is written in all its forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from dvsn.atomic import replacing, write_csv

LARGE = 1e300
"""Above it a number of JSON may not be one of a computer."""


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that can be shown: finite, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGE


@dataclass(frozen=True)
class Table:
    """Rows of cells below the names of their columns, with a line above and lines below."""

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[int] = frozenset()
    """Numbers of the columns that are aligned to the left; the others are aligned to the right."""
    notes: Sequence[str] = ()

    def text(self) -> list[str]:
        """Lines for a terminal, in aligned columns."""
        lines = [self.names, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.names))]
        shown = [self.title]
        for line in lines:
            cells = [
                cell.ljust(width) if column in self.left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            shown.append("  " + "  ".join(cells).rstrip())
        return [*shown, *self.notes]

    def markdown(self) -> list[str]:
        """Lines of a Markdown table below its title."""
        ruler = "".join("|---" if column in self.left else "|---:" for column in range(len(self.names)))
        rows = [f"| {' | '.join(map(escaped, line))} |".replace("+-", "±") for line in self.rows]
        return [f"**{escaped(self.title)}**", "", f"| {' | '.join(self.names)} |", f"{ruler}|", *rows]


def escaped(cell: str) -> str:
    """A cell whose text is not read as markup: a name may hold a bar or an angle bracket."""
    return re.sub(r"([|<>`])", r"\\\1", " ".join(cell.split()))


@dataclass(frozen=True)
class Report:
    """A report of a sweep or a search, in each of its forms."""

    name: str
    """Of its files, without the ending."""
    text: str
    markdown: str
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Of the CSV file, by column; all rows have the same columns."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files by name, such as `report.png`."""

    def write(self, folder: Path) -> str:
        """Write NAME.txt, .md, .csv and the further files, each whole or not at all, and return the text."""
        write_csv(folder / f"{self.name}.csv", self.rows)
        texts = {f"{self.name}.txt": self.text.encode(), f"{self.name}.md": self.markdown.encode()}
        write_files(folder, texts | dict(self.files))
        return self.text


def in_words(
    name: str, text: Sequence[str], markdown: Sequence[str], tables: Sequence[Table], notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]], *, last: Sequence[str] = (),
) -> Report:  # fmt: skip
    """A report of lines, then tables, then notes. `last` are lines that only the text ends with."""
    lines, marked = list(text), list(markdown)
    for table in tables:
        lines += ["", *table.text()]
        marked += ["", *table.markdown()]
    if notes:
        lines += ["", *(f"note: {note}" for note in notes)]
        marked += ["", *(f"> {note}" for note in notes)]
    return Report(name, "\n".join([*lines, *last]) + "\n", "\n".join(marked) + "\n", rows)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Files by name, each whole or not at all."""
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
