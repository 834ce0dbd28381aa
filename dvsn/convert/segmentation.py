"""Shared by the releases whose names are ours: prefixes, loss buffers, training heads, and weights that fit in part.

Published files of one network differ: a training script saves its model together with the loss (`model.conv1...` beside
`sem_loss.criterion.weight`), DataParallel adds `module.`, and heads that are used in training only may be missing.

- `peel` removes prefixes and loss buffers;
- `convert_published` makes the strict conversion;
- `partial_weights` takes what fits from another network of the family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from dvsn.convert.release import Converted, Kind, State, build_empty, describe, shorten, transfer
from dvsn.errors import CheckpointError, ConfigError, nearest

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
LOSS_PREFIXES = ("sem_loss.", "sb_loss.", "bd_loss.", "loss.", "criterion.")
OF_THE_LOSS = "belongs to the training loss, not to the network"
TRAINING_ONLY = "a head that is used in training only; the evaluation form was asked for"


class Published(NamedTuple):
    """A published state dict under the network's own names, and what was left out of it, with the reason."""

    state: dict[str, Tensor]
    dropped: dict[str, str]


def peel(state: State) -> Published:
    """Without loss buffers, and without the prefixes that every other key has."""
    dropped: dict[str, str] = {}
    prefix = ""
    names = {key: key for key in state}  # published key -> the network's
    while True:
        for key, name in list(names.items()):
            if name.startswith(LOSS_PREFIXES):
                dropped[key] = OF_THE_LOSS
                del names[key]
        prefix = next((p for p in PREFIXES if names and all(n.startswith(p) for n in names.values())), "")
        if not prefix:
            return Published({name: state[key] for key, name in names.items()}, dropped)
        names = {key: name.removeprefix(prefix) for key, name in names.items()}


def top_modules(state: State) -> set[str]:
    """The first parts of the keys: `layer1`, `spp`, ..."""
    return {key.partition(".")[0] for key in state}


def count_blocks(state: State, layer: str) -> int:
    """How many numbered blocks a layer has: at least one, at most as many as there are keys."""
    numbers = [key[len(layer) + 1 :].partition(".")[0] for key in state if key.startswith(f"{layer}.")]
    return min(max((int(n) + 1 for n in numbers if n.isdecimal()), default=1), len(state))


def choose(options: Mapping[str, Any], valid: Iterable[str]) -> dict[str, Any]:
    """The user's options, refused unless the release knows them."""
    valid = tuple(valid)
    for name in options:
        if name not in valid:
            raise ConfigError(f"options.{name}: no such choice for this network. {nearest(name, valid)}")
    return dict(options)


def want_heads(found: bool, options: Mapping[str, Any]) -> bool:
    """Whether to build the training form: as the file is, unless `options` has `heads`."""
    heads = options.get("heads", found)
    if not isinstance(heads, bool):
        raise ConfigError(f"options.heads: expected true or false, found {heads!r}.")
    if heads and not found:
        raise CheckpointError(
            "The file has the evaluation form: the heads that are used in training are not in it. Convert it "
            "without heads=true; fine-tuning then starts those heads afresh."
        )
    return heads


def convert_published(
    published: Published,
    network: type[nn.Module],
    options: dict[str, Any],
    *,
    kind: Kind,
    layout: str,
    droppable: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
    task: dict[str, Any] | None = None,
    codec: dict[str, Any] | None = None,
) -> Converted:
    """The strict conversion of a release whose names are ours: every key is used, or dropped with a reason.

    `options` are all the keyword arguments of `network`. `droppable` maps published module paths (and all
    below them) to the reason why they may be left out.
    """
    node = {"_target_": f"{network.__module__}.{network.__qualname__}", **options}
    empty = build_empty(network, node)
    below = {f"{path}.": reason for path, reason in (droppable or {}).items()}
    reasons = {
        key: reason for key in published.state for path, reason in below.items() if key.startswith(path)
    }
    modules = {path: path for path, _ in empty.named_modules()}
    state, dropped = transfer(published.state, empty, modules, droppable=reasons)
    return Converted(
        node, kind, layout, state, {**published.dropped, **dropped}, notes, task or {}, codec or {}
    )


class Partial(NamedTuple):
    """Weights of one network that fit another, under the other's names."""

    state: dict[str, Tensor]
    """What fits, by name and shape."""
    missing: tuple[str, ...]
    """Entries of the network that nothing was found for; they keep their initial values."""
    unused: tuple[str, ...]
    """Found entries that the network does not have."""
    misfits: tuple[str, ...]
    """Entries of both whose shapes differ, each with the two shapes."""

    def report(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.state)} tensors fit"]
        for keys, what in (
            (self.missing, "keep their initial values"),
            (self.unused, "were not used"),
            (self.misfits, "have another shape"),
        ):
            if keys:
                parts.append(f"{len(keys)} {what} ({shorten(list(keys)).removesuffix('.')})")
        return ", ".join(parts) + "."


def partial_weights(state: State, network: nn.Module, *, least: float = 0.5) -> Partial:
    """What of `state` fits `network`, by name and shape.

    Raises `CheckpointError` where less than a share `least` of either's entries fits, as with a wrong prefix or another
    network: training would start from random weights without notice.
    """
    expected = network.state_dict()
    fits: dict[str, Tensor] = {}
    misfits = []
    for key in (key for key in state if key in expected):
        if state[key].shape == expected[key].shape:
            fits[key] = state[key]
        else:
            misfits.append(f"{key} {describe(state[key])} instead of {describe(expected[key])}")
    missing = tuple(key for key in expected if key not in state)
    unused = tuple(key for key in state if key not in expected)
    partial = Partial(fits, missing, unused, tuple(misfits))
    if len(fits) < least * min(len(expected), len(state)) or not fits:
        raise CheckpointError(
            f"Hardly any weights fit the {type(network).__name__}: {partial.report()} Give weights of the same "
            f"family and size, converted by python -m dvsn.convert."
        )
    return partial
