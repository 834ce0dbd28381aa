"""Imports that wait until they are used, on small packages made up here."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvsn.config.light_imports import import_light

PACKAGES = ("heavy_part", "light_user", "other_user")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`heavy_part` with a submodule, and `light_user`, whose text a test writes; forgotten afterwards."""
    heavy = tmp_path / "heavy_part"
    heavy.mkdir()
    (heavy / "__init__.py").write_text("")
    (heavy / "models.py").write_text(
        "class Kind:\n    best = 3\n\ndef net(width, *, depth=1):\n    return Kind(), width * depth\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


DEFERRED = {"light_user": ("heavy_part", "heavy_part.models")}


def test_a_deferred_import_happens_at_first_use(packages: Path) -> None:
    (packages / "light_user.py").write_text(
        "from heavy_part import models\nfrom heavy_part.models import Kind, net\nimport heavy_part.models\n"
        "found = hasattr(heavy_part.models, 'anything')\n"
    )
    import_light("light_user", DEFERRED)
    user = sys.modules["light_user"]
    assert user.found and "heavy_part" not in sys.modules
    kind, product = user.net(2, depth=5)
    real = sys.modules["heavy_part.models"]
    assert type(kind) is real.Kind and product == 10  # 2 * 5, by the function itself
    assert user.Kind.best == 3 and user.models.net is real.net and user.heavy_part.models.Kind is real.Kind
    with pytest.raises(AttributeError, match="anything"):
        _ = user.models.anything


def test_a_deferred_decorator_waits_for_the_function_it_decorates(packages: Path) -> None:
    """As torchmetrics decorates its plots with matplotlib's styles."""
    (packages / "heavy_part" / "models.py").write_text(
        "def times(factor):\n    return lambda function: lambda number: factor * function(number)\n"
    )
    (packages / "light_user.py").write_text(
        "from heavy_part import models\nscale = models.times\n"
        "@scale(3)\ndef after(number):\n    return number + 1\n"
    )
    import_light("light_user", DEFERRED)
    assert "heavy_part" not in sys.modules
    assert [sys.modules["light_user"].after(number) for number in (1, 4)] == [6, 15]


def test_others_import_at_once(packages: Path) -> None:
    (packages / "other_user.py").write_text("from heavy_part.models import Kind\n")
    (packages / "light_user.py").write_text("import other_user\nfrom heavy_part.models import net\n")
    import_light("light_user", DEFERRED)
    assert sys.modules["other_user"].Kind is sys.modules["heavy_part.models"].Kind


def test_what_cannot_wait_is_imported_in_full(packages: Path) -> None:
    (packages / "light_user.py").write_text(
        "from heavy_part.models import Kind, net\nclass Own(Kind): pass\n"
        "if not isinstance(Kind, type): raise TypeError\n"
    )
    import_light("light_user", DEFERRED)
    assert issubclass(sys.modules["light_user"].Own, sys.modules["heavy_part.models"].Kind)


def test_python_imports_as_before_afterwards(packages: Path) -> None:
    before = builtins.__import__
    (packages / "light_user.py").write_text("raise ValueError('broken')\n")
    with pytest.raises(ValueError, match="broken"):
        import_light("light_user", DEFERRED)
    assert builtins.__import__ is before
    (packages / "light_user.py").write_text("from heavy_part.models import Kind\n")
    importlib.invalidate_caches()
    importlib.import_module("light_user")
    assert sys.modules["light_user"].Kind is sys.modules["heavy_part.models"].Kind


def test_a_package_that_is_there_stays(packages: Path) -> None:
    (packages / "light_user.py").write_text("from heavy_part.models import Kind\n")
    there = importlib.import_module("light_user")
    import_light("light_user", DEFERRED)
    assert sys.modules["light_user"] is there and there.Kind.best == 3
