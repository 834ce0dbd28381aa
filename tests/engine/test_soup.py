"""Averages of checkpoints: the mean by hand, the greedy choice, statistics against torch's own, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import update_bn

from dvsn import average as command
from dvsn import load
from dvsn.data.module import TrainBatches
from dvsn.engine import soup
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import CheckpointError, ConfigError
from dvsn.weights import read_checkpoint
from tests.support.resuming import run
from tests.support.tiny import TINY_CLASSIFICATION, composed, write_blobs

SMALL = [*TINY_CLASSIFICATION, "metrics.top=[1]", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs of one recipe with other seeds and rates."""
    folder = tmp_path_factory.mktemp("soup")
    root = write_blobs(folder / "blobs", size=16, train=3, val=1)
    for name, seed, rate in (("a", 0, 0.1), ("b", 1, 0.05)):
        words = [*SMALL, f"data.root={root}", f"seed={seed}", f"optim.lr={rate}"]
        run(composed(words, folder / name))
    return [str(folder / name / "checkpoints" / "last.ckpt") for name in ("a", "b")]


def averaged(paths: list[str], output: Path, **options: Any) -> dict[str, Any]:
    usual = {option.name: option.default for option in command.COMMAND.options}
    soup.average({**usual, "checkpoints": paths, "output": str(output), **options})
    return read_checkpoint(output)


def test_the_mean_by_hand() -> None:
    one = {
        "w": torch.tensor([1.0, 2.0]),
        "n": torch.tensor(3),
        "h": torch.tensor([1.0], dtype=torch.bfloat16),
    }
    other = {
        "w": torch.tensor([2.0, 6.0]),
        "n": torch.tensor(5),
        "h": torch.tensor([2.0], dtype=torch.bfloat16),
    }
    found = soup.mean([one, other])
    assert found["w"].tolist() == [1.5, 4.0] and found["n"].item() == 5 and found["n"].dtype == torch.int64
    assert found["h"].item() == 1.5 and found["h"].dtype == torch.bfloat16


def test_a_soup_is_a_checkpoint(two: list[str], tmp_path: Path) -> None:
    content = averaged(two, tmp_path / "soup.ckpt")
    one, other = (read_checkpoint(path)["state_dict"] for path in two)
    key = next(key for key in one if key.endswith("conv1.weight"))
    torch.testing.assert_close(content["state_dict"][key], (one[key] + other[key]) / 2)
    assert content["dvsn"]["averaged"] == ["last.ckpt", "last.ckpt"] and content["dvsn"]["config"]["monitor"]
    task: Any = load(tmp_path / "soup.ckpt")
    assert task.class_names == ("blue", "green", "red")


def test_statistics_are_those_of_torch(two: list[str], tmp_path: Path) -> None:
    content = averaged(two, tmp_path / "soup.ckpt", statistics=True)
    plain = averaged(two, tmp_path / "plain.ckpt")
    task: Any = load(tmp_path / "plain.ckpt").train()
    data = runtime.build_data({"data": task.data_recipe})
    data.datasets = {"train": data.open("train", augment=True)}
    batches = data._loader("train", TrainBatches(size=9, batch_size=3, seed=0))
    update_bn([task.see(batch["image"]) for batch in batches], task.network)
    expected = {f"network.{key}": value for key, value in task.network.state_dict().items()}
    changed = 0
    for key, value in expected.items():
        torch.testing.assert_close(content["state_dict"][key], value)
        changed += not torch.equal(value, plain["state_dict"][key])
    assert changed > 0
    assert "statistics" not in content["dvsn"] and all(
        torch.equal(content["state_dict"][key], plain["state_dict"][key])
        for key in expected
        if "running" not in key and "num_batches" not in key
    )


def test_of_one_checkpoint_the_statistics_are_measured(two: list[str], tmp_path: Path) -> None:
    content, before = (
        averaged(two[:1], tmp_path / "one.ckpt", statistics=2),
        read_checkpoint(two[0])["state_dict"],
    )
    assert int(content["state_dict"]["network.bn1.num_batches_tracked"]) == 2
    assert torch.equal(content["state_dict"]["network.conv1.weight"], before["network.conv1.weight"])
    assert not torch.equal(
        content["state_dict"]["network.bn1.running_mean"], before["network.bn1.running_mean"]
    )


