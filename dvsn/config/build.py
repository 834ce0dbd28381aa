"""A config node becomes an object: only classes that are allowed there, only options that they have.

Nothing is imported, built or called before the whole resolved tree has passed `check`. Importing this file
costs nothing: the standard library alone, so that a typo is answered before torch is loaded.
"""

from __future__ import annotations

import ast
import collections.abc
import functools
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dvsn.errors import CheckpointError, ConfigError, DataError, UserError, nearest

PACKAGE = Path(__file__).resolve().parent.parent
MAX_DEPTH, MAX_NODES, MAX_TEXT = 40, 50_000, 65_536
TARGET = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+"
)  # ASCII: no letters that only look alike


class Group(NamedTuple):
    """What a config group may build."""

    own: dict[str, tuple[str, ...]]  # module prefix -> base classes, one of which is needed; none: any class
    foreign: tuple[str, ...]  # base classes for packages that the user allowed


MODULE = ("torch.nn.Module",)
GRAFT = ("dvsn.networks.graft.Graft",)
CALLBACK = ("pytorch_lightning.Callback",)
LOGGER = ("pytorch_lightning.loggers.Logger",)
DATASET = ("torch.utils.data.Dataset",)
TRANSFORM = ("albumentations.BasicTransform", "albumentations.BaseCompose")
SCHEDULE = ("torch.optim.lr_scheduler.LRScheduler",)
NETWORK = Group({"dvsn.networks.": MODULE, "torchvision.models.": MODULE}, MODULE)
TRAINER = Group({"pytorch_lightning.strategies.": ("pytorch_lightning.strategies.Strategy",)}, ())

GROUPS: dict[str, Group] = {
    "network": NETWORK,
    "discriminator": NETWORK,
    "loss": Group({"dvsn.losses.": MODULE}, MODULE),
    "codec": Group({"dvsn.codecs.": MODULE}, MODULE),
    "distill": Group({"dvsn.distill.": MODULE}, MODULE),
    "graft": Group({"dvsn.networks.graft.": GRAFT}, GRAFT),
    "transform": Group({"albumentations.": TRANSFORM, "dvsn.data.": ()}, TRANSFORM),
    "data": Group(
        {"dvsn.data.": (), "dvsn.geometry.": ()}, ("pytorch_lightning.LightningDataModule", *DATASET)
    ),
    "dataset": Group({"dvsn.data.": DATASET}, DATASET),
    "optim": Group(
        {"torch.optim.": ("torch.optim.Optimizer",), "dvsn.optim.": ("torch.optim.Optimizer",)},
        ("torch.optim.Optimizer",),
    ),
    "schedule": Group({"dvsn.optim.schedules.": (), "torch.optim.lr_scheduler.": SCHEDULE}, SCHEDULE),
    "task": Group(
        {"dvsn.tasks.": ("pytorch_lightning.LightningModule",)}, ("pytorch_lightning.LightningModule",)
    ),
    "trainer": TRAINER,
    "strategy": TRAINER,
    "logger": Group({"dvsn.engine.loggers.": LOGGER, "pytorch_lightning.loggers.": LOGGER}, LOGGER),
    "callbacks": Group(
        {"dvsn.engine.callbacks.": CALLBACK, "pytorch_lightning.callbacks.": CALLBACK}, CALLBACK
    ),
    "metrics": Group({"dvsn.metrics.": MODULE, "torchmetrics.": MODULE}, MODULE),
}

