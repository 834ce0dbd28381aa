"""Batch norm with the statistics of the batches of all processes, also on a CPU, where torch has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SummedOver(torch.autograd.Function):
    """The sum of a tensor over all processes; backward, the sum of its gradients."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """What `nn.SyncBatchNorm` is on GPUs, the batch norm of the joined batch, by two sums over all processes.

    Input: (N, C, ...); N may differ between processes. In eval mode, and in a single process, it is plain batch norm. (No
    subclass of torch's, which DDP refuses on a CPU.)
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected an input of 2 dimensions or more, found {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        batch = self.training or self.running_mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else momentum
        if alone or not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, batch, momentum, self.eps
            )
        mean, variance, count = statistics(input.to(torch.promote_types(input.dtype, torch.float32)))
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        shape = (1, -1, *[1] * (input.ndim - 2))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (input * scale.view(shape) + shift.view(shape)).to(input.dtype)


def statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of (N, C, ...) over all processes, and of how many values each is."""
    others = [0, *range(2, values.ndim)]
    own = values.new_tensor([values.numel() / values.shape[1]])
    sums: Tensor = SummedOver.apply(torch.cat([values.sum(others), own]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    apart = values - mean.view(1, -1, *[1] * (values.ndim - 2))
    spread: Tensor = SummedOver.apply(apart.square().sum(others))
    return mean, spread / count, count


def share_statistics(module: nn.Module) -> nn.Module:
    """The module with a `SharedBatchNorm` in the place of each batch norm in it; parameters and buffers stay what they
    are."""
    if isinstance(module, _BatchNorm) and not isinstance(module, SharedBatchNorm):
        shared = SharedBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        for name, parameter in module.named_parameters(recurse=False):
            setattr(shared, name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(shared, name, buffer)
        return shared.train(module.training)
    for name, child in module.named_children():
        shared_child = share_statistics(child)
        if shared_child is not child:
            setattr(module, name, shared_child)
    return module
