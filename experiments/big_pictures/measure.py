"""The memory that segmentation of big pictures takes: `python -m dvsn.predict` by windows, on pictures drawn here.

    python experiments/big_pictures/measure.py FOLDER sizes=3000x20000 network=pidnet_s
    python experiments/big_pictures/measure.py FOLDER sizes=20000x20000 network=tiny

Pictures are RGB TIFFs of street scenes, in tiles of 512 x 512 or in strips of 16 rows, with a made-up place on the earth.
The networks have random weights, which cost as much as trained ones: `pidnet_s` of 19 classes, or the same eight times as
narrow (`tiny`). Each picture is one process; its peak is `ru_maxrss`, which the kernel keeps, torch and all libraries
included. `empty` is that of a picture of one window. A row says whether the result has the size and place of its picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from dvsn.data.street.scene import draw_scene

NETWORKS = {
    "pidnet_s": [],
    "tiny": ["network.width=4", "network.pyramid_width=4", "network.head_width=8"],
}
FORMS: dict[str, dict[str, Any]] = {
    "tiled": {"tiled": True, "blockxsize": 512, "blockysize": 512},
    "strips": {"tiled": False, "blockysize": 16},
}
WINDOW, STRIDE = 1024, 960
PLACE = from_origin(600_000, 5_340_000, 0.1, 0.1)


def draw(path: Path, tall: int, wide: int, form: str) -> None:
    """A picture of so many pixels, a strip of scenes at a time, so that drawing takes little memory."""
    scenes = [draw_scene(seed=1, index=number, height=512, width=1024).photo for number in range(6)]
    profile = {
        "driver": "GTiff", "height": tall, "width": wide, "count": 3, "dtype": "uint8", "photometric": "ycbcr",
        "compress": "jpeg", "crs": "EPSG:32632", "transform": PLACE, **FORMS[form],
    }  # fmt: skip
    random = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as dataset:
        for top in range(0, tall, 512):
            height = min(512, tall - top)
            row = [
                cv2.flip(scenes[random.integers(6)], int(random.integers(2))) for _ in range(0, wide, 1024)
            ]
            strip = np.concatenate(row, axis=1)[:height, :wide]
            dataset.write(strip.transpose(2, 0, 1), window=Window(0, top, wide, height))


def make_checkpoint(path: Path, network: str) -> None:
    """A PIDNet-S of 19 classes with random weights."""
    import torch
    from hydra import compose

    from dvsn.config.compose import initialized, plain
    from dvsn.config.menu import conf_dir
    from dvsn.engine import trainer as runtime
    from dvsn.engine.checkpoint import AtomicCheckpointIO

    chosen = ["task=segmentation", "data=cityscapes", "network=pidnet_s", *NETWORKS[network]]
    with initialized(conf_dir()):
        config = plain(compose("train", overrides=["name=big", "run_dir=none", *chosen]))
    torch.manual_seed(0)
    task: Any = runtime.make_task(config).eval()
    state: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    AtomicCheckpointIO().save_checkpoint(state, path)


def measured(checkpoint: Path, picture: Path, output: Path) -> tuple[float, float, float]:
    """Peak memory in MB, seconds of processor time, seconds of one process."""
    options = [
        f"output={output}", "device=cpu", "write=ids", "big_pixels=0", "inference.mode=slide",
        f"inference.window=[{WINDOW},{WINDOW}]", f"inference.stride=[{STRIDE},{STRIDE}]", "inference.blend=ramp",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvsn.predict", str(checkpoint), str(picture), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said)
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, time.perf_counter() - start


def check(picture: Path, result: Path) -> str:
    with rasterio.open(picture) as one, rasterio.open(result) as other:
        same = one.shape == other.shape and one.crs == other.crs and one.transform == other.transform
        middle = other.read(1, window=Window(one.width // 2, one.height // 2, 512, 512))
        assert middle.max() < 19
    return "yes" if same else "NO"


def main() -> None:
    folder = Path(sys.argv[1])
    given = dict(each.split("=") for each in sys.argv[2:])
    network, form = given.get("network", "tiny"), given.get("form", "tiled")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{network}.ckpt"
    if "make" in given:
        make_checkpoint(checkpoint, network)
        return
    if (
        not checkpoint.exists()
    ):  # in a process of its own: what this one holds would be counted in the next one's peak
        subprocess.run([sys.executable, __file__, str(folder), f"network={network}", "make=1"], check=True)
    print("| network | picture | file, MB | peak, MB | processor, s | s | size and place kept |")
    print("| --- | --- | --: | --: | --: | --: | --- |", flush=True)
    for size in (f"{WINDOW}x{WINDOW}", *given.get("sizes", "5000x5000").split(",")):
        height, width = map(int, size.split("x"))
        picture = folder / f"{form}_{size}.tif"
        if not picture.exists():
            draw(picture, height, width, form)
        output = folder / f"out_{network}_{form}"
        peak, processor, seconds = measured(checkpoint, picture, output)
        kept = check(picture, output / picture.name)
        name = "empty: one window" if size == f"{WINDOW}x{WINDOW}" else f"{height:,} x {width:,}, {form}"
        megabytes = picture.stat().st_size / 1e6
        print(
            f"| {network} | {name} | {megabytes:.0f} | {peak:.0f} | {processor:.0f} | {seconds:.0f} | {kept} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
