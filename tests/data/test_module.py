"""The data module: what it refuses before any file, the messages for missing folders, the embedded scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from dvsn.config.menu import conf_dir
from dvsn.data.dataset import split_parts
from dvsn.data.module import TrainBatches
from dvsn.data.street_parts import PARTS
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from tests.support.tiny import composed, write_pairs

DATA = sorted(p.stem for p in Path(conf_dir(), "data").glob("*.yaml") if not p.stem.startswith("_"))
PAIRS = ["task=pix2pix", "data=folders", "transform=none", "data.workers=0"]


def module(options: list[str], folder: Path) -> Any:
    return runtime.build_data(composed(["task=pix2pix", *options], folder))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=6)


@pytest.mark.parametrize(
    "name", [name for name in DATA if name != "shards"]
)  # whose index is missed before they are built
def test_a_missing_root_is_answered_with_the_tree_and_the_option(name: str, tmp_path: Path) -> None:
    line = ["task=pix2pix", f"data={name}", f"data.root={tmp_path}/nowhere"]
    config = composed(line, tmp_path)
    node, more = config["data"], []
    if not node["dataset"]:
        more += ["codec=msra", "transform=pose"] if node["people"] else ["transform=detection"]
    if (node["keypoints"] or {}).get("names") == "???":  # a set of one's own, which says them
        more += ["data.keypoints.names=[left, right]"]
    if (node["objects"] or {}).get("names") == "???":
        more += ["data.objects.names={1: bolt}"]
    config = composed([*line, *more], tmp_path) if more else config
    data = runtime.build_data(config)  # building opens nothing
    for split in ("train", "val", "test"):
        with pytest.raises(DataError) as caught:
            data.open(split)
        message = str(caught.value)
        assert f"{tmp_path}/nowhere" in message and "data.root" in message
        assert "Expected this tree" in message and len(message.splitlines()) >= 3
    assert not (tmp_path / "nowhere").exists()  # reading never writes
    assert set(data.splits) == {"train", "val", "test"}
    with pytest.raises(ConfigError, match="split: found 'valid'"):
        data.open("valid")


def test_a_target_that_the_task_does_not_learn_is_refused_where_only_the_reader_knows_it(
    pairs: Path, tmp_path: Path
) -> None:
    """Readers of the user's own, and shards, say what their arrays are when they are opened."""
    data = module([*PAIRS[1:], f"data.root={pairs}"], tmp_path)
    data.learns = ("photo", "label")
    assert len(data.open("train")) == 6
    data.learns = ("number",)
    with pytest.raises(
        ConfigError, match=r"data.pair.target: 'b' is a photo in .*, and the task learns a number\. Choose an"
    ):
        data.open("train")
    data.learns = None
    assert len(data.open("train")) == 6


