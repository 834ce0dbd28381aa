"""Several processes learn what one with the whole batch learns: over 20 steps, with batch norm, two optimisers, banks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.networks.shared_norm import SharedBatchNorm, share_statistics
from tests.support.distill_stubs import SMALL, save_teacher
from tests.support.processes import draw_alike
from tests.support.ranks import two_ranks
from tests.support.tiny import TINY, TINY_SEGMENTATION, composed, write_blobs, write_pairs, write_scenes

STEPS = ["trainer.max_steps=20", "trainer.limit_val_batches=0", "data.batch_size=4", "channels_last=false"]
TOLERANCE = {"segmentation": 3e-4, "pix2pix": 2e-5, "crd": 2e-5}
"""Of float32 weights after 20 steps, whose sums are formed in another order. Segmentation's are near-chaotic: one process
whose batches are in the reverse order ends 5e-5 away, and 7e-3 with a rate of 0.01."""


def lines(root: Path) -> dict[str, list[str]]:
    """The overrides of three runs whose loss is a mean over the items of a batch."""
    pairs, blobs = write_pairs(root / "pairs", train=8), write_blobs(root / "blobs", train=4)
    scenes = write_scenes(root / "scenes", train=8)
    teacher = save_teacher(composed([*SMALL, "network=resnet14"], root), root / "teacher.ckpt")
    plain = [each for each in TINY_SEGMENTATION if not each.startswith(("loss.", "network."))]
    small = ["network.width=4", "network.bottlenecks=1", "network.bottleneck_width=8", "network.blocks=1"]
    return {
        "segmentation": [
            *plain, "network=hrnetv2_w18_small_v1", *small, "loss=cross_entropy", "loss.terms.main.average=all",
            f"data.root={scenes}", "trainer.sync_batchnorm=true", "optim.lr=0.0001",
        ],
        "pix2pix": [*TINY, f"data.root={pairs}", "network.dropout=0", "trainer.sync_batchnorm=true"],
        "crd": [
            *SMALL, f"data.root={blobs}", f"teacher={teacher}", "distill=crd", "distill.crd.method.negatives=8",
            "network.depth=8", "trainer.sync_batchnorm=true",
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """By name the state of one process, and the folder of two, started once for all."""
    root = tmp_path_factory.mktemp("together")
    words = {name: [*each, *STEPS] for name, each in lines(root).items()}
    two_ranks(*(composed([*each, "trainer.devices=2"], root / f"two_{name}") for name, each in words.items()))
    return {name: (alone(composed(each, root / name)), root / f"two_{name}") for name, each in words.items()}


def alone(config: dict[str, Any]) -> dict[str, Any]:
    """The state after the run of one process."""
    torch.set_num_threads(1)
    task = runtime.make_task(config)
    with pytest.MonkeyPatch.context() as patch:
        if config.get("distill"):
            draw_alike(patch)
            teaching.distil(task, config, runtime.build_data(config))
        runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    return dict(task.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segmentation", "pix2pix", "crd"])
def test_two_processes_learn_as_one_with_the_whole_batch(
    name: str, trained: dict[str, tuple[dict[str, Any], Path]]
) -> None:
    expected, folder = trained[name]
    for rank in range(2):
        found = torch.load(folder / f"rank_{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                found[key], value, rtol=1e-3, atol=TOLERANCE[name], msg=lambda text, key=key: f"{key}: {text}"
            )


def test_a_shared_norm_in_one_process_is_batch_norm() -> None:
    """And keeps its parameters, its buffers and the names of both."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.Flatten())
    shared = share_statistics(copy.deepcopy(net))
    assert isinstance(shared[1][0], SharedBatchNorm) and shared.state_dict().keys() == net.state_dict().keys()  # type: ignore[index]
    image = torch.randn(2, 3, 5, 5)
    for _ in range(2):
        torch.testing.assert_close(shared(image), net(image), rtol=0, atol=0)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[key], value, rtol=0, atol=0)
    torch.testing.assert_close(shared.eval()(image), net.eval()(image), rtol=0, atol=0)
