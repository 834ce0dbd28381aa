"""Gradient checkpointing measured: memory and time of a training step, plain and with stages that are run again.

    nice -n 15 python experiments/craft/memory.py > experiments/craft/memory.md

Every number is of a process of its own: the peak of its resident memory over that before its first step, and the mean of
two steps after the first. The two forms take turns, so that both see the same machine.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "pidnet_s": ("['layer[123].?', 'layer[45]', 'layer[345]_', 'layer[345]_d']", (2, 256, 320)),
    "hrnetv2_w18": ("[layer1, 'stage[234].?']", (1, 256, 320)),
    "resnet32x4": ("['layer[123].?']", (32, 32, 32)),
}
"""Of each network the stages, and the batch: its size, height and width."""


def step(name: str, patterns: str) -> dict[str, float]:
    """Peak memory in MiB above that of the network alone, and seconds a step, in this process."""
    import torch
    import yaml

    from dvsn.config.build import build
    from dvsn.config.menu import conf_dir
    from dvsn.networks.recompute import recompute

    torch.set_num_threads(1)
    text = Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text.replace("${data.classes}", "11"))
    torch.manual_seed(0)
    network = build(node, path="network").train()
    if patterns:
        recompute(network, yaml.safe_load(patterns))
    count, height, width = CASES[name][1]
    image, times = torch.randn(count, 3, height, width), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        began = time.perf_counter()
        output = network(image)
        main = output if isinstance(output, torch.Tensor) else output[0]
        main.float().pow(2).mean().backward()
        network.zero_grad()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (peak - before) / 1024, "seconds": statistics.mean(times[1:])}


def main() -> None:
    lines = [
        "# Gradient checkpointing: memory and time",
        "",
        "`nice -n 15 python experiments/craft/memory.py > experiments/craft/memory.md`, AMD EPYC, two cores shared with",
        "other work, one thread, float32, 2026-11-30. Memory is the peak of the process in training steps above that before",
        "the first, a process each; time is that of the two steps after the first, the mean of two turns. The machine was",
        "busy: ratios of times are rough.",
        "",
        "| network, batch | stages that are run again | memory, plain | with it | time, plain | with it |",
        "|---|---|---|---|---|---|",
    ]
    for name, (patterns, size) in CASES.items():
        found: dict[str, list[dict[str, float]]] = {"": [], patterns: []}
        for form in ("", patterns, patterns, ""):
            answer = subprocess.run(
                [sys.executable, __file__, name, form], capture_output=True, text=True, check=True
            )
            found[form].append(json.loads(answer.stdout))
        plain, spared = (
            {key: statistics.mean(each[key] for each in found[form]) for key in ("mib", "seconds")}
            for form in found
        )
        lines.append(
            f"| {name}, {size[0]} of {size[1]} x {size[2]} | `{patterns}` | {plain['mib']:.0f} MiB | {spared['mib']:.0f} MiB "
            f"({spared['mib'] / plain['mib']:.2f}) | {plain['seconds']:.2f} s | {spared['seconds']:.2f} s "
            f"({spared['seconds'] / plain['seconds']:.2f}) |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(step(sys.argv[1], sys.argv[2])))
    else:
        main()
