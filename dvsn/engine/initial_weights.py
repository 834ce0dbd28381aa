"""Initial weights from another checkpoint (option `weights`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dvsn.errors import CheckpointError
from dvsn.hub.folder import RECIPE, WEIGHTS, read_single, read_weights
from dvsn.hub.resolve import local, read
from dvsn.networks.blocks import class_layers
from dvsn.networks.widening import fitted
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import find_weights, require_equal

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
    takes_published = any(hasattr(network, "adopt_published") for network in task.networks.values())
    content = contents(path) if takes_published else read(path)
    if takes_published and "dvsn" not in content:
        start_from_published(task, content, path)
        return
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
        state = fitted(state, network, own)
        fitting = fitting_of(state, own)
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
            say_taken(fitting, own, state, path, name)


def fitting_of(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that have the name and the shape of one of the network's own."""
    return {
        key: value
        for key, value in state.items()
        if key in own and isinstance(value, Tensor) and value.shape == own[key].shape
    }


def say_taken(
    fitting: Mapping[str, Any], own: Mapping[str, Any], state: Mapping[str, Any], path: str | Path, name: str
) -> None:
    log.info(
        "weights     %d tensors of %s taken for %s; %d start anew, %d of the file not used",
        len(fitting), path, name, len(own) - len(fitting), len(state) - len(fitting),
    )  # fmt: skip


def contents(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of dvsn, as `dvsn.hub.resolve.read` gives it; of a file that was published for a model its
    tensors by name, where they stand alone or in a training script's file. Raises `CheckpointError`."""
    place = local(path)
    if place.suffix == ".safetensors" and place.is_file():
        ours = place.name == WEIGHTS and (place.parent / RECIPE).is_file()
        if not ours:
            return read_single(place) or read_weights(place)
    content = read(place)
    if "dvsn" in content:
        return content
    state = find_weights(content).state
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def start_from_published(task: Task, state: dict[str, Tensor], path: str | Path) -> None:
    """Load a published file into the networks that take one. At least half of its tensors must have a place: the rest may
    be heads that the network has not. Raises `CheckpointError`."""
    for name, network in task.networks.items():
        if not hasattr(network, "adopt_published"):
            continue
        adopt: Any = network.adopt_published
        own = network.state_dict()
        found = fitted(adopt(state), network, own)
        fitting = fitting_of(found, own)
        if not fitting or 2 * len(fitting) < len(state):
            raise CheckpointError(
                f"{path}: of its {len(state)} tensors {len(fitting)} have a place in {type(network).__name__}. "
                "Expected a checkpoint of dvsn, or the file of the model that the network has by its name."
            )
        network.load_state_dict(own | fitting, strict=True)
        say_taken(fitting, own, state, path, name)
        compare_normalisation(task, network, path)


def compare_normalisation(task: Task, network: nn.Module, path: str | Path) -> None:
    """Warn where published weights saw pictures under another mean and deviation than this task's. Those of other
    channels than RGB's three have no counterpart."""
    expects, normalise = getattr(network, "expects", None), getattr(task, "normalise", None)
    if expects is None or normalise is None or normalise.mean.numel() != len(expects.mean):
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
