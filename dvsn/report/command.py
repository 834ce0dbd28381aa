"""`python -m dvsn.report RUNS`: the runs of a sweep of distillation, or the trials of a search, in one ranked table."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.errors import DataError
from dvsn.report import search_study
from dvsn.report.runs import read_runs, sections

log = logging.getLogger("dvsn")

COMMAND = Command(
    name="report",
    summary="Compare the runs below a folder: methods, seeds, gains, share of the teacher's gap, time and memory; or the\n"
    "trials of a search.",
    options=(
        Option("runs", REQUIRED, "a folder of runs, such as that of a sweep or of a search"),
        Option("output", None, "where report.txt, .csv, .md and .png go; null: into the folder of the runs"),
        Option("teacher", None, "the teacher's score, where the runs do not know it"),
    ),
    examples=(
        "python -m dvsn.report runs/classification_resnet8x4_cifar100",
        "python -m dvsn.report runs/classification_resnet8x4_cifar100/sweep_2026-01-01_12-00-00 teacher=0.794",
    ),
)  # fmt: skip


def report(folder: Path, *, output: Path | None = None, teacher: float | None = None) -> str:
    """Write the report of a sweep or a search as .txt, .csv, .md and .png, and return its text.

    The files are called report, or search for a search, and lie in `output`, by default in `folder`. `teacher` is the
    teacher's score where the runs do not know it. Raises `DataError` where there is no finished run.
    """
    from dvsn.report import search_table, sweep_table  # OpenCV, which `--help` does without

    if not folder.is_dir():
        raise DataError(
            f"{folder}: there is no such folder. Expected one of runs, such as runs/NAME/sweep_DATE_TIME."
        )
    if (folder / search_study.FILE).is_file():
        return search_table.report(search_study.load(folder)).write(output or folder)
    runs, unfinished = read_runs(folder)
    if not runs:
        raise DataError(
            f"{folder}: no finished run below it ({unfinished} without a result.json). Expected config.yaml and result.json."
        )
    return sweep_table.report(sections(runs, teacher=teacher), unfinished).write(output or folder)


def main() -> None:
    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        output = None if options["output"] is None else Path(str(options["output"]))
        sys.stdout.write(report(Path(options["runs"]), output=output, teacher=options["teacher"]))
        name = "search.md" if (Path(options["runs"]) / search_study.FILE).is_file() else "report.md"
        log.info("%s", (output or Path(options["runs"])) / name)

    command_line.run(command, command=COMMAND)


if __name__ == "__main__":
    main()
