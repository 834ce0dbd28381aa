"""Structured pruning of a network by the groups of torch-pruning: channels that depend on each other go together."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.networks.dry_run import tensors
from dvsn.networks.narrowed import Narrowed, widths_of

REDUCING = ("sum", "mean", "amax", "max", "norm")
ROUND = 4
"""Numbers of channels that are left divide by it."""


class Pruned(NamedTuple):
    """A pruned network."""

    node: dict[str, Any]
    """Of a recipe: it rebuilds the network, with weights drawn anew."""
    state: dict[str, Tensor]
    """The weights that are left."""


def prune(network: nn.Module, node: Mapping[str, Any], image: Tensor, share: float) -> Pruned:
    """`network`, which `node` of a recipe has built, without `share` of the channels of each group.

    A group is what must go together: an output of a convolution, its place in the norm, and the inputs of all that reads it.
    Those with the smallest norm of weights over the whole group go (Fang et al., 2023, arXiv:2301.12900: group norm, without
    its sparse training). Layers that make the answer keep their outputs. `image` (N, C, H, W) is what the network takes.

    Raises `ConfigError` where torch-pruning is missing, or the network cannot be pruned or rebuilt from plain data.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning
    except ImportError as error:
        raise ConfigError(
            "pruned: torch-pruning is not installed. Run: pip install 'dvsn[prune]', or leave these candidates out"
        ) from error
    network = copy.deepcopy(network).eval().requires_grad_(True)
    ask = asking(network)
    last = last_layers(network, lambda: ask(network, image))
    before = {name: widths_of(module) for name, module in network.named_modules()}
    kinds = [tuple(each.shape) for each in tensors(ask(network, image))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.BasePruner(
                network,
                image,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=share,
                ignored_layers=last,
                round_to=ROUND,
                forward_fn=lambda module, example: parted(ask, module, example),
            )
            pruner.step()
        after = [tuple(each.shape) for each in tensors(ask(network, image))]
    except Exception as error:  # of a library that walks through any network
        raise ConfigError(
            f"pruned: {type(network).__name__} cannot be pruned: {type(error).__name__}: {error}"
        ) from error
    if after != kinds:
        raise ConfigError(f"pruned: {type(network).__name__} answers with other shapes once it is pruned")
    widths = {name: widths_of(module) for name, module in network.named_modules()}
    layers = {name: found for name, found in widths.items() if found is not None and found != before[name]}
    if not layers:
        raise ConfigError(f"pruned: nothing of {type(network).__name__} can go at a share of {share:g}")
    made = {"_target_": f"{Narrowed.__module__}.{Narrowed.__name__}", "network": dict(node), "layers": layers}
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    require_rebuilt(made, network, state, image)
    return Pruned(made, state)


def asking(network: nn.Module) -> Any:
    """How a network is asked so that the heads for training answer, too."""
    heads = "heads" in inspect.signature(network.forward).parameters

    def ask(module: nn.Module, image: Tensor) -> Any:
        return module(image, heads=True) if heads else module(image)

    return ask


class Parting(TorchFunctionMode):
    """Within it, a sum, a mean or a largest value over channels has no history: what is multiplied by it afterwards does not
    have its channels, which torch-pruning would take for granted. What went in is kept in `inputs`."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in REDUCING and args and isinstance(args[0], Tensor):
            given = args[1] if len(args) > 1 else (kwargs or {}).get("dim")
            axes = given if isinstance(given, list | tuple) else (given,)
            if args[0].dim() == 4 and any(axis in (1, -3) for axis in axes):
                self.inputs.append(args[0])
                return tree_map_only(Tensor, Tensor.detach, result)
        return result


def parted(ask: Any, network: nn.Module, image: Tensor) -> list[Tensor]:
    """The answers of a network, and what was reduced over its channels: the graph that shows which channels go together."""
    with Parting() as parting:
        found = tensors(ask(network, image))
    return [*found, *parting.inputs]


def last_layers(network: nn.Module, run: Any) -> list[nn.Module]:
    """The layers whose outputs reach the answer without passing another one."""
    made: dict[Any, nn.Module] = {}
    hooks = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            made[output.grad_fn] = module

    for module in network.modules():
        if isinstance(widths_of(module), list) and not isinstance(module, nn.modules.batchnorm._BatchNorm):
            hooks.append(module.register_forward_hook(note))
    try:
        with torch.enable_grad():
            answers = list(tensors(run()))
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[int, nn.Module] = {}
    waiting, seen = [each.grad_fn for each in answers], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in made:
            found[id(made[node])] = made[node]
        else:
            waiting += [each for each, _ in node.next_functions]
    return list(found.values())


@torch.no_grad()
def require_rebuilt(
    node: dict[str, Any], network: nn.Module, state: Mapping[str, Tensor], image: Tensor
) -> None:
    """Raises `ConfigError` where the node does not give the pruned network again."""
    rebuilt: nn.Module = build(node, path="network").eval()
    ask = asking(network)
    try:
        rebuilt.load_state_dict(state, strict=True)
        pairs = zip(tensors(ask(rebuilt, image)), tensors(ask(network, image)), strict=True)
        same = all(torch.allclose(one, other, atol=1e-5, rtol=1e-4) for one, other in pairs)
    except (RuntimeError, ValueError) as error:
        said = str(error).splitlines()[-1].strip()
        raise ConfigError(
            f"pruned: {type(network).__name__} cannot be rebuilt from its widths: {said}"
        ) from error
    if not same:
        raise ConfigError(
            f"pruned: {type(network).__name__} cannot be rebuilt from its widths: it answers otherwise"
        )
