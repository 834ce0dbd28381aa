"""What a network costs, counted on tensors without memory: parameters, and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dvsn.networks.dry_run import dry_run

aten = torch.ops.aten
COUNTED = (aten.convolution, aten.addmm, aten.mm)  # what convolution and linear layers become


class Costs(NamedTuple):
    """`parameters` are those that the run uses; `all_parameters` holds the heads that only training uses too."""

    parameters: int
    all_parameters: int
    macs: int


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
