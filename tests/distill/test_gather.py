"""Two processes with gathering against one with the whole batch: values, gradients under DDP, banks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dvsn.distill import holistic
from dvsn.distill.gather import gather
from tests.support.gathering import CASES, HALVES, critic, found, student, whole_batch
from tests.support.ranks import start_ranks

LOCAL = ("crd", "dist", "mlkd")  # a process's loss is, or has a term, of its own items alone


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks("gathering.py", str(folder))
    return [torch.load(Path(folder, f"gather_{rank}.pt"), weights_only=True) for rank in range(2)]


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = found(student(name), whole_batch())
    assert any(gradient.abs().max() > 1e-6 for gradient in expected["gradients"].values())
    first, second = (rank[f"{name} halves"] for rank in ranks)
    values = torch.stack([first["value"], second["value"]])
    close(values.mean(), expected["value"])
    if name not in LOCAL:
        close(first["value"], second["value"])
    for answer in (first, second):
        close(answer["gradients"], expected["gradients"])
        close(answer["buffers"], expected["buffers"])


def test_crd_averages_its_constants_over_all_items_of_unequal_batches(ranks: list[dict[str, Any]]) -> None:
    """Z of the first batch, five items here and three there, is that of the eight."""
    expected = found(student("crd"), whole_batch())["buffers"]
    name = next(name for name in expected if name.endswith("params"))
    for rank in ranks:
        close(rank["crd unequal"]["buffers"][name], expected[name])


@pytest.mark.parametrize("name", [name for name in CASES if name not in LOCAL])
def test_processes_may_have_unequal_batches(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = found(student(name), whole_batch())
    for rank in ranks:
        close(rank[f"{name} unequal"]["value"], expected["value"])
        close(rank[f"{name} unequal"]["gradients"], expected["gradients"])


@pytest.mark.parametrize("name", ["sp", "rkd", "pkt", "cc", "dist", "cirkd"])
def test_without_gathering_the_loss_depends_on_the_number_of_processes(name: str) -> None:
    whole = found(student(name), whole_batch())["value"]
    parts = [found(student(name), tuple(each[part] for each in whole_batch()))["value"] for part in HALVES]
    assert abs(float(torch.stack(parts).mean() / whole) - 1) > 0.01


def test_one_process_gathers_nothing() -> None:
    tensor = torch.randn(3, 2, requires_grad=True)
    assert gather(tensor) is tensor


def test_two_processes_train_one_critic(ranks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the mean of the gradients that each has of its own maps."""
    method, _, _, _ = critic(0)
    for step in range(2):
        gradients = []
        for rank in range(2):
            twin, *seen = critic(rank)
            twin.load_state_dict(method.state_dict())
            monkeypatch.setattr(twin, "descend", gradients.append)
            torch.manual_seed(2 * step + rank)
            twin.after_step(*seen)
        method.load_state_dict(twin.state_dict())  # the vectors of spectral norm have moved
        method.descend([(a + b) / 2 for a, b in zip(*gradients, strict=True)])
    first, second = (rank["critic"] for rank in ranks)
    assert first.keys() == second.keys()
    assert all(torch.equal(second[key], value) for key, value in first.items())
    close(first, method.state_dict())
    assert holistic.processes() == 1
