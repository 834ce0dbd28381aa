"""What the framework costs a training step: the whole dvsn loop against a bare PyTorch loop.

    python experiments/speed/train_loop.py > experiments/speed/train_loop.md

The framework trains as `python -m dvsn.train` does (`runtime.build_trainer`, the default callbacks, the CSV
logger, stateless random numbers, schedules, checkpoint at the end). After each of its steps one step of the
bare loop runs on a copy of the networks, with the same loader, batches, losses, optimisers and precision,
so that neighbouring measurements see the same noise of a shared machine. At the end both must hold the same
weights, bit for bit. Processor time, one thread. About five minutes of a slow core.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import contextlib
import copy
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose
from omegaconf import OmegaConf

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.module import DataModule
from dvsn.engine import progress
from dvsn.engine import trainer as runtime
from dvsn.engine.callbacks import Rates, StatelessRandom
from dvsn.engine.console import quiet
from dvsn.engine.loggers import CsvLogger
from dvsn.engine.run_folder import environment
from dvsn.engine.screens import Terminal
from dvsn.seeding import seed_everything
from dvsn.tasks.pix2pix import Pix2Pix, frozen, picture_to_range, total
from dvsn.types import Batch

Timing = list[tuple[float, float]]
COMMON = ["task=pix2pix", "data=folders", "data.workers=0", "transform=none", "trainer=cpu",
          "trainer.max_epochs=1", "trainer.limit_val_batches=0", "trainer.enable_progress_bar=false"]  # fmt: skip
SIZES: dict[str, tuple[list[str], tuple[int, int], int, int]] = {  # options, sides, batch, steps
    "tiny: width 4, depth 3, 16x16, batch 1": (
        ["network.depth=3", "network.width=4", "discriminator=n_layers", "discriminator.layers=1", "discriminator.width=4"],
        (16, 16), 1, 121),
    "small: width 16, depth 7, 128x256, batch 4": (
        ["network.depth=7", "network.width=16", "discriminator.width=16"], (128, 256), 4, 41),
    "the paper's: width 64, depth 8, 256x256, batch 1": ([], (256, 256), 1, 25),
}  # fmt: skip


def write_pairs(root: Path, *, count: int, sides: tuple[int, int]) -> None:
    """Two folders of equal names in three splits; only the training split is read."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 1), ("test", 1)):
        for folder in ("a", "b"):
            (root / split / folder).mkdir(parents=True)
            for index in range(number):
                picture = cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), sides[::-1])
                cv2.imwrite(str(root / split / folder / f"{index:04d}.png"), picture)


def bare_loop(task: Pix2Pix, batches: Iterator[Batch]) -> Iterator[None]:
    """What somebody would write by hand for the same updates: nothing is logged, saved or checked."""
    network, discriminator, loss = task.network, task.discriminator, task.loss
    assert discriminator is not None
    optimizer_d = task.optim_discriminator(discriminator.parameters())
    optimizer_g = task.optim(network.parameters())
    for batch in batches:
        condition = picture_to_range(batch["image"], "signed")
        target = picture_to_range(batch["target"], "signed")
        fake = network(condition)
        optimizer_d.zero_grad()
        fake_logits = discriminator(torch.cat([condition, fake.detach()], 1))
        real_logits = discriminator(torch.cat([condition, target], 1))
        total(loss.discriminator_terms(real_logits, fake_logits)).backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        with frozen(discriminator):
            logits = discriminator(torch.cat([condition, fake], 1))
            total(loss.generator_terms(logits, fake, target)).backward()
        optimizer_g.step()
        yield


