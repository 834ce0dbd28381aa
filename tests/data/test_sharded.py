"""Training on shards: exact after a kill, disjoint over processes, bounded on the disk; what is lost is named or counted."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dvsn.config import compose
from dvsn.data import shards_module
from dvsn.data.mixes import CopyPaste
from dvsn.data.sharded import label_of
from dvsn.data.shards_module import ShardsModule
from dvsn.data_tools import shard as command
from dvsn.engine.trainer import build_data
from dvsn.errors import ConfigError, DataError, MissingError
from dvsn.shards import order as shard_order
from dvsn.shards import source as sources
from dvsn.shards.index import read_index
from dvsn.shards.storage import Folder
from tests.support.own_data import write_classes
from tests.support.resuming import equal, run
from tests.support.shard_sets import Far, reading, written
from tests.support.tiny import TINY_CLASSIFICATION

OPTIONS = [*TINY_CLASSIFICATION, "data=imagefolder"]
TRAIN, EACH = 24, 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of train, of 5 samples (the last of 4), and two of val."""
    folder = tmp_path_factory.mktemp("sets")
    write_classes(
        folder / "source", {f"train/{name}": 8 for name in "abc"} | {f"val/{name}": 2 for name in "abc"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "samples_a_shard", lambda *_: EACH)
        written([*OPTIONS, f"data.root={folder / 'source'}"], folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="module")
def config(shards: Path) -> dict[str, Any]:
    return reading(OPTIONS, shards, run_dir=shards.parent / "run")


def opened(config: dict[str, Any], *, world: int = 1, rank: int = 0, **options: Any) -> ShardsModule:
    module = build_data({"data": {**config["data"], **options}})
    assert isinstance(module, ShardsModule)
    module.use("dataset")
    device = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(world_size=world, global_rank=rank, num_devices=world, strategy=device)  # type: ignore[assignment]
    module.setup("fit")
    return module


def places(module: ShardsModule, *, epoch: int = 0) -> list[int]:
    """The samples of an epoch, by what the loader gives."""
    loader = module.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
    return [index for batch in loader for index in batch["index"].tolist()]


def test_a_run_that_is_killed_within_a_shard_ends_as_the_unbroken_one(
    config: dict[str, Any], tmp_path: Path
) -> None:
    def named(name: str) -> dict[str, Any]:
        made = {**config, "run_dir": str(tmp_path / name)}
        made["trainer"] = {**config["trainer"], "max_epochs": 2}
        made["checkpoint"] = {**config["checkpoint"], "every_n_steps": 1}
        made["data"] = {**config["data"], "window_mb": 1}
        return made

    whole = run(named("whole"))
    assert run(named("broken"), dies_after=5) is None  # 15 of 24 samples, 3 a step: within a shard
    broken = run(named("broken"))
    assert whole is not None and broken is not None
    assert equal(whole["state_dict"], broken["state_dict"]) and equal(
        whole["optimizer_states"], broken["optimizer_states"]
    )


@pytest.mark.parametrize("world", [2, 3])
def test_processes_read_different_samples_and_all_of_them(config: dict[str, Any], world: int) -> None:
    both = [places(opened(config, world=world, rank=rank, batch_size=6)) for rank in range(world)]
    assert sorted(itertools.chain(*both)) == list(range(TRAIN))


def test_a_resume_with_other_processes_loses_no_sample(config: dict[str, Any]) -> None:
    first = [places(opened(config, world=2, rank=rank, batch_size=6)) for rank in (0, 1)]
    seen = [index for each in first for index in each[:6]]  # two batches of three a process
    earlier = opened(config, world=2, batch_size=6)
    places(earlier)
    earlier.position = (0, 2)
    state = json.loads(json.dumps(earlier.state_dict()))
    assert state == {"epoch": 0, "batch": 2, "world": 2}
    later = opened(config, world=1, batch_size=6)
    later.load_state_dict(state)
    assert sorted(seen + places(later)) == list(range(TRAIN))
    fresh = opened(config, world=1, batch_size=6)
    assert places(later, epoch=1) == places(fresh, epoch=1)


def test_a_further_set_of_shards_is_read_from_its_own_folder(config: dict[str, Any], tmp_path: Path) -> None:
    write_classes(tmp_path / "source", {f"{split}/{name}": 2 for split in ("train", "val") for name in "abc"})
    written([*OPTIONS, f"data.root={tmp_path / 'source'}"], tmp_path / "other")
    module = opened(config, more=[{"root": str(tmp_path / "other")}])
    train = module.datasets["train"]
    assert len(train) == TRAIN + 6
    assert all(str(tmp_path / "other") in train.describe(place) for place in range(TRAIN, TRAIN + 6))
    assert sorted(places(module)) == list(range(TRAIN + 6))


def test_a_bucket_is_read_within_its_bound_and_ahead(
    config: dict[str, Any], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far(shards)
    monkeypatch.setattr(sources, "open_storage", lambda *_, **__: far)
    sizes = [shard.bytes for shard in read_index(Folder(shards)).splits["train"].shards]
    module = opened(config, cache=str(tmp_path / "cache"), cache_mb=1)
    assert module.source.cache is not None
    module.window, module.prefetch = 1, max(sizes)  # a shard by itself, and the next
    module.source.cache.limit = 3 * max(sizes)
    epochs: list[int] = []
    monkeypatch.setattr(
        shards_module, "order", lambda *a, **b: (epochs.append(b["epoch"]), shard_order.order(*a, **b))[1]
    )
    assert sorted(places(module)) == list(range(TRAIN)) and epochs == [0]  # each order is made once
    assert module.source.cache.held() <= 3 * max(sizes)
    assert len(module.aheads) == 1 and module.aheads[0].fetched >= 1
    assert len(far.fetched) <= len(sizes) + 2  # each once, and those of the samples that are looked at first
    module.teardown("fit")
    assert not module.aheads


def test_a_cache_that_is_too_small_is_refused_before_training(
    config: dict[str, Any], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "open_storage", lambda *_, **__: Far(shards))
    monkeypatch.setattr("dvsn.data.shards_module.bytes_of_shards", lambda _: np.array([60 << 20] * 9))
    with pytest.raises(ConfigError, match=r"data\.cache_mb: found 100, .* Set data\.cache_mb="):
        opened(config, cache=str(tmp_path), cache_mb=100)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\1\0", b"PK\3\4", pickle.dumps([1])])
def test_a_label_that_is_none_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^shard\.tar"):
        label_of(data, "uint8", "shard.tar")


@pytest.mark.parametrize("name", ["sampler", "mix", "data.more", ""])
def test_what_chooses_among_all_shards_warns_of_a_smaller_cache(
    config: dict[str, Any], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, name: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sources, "open_storage", lambda *_, **__: Far(shards))
    monkeypatch.setattr("dvsn.data.shards_module.bytes_of_shards", lambda _: np.array([2 << 20] * 9))
    module = build_data({"data": {**config["data"], "cache": str(tmp_path), "cache_mb": 9}})
    module.use("dataset")
    module.window = module.prefetch = 1 << 20
    module.sampler = "any" if name == "sampler" else None  # type: ignore[assignment]
    module.mix = CopyPaste(p=0.0) if name == "mix" else None
    module.more = [{"root": str(shards)}] if name == "data.more" else []
    with caplog.at_level(logging.WARNING, "dvsn"):
        module.setup("fit")
    said = [each.getMessage() for each in caplog.records if "fetched again" in each.getMessage()]
    expected = f"{name}: chooses among all shards at random, and data.cache_mb=9 holds a part of their 36 MiB"
    assert [each.partition(": shards")[0] for each in said] == ([expected] if name else [])


# What is lost or damaged ---------------------------------------------------------------------------------


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(shards, tmp_path / "copied"))


def reopened(config: dict[str, Any], folder: Path, **options: Any) -> ShardsModule:
    return opened(config, root=str(folder), **options)


def test_a_lost_shard_is_named_or_left_out_and_counted(
    config: dict[str, Any], copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copied / "train-000001.tar").unlink()
    (copied / "train-000004.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-000001\.tar: .* and 1 more .* it is not there.* 9 samples"):
        reopened(config, copied)
    with caplog.at_level(logging.WARNING, "dvsn"):
        module = reopened(config, copied, lost="skip")
    assert "2 of the 5 shards" in caplog.text and "9 of 24 samples" in caplog.text
    names = {module.datasets["train"].name(place) for place in range(15)}
    assert len(module.datasets["train"]) == 15 and len(names) == 15
    assert sorted(places(module)) == list(range(15))


def test_a_damaged_sample_is_named(
    config: dict[str, Any], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = copied / "train-000002.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1  # within the first picture
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"train-000002\.tar: this shard is damaged: .* another crc32"):
        places(reopened(config, copied))
    with pytest.raises(DataError, match=r"train-000002\.tar: .* its sha256 is not that of the index"):
        reopened(config, copied, verify=True)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "open_storage", lambda *_, **__: Far(copied))
        with pytest.raises(DataError, match=r"train-000002\.tar: the index names .* its sha256 is not that"):
            reopened(config, copied, verify=True, cache=str(copied.parent / "cache"))
    module = reopened(config, copied, verify=True, lost="skip")
    assert len(module.datasets["train"]) == 19
    assert sorted(places(module)) == list(range(19))


