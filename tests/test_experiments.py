"""The scripts of experiments/ and docs/, which no test runs whole: what they import from dvsn exists."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.support.documented import ROOT

SCRIPTS = sorted([*(ROOT / "experiments").rglob("*.py"), *(ROOT / "docs").rglob("*.py")])


def missing(script: Path) -> list[str]:
    """Modules and names of dvsn that a script imports and that are not there."""
    found = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dvsn":
            names = [(node.module, each.name) for each in node.names]
        elif isinstance(node, ast.Import):
            names = [(each.name, "") for each in node.names if each.name.split(".")[0] == "dvsn"]
        found += [
            f"line {node.lineno}: {module}.{name}".rstrip(".")
            for module, name in names
            if not exists(module, name)
        ]
    return found


def exists(module: str, name: str) -> bool:
    try:
        if not name or hasattr(importlib.import_module(module), name):
            return importlib.import_module(module) is not None
        return importlib.import_module(f"{module}.{name}") is not None
    except ImportError:
        return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_what_a_script_imports_exists(script: Path) -> None:
    assert not missing(script)


def test_a_name_that_moved_is_found(tmp_path: Path) -> None:
    script = tmp_path / "old.py"
    script.write_text(
        "from dvsn.engine.callbacks import ProgressBar, Rates\nfrom dvsn.engine import progress\nimport dvsn.none\n"
    )
    assert missing(script) == ["line 1: dvsn.engine.callbacks.ProgressBar", "line 3: dvsn.none"]
