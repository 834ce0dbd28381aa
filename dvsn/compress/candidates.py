"""Candidates and methods of distillation, read from a YAML file: names with the options of dvsn.train that they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from dvsn.config.menu import conf_dir
from dvsn.errors import ConfigError, nearest
from dvsn.reading import read_text

ALONE = "alone"
"""The method of a student that learns from labels alone."""
OWN = ("input", "pruned")
"""Words of a candidate that are not options of dvsn.train: `input=0.5`, the share of the picture's sides that the network
sees, `pruned=0.5`, the share of its channels that go. A third is `network=teacher`: the teacher's own network."""
KINDS = {"landmarks_heatmaps": "landmarks"}
"""Tasks whose candidates are those of another."""


@dataclass(frozen=True)
class Menu:
    """What is tried for a task."""

    task: str
    """Its choice in the group `task`."""
    candidates: dict[str, list[str]]
    """The options of dvsn.train by name."""
    methods: dict[str, list[str]]

    def words(self, candidate: str, method: str = ALONE) -> list[str]:
        """The options of a student without those that all share."""
        return [f"task={self.task}", *self.candidates[candidate], *self.methods[method]]

    def plain(self) -> Menu:
        """The candidates whose words are all options of dvsn.train."""
        return Menu(
            self.task,
            {name: words for name, words in self.candidates.items() if not own_words(words)[0]},
            self.methods,
        )

    def only(self, *, candidates: Any = None, methods: Any = None) -> Menu:
        """Those that are named, of lists of names; None: all. Raises `ConfigError` for a name that there is not."""
        return Menu(
            self.task,
            chosen("candidates", self.candidates, candidates),
            chosen("methods", self.methods, methods),
        )


def own_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What a candidate says beside options of dvsn.train, by name, and these options."""
    own: dict[str, Any] = {}
    rest = []
    for word in words:
        key, _, text = word.partition("=")
        if key in OWN:
            own[key] = float(Fraction(text))
        elif word == "network=teacher":
            own["network"] = "teacher"
        else:
            rest.append(word)
    return own, rest


def require_own(words: Sequence[str], where: str) -> None:
    """Raises `ConfigError` where words of a candidate's own have no meaning."""
    for word in words:
        key, _, text = word.partition("=")
        if key not in OWN:
            continue
        share = Fraction(text) if re.fullmatch(r"0?\.\d+|1/[1-9]\d*", text) else Fraction()
        if not 0 < share < 1:
            raise ConfigError(f"{where}: found {word}, expected a number between 0 and 1, such as {key}=0.5.")
        if key == "input" and share < Fraction(1, 2) and share.numerator != 1:
            raise ConfigError(
                f"{where}: found {word}, expected 1/2, 1/3, 1/4, ..., or a number between 0.5 and 1."
            )
    own, rest = own_words(words)
    if "pruned" in own and "network" not in own:
        raise ConfigError(f"{where}: pruned=... needs network=teacher, which alone has learnt what may go.")
    if "network" in own and any(word.startswith("network") for word in rest):
        raise ConfigError(f"{where}: network=teacher is taken as it is; leave out its options.")


def chosen(option: str, known: dict[str, list[str]], names: Any) -> dict[str, list[str]]:
    if names is None:
        return known
    listed = [str(each) for each in names] if isinstance(names, list) else [str(names)]
    for name in listed:
        if name not in known:
            raise ConfigError(f"{option}: {name} is none of {', '.join(known)}. {nearest(name, known)}")
    return {name: known[name] for name in dict.fromkeys(listed)}


def files() -> dict[str, Path]:
    """The files of conf/compress by task."""
    return {file.stem: file for file in sorted((Path(conf_dir()) / "compress").glob("*.yaml"))}


def load(task: str, given: Any = None) -> Menu:
    """The menu of a task, or of the YAML file `given`. Raises `ConfigError` for a task without one and a damaged file."""
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        return read(Path(given))
    known = files()
    name = KINDS.get(task, task)
    if name not in known:
        raise ConfigError(
            f"candidates: there are none for the task {task}, only for {', '.join(known)}. Give candidates=FILE.yaml, "
            f"written as {known[min(known)]}."
        )
    return read(known[name])


def read(file: Path) -> Menu:
    try:
        content = yaml.safe_load(read_text(file, expected="a YAML file of candidates"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or content.keys() != {"task", "candidates", "methods"}:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(f"{file}: found {found}, expected the keys task, candidates and methods.")
    if not isinstance(content["task"], str):
        raise ConfigError(f"{file}: task: found {content['task']!r}, expected a name such as segmentation.")
    menus = {key: lists_of(content[key], f"{file}: {key}") for key in ("candidates", "methods")}
    for name, words in menus["candidates"].items():
        require_own(words, f"{file}: candidates.{name}")
    return Menu(content["task"], menus["candidates"], menus["methods"])


def lists_of(content: Any, where: str) -> dict[str, list[str]]:
    """Names with lists of options. Raises `ConfigError` for something else."""
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{where}: found {content!r}, expected names with lists of options.")
    for name, words in content.items():
        if not re.fullmatch(r"[A-Za-z][\w-]*", str(name)):
            raise ConfigError(
                f"{where}: found the name {name!r}, expected letters, digits, '_' and '-', a letter first."
            )
        right = isinstance(words, Sequence) and not isinstance(words, str)
        wrong = None if right else words
        if right:
            wrong = next((w for w in words if not isinstance(w, str) or "=" not in w), None)
        if not right or wrong is not None:
            raise ConfigError(
                f"{where}.{name}: found {wrong!r}, expected a list of options, such as [network=pidnet_s]."
            )
    return {str(name): [str(word) for word in words] for name, words in content.items()}
