"""Every private name of Hydra that dvsn uses, each with a test that says which one has changed."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import RunMode

from dvsn.config import compose, menu, sources

PRIVATE = {
    "hydra._internal.config_loader_impl.ConfigLoaderImpl": "dvsn/config/hydra_node.py",
    "hydra._internal.sources_registry.SourcesRegistry": "dvsn/config/sources.py",
}
"""The private names, and the file that uses each. There shall be no further ones."""


def find_private(root: Path) -> dict[str, str]:
    """What the package imports of modules or names of Hydra and OmegaConf that begin with an underscore."""
    found = {}
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                package, *rest = name.split(".")
                hidden = any(part.startswith("_") and not part.startswith("__") for part in rest)
                if package in ("hydra", "omegaconf") and hidden:
                    found[name] = file.relative_to(root.parent).as_posix()
    return found


def test_the_list_is_complete() -> None:
    assert find_private(Path(menu.PACKAGE)) == PRIVATE


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute), f"Hydra has no {name} any more"


def test_values_of_the_command_line_are_set_by_one_static_method() -> None:
    """`before_values` looks at the config just before: `ConfigLoaderImpl._apply_overrides_to_config(overrides, cfg)`."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    found = inspect.getattr_static(ConfigLoaderImpl, "_apply_overrides_to_config", None)
    assert isinstance(found, staticmethod), "ConfigLoaderImpl._apply_overrides_to_config has changed"
    assert list(inspect.signature(found.__func__).parameters) == ["overrides", "cfg"]
    with compose.opened("train", []) as session:
        composed = compose.compose(session.loader, "train", ["seed=7"])
    assert composed.cfg.seed == 7
    assert composed.defaults["seed"] == 0, (
        "ConfigLoaderImpl._apply_overrides_to_config is not what sets values any more"
    )


def test_sources_are_made_from_a_table_of_schemes() -> None:
    """`sources.bound` replaces entries of `SourcesRegistry.instance().types`."""
    from hydra._internal.sources_registry import SourcesRegistry

    sources.bound()
    kinds: Any = SourcesRegistry.instance().types
    assert {"file", "pkg", "structured"} <= set(kinds), "SourcesRegistry.types has other schemes"
    with compose.initialized(menu.conf_dir()):
        loader = GlobalHydra.instance().config_loader()
        found = [source for source in loader.get_sources() if source.provider == "main"]
    assert [type(source) for source in found] == [kinds["file"]], "SourcesRegistry.types is not what is used"


def test_a_loader_is_made_of_a_search_path(tmp_path: Path) -> None:
    """`--config-dir` makes a second loader, `type(loader)(path)`, with one entry more before Hydra's last."""
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "mine.yaml").write_text("width: 3\n")
    with compose.opened("train", [f"--config-dir={tmp_path}"]) as session:
        providers = [source.provider for source in session.loader.get_sources()]
        assert providers == ["hydra", "main", "command-line", "schema"]
        cfg = session.loader.load_configuration("train", ["network=mine"], run_mode=RunMode.RUN)
    assert cfg.network.width == 3


def test_plugins_are_named_as_the_launcher_expects() -> None:
    """The launcher replaces Hydra's own default, and asks whether the sweeper only enumerates."""
    known = {f"{each.__module__}.{each.__name__}" for each in Plugins.instance().discover()}
    for name in ("basic_launcher.BasicLauncher", "basic_sweeper.BasicSweeper"):
        assert f"hydra._internal.core_plugins.{name}" in known, f"Hydra has no plugin {name} any more"


def test_the_resolver_and_the_launcher_are_registered_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    from dvsn.sweep import launcher

    for _ in range(2):
        launcher.register()
        with compose.opened("train", []):
            pass
    assert [str(each.message) for each in recwarn] == []
