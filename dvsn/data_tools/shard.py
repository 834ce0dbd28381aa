"""`python -m dvsn.data shard`: write a data set as shards, from whatever reader it has."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from dvsn.config.indexed import MODULE, said
from dvsn.data.dataset import ImageDataset
from dvsn.data.module import DataModule, calm_opencv, measure_depth, rule_by, start_worker
from dvsn.data_tools.pack import Packer
from dvsn.data_tools.walk import KINDS
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError, MissingError
from dvsn.losses import class_weights
from dvsn.shards.index import (
    NAME,
    TABLE_LIMIT,
    File,
    Index,
    Split,
    digest,
    dump_table,
    join_tables,
    load_table,
)
from dvsn.shards.storage import Storage, open_storage

log = logging.getLogger("dvsn")
Config = dict[str, Any]

PLAN = "plan.json"
"""What is written first and removed at the end: how the data set is parted, so that a later run goes on with it."""
PROBED = 64
"""Samples of which the bytes of a shard are estimated."""
HALF = re.compile(r"\..*\.tmp")
"""Files that a run was writing when it was killed."""
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,60}")
ROLES = ("train", "val", "test")


class Part(NamedTuple):
    """One shard to be written: its split, its number there, and its samples from `first` to `last`."""

    split: str
    number: int
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:06d}"


class Made(NamedTuple):
    """What a worker says of a shard."""

    part: Part
    kept: int
    """Photos whose bytes are those of their files."""


class Writer(Dataset[Made]):
    """Writes a shard an item: first the archive, then its table, by which it counts as written."""

    def __init__(self, datasets: dict[str, ImageDataset], parts: list[Part], storage: Storage) -> None:
        self.datasets, self.parts, self.storage = datasets, parts, storage

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Made:
        part = self.parts[number]
        with tempfile.TemporaryDirectory(prefix="dvsn_shard_") as folder:
            archive = Path(folder, f"{part.name}.tar")
            packer = Packer(archive, self.datasets[part.split])
            for index in range(part.first, part.last):
                packer.add(index)
            table, sha256, size = packer.close()
            self.storage.store(archive.name, archive)
            about = {
                "sha256": np.array(sha256),
                "bytes": np.array(size),
                "types": np.array(json.dumps(packer.types)),
            }
            sidecar = Path(folder, f"{part.name}.npz")
            sidecar.write_bytes(dump_table({**table, **{f"_{key}": value for key, value in about.items()}}))
            self.storage.store(sidecar.name, sidecar)
        return Made(part, packer.bytes_kept)


def shard(config: Config) -> Index:
    """Write the shards of a data set; those that an earlier run has finished are left as they are."""
    storage = open_storage(wanted_target(config), option="target")
    data = open_source(config)
    keep_class_weights(config["data"])
    roles, datasets = open_splits(data)
    there = {name: size for name, size in storage.sizes().items() if not HALF.fullmatch(name)}
    if NAME in there:
        raise ConfigError(
            f"target: {storage.url} holds a finished set of shards. Choose another target, or remove it first."
        )
    plan = planned(config, datasets)
    parts = parts_of(plan, datasets)
    agree(storage, plan, there)
    left = [part for part in parts if not {f"{part.name}.tar", f"{part.name}.npz"} <= there.keys()]
    if len(left) < len(parts):
        log.info(
            "target: %d of %d shards are there already; the rest is written",
            len(parts) - len(left),
            len(parts),
        )
    kept = sum(made.kept for made in written(Writer(datasets, left, storage), workers=int(config["workers"])))
    log.info("%d shards written, in which %d photos are the bytes of their files", len(left), kept)
    index = finish(storage, data, config, roles, datasets, parts)
    log.info(
        "%s: %d samples in %d shards. Train on them: data=shards data.root=%s",
        storage.url, sum(split.items for split in index.splits.values()), len(parts), storage.url,
    )  # fmt: skip
    return index


def wanted_target(config: Config) -> str:
    target = config["target"]
    if not isinstance(target, str) or not target:
        raise ConfigError(
            f"target: found {target!r}, expected a folder or an address such as s3://BUCKET/FOLDER"
        )
    for key, least in (("workers", 0), ("shard_mb", 1)):
        if type(config[key]) is not int or config[key] < least:
            raise ConfigError(f"{key}: found {config[key]!r}, expected a whole number, {least} or more.")
    return target


def open_source(config: Config) -> DataModule:
    """The data module of the source. Raises `ConfigError` for one that shards cannot hold."""
    if config["data"].get("_target_") == MODULE:
        raise ConfigError("data: is shards already. Copy their folder as it is, index.json last.")
    if config["data"].get("more"):
        raise ConfigError(
            "data.more: joins data sets while they are trained on. Write the shards of each by itself."
        )
    data = runtime.build_data(config)
    data.use(KINDS.get(config["task"]["_target_"], data.wanted))
    if data.wanted == "objects":
        raise ConfigError(
            "task: boxes and masks cannot be written as shards. They hold classes of pictures or pixels, pairs of pictures, "
            "and keypoints."
        )
    if data.rule.bands is not None:
        raise ConfigError(
            "data.bands: shards hold pictures of red, green and blue, or their brightness. Train on the files."
        )
    if data.tile is not None or data.fold is not None:
        raise ConfigError("data.tile, data.fold: part a data set in training. Leave them out here.")
    data.prepare_data()
    return data


def keep_class_weights(node: Config) -> None:
    """Put the numbers of a file of class weights in its place: the index names no file of this machine."""
    facts = node.get("facts") or {}
    weights = facts.get("class_weights")
    if isinstance(weights, str) and weights not in class_weights.BUILT_IN:
        facts["class_weights"] = class_weights.resolve(weights, classes=int(node["classes"]))


def open_splits(data: DataModule) -> tuple[dict[str, str], dict[str, ImageDataset]]:
    """The name of the shards' split by its role, and the data sets by that name. Roles of one split share it; a split that
    is not there is left out, with a warning, unless it is that of training."""
    roles: dict[str, str] = {}
    datasets: dict[str, ImageDataset] = {}
    known: dict[str, str] = {}
    for role in ROLES:
        wanted = data.splits.get(role)
        if wanted is None:
            continue
        if wanted not in known:
            try:
                opened = data.read(wanted)
            except MissingError as error:
                if role == "train":
                    raise
                log.warning("data.splits.%s: left out: %s", role, str(error).splitlines()[0])
                continue
            name = wanted if PLAIN.fullmatch(wanted) and wanted not in datasets else role
            known[wanted], datasets[name] = name, opened
        roles[role] = known[wanted]
    for name, dataset in datasets.items():
        if not len(dataset):
            raise DataError(f"data.splits: the split '{name}' holds no sample.")
    if data.rule.deep_range is None and (found := measure_depth(*datasets.values())) is not None:
        log.info("data.deep_range: 16-bit pictures use 0 to %d, which the index keeps", found[1])
        data.rule = replace(data.rule, deep_range=found)
        for dataset in datasets.values():
            rule_by(dataset, data.rule, data.pair.source)
    return roles, datasets


def planned(config: Config, datasets: dict[str, ImageDataset]) -> Config:
    """How the data set is parted: samples a shard by split, and what must be the same for another run to go on with it."""
    each = {name: samples_a_shard(dataset, config["shard_mb"] << 20) for name, dataset in datasets.items()}
    counts = {name: len(dataset) for name, dataset in datasets.items()}
    source = {
        "data": {key: value for key, value in config["data"].items() if key not in LOADING},
        "counts": counts,
    }
    names = hashlib.sha256()
    for dataset in datasets.values():
        for index in range(len(dataset)):
            names.update(dataset.name(index).encode(errors="surrogateescape") + b"\n")
    text = json.dumps(source, sort_keys=True, default=str) + names.hexdigest()
    return {"source": digest(text.encode()), "counts": counts, "samples_a_shard": each}


LOADING = ("workers", "batch_size", "eval_batch_size", "drop_last", "transform", "seed", "sampler", "mix")
"""Options of `data` that do not change what shards hold."""


def samples_a_shard(dataset: ImageDataset, limit: int) -> int:
    """So many that a shard has about `limit` bytes, by those of some samples, evenly spread."""
    size = len(dataset)
    places = sorted({place * size // PROBED for place in range(PROBED)})
    with tempfile.TemporaryDirectory(prefix="dvsn_shard_") as folder:
        path = Path(folder, "probe.tar")
        packer = Packer(path, dataset)
        for place in places:
            packer.add(place)
        packer.close()
        return max(1, round(limit / (path.stat().st_size / len(places))))


def parts_of(plan: Config, datasets: dict[str, ImageDataset]) -> list[Part]:
    found = []
    for name, dataset in datasets.items():
        each, size = plan["samples_a_shard"][name], len(dataset)
        starts = range(0, size, each)
        found += [Part(name, number, first, min(size, first + each)) for number, first in enumerate(starts)]
    return found


def agree(storage: Storage, plan: Config, there: dict[str, int]) -> None:
    """Leave the plan for a later run; refuse to go on with that of another source."""
    if PLAN in there:
        try:
            earlier = json.loads(storage.read(PLAN, limit=1 << 20))
        except ValueError:
            earlier = None
        if earlier != plan:
            raise ConfigError(
                f"target: {storage.url} holds an unfinished set of shards of another source, or of other options. Choose "
                "another target, or remove what is there."
            )
        return
    if there:
        raise ConfigError(
            f"target: {storage.url} is not empty ({', '.join(sorted(there)[:3])}). Choose a new folder."
        )
    store_bytes(storage, PLAN, json.dumps(plan, indent=1).encode())


def store_bytes(storage: Storage, name: str, data: bytes) -> File:
    with tempfile.TemporaryDirectory(prefix="dvsn_shard_") as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        storage.store(name, path)
    return File(name, len(data), digest(data))


def written(writer: Writer, *, workers: int) -> Iterator[Made]:
    """Runs a writer, in worker processes if there is more than one shard. What one raises is raised here."""
    calm_opencv()
    workers = min(workers, len(writer))
    loader: DataLoader[Made] = DataLoader(
        writer, batch_size=None, num_workers=workers, worker_init_fn=start_worker, collate_fn=as_it_is
    )
    watched = sys.stderr.isatty()
    yield from track(loader, description="shards", total=len(writer), disable=not watched, transient=True)


def as_it_is(made: Any) -> Any:
    return made


def finish(
    storage: Storage,
    data: DataModule,
    config: Config,
    roles: dict[str, str],
    datasets: dict[str, ImageDataset],
    parts: list[Part],
) -> Index:
    """Join the tables, write the index, by which the set counts as finished, and remove what it was made of."""
    there, splits, types = storage.sizes(), {}, {}
    for name, dataset in datasets.items():
        shards, tables = [], []
        for part in (each for each in parts if each.split == name):
            table = load_table(
                storage.read(f"{part.name}.npz", limit=TABLE_LIMIT), f"{storage.url}/{part.name}.npz"
            )
            about = {key: table.pop(f"_{key}").item() for key in ("sha256", "bytes", "types")}
            if there.get(f"{part.name}.tar") != about["bytes"]:
                raise DataError(
                    f"{storage.url}/{part.name}.tar: is not as it was written. Remove it, and run the same line again."
                )
            types.update(json.loads(about["types"]))
            shards.append(File(f"{part.name}.tar", about["bytes"], about["sha256"], part.last - part.first))
            tables.append(table)
        file = store_bytes(storage, f"{name}.table.npz", dump_table(join_tables(tables)))
        splits[name] = Split(len(dataset), tuple(shards), file, truth_of(storage, name, dataset))
    first = next(iter(datasets.values()))
    index = Index(data.wanted, dict(first.kinds), types, about_source(data, config, roles, first), splits)
    store_bytes(storage, NAME, index.dump())
    for name in (*(f"{part.name}.npz" for part in parts), *filter(HALF.fullmatch, there), PLAN):
        storage.remove(name)
    return index


def truth_of(storage: Storage, name: str, dataset: ImageDataset) -> File | None:
    """The annotations of people in COCO's format, where the reader has them."""
    content = getattr(dataset, "annotations", None)
    return (
        None if content is None else store_bytes(storage, f"{name}.truth.json", json.dumps(content).encode())
    )