Count = int | None
Share = int | float | None
Precision = Literal[
    "auto", 16, 32, 64, "16", "32", "64", "bf16", "16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true",
    "64-true", "transformer-engine", "transformer-engine-float16",
]  # fmt: skip
TRAINER_OPTIONS: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    "precision": Precision,
    "devices": int | list[int] | str,
    "num_nodes": int,
    "max_epochs": Count,
    "min_epochs": Count,
    "max_steps": int,
    "min_steps": Count,
    "limit_train_batches": Share,
    "limit_val_batches": Share,
    "limit_test_batches": Share,
    "limit_predict_batches": Share,
    "overfit_batches": int | float,
    "val_check_interval": Share,
    "check_val_every_n_epoch": Count,
    "num_sanity_val_steps": Count,
    "log_every_n_steps": Count,
    "accumulate_grad_batches": int,
    "gradient_clip_val": Share,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "deterministic": bool | Literal["warn"] | None,
    "benchmark": bool | None,
    "inference_mode": bool,
    "fast_dev_run": bool | int,
    "sync_batchnorm": bool,
    "use_distributed_sampler": bool,
    "detect_anomaly": bool,
    "enable_checkpointing": bool | None,
    "enable_progress_bar": bool | None,
    "enable_model_summary": bool | None,
    "reload_dataloaders_every_n_epochs": int,
    "barebones": bool,
    **dict.fromkeys(
        ("strategy", "logger", "callbacks", "plugins", "profiler", "max_time", "model_registry"), Any
    ),
    "default_root_dir": str | None,
}


def conf_dir() -> str:
    """The absolute folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise ConfigError(
        f"no folder of configs at {PACKAGE / 'conf'} or {PACKAGE.parent / 'conf'}: reinstall dvsn"
    )


# ---- what may be built -----------------------------------------------------------------------------------


@functools.cache
def _installed() -> tuple[str, ...]:
    """Packages that installed distributions declare under the entry point group `dvsn.packages`."""
    import importlib.metadata  # slow, and needed once

    return tuple(sorted({entry.module for entry in importlib.metadata.entry_points(group="dvsn.packages")}))


def allowed(given: str | None = None) -> tuple[str, ...]:
    """Prefixes beyond our own: from the environment (`--allow` goes there) and from installed packages.

    Never from a YAML or a checkpoint, which may be somebody else's. `given` stands for the variable's value.
    """
    names = [
        name.strip() for name in (os.environ.get("DVSN_ALLOW", "") if given is None else given).split(",")
    ]
    for name in names:
        if name and not TARGET.fullmatch(f"{name}.x"):
            raise ConfigError(f"DVSN_ALLOW: found {name!r}, expected names of packages such as my_package")
    return tuple(f"{name}." for name in dict.fromkeys([*names, *_installed()]) if name)


def _group(path: str) -> Group | None:
    """The group of the nearest enclosing key that names one; `optim_discriminator` counts as `optim`."""
    keys = reversed(path.split("."))
    return next(
        (GROUPS[name] for key in keys for name in (key, key.partition("_")[0]) if name in GROUPS), None
    )


def check(tree: Any, *, path: str = "", extra: Sequence[str] = ()) -> None:
    """Refuses every target outside its group's allow-list. Imports nothing.

    `tree` is plain and resolved (dicts, lists, text, numbers); `path` is where it stands in the config, which
    decides the groups; `extra` are further module prefixes. Raises `ConfigError` with the path.
    """
    prefixes = (*allowed(), *extra)
    pending, seen = [(tree, path, 0)], 0
    while pending:
        node, at, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_NODES:
            raise ConfigError(
                f"{at}: nested deeper than {MAX_DEPTH} levels or more than {MAX_NODES} values in all"
            )
        if isinstance(node, Mapping):
            _check_keys(node, at, prefixes)
            pending += [(value, _join(at, key), depth + 1) for key, value in reversed(list(node.items()))]
        elif isinstance(node, list | tuple):
            pending += [(value, _join(at, i), depth + 1) for i, value in reversed(list(enumerate(node)))]
        elif not isinstance(node, str | int | float | None):
            raise ConfigError(f"{at}: found an object of type {type(node).__name__}, expected plain data")
        elif isinstance(node, str) and len(node) > MAX_TEXT:
            raise ConfigError(f"{at}: a text of {len(node)} characters, expected at most {MAX_TEXT}")


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _check_keys(node: Mapping[Any, Any], path: str, prefixes: Sequence[str]) -> None:
    for key in node:
        if not isinstance(key, str | int):
            raise ConfigError(f"{_join(path, key)}: a key of type {type(key).__name__}, expected text")
        special = isinstance(key, str) and key.startswith("_") and key.endswith("_")
        if special and key not in ("_target_", "_partial_"):
            raise ConfigError(
                f"{_join(path, key)}: not allowed. The special keys are _target_ and _partial_."
            )
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError(f"{_join(path, '_partial_')}: expected true or false, {_found(node['_partial_'])}")
    if "_target_" in node:
        _check_target(node["_target_"], path, prefixes)
    elif "_partial_" in node:
        raise ConfigError(f"{_join(path, '_partial_')}: there is no _target_ beside it")


def _check_target(target: object, path: str, prefixes: Sequence[str]) -> None:
    at = _join(path, "_target_")
    if not isinstance(target, str) or not TARGET.fullmatch(target) or "__" in target:
        raise ConfigError(f"{at}: expected the dotted name of a class, {_found(target)}")
    group = _group(path)
    if group is None:
        raise ConfigError(
            f"{at}: nothing is built here, {_found(target)}. Groups that build: {', '.join(GROUPS)}."
        )
    if not target.startswith((*group.own, *prefixes)):
        inside = ", ".join(prefix[:-1] for prefix in (*group.own, *prefixes)) or "nothing"
        raise ConfigError(
            f"{at}: {target!r} is not allowed here. Allowed: classes of {inside}. "
            "A package of your own is allowed by --allow NAME or DVSN_ALLOW=NAME."
        )


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse values of the top-level options that have no meaning. Raises `ConfigError`."""
    monitor, saving = config.get("monitor") or {}, config.get("checkpoint") or {}
    saving = saving if isinstance(saving, dict) else {}  # evaluate's `checkpoint` is a file
    ema, clip = config.get("ema"), config["trainer"].get("gradient_clip_val")
    steps, epochs = saving.get("every_n_steps"), saving.get("every_n_epochs", 1)
    rules = (
        ("seed", config["seed"], whole(config["seed"], 0), "a whole number, 0 or more"),
        ("monitor.mode", monitor.get("mode"), monitor.get("mode", "min") in ("min", "max"), "min or max"),
        ("ema", ema, ema is None or (number(ema) and 0 < ema < 1), "null, or a decay between 0 and 1 such as 0.999"),
        ("checkpoint.every_n_epochs", epochs, whole(epochs, 1), "a whole number, 1 or more"),
        ("checkpoint.every_n_steps", steps, steps is None or whole(steps, 1), "null, or a whole number, 1 or more"),
        ("channels_last", config.get("channels_last"), config.get("channels_last", "auto") in ("auto", True, False),
         "auto, true or false"),
        ("trainer.gradient_clip_val", clip, clip is None or (number(clip) and clip >= 0), "null, or 0 or more"),
    )  # fmt: skip
    for path, value, good, expected in rules:
        if not good:
            raise ConfigError(f"{path}: found {value!r}, expected {expected}.")
    check_distillation(config)


