"""The two YAML files: the data set, and the recipe that trains on it. Both are written, or neither."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.recipe import Recipe, Setting
from dvsn.data_tools.init.splits import Plan
from dvsn.errors import ConfigError, DataError

WIDTH = 120
SIMPLE = re.compile(r"[A-Za-z_][\w\- ]*[\w]|[A-Za-z_]")
WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "none"}


def data_yaml(found: Found, plan: Plan, root: Path, *, note: str) -> str:
    """`data/NAME.yaml`."""
    heading = (
        f"{found.kind}: {found.size_words()}, {' + '.join(f'{n} {role}' for role, n in plan.counts.items())}"
    )
    lines = [*comment(f"{heading[0].upper()}{heading[1:]}. {note}")]
    lines += [f"defaults: [{found.base}, _self_]", f"root: {scalar(rooted(root))}"]
    node: dict[str, Any] = {}
    reasons = dict(found.comments)
    if plan.splits != {"train": "train", "val": "val", "test": "test"}:
        node["splits"] = plan.splits
        test_as_val = plan.splits.get("test") == plan.splits.get("val")
        reasons["splits"] = "no test split: val in its place" if test_as_val else ""
    if plan.seed is not None:
        node["split_seed"] = plan.seed
        reasons["split_seed"] = "ranges are of the items shuffled by this"
    if plan.group is not None:
        node["split_group"] = plan.group
        reasons["split_group"] = "names in which this finds the same stay in one split"
    lines += emit(node | found.node, reasons)
    return "\n".join(lines) + "\n"


def recipe_yaml(found: Found, recipe: Recipe, name: str, *, note: str, command: str) -> str:
    """`experiment/NAME.yaml`."""
    lines = ["# @package _global_", *comment(note), "#", f"#   {command}", "#"]
    lines.append("defaults:")
    choices = {"task": Setting(found.task), "data": Setting(name)} | recipe.choices
    for group, setting in choices.items():
        lines += beside(f"  - override /{group}: {scalar(setting.value)}", setting.reason)
    lines.append(f"name: {scalar(name)}")
    reasons = {key: setting.reason for key, setting in recipe.values.items()}
    return "\n".join([*lines, *emit(recipe.nested(), reasons)]) + "\n"


def emit(
    node: Mapping[str, Any], reasons: Mapping[str, str], *, above: str = "", indent: int = 0
) -> list[str]:
    """A tree as lines of YAML, with the reason of a dotted key beside its value. Plain values and short ones on one line."""
    lines: list[str] = []
    for key, value in node.items():
        path, start = f"{above}{key}", f"{' ' * indent}{scalar(key)}:"
        reason = reasons.get(path, "")
        below = any(each.startswith(f"{path}.") for each in reasons)
        long = isinstance(value, Mapping) and len(start) + len(flow(value)) + 1 > WIDTH
        nodes = isinstance(value, Mapping) and any(
            isinstance(each, Mapping | list | tuple) for each in value.values()
        )
        if isinstance(value, Mapping) and value and (below or long or nodes or path in ("dataset", "data")):
            lines += beside(start, reason)
            lines += emit(value, reasons, above=f"{path}.", indent=indent + 2)
        elif isinstance(value, list | tuple) and len(start) + len(flow(value)) + 1 > WIDTH:
            lines += beside(start, reason)
            lines += wrapped(value, indent + 2)
        else:
            lines += beside(f"{start} {flow(value)}", reason)
    return lines


def wrapped(values: Any, indent: int) -> list[str]:
    """A long list over several lines."""
    parts = [flow(value) for value in values]
    rows, row = [], ""
    for part in parts:
        if row and indent + len(row) + len(part) + 3 > WIDTH:
            rows.append(row)
            row = ""
        row += f"{part}, "
    rows.append(row.rstrip(", "))
    rows = [each.rstrip() for each in rows]
    space = " " * indent
    return (
        [
            f"{space}[{rows[0]}",
            *(f"{space} {each}" for each in rows[1:-1]),
            *([f"{space} {rows[-1]}]"] if len(rows) > 1 else []),
        ]
        if len(rows) > 1
        else [f"{space}[{rows[0]}]"]
    )


def beside(line: str, reason: str) -> list[str]:
    """A line with its reason behind it, or above it where it does not fit."""
    if not reason:
        return [line]
    if len(line) + len(reason) + 4 <= WIDTH:
        return [f"{line}  # {reason}"]
    space = " " * (len(line) - len(line.lstrip()))
    return [f"{space}# {part}" for part in textwrap.wrap(reason, WIDTH - len(space) - 2)] + [line]


def comment(text: str) -> list[str]:
    return [
        f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    ]


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A plain value as YAML reads it back under every rule for numbers and words: text in quotes unless it is simple."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if "." in text else text.replace("e", ".0e") if "e" in text else f"{text}.0"
    text = str(value)
    if (SIMPLE.fullmatch(text) and text.lower() not in WORDS and text.isascii()) or is_path(text):
        return text
    return json.dumps(text.replace("${", "\\${"), ensure_ascii=False)


def is_path(text: str) -> bool:
    return re.fullmatch(r"/[\w/.\-]*[\w]", text, re.ASCII) is not None


def rooted(root: Path) -> str:
    """The folder as an absolute path, so that the YAML works wherever a command is called."""
    text = str(root.absolute())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{text!r}: the name of the folder is no text in UTF-8. Rename it.") from error
    return text


def refuse_existing(files: list[Path], overwrite: bool) -> None:
    """Raise `ConfigError` for files that are there already, unless they may be replaced."""
    there = [file for file in files if file.exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{there[0]}: is there already, and is not overwritten. Give another name=..., or overwrite=true."
        )
