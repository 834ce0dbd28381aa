"""Limits for Hydra: the places it may read YAML files from, and the size of these files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from dvsn.errors import ConfigError
from dvsn.reading import read_text

MAX_FILE = 1 << 20  # bytes of a YAML file
OWN = {"pkg": "pkg://hydra.conf", "structured": "structured://"}
"""Where Hydra's own configs are."""


def check_yaml(path: str | Path) -> None:
    """Refuses a YAML file that is huge or holds aliases, which can grow without end."""
    import yaml

    size = Path(path).stat().st_size
    if size > MAX_FILE:
        raise ConfigError(f"{path}: {size} bytes, expected at most {MAX_FILE} for a config")
    text = read_text(path, expected="a config")
    if "*" not in text:
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for token in yaml.scan(text, Loader=loader):
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise ConfigError(
                f"{path}, line {line}: aliases (*{token.value}) are not allowed. Use ${{...}} instead."
            )


def check_node(config: Any, file: Path) -> None:
    """Raises `ConfigError` for a Hydra's node of a file that is no mapping, or has a defaults list, which Hydra drops."""
    from omegaconf import OmegaConf

    if not OmegaConf.is_dict(config) or "hydra" not in config:
        return
    node = None if OmegaConf.is_interpolation(config, "hydra") else config["hydra"]
    if node is None or not OmegaConf.is_dict(node):
        raise ConfigError(f"hydra: expected a mapping of options, in {file}")
    if "defaults" in node:
        raise ConfigError(f"hydra.defaults: not allowed in a config, in {file}")


@functools.cache
def bound() -> None:
    """Hydra reads configs from folders (file://), each file through `check_yaml`, and from nowhere else.

    Sources in Python packages (pkg://) and modules (structured://) import what they are given the name of, so they are
    refused, except the two with Hydra's own configs.
    """
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers Hydra's own sources, which are replaced here
    kinds: dict[str, Any] = SourcesRegistry.instance().types
    files: Any = kinds["file"]

    class BoundedSource(files):  # type: ignore[misc]
        """Files of a folder, each checked before it is read."""

        def load_config(self, config_path: str) -> Any:
            file = Path(self.path) / self._normalize_file_name(config_path)
            if file.is_file():
                check_yaml(file)
            try:
                result = super().load_config(config_path)
            except OSError as error:
                if "loaded object type" not in str(error):
                    raise
                raise ConfigError(f"{file}: expected a mapping of options, found a single value.") from error
            check_node(result.config, file)
            return result

    def only(kind: Any, own: str) -> Any:
        """The source `kind` for the path `own` alone."""

        def source(provider: str, path: str) -> Any:
            if path != own:
                raise ConfigError(
                    f"hydra.searchpath: found {path}, expected folders, such as file:///home/me/conf"
                )
            return kind(provider, path)

        return source

    for scheme in set(kinds):
        kinds[scheme] = only(kinds[scheme], OWN.get(scheme, ""))
    kinds["file"] = BoundedSource
