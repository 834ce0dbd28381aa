"""Shared by all releases: the result of a conversion, and the strict transfer of published weights.

A release is one file of this folder with

    LAYOUTS: dict[str, tuple[str, ...]]     name of a layout -> a few keys that are typical of it
    matches(state) -> bool                  is this state dict one of mine?
    convert(state, options) -> Converted

and `dvsn.convert.rules` finds it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dvsn.errors import CheckpointError, ConfigError, nearest

SHOWN = 8
State = Mapping[str, Tensor]
Kind = Literal["generator", "discriminator", "segmenter", "classifier", "pose", "landmarks", "detector"]


@dataclass(frozen=True)
class Converted:
    """A published network in our terms.

    - `network`: its recipe (`_target_` and every option), as the node of a config;
    - `state`: weights that fit the network of the recipe, strictly;
    - `dropped`: each published key that was left out, with the reason;
    - `notes`: assumptions about what the keys do not tell;
    - `task`, `codec`: options of the task and of its heatmaps that the release implies, such as `mean` and `std`.
    """

    network: dict[str, Any]
    kind: Kind
    layout: str
    state: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: dict[str, Any] = field(default_factory=dict)
    codec: dict[str, Any] = field(default_factory=dict)


def recipe(
    network: type[nn.Module], inferred: dict[str, Any], options: Mapping[str, Any], *, free: tuple[str, ...]
) -> dict[str, Any]:
    """The node that builds `network`: what the keys tell, and the user's choice of the `free` rest."""
    for name in options:
        if name not in free:
            raise ConfigError(
                f"options.{name}: a {network.__name__} has no such choice. {nearest(name, free)}"
            )
    return {"_target_": f"{network.__module__}.{network.__qualname__}", **inferred, **options}


class SkipRandom(TorchFunctionMode):
    """Skips random initial values: weights on `meta` need none, and drawing them would import much of torch (5 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__.endswith(("normal_", "uniform_")):  # of Tensor, or of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_empty(network: type[nn.Module], node: Mapping[str, Any]) -> nn.Module:
    """The network of a recipe, without memory for its weights."""
    with torch.device("meta"), SkipRandom():
        return network(**{name: value for name, value in node.items() if name != "_target_"})


def require_shape(state: State, key: str, *, dimensions: int) -> tuple[int, ...]:
    """The shape of an entry from which the architecture is read."""
    if key not in state:
        raise CheckpointError(f"The checkpoint has no '{key}', which a network of this layout must have.")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"'{key}' has shape {shape}, expected {dimensions} dimensions, none empty.")
    return shape


def outputs(state: State, key: str, *, dimensions: int = 4) -> int:
    """How many outputs the layer of a weight has."""
    return require_shape(state, key, dimensions=dimensions)[0]


def find_norm(state: State, *, inner_bias: Callable[[str], bool]) -> dict[str, Any]:
    """`norm` and `bias` of a network, read from its keys.

    Batch norm has scales and running statistics. Without it, `inner_bias(key)` tells instance norm, under
    which the inner convolutions have a bias, from no norm at all, under which the release gives them none.
    """
    tracked = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
    affine = any(f"{module}.weight" in state or f"{module}.bias" in state for module in tracked)
    if affine or any(key.endswith(".weight") and value.ndim == 1 for key, value in state.items()):
        return {"norm": "batch", "bias": None}
    if any(inner_bias(key) for key in state):
        return {"norm": "instance", "bias": None}
    return {"norm": "none", "bias": False}


def transfer(
    state: State, network: nn.Module, modules: Mapping[str, str], *, droppable: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Published weights under our names, and the dropped keys with their reasons.

    `modules` maps our module paths to the published ones. `droppable` maps published keys that may be left
    out to the reason. Any other missing, unknown or misshapen key is refused.
    """
    names = {
        key: f"{modules[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}" for key in network.state_dict()
    }
    converted: dict[str, Tensor] = {}
    missing, misfits = [], []
    counted = any(key.endswith(".num_batches_tracked") for key in state)
    for ours, expected in network.state_dict().items():
        theirs = names[ours]
        if theirs not in state:
            if ours.endswith("num_batches_tracked") and not counted:  # PyTorch before 0.4.1 did not count
                converted[ours] = torch.zeros((), dtype=torch.long)
            else:
                missing.append(theirs)
            continue
        found = state[theirs]
        if found.shape != expected.shape or found.is_floating_point() != expected.is_floating_point():
            misfits.append(f"{theirs} {describe(found)} instead of {describe(expected)}")
            continue
        converted[ours] = found.detach().to(device="cpu", dtype=expected.dtype).contiguous()
    used = set(names.values())
    left = [key for key in state if key not in used]
    unknown = [key for key in left if key not in droppable]
    problems = {"missing": missing, "unknown": unknown, "with another shape or type": misfits}
    if any(problems.values()):
        lines = [f"{len(keys)} {what}: {shorten(keys)}" for what, keys in problems.items() if keys]
        raise CheckpointError(
            f"The keys do not fit the {type(network).__name__} that they seem to describe. " + " ".join(lines)
        )
    return converted, {key: droppable[key] for key in left}


def convert_renamed(
    state: State,
    network: type[nn.Module],
    node: dict[str, Any],
    modules: Mapping[str, str],
    kind: Kind,
    layout: str,
    *,
    droppable: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Converted:
    """The strict conversion of a file whose names are not ours; for `modules` and `droppable` see `transfer`."""
    converted, dropped = transfer(state, build_empty(network, node), modules, droppable=droppable or {})
    return Converted(node, kind, layout, converted, dropped, notes)


def describe(tensor: Tensor) -> str:
    """Shape, and type unless it is the usual one."""
    usual = tensor.dtype in (torch.float32, torch.int64)
    return f"{tuple(tensor.shape)}" + ("" if usual else f" {str(tensor.dtype).removeprefix('torch.')}")


def shorten(keys: list[str]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more + "."


def split_channels(total: int, options: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """A discriminator's input channels as condition and image; only their sum is in the checkpoint."""
    image = options.get("image_channels", min(total, 3) if total != 2 else 1)
    if type(image) is not int or not 1 <= image <= total:
        raise ConfigError(f"options.image_channels: expected 1..{total}, found {image!r}.")
    notes: tuple[str, ...] = ()
    if "image_channels" not in options and total not in (3, 6):
        notes = (f"Of the {total} input channels {image} are taken to be the image's (image_channels=...).",)
    return {"condition_channels": total - image, "image_channels": image}, notes
