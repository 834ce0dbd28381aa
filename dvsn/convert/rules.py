"""A published state dict becomes our network: finds the release, and lets its file do the work."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from torch import Tensor

import dvsn.convert
from dvsn.convert.release import Converted, State, shorten
from dvsn.errors import CheckpointError
from dvsn.weights import AVERAGED, Found, find_weights

PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every key
# Under these, side by side, the networks of one task:
PARTS = ("pfld_backbone", "auxiliarynet")


def convert(
    state: Mapping[str, Tensor], *, options: Mapping[str, Any] | None = None, container: str | None = None
) -> Converted:
    """The recipe and the weights of the network that `state` describes.

    The architecture is read from keys and shapes. Every key is used or listed in `dropped` with the reason; missing,
    unknown and misshapen keys raise `CheckpointError`.

    - `state` may also be a training script's file with the weights under `state_dict`, `model` or another of
      `dvsn.weights.CONTAINERS`. `container` names the entry; of several, `notes` says which was taken.
    - `options` are what the keys do not tell: `dropout` (and a U-Net's `dropout_steps`) of a generator, `image_channels`
      of a discriminator, `heads` of a segmenter (false: the evaluation form).
    """
    found = find_weights(state, container)
    state = strip_prefixes(require_tensors(join_parts(found.state)))
    known = releases()
    for release in known:
        if release.matches(state):
            converted = release.convert(state, options or {})
            return (
                converted if not found.others else replace(converted, notes=(*converted.notes, choice(found)))
            )
    layouts = {name: keys for release in known for name, keys in release.LAYOUTS.items()}
    raise CheckpointError(
        f"No known release has such keys: {shorten(list(state))} The nearest layout is "
        f"'{nearest_layout(state, layouts)}'. Known layouts: {', '.join(sorted(layouts))}."
    )


def releases() -> list[ModuleType]:
    """The files of this folder that describe a release."""
    names = sorted(file.name for file in pkgutil.iter_modules(dvsn.convert.__path__))
    modules = [importlib.import_module(f"dvsn.convert.{name}") for name in names if name[0] != "_"]
    return [module for module in modules if hasattr(module, "LAYOUTS")]


def choice(found: Found) -> str:
    """Which of several weights was taken, and how to take another."""
    others = ", ".join(f"'{name}'" for name in found.others)
    averaged = " (a running average of the weights)" if set(found.others) <= set(AVERAGED) else ""
    return (
        f"The weights under '{found.taken}' were taken; the file also holds {others}{averaged}, which "
        f"container={found.others[0]} takes."
    )


def join_parts(state: Any) -> Any:
    """One flat dict, with the part before each name, of a file that holds the networks of a task side by side; what
    stands beside them is ignored."""
    parts = [name for name in PARTS if isinstance(state, Mapping) and isinstance(state.get(name), Mapping)]
    if not parts:
        return state
    joined: dict[str, Tensor] = {}
    for part in parts:
        network = strip_prefixes(require_tensors(find_weights(state[part]).state))
        joined |= {f"{part}.{key}": value for key, value in network.items()}
    return joined


def require_tensors(state: Any) -> State:
    """Refuse anything but a flat dict of names and tensors."""
    if not isinstance(state, Mapping):
        raise CheckpointError(f"Expected a state dict (names to tensors), found {type(state).__name__}.")
    if not state:
        raise CheckpointError("The state dict is empty.")
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(f"Expected names as keys of the state dict, found {key!r}.")
        if isinstance(value, Mapping):
            raise CheckpointError(
                f"'{key}' holds a dict, not a tensor. If it is the network's state dict, pass it alone."
            )
        if not isinstance(value, Tensor):
            raise CheckpointError(f"'{key}' holds {type(value).__name__}, expected a tensor.")
    return state


def strip_prefixes(state: State) -> State:
    """Without the prefixes that wrappers put before every key."""
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def nearest_layout(state: State, layouts: Mapping[str, tuple[str, ...]]) -> str:
    """The layout whose typical keys resemble the found ones most."""

    def likeness(name: str) -> float:
        best = [
            1.0
            if typical in state
            else max(difflib.SequenceMatcher(None, typical, key).ratio() for key in list(state)[:100])
            for typical in layouts[name]
        ]
        return sum(best) / len(best)

    return max(sorted(layouts), key=likeness)
