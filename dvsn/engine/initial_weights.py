"""Initial weights from another checkpoint (option `weights`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from dvsn.errors import CheckpointError
from dvsn.hub.folder import RECIPE, WEIGHTS, read_single, read_weights
from dvsn.hub.resolve import local, read
from dvsn.networks.blocks import class_layers
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import find_weights, read_checkpoint, require_equal

log = logging.getLogger(__name__)


def start_from(task: Task, path: str | Path) -> None:
    """Load the networks that the checkpoint holds; one that it lacks as a whole stays fresh.

    From a checkpoint of the same task everything must fit, except that the class layers (`network.classifier`)
    start anew when the number of classes differs. From another task, such as the ImageNet classifier of the
    same family, or from a relative that the network can `adopt`, every tensor of equal name and shape is taken.
    A network on a model of timm or torchvision (`adopt_published`) also takes a file that was published for that model.
    What was taken and what was not is logged. Raises `CheckpointError` when it does not fit, or hardly anything
    does.
    """
    if any(hasattr(network, "adopt_published") for network in task.networks.values()):
        state = published(path)
        if state is not None:
            start_from_published(task, state, path)
            return
    content = read(path)
    header = read_recipe(content, path)
    for name, network in task.networks.items():
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        if not state:
            log.warning("weights: %s has no %s, which starts anew", path, name)
            continue
        own, same = network.state_dict(), header.get("task") == task.kind
        adopt = getattr(network, "adopt", None)  # renames what a relative calls otherwise
        if adopt is not None and set(state) != set(own):
            state, same = adopt(state), False
        fitting = {
            key: value
            for key, value in state.items()
            if key in own and isinstance(value, torch.Tensor) and value.shape == own[key].shape
        }
        if same:
            heads = tuple(f"{path}." for path in class_layers(network))
            fresh = [key for key in own if key not in fitting]
            if any(not key.startswith(heads or ("/",)) for key in fresh) or any(
                key not in own for key in state
            ):
                require_equal(own, state, f"{path}, {name}")
        elif len(fitting) < len(own) // 3:
            raise CheckpointError(
                f"{path}: of the {len(own)} tensors of {type(network).__name__} only {len(fitting)} are in this "
                f"checkpoint of the task '{header.get('task')}'. Expected a network of the same family."
            )
        network.load_state_dict(own | fitting, strict=True)
        if len(fitting) < len(own) or len(fitting) < len(state):
            log.info(
                "weights     %d tensors of %s taken for %s; %d start anew, %d of the file not used",
                len(fitting), path, name, len(own) - len(fitting), len(state) - len(fitting),
            )  # fmt: skip


def published(path: str | Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a file that was published for a model, alone or in a training script's file; None of a checkpoint of
    dvsn, or of its folder. Raises `CheckpointError`."""
    place = local(path)
    if place.is_dir():
        return None
    if place.suffix == ".safetensors" and place.is_file():
        own = place.name == WEIGHTS and (place.parent / RECIPE).is_file()
        return None if own or read_single(place) is not None else read_weights(place)
    content = read_checkpoint(place)
    if "dvsn" in content:
        return None
    state = find_weights(content).state
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def start_from_published(task: Task, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load a published file into the networks that take one. Of an encoder's file at least half of its tensors must have a
    place, but for heads that are not part of the network. Raises `CheckpointError`."""
    for name, network in task.networks.items():
        if not hasattr(network, "adopt_published"):
            continue
        adopt: Any = network.adopt_published
        own, found = network.state_dict(), adopt(state)
        fitting = {key: value for key, value in found.items() if key in own and value.shape == own[key].shape}
        if 2 * len(fitting) < len(state):
            raise CheckpointError(
                f"{path}: of its {len(state)} tensors {len(fitting)} have a place in {type(network).__name__}. "
                "Expected a checkpoint of dvsn, or the file of the model that the network has by its name."
            )
        network.load_state_dict(own | fitting, strict=True)
        log.info(
            "weights     %d tensors of %s taken for %s; %d start anew, %d of the file not used",
            len(fitting), path, name, len(own) - len(fitting), len(state) - len(fitting),
        )  # fmt: skip
        compare_normalisation(task, network, path)


def compare_normalisation(task: Task, network: torch.nn.Module, path: str | Path) -> None:
    """Warn where published weights saw pictures under another mean and deviation than this task's."""
    expects, normalise = getattr(network, "expects", None), getattr(task, "normalise", None)
    if expects is None or normalise is None:
        return
    found = [
        tuple(round(value, 4) for value in each.flatten().tolist())
        for each in (normalise.mean, normalise.std)
    ]
    wanted = [tuple(round(value, 4) for value in each) for each in (expects.mean, expects.std)]
    if found != wanted or getattr(normalise, "channels", "rgb") != "rgb":
        mean, std = (",".join(f"{value:g}" for value in each) for each in wanted)
        log.warning(
            "weights: %s was trained on rgb under task.mean=[%s] task.std=[%s]; this training has %s %s, %s",
            path, mean, std, list(found[0]), list(found[1]), getattr(normalise, "channels", "rgb"),
        )  # fmt: skip
