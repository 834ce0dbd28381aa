"""Every task, precision and lever once on a device, as one Markdown table: see run.sh.

Each row is a command of dvsn as a user gives it, or a few lines of torch. A row that fails says why, and the rest goes on;
the exit status is then 1. All data is drawn here. On `cpu` pictures are small, and rows that need a GPU say so.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import nn

from dvsn.config.menu import conf_dir
from dvsn.data.street.face_lists import write_wflw
from dvsn.networks.pidnet import PIDNet

LIMIT = 240  # seconds of one command
TOLERANCE = 0.01
"""How far a score in [0, 1] may be from the CPU's: bilinear enlargement and reductions add up in another order."""


BEST = "folded+channels_last+bf16"
LEVERS = ("plain", "tf32", BEST, f"{BEST}+graph", f"{BEST}+compiled")
"""Of the benchmark, on a GPU."""


class Row(NamedTuple):
    what: str
    setting: str
    result: str
    seconds: float
    good: bool = True


class Skip(Exception):
    """What this device cannot do."""


class Place(NamedTuple):
    """Where all happens."""

    device: str
    runs: Path

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"


def write_pictures(root: Path, size: int) -> None:
    """Noise in three colours, a class each, for classification."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name, colour in {"red": (40, 40, 200), "green": (40, 200, 40), "blue": (200, 40, 40)}.items():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                picture = np.array(colour) + random.integers(-40, 41, (size, size, 3))
                cv2.imwrite(str(root / split / name / f"{index}.png"), picture.clip(0, 255).astype(np.uint8))


def tasks(place: Place) -> dict[str, list[str]]:
    """Of each task the options of a short run: published networks on a GPU, small ones on the CPU."""
    small = not place.gpu
    side, height = (64, 128) if small else (512, 512)
    street = [
        "data=street", f"data.root={place.runs}/street", "data.scenes={train: 16, val: 4, test: 4}", f"data.height={height}",
        f"data.width={2 * height}",
    ]  # fmt: skip
    faces = ["data=wflw", f"data.root={place.runs}/faces"]
    crop = [f"transform.crop_height={side}", f"transform.crop_width={side}", "transform.base=0"]
    heatmaps = ["network=hrnet_small"] if small else []
    return {
        "segmentation": ["task=segmentation", *street, *crop, "data.batch_size=4"],
        "pix2pix": ["task=pix2pix", *street, "transform=resize_256", "data.batch_size=2",
                    *(["network.width=8", "discriminator.width=8"] if small else [])],
        "detection": ["task=detection", *street, "data.batch_size=2",
                      *(["network=detector_small", "network.min_size=96", "network.max_size=192"] if small else [])],
        "pose": ["task=pose", *street, "data.batch_size=4", *heatmaps, *(["transform.size=[64,64]"] if small else [])],
        "landmarks": ["task=landmarks", *faces, "data.batch_size=4"],
        "landmarks_heatmaps": ["task=landmarks_heatmaps", *faces, "data.batch_size=4", *heatmaps,
                               *(["transform.size=[64,64]"] if small else [])],
        "classification": ["task=classification", "data=imagefolder", f"data.root={place.runs}/pictures", "data.classes=3",
                           "network=resnet8" if small else "network=resnet50_classifier",
                           "transform=none" if small else "transform=imagenet_224", "data.batch_size=6",
                           "data.eval_batch_size=1"],
    }  # fmt: skip


def call(module: str, *options: str) -> str:
    """What a command of dvsn prints. Raises `RuntimeError` with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"dvsn.{module}", *options],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or [""]
        raise RuntimeError(f"exit {done.returncode}: {lines[-1][:200]}")
    return done.stdout


def options_of(place: Place, name: str, folder: Path, precision: str = "32-true") -> list[str]:
    steps = ["trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=2"]
    quiet = ["callbacks=none", "logger=none", "trainer.enable_progress_bar=false", "data.workers=2"]
    where = [
        f"trainer.accelerator={'gpu' if place.gpu else 'cpu'}",
        f"trainer.precision={precision}",
        f"run_dir={folder}",
    ]
    return [*tasks(place)[name], *steps, *quiet, *where]


