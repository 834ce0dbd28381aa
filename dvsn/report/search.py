"""The report of a search in all its forms: text, Markdown, CSV, a picture and a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study


def write(study: Study, folder: Path, output: Path) -> str:
    """Report a search whose trials lie in `folder`; returns the text. The files are called search."""
    from dvsn.report import search_page, search_plot, search_table  # matplotlib and plotly

    page = search_page.page(study, folder.resolve()).render()
    files = search_plot.pictures(study) | {"search.html": page.encode()}
    return replace(search_table.report(study), files=files).write(output)
