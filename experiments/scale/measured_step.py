"""One process of a step that `simulate.py measure` starts: prints, by the first, seconds of the step's parts as JSON.

Forward, and backward with DDP's gradients, are the medians of rounds; an all-reduce of all gradients at once and one of a
single number give bandwidth and latency."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.networks.dry_run import tensors

ROUNDS = 9


def seconds(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The median of rounds, which all processes begin together; the first is not counted."""
    taken = []
    for _ in range(rounds + 1):
        dist.barrier()
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def total(output: Any) -> Tensor:
    """The mean square of all tensors of an answer."""
    return torch.stack([each.square().mean() for each in tensors(output)]).sum()


def main() -> None:
    name, side = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    node = yaml.safe_load(Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8"))
    network: nn.Module = build({**node, "classes": 19}, path="network")
    count = sum(each.numel() for each in network.parameters())
    world = dist.get_world_size()
    model = network if world == 1 else DistributedDataParallel(network)
    image = torch.randn(2, 3, side, side)
    forward = seconds(lambda: total(network(image)))
    whole = seconds(lambda: total(model(image)).backward())
    found = {"parameters": count, "forward": forward, "backward": whole - forward, "all_reduce": 0.0}
    if world > 1:
        gradient, one = torch.zeros(count), torch.zeros(1)
        short = seconds(lambda: dist.all_reduce(one))
        found["all_reduce"] = seconds(lambda: dist.all_reduce(gradient))
        found["latency"] = short / (2 * (world - 1))
        found["bandwidth"] = 2 * (world - 1) / world * 4 * count / (found["all_reduce"] - short)
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
