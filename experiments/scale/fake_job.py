"""A dry run of a large job: rank 0 of WORLD processes is built here, on torch's fake process group, and makes three steps.

    python experiments/scale/fake_job.py [world=512] [strategy=ddp|fsdp] [batch=4] [size=1024x1024] [OVERRIDES]

OVERRIDES are those of dvsn.train, such as task=segmentation data=cityscapes network=pidnet_l. Printed are the parameters,
gradients, optimiser's state and what the forward pass keeps for the backward pass, of one process, and the collectives of
the last step by kind: how many, and bytes. Tensors are fake, of shapes without memory, and nothing is sent. DDP's buckets
want memory, so that its collectives are those of real tensors on a small picture, on which they do not depend.

The loss is the mean square of all that the network answers: that of the task, metrics, a teacher and synchronised batch norm
would add to both.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from dvsn.config.build import build
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.engine.sharded import own_bytes, shard
from dvsn.networks.dry_run import tensors

MIB = 2**20
SMALL = 128
"""Height and width of the picture of which DDP's collectives are counted."""
STEPS = 3
"""The first of DDP has other buckets than those after it."""


class Counted(TorchDispatchMode):
    """Counts the collectives that are called within, by kind: `calls`, and `bytes` of what all ranks end with together
    (all-gather), begin with (reduce-scatter) or exchange (all-reduce, broadcast)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        if space in ("c10d", "_c10d_functional"):
            kind = name.strip("_").replace("_base", "")
            self.calls[kind] += 1
            self.bytes[kind] += max((total_bytes(each) for each in args), default=0)
        return func(*args, **(kwargs or {}))


def total_bytes(value: Any) -> int:
    """Of a tensor, or of all of a list."""
    return sum(each.numel() * each.element_size() for each in tensors(value))


class Job(NamedTuple):
    """What one process of a job has and sends."""

    parameters: int
    """Numbers of the network; all others are bytes of this process."""
    held: int
    gradients: int
    optimiser: int
    kept: int
    """What the forward pass keeps for the backward pass."""
    calls: dict[str, int]
    sent: dict[str, int]


def nodes_of(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nodes of the network and of its optimiser under these overrides."""
    with initialized(conf_dir()):
        config = compose("train", overrides=[*overrides, "name=fake", "run_dir=."])
        task = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(task, dict)
    return task["network"], task["optim"]


def dry_run(overrides: list[str], *, world: int, strategy: str, batch: int, size: tuple[int, int]) -> Job:
    """Build rank 0 of a job of these processes, by `ddp` or `fsdp`, and let it make its steps."""
    network_node, optim_node = nodes_of(overrides)
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    mesh = init_device_mesh("cpu", (world,))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            network, image = network_of(network_node), torch.empty(batch, 3, *size)
            if strategy == "fsdp":
                shard(network, mesh)
            job = measured(network, network, build(optim_node, path="optim"), image)
        if strategy == "fsdp":
            return job
        network = network_of(network_node)
        model = DistributedDataParallel(network, init_sync=False)
        model.register_comm_hook(None, lambda _, bucket: reduced(bucket))
        real = measured(model, network, build(optim_node, path="optim"), torch.zeros(2, 3, SMALL, SMALL))
        return job._replace(calls=real.calls, sent=real.sent)
    finally:
        dist.destroy_process_group()


def network_of(node: dict[str, Any]) -> nn.Module:
    network = build(node, path="network")
    assert isinstance(network, nn.Module)
    return network


def reduced(bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """What DDP does with a bucket; its own way asks the fake group for an answer."""
    dist.all_reduce(bucket.buffer())
    answer: torch.futures.Future[Tensor] = torch.futures.Future()
    answer.set_result(bucket.buffer())
    return answer


def measured(model: nn.Module, network: nn.Module, optim: Any, image: Tensor) -> Job:
    """Three steps; the collectives are those of the last."""
    optimiser = optim(network.parameters())
    for _ in range(STEPS):
        optimiser.zero_grad()
        kept = Kept(network)
        with Counted() as counted:
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
                loss = torch.stack([each.square().mean() for each in tensors(model(image))]).sum()
            loss.backward()
        optimiser.step()
    states = [each for of in optimiser.state.values() for each in of.values() if isinstance(each, Tensor)]
    return Job(
        parameters=sum(each.numel() for each in network.parameters()),
        held=own_bytes(network),
        gradients=sum(local_bytes(each.grad) for each in network.parameters()),
        optimiser=sum(map(local_bytes, states)),
        kept=sum(kept.storages.values()),
        calls=dict(counted.calls),
        sent=dict(counted.bytes),
    )


class Kept:
    """The bytes of what autograd keeps within, by memory: a tensor and its views count once, parameters not at all."""

    def __init__(self, network: nn.Module) -> None:
        self.storages: dict[Any, int] = {}
        self.own = {id(each) for each in network.parameters()}

    def pack(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.own:
            self.storages[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        return tensor


def local_bytes(tensor: Tensor | None) -> int:
    """Of what this process keeps of a tensor."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return 0 if own is None else own.numel() * own.element_size()


def main() -> None:
    given = dict(each.split("=", 1) for each in sys.argv[1:] if each.split("=")[0] in OPTIONS)
    overrides = [each for each in sys.argv[1:] if each.split("=")[0] not in OPTIONS]
    chosen = {**OPTIONS, **given}
    if chosen["strategy"] not in ("ddp", "fsdp"):
        raise SystemExit(f"strategy: found {chosen['strategy']}, expected ddp or fsdp")
    height, width = map(int, chosen["size"].split("x"))
    job = dry_run(
        overrides or ["task=segmentation", "data=cityscapes", "network=pidnet_s"],
        world=int(chosen["world"]),
        strategy=chosen["strategy"],
        batch=int(chosen["batch"]),
        size=(height, width),
    )
    rows = (
        ("parameters", job.held),
        ("gradients", job.gradients),
        ("optimiser", job.optimiser),
        ("kept", job.kept),
    )
    print(f"rank 0 of {chosen['world']}, {chosen['strategy']}, {job.parameters:,} parameters")
    print("; ".join(f"{name} {size / MIB:,.1f} MiB" for name, size in rows))
    for kind, number in job.calls.items():
        print(f"{kind}: {number} a step, {job.sent[kind] / MIB:,.1f} MiB")


OPTIONS = {"world": "512", "strategy": "ddp", "batch": "4", "size": "1024x1024"}

if __name__ == "__main__":
    main()
