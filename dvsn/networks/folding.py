"""Batch norms folded into the convolutions before them: the same function with fewer operations.

In evaluation a batch norm is one multiplication and one addition per channel. After a convolution whose result nothing
else reads, both can be folded into the convolution's weight and bias. Speed tests that delete these norms, as PIDNet's
does, time another function: the biases are missing.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.networks.dry_run import dry_run, tensors


class Folded(NamedTuple):
    """A folded copy of a network; the names of the batch norms that are gone, and of those that had to stay."""

    network: nn.Module
    folded: tuple[str, ...]
    kept: tuple[str, ...]
    """Batch norms that ran and are not behind a convolution of their own, such as those before an activation."""


def fold_batch_norms(
    network: nn.Module, shape: Sequence[int] = (1, 3, 64, 64), watched: Sequence[str] = ()
) -> Folded:
    """A copy of `network` in evaluation mode whose batch norms are folded, where that changes nothing.

    A dry run on an image of `shape` (N, C, H, W) shows who reads what, so that the order and the names of modules,
    functional calls and the branches that a forward takes need no guessing. A norm is folded when it runs once,
    reads the untouched result of a `Conv2d` that runs once, and is the only one to read it. What the run does not
    reach, such as heads for training, stays as it is. Weights stay in their type; the products are made in float64.

    What is at `watched`, paths of modules or PATH:in of what one is given, stays what it was: a norm stays where the result
    of its convolution is watched.
    """
    copied = copy.deepcopy(network).eval()
    pairs, kept = _pairs(copied, shape, watched)
    for norm_name, conv_name in pairs.items():
        norm = copied.get_submodule(norm_name)
        _fold(copied.get_submodule(conv_name), norm)
        copied.set_submodule(norm_name, _after(norm))
    return Folded(copied, tuple(pairs), kept)


def _pairs(
    network: nn.Module, shape: Sequence[int], watched: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """{batch norm: the convolution it goes into}, and the norms that stay, by module path."""
    run = dry_run(network, shape, watched)
    modules = dict(run.network.named_modules())
    convolutions = {id(m.weight): name for name, m in modules.items() if type(m) is nn.Conv2d}
    norms = {id(m.running_mean): name for name, m in modules.items() if _is_fixed(m)}
    reads = Counter(id(tensor) for arguments, _ in run.calls for tensor in arguments)
    reads.update(id(tensor) for tensor in [*tensors(run.output), *run.watched])  # these are looked at, too

    made_by: dict[int, str] = {}  # the result of a convolution -> the convolution
    pairs: dict[str, str] = {}
    seen: dict[str, None] = {}
    for arguments, made in run.calls:
        keys = [id(tensor) for tensor in arguments]
        for key in keys:
            if key in convolutions and reads[key] == 1:
                made_by[id(made[0])] = convolutions[key]
            elif key in norms:
                seen[norms[key]] = None
                if keys[0] in made_by and reads[keys[0]] == 1 and reads[key] == 1:
                    pairs[norms[key]] = made_by[keys[0]]
    return pairs, tuple(name for name in seen if name not in pairs)


def _after(norm: nn.Module) -> nn.Module:
    """What a norm's module does behind its norm: nothing, or as in timm's BatchNormAct2d a drop and an activation."""
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _is_fixed(module: nn.Module) -> bool:
    """Whether this is a batch norm that uses its running statistics in evaluation."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


@torch.no_grad()
def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    """conv' = norm(conv): weight' = weight * scale, bias' = (bias - mean) * scale + shift, a channel each."""
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, _BatchNorm)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    weight = convolution.weight
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() if convolution.bias is None else convolution.bias.double() - mean.double()
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    folded = weight.double() * scale[:, None, None, None]  # one factor an output channel
    convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=weight.requires_grad)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=weight.requires_grad)


@torch.no_grad()
def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors of one shape, as a share of the largest expected magnitude."""
    difference = (found.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp(min=1e-30))