Rules = tuple[tuple[str, Any, Any, str], ...]
PART = ("weight", "taps", "start", "end", "ramp", "method", "task_weight")


def check_distillation(config: Mapping[str, Any]) -> None:
    """Refuse methods without a teacher, a teacher without methods, and options of them that have no meaning."""
    chosen, options = config.get("distill"), config.get("distillation") or {}
    methods = {name: node for name, node in (chosen or {}).items() if node is not None}
    teachers, network = config.get("teacher"), options.get("network")
    teachers = teachers if isinstance(teachers, list) else [] if teachers is None else [teachers]
    if not all(isinstance(each, str) and each for each in teachers):
        raise ConfigError(
            f"teacher: {_found(config['teacher'])}, expected the path of a checkpoint, or a list of paths."
        )
    if methods and not teachers and network is None:
        raise ConfigError(
            f"distill: {', '.join(methods)} needs a teacher. Set teacher=PATH, a checkpoint of dvsn or a converted one, or "
            "distillation.network for a network of your own."
        )
    if teachers and network is not None:
        raise ConfigError("teacher, distillation.network: found both, expected one of them.")
    if chosen is None and (teachers or network is not None):
        raise ConfigError(
            "teacher: is given, and nothing is learned from it. Choose a method such as distill=kd, or distill=none for the "
            "student alone."
        )
    precision = str(config["trainer"].get("precision") or "32-true") if methods else "32-true"
    if precision.endswith("-true") and precision != "32-true":
        raise ConfigError(
            f"trainer.precision: found {precision}, but distillation works in float32. Use 32-true, bf16-mixed or "
            "16-mixed."
        )
    for name, node in methods.items():
        path = f"distill.{name}"
        if not isinstance(node, Mapping):
            raise ConfigError(f"{path}: {_found(node)}, expected a method's options.")
        for key in node:
            if key not in PART:
                raise ConfigError(f"{path}.{key}: unknown key. {nearest(str(key), PART)}")
        for key in ("weight", "method"):
            if node.get(key) is None:
                raise ConfigError(f"{path}.{key}: is missing.")
        taps, end = node.get("taps"), node.get("end")
        lists = (
            isinstance(taps, list)
            and taps != []
            and all(
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
                for pair in taps
            )
        )
        own: Rules = (
            ("weight", node["weight"], number(node["weight"]) and node["weight"] >= 0, "a number, 0 or more"),
            ("start", node.get("start"), whole(node.get("start", 0), 0), "a whole number, 0 or more"),
            ("ramp", node.get("ramp"), whole(node.get("ramp", 0), 0), "a whole number, 0 or more"),
            ("end", end, end is None or whole(end, node.get("start", 0) + 1), "null, or an epoch after start"),
            ("task_weight", node.get("task_weight"), node.get("task_weight") is None or
             (number(node["task_weight"]) and node["task_weight"] >= 0), "null, or a number, 0 or more"),
            ("taps", taps, taps is None or isinstance(taps, str) or lists, "null, a role, or [[STUDENT,TEACHER],...]"),
        )  # fmt: skip
        for key, value, good, expected in own:
            if not good:
                raise ConfigError(f"{path}.{key}: found {value!r}, expected {expected}.")
    size, weight, rate = options.get("size"), options.get("task_weight"), options.get("stage_lr")
    sides = isinstance(size, list) and len(size) == 2 and all(whole(side, 1) for side in size)
    average, cache = options.get("average", "probabilities"), options.get("cache")
    shared: Rules = (
        ("size", size, size is None or sides, "null, or [HEIGHT, WIDTH]"),
        ("task_weight", weight, weight is None or (number(weight) and weight >= 0), "null, or a number, 0 or more"),
        ("stage_lr", rate, rate is None or (number(rate) and rate > 0), "null, or a number above 0"),
        ("cache", cache, cache is None or (isinstance(cache, str) and cache != ""), "null, or a folder"),
        ("average", average, average in ("probabilities", "logits"), "probabilities or logits"),
    )  # fmt: skip
    for key, value, good, expected in shared:
        if not good:
            raise ConfigError(f"distillation.{key}: found {value!r}, expected {expected}.")


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# ---- building --------------------------------------------------------------------------------------------