def train(place: Place, name: str, label: str, *more: str, precision: str = "32-true") -> str:
    """A run of four steps; its seconds and peak memory."""
    folder = place.runs / name / label
    call("train", *options_of(place, name, folder, precision), *more)
    result = json.loads((folder / "result.json").read_text())
    if not np.isfinite(result["objective"] if result["objective"] is not None else np.nan):
        raise RuntimeError(f"the score is {result['objective']}")
    return f"{result['steps']} steps in {result['seconds']:.1f} s, peak memory {result['peak_memory_bytes'] / 2**20:.0f} MiB"


def kill_and_resume(place: Place, name: str) -> str:
    """A run that is killed behind its second step and resumed, against one that was not."""
    whole, broken = place.runs / name / "whole", place.runs / name / "killed"
    more = ["checkpoint.every_n_steps=1", "trainer.limit_val_batches=0", "trainer.max_epochs=2"]
    more += ["trainer.deterministic=warn"]
    call("train", *options_of(place, name, whole), *more)
    command = [sys.executable, "-m", "dvsn.train", *options_of(place, name, broken), *more]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last, end = broken / "checkpoints" / "last.ckpt", time.monotonic() + LIMIT
    while not last.is_file() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    killed = started.wait() == -signal.SIGKILL
    call("train", *options_of(place, name, broken), *more, f"resume={last}")
    weights = [
        torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        for folder in (whole, broken)
    ]
    apart = max(
        float((a.double() - weights[1][key].double()).abs().max())
        for key, a in weights[0].items()
        if a.numel()
    )
    limit = 1e-2 if place.gpu else 0.0
    if apart > limit:
        raise RuntimeError(
            f"weights differ by {apart:.1e} from those of a run that was not killed, allowed {limit:g}"
        )
    return f"{'killed and resumed' if killed else 'ended before it was killed, resumed'}; weights differ by {apart:.1e}"


def evaluate(place: Place, name: str) -> str:
    """The scores of a checkpoint on the device and on the CPU."""
    checkpoint = place.runs / name / "float32" / "checkpoints" / "last.ckpt"
    found = []
    for accelerator in ("gpu" if place.gpu else "cpu", "cpu"):
        output = place.runs / name / f"evaluated_{len(found)}_{accelerator}"
        call(
            "evaluate", f"checkpoint={checkpoint}", "split=val", f"trainer.accelerator={accelerator}",
            "trainer.precision=32-true", f"output={output}",
        )  # fmt: skip
        found.append(numbers(json.loads((output / "metrics.json").read_text())))
    if found[0].keys() != found[1].keys():
        raise RuntimeError(f"the CPU has other scores: {sorted(found[0].keys() ^ found[1].keys())}")
    worst = max(found[0], key=lambda key: off(found[0][key], found[1][key]))
    apart = off(found[0][worst], found[1][worst])
    if apart > (TOLERANCE if place.gpu else 0.0):
        raise RuntimeError(f"{worst}: {found[0][worst]:g}, on the CPU {found[1][worst]:g}")
    return f"{len(found[0])} scores, at most {apart:.1e} off (allowed {TOLERANCE:g}; as a share where they are above 1)"


def off(a: float, b: float) -> float:
    """How far two scores are apart: as a share of those above 1."""
    return 0.0 if a == b or (a != a and b != b) else abs(a - b) / max(1.0, abs(b))


def numbers(node: Any, path: str = "") -> dict[str, float]:
    """The scores of a metrics.json."""
    if isinstance(node, dict):
        return {
            key: value
            for name, each in node.items()
            for key, value in numbers(each, f"{path}/{name}").items()
        }
    good = isinstance(node, int | float) and not isinstance(node, bool) and "second" not in path
    return {path: float(node)} if good else {}


