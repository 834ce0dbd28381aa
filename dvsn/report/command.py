"""`python -m dvsn.report RUNS`: the runs of a sweep of distillation, or the trials of a search, in one ranked table."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.errors import DataError
from dvsn.report import search_study

log = logging.getLogger("dvsn")

COMMAND = Command(
    name="report",
    summary="Compare the runs below a folder: methods, seeds, gains, share of the teacher's gap, time and memory; or the\n"
    "trials of a search.",
    options=(
        Option("runs", REQUIRED, "a folder of runs, such as that of a sweep or of a search; or a report.csv that was kept"),
        Option("output", None, "where report.html, .txt, .csv, .md, .png and .svg go; null: into the folder of the runs"),
        Option("teacher", None, "a sweep: the teacher's score, where the runs do not know it"),
        Option("latency", None, "a sweep: file.json of python -m dvsn.benchmark RUNS..., for score against latency"),
    ),
    examples=(
        "python -m dvsn.report runs/classification_resnet8x4_cifar100",
        "python -m dvsn.report runs/classification_resnet8x4_cifar100/sweep_2026-01-01_12-00-00 teacher=0.794",
    ),
)  # fmt: skip


def report(
    folder: Path, *, output: Path | None = None, teacher: float | None = None, latency: Path | None = None
) -> str:
    """Write the report of a sweep or a search as .html, .txt, .csv, .md, .png and .svg, and return its text.

    The files are called report, or search for a search, and lie in `output`, by default in `folder`. A `report.csv` in the
    place of a folder is drawn again. `teacher` is the teacher's score where the runs do not know it, `latency` a file of
    `python -m dvsn.benchmark`. Raises `DataError` where there is no finished run.
    """
    from dvsn.report import search, sweep

    if folder.is_file():
        return sweep.write_kept(folder, output or folder.parent)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder. Expected one of runs, such as runs/NAME/sweep_DATE_TIME."
        )
    if (folder / search_study.FILE).is_file():
        return search.write(search_study.load(folder), folder, output or folder)
    return sweep.write(folder, output or folder, teacher=teacher, latency=latency)


def main() -> None:
    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        runs = Path(str(options["runs"]))
        output, latency = (
            None if options[key] is None else Path(str(options[key])) for key in ("output", "latency")
        )
        sys.stdout.write(report(runs, output=output, teacher=options["teacher"], latency=latency))
        name = "search.html" if (runs / search_study.FILE).is_file() else "report.html"
        log.info("%s", (output or (runs.parent if runs.is_file() else runs)) / name)

    command_line.run(command, command=COMMAND)


if __name__ == "__main__":
    main()