def test_the_greedy_soup_by_hand(two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone 0.5, 0.7, 0.6. With the second first: adding the third gives 0.72, it stays; the first 0.71, it is left out."""
    states = [{"w": torch.tensor([float(value)])} for value in (1, 10, 100)]
    scores = {1.0: 0.5, 10.0: 0.7, 100.0: 0.6, 55.0: 0.72, 37.0: 0.71}
    header = {"config": {"monitor": {"name": "val/top1", "mode": "max"}}, "data": {"root": "x"}}
    found = [soup.Ingredient(f"{number}.ckpt", header, state) for number, state in enumerate(states)]
    now: dict[str, Any] = {}
    monkeypatch.setattr(soup, "load_state", lambda task, state, path: now.update(state))
    monkeypatch.setattr(soup, "scorer", lambda *_: lambda: scores[float(now["w"])])
    assert soup.greedy(None, found, {}) == ([1, 2], [0.7, 0.72])  # type: ignore[arg-type]


def test_greedy_measures_by_the_monitor(two: list[str], tmp_path: Path) -> None:
    content = averaged(two, tmp_path / "soup.ckpt", method="greedy")
    assert 1 <= len(content["dvsn"]["averaged"]) <= 2
    header = read_checkpoint(two[0])["dvsn"]
    task: Any = load(two[0])
    measure = soup.scorer(task, header["data"], header["config"], "val/top1")
    other = {key: torch.zeros_like(value) for key, value in task.state_dict().items()}
    own = {key: value.clone() for key, value in task.state_dict().items()}
    task.load_state_dict(other)
    assert measure() == pytest.approx(1 / 3), "the first class of all pictures"
    task.load_state_dict(own)
    score = measure()
    data = runtime.build_data({"data": header["data"]})
    val = data.open("val")
    right = [
        int(load(two[0]).network(task.see(val[i]["image"][None])).argmax()) == val[i]["target"]
        for i in range(3)
    ]
    assert score == pytest.approx(sum(right) / 3)


def changed(path: str, folder: Path, change: Any) -> str:
    content = read_checkpoint(path)
    change(content)
    AtomicCheckpointIO().save_checkpoint(content, folder / "other.ckpt")
    return str(folder / "other.ckpt")


CHANGES = {
    "task.network.depth: 8 there, 14 here": lambda c: c["dvsn"]["recipe"]["network"].update(depth=14),
    "data.dataset.names: .* there, .* here": lambda c: c["dvsn"]["data"]["dataset"].update(
        names=["red", "green", "blue"]
    ),
    r"network.fc.weight: in one of them alone": lambda c: c["state_dict"].pop("network.fc.weight"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_unlike_checkpoints_are_refused(message: str, two: list[str], tmp_path: Path) -> None:
    other = changed(two[1], tmp_path, CHANGES[message])
    with pytest.raises(CheckpointError, match=rf"(?s)other.ckpt: cannot be averaged with .*{message}"):
        averaged([two[0], other], tmp_path / "soup.ckpt")
    assert not (tmp_path / "soup.ckpt").exists()


def test_bad_options(two: list[str], tmp_path: Path) -> None:
    for options, message in (
        ({"method": "best"}, "method: found 'best'"),
        ({"statistics": 0}, "statistics: found 0"),
        ({"checkpoints": two[:1]}, "checkpoints: expected two or more"),
        ({"checkpoints": [], "statistics": True}, "checkpoints: expected two or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            averaged(two, tmp_path / "soup.ckpt", **options)
    fold = changed(two[1], tmp_path, lambda content: content["dvsn"]["data"].update(fold=1))
    with pytest.raises(
        ConfigError, match=r"method: greedy chooses by what all have not seen.*data.fold 1, None"
    ):
        averaged([two[0], fold], tmp_path / "soup.ckpt", method="greedy")
    bare = changed(two[0], tmp_path, lambda content: content["dvsn"].pop("config"))
    with pytest.raises(ConfigError, match=r"method: greedy needs a score, and .* knows none"):
        averaged([bare, two[1]], tmp_path / "soup.ckpt", method="greedy")


def test_the_command(two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dvsn", *two])
    command.main()
    assert (tmp_path / "soup.ckpt").is_file()
