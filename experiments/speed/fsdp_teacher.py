"""What a teacher that is shared out over two processes (FSDP2, gloo) keeps in memory, and whether it answers alike.

    torchrun --nproc-per-node 2 experiments/speed/fsdp_teacher.py [NETWORK] [HEIGHT] [WIDTH]

Prints, of each process, the bytes of its parameters, the memory that it has resident, the time of a pass and the largest
difference of the answer and three taps from those of the whole network.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.distill.taps import Taps
from dvsn.engine.sharded import own_bytes, shard

MIB = 2**20


def resident() -> float:
    """MiB of this process in main memory, after what is free has been given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / MIB


def asked(network: nn.Module, image: Tensor) -> tuple[dict[str, Tensor], float]:
    """The answer and the taps of a pass, and its seconds: the shorter of two."""
    taps = Taps(network, network.taps)  # type: ignore[arg-type]
    taps.install()
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad(), taps:
            output = network(image)
        taken.append(time.perf_counter() - start)
    found = {"": output if isinstance(output, Tensor) else output[0], **taps.take()}
    taps.remove()
    return found, min(taken)


def main() -> None:
    name, height, width = (*sys.argv[1:], *("pidnet_l", "128", "256")[len(sys.argv) - 1 :])[:3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    node = yaml.safe_load(Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8"))
    empty = resident()
    torch.manual_seed(0)
    network: nn.Module = build({**node, "classes": 19}, path="network").eval().requires_grad_(False)
    image = torch.randn(1, 3, int(height), int(width))
    whole, seconds = asked(network, image)
    rows = [(own_bytes(network) / MIB, resident() - empty, seconds)]
    shard(network, init_device_mesh("cpu", (dist.get_world_size(),)))
    parts, seconds = asked(network, image)
    rows.append((own_bytes(network) / MIB, resident() - empty, seconds))
    apart = max(float((whole[key] - parts[key]).abs().max()) for key in whole)
    text = [
        f"{kept:.1f} MiB of parameters, {more:.0f} MiB resident, {1000 * took:.0f} ms"
        for kept, more, took in rows
    ]
    print(f"process {dist.get_rank()}: whole {text[0]}; shared out {text[1]}; apart {apart:.1e}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
