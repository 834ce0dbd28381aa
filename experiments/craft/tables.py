"""Each option of docs/craft.md against the plain recipe, at equal budget, on CIFAR-10 and CamVid: small, honest tables.

    DVSN_DATA=... nice -n 15 python experiments/craft/tables.py [minutes]

A training each in this process, the rows in turns by seed, so that what is done after `minutes` is fair. Scores are those
after the last epoch. Finished rows are kept in scores.json beside this file, and are not run again; tables.md is written
after each.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import dvsn
from dvsn.atomic import write_json

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
QUIET = (
    "callbacks=none", "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false", "data.workers=0",
    "checkpoint.every_n_epochs=1000000",
)  # fmt: skip
CIFAR = (
    "task=classification", "data=cifar10", "network=resnet8", "transform=cifar", "data.train_samples=1000",
    "data.batch_size=64", "data.eval_batch_size=250", "optim.lr=0.1", "trainer.max_epochs=10",
    "trainer.check_val_every_n_epoch=10", "trainer.limit_val_batches=4", *QUIET,
)  # fmt: skip
CAMVID = (
    "task=segmentation", "data=camvid", "network=pidnet_s", "network.width=16", "network.pyramid_width=48",
    "network.head_width=64", "transform=segmentation_small", "transform.low=0.2", "data.splits.train=\"train[:25%]\"",
    "transform.high=0.45", "transform.crop_height=96", "transform.crop_width=128", "data.batch_size=8", "optim.lr=0.02",
    "trainer.max_epochs=6", "trainer.check_val_every_n_epoch=6", "task.inference.resize=[96,128]", *QUIET,
)  # fmt: skip
UNLABELLED = Path(os.environ.get("DVSN_DATA", "data"), "camvid", "train").as_posix()
HALF = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=3")  # epochs of twice as many samples
TABLES = {
    "CIFAR-10": (
        CIFAR,
        {
            "plain": (),
            "sampler=hard": ("sampler=hard",),
            "mix=mixup": ("mix=mixup",),
            "mix=cutmix": ("mix=cutmix",),
            "swa=6": ("swa=6",),
            "ema=0.98": ("ema=0.98",),
            "teacher=ema data.strong=1.0": ("teacher=ema", "ema=0.98", "distill=kd", "data.strong=1.0"),
        },
    ),
    "CamVid": (
        CAMVID,
        {
            "plain": (),
            "sampler=repeat_factor": (
                "sampler=repeat_factor",
                "sampler.threshold=0.3",
                "sampler.samples=91",
            ),
            "mix=mosaic": ("mix=mosaic", "mix.p=0.3"),
            "mix=copy_paste": ("mix=copy_paste",),
            "loss=tversky": ("loss=tversky", "network.heads=false"),
            "ema=0.98": ("ema=0.98",),
            "loss=ohem": ("loss=ohem", "network.heads=false"),
            "loss=ohem, unlabelled": (
                "loss=ohem",
                "network.heads=false",
                "teacher=ema",
                "ema=0.98",
                "distill=pixel_kd",
                "data.strong=1.0",
                f"data.more=[{{root: '{UNLABELLED}', unlabelled: true, ratio: 1}}]",
                *HALF,
            ),
        },
    ),
}
ABOUT = {
    "CIFAR-10": (
        "resnet8, the first 1,000 training pictures, 10 epochs of batches of 64, SGD at 0.1, cosine. Top-1 on the first\n"
        "1,000 pictures of the test split, in percent."
    ),
    "CamVid": (
        "PIDNet-S at half its width, the first quarter of the training pictures (91), 6 epochs of batches of 8, SGD at\n"
        "0.02, random crops at about a quarter of the pictures' size. mIoU on val at 96 x 128, in percent. The last row\n"
        "takes all training pictures without their labels beside these, half of a batch on average, for half as many\n"
        "epochs, which are as many steps; it is to be compared with loss=ohem."
    ),
}


def score(base: tuple[str, ...], more: tuple[str, ...], seed: int) -> tuple[float, float]:
    """The score of a run in percent, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = dvsn.train(*base, *more, f"seed={seed}", f"hydra.run.dir={folder}/run")
        assert run.result["last"] is not None
        return 100 * float(run.result["last"]), time.process_time() - began


def page(scores: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    lines = [
        "# The craft of training, measured small",
        "",
        "    nice -n 15 python experiments/craft/tables.py",
        "",
        "Each option against the plain recipe at equal budget: the same samples, steps and schedule. 2026-11-30, AMD",
        f"EPYC, two cores shared with other work, one thread, Python {sys.version.split()[0]}, torch {torch.__version__},",
        "float32. The last epoch counts; nothing was tuned for a row. So short trainings say what an option does to their",
        "start, not to a whole one: mixes and averages are made for runs that fit their data, which these do not.",
    ]
    for name, rows in scores.items():
        plain = rows.get("plain", {})
        lines += ["", f"## {name}", "", ABOUT[name], ""]
        lines += [
            "| option | seeds | score | deviation | gain, by seed | CPU s a run |",
            "|---|--:|--:|--:|---|--:|",
        ]
        for option, seeds in rows.items():
            values = [each[0] for each in seeds.values()]
            gains = [f"{each[0] - plain[seed][0]:+.1f}" for seed, each in seeds.items() if seed in plain]
            spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
            cost = statistics.mean(each[1] for each in seeds.values())
            told = "-" if option == "plain" else ", ".join(gains)
            lines.append(
                f"| {option} | {len(values)} | {statistics.mean(values):.1f} | {spread} | {told} | {cost:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    most = 60 * float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")
    file, began = HERE / "scores.json", time.monotonic()
    scores = json.loads(file.read_text()) if file.is_file() else {}
    for seed in SEEDS:
        for name, (base, rows) in TABLES.items():
            for option, more in rows.items():
                done = scores.setdefault(name, {}).setdefault(option, {})
                if str(seed) in done:
                    continue
                if time.monotonic() - began > most:
                    return
                done[str(seed)] = score(base, more, seed)
                write_json(file, scores)
                (HERE / "tables.md").write_text(page(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
