"""What a data set's own index says of it, where the config leaves it open: `data=shards`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

MODULE = "dvsn.data.shards_module.ShardsModule"
FILLED = (
    "splits.train", "splits.val", "splits.test", "classes", "joints", "input_channels", "output_channels", "label_classes",
    "deep_range", "pair.source", "pair.target", "pair.edges", "pair.blend_labels",
    "dataset.labels", "dataset.names", "dataset.palette", "dataset.swaps",
    "dataset.file_ids",
    "people.attributes", "keypoints.names", "keypoints.pairs", "keypoints.skeleton", "keypoints.sigmas",
    "keypoints.upper_body", "keypoints.joint_weights", "keypoints.head", "facts.mean", "facts.std", "facts.class_weights",
    "facts.boundary_frame", "facts.padding", "facts.face_box", "facts.score", "facts.normalise",
)  # fmt: skip
"""Options of `data` that an index may give. It gives one where the config has null; whoever sets it keeps it."""
NODES = {"dataset": ("dataset",), "people": ("people", "keypoints")}
"""The nodes of `data` by what the shards hold. The others become null."""


def fill(cfg: DictConfig) -> None:
    """Fill a composed config, not resolved, from the index of its shards, which is read. Any other config stays as it is.

    Raises `ConfigError` or `DataError` where the index cannot be read or has no meaning.
    """
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    data = cfg.get("data")
    if not OmegaConf.is_dict(data) or data.get("_target_") != MODULE:
        return
    from dvsn.shards.index import read_index
    from dvsn.shards.storage import open_storage

    try:
        root: Any = OmegaConf.select(cfg, "data.root")
    except OmegaConfBaseException:
        return  # said when the config is resolved
    if not isinstance(root, str) or not root:
        raise ConfigError(
            f"data.root: found {root!r}, expected the folder of the shards, such as s3://BUCKET/FOLDER"
        )
    index = read_index(open_storage(root))
    with open_dict(cfg):
        for kind, names in NODES.items():
            for name in names if kind != index.kind else ():
                data[name] = None
        for path, value in index.config.items():
            if path not in FILLED:
                raise ConfigError(
                    f"data.root: the index of {root} sets data.{path}, which is none of its options."
                )
            if path == "facts.class_weights" and isinstance(value, str) and not re.fullmatch(r"\w+", value):
                raise ConfigError(
                    f"data.root: the index of {root} sets data.{path} to {value!r}, expected numbers or a name."
                )
            parent, _, key = f"data.{path}".rpartition(".")
            node = OmegaConf.select(cfg, parent)
            if OmegaConf.is_dict(node) and OmegaConf.select(node, key) is None:
                OmegaConf.update(cfg, f"data.{path}", value, merge=False)


def said(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the index of a data set says of it, from the resolved node `data` of its source."""
    found = {}
    for path in FILLED:
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[path] = value
    return found
