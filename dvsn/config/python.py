"""Commands called from Python: arguments become the words of a command line, and the caller's logging,
warnings and environment are left as they are.

In a script or a notebook logging, warnings, Hydra's own state and the environment belong to the caller. Within `called`
they are as a run wants them; afterwards they are as before.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvsn.config import flags, logs, menu
from dvsn.config.compose import Check, hydra_main
from dvsn.errors import ConfigError, nearest

SHORT = {
    "train": {
        **{
            name: f"trainer.{name}"
            for name in (
                "max_epochs", "max_steps", "max_time", "accelerator", "devices", "precision", "limit_train_batches",
                "limit_val_batches", "enable_progress_bar",
            )
        },
        "root": "data.root", "batch_size": "data.batch_size", "workers": "data.workers", "lr": "optim.lr",
    },
    "evaluate": {
        name: f"trainer.{name}"
        for name in ("accelerator", "devices", "precision", "limit_test_batches", "enable_progress_bar")
    },
}  # fmt: skip
"""Options of Python by a single word, for a command: each is the only one that can be meant."""

PLAIN = re.compile(r"[A-Za-z0-9_./@+-]+")
"""Text that Hydra reads as it is."""


def words(command: str, overrides: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The words of a command line: `overrides`, written `key=value`, and `options` by name.

    An option is a key or group of the command's config, a name of `SHORT`, or a dotted path given with `**`; a dict sets
    what lies below its key. Raises `ConfigError` for another name, and for flags, which Python has no use for.
    """
    found = []
    for override in overrides:
        deletes = isinstance(override, str) and override.startswith("~")
        if not deletes and (not isinstance(override, str) or override.startswith("-") or "=" not in override):
            raise ConfigError(
                f"{override}: expected key=value, such as 'task=segmentation'. Sweeps (-m) and other flags are for the "
                "command line; a folder of configs is config_dir=..."
            )
        found.append(override)
    short, known = SHORT[command], _top_level(command)
    for name, value in options.items():
        path = short.get(name, name)
        if "." not in path and path not in known:
            raise ConfigError(
                f"{name}: {command} has no such option. {nearest(name, [*short, *known])} Options of a part are written "
                "with its name, such as 'optim.weight_decay=0.01'."
            )
        found += _assignments(path, value)
    return found


def _top_level(command: str) -> set[str]:
    """The keys and groups of a command's config."""
    import yaml

    file = Path(menu.conf_dir()) / f"{command}.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    groups = {str(key) for entry in content["defaults"] if isinstance(entry, dict) for key in entry}
    return (groups | {str(key) for key in content}) - {"defaults", "hydra"}


def _assignments(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _assignments(f"{path}.{key}", inner)
    else:
        yield f"{path}={spelt(value, path)}"


def spelt(value: Any, path: str = "value") -> str:
    """A value as Hydra's grammar writes it. Raises `ConfigError` for one that no config can hold."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and not _means_more(value):
            return value
        if "${" in value:
            return value
        escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return {math.inf: "inf", -math.inf: "-inf"}.get(
            value, "nan" if math.isnan(value) else repr(float(value))
        )
    if isinstance(value, list | tuple):
        return f"[{','.join(spelt(each, path) for each in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spelt(inner, path)}" for key, inner in value.items()) + "}"
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return spelt(value.item(), path)
    raise ConfigError(
        f"{path}: found {type(value).__name__}, expected text, a number, true or false, None, or a list or dict of them."
    )


def _means_more(text: str) -> bool:
    """Whether a text without quotes is read as a number, a truth or nothing."""
    if text.lower() in ("null", "true", "false", "inf", "nan", "+inf", "-inf", "+nan", "-nan"):
        return True
    return re.fullmatch(r"[+-]?(\d[\d_]*)?\.?\d*([eE][+-]?\d+)?", text) is not None


@contextmanager
def called(argv: Sequence[str]) -> Iterator[None]:
    """Around a command that Python calls with these words. Ctrl-C ends a run as an exception."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    app, node = GlobalHydra.instance(), HydraConfig.instance()
    state, allowed = (app.hydra, node.cfg), os.environ.get("DVSN_ALLOW")
    try:
        with warnings.catch_warnings(), logs.hosted(), flags.standing_for(argv):
            yield
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C, after the batch
            raise KeyboardInterrupt from stop
        raise
    finally:
        app.hydra, node.cfg = state
        if allowed is None:
            os.environ.pop("DVSN_ALLOW", None)
        else:
            os.environ["DVSN_ALLOW"] = allowed


def call(
    command: str,
    job: Callable[[dict[str, Any]], Any],
    overrides: Sequence[str],
    options: Mapping[str, Any],
    *,
    config_dir: str | os.PathLike[str] | None = None,
    allow: Sequence[str] = (),
    check: Check | None = None,
    keeps: bool = False,
) -> Any:
    """What `job` returns for the config of a command, as `dvsn.config.compose.hydra_main` composes it.

    `config_dir` is a folder of the caller's own YAMLs, `allow` names packages of which they may build classes.
    """
    argv = words(command, overrides, options)
    if config_dir is not None:
        argv = ["--config-dir", os.fspath(config_dir), *argv]
    argv = [*(word for name in allow for word in ("--allow", name)), *argv]
    with called(argv):
        return hydra_main(command, job, argv=argv, check=check, keeps=keeps)
