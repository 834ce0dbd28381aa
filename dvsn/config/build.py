"""A config node becomes an object: only classes that are allowed there, only options that they have.

Nothing is imported, built or called before the whole resolved tree has passed `check`. Importing this file
imports the standard library alone.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.config.allow import allowed, check, group_of, join, renamed
from dvsn.config.light_imports import import_lightning
from dvsn.config.types import fits, found, spell
from dvsn.errors import CheckpointError, ConfigError, DataError, UserError, nearest


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
    return _build(renamed(node), path, extra)


IMPORT_LIGHTNING = ("task", "data", "trainer", "callbacks", "logger")
"""Groups whose classes import Lightning, which takes seconds: a mistake in another group is answered
before that."""


def inspect_tree(tree: Any, *, path: str = "", between: Callable[[Any], None] | None = None) -> None:
    """Checks the options of every node of a resolved tree against the signature of its class. Builds nothing.

    This imports the classes, those of Lightning last. `between` is called with the tree before that part is checked.
    Raises `ConfigError` for the first option that its class does not have, that is missing, or whose value is of another
    type.
    """
    check(tree, path=path)
    tree = renamed(tree)
    if isinstance(tree, Mapping) and not path:
        _inspect({key: node for key, node in tree.items() if key not in IMPORT_LIGHTNING}, path)
        if _names_class([tree.get(key) for key in IMPORT_LIGHTNING]):
            import_lightning()
        if between is not None:
            between(tree)
    _inspect(tree, path)


def _names_class(node: Any) -> bool:
    """Whether a tree holds a `_target_`."""
    if isinstance(node, Mapping):
        return "_target_" in node or any(map(_names_class, node.values()))
    return isinstance(node, list | tuple) and any(map(_names_class, node))


def _inspect(node: Any, path: str) -> None:
    if isinstance(node, Mapping) and "_target_" in node:
        _check_options(locate(node["_target_"], path), _given(node), path, node.get("_partial_", False))
    pairs = (
        node.items()
        if isinstance(node, Mapping)
        else enumerate(node)
        if isinstance(node, list | tuple)
        else ()
    )
    for key, value in pairs:
        _inspect(value, join(path, key))


def _given(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}


def _build(node: Any, path: str, extra: dict[str, Any]) -> Any:
    if isinstance(node, list | tuple):
        return [_build(value, join(path, i), {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        if extra:
            raise ConfigError(f"{path}: nothing to build, the key _target_ is missing")
        return {key: _build(value, join(path, key), {}) for key, value in node.items()}
    kind = locate(node["_target_"], path)
    partial = node.get("_partial_", False)
    given = _given(node)
    _check_options(kind, given | extra, path, partial)
    arguments = {key: _build(value, join(path, key), {}) for key, value in given.items() if key not in extra}
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
    except ImportError as error:
        text = " ".join(str(error).split())
        install = "" if "pip install" in text else f" Try: pip install {error.name or kind.__name__.lower()}"
        raise ConfigError(
            f"{path}: {kind.__name__} needs a package that is missing: {text}{install}"
        ) from error
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"{path}: {kind.__name__} does not take these options: {error}") from error


def locate(target: str, path: str) -> type:
    """The class of a target that has passed `check`, without walking attributes."""
    at, group, prefixes = join(path, "_target_"), group_of(path), allowed()
    assert group is not None  # check() has refused it
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise ConfigError(f"{at}: cannot import {module_name!r}: {error}") from error
        raise ConfigError(f"{at}: there is no module {module_name}. {_nearest_module(module_name)}") from None
    except Exception as error:  # whatever a module does when it is imported
        raise ConfigError(f"{at}: cannot import {module_name!r}: {error}") from error
    kind = inspect.getattr_static(module, name, None)
    if not isinstance(kind, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"{at}: there is no class {name} in {module_name}. {nearest(name, classes)}")
    home = f"{kind.__module__}."
    if not home.startswith((*group.own, *prefixes)):
        raise ConfigError(f"{at}: {target!r} is really {home}{name}, which is not allowed here")
    rules = [bases for prefix, bases in group.own.items() if home.startswith(prefix)] or [group.foreign]
    if all(bases and not issubclass(kind, tuple(map(_base, bases))) for bases in rules):
        expected = " or ".join(base for bases in rules for base in bases)
        raise ConfigError(f"{at}: {target!r} is not a subclass of {expected}")
    return kind


def _nearest_module(name: str) -> str:
    """A module of the same package whose name is like the last word of `name`."""
    parent, _, last = name.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", ())
    files = [
        file.stem for folder in folders for file in Path(folder).glob("*.py") if not file.stem.startswith("_")
    ]
    return nearest(last, files)


def _base(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


REQUIRED = inspect.Parameter.empty


class Option(NamedTuple):
    """One argument of a class."""

    hint: Any
    default: Any = REQUIRED


class Options(NamedTuple):
    """The arguments of a class; `others` if it takes further keywords."""

    owner: str
    named: dict[str, Option]
    others: bool


def _check_options(kind: type, given: Mapping[str, Any], path: str, partial: bool) -> None:
    """Refuses options that the class does not have, values of another type, and what is missing."""
    options = options_of(kind)
    if options is None:
        return
    for key, value in given.items():
        option = options.named.get(key)
        if option is None:
            if options.others:
                continue
            hint = nearest(str(key), options.named)
            raise ConfigError(
                f"{join(path, key)}: unknown option of {options.owner} (found {str(key)!r}). {hint}"
            )
        usual = option.default
        same = usual is not REQUIRED and type(usual) is type(value) and usual == value
        if not same and not fits(value, option.hint):
            raise ConfigError(f"{join(path, key)}: expected {spell(option.hint)}, {found(value)}")
    for key, option in options.named.items():
        if not partial and option.default is REQUIRED and key not in given:
            raise ConfigError(
                f"{join(path, key)}: {options.owner} needs this option. Set {join(path, key)}=..."
            )


def class_options(target: str, path: str) -> Options | None:
    """The arguments of the class that a node at `path` names, by its present or an earlier name. Raises `ConfigError`."""
    node = renamed({"_target_": target})
    check(node, path=path)
    return options_of(locate(node["_target_"], path))


@functools.cache
def options_of(kind: type) -> Options | None:
    """The arguments of a class, from its signature; None where it has none, as some classes of C.

    In a class of dvsn, or of a package that is allowed, `**options` go on to the constructor of the next class, whose
    arguments are then its own too.
    """
    named: dict[str, Option] = {}
    owners = [each for each in kind.__mro__ if "__init__" in vars(each)]
    for owner in owners:
        try:
            signature = inspect.signature(kind if owner is owners[0] else vars(owner)["__init__"])
        except (ValueError, TypeError):
            return None
        others = False
        for parameter in signature.parameters.values():
            others |= parameter.kind is parameter.VAR_KEYWORD
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                hint = parameter.annotation
                hint = Any if hint is REQUIRED else _evaluate(hint, owner) if isinstance(hint, str) else hint
                named.setdefault(parameter.name, Option(hint, parameter.default))
        if not others or not owner.__module__.startswith(("dvsn.", *allowed())):
            break
    named.pop("self", None)
    return Options(kind.__name__, named, others)


class _Names(dict[str, Any]):
    """The names of a module; what is imported for type checkers alone is `Any`."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _evaluate(annotation: str, owner: type) -> Any:
    """An annotation that `from __future__ import annotations` has left as text; `Any` where it cannot be read."""
    try:
        return eval(annotation, {}, _Names(vars(sys.modules[owner.__module__])))
    except Exception:  # noqa: BLE001 - an annotation is no reason to refuse a class
        return Any
