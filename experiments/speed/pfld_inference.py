"""PFLD at 112x112 on one core: latency and faces a second by each lever, and whether the crops keep up with training.

    OMP_NUM_THREADS=1 taskset -c 1 python experiments/speed/pfld_inference.py $DVSN_DATA > pfld_inference.md

The goals: 3 times the speed of plain eager float32 with batch 1, and augmented crops that are no bottleneck. PFLD 1X and
0.25X with batch 1 and 256 by `python -m dvsn.benchmark`, whose rows take turns; then the training pipeline of
`task=landmarks` on `faces68` and on `wflw_sample`, by its parts, against the faces that a training step takes. Counted is
processor time of one thread. Random weights, norms that are not the identity; `checkpoint=` and `checkpoint_025=` measure
trained ones. Rows of ONNX Runtime and OpenVINO need `pip install 'dvsn[onnx,openvino]'`. Also `rounds=`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from hydra import compose

from dvsn.benchmark import levers, stopwatch
from dvsn.benchmark.__main__ import benchmark
from dvsn.benchmark.table import markdown
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.data import face_crop, people
from dvsn.data.face_crop import FaceCrop
from dvsn.data.transforms import Transform
from dvsn.engine import trainer as runtime
from dvsn.portable.crop import cut

GOAL, NEAR = 3.0, 0.1  # times plain; pixels that a point may move
NETWORKS = {"pfld": "PFLD 1X", "pfld_025": "PFLD 0.25X"}
VARIANTS = {
    1: ("channels_last", "folded", "folded+channels_last", "folded+channels_last+bf16", "compiled",
        "folded+channels_last+compiled", "folded+channels_last+bf16+compiled", "onnxruntime", "folded+onnxruntime",
        "folded+openvino", "folded+bf16+openvino"),
    256: ("folded+channels_last", "folded+channels_last+bf16", "folded+channels_last+compiled", "folded+onnxruntime",
          "folded+openvino"),
}  # fmt: skip
PASSES = {
    ("pfld", 1): 40,
    ("pfld", 256): 1,
    ("pfld_025", 1): 200,
    ("pfld_025", 256): 3,
}  # of a row in each round
SETS = {
    "faces68, JPEGs of at most 144 pixels": ["data=faces68", "data.root={}/faces68"],
    "WFLW, whole pictures of 1024 pixels": [
        "data=wflw", "data.root={}/wflw_sample", "data.people.annotations=[list_98pt_sample.txt]", "data.people.images=.",
    ],
}  # fmt: skip
WATCHED: dict[str, tuple[Any, str]] = {
    "read the JPEG": (people, "read_rgb"),
    "place of the crop": (FaceCrop, "_draw"),
    "warp": (cv2, "warpAffine"),
    "hide a rectangle": (face_crop, "occlude"),
    "colours and blur (albumentations)": (Transform, "photo"),
    "angles of the head": (face_crop, "head_angles"),
}
REST = "rest (mirror, tensors, checks)"


# Inference --------------------------------------------------------------------------------------------


def rows_of(network: str, batch: int, rounds: int, checkpoint: str | None, pictures: str) -> dict[str, Any]:
    chosen = [
        name
        for name in VARIANTS[batch]
        if ("openvino" not in name or levers.has_openvino())
        and ("onnxruntime" not in name or levers.has_onnxruntime())
    ]
    subject = ["data.joints=98", f"network={network}"]
    if checkpoint is not None:
        subject = [f"checkpoint='{checkpoint}'", f"images='{pictures}'"]
    options = [
        *subject, "size=[112,112]", f"batch={batch}", "protocols=[network]", "device=cpu", "threads=1",
        f"rounds={rounds}", f"runs={rounds * PASSES[network, batch]}", f"variants=[{','.join(chosen)}]",
    ]  # fmt: skip
    with initialized(conf_dir()):
        config = plain(compose("benchmark", overrides=options))
    with contextlib.redirect_stdout(sys.stderr):  # its table, for whoever waits
        return benchmark(config)


def report_inference(root: str, rounds: int, checkpoints: dict[str, str | None]) -> None:
    verdicts = []
    for network, name in NETWORKS.items():
        for batch in VARIANTS:
            result = rows_of(network, batch, rounds, checkpoints[network], f"{root}/faces68/test")
            print(f"## {name}, batch {batch}\n\n{markdown(result).replace(root, '$DVSN_DATA')}")
            good = [row for row in result["rows"] if row.get("pixels", 1.0) < NEAR]
            best = max(good, key=lambda row: row["speed_up"])
            goal = (
                f" (goal {GOAL:g}: {'met' if best['speed_up'] >= GOAL else 'missed'})" if batch == 1 else ""
            )
            verdicts.append(
                f"- {name}, batch {batch}: {best['variant']}, {best['milliseconds']['median'] / batch:.2f} ms a face, "
                f"{best['images_per_second']:,.0f} faces a second, **{best['speed_up']:.2f} times plain**{goal}; no point "
                f"moves by more than {best['pixels']:.1e} pixels."
            )
    print(f"The fastest whose points stay within {NEAR} pixels of plain's:\n")
    print("\n".join(verdicts))


# Training ---------------------------------------------------------------------------------------------


def composed(overrides: list[str]) -> dict[str, Any]:
    with initialized(conf_dir()):
        return plain(compose("train", overrides=["task=landmarks", "name=x", "run_dir=x", *overrides]))


class Watch:
    """Adds up the processor time that the watched functions take, in seconds."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(WATCHED, 0.0)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        before = {part: getattr(module, name) for part, (module, name) in WATCHED.items()}
        try:
            for part, (module, name) in WATCHED.items():
                setattr(module, name, self._timed(part, before[part]))
            yield
        finally:
            for part, (module, name) in WATCHED.items():
                setattr(module, name, before[part])

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            self.spent[part] += time.process_time() - start
            return result

        return call


