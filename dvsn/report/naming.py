"""Names of settings and rows: the options in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dvsn.report.runs import Run


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config by their dotted path. A list is a value, and so is an empty mapping."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def differing(nodes: Sequence[Any]) -> list[dict[str, str]]:
    """Of each node the flat options in which the nodes differ."""
    tables = [
        {path: json.dumps(value, default=str, ensure_ascii=False) for path, value in leaves(node) if value != {}}
        for node in nodes
    ]  # fmt: skip
    keys = dict.fromkeys(key for table in tables for key in table)
    differ = [key for key in keys if len({table.get(key) for table in tables}) > 1]
    return [{key: table[key] for key in differ if key in table} for table in tables]


def titled(settings: Sequence[Any]) -> list[str]:
    """A title for each setting: `key=value` of the options in which they differ, six at most."""
    return [
        ", ".join(f"{key}={value}" for key, value in list(table.items())[:6]) for table in differing(settings)
    ]


def labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each group of runs: the overrides that its jobs do not share with all others, else the options of the
    configs that differ, three at most; numbered where that leaves two alike."""
    if len(groups) == 1:
        return [groups[0][0].name or "all runs"]
    given = [first_overrides(members) for members in groups]
    found = [""] * len(groups)
    if all(each is not None for each in given):
        words = [each or [] for each in given]
        shared = set(words[0]).intersection(*words[1:])
        found = [" ".join(word for word in each if word not in shared) for each in words]
    if "" in found or len(set(found)) < len(found):
        tables = differing([members[0].setting for members in groups])
        found = [short(table) for table in tables]
    return [
        name if found.count(name) == 1 else f"{name} #{found[: place + 1].count(name)}"
        for place, name in enumerate(found)
    ]


def first_overrides(runs: Sequence[Run]) -> list[str] | None:
    """Those of the first run, without its seed and fold."""
    given = runs[0].overrides
    if given is None:
        return None
    return [
        word for word in given if word.lstrip("+").partition("=")[0] not in ("seed", "data.seed", "data.fold")
    ]


def short(table: Mapping[str, str]) -> str:
    words = [
        f"{key.removesuffix('._target_')}={json.loads(value)}".replace("dvsn.", "")
        for key, value in list(table.items())[:3]
    ]
    return " ".join([*words, *([f"and {len(table) - 3} more"] if len(table) > 3 else [])])
