"""Two ranks of one run, started as torchrun would start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "support"
"""Where the scripts of a rank are."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """The variables of this process with this tree on the path."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def two_ranks(*configs: dict[str, Any], dies_after: int | None = None) -> None:
    """Both ranks of a run, started as torchrun would; several configs are run one after the other by the same pair."""
    files = []
    for config in configs:
        files.append(Path(config["run_dir"]) / "config.json")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(json.dumps(config))
    start_ranks("processes.py", *map(str, files), dies=dies_after)


def start_ranks(script: str, *arguments: str, dies: int | None = None) -> None:
    """Runs a script of tests/support in two processes; both must succeed, unless they are to die after a step."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }
    if dies is not None:
        shared["DIES_AFTER"] = str(dies)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            env=environment(**shared, LOCAL_RANK=str(rank), RANK=str(rank)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in ranks]
    if dies is None:
        assert [process.returncode for process in ranks] == [0, 0], errors[0][-2000:]
