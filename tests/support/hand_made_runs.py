"""Folders of runs as a sweep leaves them, written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml


def write_run(
    root: Path,
    number: int | str,
    method: str | None,
    score: float,
    *,
    seed: int = 0,
    mode: str = "max",
    monitor: str = "val/top1",
    overrides: list[str] | None = None,
    steps: int = 0,
    result: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run of `method` with that last score; with `steps` it has a metrics.csv of so many rows."""
    folder = root / str(number)
    folder.mkdir(parents=True)
    chosen = {} if method is None else {method: {"weight": 0.5, "method": {}}}
    config = {
        "seed": seed, "monitor": {"name": monitor, "mode": mode}, "network": {"depth": 8}, "data": {"seed": seed},
        "teacher": "t.ckpt", "distill": chosen, **changes,
    }  # fmt: skip
    found = {
        "metrics": {monitor: score}, "best": score + 0.01, "epoch_seconds": 2.0, "peak_memory_bytes": 2**20 * 100,
        "teacher_score": None if method is None else 0.8, **(result or {}),
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text(json.dumps(found))
    if overrides is not None:
        (folder / "job.json").write_text(json.dumps({"overrides": overrides}))
    if steps:
        write_metrics(folder, monitor, score, steps)
    return folder


def write_metrics(folder: Path, monitor: str, score: float, steps: int) -> None:
    """A loss that falls in each row, and a score that rises to `score` in every tenth."""
    lines = [f"step,train/loss,epoch,{monitor}"]
    for step in range(1, steps + 1):
        part = step / steps
        shown = f"{score * part:.6g}" if step % 10 == 0 or step == steps else ""
        lines.append(f"{step},{2 * math.exp(-3 * part):.6g},{step // 10},{shown}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
