"""What the messages of the source advise: `key=value` and command lines in its texts, found without raising them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.config.allow import renamed
from dvsn.config.build import locate, options_of
from dvsn.config.rules import _usual_hint

HOLE = "\N{CURRENCY SIGN}"
"""Stands for what an f-string or a %s fills in."""
KEY = re.compile(
    rf"(?<![\w.=/{{(\[<{HOLE}-])(\+{{0,2}}[a-z_{HOLE}][\w{HOLE}]*(?:[./][\w{HOLE}]+)*)=(?![=~])('[^']*'|\[[^\]]*\]|[^\s,;`\"]*)"
)


class Advice(NamedTuple):
    """One `key=value` of a message."""

    file: str
    line: int
    key: str
    value: str
    command: str = ""
    """The command that the text names for it: write=ids of python -m dvsn.predict."""


@functools.cache
def texts(file: Path) -> list[tuple[int, str]]:
    """Each text of a file that is no docstring, with its line; what is filled in is `HOLE`."""
    return list(found_texts(file))


def found_texts(file: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, re.sub(r"%\w|%\.\d\w", HOLE, node.value)


def advice(package: Path) -> Iterator[Advice]:
    """Every `key=value` of the texts of a package; HTML, whose attributes look like some, is none."""
    for file in sorted(package.rglob("*.py")):
        for line, text in texts(file):
            if text.startswith("<"):
                continue
            for match in KEY.finditer(text):
                value = match.group(2).rstrip(".:)'")
                named = re.match(r" of python -m dvsn\.(\w+)", text[match.end() :])
                name = named.group(1) if named else ""
                yield Advice(file.relative_to(package).as_posix(), line, match.group(1), value, name)


def commands(package: Path) -> Iterator[tuple[str, int, str, list[str]]]:
    """Every command line `python -m dvsn.NAME key=value ...`: its file, line, NAME and arguments."""
    for file in sorted(package.rglob("*.py")):
        for line, text in texts(file):
            for match in re.finditer(r"python -m dvsn\.(\w+(?:\.\w+)?)((?: [^\s;`]+)*)", text):
                yield file.relative_to(package).as_posix(), line, match.group(1), match.group(2).split()


def keys_of(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The path of everything below a node, with what stands there; the options of each class that a node names, with
    their types."""
    if not isinstance(node, Mapping):
        return
    hints: dict[str, Any] = {}
    if "_target_" in node:
        options = options_of(locate(renamed(node)["_target_"], path))
        hints = {} if options is None else {name: option.hint for name, option in options.named.items()}
    for name in {**hints, **node}:
        at = f"{path}.{name}" if path else str(name)
        usual = Any if name not in node else _usual_hint(node[name]) or Any
        yield at, hints.get(name, Any) if "_target_" in node else usual
        yield from keys_of(node.get(name), at)