def about_source(data: DataModule, config: Config, roles: dict[str, str], first: ImageDataset) -> Config:
    """What the index says of the data set, by path below `data`."""
    node, vocabulary = config["data"], data.vocabulary
    names = vocabulary.names if vocabulary else getattr(first, "class_names", ())
    found = {
        path: value
        for path, value in said(node).items()
        if path.partition(".")[0] not in ("dataset", "splits", "people")
    }
    if data.wanted != "people":
        found = {path: value for path, value in found.items() if not path.startswith("keypoints.")}
    found |= {f"splits.{role}": roles.get(role, roles["train"]) for role in ROLES}
    if data.rule.deep_range is not None:
        found["deep_range"] = list(data.rule.deep_range)
    if data.wanted == "people":
        return found | {"people.attributes": list(getattr(first, "attribute_names", ()))}
    found["dataset.labels"] = "color" if "label" in first.palettes else "classes"
    if names:
        found |= {"dataset.names": list(names), "classes": len(names)}
    if vocabulary is not None and vocabulary.palette:
        found |= {
            "dataset.palette": [list(color) for color in vocabulary.palette],
            "dataset.swaps": [list(pair) for pair in vocabulary.swaps],
            "dataset.file_ids": list(vocabulary.file_ids),
        }
    return found


def job(config: Config) -> None:
    shard(config)