def benchmark(place: Place, network: str, size: tuple[int, int], batch: int) -> str:
    """Milliseconds a pass of every lever of this device."""
    size = size if place.gpu else (size[0] // 8 // 32 * 32 or 32, size[1] // 8 // 32 * 32 or 32)
    output = place.runs / f"benchmark_{network}_{batch}.json"
    variants = LEVERS if place.gpu else ["plain", "folded"]
    call(
        "benchmark", f"network={network}", f"size=[{size[0]},{size[1]}]", f"batch={batch}", f"device={place.device}",
        f"seconds={2 if place.gpu else 0.3}", "protocols=[network]", f"output={output}", f"variants=[{','.join(variants)}]",
    )  # fmt: skip
    rows = json.loads(output.read_text())["rows"]
    told = [
        f"{row['variant']} {row['milliseconds']['median']:.2f} ms"
        if row.get("milliseconds")
        else f"{row['variant']}: {row.get('failed') or 'not measured'}"
        for row in rows
    ]
    return f"{size[0]}x{size[1]}: {', '.join(told)}"


def pipeline(place: Place) -> str:
    """Pictures a second from the disk, against those that the device trains on."""
    folder, workers = place.runs / "segmentation" / "pipeline", max(1, min(8, os.cpu_count() or 1))
    more = [f"data.workers={workers}", "trainer.max_epochs=6", "trainer.limit_val_batches=0"]
    call("train", *options_of(place, "segmentation", folder, "bf16-mixed" if place.gpu else "32-true"), *more)
    trained = json.loads((folder / "result.json").read_text())
    code = (
        "import json, sys, time, yaml; from dvsn.engine.trainer import build_data; "
        "data = build_data(yaml.safe_load(open(sys.argv[1]))); read = data.open('train', augment=True); "
        "start = time.perf_counter(); [read[epoch, i] for epoch in range(2) for i in range(len(read))]; "
        "print(2 * len(read) / (time.perf_counter() - start))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    one, rate = float(done.stdout.split()[-1]), 4 * trained["steps"] / trained["seconds"]
    return f"one worker reads {one:.0f} pictures/s, {workers} feed a training of {rate:.0f} pictures/s"


def rank_gradient(rank: int, port: int, device: str, path: str) -> None:
    """One of two processes on one device: the gradient of its half of a batch, averaged by DDP over gloo."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    network, image = small_network(device)
    both = nn.parallel.DistributedDataParallel(network)
    both(image[2 * rank : 2 * rank + 2], heads=False).logits.mean().backward()
    if rank == 0:
        torch.save([p.grad.cpu() for p in network.parameters() if p.grad is not None], path)
    dist.destroy_process_group()


def small_network(device: str) -> tuple[PIDNet, torch.Tensor]:
    """A PIDNet in evaluation mode, whose gradient does not depend on the batch, and four pictures."""
    torch.manual_seed(0)
    network = PIDNet(classes=3, width=8, pyramid_width=8, head_width=8, heads=False).eval().to(device)
    return network, torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(device)


def two_ranks(place: Place) -> str:
    """Two processes on one device by gloo: their averaged gradient is that of the whole batch."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = place.runs / "two_ranks.pt"
    processes.spawn(rank_gradient, args=(port, place.device, str(path)), nprocs=2)
    network, image = small_network(place.device)
    network(image, heads=False).logits.mean().backward()
    alone = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
    together = torch.load(path, weights_only=True)
    largest = max(float(a.abs().max()) for a in alone)
    apart = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True)) / largest
    if apart > 1e-3:
        raise RuntimeError(f"gradients differ by {apart:.1e} of the largest")
    return f"gradients differ by {apart:.1e} of the largest (allowed 1e-3)"


def needs_gpu(place: Place, run: Callable[[], str]) -> str:
    if not place.gpu:
        raise Skip("needs a GPU")
    return run()


Work = tuple[str, str, Callable[[], str]]


