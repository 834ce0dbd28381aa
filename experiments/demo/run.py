"""What `make demo` runs: small networks of four tasks on the same drawn scenes, then one strip of what they do.

    python experiments/demo/run.py            # pix2pix, segmentation, detection, pose
    python experiments/demo/run.py pose       # one of them, without the strip
    python experiments/demo/run.py strip      # the strip of what has been trained

Runs lie in runs/demo/TASK, scenes in data/street. The strip shows scenes of the test split, which no training has seen.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

EXPERIMENTS = {
    "pix2pix": "demo",
    "segmentation": "demo_segmentation",
    "detection": "demo_detection",
    "pose": "demo_pose",
}
RUNS, SCENES = Path("runs/demo"), Path("data/street")
SHOWN = (4, 11, 15)
"""Places in the test split of the scenes of the strip: each has people to draw skeletons of."""
WIDTH = 384
"""Of a picture of the strip."""


def command(task: str) -> list[str]:
    """The words of the training of a task."""
    return [
        "python", "-m", "dvsn.train", f"experiment={EXPERIMENTS[task]}", f"data.root={SCENES}",
        f"name=demo_{task}", f"hydra.run.dir={RUNS / task}",
    ]  # fmt: skip


def train(task: str) -> dict[str, Any]:
    """Train a task anew; its result.json, with the CPU seconds that it took."""
    shutil.rmtree(RUNS / task, ignore_errors=True)
    words = command(task)
    sys.stdout.write(f"\n{shlex.join(words)}\n")
    sys.stdout.flush()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words[1:]], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result: dict[str, Any] = json.loads((RUNS / task / "result.json").read_text())
    result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result


def strip(places: tuple[int, ...] = SHOWN) -> Path:
    """A row a scene, a column a task, of the tasks that have been trained."""
    from dvsn.pictures.grids import grid, shrink, write_picture

    columns = columns_of([scene(index) for index in places])
    rows = [[shrink(picture, WIDTH) for picture in row] for row in zip(*columns.values(), strict=True)]
    write_picture(RUNS / "strip.png", grid(rows, list(columns)))
    return RUNS / "strip.png"


def scene(index: int) -> Path:
    """A photo of the test split."""
    return sorted(SCENES.glob("leftImg8bit/test/*/*.png"))[index]


def columns_of(photos: list[Path]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Pictures by title, those of a task where it has been trained."""
    import dvsn
    from dvsn.data.files import read_labels, read_rgb
    from dvsn.data.street_parts import PART_PALETTE

    models = {
        task: dvsn.load(file)
        for task in EXPERIMENTS
        if (file := RUNS / task / "checkpoints" / "best.ckpt").is_file()
    }
    pictures = [read_rgb(photo) for photo in photos]
    columns: dict[str, list[np.ndarray[Any, Any]]] = {}
    if "pix2pix" in models:
        maps = [label_file(photo, "partIds") for photo in photos]
        columns["label map"] = [PART_PALETTE[read_labels(each)] for each in maps]
        columns["painted"] = [drawn(each) for each in models["pix2pix"].predict(maps)]
    columns["photo"] = pictures
    if "segmentation" in models:
        columns["classes"] = [drawn(models["segmentation"].predict(each), tint=0.7) for each in pictures]
    if "detection" in models:
        found = models["detection"].predict(pictures)
        columns["boxes"] = [drawn(each, legend=False) for each in found]
    if "pose" in models:
        people = [true_boxes(photo) for photo in photos]
        columns["skeletons"] = [
            drawn(models["pose"].predict(picture, boxes=boxes), legend=False) if len(boxes) else picture
            for picture, boxes in zip(pictures, people, strict=True)
        ]
    return columns


def label_file(photo: Path, kind: str) -> Path:
    name = photo.name.replace("_leftImg8bit", f"_gtFine_{kind}")
    return SCENES / "gtFine" / photo.relative_to(SCENES / "leftImg8bit").parent / name


def true_boxes(photo: Path, least: float = 30.0) -> np.ndarray[Any, Any]:
    """(N, 4) corners of the people in a photo that are at least so many pixels high: pose is measured with such boxes."""
    content = json.loads((SCENES / "annotations/person_keypoints_test.json").read_text())
    number = next(each["id"] for each in content["images"] if Path(each["file_name"]).name == photo.name)
    boxes = [each["bbox"] for each in content["annotations"] if each["image_id"] == number]
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes if h >= least]
    return np.array(corners, np.float32).reshape(-1, 4)


def drawn(result: Any, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(result.plot(**options))


def main(asked: list[str]) -> None:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    known = [*EXPERIMENTS, "strip"]
    if unknown := [each for each in asked if each not in known]:
        raise SystemExit(f"error: TASK: found {unknown[0]}, expected {', '.join(known)}")
    began, rows = time.perf_counter(), []
    for task in [each for each in EXPERIMENTS if each in asked or not asked]:
        result = train(task)
        name, best, cpu = result["monitor"].removeprefix("val/"), result["best"], result["cpu"]
        others = result["metrics"]
        more = f", ssim {others['val/ssim']:.3f}" if "val/ssim" in others and name != "ssim" else ""
        rows.append(f"{task:<13}{name} {best:.3f}{more}, {cpu:.0f} CPU seconds")
    sys.stdout.write("\n" + "".join(f"{row}\n" for row in rows))
    if not asked or "strip" in asked:
        path = strip()
        sys.stdout.write(f"{time.perf_counter() - began:.0f} s in all\n\nLook at     {path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
