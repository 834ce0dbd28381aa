"""The report of a sweep in all its forms: text, Markdown, CSV, pictures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dvsn.errors import DataError
from dvsn.report import kept, latencies
from dvsn.report.ranking import sections
from dvsn.report.runs import Found, read_runs

if TYPE_CHECKING:
    from dvsn.report.table import Report


def write(folder: Path, output: Path, *, teacher: float | None = None, latency: Path | None = None) -> str:
    """Report the runs below a folder; returns the text.

    `teacher` is the teacher's score where the runs do not know it, `latency` a file that `python -m dvsn.benchmark` wrote.
    Raises `DataError` where there is no finished run.
    """
    from dvsn.report import sweep_page, sweep_plot, sweep_table

    found = read_runs(folder)
    if not found.runs:
        raise DataError(nothing(folder, found))
    if latency is not None:
        found.notes_of_report += latencies.give(found.runs, latency)
    made = sections(found.runs, teacher=teacher)
    report = sweep_table.report(made, found)
    page = sweep_page.page(folder.resolve().name, made, found)
    return complete(report, sweep_plot.pictures(made), page).write(output)


def write_kept(file: Path, output: Path) -> str:
    """Draw the pictures and the page again from a report.csv whose runs are gone; that file and its texts stay."""
    from dvsn.report import sweep_page, sweep_plot, sweep_table

    made = kept.read(file)
    text = sweep_table.report(made, Found()).text
    page = sweep_page.page(file.resolve().parent.name, made, Found())
    write_files(output, sweep_plot.pictures(made) | {"report.html": page})
    return text
