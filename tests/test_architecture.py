"""The floors of ARCHITECTURE.md hold: imports go down or stay in their room, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Import(NamedTuple):
    """One import of our own: `source` imports `target`, both module names, at `line`; `deferred`: inside a function."""

    source: str
    target: str
    line: int
    deferred: bool


def read_floors(text: str) -> dict[str, int]:
    """The floor of each room by name, from the table `| floor | rooms | ... |`."""
    floors: dict[str, int] = {}
    for number, rooms in re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE):
        floors.update(dict.fromkeys(re.findall(r"`(\w+)`", rooms), int(number)))
    return floors


def read_modules(root: Path) -> dict[str, Path]:
    """The files of the package by module name; a package is named as its folder."""
    found = {}
    for file in sorted(root.rglob("*.py")):
        parts = (root.name, *file.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def read_imports(modules: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of our own modules, also inside functions and under TYPE_CHECKING."""
    package = next(iter(modules)).partition(".")[0]
    for source, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.partition(".")[0] == package]
            for name in names:
                target = name if name in modules else name.rpartition(".")[0]
                if target != source:
                    yield Import(source, target, node.lineno, node.col_offset > 0)  # type: ignore[attr-defined]


def room(module: str) -> str:
    """The room of a module by its name in the table: `dvsn.data.crop` is in `data`; a `__main__` is a command."""
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__"
    return "__main__" if parts[-1] == "__main__" else parts[1]


def broken_floors(imports: list[Import], modules: Mapping[str, Path], floors: Mapping[str, int]) -> list[str]:
    """Imports that go up, or into another room of the same floor, in words."""
    wrong = []
    for each in imports:
        own, other = room(each.source), room(each.target)
        same_folder = each.source.split(".")[:2] == each.target.split(".")[:2]
        if own != other and not (same_folder and own == "__main__") and floors[other] >= floors[own]:
            wrong.append(
                f"{modules[each.source].relative_to(ROOT)}, line {each.line}: {own} (floor {floors[own]}) imports "
                f"{modules[each.target].relative_to(ROOT)} of {other} (floor {floors[other]})"
            )
    return wrong


def circles(imports: list[Import], modules: Mapping[str, Path]) -> list[str]:
    """Imports between modules that reach each other, in words (Tarjan's components, by plain reachability)."""
    after: dict[str, set[str]] = {module: set() for module in modules}
    for each in imports:
        after[each.source].add(each.target)

    def reach(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for target in after[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    reached = {module: reach(module) for module in modules}
    return [
        f"{modules[each.source].relative_to(ROOT)}, line {each.line}: imports "
        f"{modules[each.target].relative_to(ROOT)}, which imports it again"
        for each in imports
        if each.source in reached[each.target]
    ]


def test_every_room_has_a_floor() -> None:
    modules = read_modules(ROOT / "dvsn")
    floors = read_floors((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    rooms = {room(module) for module in modules}
    assert rooms - set(floors) == set(), "these have no floor in ARCHITECTURE.md"
    assert set(floors) - rooms == set(), "ARCHITECTURE.md names these, and they are not there"


def test_imports_go_down() -> None:
    modules = read_modules(ROOT / "dvsn")
    floors = read_floors((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    wrong = broken_floors(list(read_imports(modules)), modules, floors)
    assert not wrong, "\n".join(["", *wrong])


def test_no_circles() -> None:
    modules = read_modules(ROOT / "dvsn")
    wrong = circles(list(read_imports(modules)), modules)
    assert not wrong, "\n".join(["", *wrong])


def test_a_broken_floor_and_a_circle_are_found() -> None:
    """The walk itself, on imports made up here: up a floor, sideways, a circle inside a room."""
    names = [
        "dvsn",
        "dvsn.errors",
        "dvsn.data.crop",
        "dvsn.data.face",
        "dvsn.tasks.pose",
        "dvsn.pictures.draw",
    ]
    modules = {name: ROOT / f"{name.replace('.', '/')}.py" for name in names}
    floors = {"__init__": 10, "errors": 1, "data": 4, "pictures": 4, "tasks": 6}
    imports = [
        Import("dvsn.tasks.pose", "dvsn.data.crop", 1, False),
        Import("dvsn.data.crop", "dvsn.data.face", 2, False),
        Import("dvsn.data.face", "dvsn.data.crop", 3, True),
        Import("dvsn.data.crop", "dvsn.tasks.pose", 4, True),
        Import("dvsn.data.crop", "dvsn.pictures.draw", 5, False),
    ]
    wrong = broken_floors(imports, modules, floors)
    assert [line.split(": ")[0] for line in wrong] == [
        "dvsn/data/crop.py, line 4",
        "dvsn/data/crop.py, line 5",
    ]
    assert "dvsn/tasks/pose.py of tasks (floor 6)" in wrong[0]
    assert {int(line.split("line ")[1].split(":")[0]) for line in circles(imports, modules)} == {1, 2, 3, 4}


def test_a_function_fits_on_a_screen() -> None:
    """Of at most 60 lines; the drawing of the street, which is long lists of shapes, is let off."""
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for file in sorted((ROOT / "dvsn").rglob("*.py"))
        if file.parent.name != "street"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert not long, "\n".join(long)