def build(node: Any, *, path: str = "", **extra: Any) -> Any:
    """Builds the node and everything in it; `extra` are further arguments of the outermost class.

    `path` is where the node stands in the config, for instance "network": it decides what is allowed and
    starts every message. The whole node is checked before the first import. A dict with `_target_` becomes
    an object, with `_partial_: true` a `functools.partial`; other dicts and lists stay plain.
    Raises `ConfigError`.
    """
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and omegaconf.OmegaConf.is_config(node):
        node = omegaconf.OmegaConf.to_container(node, resolve=True)
    check(node, path=path)
    return _build(node, path, extra)


def _build(node: Any, path: str, extra: dict[str, Any]) -> Any:
    if isinstance(node, list | tuple):
        return [_build(value, _join(path, i), {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        if extra:
            raise ConfigError(f"{path}: nothing to build, the key _target_ is missing")
        return {key: _build(value, _join(path, key), {}) for key, value in node.items()}
    kind = _locate(node["_target_"], path)
    partial = node.get("_partial_", False)
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    options = _runtime_options(kind)
    if options is not None:
        _check_options(given | extra, options, path, partial)
    arguments = {key: _build(value, _join(path, key), {}) for key, value in given.items() if key not in extra}
    if kind.__module__.startswith("albumentations.") and hasattr(kind, "InitSchema"):
        arguments["strict"] = True  # otherwise some bad options only warn and the defaults are used
    if partial:
        return functools.partial(kind, **arguments, **extra)
    try:
        return kind(**arguments, **extra)
    except (CheckpointError, DataError):
        raise  # names its file
    except UserError as error:
        if not path or str(error).startswith(path.split(".")[0]):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, TypeError, ImportError, AssertionError) as error:
        raise ConfigError(f"{path}: {kind.__name__} does not take these options: {error}") from error


def _locate(target: str, path: str) -> type:
    """The class of a target that has passed `check`, without walking attributes."""
    at, group, prefixes = _join(path, "_target_"), _group(path), allowed()
    assert group is not None  # check() has refused it
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module does when it is imported
        raise ConfigError(f"{at}: cannot import {module_name!r}: {error}") from error
    kind = inspect.getattr_static(module, name, None)
    if not isinstance(kind, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"{at}: {target!r} is not a class. {nearest(name, classes)}")
    home = f"{kind.__module__}."
    if not home.startswith((*group.own, *prefixes)):
        raise ConfigError(f"{at}: {target!r} is really {home}{name}, which is not allowed here")
    rules = [bases for prefix, bases in group.own.items() if home.startswith(prefix)] or [group.foreign]
    if all(bases and not issubclass(kind, tuple(map(_base, bases))) for bases in rules):
        expected = " or ".join(base for bases in rules for base in bases)
        raise ConfigError(f"{at}: {target!r} is not a subclass of {expected}")
    return kind


def _base(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


# ---- options: names and simple types ---------------------------------------------------------------------


class Built:
    """Stands for every type that no plain YAML value can have: tensors, modules, functions."""


REQUIRED = inspect.Parameter.empty


class Option(NamedTuple):
    """One argument of a class."""

    hint: Any
    default: Any = REQUIRED


class Options(NamedTuple):
    """The arguments of a class; `others` when it takes any further keyword."""

    owner: str
    named: dict[str, Option]
    others: bool


SEQUENCES = (list, tuple, set, frozenset, Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, Mapping, collections.abc.MutableMapping)
SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
WORDS: dict[str, Any] = {
    **{kind.__name__: kind for kind in (*SCALARS, *SEQUENCES, *MAPPINGS)},
    **{kind.__name__.capitalize(): kind for kind in (list, tuple, dict, set)},
    **dict.fromkeys(("Tensor", "Module", "Callable", "Optimizer"), Built),
    **dict.fromkeys(("Path", "PathLike"), Path),
    "Optional": typing.Optional,
    "Union": typing.Union,
    "Literal": Literal,
}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value can be meant for an argument of this type. True where that cannot be judged."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    kind = origin or hint
    if kind is None or kind is type(None):
        return value is None
    built = isinstance(value, Mapping) and "_target_" in value
    if built or not isinstance(value, str | int | float | list | tuple | Mapping | None):
        return True
    if kind in SCALARS:
        number = isinstance(value, int) and not isinstance(value, bool)
        return {bool: isinstance(value, bool), int: number, float: number or isinstance(value, float),
                str: isinstance(value, str)}[kind]  # fmt: skip
    if kind is Path:
        return isinstance(value, str)
    if kind in SEQUENCES:
        return isinstance(value, list | tuple) and _fits_each(value, kind, inner)
    if kind in MAPPINGS:
        return isinstance(value, Mapping) and (
            len(inner) != 2 or all(fits(v, inner[1]) for v in value.values())
        )
    if WORDS.get(getattr(kind, "__name__", "")) is Built or kind is Built:
        return isinstance(value, Mapping)  # a dict of things that are built
    return True


def _fits_each(values: Sequence[Any], kind: Any, inner: tuple[Any, ...]) -> bool:
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return not inner or all(fits(value, inner[0]) for value in values)


def spell(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(spell(choice) for choice in inner if choice is not Built))
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(repr, inner))
    kind = origin or hint
    if kind in SCALARS:
        return SCALARS[kind]
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)} ({', '.join(map(spell, inner))})"
    if kind in SEQUENCES:
        return f"a list (each {spell(inner[0])})" if inner else "a list"
    if kind in MAPPINGS:
        return "a mapping"
    if kind is None or kind is type(None):
        return "null"
    if kind is Path:
        return "a path"
    return "a node with _target_" if kind is Built else getattr(kind, "__name__", str(kind))


