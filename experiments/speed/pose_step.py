"""Pose around the network: a training step's parts, targets and decoding against the published loops, and crops.

    OMP_NUM_THREADS=1 python experiments/speed/pose_step.py > experiments/speed/pose_step.md

The goals: making the targets takes at most 5 % of a training step of HRNet-W32 at 256x192, and decoding at most 5 % of an
evaluation step. "Loop" is one map after the other with NumPy and OpenCV, the order of the published code, which makes
its targets in the data workers. Random weights, random keypoints. Processor time of one thread, medians of rounds in
which the alternatives take turns; on a GPU (`device=cuda`) time between synchronisations. Options: `batch=` and `rounds=`.
The speed of inference is in hrnet_inference.py.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra import compose

from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.data.crop import PersonCrop
from dvsn.data.files import read_rgb
from dvsn.engine import trainer as runtime
from dvsn.engine.devices import resolve_precision
from dvsn.engine.run_folder import processor

SETTINGS = {"device": "cpu", "batch": "16", "rounds": "5"}
GOAL = 0.05


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def medians(parts: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Seconds of each part; one round more, which warms up, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            start = now(device)
            part()
            if number:
                times[name].append(now(device) - start)
    return {name: statistics.median(values) for name, values in times.items()}


def make_task(device: str) -> tuple[Any, bool]:
    with initialized(conf_dir()):
        config = plain(
            compose("train", overrides=["task=pose", "network=hrnet_w32", "data=coco", "name=x", "run_dir=x"])
        )
    task: Any = runtime.make_task(config).to(device).train()
    bf16 = resolve_precision("auto", cuda=device == "cuda") == "bf16-mixed"
    if bf16:
        task.to_channels_last()
    return task, bf16


def loop_targets(points: np.ndarray, sigma: float = 2.0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Maps of points (N, K, 2) in crop pixels, each painted alone: a Gaussian patch is made and clipped to the map."""
    maps = np.zeros((*points.shape[:2], *size), np.float32)
    reach = int(3 * sigma)
    for heat, point in zip(maps.reshape(-1, *size), points.reshape(-1, 2), strict=True):
        x, y = (int(value / 4 + 0.5) for value in point)
        left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
        if left >= size[1] or top >= size[0] or right < 0 or bottom < 0:
            continue
        places = np.arange(2 * reach + 1, dtype=np.float32)
        patch = np.exp(-((places - reach) ** 2 + (places[:, None] - reach) ** 2) / (2 * sigma**2))
        rows, columns = slice(max(0, top), min(bottom, size[0])), slice(max(0, left), min(right, size[1]))
        heat[rows, columns] = patch[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
    return maps


def loop_decode(maps: np.ndarray, dark: bool) -> np.ndarray:
    """Places of maps (N, K, h, w), one after the other: quarter offsets, or DARK."""
    found = np.zeros((*maps.shape[:2], 2))
    height, width = maps.shape[2:]
    for place, heat in zip(found.reshape(-1, 2), maps.reshape(-1, height, width), strict=True):
        y, x = divmod(int(heat.argmax()), width)
        place[:] = x, y
        if not (1 < x < width - 2 and 1 < y < height - 2):
            continue
        if not dark:
            place += 0.25 * np.sign([heat[y, x + 1] - heat[y, x - 1], heat[y + 1, x] - heat[y - 1, x]])
            continue
        log = np.log(np.maximum(cv2.GaussianBlur(np.pad(heat, 5), (11, 11), 0)[5:-5, 5:-5], 1e-10))
        slope = np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]) / 2
        xx, yy = (
            (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2]) / 4,
            (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]) / 4,
        )
        xy = (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]) / 4
        if xx * yy - xy * xy:
            place -= np.linalg.solve([[xx, xy], [xy, yy]], slope)
    return found


