"""A pass of a network on tensors without memory, with all that each operation reads and makes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dvsn.networks.graft import behind

INPUT = ":in"


class DryRun(NamedTuple):
    """An evaluation pass of a copy of a network: what it answered, and the tensors of every operation, in order."""

    network: nn.Module
    output: Any
    calls: list[tuple[list[Tensor], list[Tensor]]]
    """What an operation read, and what it made. All are kept, so that no two share an identity."""
    watched: list[Tensor]
    """The tensors at the places that the run was told to watch."""


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[Tensor], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.calls.append((tensors((args, kwargs)), tensors(made)))
        return made


def tensors(tree: Any) -> list[Tensor]:
    """The tensors anywhere in nested containers."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def dry_run(network: nn.Module, shape: Sequence[int], watched: Sequence[str] = ()) -> DryRun:
    """Runs a copy of `network`, without memory, in evaluation mode on an image of `shape` (N, C, H, W).

    `watched` are paths of modules whose outputs others will look at; PATH:in is what a module is given.
    """
    ghost = copy.deepcopy(network).to(device="meta").eval()
    seen: list[Tensor] = []
    for path in watched:
        module = behind(ghost.get_submodule(path.removesuffix(INPUT)))
        if path.endswith(INPUT):
            module.register_forward_pre_hook(lambda _, given, named: seen.extend(tensors((given, named))),
                                             with_kwargs=True)  # fmt: skip
        else:
            module.register_forward_hook(lambda _, __, made: seen.extend(tensors(made)))
    with torch.no_grad(), Recorder() as recorder:
        output = ghost(torch.empty(tuple(shape), device="meta"))
    return DryRun(ghost, output, recorder.calls, seen)
