"""Every test: one thread, no network, no account, and the repository's own package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums in one order, and a core for each process of the suite."""
    torch.set_num_threads(1)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs may name the methods of `tests.support.distill_stubs`."""
    monkeypatch.setenv("DVSN_ALLOW", "tests.support.distill_stubs")


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes, four of each to train on: two batches of six."""
    from tests.support.tiny import write_blobs

    return write_blobs(tmp_path_factory.mktemp("blobs"), train=4)
