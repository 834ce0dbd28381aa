"""How fast a video goes through predict, against the network alone: decoding, drawing and encoding should hide behind it.

    python experiments/speed/predict_video.py street.mp4 > predict_video.md
    python experiments/speed/predict_video.py street.mp4 best.ckpt      # of trained networks

The video is one of `experiments/video/street_video.py`. Without checkpoints the networks have random weights, which cost as
much as trained ones. `network` are frames in memory through the predictor, which gives results and writes nothing;
`command` is all of `python -m dvsn.predict` but the loading; `in turn` the same without threads. Each is the best of
several rounds, one after the other, so that other jobs disturb all alike. The milliseconds are processor time of a frame,
which other jobs hardly change: what does not belong to the network has to fit beside it. `left` is the processor time of the
network alone as a share of that of the whole command, the median of the rounds: the share of its rate that the network keeps
where it has every processor to itself and nothing can hide behind it. Wherever one is free, more is left.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from hydra import compose

import dvsn
from dvsn.config.compose import initialized, plain
from dvsn.config.light_imports import import_lightning
from dvsn.config.menu import conf_dir
from dvsn.predict import running
from dvsn.predict.asked import make_predictor
from dvsn.predict.command import read_choices
from dvsn.predict.options import COMMAND
from dvsn.predict.predictor import find_device
from dvsn.predict.sinks import Look
from dvsn.predict.sources import Skipped, open_sources
from dvsn.predict.video import Video, VideoWriter

FRAMES, ROUNDS, BATCH = 12, 3, 4
TASKS = {
    "PIDNet-S, 19 classes, 360x640": ["task=segmentation", "data=cityscapes", "network=pidnet_s"],
    "HRNet-W32, 256x192, one person": ["task=pose", "data=coco", "network=hrnet_w32"],
}


def make_task(overrides: list[str], device: str) -> Any:
    from dvsn.engine import trainer as runtime

    with initialized(conf_dir()):
        config = plain(compose("train", overrides=["name=speed", "run_dir=none", *overrides]))
    task = runtime.make_task(config).to(device).eval()
    task.data_recipe["transform"] = {"eval": []}
    return task


def whole(task: Any, options: dict[str, Any], device: str) -> float:
    """Frames a second of the command, without loading."""
    with tempfile.TemporaryDirectory() as folder:
        given = options | {"output": folder}
        skipped = Skipped()
        sources = open_sources(given["input"], Path(folder), skipped, read_choices(given))
        run = running.Run(task, sources, given, device, skipped)
        start = time.perf_counter()
        return run().frames / (time.perf_counter() - start)


def processor(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and the milliseconds of processor time a frame."""
    start = time.process_time()
    return work(), (time.process_time() - start) / FRAMES * 1000


def measure(task: Any, video: str, device: str) -> tuple[dict[str, float], dict[str, float]]:
    """Frames a second, each the best of the rounds, and processor milliseconds of a frame."""
    options = COMMAND.parse(["none.ckpt", video, f"limit={FRAMES}", f"batch_size={BATCH}", "resume=false"])
    predictor = make_predictor(task, running.asked(options, moving=True, kind=task.kind), device)
    costs: dict[str, float] = {}
    with Video(Path(video), name=video) as opened:
        frames, costs["decode"] = processor(lambda: list(itertools.islice(opened, FRAMES)))
    list(predictor(iter(frames[:BATCH])))  # warm
    results, costs["network"] = processor(lambda: list(predictor(iter(frames))))
    look = Look("overlay" if task.kind == "segmentation" else None, keep_size=True)
    drawn, costs["draw"] = processor(lambda: [look(result) for result in results])
    _, costs["encode"] = processor(lambda: encode(drawn))
    best: dict[str, float] = {"network": 0, "command": 0, "in turn": 0}
    threads = running.ahead
    left = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        _, alone = processor(lambda: [None for _ in predictor(iter(frames))])
        best["network"] = max(best["network"], len(frames) / (time.perf_counter() - start))
        rate, together = processor(lambda: whole(task, options, device))
        best["command"] = max(best["command"], rate)
        left.append(alone / together)
        running.ahead = lambda items, count: (each for each in items)  # type: ignore[assignment]
        best["in turn"] = max(best["in turn"], whole(task, options, device))
        running.ahead = threads
    return best, costs | {"left": statistics.median(left)}


def encode(pictures: Iterable[Any]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "x.mp4", rate=Fraction(30)).opened() as writer,
    ):
        for picture in pictures:
            writer(picture, None)


def main() -> None:
    import_lightning()
    logging.getLogger("dvsn").setLevel(logging.ERROR)
    device = find_device("auto")
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{torch.get_num_threads()} threads for the network"
    )
    print("# A video through predict, against the network alone\n")
    print(f"`python experiments/speed/predict_video.py street.mp4`, {datetime.now(UTC):%Y-%m-%d}: {where},")
    print(
        f"{os.cpu_count()} processors with a load of {os.getloadavg()[0]:.0f} by other jobs; {FRAMES} frames,"
    )
    print(f"best of {ROUNDS} rounds, batches of {BATCH}.\n")
    print("| | network, frames/s | command | share | in turn | ms decode | network | draw | encode | left |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |")
    made = {name: functools.partial(make_task, overrides, device) for name, overrides in TASKS.items()}
    given = {Path(file).name: functools.partial(dvsn.load, file, device=device) for file in sys.argv[2:]}
    for name, make in (given or made).items():
        best, costs = measure(make(), sys.argv[1], device)
        cells = [
            name, f"{best['network']:.1f}", f"{best['command']:.1f}", f"{best['command'] / best['network']:.0%}",
            f"{best['in turn']:.1f}", *(f"{costs[key]:.1f}" for key in ("decode", "network", "draw", "encode")),
            f"{costs['left']:.0%}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
