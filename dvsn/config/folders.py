"""Where a run writes: the name of its folder."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path


def run_stamp(name: str, resume: str | None) -> str:
    """The folder of a run below its name: new, unless it is to be continued.

    A SLURM job keeps its folder when it is requeued; `resume=auto` takes up the newest folder with a
    checkpoint.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        return f"slurm_{job}"
    if resume == "auto":
        found = [p.parent.parent for p in Path("runs", name).glob("*/checkpoints/*.ckpt")]
        if found:
            return max(found, key=lambda folder: (folder / "checkpoints").stat().st_mtime_ns).name
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
