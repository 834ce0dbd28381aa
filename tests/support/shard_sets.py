"""Small data sets as shards: written from tiny ones, and read by configs that their index has filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from omegaconf import OmegaConf

from dvsn.config import indexed
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data_tools.shard import shard
from dvsn.shards.index import Index
from dvsn.shards.storage import Folder
from tests.support.tiny import composed, resolved


def written(options: list[str], target: Path, *, shard_mb: int = 1, **more: Any) -> Index:
    config = composed(options, target.parent)
    return shard({**config, "target": str(target), "shard_mb": shard_mb, "workers": 0, **more})


def reading(options: list[str], folder: Path | str, *, run_dir: Path) -> dict[str, Any]:
    """The resolved config of the same task with `data=shards`."""
    kept = [
        each
        for each in options
        if not each.startswith(("data=", "data.dataset", "data.keypoints", "data.root"))
    ]
    kept = [each for each in kept if not each.startswith(("data.classes", "data.joints", "data.splits"))]
    with initialized(conf_dir()):
        cfg = hydra_compose(
            "train", [*kept, "name=test", f"run_dir={run_dir}", "data=shards", f"data.root={folder}"]
        )
    assert OmegaConf.is_dict(cfg)
    indexed.fill(cfg)
    return resolved(cfg)


class Far:
    """A folder as if it were a bucket: its shards are fetched into a cache. `fetched`: their names, in that order."""

    def __init__(self, path: Path) -> None:
        self.folder, self.url = Folder(path), f"s3://far/{path.name}"
        self.fetched: list[str] = []

    def fetch(self, name: str, to: Path) -> None:
        self.fetched.append(name)
        self.folder.fetch(name, to)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["folder"], name)
