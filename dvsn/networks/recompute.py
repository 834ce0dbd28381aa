"""Gradient checkpointing: stages of a network that keep no maps for the backward pass, and are run again there instead."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from dvsn.errors import ConfigError, nearest

OPTION = "gradient_checkpointing"


class Recomputed(nn.Module):
    """Put before the class of a module by `recompute`: in training its forward pass keeps its inputs alone (Chen et al.,
    2016, arXiv:1604.06174).

    Gradients are the same bits as without: dropout draws the same numbers in the second pass, and batch norms, which use
    the statistics of the batch in both, count it once in their running ones. Hooks within see both passes; taps record the
    first.
    """

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*inputs, **named)
        norms = [each for each in self.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return contextlib.nullcontext(), counted_once(norms)

        return checkpoint(super().forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextlib.contextmanager
def counted_once(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Within it norms in training count what they see in copies of their running statistics, which are thrown away."""
    training = [norm for norm in norms if norm.training]
    kept = [dict(norm._buffers) for norm in training]
    for norm in training:
        norm._buffers.update(
            {name: each if each is None else each.clone() for name, each in norm._buffers.items()}
        )
    try:
        yield
    finally:
        for norm, buffers in zip(training, kept, strict=True):
            norm._buffers.update(buffers)


@functools.cache
def recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a module, with `Recomputed` before it and the same name."""
    return type(kind.__name__, (Recomputed, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def recompute(network: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """Recompute the modules that the patterns name by their paths (`*` for any text, `?` for one character, `[12]` for one
    of these), the outermost of them; of a list of modules, its members. Returns their paths.

    Weights and their names stay, and copies of the network do the same. Raises `ConfigError` for a pattern that names
    nothing.
    """
    modules = {path: module for path, module in network.named_modules() if path}
    named: set[str] = set()
    for pattern in patterns:
        found = [path for path in modules if fnmatch.fnmatchcase(path, str(pattern))]
        if not found:
            alike = [path for path in modules if path.count(".") == str(pattern).count(".")]
            raise ConfigError(
                f"{OPTION}: the network has no module '{pattern}'. {nearest(str(pattern), alike or modules)} A pattern may "
                "name several, such as 'layer[12]'."
            )
        named |= set(found)
    chosen: list[str] = []
    for path in modules:  # a module comes before those in it
        if any(path.startswith(f"{other}.") for other in chosen):
            continue
        inside = path in named or any(path.startswith(f"{other}.") for other in named)
        if inside and not isinstance(modules[path], nn.ModuleList | nn.ModuleDict):
            chosen.append(path)
            kind: Any = type(modules[path])
            modules[path].__class__ = recomputed(kind)
    return tuple(chosen)
