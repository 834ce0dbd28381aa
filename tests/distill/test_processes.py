"""Distillation on two processes: modules of methods, memory banks and stages stay the same on both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.distill_stubs import SMALL, save_teacher
from tests.support.ranks import two_ranks
from tests.support.tiny import composed, write_blobs


@pytest.mark.slow
def test_two_processes_learn_the_same(tmp_path: Path) -> None:
    """FT with its initial stage, in which the student is not run; CRD with banks; SP on the joined batch."""
    root = write_blobs(tmp_path / "blobs", train=4)
    shared = [*SMALL, f"data.root={root}", "data.batch_size=4"]
    teacher = save_teacher(composed([*shared, "network=resnet14"], tmp_path), tmp_path / "teacher.ckpt")
    options = [
        *shared, f"teacher={teacher}", "distill=[ft,crd,sp]", "distill.ft.method.initial_epochs=1",
        "distill.crd.method.negatives=8", "trainer.devices=2", "trainer.max_epochs=1", "network.depth=8",
    ]  # fmt: skip
    two_ranks(composed(options, tmp_path / "run"))
    first, second = (torch.load(tmp_path / "run" / f"rank_{rank}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys() and any("methods.crd" in key for key in first)
    for key, value in first.items():
        if "running_" not in key and "num_batches" not in key:  # of the last step, each process's own
            torch.testing.assert_close(
                second[key], value, rtol=0, atol=0, msg=lambda text, key=key: f"{key}: {text}"
            )
    banks = [value for key, value in first.items() if "memory_v" in key]
    assert len(banks) == 2
    norms = torch.stack([bank.norm(dim=1) for bank in banks])
    assert (
        int((norms - 1).abs().lt(1e-4).all(dim=0).sum()) == 12
    )  # every picture was written, by either process