@pytest.mark.parametrize("name", ["street", "street_onehot", "street_parts"])
def test_the_street_scenes_are_drawn_on_first_use(name: str, tmp_path: Path) -> None:
    options = [
        f"data={name}", f"data.root={tmp_path}/street", "data.scenes={train: 2, val: 1, test: 1}",
        "data.height=64", "data.width=128", "transform=none", "data.workers=0",
    ]  # fmt: skip
    data = module(options, tmp_path)
    assert not (tmp_path / "street").exists()
    data.prepare_data()
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "street").rglob("*.png")}
    module(options, tmp_path).prepare_data()  # a second run finds them
    assert files and files == {p: p.stat().st_mtime_ns for p in (tmp_path / "street").rglob("*.png")}
    counts = {split: len(data.open(split)) for split in ("train", "val", "test")}
    assert counts == {"train": 2, "val": 1, "test": 1}
    sample = data.open("train")[0]
    channels = 3 if name == "street" else 2
    assert tuple(sample["image"].shape) == (channels, 64, 128)
    assert tuple(sample["target"].shape) == (3, 64, 128)
    photo = next((tmp_path / "street" / "leftImg8bit" / "train").rglob("*.png"))
    assert cv2.imread(str(photo)).shape == (64, 128, 3)
    if name != "street":
        classes = {"street_onehot": 34, "street_parts": len(PARTS)}[name]
        assert data.label_classes == classes and data.input_channels == classes + 1
        assert int(sample["image"][0].max()) < classes and set(sample["image"][1].unique().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.batch_size=0"], "data.batch_size: found 0"),
        (["data.eval_batch_size=-1"], "data.batch_size: found 1 and -1"),
        (["data.workers=-1"], "data.workers: found -1"),
        (["data.label_classes=5"], r"data.input_channels: found 3, .*Set data.input_channels=5"),
        (
            ["data.label_classes=5", "data.input_channels=5", "data.pair.edges=true"],
            r"an edge channel make 6\. Set data.input_channels=6",
        ),
        (["data.pair.edges=true"], "data.pair.edges: .*cityscapes_onehot"),
        (["+data.transform.evaluate=[]"], r"transform: found keys .*'evaluate'.*expected 'train' and 'eval'"),
        (["data.pair.source=label"], "data.pair.source: found 'label'"),
    ],
)  # fmt: skip
def test_inconsistent_options_are_refused(
    options: list[str], message: str, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        module([*PAIRS, f"data.root={pairs}", *options], tmp_path).open("train")


def test_a_pair_that_is_none_is_refused(pairs: Path, tmp_path: Path) -> None:
    """As in a recipe that is damaged."""
    config = composed([*PAIRS, f"data.root={pairs}"], tmp_path)
    config["data"]["pair"] = {}
    with pytest.raises(ConfigError, match=r"data.pair: found \{\}, expected a node"):
        runtime.build_data(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.output_channels=2"], r"'target' has 3 channels, expected 2\. Set data\.output_channels=3"),
        (["data.input_channels=4"], r"000\.png: found 3 bands, expected 4 .* or set data\.input_channels=3"),
        (["data.label_classes=4", "data.input_channels=4"], r"000.png.*'image' has 3 channels, expected 1"),
    ],
)
def test_the_first_sample_is_checked(options: list[str], message: str, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        module([*PAIRS, f"data.root={pairs}", *options], tmp_path).open("train")


def test_augmentation_is_for_training_alone(pairs: Path, tmp_path: Path) -> None:
    options = [*PAIRS, f"data.root={pairs}", "data.transform.eval=[]"]
    flip = "data.transform.train=[{_target_: albumentations.HorizontalFlip, p: 1.0}]"
    data = module([*options, flip], tmp_path)
    plain, moved = data.open("train")[0], data.open("train", augment=True)[0]
    assert plain["image"].flip(-1).equal(moved["image"]) and plain["target"].flip(-1).equal(moved["target"])
    assert plain["image"].equal(data.open("train")[0]["image"])


def test_setup_opens_what_the_stage_needs(pairs: Path, tmp_path: Path) -> None:
    data = module([*PAIRS, f"data.root={pairs}"], tmp_path)
    for stage, expected in (("fit", {"train", "val"}), ("validate", {"val"}), ("test", {"test"})):
        data.setup(stage)
        assert set(data.datasets) == expected
    data.test_split = "train"
    data.setup("test")
    assert len(data.datasets["test"]) == 6


def test_every_epoch_is_another_permutation() -> None:
    batches = TrainBatches(size=10, batch_size=4, seed=1)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    for epoch, seen in enumerate((first, second)):
        assert {key[0] for batch in seen for key in batch} == {epoch}
        assert sorted(key[1] for batch in seen for key in batch) == list(range(10))
    assert [key[1] for batch in first for key in batch] != [key[1] for batch in second for key in batch]
    other = list(TrainBatches(size=10, batch_size=4, seed=2))
    assert other != first


def test_a_short_batch_can_be_dropped() -> None:
    batches = TrainBatches(size=10, batch_size=4, seed=1, drop_last=True)
    assert len(batches) == 2 and [len(batch) for batch in batches] == [4, 4]


def test_ranges_of_a_split_are_disjoint_and_whole() -> None:
    assert split_parts("train") == [("train", 0, 100)]
    assert split_parts("train[:90%]+val[10%:20%]") == [("train", 0, 90), ("val", 10, 20)]
    for wrong in ("train[90%:10%]", "train[:101%]", "train[:0.5]", "train[", "[:10%]"):
        with pytest.raises(ConfigError, match=r"data\.splits"):
            split_parts(wrong)


def test_a_range_is_read_as_a_data_set_of_its_own(pairs: Path, tmp_path: Path) -> None:
    """6 pictures: 70 % are the first 4."""
    data = module([*PAIRS[1:], f"data.root={pairs}"], tmp_path)
    names = [sample["name"] for sample in data.open("train")]
    data.splits = {"train": "train[:70%]", "val": "train[70%:]", "test": "train[50%:70%]+train[:20%]"}
    assert [sample["name"] for sample in data.open("train")] == names[:4]
    assert [sample["name"] for sample in data.open("val")] == names[4:]
    assert [sample["name"] for sample in data.open("test")] == [names[3], names[0]]


@pytest.mark.parametrize(("workers", "threads"), [(0, 2), (1, 1)])
def test_opencv_has_no_threads_when_workers_are_forked(workers: int, threads: int, tmp_path: Path) -> None:
    """A worker that inherits the lock of OpenCV's pool waits for ever."""
    write_pairs(tmp_path, train=2, val=1)
    data = runtime.build_data(
        composed([*PAIRS[:-1], f"data.workers={workers}", f"data.root={tmp_path}"], tmp_path)
    )
    data.setup("validate")
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        data._loader("val", [[0]])
        assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)