def _found(value: Any) -> str:
    """The value as the user knows it, with its type in words."""
    if value is None or isinstance(value, bool):
        return f"found {json.dumps(value)}"
    kind = SCALARS.get(type(value)) or ("a list" if isinstance(value, list | tuple) else "a mapping")
    shown = repr(value)
    return f"found {shown if len(shown) <= 80 else shown[:77] + '...'} ({kind})"


def _check_options(given: Mapping[str, Any], options: Options, path: str, partial: bool) -> None:
    for key, value in given.items():
        option = options.named.get(key)
        if option is None:
            if options.others:
                continue
            hint = nearest(str(key), options.named)
            raise ConfigError(
                f"{_join(path, key)}: unknown option of {options.owner} (found {str(key)!r}). {hint}"
            )
        same = (
            option.default is not REQUIRED and type(option.default) is type(value) and option.default == value
        )
        if not same and not fits(value, option.hint):
            raise ConfigError(f"{_join(path, key)}: expected {spell(option.hint)}, {_found(value)}")
    for key, option in options.named.items():
        if not partial and option.default is REQUIRED and key not in given:
            raise ConfigError(
                f"{_join(path, key)}: {options.owner} needs this option. Set {_join(path, key)}=..."
            )


def _runtime_options(kind: type) -> Options | None:
    """From an imported class."""
    try:
        signature = inspect.signature(kind)
    except (ValueError, TypeError):
        return None
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    names = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    named, others = {}, False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            others = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            hint = parameter.annotation
            hint = _read_hint(hint, names) if isinstance(hint, str) else Any if hint is REQUIRED else hint
            named[parameter.name] = Option(hint, parameter.default)
    return Options(kind.__name__, named, others)


