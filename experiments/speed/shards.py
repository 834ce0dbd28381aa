"""Shards in an S3 server on this machine against the folder that they were written from (see shards.md).

    python experiments/speed/shards.py --data data

needs `pip install 'dvsn[shards]' 'moto[server]'`, CamVid in DATA/camvid and CIFAR-10 as DATA/cifar10/train.tar.gz.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """moto's S3 server in a process of its own, with an empty bucket called `sets`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    import s3fs

    try:
        for _ in range(100):
            with contextlib.suppress(Exception):
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("sets")
                break
            time.sleep(0.1)
        yield "s3://sets"
    finally:
        process.terminate()
        process.wait()


def dvsn(module: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", f"dvsn.{module}", *arguments], check=True, env=environment)


def module(*arguments: str) -> Any:
    from dvsn.config import compose
    from dvsn.engine.trainer import build_data

    data = build_data(compose.hydra_main("data_check", lambda tree: tree, argv=list(arguments)))
    data.use("dataset")
    return data


def compare(source: str, shards: str) -> dict[str, int]:
    """The samples of train and val, all of them, as they are trained on in epoch 0. Raises where one differs."""
    one, other, counts = module(*source.split()), module(*shards.split()), {}
    for split in ("train", "val") if "camvid" in source else ("train",):
        a, b = (each.open(split, augment=split == "train") for each in (one, other))
        assert len(a) == len(b)
        for index in range(len(a)):
            x, y = a[0, index], b[0, index]
            assert x.keys() == y.keys() and x["name"] == y["name"], index
            assert all(np.array_equal(np.asarray(x[key]), np.asarray(y[key])) for key in x), index
        counts[split] = len(a)
    return counts


def epoch(line: str, *, number: int = 0, batches: int | None = None) -> dict[str, Any]:
    """Pictures a second of one epoch of training batches, two workers, without a network."""
    data = module(*line.split(), "data.workers=2")
    data.trainer = SimpleNamespace(
        world_size=1, global_rank=0, num_devices=1, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    data.datasets = {"train": data.open("train", augment=True)}
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(number)
    began, seen = time.perf_counter(), []
    for place, batch in enumerate(loader):
        seen += batch["index"].tolist()
        if batches is not None and place + 1 == batches:
            break
    rate = len(seen) / (time.perf_counter() - began)
    data.teardown("fit")
    return {"per_second": rate, "order": seen}


class Watch(threading.Thread):
    """The most bytes that a folder and the processes of this one ever had, looked at 50 times a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.disk, self.memory, self.ended = folder, 0, 0, False

    def run(self) -> None:
        while not self.ended:
            total = 0
            for each in self.folder.glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    total += each.stat().st_blocks * 512
            self.disk = max(self.disk, total)
            self.memory = max(self.memory, sum(map(resident, [os.getpid(), *children()])))
            time.sleep(0.02)


def children() -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def resident(process: int) -> int:
    """The proportional set size of a process: pages that several share are counted in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def bounded(line: str, folder: Path, *, cache_mb: int) -> dict[str, Any]:
    """One epoch with a cache that holds a part of the shards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    watch = Watch(folder)
    watch.start()
    found = epoch(f"{line} data.cache={folder} data.cache_mb={cache_mb} data.window_mb=8 data.prefetch_mb=4")
    watch.ended = True
    watch.join()
    assert sorted(found["order"]) == list(range(len(found["order"])))
    return {
        "cache_mb": cache_mb, "most_disk_mb": watch.disk / 2**20, "most_memory_mb": watch.memory / 2**20,
        "per_second": found["per_second"],
    }  # fmt: skip


def killed(line: str, folder: Path) -> dict[str, Any]:
    """A training that is killed in the middle of a shard and goes on, against one that is not: their weights."""
    options = [*line.split(), "task=classification", "network=resnet8", "transform=cifar", "data.train_samples=4096",
               "data.batch_size=128", "data.eval_batch_size=500", "data.splits.val='train[:1%]'", "trainer.accelerator=cpu",
               "trainer.max_epochs=2", "checkpoint.every_n_steps=5", "logger=csv", f"data.cache={folder}/cache"]  # fmt: skip
    whole, broken = folder / "whole", folder / "broken"
    dvsn("train", *options, f"run_dir={whole}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dvsn.train", *options, f"run_dir={broken}"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while process.poll() is None and not list((broken / "checkpoints").glob("*.ckpt")):
        time.sleep(0.01)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped = max((broken / "checkpoints").glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    step = torch.load(stopped, weights_only=True, map_location="cpu")["global_step"]
    dvsn("train", *options, f"run_dir={broken}", "resume=auto")
    one, other = (
        torch.load(each / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
        for each in (whole, broken)
    )
    same = all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    return {"resumed_at_step": step, "steps": one["global_step"], "weights_equal": same}


def speeds(lines: dict[str, str], *, turns: int, cache: Path, batches: int) -> dict[str, Any]:
    """Pictures a second of each way, in turns, of so many batches of 64; `cold`: its cache is emptied before."""
    found: dict[str, list[float]] = {name: [] for name in lines}
    for turn in range(turns):
        for name, line in lines.items():
            if name.endswith("cold"):
                shutil.rmtree(cache, ignore_errors=True)
            found[name].append(epoch(line, number=turn, batches=batches)["per_second"])
            print(turn, name, round(found[name][-1]), flush=True)
    first = next(iter(found.values()))
    return {
        name: {
            "per_second": statistics.median(values),
            "ratio": statistics.median(a / b for a, b in zip(values, first, strict=True)),
            "ratios": [round(a / b, 2) for a, b in zip(values, first, strict=True)],
        }
        for name, values in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder with camvid/ and cifar10/")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=["cifar", "camvid"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="shards_") as name, server() as bucket:
        work = Path(name)
        with tarfile.open(given.data / "cifar10" / "train.tar.gz") as archive:
            archive.extractall(work / "cifar", filter="data")
        sources = {
            "camvid": f"task=segmentation data=camvid data.root={given.data}/camvid",
            "cifar": f"task=classification data=imagefolder data.root={work}/cifar data.classes=10 data.splits.val=train "
            "data.splits.test=train transform=cifar",
        }  # fmt: skip
        extra = {"camvid": "task=segmentation", "cifar": "task=classification transform=cifar"}
        for key, source in ((each, sources[each]) for each in given.sets):
            lines = {"folder": source}
            for place, target in (("local", f"{work}/{key}_shards"), ("s3", f"{bucket}/{key}")):
                began = time.perf_counter()
                dvsn("data", "shard", *source.split(), f"target={target}", "shard_mb=4")
                seconds = time.perf_counter() - began
                result[f"{key} write {place}, s"] = seconds
                reading = f"{extra[key]} data=shards data.root={target} data.batch_size=64"
                if place == "s3":
                    reading += f" data.cache={work}/cache"
                    lines["s3 cold"] = reading
                lines["s3 warm" if place == "s3" else "local"] = reading
            lines["folder"] += " data.batch_size=64"
            result[f"{key} same samples"] = compare(lines["folder"], lines["s3 warm"])
            print(json.dumps(result), flush=True)
            result[f"{key} speed"] = speeds(
                lines, turns=given.turns, cache=work / "cache", batches=128 if key == "cifar" else 3
            )
            if key == "cifar":
                result["bounded"] = bounded(lines["s3 warm"], work / "small", cache_mb=20)
                unbounded = Watch(work / "cache")
                unbounded.start()
                epoch(lines["folder"])
                unbounded.ended = True
                result["memory of the folder, mb"] = unbounded.memory / 2**20
                result["killed"] = killed(f"data=shards data.root={bucket}/cifar", work)
            print(json.dumps(result), flush=True)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
