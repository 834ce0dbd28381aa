"""An exported file in the place of a trained network: the task of its manifest, whose answers come from the file.

So a file is measured by the same code, on the same samples, as the checkpoint that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvsn.config.allow import renamed
from dvsn.errors import CheckpointError
from dvsn.portable.engine import Engine, open_engine
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import build_task

SUFFIXES = (".onnx", ".xml")


def stand_in(path: str | Path, *, data: dict[str, Any] | None = None, threads: int | None = None) -> Task:
    """The task of an exported file. `data` replaces the data node of its manifest. Raises `CheckpointError` for a file of
    another origin, or one of raw answers, which nothing here decodes."""
    engine = open_engine(path, threads=threads)
    about = engine.manifest
    if about.get("raw"):
        raise CheckpointError(
            f"{path}: was exported with raw=true, before its answers are decoded. Export it without raw."
        )
    if not isinstance(about.get("recipe"), dict):
        raise CheckpointError(f"{path}: its manifest holds no recipe, so its task cannot be rebuilt.")
    task = build_task(renamed(about["recipe"]), data=data or renamed(about.get("data")), path=path)
    return answer_by(task, engine).eval().requires_grad_(False)


def answer_by(task: Any, engine: Engine) -> Any:
    """The task, whose answers are those of `engine` from now on."""
    ask = batched(engine)
    kinds: dict[str, Callable[[Any, Any], None]] = {
        "pixels": pixels, "image": picture, "classes": classes, "heatmaps": points, "points": points, "objects": objects,
    }  # fmt: skip
    kinds[str(task.response)](task, ask)
    return task


def batched(engine: Engine) -> Callable[[Tensor], list[Tensor]]:
    """Asks for as many pictures at a time as the file takes; a last group that is smaller is filled up."""
    fixed = engine.manifest["input"]["shape"][0]

    def ask(image: Tensor) -> list[Tensor]:
        if fixed is None:
            return [torch.from_numpy(each) for each in engine(image.cpu().numpy()).values()]
        parts = []
        for group in image.cpu().split(fixed):
            missing = fixed - len(group)
            filled = torch.cat([group, group[-1:].expand(missing, -1, -1, -1)]) if missing else group
            parts.append([torch.from_numpy(each)[: len(group)] for each in engine(filled.numpy()).values()])
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    return ask


def pixels(task: Any, ask: Any) -> None:
    task.predict_ids = lambda image: ask(image)[0].to(image.device)


def picture(task: Any, ask: Any) -> None:
    task.forward = lambda image: ask(image)[0].to(image.device)


def classes(task: Any, ask: Any) -> None:
    """Logarithms of the probabilities: their soft-max is the probabilities again."""
    task.forward = lambda image: ask(image)[0].clamp(min=1e-30).log().to(image.device)


def points(task: Any, ask: Any) -> None:
    def estimate(image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        places, confidence = ask(image)
        return places.to(image.device), confidence.to(image.device)

    task.estimate = estimate


def objects(task: Any, ask: Any) -> None:
    names = ("boxes", "labels", "scores", "masks")

    def find(image: Any) -> list[dict[str, Tensor]]:
        return [dict(zip(names, ask(each[None]), strict=False)) for each in image]

    task.find = find