def _read_hint(node: str | ast.expr, names: Mapping[str, Any]) -> Any:
    """An annotation as a type. `names` are the module's: objects, or expressions that were not executed."""
    if isinstance(node, str):
        try:
            node = ast.parse(node, mode="eval").body
        except SyntaxError:
            return Any
    if isinstance(node, ast.Constant):
        return (
            type(None)
            if node.value is None
            else _read_hint(node.value, names)
            if isinstance(node.value, str)
            else Any
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_read_hint(node.left, names), _read_hint(node.right, names)]  # noqa: UP007
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        alias = names.get(name, Any) if isinstance(node, ast.Name) else Any
        if name in WORDS:
            return WORDS[name]
        others = {key: value for key, value in names.items() if key != name}
        return _read_hint(alias, others) if isinstance(alias, ast.expr) else alias
    if isinstance(node, ast.Subscript):
        kind = _read_hint(node.value, names)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind is Literal:
            try:
                return Literal[tuple(ast.literal_eval(part) for part in parts)]
            except ValueError:  # names such as cv2.INTER_LINEAR
                return Any
        if kind is Any or kind is Built:
            return kind
        inner = tuple(
            ... if isinstance(p, ast.Constant) and p.value is ... else _read_hint(p, names) for p in parts
        )
        try:
            return kind[inner if len(inner) > 1 else inner[0]]
        except TypeError:
            return Any
    return Any