def trainings(place: Place) -> list[Work]:
    """Every task in float32, which the evaluations need, and in other precisions, layouts and compiled."""
    do, names = functools.partial, list(tasks(place))
    rows: list[Work] = [(f"{name} trains", "float32", do(train, place, name, "float32")) for name in names]
    for name in names if place.gpu else names[:1]:
        rows.append((f"{name} trains", "bf16-mixed", do(train, place, name, "bf16", precision="bf16-mixed")))
        half = do(train, place, name, "fp16", precision="16-mixed")
        rows.append((f"{name} trains", "16-mixed", do(needs_gpu, place, half)))
    for value in ("true", "false"):
        option = f"channels_last={value}"
        rows.append(
            ("segmentation trains", option, do(train, place, "segmentation", f"layout_{value}", option))
        )
    for name in ("segmentation", "classification"):
        compiled = do(train, place, name, "compiled", "compile=true")
        rows.append((f"{name} trains", "compile=true", do(needs_gpu, place, compiled)))
    return rows


def evaluations(place: Place) -> list[Work]:
    do = functools.partial
    return [
        (f"{name} evaluates", f"{place.device} against cpu", do(evaluate, place, name))
        for name in tasks(place)
    ]


def alone(place: Place) -> list[Work]:
    """What is timed, or killed, and has the device to itself."""
    do, many = functools.partial, 32 if place.gpu else 2
    return [
        ("segmentation resumes", "SIGKILL", do(kill_and_resume, place, "segmentation")),
        ("pidnet_s", "batch 1", do(benchmark, place, "pidnet_s", (1024, 2048), 1)),
        ("hrnet_w32", "batch 1", do(benchmark, place, "hrnet_w32", (256, 192), 1)),
        ("hrnet_w32", f"batch {many}", do(benchmark, place, "hrnet_w32", (256, 192), many)),
        ("input pipeline", "segmentation", do(pipeline, place)),
        ("two ranks on one device", "gloo", do(two_ranks, place)),
    ]


def measured(what: str, setting: str, how: Callable[[], str]) -> Row:
    started = time.monotonic()
    try:
        result, good = how(), True
    except Skip as reason:
        result, good = f"left out: {reason}", True
    except Exception as error:  # noqa: BLE001 - a row says what failed, and the others go on
        result, good = f"FAILED: {' '.join(str(error).split())[:300]}", False
    return Row(what, setting, result, time.monotonic() - started, good)


def page(place: Place, rows: list[Row], seconds: float) -> str:
    name = (
        torch.cuda.get_device_name()
        if place.gpu
        else "the CPU, with small pictures: no row of this page ran on a GPU"
    )
    failed = sum(not row.good for row in rows)
    lines = [
        f"# dvsn on {name}", "",
        f"{datetime.date.today()}, torch {torch.__version__}, {seconds:.0f} s in all, {failed} of "
        f"{len(rows)} rows failed. `bash experiments/gpu/run.sh` makes this page.", "",
        "| what | setting | result | s |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row.what} | {row.setting} | {row.result.replace('|', '/')} | {row.seconds:.0f} |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--output", type=Path, default=Path("experiments/gpu/gpu.md"))
    parser.add_argument("--only", default="", help="rows whose name or setting has this text")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print(
            "There is no GPU here that torch can use. DEVICE=cpu tries the script itself on the CPU.",
            file=sys.stderr,
        )
        return 2
    os.chdir(Path(conf_dir()).parent)
    place = Place(given.device, given.runs.absolute() / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    place.runs.mkdir(parents=True)
    write_pictures(place.runs / "pictures", 32 if given.device == "cpu" else 256)
    write_wflw(place.runs / "faces", train=16, test=8)
    started, rows = time.monotonic(), []
    for works, jobs in ((trainings(place), 4), (evaluations(place), 4), (alone(place), 1)):
        chosen = [work for work in works if given.only in f"{work[0]}, {work[1]}"]
        with ThreadPoolExecutor(jobs if place.gpu else 1) as pool:
            for row in pool.map(measured, *zip(*chosen, strict=True)) if chosen else ():
                rows.append(row)
                print(f"{row.seconds:5.0f} s  {row.what}, {row.setting}: {row.result}", flush=True)
                given.output.write_text(page(place, rows, time.monotonic() - started), encoding="utf-8")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
