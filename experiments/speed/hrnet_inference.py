"""HRNet-W32 at 256x192 on this machine: people a second by each lever, and what stands around the network.

    OMP_NUM_THREADS=1 taskset -c 1 python experiments/speed/hrnet_inference.py $DVSN_DATA/coco_sample > hrnet_inference.md

Batch 1 and 32 of one thread, in its processor time, by `python -m dvsn.benchmark`, whose rows take turns; then the parts
of a person's way from a JPEG to points. The folder holds pictures and one file of COCO's keypoints, whose people are cut
out. Random weights: the speed does not depend on them, the share of equal keypoints does, so read that of float32
only. Rows of OpenVINO need `pip install 'dvsn[openvino]'`. `rounds=` can be given. CUDA graphs are measured on a GPU
only, by `python -m dvsn.benchmark network=hrnet_w32 size=[256,192] device=cuda`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra import compose

from dvsn.benchmark import levers, stopwatch
from dvsn.benchmark.__main__ import benchmark
from dvsn.benchmark.table import markdown
from dvsn.codecs.heatmaps import HeatmapCodec
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.data.crop import PersonCrop
from dvsn.data.files import read_rgb
from dvsn.tasks.normalise import Normalise

SIZE, JOINTS = (256, 192), 17
VARIANTS = ("folded", "channels_last", "folded+channels_last", "folded+channels_last+bf16",
            "folded+channels_last+compiled", "folded+openvino")  # fmt: skip
ONCE = (
    "folded+channels_last+bf16+compiled",
    "folded+bf16+openvino",
)  # with batch 1 only: slow to make and to run
PASSES = {1: 10, 32: 1}  # of a row in each round


def rows_of(batch: int, rounds: int) -> dict[str, Any]:
    chosen = [*VARIANTS, *(ONCE if batch == 1 else ())]
    if not levers.has_openvino():
        chosen = [name for name in chosen if "openvino" not in name]
    options = [
        "network=hrnet_w32", f"size=[{SIZE[0]},{SIZE[1]}]", f"batch={batch}", "protocols=[network]", "device=cpu",
        "threads=1", f"rounds={rounds}", f"runs={rounds * PASSES[batch]}", f"variants=[{','.join(chosen)}]",
    ]  # fmt: skip
    with initialized(conf_dir()):
        config = plain(compose("benchmark", overrides=options))
    with contextlib.redirect_stdout(sys.stderr):  # its table, for whoever waits
        return benchmark(config)


def seconds(run: Callable[[], Any], count: int = 30) -> float:
    """Processor time of a run, the median; three more warm up."""
    times = []
    for number in range(count + 3):
        start = time.process_time()
        run()
        if number >= 3:
            times.append(time.process_time() - start)
    return statistics.median(times)


def read_people(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The people of the sample with a labelled keypoint: a picture's path, and what the crop wants."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and any("keypoints" in each for each in content.get("annotations", [])):
            break
    else:
        raise SystemExit(f"{folder}: found no JSON file with keypoints, expected one of COCO's form.")
    names = {image["id"]: image["file_name"] for image in content["images"]}
    people = []
    for each in content["annotations"]:
        points = np.array(each["keypoints"], np.float32).reshape(-1, 3)[:JOINTS]
        if points[:, 2].any() and min(each["bbox"][2:]) > 0:
            sample = {"box": np.array(each["bbox"], np.float32), "keypoints": points[:, :2],
                      "labelled": (points[:, 2] > 0).astype(np.uint8), "index": 0, "name": "x"}  # fmt: skip
            people.append((folder / names[each["image_id"]], sample))
    return people


def parts_of(folder: Path, batch: int) -> dict[str, float]:
    """Milliseconds a person of everything but the network."""
    people = read_people(folder)
    photos = {path: read_rgb(path) for path, _ in people}
    crop = PersonCrop(size=list(SIZE))
    normalise, codec = Normalise(), HeatmapCodec(size=SIZE)
    image = torch.randint(256, (batch, 3, *SIZE), dtype=torch.uint8)
    maps = torch.rand(batch, JOINTS, SIZE[0] // 4, SIZE[1] // 4)
    each = 1e3 / len(people)
    with torch.no_grad():
        return {
            "read the JPEG": each * seconds(lambda: [read_rgb(path) for path, _ in people]),
            "crop": each * seconds(lambda: [crop(sample | {"photo": photos[path]}, 0) for path, sample in people]),
            "normalise": 1e3 / batch * seconds(lambda: normalise(image)),
            "decode": 1e3 / batch * seconds(lambda: codec.decode(maps)),
        }  # fmt: skip


def report_shares(results: dict[int, dict[str, Any]], folder: Path) -> None:
    print("## The parts of a person's way\n")
    print(
        "Milliseconds a person. Each person's picture is read anew; a picture with several is read once in prediction."
    )
    print("Fastest: of the rows whose heatmaps differ by rounding of float32 only.\n")
    columns: dict[str, dict[str, float]] = {}
    for batch, result in results.items():
        parts = parts_of(folder, batch)
        rows = [row for row in result["rows"] if "failed" not in row]
        exact = [row for row in rows if row["error"] < 1e-4]
        best = max(exact, key=lambda row: row["speed_up"])
        for name, row in (("plain", rows[0]), (best["variant"], best)):
            network = row["milliseconds"]["median"] / batch
            columns[f"batch {batch}, {name}"] = {**parts, "network": network}
    order = ("read the JPEG", "crop", "normalise", "network", "decode")
    print("| part | " + " | ".join(f"{name} | share" for name in columns) + " |")
    print("|---|" + "--:|--:|" * len(columns))
    totals = {name: sum(parts.values()) for name, parts in columns.items()}
    for part in order:
        cells = (f"{parts[part]:.2f} | {parts[part] / totals[name]:.1%}" for name, parts in columns.items())
        print(f"| {part} | " + " | ".join(cells) + " |")
    print("| **a person** | " + " | ".join(f"**{total:.1f}** |" for total in totals.values()) + " |")
    print("| people/s | " + " | ".join(f"{1e3 / total:.1f} |" for total in totals.values()) + " |")
    print("\nOn a core, without the network:\n")
    for batch in results:
        parts = columns[f"batch {batch}, plain"]
        made, cut = parts["read the JPEG"] + parts["crop"], parts["crop"]
        print(
            f"- batch {batch}: {1e3 / made:,.0f} crops a second ({1e3 / cut:,.0f} of pictures that are in memory), "
            f"{JOINTS * 1e3 / parts['decode']:,.0f} heatmaps decoded a second."
        )


def limits() -> str:
    """What one core reaches in products of 1024x1024 matrices."""
    found = []
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        matrix = torch.randn(1024, 1024).to(dtype)
        found.append(f"{name} {1024**3 / 1e9 / seconds(lambda matrix=matrix: matrix @ matrix, 10):.0f}")  # type: ignore[misc]
    return ", ".join(found)


def main() -> None:
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        raise SystemExit("python experiments/speed/hrnet_inference.py FOLDER_WITH_COCO_SAMPLE [rounds=3]")
    folder, settings = Path(sys.argv[1]), dict(each.split("=") for each in sys.argv[2:])
    rounds, load = int(settings.get("rounds", 3)), os.getloadavg()[0]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    stopwatch.clock = time.process_time
    start = time.perf_counter()
    peaks = limits()
    results = {batch: rows_of(batch, rounds) for batch in PASSES}
    print("# HRNet-W32 at 256x192: people a second\n")
    print(f"`python experiments/speed/hrnet_inference.py $DVSN_DATA/coco_sample`, {results[1]['date']}\n")
    print(
        f"One core, shared with other jobs (load average {load:.1f} at the start). Python {platform.python_version()}."
    )
    print(
        f"Products of 1024x1024 matrices on it, G multiply-accumulates a second: {peaks}. {rounds} rounds in which"
    )
    passes = " and ".join(f"{number} passes (batch {batch})" for batch, number in PASSES.items())
    print(f"the rows take turns, processor time of one thread, of {passes}.\n")
    for batch, result in results.items():
        print(f"## Batch {batch}\n\n{markdown(result)}")
    report_shares(results, folder)
    print(f"\nAll this took {(time.perf_counter() - start) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
