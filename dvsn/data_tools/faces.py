"""`python -m dvsn.data faces`: the faces of the embedded street scenes as a WFLW tree."""

from __future__ import annotations

import logging
from typing import Any

from dvsn.data.street import write_wflw
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
COUNTS = ("train", "test", "height", "width")


def job(options: dict[str, Any]) -> dict[str, int]:
    """Writes the tree; how many faces each split has."""
    sizes = {name: options[name] for name in COUNTS}
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: found {value!r}, expected a whole number of 1 or more.")
    counts = write_wflw(options["root"], seed=int(options["seed"]), **sizes)
    for split, count in counts.items():
        log.info("%-6s %d faces", split, count)
    log.info("look       python -m dvsn.data show task=landmarks data=wflw data.root=%s", options["root"])
    return counts