# ---- the same without importing anything -----------------------------------------------------------------

READ = ("dvsn", "torch.optim")  # packages whose sources are read instead of imported


@functools.cache
def _source(module: str) -> ast.Module | None:
    """The parsed source of a module of `READ`; None when there is no such file."""
    first, *rest = module.split(".")
    if first == "dvsn":
        root = PACKAGE
    else:
        spec = importlib.util.find_spec(first)  # a top-level package: found, not imported
        if spec is None or spec.origin is None:
            return None
        root = Path(spec.origin).parent
    base = root.joinpath(*rest)
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if rest and file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _readable(module: str) -> bool:
    return f"{module}.".startswith(tuple(f"{name}." for name in READ))


def _imports(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(local name, dotted origin) of every `from ... import ...` at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or node.level):
            parent = module.split(".")[: -node.level] if node.level else []
            for alias in node.names:
                yield (
                    alias.asname or alias.name,
                    ".".join([*parent, node.module or "", alias.name]).replace("..", "."),
                )


def _static_class(target: str, hops: int = 6) -> tuple[str, ast.ClassDef] | None:
    """(module, class) of a dotted name, following imports. None: not to be judged. ConfigError: not there."""
    module, _, name = target.rpartition(".")
    if not _readable(module) or hops == 0:
        return None
    tree = _source(module)
    if tree is None:
        folder = PACKAGE.joinpath(*module.split(".")[1:-1])
        names = [file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")]
        raise ConfigError(f"there is no module {module}. {nearest(module.rpartition('.')[2], names)}")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name in classes:
        return module, classes[name]
    imports = dict(_imports(tree, module))
    if name in imports:
        return _static_class(imports[name], hops - 1)
    unclear = (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.If, ast.Try)
    if any(isinstance(node, unclear) and name in ast.dump(node) for node in tree.body):
        return None
    valid = {*classes, *(key for key, origin in imports.items() if _readable(origin))}
    raise ConfigError(f"there is no class {name} in {module}. {nearest(name, valid)}")


def _static_options(target: str) -> Options | None:
    """The arguments of a class, from its source; with the base's where `**options` go on to it.

    None where that cannot be told.
    """
    current: str | None = target
    own = Options(target.rpartition(".")[2], {}, False)
    for _ in range(6):
        found = _static_class(current) if current else None
        if found is None:
            return own._replace(others=True) if own.named else None
        module, node = found
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        if node.decorator_list or "__new__" in methods or node.keywords:
            return None
        if "__init__" in methods:
            here = _read_arguments(methods["__init__"].args, own.owner, module)
            own = Options(own.owner, here.named | own.named, here.others)
            if not here.others or not _forwards(methods["__init__"]):
                return own
        if not node.bases:
            return own._replace(others=False)
        base, tree = node.bases[0], _source(module)
        if not isinstance(base, ast.Name) or tree is None:
            current = None
            continue
        local = base.id in {item.name for item in tree.body if isinstance(item, ast.ClassDef)}
        current = f"{module}.{base.id}" if local else dict(_imports(tree, module)).get(base.id)
    return None


def _forwards(function: ast.FunctionDef) -> bool:
    """Whether `super().__init__(..., **options)` gets the function's own `**options`."""
    name = function.args.kwarg.arg if function.args.kwarg else None
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call.func) == "super().__init__"
        and any(k.arg is None and ast.unparse(k.value) == name for k in call.keywords)
        for call in calls
    )


def _read_arguments(arguments: ast.arguments, owner: str, module: str) -> Options:
    tree = _source(module)
    names = {} if tree is None else dict(_aliases(tree, module))
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)][1:]  # without self
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    named = {}
    for argument, default in pairs:
        hint = _read_hint(argument.annotation, names) if argument.annotation else Any
        named[argument.arg] = Option(hint, REQUIRED if default is None else _literal(default))
    return Options(owner, named, arguments.kwarg is not None)


