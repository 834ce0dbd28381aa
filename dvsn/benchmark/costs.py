"""What a network costs, counted on tensors without memory: parameters, and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
COUNTED = (aten.convolution, aten.addmm, aten.mm)  # what convolution and linear layers become


class Costs(NamedTuple):
    """`parameters` are those that the run uses; `all_parameters` holds the heads that only training uses too."""

    parameters: int
    all_parameters: int
    macs: int


class DryRun(NamedTuple):
    """An evaluation pass of a copy of a network: what it answered, and the tensors of every operation, in order."""

    network: nn.Module
    output: Any
    calls: list[tuple[list[Tensor], list[Tensor]]]
    """What an operation read, and what it made. All are kept, so that no two share an identity."""


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


def dry_run(network: nn.Module, shape: Sequence[int]) -> DryRun:
    """Runs a copy of `network`, without memory, in evaluation mode on an image of `shape` (N, C, H, W)."""
    ghost = copy.deepcopy(network).to(device="meta").eval()
    with torch.no_grad(), Recorder() as recorder:
        output = ghost(torch.empty(tuple(shape), device="meta"))
    return DryRun(ghost, output, recorder.calls)


def costs(network: nn.Module, shape: Sequence[int]) -> Costs:
    """The costs of an evaluation pass on an image of `shape` (N, C, H, W).

    Counted as the papers do, which print multiply-accumulates as "FLOPs": convolution and linear layers only.
    Biases, batch norms, activations, sums, pooling, resizing and products of two activations are left out.
    """
    with FlopCounterMode(display=False) as counter:
        run = dry_run(network, shape)
    read = {id(tensor) for arguments, _ in run.calls for tensor in arguments}
    sizes = {id(parameter): parameter.numel() for parameter in run.network.parameters()}
    flops = counter.get_flop_counts().get("Global", {})
    return Costs(
        parameters=sum(size for key, size in sizes.items() if key in read),
        all_parameters=sum(sizes.values()),
        macs=sum(flops.get(operation, 0) for operation in COUNTED) // 2,
    )
