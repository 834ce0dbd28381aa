"""Taps: tensors inside a network, named by module paths and recorded while it runs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvsn.distill.method import Joint, Shape
from dvsn.errors import ConfigError, nearest
from dvsn.networks.graft import behind

INPUT = ":in"
ROLES = {
    "stages": "`taps`, what each stage answers, finest first",
    "pre_activation": "`pre_activation_taps`, the same before the last nonlinearity",
    "last": "`taps`, of which the last one is taken",
    "last_map": "`map_tap` or the last of `taps`, the map whose average the class layer reads, or that a head is given",
    "dense": "`dense_tap`, the input of a dense head; else what its class layer reads, else the last of `taps`",
    "pooled": "`pooled_tap`, the vector that the class layer reads, such as fc:in",
    "stem_and_stages": "`stem_tap` and `taps`",
    "distributions": "`distribution_taps`, what a detector such as network.detector=gfl says of the edges of boxes",
}
"""The named groups of taps, and the class attributes of a network that say where they are."""

Pairing = str | Sequence[Sequence[str]] | None


class Taps:
    """Records tensors of a network. `layer2` is what that module answers, `layer2:in` the first thing it is given.

        with taps:
            output = network(image)
        features = taps.take()      # path -> tensor

    Outside of the `with` nothing is kept. A module that is called several times is recorded the last time. Tensors are not
    copied, so a tap that an operation in place overwrites later in the same pass is refused by `take`. Hooks are on the
    network from `install` to `remove`: a compiled network must meet them when it is compiled. A copy has none.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self.network = (network,)  # in a tuple: the owner may be a module, and this is no part of it
        self.name = type(network).__name__
        self.active = False
        self._seen: dict[str, tuple[Tensor, int]] = {}
        self._handles: list[Any] = []
        for path in self.paths:
            find(network, path)

    def install(self) -> None:
        """Put the hooks on the network."""
        self.remove()
        for path in self.paths:
            module = find(self.network[0], path)
            if path.endswith(INPUT):
                hook = functools.partial(self._before, path)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                self._handles.append(module.register_forward_hook(functools.partial(self._after, path)))

    def __deepcopy__(self, memory: dict[int, Any]) -> Taps:
        twin = Taps.__new__(Taps)
        memory[id(self)] = twin
        vars(twin).update(self.__getstate__(), network=copy.deepcopy(self.network, memory))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "active": False, "_seen": {}, "_handles": []}

    def __enter__(self) -> Taps:
        self._seen.clear()
        self.active = True
        return self

    def __exit__(self, *_: Any) -> None:
        self.active = False

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def _before(self, path: str, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.active:
            self._keep(path, [*positional, *named.values()])

    def _after(self, path: str, _: nn.Module, __: Any, output: Any) -> None:
        if self.active:
            self._keep(path, output)

    def _keep(self, path: str, value: Any) -> None:
        tensor = first_tensor(value)
        if tensor is None:
            raise ConfigError(
                f"taps: '{path}' of {self.name} is a {type(value).__name__} without a tensor in front. Tap a module inside "
                "or before it."
            )
        self._seen[path] = (tensor, tensor._version)

    def take(self) -> dict[str, Tensor]:
        """What was recorded, by path, which is then forgotten. Raises `ConfigError` for what is not there any more."""
        seen, self._seen = self._seen, {}
        for path in self.paths:
            if path not in seen:
                raise ConfigError(
                    f"taps: '{path}' of {self.name} was not reached: the network does not call this module in training."
                )
        if not torch.compiler.is_compiling():
            for path, (tensor, version) in seen.items():
                if tensor._version != version:
                    raise ConfigError(overwritten(self.name, path))
        return {path: seen[path][0] for path in self.paths}


def overwritten(name: str, path: str) -> str:
    return (
        f"taps: '{path}' of {name} is overwritten by an operation in place after it, such as ReLU(inplace=True) or +=. "
        "Build it without operations in place, or choose another tap"
    )


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or that in the first place of a tuple or list."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def module_path(path: str) -> str:
    return path.removesuffix(INPUT)


def find(network: nn.Module, path: str) -> nn.Module:
    """The module of a tap. Raises `ConfigError` with the nearest paths."""
    modules = dict(network.named_modules())
    name = module_path(path)
    if not name or name not in modules:
        modules.pop("", None)
        raise ConfigError(
            f"taps: {type(network).__name__} has no module '{name}'. {nearest(name, modules)} `python -m dvsn.distill taps "
            "network=...` lists them."
        )
    return behind(modules[name])


# Roles and pairs -----------------------------------------------------------------------------------------


def role(network: nn.Module, name: str) -> tuple[str, ...]:
    """The paths of a named group of taps, as the class of the network declares them. Raises `ConfigError`."""
    if name not in ROLES:
        raise ConfigError(
            f"taps: found '{name}'. {nearest(name, ROLES)} Or give pairs: [[STUDENT, TEACHER], ...], paths of modules."
        )
    declared = roles(network)
    if name not in declared:
        raise ConfigError(
            f"taps: {type(network).__name__} does not say where its '{name}' taps are ({ROLES[name]}). It declares "
            f"{', '.join(declared) or 'none'}. Give pairs of module paths instead, distill.NAME.taps=[[STUDENT,TEACHER]]; "
            "`python -m dvsn.distill taps` lists them."
        )
    return declared[name]


def roles(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """All groups of taps that the network declares."""
    stages = tuple(getattr(network, "taps", ()))
    pooled = getattr(network, "pooled_tap", None) or _only_class_layer(network)
    stem = getattr(network, "stem_tap", None)
    found: dict[str, tuple[str, ...]] = {
        "stages": stages,
        "pre_activation": tuple(getattr(network, "pre_activation_taps", ())),
        "last": stages[-1:],
        "last_map": (getattr(network, "map_tap", "") or next(iter(stages[-1:]), ""),),
        "dense": (
            getattr(network, "dense_tap", "") or _map_before_classes(network) or next(iter(stages[-1:]), ""),
        ),
        "pooled": (pooled,) if pooled else (),
        "stem_and_stages": (stem, *stages) if stem and stages else (),
        "distributions": tuple(getattr(network, "distribution_taps", ())),
    }
    return {name: paths for name, paths in found.items() if any(paths)}


def _only_class_layer(network: nn.Module) -> str | None:
    """The input of the network's only class layer, where that is a matrix: the pooled vector."""
    own = getattr(network, "classifier", ())
    if not isinstance(own, tuple | list) or len(own) != 1:
        return None
    layer = dict(network.named_modules()).get(own[0])
    return f"{own[0]}{INPUT}" if isinstance(layer, nn.Linear) else None


def _map_before_classes(network: nn.Module) -> str:
    """The input of the convolution that makes the classes of pixels, or keypoints; empty where there is none."""
    own = getattr(network, "classifier", ())
    first = own[0] if isinstance(own, tuple | list) and own else ""
    layer = dict(network.named_modules()).get(first)
    return f"{first}{INPUT}" if isinstance(layer, nn.Conv2d) else ""


def pairs(student: nn.Module, teacher: nn.Module, taps: Pairing) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths of both networks, one to one. Raises `ConfigError` for lists of unequal length."""
    if taps is None:
        return (), ()
    if isinstance(taps, str):
        first, second = role(student, taps), role(teacher, taps)
        if len(first) != len(second):
            raise ConfigError(
                f"taps: '{taps}' are {len(first)} of {type(student).__name__} ({', '.join(first)}) and {len(second)} of "
                f"{type(teacher).__name__} ({', '.join(second)}). Say which belong together: "
                "distill.NAME.taps=[[STUDENT,TEACHER]]."
            )
    else:
        if any(isinstance(pair, str) or len(pair) != 2 for pair in taps):
            raise ConfigError(f"taps: found {list(taps)}, expected pairs [[STUDENT, TEACHER], ...].")
        first = tuple(_single(student, pair[0]) for pair in taps)
        second = tuple(_single(teacher, pair[1]) for pair in taps)
    for network, paths in ((student, first), (teacher, second)):
        for path in paths:
            find(network, path)
    return first, second


def _single(network: nn.Module, name: str) -> str:
    """The path that one side of a pair means: a module's, or a role of one tap such as `last`."""
    if name not in ROLES or name in dict(network.named_modules()):
        return name
    declared = role(network, name)
    if len(declared) != 1:
        raise ConfigError(
            f"taps: '{name}' are {len(declared)} taps of {type(network).__name__}, and a pair takes one: name its module."
        )
    return declared[0]


def norms(network: nn.Module, paths: Sequence[str]) -> tuple[nn.BatchNorm2d | None, ...]:
    """The batch norm in front of each tap, where `tap_norms` names one for each of `pre_activation_taps` or `taps`."""
    named = tuple(getattr(network, "tap_norms", ()))
    table: dict[str, str] = {}
    for group in ("taps", "pre_activation_taps"):
        own = tuple(getattr(network, group, ()))
        if len(own) == len(named):
            table |= dict(zip(own, named, strict=True))
    modules = dict(network.named_modules())
    found = [modules.get(table.get(path, "/")) for path in paths]
    return tuple(each if isinstance(each, nn.BatchNorm2d) else None for each in found)


def head(network: nn.Module) -> nn.Module | None:
    """The layer that makes the output of the pooled vector, where the network says which that is."""
    pooled = getattr(network, "pooled_tap", None) or _only_class_layer(network)
    if pooled and pooled.endswith(INPUT):
        return dict(network.named_modules()).get(module_path(pooled))
    return None


def class_layer(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """The path of the linear layer that makes the classes, and the layer; None where the network has or names none."""
    layer = head(network)
    if isinstance(layer, nn.Sequential) and len(layer) == 1:  # as in MobileNetV2
        layer = layer[0]
    if not isinstance(layer, nn.Linear):
        return None
    return next(path for path, module in network.named_modules() if module is layer), layer


# Dry runs ------------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """What a dry run has found: shapes without the batch."""

    output: Shape
    features: dict[str, Shape]


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """A pass that leaves no trace: eval mode, no gradient, random state put back."""
    was = {module: module.training for module in network.modules()}
    devices = {p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"}
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        for module, training in was.items():
            module.training = training


def probe(network: nn.Module, taps: Taps, forward: Callable[[], Any]) -> Probe:
    """The shapes of the output and at the taps, by one pass in eval mode.

    Raises `ConfigError` for a tap that is overwritten, with taps of the same shape that are not.
    """
    with undisturbed(network):
        taps.install()
        try:
            with taps:
                output = first_tensor(forward())
            features = taps.take()
        except ConfigError as error:
            if "overwritten" not in str(error):
                raise
            taps.remove()
            raise ConfigError(f"{error}. {_intact(network, str(error), forward)}") from None
        finally:
            taps.remove()
    shape = () if output is None else tuple(output.shape[1:])
    return Probe(shape, {path: tuple(value.shape[1:]) for path, value in features.items()})


def joint(network: nn.Module, at: str, forward: Callable[[], Any]) -> Joint | None:
    """How a tap and the class layer of the network hang together; None where the latter is not known or not linear."""
    found = class_layer(network)
    if found is None:
        return None
    head, layer = found
    recorder, after = Taps(network, (at, f"{head}{INPUT}")), dict[str, None]()

    def note(path: str, module: nn.Module, _: Any) -> None:
        if at in recorder._seen and any(True for _ in module.parameters()):
            after[path] = None

    named = [(path, module) for path, module in network.named_modules() if path]
    with undisturbed(network):
        recorder.install()
        handles = [module.register_forward_pre_hook(functools.partial(note, path)) for path, module in named]
        try:
            with recorder:
                forward()
            features = recorder.take()
        finally:
            recorder.remove()
            for handle in handles:
                handle.remove()
    mine, read = features[at], features[f"{head}{INPUT}"]
    mean = mine.mean(dim=(2, 3)) if mine.ndim == 4 else mine
    pooled = mean.shape == read.shape and torch.allclose(mean.float(), read.float(), rtol=1e-4, atol=1e-5)
    outer = [path for path in after if not any(path.startswith(f"{other}.") for other in after)]
    layers = tuple(path for path in outer if path != head and not head.startswith(f"{path}."))
    return Joint(at, head, layer, pooled, layers)


class Point(NamedTuple):
    """A place that can be tapped, or not because it is overwritten."""

    path: str
    kind: str
    shape: Shape
    intact: bool


def points(network: nn.Module, forward: Callable[[], Any]) -> list[Point]:
    """Every module whose output is a tensor, in the order in which they first answer."""
    found: dict[str, tuple[str, Tensor, int]] = {}

    def note(path: str, module: nn.Module, _: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            found[path] = (type(module).__name__, tensor, tensor._version)

    handles = [
        behind(module).register_forward_hook(functools.partial(note, path))
        for path, module in network.named_modules()
        if path
    ]
    try:
        with undisturbed(network):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return [
        Point(path, kind, tuple(tensor.shape[1:]), tensor._version == version)
        for path, (kind, tensor, version) in found.items()
    ]


def _intact(network: nn.Module, message: str, forward: Callable[[], Any]) -> str:
    """The places of the same shape as the overwritten one that can be tapped."""
    path = module_path(message.split("'")[1])
    every = points(network, forward)
    shape = next((point.shape for point in every if point.path == path), None)
    same = [point.path for point in every if point.intact and (shape is None or point.shape == shape)]
    return f"Intact{' and of its shape' if shape else ''}: {', '.join(same[:12]) or 'none'}."
