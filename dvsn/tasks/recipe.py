"""Recipes: the part of a checkpoint that describes its task, and the task that is rebuilt from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvsn.config.allow import renamed
from dvsn.config.build import build
from dvsn.config.types import fits, found
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.resolve import read
from dvsn.tasks.base import Task
from dvsn.weights import require_equal

FORMAT = 1
NODES = ("splits", "dataset", "transform", "pair", "facts", "people", "objects", "keypoints")
"""Of a data set's description what has options of its own."""


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
    require_tensors(content["state_dict"], path)
    require_parts(header.get("data"), path)
    data = renamed(header.get("data"))
    if isinstance(data, dict):  # what is null is not there
        data = {key: node for key, node in data.items() if node is not None or key not in NODES}
    return {**header, "recipe": renamed(header["recipe"]), "data": data}


def require_tensors(state: Mapping[str, Any], path: Any) -> None:
    """Raise `CheckpointError` for weights that are none."""
    odd = [
        f"{key} is a {type(value).__name__}" for key, value in state.items() if not isinstance(value, Tensor)
    ]
    if odd:
        raise CheckpointError(
            f"{path}: {len(odd)} of {len(state)} weights cannot be used, not a tensor: {', '.join(odd[:3])}. "
            "The file was altered."
        )


def require_parts(data: Any, path: Any) -> None:
    """Raise `CheckpointError` where a part of the data set's description is not of its kind."""
    parts = {"data": data}
    if isinstance(data, Mapping):
        parts |= {f"data.{key}": data.get(key) for key in NODES}
        for owner in ("dataset", "keypoints"):
            names = data[owner].get("names") if isinstance(data.get(owner), Mapping) else None
            if names is not None and not fits(names, list[str]):
                raise CheckpointError(
                    f"{path}: its recipe is damaged: data.{owner}.names: expected a list of names, {found(names)}."
                )
        if isinstance(transform := data.get("transform"), Mapping):
            parts |= {f"data.transform.{key}": transform.get(key) for key in ("train", "eval")}
    for name, node in parts.items():
        steps = name.startswith("data.transform.") and isinstance(node, list | tuple)
        if node is not None and not isinstance(node, Mapping) and not steps:
            kind = "steps" if name.startswith("data.transform.") else "a mapping"
            raise CheckpointError(
                f"{path}: its recipe is damaged: {name}: expected {kind}, {found(node)}. Use another checkpoint of the run."
            )


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
