"""`python -m dvsn.data faces`: the faces of the embedded street scenes as a WFLW tree."""

from __future__ import annotations

import logging
import sys
from typing import Any

from dvsn import command_line
from dvsn.command_line import Command, Option
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
COUNTS = ("train", "test", "height", "width")

COMMAND = Command(
    name="data faces",
    summary="Draw street scenes and write their faces in WFLW's published layout, to try a recipe without its data.",
    options=(
        Option("root", "data/street_faces", "the folder to write, for data=wflw data.root=..."),
        Option("train", 200, "scenes of the training split; one in two or three shows faces"),
        Option("test", 40, "scenes of the test split"),
        Option("height", 1024, "pixels of a scene; faces are 1/25 to 1/12 as high"),
        Option("width", 2048, "pixels of a scene"),
        Option("seed", 0, "other scenes"),
    ),
    examples=(
        "python -m dvsn.data faces root=data/street_faces train=500",
        "python -m dvsn.train task=landmarks data=wflw data.root=data/street_faces data.batch_size=32",
    ),
)  # fmt: skip


def write(options: dict[str, Any]) -> dict[str, int]:
    """Writes the tree; how many faces each split has."""
    from dvsn.data.street import write_wflw

    sizes = {name: options[name] for name in COUNTS}
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: found {value!r}, expected a whole number of 1 or more.")
    counts = write_wflw(options["root"], seed=int(options["seed"]), **sizes)
    for split, count in counts.items():
        log.info("%-6s %d faces", split, count)
    log.info("look       python -m dvsn.data show task=landmarks data=wflw data.root=%s", options["root"])
    return counts


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(lambda: write(COMMAND.parse(sys.argv[1:])), command=COMMAND)


if __name__ == "__main__":
    main()
