"""CIFAR: every layout gives the same pictures, around the classes; what is missing, cut or hostile is said."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn import train
from dvsn.config.build import build
from dvsn.data.__main__ import with_task
from dvsn.data.cifar import Cifar, around_classes, decompress
from dvsn.data.transforms import Pair, Transform
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from tests.support.tiny import composed

NAMES = tuple("abcdefghij")
HUNDRED = tuple(f"c{number:02d}" for number in range(100))
DATA = os.environ.get("DVSN_DATA")

Written = tuple[np.ndarray, np.ndarray]


def pictures(count: int, classes: int, seed: int = 0) -> Written:
    """(N, 32, 32, 3) and labels in no order."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), labels


def rows(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_python(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(images)), 5), start=1):
        content = {b"data": rows(images[part]), b"labels": labels[part].tolist(), b"batch_label": b"training"}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content, protocol=2))
    return root


def write_binary(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(images)), 5), start=1):
        data = np.concatenate([labels[part, None].astype(np.uint8), rows(images[part])], axis=1)
        data.tofile(folder / f"data_batch_{number}.bin")
    return root


def files_of(images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    return {
        f"train/{NAMES[label]}/{number:04d}.png": cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }


def write_archive(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    with tarfile.open(root / "train.tar.gz", "w:gz") as archive:
        for name, content in {**files_of(images, labels), "train/a/._0.png": b"macOS"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root


def write_folders(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for name, content in files_of(images, labels).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


LAYOUTS = (write_python, write_binary, write_archive, write_folders)


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_pictures(write: Callable[..., Path], tmp_path: Path) -> None:
    images, labels = pictures(33, 10)
    data = Cifar(root=str(write(tmp_path, images, labels)), split="train", names=NAMES)
    expected = sorted(zip(labels.tolist(), (image.tobytes() for image in images), strict=True))
    found = [data.read(index) for index in range(len(data))]
    assert sorted((item["class"], item["photo"].tobytes()) for item in found) == expected
    assert data.targets[:30].tolist() == 3 * list(range(10))  # around the classes: any start is a fair sample
    of_third = [index for index, label in enumerate(labels.tolist()) if label == 3]
    assert [found[3 + 10 * turn]["photo"].tobytes() for turn in range(3)] == [
        images[i].tobytes() for i in of_third[:3]
    ]
    assert str(tmp_path) in data.describe(3) and len({data.name(index) for index in range(33)}) == 33
    if write in (write_archive, write_folders):
        assert data.describe(3).endswith(f"d/{of_third[0]:04d}.png")


def test_the_order_goes_around_unequal_classes() -> None:
    targets = np.array([2, 2, 0, 2, 1, 0])
    assert around_classes(targets).tolist() == [2, 4, 0, 5, 1, 3]
    assert targets[around_classes(targets)].tolist() == [0, 1, 2, 0, 2, 2]


def test_the_published_folder_itself_may_be_the_root(tmp_path: Path) -> None:
    images, labels = pictures(10, 10)
    root = write_python(tmp_path, images, labels) / "cifar-10-batches-py"
    assert len(Cifar(root=str(root), split="train", names=NAMES)) == 10


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_has_its_fine_classes(binary: bool, tmp_path: Path) -> None:
    images, labels = pictures(100, 100)
    if binary:
        (tmp_path / "cifar-100-binary").mkdir()
        coarse = np.full((100, 1), 5, np.uint8)
        data = np.concatenate([coarse, labels[:, None].astype(np.uint8), rows(images)], axis=1)
        data.tofile(tmp_path / "cifar-100-binary" / "test.bin")
    else:
        (tmp_path / "cifar-100-python").mkdir()
        content = {b"data": rows(images), b"fine_labels": labels.tolist(), b"coarse_labels": [5] * 100}
        (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps(content, protocol=2))
    found = Cifar(root=str(tmp_path), split="test", names=HUNDRED)
    assert found.targets.tolist() == list(range(100))
    assert np.array_equal(found.images, images[np.argsort(labels)])


# What is wrong ------------------------------------------------------------------------------------------


class Payload:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("hacked",))


def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path, *pictures(10, 10))
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(
        pickle.dumps({b"data": Payload()}, protocol=2)
    )
    with pytest.raises(DataError, match=r"data_batch_3: refused: the pickle names (posix|os|nt)\.mkdir"):
        Cifar(root=str(tmp_path), split="train", names=NAMES)
    assert not (tmp_path / "hacked").exists()


def spoilt(root: Path, what: str) -> str:
    """A data set with one thing wrong; the split to ask for."""
    images, labels = pictures(10, 10)
    if what in ("cut pickle", "no list", "label too large"):
        write_python(root, images, np.where(labels == 9, 10, labels) if what == "label too large" else labels)
        file = root / "cifar-10-batches-py" / "data_batch_5"
        if what == "cut pickle":
            file.write_bytes(file.read_bytes()[:900])
        elif what == "no list":
            file.write_bytes(pickle.dumps({b"data": rows(images)}, protocol=2))
    elif what in ("cut binary", "file missing"):
        write_binary(root, images, labels)
        file = root / "cifar-10-batches-bin" / "data_batch_5.bin"
        if what == "cut binary":
            file.write_bytes(file.read_bytes()[:-1])
        else:
            file.unlink()
    elif what in ("cut archive", "no archive"):
        write_archive(root, images, labels)
        whole = (root / "train.tar.gz").read_bytes()
        (root / "train.tar.gz").write_bytes(whole[: len(whole) // 2] if what == "cut archive" else b"hello")
    elif what in ("foreign class", "sizes", "cut picture"):
        write_folders(root, images, labels)
        if what == "foreign class":
            (root / "train" / "a").rename(root / "train" / "aa")
        elif what == "sizes":
            cv2.imwrite(str(root / "train" / "j" / "x.png"), np.zeros((32, 31, 3), np.uint8))
        else:
            file = next((root / "train" / "a").iterdir())
            file.write_bytes(file.read_bytes()[:500])
    return "val" if what == "no split" else "train"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cut pickle", ["data_batch_5", "not a readable pickle"]),
        ("no list", ["data_batch_5", "labels"]),
        ("label too large", ["label of 10", "0 to 9"]),
        ("cut binary", ["data_batch_5.bin", "multiple of 3073"]),
        ("file missing", ["data_batch_1.bin", "not the rest", "data_batch_5"]),
        ("cut archive", ["train.tar.gz", "not a whole archive"]),
        ("no archive", ["train.tar.gz", "not a whole archive"]),
        ("foreign class", ["aa/", "Did you mean 'a'"]),
        ("sizes", ["x.png is 32x31", "32x32"]),
        ("cut picture", ["train", ".png", "truncated"]),
        ("no split", ["no split 'val'", "found nothing", "ROOT/val.tar.gz", "data.splits"]),
        ("nothing", ["ROOT/cifar-10-batches-py/data_batch_1", "data.root"]),
    ],
)
def test_what_is_wrong_is_said(what: str, words: list[str], tmp_path: Path) -> None:
    split = spoilt(tmp_path, what)
    with pytest.raises(DataError) as error:
        Cifar(root=str(tmp_path), split=split, names=NAMES)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_root_and_a_class_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-bin"):
        Cifar(root=str(tmp_path / "nowhere"), split="train", names=NAMES)
    with pytest.raises(ConfigError, match="twice"):
        Cifar(root=str(tmp_path), split="train", names=["a", "a"])


# In use -------------------------------------------------------------------------------------------------


def config_of(root: Path, *more: str) -> dict[str, Any]:
    names = ",".join(NAMES)
    options = [f"data.root={root}", "transform=cifar", "data.workers=0", f"data.dataset.names=[{names}]"]
    return composed(["task=classification", "data=cifar10", "network=resnet8", *options, *more], root)


def test_a_subset_is_balanced_and_normalised_as_its_data_set_is(tmp_path: Path) -> None:
    write_archive(tmp_path, *pictures(60, 10))
    (tmp_path / "test.tar.gz").write_bytes((tmp_path / "train.tar.gz").read_bytes())
    config = config_of(tmp_path, "data.train_samples=20", "data.batch_size=20")
    assert config["task"]["mean"] == [0.4914, 0.4822, 0.4465] and config["task"]["std"][2] == 0.2616
    data = runtime.build_data(config)
    whole = data.open("train")
    assert [int(whole[index]["target"]) for index in range(20)] == 2 * list(range(10))
    with pytest.raises(ConfigError, match=r"data\.classes"):
        runtime.build_data(config_of(tmp_path, "data.classes=11"))


def test_training_views_are_shifted_over_black_and_mirrored() -> None:
    node = composed(["task=classification", "data=cifar10", "transform=cifar"], Path("x"))["transform"]
    photo = np.full((32, 32, 3), 9, np.uint8)
    photo[:, :16] = 200
    sample = {
        "photo": photo,
        "class": 1,
        "index": 0,
        "name": "x",
        "kinds": {"photo": "photo", "class": "number"},
    }
    pair = Pair(source="photo", target="class")
    train = Transform(steps=build(node["train"], path="transform.train"), pair=pair)
    views = [train(sample, seed)["image"][0] for seed in range(60)]
    assert {tuple(view.shape) for view in views} == {(32, 32)}
    black = [(int((view[:, 16] == 0).sum()), int((view[16] == 0).sum())) for view in views]
    assert {rows for rows, _ in black} == {columns for _, columns in black} == {0, 1, 2, 3, 4}
    assert {int(view[16, 10]) for view in views} == {9, 200}
    still = Transform(steps=build(node["eval"], path="transform.eval"), pair=pair)
    assert torch.equal(still(sample, 0)["image"], torch.from_numpy(photo.transpose(2, 0, 1).copy()))


def test_looking_at_the_data_needs_no_task() -> None:
    assert with_task(["data=cifar10"]) == ["data=cifar10", "task=classification"]
    for given in (["data=camvid"], ["data=cifar10", "task=segmentation"], ["data=nothing"], []):
        assert with_task(given) == given


@pytest.mark.skipif(not DATA or not Path(DATA, "cifar10").is_dir(), reason="DVSN_DATA has no cifar10")
def test_the_real_archive() -> None:
    node = composed(["task=classification", "data=cifar10"], Path("x"))["data"]
    names = node["dataset"]["names"]
    data = Cifar(root=f"{DATA}/cifar10", split="test", names=names)
    assert data.images.shape == (10000, 32, 32, 3) and data.targets.tolist() == 1000 * list(range(10))
    assert np.allclose(data.images.mean((0, 1, 2)) / 255, node["facts"]["mean"], atol=0.02)


def test_a_run_hands_its_classes_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_archive(tmp_path, *pictures(40, 10))
    with tarfile.open(tmp_path / "test.tar", "w") as archive:
        for name, content in files_of(*pictures(20, 10, seed=1)).items():
            member = tarfile.TarInfo(name.replace("train", "test"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    more = ["callbacks=none", "logger=none", "trainer=cpu", "trainer.max_epochs=1", "data.train_samples=20"]
    config = config_of(tmp_path, *more, "trainer.enable_progress_bar=false", "data.batch_size=16")
    config["run_dir"] = str(tmp_path / "run")
    metrics = train.train(config)["metrics"]
    assert {"val/top1", "val/top5", "val/ece"} <= set(metrics) and 0 <= metrics["val/ece"] <= 1
    task = dvsn.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert task.names == NAMES  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["data=cifar100"], ["Pad", "RandomCrop", "HorizontalFlip"]),
        (["data=cifar10", "transform=none"], []),
        (["data=imagefolder"], ["RandomResizedCrop", "HorizontalFlip"]),
        (["experiment=cifar100_resnet32x4"], ["Pad", "RandomCrop", "HorizontalFlip"]),
    ],
)
def test_data_has_its_usual_views(given: list[str], expected: list[str], tmp_path: Path) -> None:
    config = composed(["task=classification", *given], tmp_path)
    assert [step["_target_"].split(".")[-1] for step in config["data"]["transform"]["train"]] == expected


# Bounds ----------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked_up_to_a_limit(tmp_path: Path) -> None:
    bomb = tmp_path / "train.tar.gz"
    bomb.write_bytes(gzip.compress(bytes(4 << 20)))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(
        DataError, match=r"train.tar.gz: [\d,]+ bytes that unpack to more than 1,048,576.*max_bytes"
    ):
        Cifar(root=str(tmp_path), split="train", names=("cat", "dog"), max_bytes=1 << 20)
    two = gzip.compress(b"one") + gzip.compress(b"two")  # a gzip file may have several parts
    assert decompress(two, bomb, 6) == b"onetwo"
    with pytest.raises(DataError, match="more than 5"):
        decompress(two, bomb, 5)


def test_all_pictures_of_a_split_have_a_limit(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "train" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    names = ("cat", "dog")
    assert len(Cifar(root=str(tmp_path), split="train", names=names, max_bytes=3 * 60)) == 3
    with pytest.raises(DataError, match=r"2.png: with this picture the split takes more than 179 bytes"):
        Cifar(root=str(tmp_path), split="train", names=names, max_bytes=179)
    with pytest.raises(ConfigError, match=r"data.dataset.max_bytes: found 0"):
        Cifar(root=str(tmp_path), split="train", names=names, max_bytes=0)
