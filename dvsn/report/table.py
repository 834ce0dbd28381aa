"""Tables of results: as text, Markdown and CSV; and a report, which is written in all its forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.atomic import replacing
from dvsn.report.painter import png


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
        rows = [f"| {' | '.join(line)} |".replace("+-", "±") for line in self.rows]
        return [f"**{self.title}**", "", f"| {' | '.join(self.names)} |", f"{ruler}|", *rows]


@dataclass(frozen=True)
class Report:
    """A report of a sweep or a search, in each of its forms."""

    name: str
    """Of its files, without the ending."""
    text: str
    markdown: str
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Of the CSV file, by column; all rows have the same columns."""
    picture: np.ndarray | None = None
    """(H, W, 3) uint8, RGB; None where there is nothing to draw."""

    def write(self, folder: Path) -> str:
        """Write NAME.txt, .md, .csv and .png, each at once, and return the text."""
        sheet = io.StringIO(newline="")
        writer = csv.DictWriter(sheet, fieldnames=list(self.rows[0]) if self.rows else [])
        writer.writeheader()
        writer.writerows(self.rows)
        contents = {"txt": self.text.encode(), "md": self.markdown.encode(), "csv": sheet.getvalue().encode()}
        if self.picture is not None:
            contents["png"] = png(self.picture)
        folder.mkdir(parents=True, exist_ok=True)
        for ending, content in contents.items():
            with replacing(folder / f"{self.name}.{ending}") as temporary:
                temporary.write_bytes(content)
        return self.text
