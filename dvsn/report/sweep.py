"""The report of a sweep in all its forms: text, Markdown, CSV, pictures and a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dvsn.errors import DataError
from dvsn.report import kept, latencies
from dvsn.report.ranking import sections
from dvsn.report.runs import Found


def write(
    found: Found, folder: Path, output: Path, *, teacher: float | None = None, latency: Path | None = None
) -> str:
    """Report what was found below a folder; returns the text.

    `teacher` is the teacher's score where the runs do not know it, `latency` a file that `python -m dvsn.benchmark` wrote.
    Raises `DataError` where there is no finished run that can be read.
    """
    from dvsn.report import sweep_page, sweep_plot, sweep_table  # matplotlib and plotly

    if not found.runs:
        raise DataError(nothing(folder, found))
    if latency is not None:
        found.remarks += latencies.give(found.runs, latency)
    made = sections(found.runs, teacher=teacher)
    page = sweep_page.page(folder.resolve().name, made, found).render()
    files = sweep_plot.pictures(made) | {"report.html": page.encode()}
    return replace(sweep_table.report(made, found), files=files).write(output)


def nothing(folder: Path, found: Found) -> str:
    """Why there is no report."""
    if found.notes:
        more = f" and {len(found.notes) - 1} more like it" if len(found.notes) > 1 else ""
        return f"{folder}: no run below it can be read: {found.notes[0]}{more}"
    return (
        f"{folder}: no finished run below it ({len(found.open)} without a result.json). Expected config.yaml and "
        "result.json, as python -m dvsn.train leaves them."
    )


def write_kept(file: Path, output: Path) -> str:
    """Draw the pictures and the page again from a report.csv whose runs are gone; that file and its texts stay as they are.
    Returns the text."""
    from dvsn.report import sweep_page, sweep_plot, sweep_table
    from dvsn.report.table import write_files

    made, none = kept.read(file), Found()
    page = sweep_page.page(file.resolve().parent.name, made, none).render()
    write_files(output, sweep_plot.pictures(made) | {"report.html": page.encode()})
    return sweep_table.report(made, none).text
