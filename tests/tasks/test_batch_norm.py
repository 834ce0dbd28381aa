"""The guard against batch norms that see one value a channel: what it counts, whom it guards, that it leaves no trace."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dvsn.data.module import TrainBatches
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.tasks.batch_norm import smallest_share, unchanged
from tests.distill import test_matrix as matrix
from tests.support.distill_stubs import fit
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes
from tests.test_devices import taught

schools = matrix.schools


def test_the_share_is_that_of_the_batches_that_are_made() -> None:
    for size, batch, world, drop, most in itertools.product(
        range(1, 14), (1, 2, 3, 4, 6), (1, 2, 3), (False, True), (1, 2, 99)
    ):
        made = list(TrainBatches(size=size, batch_size=batch, seed=0, world=world, drop_last=drop))[:most]
        if batch % world or not made:
            continue
        data = SimpleNamespace(
            datasets={"train": range(20)}, train_samples=size, batch_size=batch, drop_last=drop
        )
        found = smallest_share(data, world=world, batches=min(most, len(made)))
        assert found.items == min(map(len, made)), (size, batch, world, drop, most)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


SHORT = ["trainer.max_epochs=1", "trainer.limit_val_batches=0"]


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["data.train_samples=5"], r"the last batch of an epoch gives 1 item a device.*drop_last=true"),
        (["data.train_samples=5", "trainer.accumulate_grad_batches=3"], "the last batch of an epoch"),
        (["data.train_samples=5", "data.drop_last=true"], None),
        (["data.train_samples=5", "trainer.limit_train_batches=2"], None),
        (["data.batch_size=1"], r"every batch gives 1 item a device.*Set data\.batch_size=2\."),
    ],
)
def test_the_samples_that_are_trained_on_count(
    scenes: Path, tmp_path: Path, options: list[str], refused: str | None
) -> None:
    """Six pictures in batches of two; PIDNet's pyramid pools a picture to one pixel."""
    config = composed([*TINY_SEGMENTATION, *SHORT, f"data.root={scenes}", *options], tmp_path)
    if refused is None:
        fit(config)
    else:
        with pytest.raises(ConfigError, match=refused):
            fit(config)
        assert not list(tmp_path.rglob("*.ckpt"))


def test_a_classifier_is_guarded_where_its_maps_are_one_pixel(schools: Any, tmp_path: Path) -> None:
    root, _ = schools("classification")
    config = matrix.student_of("classification") | {"run_dir": str(tmp_path)}
    config["data"] |= {"root": str(root), "batch_size": 1}
    fit(config)  # many values a channel: a batch of one is fine
    config["run_dir"] = str(tmp_path / "small")
    config["data"]["transform"] = {
        split: [{"_target_": "albumentations.Resize", "height": 4, "width": 4}] for split in ("train", "eval")
    }
    with pytest.raises(ConfigError, match=r"the batch norm 'network\.layer3.* sees one value a channel"):
        fit(config)


def test_a_method_that_brings_a_norm_is_guarded(schools: Any, tmp_path: Path) -> None:
    config = taught(["srrl"], "classification", schools, tmp_path)
    config["data"]["batch_size"] = 1
    config["distill"]["srrl"]["taps"] = [["fc:in", "fc:in"]]
    with pytest.raises(
        ConfigError, match=r"the batch norm 'distiller\.methods\.srrl\.connector\.1' sees one value"
    ):
        fit(config)


def test_looking_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    network.first = True  # type: ignore[assignment]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    with unchanged(network):
        network(torch.randn(4, 3))
        network.eval()
        network.first = False  # type: ignore[assignment]
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1)) and network.training and network.first
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_pix2pix_is_guarded_too(schools: Any, tmp_path: Path) -> None:
    """A U-Net of four halvings makes one pixel of 16 x 16, and `bottleneck_norm` normalises it."""
    root, _ = schools("pix2pix")
    config = matrix.student_of("pix2pix") | {"run_dir": str(tmp_path)}
    config["data"] |= {"root": str(root), "batch_size": 1}
    config["task"]["network"] |= {"depth": 4, "norm": "batch", "bottleneck_norm": True}
    with pytest.raises(ValueError, match="bottleneck sees one value per channel"):
        fit(config)
    assert runtime.make_task(config).kind == "pix2pix" and not list(tmp_path.rglob("*.ckpt"))
