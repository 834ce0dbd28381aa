"""Types of options: whether a plain value fits an argument, and a type in words."""

from __future__ import annotations

import collections.abc
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dvsn.errors import ConfigError


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


SEQUENCES = (list, tuple, set, frozenset, Sequence, collections.abc.Iterable, collections.abc.Collection)


MAPPINGS = (dict, Mapping, collections.abc.MutableMapping)


SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


BUILT = ("Tensor", "Module", "Callable", "Optimizer")
"""Names of types that no plain YAML value can have."""


def _built(hint: Any) -> bool:
    return getattr(typing.get_origin(hint) or hint, "__name__", "") in BUILT


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
    if _built(kind):
        return isinstance(value, Mapping)  # a dict of things that are built
    return value is not None or not isinstance(kind, type) or kind in (Any, object)


def _fits_each(values: Sequence[Any], kind: Any, inner: tuple[Any, ...]) -> bool:
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return not inner or all(fits(value, inner[0]) for value in values)


Rules = Iterable[tuple[str, Any, Any, str]]
"""Of options: the path, the value, whether it is right, and what is expected."""


def require(rules: Rules, path: str = "") -> None:
    """Raise `ConfigError` for the first value that breaks its rule. `path` is put before the paths of the rules."""
    for key, value, right, expected in rules:
        if not right:
            raise ConfigError(f"{path}{key}: found {value!r}, expected {expected}.")


def spell(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(spell(choice) for choice in inner if not _built(choice)))
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
        return (
            f"a mapping (each {spell(inner[1])})" if len(inner) == 2 and inner[1] in SCALARS else "a mapping"
        )
    if kind is None or kind is type(None):
        return "null"
    if kind is Path:
        return "a path"
    return "a node with _target_" if _built(kind) else getattr(kind, "__name__", str(kind))


def found(value: Any) -> str:
    """A value as the user wrote it, with its type in words."""
    if value is None or isinstance(value, bool):
        return f"found {json.dumps(value)}"
    kind = SCALARS.get(type(value)) or ("a list" if isinstance(value, list | tuple) else "a mapping")
    shown = repr(value)
    return f"found {shown if len(shown) <= 80 else shown[:77] + '...'} ({kind})"
