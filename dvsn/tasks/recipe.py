"""Recipes: the part of a checkpoint that describes its task, and the task that is rebuilt from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvsn.config.allow import renamed
from dvsn.config.build import build
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.resolve import read
from dvsn.tasks.base import Task
from dvsn.weights import require_equal

FORMAT = 1


def read_recipe(content: Mapping[str, Any], path: Any) -> dict[str, Any]:
    """The part of a checkpoint that describes its task: `recipe`, `data`, `format`, `version`. Raises `CheckpointError`."""
    header = content.get("dvsn")
    if not isinstance(header, dict) or not isinstance(header.get("recipe"), dict):
        keys = ", ".join(list(map(str, content))[:5])
        raise CheckpointError(
            f"{path}: not a dvsn checkpoint (it holds {keys}). Convert a published one first: "
            f"python -m dvsn.convert {path} converted.ckpt"
        )
    number = header.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CheckpointError(f"{path}: found the format {number!r}, expected a number from 1 to {FORMAT}.")
    if number > FORMAT:
        raise CheckpointError(
            f"{path}: written by dvsn {header.get('version')}, in a newer format than this version reads. Update dvsn."
        )
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: the file holds no weights (state_dict); it cannot be used.")
    return {**header, "recipe": renamed(header["recipe"]), "data": renamed(header.get("data"))}


def build_task(recipe: dict[str, Any], *, data: dict[str, Any] | None = None, path: Any = None) -> Task:
    """A task from its recipe, a plain dictionary, which must pass the allow-list.

    `graft` in it are layers that a method of distillation has added. `path` is the checkpoint of the recipe, for messages.
    """
    try:
        task = build({key: node for key, node in recipe.items() if key != "graft"}, path="task")
        if not isinstance(task, Task):
            raise ConfigError(
                "task: expected a node whose _target_ is a task, such as dvsn.tasks.pix2pix.Pix2Pix."
            )
        if recipe.get("graft") is not None:
            task.use_graft(recipe["graft"])
    except ConfigError as error:
        if path is None:
            raise
        raise CheckpointError(f"{path}: its recipe is refused: {error}") from error
    task.recipe, task.data_recipe = recipe, data or {}
    return task


def load(path: Any, *, device: str = "cpu") -> Task:
    """See `dvsn.load`."""
    content = read(path)
    header = read_recipe(content, path)
    task = build_task(header["recipe"], data=header.get("data"), path=path)
    load_state(task, content["state_dict"], path)
    task.to(device)
    task.eval()
    return task.requires_grad_(False)  # type: ignore[return-value]


def require_finite(task: Task, state: Mapping[str, Tensor], path: Any) -> None:
    """Raise `CheckpointError` for weights or statistics of norms that are NaN or infinite."""
    wanted = {name for name, _ in task.named_parameters()} | {key for key in state if ".running_" in key}
    bad = [key for key in state if key in wanted and not bool(torch.isfinite(state[key]).all())]
    if bad:
        raise CheckpointError(
            f"{path}: {len(bad)} of {len(state)} tensors hold numbers that are not finite, such as {', '.join(bad[:3])}. "
            "The training has diverged before it was written; take an earlier checkpoint, such as best.ckpt."
        )


def load_state(task: Task, state: Mapping[str, Tensor], path: Any) -> None:
    """Strictly load a task's weights; a difference is refused with the keys listed.

    What a distilled run holds beside its student, the modules and memory of the methods, is left out.
    """
    if task.distiller is None:
        state = {key: value for key, value in state.items() if not key.startswith("distiller.")}
    require_equal(task.state_dict(), state, path)
    require_finite(task, state, path)
    task.load_state_dict(state, strict=True)
