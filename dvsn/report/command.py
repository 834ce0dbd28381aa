"""`python -m dvsn.report RUN|SWEEP|SEARCH|RUNS...`: what a run learned and where it fails, and which of several runs won."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dvsn import command_line
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.errors import ConfigError, DataError
from dvsn.reading import unpacking
from dvsn.report import run_folder, search_study
from dvsn.report.run_folder import Folder
from dvsn.report.runs import read_runs

log = logging.getLogger("dvsn")
SPLITS = ("val", "test", "train")

COMMAND = Command(
    name="report",
    summary="Write what a run learned and where it fails as one HTML page; compare a few runs; or rank the runs of a\n"
    "sweep, or the trials of a search.",
    options=(
        Option("runs", REQUIRED, "the folder of a run, of a sweep or of a search; or a few folders of runs, which are set "
               "side by side; or a report.csv of a sweep, which is drawn again", rest=True),
        Option("output", None, "where report.html, .txt, .csv, .md, .png and .svg go; null: into the folder of the run or "
               "runs; of runs side by side, compare.html and so on into the first"),
        Option("evaluation", None, "of a run, the folder whose analysis.json is shown; null: the newest of its evaluations"),
        Option("evaluate", None, "val, test or train: first measure the best checkpoint of each run on this split, and keep "
               "its worst and best pictures"),
        Option("teacher", None, "of a sweep, the teacher's score, where the runs do not know it"),
        Option("latency", None, "of a sweep, file.json of python -m dvsn.benchmark RUNS..., for score against latency"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.report runs/demo/segmentation evaluate=val",
        "python -m dvsn.report runs/demo/segmentation runs/demo/segmentation_wide",
        "python -m dvsn.report runs/classification_resnet8x4_cifar100",
        "python -m dvsn.report runs/classification_resnet8x4_cifar100/sweep_2026-01-01_12-00-00 teacher=0.794",
    ),
)  # fmt: skip

Measure = Callable[[Path, str], None]
"""Evaluates a checkpoint on a split, so that an analysis lies beside it."""


def report(
    *folders: Path, output: Path | None = None, teacher: float | None = None, evaluation: Path | None = None,
    evaluate: Callable[[Path], None] | None = None, latency: Path | None = None,
) -> str:  # fmt: skip
    """Write the report of a run, of a few runs, of a sweep or of a search, and return its text.

    The files are called report; compare for a few runs, search for a search. They lie in `output`, by default in the folder.
    A report.csv in the place of a folder is drawn again. `teacher` is the teacher's score where the runs of a sweep do not
    know it, `latency` a file of `python -m dvsn.benchmark` about them; `evaluation` is the folder of the analysis that is
    shown of a run; `evaluate` measures a checkpoint before, and leaves one. Raises `DataError` where there is no run.
    """
    # pictures and charts, which `--help` does without
    from dvsn.report import compare_page, run_page, search, sweep

    if (teacher, latency) != (None, None) and not may_be_a_sweep(folders):
        raise ConfigError("teacher, latency: are for the report of a sweep. Leave them out.")
    if len(folders) == 1 and folders[0].is_file():
        return sweep.write_kept(folders[0], output or folders[0].parent)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: there is no such folder. Expected one of runs, such as runs/NAME/DATE_TIME."
            )
    if evaluation is not None and not (len(folders) == 1 and run_folder.is_run(folders[0])):
        raise ConfigError(
            "evaluation: is for the report of one run. Leave it out: the newest of each run is taken."
        )
    if evaluate is not None:
        for checkpoint in [checkpoint_of(the_run(folder), folder) for folder in folders]:
            evaluate(checkpoint)
    if len(folders) > 1:
        return compare_page.report([_required(the_run(folder), folder) for folder in folders], output=output)
    (folder,) = folders
    if (folder / search_study.FILE).is_file():
        return search.write(search_study.load(folder), folder, output or folder)
    if run_folder.is_run(folder):
        return run_page.report(folder, output=output, evaluation=evaluation)
    found = read_runs(folder)
    if not found.runs and (run := the_run(folder)) is not None:  # one that has not ended
        return run_page.report(run, output=output)
    return sweep.write(found, folder, output or folder, teacher=teacher, latency=latency)


def may_be_a_sweep(folders: Sequence[Path]) -> bool:
    """Whether this is one folder that is neither a run nor a search."""
    one = folders[0]
    return (
        len(folders) == 1
        and not one.is_file()
        and not run_folder.is_run(one)
        and not (one / search_study.FILE).is_file()
    )


def the_run(folder: Path) -> Path | None:
    """The folder itself if it is a run, else the only run below it."""
    if run_folder.is_run(folder):
        return folder
    below = [file.parent for file in folder.rglob(run_folder.CONFIG)]
    return below[0] if len(below) == 1 else None


def _required(run: Path | None, folder: Path) -> Path:
    if run is None:
        raise DataError(
            f"{folder}: expected the folder of one run, with {run_folder.CONFIG} in it, to set it beside others. Of a sweep "
            "give its folder alone."
        )
    return run


def checkpoint_of(run: Path | None, folder: Path) -> Path:
    """The best checkpoint of a run, else its last."""
    if run is None:
        raise ConfigError(f"evaluate: {folder} is not the folder of one run. Leave evaluate out for a sweep.")
    found = Folder(run).checkpoint
    if found is None:
        raise DataError(
            f"{run / 'checkpoints'}: holds neither best.ckpt nor last.ckpt, so nothing can be evaluated. Leave evaluate out."
        )
    return found


def written(folders: Sequence[Path], output: Path | None) -> Path:
    """The file to open."""
    first = output or (folders[0].parent if folders[0].is_file() else folders[0])
    if len(folders) > 1:
        return (output or the_run(first) or first) / "compare.html"
    name = "search" if (folders[0] / search_study.FILE).is_file() else "report"
    page = first / f"{name}.html"
    return page if page.is_file() else (the_run(folders[0]) or first) / page.name


def run(measure: Measure) -> None:
    """The command. `measure` evaluates, which is of a floor above this one."""

    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        folders = [Path(str(each)) for each in options["runs"]]
        output, evaluation, latency = (
            None if options[key] is None else Path(str(options[key]))
            for key in ("output", "evaluation", "latency")
        )
        split = options["evaluate"]
        if split is not None and split not in SPLITS:
            raise ConfigError(f"evaluate: found {split}, expected one of {', '.join(SPLITS)}, or null.")
        evaluate = None if split is None else lambda checkpoint: measure(checkpoint, split)
        with unpacking(options):
            text = report(
                *folders,
                output=output,
                teacher=options["teacher"],
                evaluation=evaluation,
                evaluate=evaluate,
                latency=latency,
            )
        sys.stdout.write(text)
        log.info("%s", written(folders, output))

    command_line.run(command, command=COMMAND)
