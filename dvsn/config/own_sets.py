"""Names and tables of a data set in a YAML file replace those of the files it inherits from.

Hydra merges dicts by their keys. That is right for options, and wrong for a table such as the lengths of `normalise`, of
which a file of one's own would keep the rows of its parent; and wrong for what stands beside a list of names, such as the
mirror pairs of other keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dvsn.config.allow import with_facts

if TYPE_CHECKING:
    from omegaconf import DictConfig

TABLES = (
    "data.facts.normalise",
    "data.dataset.id_map",
    "data.objects.names",
    "data.objects.ids",
    "data.people.parts",
    "data.people.unions",
)
"""Dicts that are one value: whoever sets one sets the whole of it."""

ABOUT: dict[str, dict[str, Any]] = {
    "data.keypoints.names": {
        "data.keypoints.pairs": None,
        "data.keypoints.skeleton": [],
        "data.keypoints.sigmas": None,
        "data.keypoints.upper_body": [],
        "data.keypoints.joint_weights": None,
        "data.keypoints.head": [],
        "data.facts.normalise": None,
    },
    "data.dataset.names": {
        "data.dataset.palette": None,
        "data.dataset.swaps": [],
        "data.dataset.id_map": None,
    },
    "data.objects.names": {"data.objects.ids": None},
}
"""A list of names, and what is said about those names: it starts anew where a file gives other names, and has none of it."""

COUNTS = {
    "data.keypoints.names": "data.joints",
    "data.dataset.names": "data.classes",
    "data.objects.names": "data.object_classes",
}
"""A list of names, and the option that says how many they are, where the file with the names does not say it."""

READERS = ("dataset", "people", "objects")
"""Nodes that name a class: where a file names another class, the options of the first one mean nothing."""

SCORE, SIGMAS = "data.facts.score", "data.keypoints.sigmas"
ABSENT = object()


class OwnSets:
    """The bookkeeping of one composition: files are `read` in the order in which they are merged, then `settle` puts right
    what the merging has mixed."""

    def __init__(self) -> None:
        self.pending: dict[str, Any] = {}  # what is to stand there after all
        self.readers: dict[str, Any] = {}  # as the files so far make them
        self.score_is_theirs = False  # whether data.facts.score was chosen for other keypoints

    def read(self, config: Any) -> None:
        """One file, as a config or as plain data, not resolved."""
        from omegaconf import OmegaConf

        if not OmegaConf.is_dict(config) or config._is_none() or "data" not in config:
            return
        node = config._get_node("data")
        if OmegaConf.is_dict(node):
            data = with_facts(OmegaConf.to_container(node, resolve=False))  # type: ignore[arg-type]
            self._take_readers(data)
            self.take({path: value for path in PATHS if (value := at({"data": data}, path)) is not ABSENT})

    def take(self, said: Mapping[str, Any]) -> None:
        """Record the values of one file, or of the command line, by path."""
        for path in said:
            self.pending.pop(path, None)
        for names, about in ABOUT.items():
            if said.get(names) is None:
                continue
            self.pending |= {path: value for path, value in about.items() if path not in said}
            count = how_many(said[names])
            if COUNTS[names] not in said and count:
                self.pending[COUNTS[names]] = count
        self.pending |= {path: said[path] for path in TABLES if isinstance(said.get(path), Mapping)}
        if SCORE in said:
            self.score_is_theirs = False
        elif said.get("data.keypoints.names") is not None:
            self.score_is_theirs = said.get(SIGMAS) is None

    def _take_readers(self, data: Mapping[Any, Any]) -> None:
        for name in READERS:
            node, path = data.get(name, ABSENT), f"data.{name}"
            if node is ABSENT:
                continue
            before = self.readers.get(name)
            merged = joined(before, node)
            if isinstance(before, Mapping) and isinstance(node, Mapping):
                usual = before.get("_target_")
                if usual is not None and node.get("_target_", usual) != usual:
                    merged = node
                    self.pending = {
                        key: each for key, each in self.pending.items() if not key.startswith(f"{path}.")
                    }
                    self.pending[path] = node
            if path in self.pending:
                self.pending[path] = merged
            self.readers[name] = merged

    def settle(self, cfg: DictConfig) -> None:
        """Put the values into the merged config, where it has such an option; AP, which was chosen for keypoints with
        tolerances, becomes PCK where these have none."""
        from omegaconf import OmegaConf, open_dict

        with open_dict(cfg):
            for path, value in self.pending.items():
                parent, _, key = path.rpartition(".")
                node = OmegaConf.select(cfg, parent, throw_on_missing=False)
                if OmegaConf.is_dict(node) and key in node:
                    OmegaConf.update(cfg, path, value, merge=False)
            theirs = self.score_is_theirs and OmegaConf.select(cfg, SCORE) == "ap"
            if theirs and OmegaConf.select(cfg, SIGMAS) is None:
                OmegaConf.update(cfg, SCORE, "pck")


PATHS = tuple(
    dict.fromkeys(
        [*TABLES, *ABOUT, *(path for about in ABOUT.values() for path in about), *COUNTS.values(), SCORE]
    )
)


def at(node: Any, path: str) -> Any:
    """The value at a path of plain data; `ABSENT` where there is none."""
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node


def joined(one: Any, other: Any) -> Any:
    """Two plain trees as Hydra merges them."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return other
    return {**one, **{key: joined(one.get(key), value) for key, value in other.items()}}


def how_many(names: Any) -> int:
    """How many classes or keypoints a list or table of names makes; 0 where that cannot be told. Labels of objects count
    from 1, with the background as 0."""
    if isinstance(names, Mapping):
        return max(names) + 1 if names and all(isinstance(label, int) for label in names) else 0
    return len(names) if isinstance(names, Sequence) and not isinstance(names, str) else 0


def of_overrides(overrides: Sequence[Any]) -> dict[str, Any]:
    """What the overrides of a command line, as Hydra parses them, say of these paths."""
    return {
        each.key_or_group: each.value()
        for each in overrides
        if each.key_or_group in PATHS and not each.is_delete()
    }
