"""`python -m dvsn.convert`: a published checkpoint becomes a dvsn checkpoint."""

from __future__ import annotations

import logging
import sys

from dvsn import command_line
from dvsn.convert.options import COMMAND
from dvsn.reading import unpacking


def main() -> None:
    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        from dvsn.convert.command import convert  # torch, which `--help` does without

        with unpacking(options):
            convert(options)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(command, command=COMMAND)


if __name__ == "__main__":
    main()
