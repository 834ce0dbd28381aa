"""`python -m dvsn.report`: a run, a few runs, a sweep or a search as a page to look at."""

from __future__ import annotations

import logging
from pathlib import Path

from dvsn.errors import CheckpointError, ConfigError
from dvsn.report import command

log = logging.getLogger("dvsn")


def measure(checkpoint: Path, split: str) -> None:
    """Evaluate a checkpoint, with its worst and best pictures and beside the run's teacher, into the folder beside it."""
    from dvsn.evaluate import called  # Hydra and torch, which a report without `evaluate=` does without
    from dvsn.report.run_folder import is_run, read_folder
    from dvsn.report.run_page import WORST, has_teacher

    run = checkpoint.parent.parent
    if is_run(run) and has_teacher(read_folder(run)):
        try:
            called(checkpoint, split=split, worst=WORST, teacher="auto")
            return
        except (CheckpointError, ConfigError) as error:
            # a teacher of other classes, which taught by its features; a task that is not compared
            log.warning("%s The run is measured without it.", error)
    called(checkpoint, split=split, worst=WORST)


def main() -> None:
    command.run(measure)


if __name__ == "__main__":
    main()
