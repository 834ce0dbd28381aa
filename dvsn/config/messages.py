"""Messages of Hydra and OmegaConf, in our words: the path, what was found, the nearest valid name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dvsn.config import menu
from dvsn.config.allow import MOVED
from dvsn.config.rules import TRAINER_OPTIONS
from dvsn.errors import nearest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        yield path, node
    else:
        for key, value in pairs:
            yield from leaves(value, f"{path}.{key}" if path else str(key))


def composition_message(
    error: BaseException,
    name: str = "",
    loader: ConfigLoader | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> str:
    """One message: path, what was found, the nearest valid name."""
    kind, text = type(error).__name__, str(error)
    if kind == "OverrideParseException":
        return _not_understood(str(getattr(error, "override", "")))
    if kind == "MissingConfigException":
        return _missing_option(error, name)
    if isinstance(error, RecursionError):
        return "a config is nested too deeply"
    if kind in ("ScannerError", "ParserError", "ComposerError", "ConstructorError", "ReaderError"):
        return f"a YAML file cannot be read: {' '.join(text.split())}"
    merged = re.match(r"In '([^']+)': \w+ raised while composing config:\s*(.+)", text)
    mixed = ("DictConfig with ListConfig", "incompatible container types")  # of omegaconf 2.3 and 2.4
    if merged and any(words in merged.group(2) for words in mixed):
        return (
            f"{merged.group(1)}.yaml: sets options of a group whose choice has a list there, as transform=none has. "
            "Choose another one, or leave it to the task."
        )
    if merged:
        return f"{merged.group(1)}.yaml: {merged.group(2)}"
    quoted = re.search(r"'([^'\n]+)'", text)
    if text.startswith(("Could not override", "Could not delete")) and quoted and loader is not None:
        return _unknown_key(quoted.group(1).partition("=")[0], loader.list_groups(""), defaults or {})
    if text.startswith("Ambiguous value") and quoted:
        key, _, value = quoted.group(1).partition("=")
        return f"{key}: found several values, {value}. For a list write {key}=[{value}]; for a sweep add -m."
    if error.__cause__ is not None and kind == "ConfigCompositionException":
        override = text.removeprefix("Error merging override ").strip()
        cause = composition_message(error.__cause__)
        return f"{override}: {cause}" if override else cause
    full_key = getattr(error, "full_key", None)
    wanted = REFERS.search(text)
    if wanted:
        return _nothing_there(str(full_key or ""), wanted.group(1) or wanted.group(2), defaults or {})
    message = " ".join(str(getattr(error, "msg", None) or text).split("\n    full_key")[0].split())
    if message == "Cannot merge DictConfig with ListConfig":
        message = "expected a list, found a mapping"
    return f"{full_key}: {message}" if full_key and not message.startswith(str(full_key)) else message or kind


REFERS = re.compile(r"Interpolation key '([^']+)' not found|Error trying to access ([\w.]+): node `")
"""How OmegaConf says that a value refers to what is not there."""


def _nothing_there(path: str, wanted: str, tree: Mapping[str, Any]) -> str:
    """A value refers to a key that the config does not have: what to choose, or the nearest key that there is."""
    message = f"{path}: refers to ${{{wanted}}}, which this config does not have. ".removeprefix(": ")
    root, _, rest = wanted.partition(".")
    offered = menu.choices().get(root)
    if offered and tree.get(root) is None:
        return f"{message}{menu.listed(root, offered)}"
    node: Any = {key: value for key, value in tree.items() if key != "hydra"}
    above, _, last = wanted.rpartition(".")
    for key in above.split(".") if rest else ():
        node = node.get(key) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):
        near = nearest(last, node)
        return (message + (near.replace("mean '", f"mean '{above}.") if above else near)).strip()
    return f"{message}There is no {above}: give it a value, or {path} another one."


def _not_understood(override: str) -> str:
    """An override that Hydra's grammar cannot read: the shell takes one pair of quotes away, Hydra the other."""
    key, equals, value = override.partition("=")
    if equals and re.fullmatch(r"[+~]{0,2}[A-Za-z_][\w./@-]*", key):
        word = f'{key}="{value}"' if '"' not in value else f"{key}='{value}'"
    else:
        word = 'key="a b"'
    return (
        f"{override}: not understood. Write key=value, and special characters of the value in quotes, which the shell must "
        f"not take away: {shlex.quote(word)}"
    )


def _missing_option(error: BaseException, name: str) -> str:
    """A group has no such option, chosen on the command line or in a YAML file."""
    group, _, option = str(getattr(error, "missing_cfg_file", "") or "").rpartition("/")
    options = getattr(error, "options", None) or []
    if not group:
        return f"--config-name: there is no config named {option or name!r}"
    where = re.match(r"In '([^']+)'", str(error))
    ours = where is not None and where.group(1) != name and not where.group(1).startswith("hydra/")
    source = f" (asked for by {where.group(1)}.yaml)" if where and ours else ""
    return f"{group}={option}: no such option of the group {group!r}{source}. {nearest(option, options)}"


def _unknown_key(key: str, groups: Sequence[str], tree: Mapping[str, Any]) -> str:
    """A key that the chosen groups do not have, with the nearest that there is in `tree`."""
    if key.partition("@")[0] in groups:
        return f"{key}: this group is not part of the config. Write +{key}=..."
    if not key.startswith("hydra"):
        tree = {name: value for name, value in tree.items() if name != "hydra"}
    parent, _, last = key.rpartition(".")
    if not parent:
        wanted = {"epochs": "max_epochs", "epoch": "max_epochs"}.get(key, key)
        below = [
            f"'{top}.{wanted}'" for top, node in tree.items() if isinstance(node, Mapping) and wanted in node
        ]
        if below:
            return f"{key}: unknown group or key. Did you mean {' or '.join(below)}?"
        return f"{key}: unknown group or key. {nearest(key, {*tree, *groups} - {'hydra'})}"
    node: Any = tree
    for part in parent.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return f"{key}: unknown key. {nearest(key, {path for path, _ in leaves(tree, '')})}"
    if parent == "data" and last in MOVED and "facts" in node:
        return f"{key}: unknown key. It is called data.facts.{last} now."
    near = nearest(last, node).replace("Did you mean '", f"Did you mean '{parent}.")
    message = f"{key}: unknown key. {near}"
    target = str(node.get("_target_", ""))
    if (target and not target.startswith("dvsn.")) or (parent == "trainer" and last in TRAINER_OPTIONS):
        message += f" To give an option that the config does not name, write +{key}=..."
    return message