class Rival(pl.Callback):
    """Times the framework from one end of a step to the next, and in between a step of the bare loop."""

    def __init__(self, seed: int) -> None:
        self.seed, self.pairs, self.resumed = seed, [], 0.0
        self.pairs: Timing

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.task = copy.deepcopy(pl_module.network), copy.deepcopy(pl_module.discriminator)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        network, discriminator = self.task
        self.bare = Pix2Pix(
            network=network, discriminator=discriminator, loss=pl_module.loss, optim=pl_module.optim
        )
        batches = iter(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        self.steps = bare_loop(self.bare, batches)  # an iterator already, because making one draws a number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.process_time()
        seed_everything(self.seed, rank=0, epoch=0, batch=batch_idx, stage=0)  # the same dropout masks
        start = time.process_time()
        next(self.steps)
        self.pairs.append((now - self.resumed, time.process_time() - start))
        self.resumed = time.process_time()

    def check(self, task: Pix2Pix) -> None:
        for ours, theirs in zip(task.parameters(), self.bare.parameters(), strict=True):
            if not torch.equal(ours, theirs):
                raise SystemExit("the two loops did not do the same updates")


def run(size: str, *, more: tuple[str, ...] = (), change: Callable[[pl.Trainer, Pix2Pix], None] | None = None,
        same: bool = True) -> Timing:  # fmt: skip
    """(dvsn, bare) seconds of each step but the first."""
    options, sides, batch, steps = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pairs(root / "data", count=batch * steps, sides=sides)
        overrides = [*COMMON, *options, f"data.root={root / 'data'}", f"data.batch_size={batch}", *more]
        with initialized(conf_dir()):
            composed = compose("train", overrides=["name=speed", f"run_dir={root / 'run'}", *overrides])
        config: Any = OmegaConf.to_container(composed, resolve=True)
        data: DataModule = runtime.build_data(config)
        task = runtime.make_task(config)
        trainer = runtime.build_trainer(config, task)
        rival = Rival(seed=int(config["seed"]))
        trainer.callbacks.insert(0, rival)  # type: ignore[attr-defined]
        assert isinstance(task, Pix2Pix)
        if change is not None:
            change(trainer, task)
        with Path(os.devnull).open("w") as nowhere, silenced(nowhere):
            trainer.fit(task, datamodule=data)
        if same:
            rival.check(task)
    return rival.pairs[1:]


@contextlib.contextmanager
def silenced(nowhere: TextIO) -> Iterator[None]:
    """The bar writes to both streams, and the report goes to standard output."""
    with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


def bar_each_step(trainer: pl.Trainer, _: Pix2Pix) -> None:
    """As on a terminal, and drawn after every step instead of three times a second."""
    progress.REFRESH = 0.0
    trainer.callbacks.append(progress.Bar(Terminal(sys.stderr)))  # type: ignore[attr-defined]


def without(*kinds: type) -> Callable[[pl.Trainer, Pix2Pix], None]:
    def change(trainer: pl.Trainer, _: Pix2Pix) -> None:
        trainer.callbacks[:] = [c for c in trainer.callbacks if not isinstance(c, kinds)]  # type: ignore[attr-defined]

    return change


def plain_schedules(_: pl.Trainer, task: Pix2Pix) -> None:
    task._step = lambda optimizer, number: optimizer.step()  # type: ignore[method-assign]


def least(trainer: pl.Trainer, task: Pix2Pix) -> None:
    without(StatelessRandom, Rates)(trainer, task)
    plain_schedules(trainer, task)
    task.record = lambda terms: None  # type: ignore[method-assign]


def row(name: str, pairs: Timing) -> str:
    ours, bare = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
    extra = statistics.median(a - b for a, b in pairs) * 1000
    mean = statistics.fmean(a - b for a, b in pairs) * 1000
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {name} | {len(pairs)} | {bare:.1f} | {ours:.1f} | {extra:+.2f} | {mean:+.2f} | "
        f"{middle:.3f} | {low:.3f} to {high:.3f} |"
    )


HEAD = (
    "| {} | steps | bare, ms | dvsn, ms | difference, ms | its mean, ms | ratio | middle half |\n"
    "|---|---|---|---|---|---|---|---|"
)


def csv_flush(rows: int) -> float:
    """Milliseconds of one write of 50 rows into a metrics file that has `rows` already."""
    with tempfile.TemporaryDirectory() as folder:
        logger = CsvLogger(folder=folder, flush_every=10**9)
        for step in range(rows + 50):
            if step == rows:
                logger.save()
            logger.log_metrics({f"train/term_{index}": step * 0.1 for index in range(9)}, step)
        start = time.process_time()
        logger.save()
        return (time.process_time() - start) * 1000


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    quiet()
    tiny, small, paper = SIZES
    facts = environment()
    versions = facts["versions"]
    print("# The training loop against a bare PyTorch loop\n")
    print("`python experiments/speed/train_loop.py`, " + datetime.date.today().isoformat())
    print(f"\n{facts['processor']}, shared with other jobs; Python {facts['python']}, ", end="")
    print(f"torch {versions['torch']}, Lightning {versions['pytorch-lightning']}.")
    print(
        "One thread, processor time, float32. The two loops take turns step by step; the ratio is the median over"
    )
    print(
        "the pairs of neighbouring steps. After every run of the first table both held the same weights, bit for"
    )
    print("bit.\n\n## Whole steps\n\n" + HEAD.format("run"))
    print(row(f"**{paper}**", run(paper)))
    print(row(f"**{small}**", run(small)))
    print(row("the same, line drawn each step", run(small, change=bar_each_step)))
    print(row(tiny, run(tiny)))
    print(row("the same, line drawn each step", run(tiny, change=bar_each_step)))
    print("""
The difference hardly depends on the size of the networks, so the tiny run shows it best, as milliseconds; its
ratio means nothing, for nobody trains such a network. Losses are logged every 10 steps and the rates every
50: the mean holds what the median leaves out. A terminal draws the bar three times a second, a file never.

## Where the difference comes from: the tiny run with parts switched
""")
    print(HEAD.format("run"))
    bare = ("logger=none", "callbacks=none")
    print(row("everything", run(tiny)))
    print(row("losses logged at every step", run(tiny, more=("trainer.log_every_n_steps=1",))))
    print(row("without stateless random numbers", run(tiny, change=without(StatelessRandom), same=False)))
    print(row("without schedules", run(tiny, change=plain_schedules)))
    print(row("without rates and CSV", run(tiny, more=bare)))
    print(row("Lightning: none of these, nor `record`", run(tiny, change=least, more=bare, same=False)))
    print("\n## Writing metrics.csv\n")
    print("The file is written every 50 logged rows, which is every 500 steps.\n")
    print("| rows before | one write, ms | ms a step |\n|---|---|---|")
    for rows in (300, 3000, 30000):
        spent = csv_flush(rows)
        print(f"| {rows} | {spent:.1f} | {spent / 500:.3f} |")
    print(f"\n{time.process_time():.0f} s of processor time in all.")


if __name__ == "__main__":
    main()
