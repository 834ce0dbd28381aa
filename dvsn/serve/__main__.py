"""`python -m dvsn.serve`: checkpoints and exported files over HTTP."""

from __future__ import annotations

import logging
import sys
from typing import Any

from dvsn import command_line
from dvsn.reading import unpacking
from dvsn.serve.options import COMMAND, parse


def serve(options: dict[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM."""
    from dvsn.serve.running import run  # FastAPI and torch, which `--help` does without

    with unpacking(options):
        run(options)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(lambda: serve(parse(sys.argv[1:])), command=COMMAND)


if __name__ == "__main__":
    main()
