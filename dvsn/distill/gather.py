"""The items of a batch, of one process or of all, for losses that relate them to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dvsn.distill.method import View


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(tensor: Tensor) -> Tensor:
    """(N, ...) of every process, joined in the order of the ranks; the tensor itself in a single process.

    The backward pass hands each process the gradient of its own items, times the number of processes: where every process
    works out the same loss of the joined batch, and gradients are averaged over processes afterwards, as DDP does, the
    result is that of one process with the joined batch. N may differ between processes.
    """
    if processes() == 1:
        return tensor
    joined: Tensor = Gather.apply(tensor)
    return joined


def rows(student: View, teacher: View, *, everywhere: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each pair of taps the flattened features of all items, (N, D_s) and (N, D_t); `everywhere`: of all processes."""
    for mine, theirs in zip(student.features, teacher.features, strict=True):
        mine, theirs = mine.flatten(1), theirs.flatten(1)
        yield (gather(mine), gather(theirs)) if everywhere else (mine, theirs)


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        rank, world = dist.get_rank(), dist.get_world_size()
        size = torch.tensor([len(tensor)], device=tensor.device)
        sizes = [torch.empty_like(size) for _ in range(world)]
        dist.all_gather(sizes, size)
        counts = [int(each) for each in sizes]
        longest = max(counts)
        padded = tensor.contiguous()
        if len(tensor) < longest:
            padded = torch.cat([padded, padded.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        context.start, context.length, context.world = sum(counts[:rank]), len(tensor), world
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return gradient[context.start : context.start + context.length] * context.world
