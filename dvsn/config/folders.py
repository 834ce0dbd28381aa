"""Where a run writes: the name of its folder."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from dvsn.config.newest import newest_run


def run_stamp(name: str, resume: str | None) -> str:
    """The folder of a run below its name: new, unless it is to be continued.

    A SLURM job keeps its folder when it is requeued. `resume=auto` takes up the folder with the newest checkpoint that
    is whole, over all of the name; a SLURM job its own, if it has one.
    """
    job = os.environ.get("SLURM_JOB_ID")
    found = newest_run(Path("runs", name), first=f"slurm_{job}") if resume == "auto" else None
    if found is not None:
        return found
    if job:
        return f"slurm_{job}"
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