def test_a_changed_table_is_refused(config: dict[str, Any], copied: Path) -> None:
    (copied / "train.table.npz").write_bytes((copied / "val.table.npz").read_bytes())
    with pytest.raises(DataError, match=r"train\.table\.npz: its content is not what the index says"):
        reopened(config, copied)


def test_what_the_index_cannot_give_is_said_while_composing(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished set of shards"):
        reading(OPTIONS, tmp_path / "nowhere", run_dir=tmp_path)
    file = copied / "index.json"
    content = json.loads(file.read_text())

    for option, value, found in (
        ("root", "/elsewhere", r"sets data\.root, which is none of its options"),
        ("facts.class_weights", "/elsewhere.json", r"to '/elsewhere\.json', expected numbers or a name"),
    ):
        file.write_text(json.dumps({**content, "config": {**content["config"], option: value}}))
        with pytest.raises(ConfigError, match=found):
            reading(OPTIONS, copied, run_dir=tmp_path)


def test_the_command_line_and_the_task_go_before_the_index(shards: Path, tmp_path: Path) -> None:
    given = [*OPTIONS, "data.splits.val=train"]
    found = reading([*given, "data.facts.std=[1,1,1]"], shards, run_dir=tmp_path)["data"]
    assert found["facts"]["std"] == [1, 1, 1] and found["facts"]["mean"] == [0.485, 0.456, 0.406]
    assert (
        found["classes"] == 3 and found["dataset"]["names"] == ["a", "b", "c"] and found["keypoints"] is None
    )


def test_cfg_shows_what_the_index_gives(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["task=classification", "data=shards", f"data.root={shards}", "--cfg", "job", "-p", "data.dataset"]
    assert compose.hydra_main("train", lambda _: None, argv=line) is None
    assert "names:\n- a\n- b\n- c\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"), [("cache_mb", 0), ("window_mb", 0), ("prefetch_mb", -1), ("lost", "ignore")]
)
def test_options_without_a_meaning(config: dict[str, Any], option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{option}: .*found '?{value}"):
        opened(config, **{option: value})
