"""Parameter groups: heads that learn faster, and norms that do not decay."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from torch import nn

from dvsn.errors import ConfigError, nearest


def parameter_groups(
    network: nn.Module,
    optim: Any,
    *,
    heads: Iterable[str] = (),
    factor: float = 1.0,
    decay_norms: bool = True,
) -> list[dict[str, Any]]:
    """Groups for an optimiser factory, at most four: (head or body) x (decayed or not).

    `heads` are module paths whose learning rate is `factor` times the factory's. Without `decay_norms` batch
    norms and biases, every parameter of fewer than two dimensions, get no weight decay. Frozen parameters are in no group.
    """
    chosen = tuple(heads)
    modules = dict(network.named_modules())
    for path in chosen:
        if path not in modules:
            raise ConfigError(
                f"task.head_modules: the network has no module '{path}'. {nearest(path, modules)}"
            )
    options = optim.keywords if isinstance(optim, functools.partial) else {}
    if factor != 1.0 and "lr" not in options:
        raise ConfigError("task.head_factor: needs optim.lr to multiply. Set optim.lr.")
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        head = factor != 1.0 and any(name.startswith(f"{path}.") for path in chosen)
        spared = not decay_norms and parameter.ndim < 2
        groups.setdefault((head, spared), []).append(parameter)
    result = []
    for (head, spared), parameters in groups.items():
        group: dict[str, Any] = {"params": parameters}
        if head:
            group["lr"] = options["lr"] * factor
        if spared:
            group["weight_decay"] = 0.0
        result.append(group)
    return result
