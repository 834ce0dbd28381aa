"""`python -m dvsn.report`: a run, a few runs, a sweep or a search as a page to look at."""

from __future__ import annotations

from pathlib import Path

from dvsn.report import command


def measure(checkpoint: Path, split: str) -> None:
    """Evaluate a checkpoint, with its worst and best pictures, into the folder beside it."""
    from dvsn.evaluate import called  # Hydra and torch, which a report without `evaluate=` does without
    from dvsn.report.run_page import WORST

    called(checkpoint, split=split, worst=WORST)


def main() -> None:
    command.run(measure)


if __name__ == "__main__":
    main()
