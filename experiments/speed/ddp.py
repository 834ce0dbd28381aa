"""What the options of DDP cost and change: a training step of two processes over gloo, one option at a time, in turns.

    torchrun --nproc-per-node 2 experiments/speed/ddp.py [NETWORK] [SIDE] [ROUNDS]

Each round runs one step with every option; the shortest of all rounds counts, as a ratio to the default. `apart` is the
largest difference of a gradient from the default's, as a share of the largest gradient.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.networks.dry_run import tensors

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "ddp_bucket_mb=1": {"bucket_cap_mb": 1},
    "ddp_bucket_mb=100": {"bucket_cap_mb": 100},
    "ddp_bucket_view=true": {"gradient_as_bucket_view": True},
    "ddp_static_graph=true": {"static_graph": True},
    "ddp_compress=bf16": {"compress": True},
    "find_unused_parameters": {"find_unused_parameters": True},
}


def network_of(name: str) -> nn.Module:
    node = yaml.safe_load(Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8"))
    network = build({**node, "classes": 19}, path="network")
    assert isinstance(network, nn.Module)
    return network


def total(output: Any) -> Tensor:
    """The mean square of everything that a network answers."""
    return torch.stack([each.square().mean() for each in tensors(output)]).sum()


def wrapped(network: nn.Module, options: dict[str, Any]) -> DistributedDataParallel:
    compress = options.get("compress", False)
    model = DistributedDataParallel(
        network, **{key: value for key, value in options.items() if key != "compress"}
    )
    if compress:
        model.register_comm_hook(None, bf16_compress_hook)
    return model


def main() -> None:
    name, side, rounds = (*sys.argv[1:], *("pidnet_s", "128", "15")[len(sys.argv) - 1 :])[:3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network = network_of(name)
    models = {key: wrapped(copy.deepcopy(network), options) for key, options in OPTIONS.items()}
    torch.manual_seed(int(os.environ["RANK"]))
    image = torch.randn(2, 3, int(side), int(side))
    taken: dict[str, list[float]] = {key: [] for key in models}
    alone: list[float] = []
    for _ in range(int(rounds)):
        for key, model in models.items():
            model.zero_grad(set_to_none=not key.startswith("ddp_bucket_view"))
            dist.barrier()
            start = time.perf_counter()
            total(model(image)).backward()
            taken[key].append(time.perf_counter() - start)
        network.zero_grad()
        start = time.perf_counter()
        total(network(image)).backward()
        alone.append(time.perf_counter() - start)
    report(network, models, taken, alone)
    dist.destroy_process_group()


def report(
    network: nn.Module,
    models: dict[str, DistributedDataParallel],
    taken: dict[str, list[float]],
    alone: list[float],
) -> None:
    """The table, by the first process."""
    if dist.get_rank():
        return
    first = {key: value.grad for key, value in models["default"].named_parameters() if value.grad is not None}
    largest = max(float(each.abs().max()) for each in first.values())
    base = min(taken["default"])
    print(
        f"{sum(p.numel() for p in network.parameters()):,} parameters, {1000 * base:.0f} ms a step by default"
    )
    print("| option | time, ratio | gradient apart |\n|---|---|---|")
    for key, model in models.items():
        own = dict(model.named_parameters())
        apart = max(float((own[name].grad - each).abs().max()) for name, each in first.items())  # type: ignore[operator]
        print(f"| `{key}` | {min(taken[key]) / base:.2f} | {apart / largest:.0e} |")
    print(f"| without DDP | {min(alone) / base:.2f} | |")


if __name__ == "__main__":
    main()
