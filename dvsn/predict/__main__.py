"""`python -m dvsn.predict`: a checkpoint on pictures, videos and cameras of your own."""

from __future__ import annotations

import logging
import sys

from dvsn import command_line
from dvsn.predict.options import COMMAND


def main() -> None:
    def work() -> None:
        options = COMMAND.parse(sys.argv[1:])
        from dvsn.predict import command  # OpenCV, which `--help` does without

        if command.run(options).skipped.messages:
            raise SystemExit(1)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(work, command=COMMAND)


if __name__ == "__main__":
    main()