def report_step(settings: dict[str, str]) -> None:
    device, count, rounds = settings["device"], int(settings["batch"]), int(settings["rounds"])
    task, bf16 = make_task(device)
    image = torch.randint(0, 256, (count, 3, 256, 192), dtype=torch.uint8, device=device)
    points = torch.rand(count, 17, 2, device=device) * torch.tensor([192.0, 256.0], device=device)
    weight = torch.ones(count, 17, device=device)
    optimizer = task.optim(task.parameters())
    held: dict[str, Any] = {}

    def forward() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            held["maps"] = task.network(task.layout(task.normalise(image)))

    def targets() -> None:
        held["target"] = task.codec.encode(points, weight)

    def loss() -> None:
        held["loss"] = task.loss(held["maps"], *held["target"])["heatmaps"]

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    parts = {
        "normalise and forward": forward,
        "targets": targets,
        "loss": loss,
        "backward": lambda: held["loss"].backward(),
        "optimiser": step,
    }
    times = medians(parts, rounds, device)
    total = sum(times.values())
    print(f"## A training step of {count} crops, {'bf16, channels_last' if bf16 else 'float32'}\n")
    print("| part | ms | share |\n|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {1000 * value:.1f} | {value / total:.1%} |")
    print(f"| **step** | **{1000 * total:.0f}** | |\n")
    share = times["targets"] / total
    print(
        f"Targets: **{share:.2%}** of the step (goal {GOAL:.0%}: {'met' if share <= GOAL else 'missed'}).\n"
    )

    task.eval()
    maps = task.codec.encode(points, weight)[0] + 0.01 * torch.rand(count, 17, 64, 48, device=device)

    def evaluate() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            task.network(task.layout(task.normalise(image)))

    host, arrays = points.cpu().numpy(), maps.cpu().numpy()
    parts = {"forward, without gradient": evaluate}

    def decode(refine: str) -> Callable[[], Any]:
        def run() -> None:
            task.codec.refine = refine
            task.codec.decode(maps)

        return run

    parts |= {
        "targets": targets,
        "targets, loop": lambda: loop_targets(host),
        **{f"decoding, {refine}": decode(refine) for refine in ("quarter", "dark", "udp")},
        "decoding, quarter, loop": lambda: loop_decode(arrays, dark=False),
        "decoding, dark, loop": lambda: loop_decode(arrays, dark=True),
    }
    times = medians(parts, rounds, device)
    base = times["forward, without gradient"]
    print(f"## Targets and decoding of {17 * count} maps of 64x48\n")
    print("| part | ms | maps a second | of the forward pass |\n|---|---|---|---|")
    for name, value in times.items():
        rate = "" if name.startswith("forward") else f"{17 * count / value:,.0f}"
        print(f"| {name} | {1000 * value:.2f} | {rate} | {value / base:.2%} |")
    print()
    for what in ("targets", "decoding, quarter", "decoding, dark"):
        print(f"{what}: {times[f'{what}, loop'] / times[what]:.1f} times as fast as the loop.")
    slowest = max(times[f"decoding, {refine}"] for refine in ("quarter", "dark", "udp")) / base
    print(f"\nDecoding: at most **{slowest:.2%}** of a forward pass (goal {GOAL:.0%}).\n")


def report_crops(rounds: int) -> None:
    """Crops of a person that fills much of a 640x480 JPEG, as in COCO."""
    random = np.random.default_rng(0)
    noise = cv2.resize(
        random.integers(0, 256, (60, 80, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC
    )
    crop = PersonCrop(size=[256, 192], half_body=0.3, zoom=0.35, rotation=45.0, flip=0.5)
    sample = {
        "photo": noise,
        "box": np.array([200, 80, 180, 340], np.float32),
        "keypoints": random.uniform(200, 380, (17, 2)).astype(np.float32),
        "labelled": np.ones(17, np.uint8),
        "index": 0,
        "name": "x",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        cv2.imwrite(str(path), noise, [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.setNumThreads(1)
        times = medians(
            {
                "read the JPEG": lambda: [read_rgb(path) for _ in range(50)],
                "crop, augmented": lambda: [crop(sample, seed) for seed in range(50)],
            },
            rounds,
            "cpu",
        )
    total = sum(times.values())
    print("## Crops of 256x192 from pictures of 640x480, one core\n")
    print("| part | ms | share |\n|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {1000 * value / 50:.2f} | {value / total:.0%} |")
    print(f"\n{50 / total:,.0f} people a second on a core.")


def main() -> None:
    settings = SETTINGS | dict(each.split("=") for each in sys.argv[1:])
    torch.set_num_threads(1)
    print("# Pose around the network\n")
    print(f"`python experiments/speed/pose_step.py`, {datetime.date.today()}\n")
    load = os.getloadavg()[0]
    print(
        f"{processor()}, shared with other jobs (load average {load:.1f} at the start); Python "
        f"{platform.python_version()}, torch {torch.__version__}. One thread, processor time, medians of "
        f"{settings['rounds']} rounds.\n"
    )
    report_step(settings)
    report_crops(int(settings["rounds"]))


if __name__ == "__main__":
    main()
