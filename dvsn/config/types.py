"""Types of options: whether a plain value fits an argument, and a type in words."""

from __future__ import annotations

import ast
import collections.abc
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class Built:
    """Stands for every type that no plain YAML value can have: tensors, modules, functions."""


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


def found(value: Any) -> str:
    """The value as the user knows it, with its type in words."""
    if value is None or isinstance(value, bool):
        return f"found {json.dumps(value)}"
    kind = SCALARS.get(type(value)) or ("a list" if isinstance(value, list | tuple) else "a mapping")
    shown = repr(value)
    return f"found {shown if len(shown) <= 80 else shown[:77] + '...'} ({kind})"


def read_hint(node: str | ast.expr, names: Mapping[str, Any]) -> Any:
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
            else read_hint(node.value, names)
            if isinstance(node.value, str)
            else Any
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[read_hint(node.left, names), read_hint(node.right, names)]  # noqa: UP007
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        alias = names.get(name, Any) if isinstance(node, ast.Name) else Any
        if name in WORDS:
            return WORDS[name]
        others = {key: value for key, value in names.items() if key != name}
        return read_hint(alias, others) if isinstance(alias, ast.expr) else alias
    if isinstance(node, ast.Subscript):
        kind = read_hint(node.value, names)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind is Literal:
            try:
                return Literal[tuple(ast.literal_eval(part) for part in parts)]
            except ValueError:  # names such as cv2.INTER_LINEAR
                return Any
        if kind is Any or kind is Built:
            return kind
        inner = tuple(
            ... if isinstance(p, ast.Constant) and p.value is ... else read_hint(p, names) for p in parts
        )
        try:
            return kind[inner if len(inner) > 1 else inner[0]]
        except TypeError:
            return Any
    return Any
