"""The pages of experiments/scale: a step on many GPUs by hand, and a dry run of rank 0 against formulas."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "experiments" / "scale"


def page(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scale_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_step_by_hand() -> None:
    """100 bytes in buckets of 40, 40 and 20; a ring of four: 6 (size / 4 / 10 + 1) seconds."""
    simulate = page("simulate")
    job = simulate.Job(
        parameters=25, forward=3, backward=100, bucket=40, first=40, local=4, inside=10, latency=1, between=5, far=2,
        spread=0, sample=0, batch=1,
    )  # fmt: skip
    assert simulate.ring(40, 4, 10, 1) == 12 and simulate.ring(40, 1, 10, 1) == 0
    assert simulate.all_reduce(40, 8, job) == 12 + 2 * (40 / 2 / 5 + 2)  # two machines of four
    assert simulate.step(1, job).total == 103 and simulate.step(1, job).sent == 0
    late = simulate.step(4, job)  # the last bucket alone is sent after backward
    assert late.exposed == pytest.approx(9) and late.total == pytest.approx(112) and late.sent == 150
    alone = simulate.step(4, simulate.replace(job, overlap=0))
    assert alone.exposed == pytest.approx(12 + 12 + 9)
    crowded = simulate.step(4, simulate.replace(job, backward=1))  # sending takes longer than backward
    assert crowded.exposed == pytest.approx(0.4 + 33 - 1)
    slow = simulate.step(4, simulate.replace(job, sample=100, reading=2))
    assert slow.total == 200 and slow.starving == pytest.approx(88)
    noisy = simulate.step(4, simulate.replace(job, spread=0.1))
    assert noisy.straggling == pytest.approx(10.3 * math.sqrt(2 * math.log(4)))
    assert len(simulate.table(job, (1, 4))) == 4 and simulate.parsed(["local=2"]).local == 2
    with pytest.raises(SystemExit, match="there is no such key"):
        simulate.parsed(["locals=2"])


WORDS = ["task=classification", "data=cifar10", "network=resnet8x4"]


@pytest.fixture(scope="module")
def shapes() -> list[tuple[int, ...]]:
    """Of the parameters, in order."""
    fake = page("fake_job")
    return [tuple(each.shape) for each in fake.network_of(fake.nodes_of(WORDS)[0]).parameters()]


@pytest.mark.slow
def test_ddp_sends_each_gradient_once_in_buckets(shapes: list[tuple[int, ...]]) -> None:
    fake = page("fake_job")
    torch.set_num_threads(1)
    job = fake.dry_run(WORDS, world=512, strategy="ddp", batch=64, size=(32, 32))
    sizes = [4 * math.prod(shape) for shape in shapes]
    buckets, size = 0, 0
    for each in reversed(
        sizes
    ):  # a bucket is closed with the gradient that fills it: the first at 1 MiB, others at 25
        size += each
        if size >= (25 if buckets else 1) * 2**20:
            buckets, size = buckets + 1, 0
    assert job.parameters == sum(sizes) // 4 and job.held == job.gradients == sum(sizes)
    assert job.sent["allreduce"] == sum(sizes) and job.calls["allreduce"] == buckets + (size > 0) == 2
    assert job.optimiser == sum(sizes)  # SGD's momentum
    twice = fake.dry_run(WORDS, world=512, strategy="ddp", batch=128, size=(32, 32))
    assert 1.9 < twice.kept / job.kept < 2.1


@pytest.mark.slow
def test_fsdp_gathers_twice_and_scatters_once(shapes: list[tuple[int, ...]]) -> None:
    """Each parameter is padded to a multiple of the processes in its first dimension: small ones cost most."""
    fake = page("fake_job")
    for world in (8, 512):
        job = fake.dry_run(WORDS, world=world, strategy="fsdp", batch=64, size=(32, 32))
        rows = [(math.ceil(shape[0] / world), math.prod(shape[1:])) for shape in shapes]
        own = sum(4 * kept * rest for kept, rest in rows)
        assert job.held == job.gradients == job.optimiser == own
        assert job.sent["reduce_scatter"] == world * own
        assert world * own < job.sent["allgather"] <= 2 * world * own
        assert job.calls["reduce_scatter"] < job.calls["allgather"] <= 2 * job.calls["reduce_scatter"]
