"""An exported file in the place of a trained network: the task of its manifest, whose answers come from the file.

So a file is measured by the same code, on the same samples, as the checkpoint that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from dvsn.config.allow import renamed
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.folder import restored
from dvsn.portable.contract import ANSWERS
from dvsn.portable.engine import Engine, open_engine
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import build_task, load

SUFFIXES = (".onnx", ".xml")


def is_exported(path: str | Path) -> bool:
    """Whether the path is that of an exported file, by its ending."""
    return Path(path).suffix in SUFFIXES


def header_of(engine: Engine) -> dict[str, Any]:
    """What a checkpoint's header holds, from a file's manifest: `task`, `recipe` and `data`. Raises `CheckpointError` for a
    file of raw answers, which nothing here decodes, or one without a recipe."""
    about = engine.manifest
    if about.get("raw"):
        raise CheckpointError(
            f"{engine.path}: was exported with raw=true, so its answers are not decoded. Export the checkpoint without raw."
        )
    if not isinstance(about.get("recipe"), dict):
        raise CheckpointError(f"{engine.path}: its manifest holds no recipe, so its task cannot be rebuilt.")
    return {
        "task": about["task"],
        "recipe": renamed(restored(about["recipe"])),
        "data": renamed(restored(about.get("data"))),
    }


def open_exported(path: str | Path, *, threads: int | None = None) -> Task:
    """The task of an exported file, whose answers come from the file. Raises `CheckpointError`."""
    engine = open_engine(path, threads=threads)
    header = header_of(engine)
    task = build_task(header["recipe"], data=header["data"], path=path)
    return answer_by(task, engine).eval().requires_grad_(False)  # type: ignore[no-any-return]


def open_task(path: str | Path, *, device: str = "cpu") -> Task:
    """The trained task of a checkpoint, or of an exported file, which runs on the CPU. Raises `CheckpointError`."""
    if not is_exported(path):
        return load(path, device=device)
    if device not in ("cpu", "auto"):
        raise ConfigError(
            f"device: found {device}; {path} is an exported file, which its own runtime asks on the CPU."
        )
    return open_exported(path)


def answer_by(task: Any, engine: Engine, *, alone: bool = True) -> Any:
    """The task, whose answers are those of `engine` from now on. Raises `CheckpointError` for a file of another task.

    With `alone` its network, whose weights nobody has loaded, refuses to be asked.
    """
    wanted = ANSWERS.get(str(task.response))
    if wanted is None or not set(wanted) <= set(engine.names):
        told = "nothing that is known" if wanted is None else ", ".join(wanted)
        raise CheckpointError(
            f"{engine.path}: its manifest is of another task: it answers with {', '.join(engine.names)}, and the task "
            f"'{task.kind}' with {told}. Export the checkpoint again."
        )

    def ask(image: Tensor, offset: Tensor | None = None) -> dict[str, Tensor]:
        shift = None if offset is None else offset.cpu().numpy()
        answer = engine.ask_all(image.cpu().numpy(), shift)
        return {name: torch.from_numpy(each).to(image.device) for name, each in answer.items()}

    def refuse(*_: Any, **__: Any) -> Any:
        raise CheckpointError(
            f"{engine.path}: the task '{task.kind}' asks its network for something that an exported file does not answer. "
            "Give the checkpoint instead."
        )

    GIVERS[str(task.response)](task, ask)
    if alone:
        task.network.forward = refuse
    return task


def pixels(task: Any, ask: Any) -> None:
    task.predict_ids = lambda image: ask(image)["ids"]


def picture(task: Any, ask: Any) -> None:
    task.forward = lambda image: ask(image)["picture"]


def classes(task: Any, ask: Any) -> None:
    """Logarithms of the probabilities: their soft-max is the probabilities again."""
    task.forward = lambda image: ask(image)["probabilities"].clamp(min=1e-30).log()


def points(task: Any, ask: Any) -> None:
    def estimate(image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        answer = ask(image, offset)
        return answer["points"], answer["confidence"]

    use = task.use_metrics

    def use_metrics(**options: Any) -> None:
        use(**options)
        keep_score(task)

    task.estimate, task.use_metrics = estimate, use_metrics
    keep_score(task)


def keep_score(task: Any) -> None:
    """Leave out the errors of the head's angles, which a file does not answer with."""
    if "angles" in task.metrics:
        task._metrics = (MetricCollection({"score": task.score}, compute_groups=False),)


def objects(task: Any, ask: Any) -> None:
    task.find = lambda image: [ask(each[None]) for each in image]


GIVERS: dict[str, Callable[[Any, Any], None]] = {
    "pixels": pixels, "image": picture, "classes": classes, "heatmaps": points, "points": points, "objects": objects,
}  # fmt: skip
"""By what a task's network answers with: how the task is made to give the answers of a file."""
