"""What PIDNet's objective costs, and OHEM with and without a full sort.

    OMP_NUM_THREADS=1 python experiments/speed/ohem.py > experiments/speed/ohem.md

Processor time on a CPU, one thread; on a GPU (`device=cuda`) time between synchronisations. The alternatives take
turns; the median of the rounds is shown. Lasts two minutes of one slow core. `batch=`, `height=`, `width=`,
`classes=`, `rounds=` can be given.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.data.boundary import boundary_map
from dvsn.losses.cross_entropy import OhemCrossEntropy
from dvsn.losses.segmentation import Scores
from dvsn.types import IGNORE, SegmentationOutput

SETTINGS = {"device": "cpu", "batch": "12", "height": "360", "width": "480", "classes": "11", "rounds": "5"}


def sorted_ohem(logits: Tensor, target: Tensor, threshold: float, min_kept: int) -> Tensor:
    """The published order of operations: softmax beside the cross entropy, and a sort of all valid pixels."""
    losses = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none").flatten()
    valid = (target != IGNORE).flatten()
    probability = (
        logits.softmax(dim=1).gather(1, target.clamp(max=logits.shape[1] - 1).unsqueeze(1)).flatten()
    )
    ranked, order = probability[valid].sort()
    limit = torch.clamp(ranked[min(min_kept, ranked.numel() - 1)], min=threshold)
    return losses[valid][order][ranked < limit].mean()


def scene(batch: int, height: int, width: int, classes: int) -> Tensor:
    """Label maps (N, H, W) of blobs with an ignored strip."""
    random = np.random.default_rng(0)
    small = random.integers(0, classes, (batch, height // 24, width // 24), dtype=np.uint8)
    maps = [cv2.resize(each, (width, height), interpolation=cv2.INTER_NEAREST) for each in small]
    target = torch.from_numpy(np.stack(maps))
    target[:, -height // 20 :] = IGNORE
    return target


def logits_of(target: Tensor, classes: int, *, skill: float, channels: int | None = None) -> Tensor:
    """Logits (N, K, H/8, W/8) that favour the true class by `skill`."""
    rows = target[:, ::8, ::8].long()
    truth = F.one_hot(rows.clamp(max=classes - 1), classes).movedim(-1, 1).float()
    return (skill * truth + torch.randn(truth.shape))[:, :channels].contiguous()


def measure(variants: dict[str, Callable[[], object]], rounds: int, cuda: bool) -> dict[str, float]:
    """Milliseconds of each, the median over rounds; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter() if cuda else time.process_time()
            run()
            if cuda:
                torch.cuda.synchronize()
            times[name].append(1e3 * ((time.perf_counter() if cuda else time.process_time()) - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def table(title: str, found: dict[str, float], unit: float) -> list[str]:
    rows = [f"| {name} | {value:.1f} | {value / unit:.2f} |" for name, value in found.items()]
    return [f"| {title} | ms | of the published order |", "|---|---|---|", *rows, ""]


def main() -> None:
    settings = SETTINGS | dict(argument.split("=") for argument in sys.argv[1:])
    batch, height, width, classes, rounds = (
        int(settings[key]) for key in ("batch", "height", "width", "classes", "rounds")
    )
    cuda = settings["device"] == "cuda"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels = scene(batch, height, width, classes)
    target = labels.to(settings["device"])
    long = target.long()
    lines = ["# What PIDNet's objective costs", ""]
    lines += [f"`python experiments/speed/ohem.py {' '.join(sys.argv[1:])}`".replace(" `", "`")]
    lines[-1] += f", {datetime.date.today()}"
    machine = (
        torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, one thread, processor time"
    )
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    lines += ["", f"{machine}; {load}; torch {torch.__version__}, float32.", ""]
    lines += [f"Labels {batch} x {height} x {width}, {classes} classes, logits at 1/8.", ""]

    for skill, state in ((1.0, "an untrained network"), (9.0, "a trained one")):
        logits = logits_of(labels, classes, skill=skill).to(target.device)
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=True)
        full.requires_grad_()
        term = OhemCrossEntropy()
        hard = OhemCrossEntropy(threshold=0.01)

        def ours(term: OhemCrossEntropy = term, full: Tensor = full) -> Tensor:
            return term(Scores(full, long), long)

        def alone(full: Tensor = full) -> Tensor:
            return F.cross_entropy(full, long, ignore_index=IGNORE)

        with torch.no_grad():
            found, wanted = float(ours()), float(sorted_ohem(full, long, 0.9, 131072))
            share = float(
                (full.softmax(1).gather(1, long.clamp(max=classes - 1)[:, None]) < 0.9).float().mean()
            )
            times = measure(
                {
                    "cross entropy alone": alone,
                    "OHEM as published, with a sort": lambda full=full: sorted_ohem(full, long, 0.9, 131072),
                    "OHEM, dvsn": ours,
                    "OHEM, dvsn, if the order statistic is needed": lambda hard=hard: ours(hard),
                },
                rounds,
                cuda,
            )
        lines += [f"## {state.capitalize()}: {share:.0%} of the pixels below the threshold", ""]
        lines += [f"Values: sorted {wanted:.6f}, dvsn {found:.6f}.", ""]
        lines += table("forward", times, times["OHEM as published, with a sort"])

    node = yaml.safe_load(Path(conf_dir(), "loss", "pidnet.yaml").read_text(encoding="utf-8"))
    node["terms"]["boundary"]["frame"] = 0
    objective = build(node | {"classes": classes, "class_weights": None}, path="loss").to(target.device)
    objective.align_corners = True
    outlines = torch.stack([torch.from_numpy(boundary_map(ids)) for ids in labels.numpy()]).to(target.device)
    heads = [logits_of(labels, classes, skill=3.0).to(target.device).requires_grad_() for _ in range(2)]
    edge = torch.randn(batch, 1, *heads[0].shape[-2:], device=target.device).requires_grad_()
    output = SegmentationOutput(heads[0], (heads[1],), edge)

    def resize() -> None:
        for head in (*heads, edge):
            F.interpolate(head, size=(height, width), mode="bilinear", align_corners=True)

    def forward() -> Tensor:
        return torch.stack(list(objective(output, target, outlines).values())).sum()

    def naive() -> Tensor:
        """The published order: each term works its cross entropy out anew, and OHEM sorts."""
        main, auxiliary, boundary = (
            F.interpolate(head, size=(height, width), mode="bilinear", align_corners=True)
            for head in (*heads, edge)
        )
        l0 = F.cross_entropy(auxiliary, long, ignore_index=IGNORE, reduction="none").mean()
        positive = outlines.unsqueeze(1) == 1
        share = positive.float().mean()
        weight = torch.where(positive, 1 - share, share)
        l1 = F.binary_cross_entropy_with_logits(boundary, positive.float(), weight)
        masked = torch.where(boundary[:, 0].sigmoid() > 0.8, long, IGNORE)
        l2 = sorted_ohem(main, long, 0.9, 131072)
        return 0.4 * l0 + 20 * l1 + l2 + sorted_ohem(main, masked, 0.9, 131072)

    times = measure(
        {
            "outlines of the labels (in the data workers)": lambda: [boundary_map(i) for i in labels.numpy()],
            "resizing the three heads": resize,
            "the objective, forward": forward,
            "the objective, forward and backward": lambda: forward().backward(),
            "the published order, forward and backward": lambda: naive().backward(),
        },
        rounds,
        cuda,
    )
    lines += ["## The whole objective", "", f"Values: published order {naive().item():.5f}, "]
    lines[-1] += f"dvsn {forward().item():.5f}."
    lines += ["", *table("PIDNet's objective", times, times["the published order, forward and backward"])]
    sys.stdout.write("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
