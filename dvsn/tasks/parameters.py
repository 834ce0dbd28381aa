"""Parameter groups: heads that learn faster, layers with rates of their own, norms that do not decay, what is frozen."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.errors import ConfigError, nearest


def parameter_groups(
    network: nn.Module,
    optim: Any,
    *,
    heads: Iterable[str] = (),
    factor: float = 1.0,
    decay_norms: bool = True,
    rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimiser factory: one for each learning rate x (decayed or not).

    `heads` are module paths whose learning rate is `factor` times the factory's. `rates` are further factors by pattern (see
    `named_by`); of several patterns that name a parameter the last counts. Without `decay_norms` batch
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
    own = rates_of(network, rates or {})
    if own and "lr" not in options:
        raise ConfigError("task.rates: need optim.lr to multiply. Set optim.lr.")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        head = factor != 1.0 and any(name.startswith(f"{path}.") for path in chosen)
        spared = not decay_norms and parameter.ndim < 2
        times = (factor if head else 1.0) * own.get(name, 1.0)
        groups.setdefault((times, spared), []).append(parameter)
    if not groups:
        raise ConfigError("task.freeze: nothing is left to train. Freeze less of the network.")
    result = []
    for (times, spared), parameters in groups.items():
        group: dict[str, Any] = {"params": parameters}
        if times != 1.0:
            group["lr"] = options["lr"] * times
        if spared:
            group["weight_decay"] = 0.0
        result.append(group)
    return result


def named_by(network: nn.Module, pattern: str, *, option: str) -> set[str]:
    """The parameters that a pattern names: by their own path, or by that of a module around them. `*` stands for any text,
    `?` for one character, `[12]` for one of these. Raises `ConfigError` where it names none."""
    found = {
        name
        for name, _ in network.named_parameters()
        if any(fnmatch.fnmatchcase(each, pattern) for each in around(name))
    }
    if not found:
        paths = [name for name, _ in network.named_modules() if name]
        alike = [path for path in paths if path.count(".") == pattern.count(".")]
        raise ConfigError(
            f"{option}: the network has no module or parameter '{pattern}'. {nearest(pattern, alike or paths)} A pattern "
            "may name several, such as 'layer[12]*'."
        )
    return found


def around(path: str) -> list[str]:
    """A path and those of the modules around it: a.b.c, a.b, a."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def rates_of(network: nn.Module, rates: Mapping[str, float]) -> dict[str, float]:
    """The factor of each parameter that a pattern of `task.rates` names. Raises `ConfigError`."""
    found: dict[str, float] = {}
    for pattern, rate in rates.items():
        number = isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate)
        if not number or rate <= 0:
            raise ConfigError(
                f"task.rates.{pattern}: found {rate!r}, expected a factor above 0. What shall not learn is named in "
                "task.freeze."
            )
        found |= dict.fromkeys(named_by(network, str(pattern), option="task.rates"), float(rate))
    return found


def freeze(network: nn.Module, patterns: Iterable[str]) -> None:
    """Take the gradient from the parameters that the patterns of `task.freeze` name. Raises `ConfigError`."""
    named: set[str] = set()
    for pattern in patterns:
        named |= named_by(network, str(pattern), option="task.freeze")
    for name, parameter in network.named_parameters():
        if name in named:
            parameter.requires_grad_(False)


def frozen_norms(network: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """The batch norms within modules that the patterns name, which keep their statistics."""
    chosen = tuple(patterns)
    return [
        module
        for path, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and any(fnmatch.fnmatchcase(each, p) for each in around(path) for p in chosen)
    ]
