"""Gradient checkpointing measured: memory of a training step, plain and with stages that are run again.

    nice -n 15 python experiments/craft/memory.py > experiments/craft/memory.md

Every number is of a process of its own: the peak of its resident memory in two steps over that before them. A step with
small pictures comes first, which imports what is needed. The two forms take turns.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

CASES = {
    "pidnet_s": ("['layer[123].?', 'layer[45]', 'layer[345]_', 'layer[345]_d']", (4, 256, 320)),
    "hrnetv2_w18": ("[layer1, 'stage[234].?']", (2, 256, 320)),
}
"""Of each network the stages, and the batch: its size, height and width."""


def step(name: str, patterns: str) -> float:
    """Peak memory of training steps in MiB above that before them, in this process."""
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
    image = torch.randn(count, 3, height, width)
    output = network(torch.randn(2, 3, 64, 64))
    (output if isinstance(output, torch.Tensor) else output[0]).float().sum().backward()
    network.zero_grad()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        output = network(image)
        main = output if isinstance(output, torch.Tensor) else output[0]
        main.float().pow(2).mean().backward()
        network.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak - before) / 1024


def main() -> None:
    lines = [
        "# Gradient checkpointing: memory",
        "",
        "`nice -n 15 python experiments/craft/memory.py > experiments/craft/memory.md`, AMD EPYC, two cores shared with",
        "other work, one thread, float32, torch 2.15.0, 2026-11-30. The peak of the process in training steps above that",
        "before the first, a process each after a step with small pictures; the mean of two.",
        "",
        "| network, batch | stages that are run again | memory, plain | with it |",
        "|---|---|--:|--:|",
    ]
    for name, (patterns, size) in CASES.items():
        found: dict[str, list[float]] = {"": [], patterns: []}
        for form in ("", patterns, patterns, ""):
            answer = subprocess.run(
                [sys.executable, __file__, name, form], capture_output=True, text=True, check=True
            )
            found[form].append(json.loads(answer.stdout))
        plain, spared = (statistics.mean(found[form]) for form in found)
        lines.append(
            f"| {name}, {size[0]} of {size[1]} x {size[2]} | `{patterns}` | {plain:.0f} MiB | {spared:.0f} MiB "
            f"({spared / plain:.2f}) |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(step(sys.argv[1], sys.argv[2])))
    else:
        main()
