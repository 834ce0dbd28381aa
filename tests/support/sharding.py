"""One rank of two with `trainer.strategy=fsdp`: a teacher of its own, whole and sharded, must answer alike.

Run by tests/engine/test_sharded.py as `sharding.py FOLDER`, with the variables that torchrun sets."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from dvsn.distill.taps import Taps
from dvsn.engine.sharded import own_bytes, shard
from dvsn.networks.pidnet import PIDNet


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    large = json.loads(os.environ.get("NETWORK", '{"width": 4, "pyramid_width": 4, "head_width": 8}'))
    network = PIDNet(classes=3, **large).eval().requires_grad_(False)
    whole, paths = copy.deepcopy(network), ("layer3", "layer4:in", "final_layer")
    size = int(os.environ.get("SIDE", "64"))
    image = torch.randn(1, 3, size, size)
    answers, held = [], []
    for each in (whole, network):
        if each is network:
            shard(each, init_device_mesh("cpu", (dist.get_world_size(),)))
        taps = Taps(each, paths)
        taps.install()
        with torch.no_grad(), taps:
            output = each(image)[0]
        answers.append({"": output, **taps.take()})
        held.append(own_bytes(each))
    apart = max(float((answers[0][key] - answers[1][key]).abs().max()) for key in answers[0])
    found = {"apart": apart, "bytes": held}
    Path(sys.argv[1], f"sharding_{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
