"""The menu: the folder of configs, its groups and their choices, from names and text of files: nothing is imported."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from dvsn.errors import ConfigError

NO_GROUPS = ("compress", "dashboard")
"""Folders of YAML files that no config is composed of."""
PACKAGE = Path(__file__).resolve().parent.parent
CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:\n((?:[ \t].*\n|\n)*)", re.MULTILINE)
IMPORT = re.compile(r"^from (dvsn[\w.]*) import (\([^)]*\)|.+)$", re.MULTILINE)
RESPONSE = re.compile(r"^    response: ClassVar\[\w+\] = \"(\w+)\"", re.MULTILINE)


def conf_dir() -> str:
    """The absolute folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise ConfigError(
        f"no folder of configs at {PACKAGE / 'conf'} or {PACKAGE.parent / 'conf'}: reinstall dvsn"
    )


def choices() -> dict[str, list[str]]:
    """Each config group with its options, from the names of the YAML files."""
    root = Path(conf_dir())
    found: dict[str, list[str]] = {}
    for file in sorted(root.glob("*/**/*.yaml")):
        if not file.stem.startswith("_") and file.parent.name not in NO_GROUPS:
            found.setdefault(file.parent.relative_to(root).as_posix(), []).append(file.stem)
    return found


def networks_by_task() -> dict[str, list[str]]:
    """The networks under the tasks that take their kind of answer, `response`; under `any task` those that do not say it.

    Tasks that take the same kind stand together, such as `pose, landmarks_heatmaps`.
    """
    tasks: dict[str, list[str]] = {}
    for name in choices().get("task", []):
        response = answer_of(_target("task", name))
        if response:
            tasks.setdefault(response, []).append(name)
    found: dict[str, list[str]] = {", ".join(names): [] for names in tasks.values()}
    for name in choices().get("network", []):
        takers = tasks.get(answer_of(_target("network", name)) or "")
        found.setdefault(", ".join(takers) if takers else "any task", []).append(name)
    return {title: names for title, names in found.items() if names}


def _target(group: str, name: str) -> str:
    """The class that a choice builds: the first `_target_` of its file, or of one that it inherits from."""
    text = (Path(conf_dir()) / group / f"{name}.yaml").read_text(encoding="utf-8")
    named = re.search(r"^ *_target_: *([\w.]+)", text, re.MULTILINE)
    if named is not None:
        return named[1]
    parents = re.search(r"^defaults:((?:\n? +.*)+|.*)$", text, re.MULTILINE)
    known = [word for word in re.findall(r"\w+", parents[1] if parents else "") if word != name]
    return next((_target(group, each) for each in known if each in choices().get(group, [])), "")


@functools.cache
def answer_of(target: str) -> str | None:
    """`response` of a class of dvsn, or of the first of its bases that says it; None where none does."""
    module, _, name = target.rpartition(".")
    file = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    if not module.startswith("dvsn.") or not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    classes = {each[1]: each for each in CLASS.finditer(text)}
    if name not in classes:
        return None
    said = RESPONSE.search(classes[name][3])
    if said is not None:
        return said[1]
    origin = {word: each[1] for each in IMPORT.finditer(text) for word in re.findall(r"\w+", each[2])}
    bases = re.findall(r"[\w.]+", classes[name][2] or "")
    answers = (answer_of(f"{module if base in classes else origin.get(base, '')}.{base}") for base in bases)
    return next((each for each in answers if each), None)


LISTED = 20
"""Choices of a group that a message names."""


def listed(group: str, names: Sequence[str], *, rest: str = "", which: str = "") -> str:
    """A sentence that lists choices of a group. `which` describes them; `rest` is further advice at its end."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Choices of {group}=...{which}: {', '.join(names[:LISTED]) or 'none'}{more}{rest}."
