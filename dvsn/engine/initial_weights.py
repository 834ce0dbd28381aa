"""Initial weights from another checkpoint (option `weights`)."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from dvsn.errors import CheckpointError
from dvsn.hub.resolve import read
from dvsn.networks.blocks import class_layers
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import require_equal

log = logging.getLogger(__name__)


def start_from(task: Task, path: str | Path) -> None:
    """Load the networks that the checkpoint holds; one that it lacks as a whole stays fresh.

    From a checkpoint of the same task everything must fit, except that the class layers (`network.classifier`)
    start anew when the number of classes differs. From another task, such as the ImageNet classifier of the
    same family, or from a relative that the network can `adopt`, every tensor of equal name and shape is taken.
    What was taken and what was not is logged. Raises `CheckpointError` when it does not fit, or hardly anything
    does.
    """
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
