"""What 8 bits do to PFLD: latency with batch 1 on one core, and the error on the test faces of faces68.

    OMP_NUM_THREADS=1 taskset -c 1 python experiments/speed/pfld_int8.py CHECKPOINT [pictures=300] [rounds=5]

Scales are taken from crops of training faces, as the checkpoint's recipe cuts them. Needs pip install 'dvsn[onnx,openvino]'.
Prints a Markdown table: milliseconds are processor time, medians of rounds in which the rows take turns.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

import dvsn
from dvsn.benchmark import levers
from dvsn.engine import trainer as runtime

ROWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "plain": ("plain", (), "f32"),
    "ONNX Runtime": ("folded+onnxruntime", (), "f32"),
    "int8, all": ("folded+int8+openvino", (), "f32"),
    "int8 but for conv6_1, conv7, conv8, fc": (
        "folded+int8+openvino",
        ("conv6_1", "conv7", "conv8", "fc"),
        "f32",
    ),
    "the same, the rest in bf16": ("folded+int8+openvino", ("conv6_1", "conv7", "conv8", "fc"), "bf16"),
}
EYES, SIDE, PASSES = (36, 45), 112, 40


def crops(task: Any, split: str, count: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    data = runtime.build_data({"data": task.data_recipe})
    task.ask_data(data)
    dataset = data.open(split)
    chosen = range(len(dataset)) if count is None else np.linspace(0, len(dataset) - 1, count).astype(int)
    items = [dataset[int(number)] for number in chosen]
    return torch.stack([item["image"] for item in items]), torch.stack([item["keypoints"] for item in items])


def main() -> None:
    options = dict(word.split("=") for word in sys.argv[2:])
    rounds = int(options.get("rounds", 5))
    torch.set_num_threads(1)
    task = dvsn.load(sys.argv[1]).eval()
    calibration, _ = crops(task, "train", int(options.get("pictures", 300)))
    image, truth = crops(task, "test", None)
    given, shown = task.normalise(image), [each[None] for each in task.normalise(calibration)]

    def whole(network: torch.nn.Module) -> torch.nn.Module:
        return levers.MainAnswer(network).eval()

    runs = {}
    with contextlib.redirect_stdout(sys.stderr):
        for name, (lever, keep, rest) in ROWS.items():
            subject = levers.Subject(task.network, whole, given[:1], shown, keep, rest)
            chosen = next(used for label, used in levers.parse([lever], "cpu").items() if label == lever)
            runs[name] = levers.pull(chosen, subject).run
    apart = (truth[:, EYES[0]] - truth[:, EYES[1]]).norm(dim=1)
    points = {
        name: torch.cat([run(each[None]).clone() for each in given]) * SIDE for name, run in runs.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(PASSES):
                started = time.process_time()
                run(given[:1])
                taken[name].append(1000 * (time.process_time() - started))
    plain = statistics.median(taken["plain"])
    print("| variant | ms | times plain | NME, % | points move, mean | most, pixels |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, found in points.items():
        error = 100 * float(((found - truth).norm(dim=2).mean(dim=1) / apart).mean())
        moved, middle = (found - points["plain"]).norm(dim=2), statistics.median(taken[name])
        print(
            f"| {name} | {middle:.2f} | {plain / middle:.2f} | {error:.2f} | {moved.mean():.2f} | {moved.max():.1f} |"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