def faces_of(overrides: list[str]) -> Any:
    """The training set of a command line, augmented."""
    data = runtime.build_data(composed([*overrides, "data.workers=0"]))
    data.use("people")
    data.setup("fit")
    return data.datasets["train"]


def report_crops(root: str, rounds: int, count: int = 400) -> dict[str, float]:
    """Faces a second of one core, by data set."""
    print("\n## Augmented crops of 112x112 on one core\n")
    columns: dict[str, dict[str, float]] = {}
    for name, overrides in SETS.items():
        faces = faces_of([part.format(root) for part in overrides])
        found: list[dict[str, float]] = []
        for number in range(rounds + 1):
            watch = Watch()
            with watch.watching():
                start = time.process_time()
                for index in range(count):
                    faces[(number, index % len(faces))]
                total = time.process_time() - start
            if number:
                parts = watch.spent | {REST: total - sum(watch.spent.values())}
                found.append({part: 1e3 * value / count for part, value in parts.items()})
        columns[name] = {part: statistics.median(each[part] for each in found) for part in found[0]}
    totals = {name: sum(parts.values()) for name, parts in columns.items()}
    print("| part | " + " | ".join(f"{name}, ms a face | share" for name in columns) + " |")
    print("|---|" + "--:|--:|" * len(columns))
    for part in (*WATCHED, REST):
        cells = (f"{parts[part]:.3f} | {parts[part] / totals[name]:.0%}" for name, parts in columns.items())
        print(f"| {part} | " + " | ".join(cells) + " |")
    print("| **a face** | " + " | ".join(f"**{total:.2f}** |" for total in totals.values()) + " |")
    print("| faces/s | " + " | ".join(f"{1e3 / total:,.0f} |" for total in totals.values()) + " |")
    report_cached(faces, rounds)
    return {name: 1e3 / total for name, total in totals.items()}


def report_cached(faces: Any, rounds: int) -> None:
    """What reading costs if each face was cut out once, with all that the augmentation may show of it."""
    print("\nReading a face of WFLW that was cut out once, twice the box as a square, on average:\n")
    with tempfile.TemporaryDirectory() as folder:
        cutter = FaceCrop(size=[112, 112], padding=2.0)
        for ending in ("jpg", "png"):
            paths, sides = [], []
            for index in range(len(faces)):
                sample = faces.read(index)
                corner, side = cutter.frame(sample)
                paths.append(Path(folder) / f"{index}.{ending}")
                sides.append(side)
                cv2.imwrite(str(paths[-1]), cut(sample["photo"], corner, side)[..., ::-1])
            times = []
            for _ in range(20 * rounds):
                start = time.process_time()
                for path in paths:
                    people.read_rgb(path)
                times.append(time.process_time() - start)
            spent, size = 1e3 * statistics.median(times) / len(paths), sum(p.stat().st_size for p in paths)
            print(
                f"- .{ending}: {spent:.2f} ms, squares of {min(sides)} to {max(sides)} pixels, "
                f"{size / len(paths) / 1024:.0f} KiB a face."
            )


def appetite(network: str, precision: str, rounds: int, batch: int = 64) -> float:
    """Faces a second of training steps on one core."""
    task: Any = runtime.make_task(composed([f"network={network}", "data=wflw"])).train()
    if precision == "bf16":
        task.to_channels_last()
    optimizer = task.optim(task.network.parameters())
    given = {
        "image": torch.randint(256, (batch, 3, 112, 112), dtype=torch.uint8),
        "keypoints": 112 * torch.rand(batch, 98, 2),
        "weight": torch.ones(batch, 98),
        "angles": torch.rand(batch, 3) - 0.5,
        "attributes": torch.randint(2, (batch, 6)).float(),
    }
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = task.network(task.layout(task.normalise(given["image"])))
            loss = torch.stack(list(task.objective(output, given).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    return batch / statistics.median(times[1:])


def report_appetite(rounds: int, crops: dict[str, float]) -> None:
    print("\n## What a training step takes, on one core, batch 64\n")
    print(
        "| network | precision | faces/s | "
        + " | ".join(f"cores of crops for a core: {name}" for name in crops)
        + " |"
    )
    print("|---|---|--:|" + "--:|" * len(crops))
    for network, name in NETWORKS.items():
        for precision in ("float32", "bf16"):
            eaten = appetite(network, precision, rounds)
            needs = " | ".join(f"{eaten / made:.2f}" for made in crops.values())
            print(f"| {name} | {precision} | {eaten:,.0f} | {needs} |")
    print(
        "\nA network that takes F faces a second wants F divided by the faces/s above as workers, one core each."
    )


def main() -> None:
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        raise SystemExit("python experiments/speed/pfld_inference.py DATA_FOLDER [rounds=5] [checkpoint=...]")
    root = str(Path(sys.argv[1]).resolve())
    settings = dict(each.split("=", 1) for each in sys.argv[2:])
    rounds, load = int(settings.get("rounds", 5)), os.getloadavg()[0]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    stopwatch.clock = time.process_time
    print("# PFLD at 112x112: latency, faces a second, crops\n")
    print("`python experiments/speed/pfld_inference.py $DVSN_DATA`\n")
    print(
        f"One core, shared with other jobs (load average {load:.1f} at the start), processor time of one thread,"
    )
    print(f"{rounds} rounds in which the rows take turns. Python {platform.python_version()}.\n")
    report_inference(
        root, rounds, {name: settings.get(name.replace("pfld", "checkpoint")) for name in NETWORKS}
    )
    report_appetite(3, report_crops(root, rounds))


if __name__ == "__main__":
    main()
