"""What `old_checkpoints/make.py` and the test of its files share: data, commands in this process, numbers to compare."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import lzma
import os
import re
import runpy
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "old_checkpoints"
EXPECTED, TARGETS = FOLDER / "expected.json", FOLDER / "targets.txt"
ALLOWED = "old_backbone"  # the package that the old detector's backbone comes from
ENDING = ".ckpt.xz"
SAMPLED = 24  # numbers that are kept of an answer

# What the runs read -----------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """`folder`/faces and `folder`/classes; the street scenes are drawn by the first run that reads them."""
    command(
        "data", ["faces", "root=faces", "train=2", "test=1", "height=448", "width=896", "seed=63"], folder
    )
    write_classes(folder / "classes")


def write_classes(root: Path, *, train: int = 4, val: int = 3, size: int = 16) -> None:
    """An image folder of three classes: noise that is a little more red, green or blue."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", val)):
        for number, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                picture = random.integers(0, 200, (size, size, 3), dtype=np.uint8)
                picture[..., 2 - number] += 50  # OpenCV writes BGR
                cv2.imwrite(str(root / split / name / f"{index}.png"), picture)


def unpack(name: str, folder: Path) -> Path:
    """The checkpoint of that name as a file in `folder`."""
    path = folder / f"{name}.ckpt"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}{ENDING}").read_bytes()))
    return path


def pack(path: Path, name: str) -> None:
    (FOLDER / f"{name}{ENDING}").write_bytes(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


# Commands ---------------------------------------------------------------------------------------------------------


def command(module: str, arguments: list[str], folder: Path) -> None:
    """`python -m dvsn.MODULE ARGUMENTS` in `folder`, but in this process."""
    with contextlib.chdir(folder), setting(arguments), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules after import of package.*")
        runpy.run_module(f"dvsn.{module}", run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def setting(arguments: list[str]) -> Iterator[None]:
    """The command line and the environment of a command; what it does to the log of this process is undone."""
    argv, allowed = sys.argv, os.environ.get("DVSN_ALLOW")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    sys.argv, os.environ["DVSN_ALLOW"] = ["dvsn", *arguments], ALLOWED
    try:
        yield
    finally:
        sys.argv = argv
        for handler in {*root.handlers} - {*handlers}:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        del os.environ["DVSN_ALLOW"]
        if allowed is not None:
            os.environ["DVSN_ALLOW"] = allowed


def resume(name: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Go on from `folder`/NAME.ckpt to the end; the last checkpoint's content."""
    run = folder / "resumed" / name
    shutil.rmtree(run, ignore_errors=True)
    command("train", [*arguments, f"resume={name}.ckpt", f"hydra.run.dir=resumed/{name}"], folder)
    return read(run / "checkpoints" / "last.ckpt")


def evaluate(name: str, folder: Path, *, split: str) -> dict[str, float]:
    """The metrics of `folder`/NAME.ckpt."""
    output = f"evaluated/{name}"
    shutil.rmtree(folder / output, ignore_errors=True)
    options = ["trainer=cpu", "trainer.enable_progress_bar=false", "channels_last=false"]
    command("evaluate", [f"checkpoint={name}.ckpt", f"split={split}", f"output={output}", *options], folder)
    metrics = json.loads((folder / output / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert isinstance(metrics, dict)
    return metrics


def read(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


# Numbers ----------------------------------------------------------------------------------------------------------


def weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """All weights of a checkpoint by name; with a moving average also those that it is the average of."""
    parts = {"": content["state_dict"], "current:": content.get("current_model_state", {})}
    return {f"{part}{key}": value for part, state in parts.items() for key, value in sorted(state.items())}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    seen = hashlib.sha256()
    for key, value in tensors.items():
        seen.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        seen.update(value.detach().cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()


def sums(tensors: Mapping[str, Tensor]) -> list[float]:
    """Of every tensor the sum in float64, to ten digits."""
    return [float(f"{float(value.double().sum()):.10g}") for value in tensors.values()]


def picture(height: int, width: int) -> Tensor:
    """One uint8 picture (1, 3, H, W), the same everywhere: a slope with noise on it."""
    slope = np.linspace(0, 160, height * width * 3).reshape(1, 3, height, width)
    noise = np.random.default_rng(0).integers(0, 90, slope.shape)
    return torch.from_numpy((slope + noise).astype(np.uint8))


def answer(task: Any, size: tuple[int, int]) -> dict[str, Any]:
    """What a task answers for `picture`: how many numbers, and some of them."""
    with torch.no_grad():
        numbers = torch.cat([leaf.double().flatten() for leaf in leaves(task(picture(*size)))])
    kept = numbers[np.linspace(0, len(numbers) - 1, min(SAMPLED, len(numbers))).round().astype(int)]
    return {"count": len(numbers), "mean": float(numbers.mean()), "sample": kept.tolist()}


def leaves(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    else:
        for each in node.values() if isinstance(node, Mapping) else node:
            yield from leaves(each)


def targets(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, `_target_`) of every class that a config node names; `path` is where the node stands."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield path, node["_target_"]
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{path}.{number}")


# Machines ---------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What must be equal for the same bits: processor, threads and the libraries that compute or draw."""
    import albumentations
    import torchvision

    return {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "albumentations": albumentations.__version__,
    }


def processor() -> str:
    """Name, family, model and stepping of the first processor, where the system says so."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    found = [re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE) for key in
             ("model name", "cpu family", "model", "stepping")]  # fmt: skip
    return ", ".join(each.group(1).strip() for each in found if each) or "unknown"
