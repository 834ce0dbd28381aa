"""Every detector on the drawn shapes at an equal number of steps: `python table.py DATA RUNS` writes RUNS/table.csv.

One run after the other, each a process of its own; CPU seconds and the highest memory are that process's, of training with
one validation at its end. The test split is scored afterwards, outside of these.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

DETECTORS = (
    "faster_rcnn",
    "cascade_rcnn",
    "fcos",
    "centernet",
    "centernet_triplets",
    "mask_rcnn",
    "cascade_mask_rcnn",
    "htc",
    "gfl",
)
SHARED = [
    "task=detection", "network=detector_small", "transform=detection_colour", "data=boxes", "seed=0", "logger=csv",
    "data.batch_size=4", "data.workers=0", "data.objects.names={1: disc, 2: bar, 3: tent}",
    "optim=adamw", "optim.lr=1e-3", "optim.weight_decay=0.01", "schedule=cosine", "schedule.warmup_steps=20",
    "trainer=cpu", "trainer.precision=bf16-mixed", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2",
    "trainer.gradient_clip_val=10", "trainer.enable_progress_bar=false",
    "network.min_size=96", "network.max_size=128", "network.anchors=[8,16,32,64,128]",
    "network.proposals=100", "network.sampled=24", "network.detections=20",
]  # fmt: skip


def train(name: str, data: Path, folder: Path) -> tuple[float, float, float]:
    """CPU seconds, seconds by the clock and GiB of the process."""
    line = [*SHARED, f"data.root={data}", f"network.detector={name}", f"run_dir={folder}"]
    line += ["network.backbone.first_stride=8"] if name in ("fcos", "gfl") else []
    start = time.monotonic()
    with Path(f"{folder}.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "dvsn.train", *line], stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name}: see {folder}.log")
    return used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 2**20


def score(folder: Path, split: str) -> dict[str, float]:
    line = [f"checkpoint={folder}/checkpoints/last.ckpt", f"split={split}", f"output={folder}_{split}"]
    with Path(f"{folder}_{split}.log").open("w") as log:
        subprocess.run([sys.executable, "-m", "dvsn.evaluate", *line], check=True, stdout=log, stderr=log)
    found: dict[str, float] = json.loads(Path(f"{folder}_{split}", "metrics.json").read_text())
    return found


def main(data: Path, runs: Path, names: tuple[str, ...]) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / "table.csv").open("a", newline="") as file:
        table = csv.writer(file)
        for name in names:
            seconds, clock, memory = train(name, data, runs / name)
            found = score(runs / name, "test")
            table.writerow([name, f"{seconds:.0f}", f"{clock:.0f}", f"{memory:.2f}", json.dumps(found)])
            file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), tuple(sys.argv[3:]) or DETECTORS)
