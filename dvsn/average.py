"""`python -m dvsn.average`: several checkpoints of one network become one, whose weights are their mean."""

from __future__ import annotations

import logging
import sys

from dvsn import command_line
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.config.light_imports import import_lightning
from dvsn.reading import unpacking

COMMAND = Command(
    name="average",
    summary="Average the weights of checkpoints of one network: a model soup.",
    options=(
        Option("checkpoints", REQUIRED, "two or more of one network; with statistics also one alone", rest=True),
        Option("output", "soup.ckpt", "the file to write"),
        Option("method", "uniform", "uniform: all of them; greedy: from the best on, those that do not lower the score of "
                        "val, by the run's monitor"),
        Option("statistics", False, "measure means and variances of batch norms again on the training data: true, or a "
                        "number of batches"),
        Option("root", None, "where the data set lies, if not where it lay in training"),
        Option("batch_size", None, "of the measurement of statistics; null: as in training"),
        Option("workers", None, "processes that load data; null: as in training"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.average a.ckpt b.ckpt output=soup.ckpt statistics=true",
        "python -m dvsn.average a.ckpt b.ckpt c.ckpt output=soup.ckpt method=greedy root=/data/camvid",
    ),
)  # fmt: skip


def main() -> None:
    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        import_lightning()
        from dvsn.engine.soup import average  # Lightning, which `--help` does without

        with unpacking(options):
            average(options)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(command, command=COMMAND)


if __name__ == "__main__":
    main()