def _aliases(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.expr]]:
    """Type aliases of a module, `Norm = Literal[...]`, its own and those it imports from readable modules."""
    for name, origin in _imports(tree, module):
        source, _, original = origin.rpartition(".")
        other = _source(source) if source.startswith("dvsn.") and source != module else None
        found = {} if other is None else {n: e for n, e in _assignments(other) if n == original}
        yield from ((name, expression) for expression in found.values())
    yield from _assignments(tree)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if isinstance(node.value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute):
            yield node.targets[0].id, node.value


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def validate(tree: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Everything that can be said about a resolved config without importing what it builds.

    The allow-list; keys and simple types of our own classes and of the optimisers, read from their sources;
    the trainer's options; and elsewhere the type of each value of `defaults`, the same composition without
    the values set by hand (not resolved). Raises `ConfigError` for the first fault.
    """
    check(tree)
    for key in tree if defaults else ():
        if key not in (defaults or {}):
            raise ConfigError(f"{key}: unknown key. {nearest(key, defaults or {})}")
    trainer, usual = tree.get("trainer"), (defaults or {}).get("trainer")
    if isinstance(trainer, Mapping):
        _validate_trainer(trainer, usual if isinstance(usual, Mapping) else {})
    _validate(tree, defaults, "")


def _validate_trainer(trainer: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    for key, value in trainer.items():
        path, hint = f"trainer.{key}", TRAINER_OPTIONS.get(key, Any)
        if key not in TRAINER_OPTIONS and key not in usual and usual:
            raise ConfigError(f"{path}: unknown option. {nearest(key, {*TRAINER_OPTIONS, *usual})}")
        if not fits(value, hint):
            raise ConfigError(f"{path}: expected {spell(hint)}, {_found(value)}")
    devices = trainer.get("devices", "auto")
    words = isinstance(devices, str) and devices != "auto" and not re.fullmatch(r"-1|\d+(,\d+)*,?", devices)
    if words or devices in (0, "0", []):
        found = _found(devices)
        raise ConfigError(
            f"trainer.devices: expected auto, a number of devices, or a list of their ids, {found}"
        )


def _validate(node: Any, default: Any, path: str) -> None:
    if isinstance(node, list | tuple):
        for i, value in enumerate(node):
            same = isinstance(default, list | tuple) and i < len(default)
            _validate(value, default[i] if same else None, _join(path, i))
    if not isinstance(node, Mapping):
        return
    default = (
        default if isinstance(default, Mapping) and default.get("_target_") == node.get("_target_") else {}
    )
    judged: Mapping[str, Option] = {}
    if "_target_" in node:
        try:
            options = _static_options(node["_target_"])
        except ConfigError as error:
            raise ConfigError(f"{_join(path, '_target_')}: {error}") from None
        if options is not None:
            given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
            _check_options(given, options, path, node.get("_partial_", False))
            judged = {key: option for key, option in options.named.items() if option.hint is not Any}
    for key, value in node.items():
        known = key in judged or (path == "trainer" and key in TRAINER_OPTIONS)
        known |= (
            key in PART and path.startswith("distill.") and path.count(".") == 1
        )  # see check_distillation
        usual = default.get(key)
        hint = None if known else _usual_hint(usual)
        if hint is not None and not fits(value, hint):
            raise ConfigError(
                f"{_join(path, key)}: expected {spell(hint)} like the default {usual!r}, {_found(value)}"
            )
        _validate(value, usual, _join(path, key))


def _usual_hint(default: Any) -> Any:
    """What may replace a default value whose class is not known: null, or the same kind of thing."""
    if isinstance(default, bool):
        return bool | None
    if isinstance(default, int | float):
        return float | None
    if isinstance(default, str):
        if "${" in default or default == "???":  # not resolved: unknown
            return None
        return str | float | bool | None  # names may be numbers, and words are often switched off by false
    if isinstance(default, list | tuple):
        numbers = all(isinstance(value, int | float) for value in default)
        return list | float | None if numbers else list | None
    return None
