"""How fast a video goes through predict, against the network alone: decoding, drawing and encoding should hide behind it.

    python experiments/speed/predict_video.py street.mp4 segmentation.ckpt pose.ckpt > predict_video.md

The video is one of `experiments/video/street_video.py`. `network` are the frames in memory through the predictor, which
gives results and writes nothing; `command` is all of `python -m dvsn.predict` but the loading: decode, network, draw, encode.
`in turn` is the same work without threads. Each is the best of several rounds, one after the other, so that other jobs on
the machine disturb all alike. Run it on a quiet machine.
"""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dvsn.config.light_imports import import_lightning
from dvsn.predict import running
from dvsn.predict.asked import make_predictor
from dvsn.predict.command import find_device, read_choices
from dvsn.predict.options import COMMAND
from dvsn.predict.sources import Skipped, open_sources
from dvsn.predict.video import Video

FRAMES, ROUNDS, BATCH = 120, 4, 4


def whole(task: Any, options: dict[str, Any], device: str) -> float:
    """Frames a second of the command, without loading."""
    with tempfile.TemporaryDirectory() as folder:
        given = options | {"output": folder}
        skipped = Skipped()
        sources = open_sources(given["input"], Path(folder), skipped, read_choices(given))
        run = running.Run(task, sources, given, device, skipped)
        start = time.perf_counter()
        outcome = run()
        return outcome.frames / (time.perf_counter() - start)


def measure(checkpoint: str, video: str) -> dict[str, float]:
    """Frames a second, each the best of the rounds."""
    from dvsn.tasks.recipe import load

    options = COMMAND.parse([checkpoint, video, f"limit={FRAMES}", f"batch_size={BATCH}", "resume=false"])
    device = find_device("auto")
    task: Any = load(checkpoint, device=device)
    predictor = make_predictor(task, running.asked(options, moving=True, kind=task.kind), device)
    with Video(Path(video), name=video) as opened:
        frames = list(itertools.islice(opened, FRAMES))
    list(predictor(frames[:BATCH]))  # warm
    best: dict[str, float] = {"network": 0, "command": 0, "in turn": 0}
    threads = running.ahead
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in predictor(iter(frames)):
            pass
        best["network"] = max(best["network"], len(frames) / (time.perf_counter() - start))
        best["command"] = max(best["command"], whole(task, options, device))
        running.ahead = lambda items, count: (each for each in items)
        best["in turn"] = max(best["in turn"], whole(task, options, device))
        running.ahead = threads
    return best


def main() -> None:
    import_lightning()
    logging.getLogger("dvsn").setLevel(logging.ERROR)
    video, *checkpoints = sys.argv[1:]
    print("# A video through predict, against the network alone\n")
    where = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} threads of a CPU"
    )
    print(
        f"`python experiments/speed/predict_video.py`, {datetime.now(UTC):%Y-%m-%d}, on {where}; {FRAMES} frames, best of "
    )
    print(f"{ROUNDS} rounds, batches of {BATCH}.\n")
    print("| checkpoint | network alone, frames/s | command, frames/s | share | the same without threads |")
    print("| --- | --: | --: | --: | --: |")
    for checkpoint in checkpoints:
        found = measure(checkpoint, video)
        share = found["command"] / found["network"]
        print(
            f"| {Path(checkpoint).name} | {found['network']:.1f} | {found['command']:.1f} | {share:.0%} | "
            f"{found['in turn']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
