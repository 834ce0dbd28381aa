"""What a dashboard shows, read from a YAML file: sections of panels, as plain data that knows nothing of W&B."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dvsn.config.menu import conf_dir
from dvsn.errors import ConfigError, nearest
from dvsn.reading import read_bytes

SHARED = "_shared"
KEYS = ("title", "about", "runs", "score", "better", "sections")
BEST = "best"
"""The word in a panel that stands for the best value of the dashboard's score."""
KINDS: dict[str, dict[str, type]] = {
    "line": {"y": list, "pattern": str, "log_y": bool},
    "bars": {"of": list},
    "number": {"of": str},
    "scatter": {"x": str, "y": str},
    "pictures": {"keys": list},
    "table": {"key": str},
    "matrix": {"key": str},
    "parallel": {"columns": list},
    "importance": {"of": str},
    "compare": {},
    "text": {"text": str},
}
"""The kinds of panels, with their options beside `title`."""
OPTIONAL = {"line": ("y", "pattern", "log_y")}
WORDS = {str: "text", list: "a list of names", bool: "true or false"}


@dataclass(frozen=True)
class Panel:
    kind: str
    title: str
    options: dict[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(
            f"{key}: {', '.join(value) if isinstance(value, list) else value}"
            for key, value in self.options.items()
        )
        return f"{self.kind:<10}  {self.title}" + (f"  ({shown})" if shown else "")


@dataclass(frozen=True)
class Section:
    name: str
    panels: tuple[Panel, ...]
    open: bool = True


@dataclass(frozen=True)
class Dashboard:
    """`runs` are the tags of the runs that are shown; `score` the logged value by which they are ranked."""

    name: str
    title: str
    about: str
    runs: tuple[str, ...]
    score: str
    better: str
    """`more` or `less`."""
    sections: tuple[Section, ...]

    def __str__(self) -> str:
        """What it would make, in lines."""
        lines = [f"{self.title}: runs tagged {' or '.join(self.runs)}, ranked by the best {self.score}"]
        for section in self.sections:
            lines.append(f"  {section.name}{'' if section.open else ' (closed)'}")
            lines += [f"    {panel}" for panel in section.panels]
        return "\n".join(lines)


def folder() -> Path:
    return Path(conf_dir()) / "dashboard"


def names() -> list[str]:
    """The dashboards that come with dvsn: those of the tasks."""
    return sorted(file.stem for file in folder().glob("*.yaml") if not file.stem.startswith("_"))


def load(name: str) -> Dashboard:
    """A dashboard by its name, or from a file of the user's own. Raises `ConfigError`."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if file.parent == folder() and name not in names():
        raise ConfigError(f"task: there is no dashboard '{name}'. {nearest(name, names())}")
    node, shared = read(file), read(folder() / f"{SHARED}.yaml")
    unknown = set(node) - set(KEYS)
    if unknown:
        key = sorted(map(str, unknown))[0]
        raise ConfigError(f"{file}: {key}: unknown key. {nearest(key, KEYS)}")
    score, better = text(node, "score", file), text(node, "better", file)
    if better not in ("more", "less"):
        raise ConfigError(f"{file}: better: found '{better}', expected more or less.")
    return Dashboard(
        name=file.stem,
        title=text(node, "title", file),
        about=text(node, "about", file) if "about" in node else "",
        runs=tuple(texts(node, "runs", file)),
        score=score,
        better=better,
        sections=tuple(
            section(each, f"{file}: sections[{number}]", score)
            for number, each in enumerate(
                [*listed(node, "sections", file), *listed(shared, "sections", file)]
            )
        ),
    )


def read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(read_bytes(file, expected="the description of a dashboard"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected title, runs, score and sections, as in {folder()}.")
    return found


def section(node: Any, where: str, score: str) -> Section:
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: found {node!r}, expected name and panels.")
    opened = node.get("open", True)
    if not isinstance(opened, bool):
        raise ConfigError(f"{where}: open: found {opened!r}, expected true or false.")
    panels = listed(node, "panels", where)
    return Section(
        text(node, "name", where),
        tuple(panel(each, f"{where}: panels[{number}]", score) for number, each in enumerate(panels)),
        opened,
    )


def panel(node: Any, where: str, score: str) -> Panel:
    """A panel whose options are those of its kind, `best` replaced by the name of the best score."""
    kind = node.get("kind") if isinstance(node, dict) else None
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind: found {kind!r}. {nearest(str(kind), KINDS)}")
    options = {key: value for key, value in node.items() if key not in ("kind", "title")}
    for key, value in options.items():
        if key not in KINDS[kind]:
            raise ConfigError(f"{where}: {key}: unknown option of {kind}. {nearest(str(key), KINDS[kind])}")
        expected = KINDS[kind][key]
        parts = value if isinstance(value, list) else [""]
        if not isinstance(value, expected) or not all(isinstance(each, str) for each in parts):
            raise ConfigError(f"{where}: {key}: found {value!r}, expected {WORDS[expected]}.")
    missing = [key for key in KINDS[kind] if key not in options and key not in OPTIONAL.get(kind, ())]
    if missing or (kind == "line" and ("y" in options) == ("pattern" in options)):
        raise ConfigError(f"{where}: a panel '{kind}' needs {missing[0] if missing else 'y or pattern'}.")
    checked_pattern(options.get("pattern"), where)
    named = {key: replaced(value, score) if key in ("of", "columns", "x", "y") else value
             for key, value in options.items()}  # fmt: skip
    return Panel(kind, text(node, "title", where), named)


def checked_pattern(pattern: str | None, where: str) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{where}: pattern: not a regular expression: {error}.") from error


def replaced(value: Any, score: str) -> Any:
    if isinstance(value, list):
        return [replaced(each, score) for each in value]
    return f"best/{score}" if value == BEST else value


def text(node: Mapping[str, Any], key: str, where: Any) -> str:
    found = node.get(key)
    if not isinstance(found, str) or not found:
        raise ConfigError(f"{where}: {key}: found {found!r}, expected text.")
    return found


def listed(node: Mapping[str, Any], key: str, where: Any) -> Sequence[Any]:
    found = node.get(key)
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{where}: {key}: found {found!r}, expected a list.")
    return found


def texts(node: Mapping[str, Any], key: str, where: Any) -> list[str]:
    found = listed(node, key, where)
    if not all(isinstance(each, str) for each in found):
        raise ConfigError(f"{where}: {key}: found {found!r}, expected a list of names.")
    return list(found)
