"""`dvsn data shard`: the same samples as the reader's, files as they are, and a run that was killed goes on."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.data.module import DataModule
from dvsn.data.sharded import label_of
from dvsn.data_tools import shard as command
from dvsn.data_tools.pack import encoded_label
from dvsn.engine.trainer import build_data
from dvsn.errors import ConfigError, DataError
from tests.support.own_data import write_classes
from tests.support.shard_sets import reading, written
from tests.support.tiny import (
    TINY,
    TINY_CLASSIFICATION,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_pairs,
    write_people,
    write_scenes,
)

CLASSES = [*TINY_CLASSIFICATION, "data=imagefolder"]


def module(config: dict[str, Any], kind: str) -> DataModule:
    data = build_data(config)
    data.use(kind)  # type: ignore[arg-type]
    return data


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f")


def classes(root: Path) -> Path:
    write_classes(root, {f"{split}/{name}": 4 for split in ("train", "val") for name in "abc"})
    return root


SETS: dict[str, Any] = {
    "classification": (classes, CLASSES, "dataset"),
    "segmentation": (write_scenes, TINY_SEGMENTATION, "dataset"),
    "pix2pix": (write_pairs, TINY, "dataset"),
    "aligned": (None, [*TINY, "data=aligned"], "dataset"),
    "pose": (write_people, TINY_POSE, "people"),
}


def write_aligned(root: Path) -> Path:
    import cv2

    write_pairs(root / "pairs", train=4, val=2)
    for split in ("train", "val"):
        (root / split).mkdir()
        for a in sorted((root / "pairs" / split / "a").iterdir()):
            both = [cv2.imread(str(each)) for each in (a, root / "pairs" / split / "b" / a.name)]
            cv2.imwrite(str(root / split / f"{a.stem}.jpg"), cv2.hconcat(both))
    return root


@pytest.mark.parametrize("name", SETS)
def test_the_same_samples_as_the_reader(name: str, tmp_path: Path) -> None:
    write, options, kind = SETS[name]
    source = (write or write_aligned)(tmp_path / "source")
    target = tmp_path / "shards"
    options = [*options, f"data.root={source}"]
    index = written(options, target)
    one = module(composed(options, tmp_path), kind)
    other = module(reading(options, target, run_dir=tmp_path), kind)
    assert (one.classes, one.joints) == (other.classes, other.joints)
    assert one.vocabulary in (None, other.vocabulary)
    assert index.config["splits.train"] == "train"
    for role in ("train", "val"):
        a, b = (each.open(role, augment=role == "train") for each in (one, other))
        assert len(a) == len(b) > 0
        for place in range(len(a)):
            x, y = a[2, place], b[2, place]
            assert x.keys() == y.keys() and all(same(x[key], y[key]) for key in x), (role, place)
    files = {path.read_bytes() for path in source.rglob("*") if path.suffix in (".jpg", ".png")}
    with tarfile.open(next(target.glob("train*.tar"))) as archive:
        photos = [each for each in archive if not each.name.endswith(".label.png")]
        assert photos and all(archive.extractfile(each).read() in files for each in photos)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 7], [255, 3]], np.uint8), np.array([[0, 300], [65535, 3]], np.int32),
        np.array([[-1, 70000]], np.int32), np.array([[[1, 2, 3], [250, 0, 9]]], np.uint8),
        np.array([[5, 6]], np.int32),
    ],
)  # fmt: skip
def test_labels_come_back_as_they_were(array: np.ndarray) -> None:
    name, data = encoded_label("x", array)
    found = label_of(data, array.dtype.str, "x")
    assert found.dtype == array.dtype and np.array_equal(found, array)
    assert name.endswith(".npy") == (array.min() < 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a set of three shards, as `whole` parts it."""
    folder = classes(tmp_path_factory.mktemp("source"))
    return [*CLASSES, f"data.root={folder}"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "samples_a_shard", lambda *_: 5)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_a_run_that_was_killed_goes_on(
    source: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    written(source, whole)
    put, left = command.Writer.__getitem__, [2]

    def dies(self: Any, number: int) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return put(self, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command.Writer, "__getitem__", dies)
        written(source, broken)
    assert not (broken / "index.json").exists()
    (broken / "train-000002.tar").write_bytes(b"half")  # without its table it does not count
    (broken / "train-000001.npz").unlink()
    (broken / ".train-000002.npz.1.tmp").write_bytes(b"half")  # as a process that is killed leaves it
    before = (broken / "train-000000.tar").stat().st_mtime_ns
    written(source, broken)
    assert contents(broken) == contents(whole)
    assert (broken / "train-000000.tar").stat().st_mtime_ns == before


def test_several_processes_write_the_same(source: list[str], tmp_path: Path) -> None:
    written(source, tmp_path / "one")
    written(source, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_cannot_be_gone_on_with_is_refused(source: list[str], tmp_path: Path) -> None:
    target = tmp_path / "target"
    written(source, target)
    with pytest.raises(ConfigError, match="holds a finished set"):
        written(source, target)
    (target / "index.json").rename(target / "plan.json")
    with pytest.raises(ConfigError, match="unfinished set of shards of another source"):
        written(source, target)
    (target / "plan.json").unlink()
    with pytest.raises(ConfigError, match="is not empty"):
        written(source, target)
    with pytest.raises(ConfigError, match="boxes and masks cannot be written"):
        written(["task=detection", "data=boxes", "data.objects.names={1: a}"], tmp_path / "x")
    with pytest.raises(ConfigError, match="target: found None"):
        command.shard({**composed(source, tmp_path), "target": None, "shard_mb": 1, "workers": 0})


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("workers", -1, "workers: found -1, expected a whole number, 0 or more"),
        ("shard_mb", 0, "shard_mb: found 0, expected a whole number, 1 or more"),
    ],
)
def test_numbers_without_a_meaning(
    source: list[str], tmp_path: Path, option: str, value: int, found: str
) -> None:
    with pytest.raises(ConfigError, match=found):
        written(source, tmp_path / "target", **{option: value})


def test_weights_of_a_file_are_kept_as_numbers(source: list[str], tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"weights": [1, 2.5, 0]}))
    made = written([*source, f"data.facts.class_weights={file}"], tmp_path / "target")
    assert made.config["facts.class_weights"] == [1, 2.5, 0]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = classes(tmp_path / "source")
    file = next((folder / "train" / "b").rglob("*1.png"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=str(file)):
        written([*CLASSES, f"data.root={folder}"], tmp_path / "target")
    assert not (tmp_path / "target" / "index.json").exists()


def test_the_index_says_nothing_of_this_machine(source: list[str], tmp_path: Path) -> None:
    written(source, tmp_path / "target")
    text = (tmp_path / "target" / "index.json").read_text()
    assert str(tmp_path) not in text and "/" not in json.dumps(json.loads(text)["config"])
