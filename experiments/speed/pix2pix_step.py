"""A training step of the paper's pix2pix: dvsn's, the reference's and the document's order, and the levers.

    python experiments/speed/pix2pix_step.py > experiments/speed/pix2pix_step.md

dvsn's step is the one that `python -m dvsn.train` makes, timed inside its training loop. Between its steps the
other variants each make one step on the same batch. They are written here from the fact sheet alone, networks
included, and start from the same weights; their first losses must be dvsn's. Processor time, one thread.

Batch 1 takes three rounds after one to warm up, batch 16 two. Lasts eight minutes or more of one slow core.
Width, rounds and more can be given, for a quick look: `pix2pix_step.py width=8 rounds=2 rounds16=1`.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # so that its processor time is this process's own

import ctypes
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.engine import trainer as runtime
from dvsn.engine.console import quiet
from dvsn.engine.devices import cpu_has_bf16
from dvsn.engine.run_folder import environment
from dvsn.tasks.pix2pix import Pix2Pix

SETTINGS = {"width": 64, "rounds": 3, "rounds16": 2, "compile": 1, "bf16": 1}
Batch = tuple[Tensor, Tensor]
OURS, REFERENCE, DOCUMENT = "**dvsn**", "the reference's order", "the document's order"


class Level(nn.Module):
    """One level of the reference's U-Net: down, the levels inside, up; and the skip around them.

    Activations are in place: the LeakyReLU overwrites the skip, which the ReLU after the concatenation
    makes good.
    """

    def __init__(self, outer: int, inner: int, inside: nn.Module | None, *, inputs: int | None = None,
                 dropout: bool = False, outermost: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.outermost = outermost
        down: list[nn.Module] = [] if outermost else [nn.LeakyReLU(0.2, True)]
        down.append(nn.Conv2d(inputs or outer, inner, 4, 2, 1, bias=False))
        up: list[nn.Module] = [nn.ReLU(True)]
        up.append(nn.ConvTranspose2d(inner * (2 if inside else 1), outer, 4, 2, 1, bias=outermost))
        if outermost:
            up.append(nn.Tanh())
        else:
            up.append(nn.BatchNorm2d(outer))
            if inside is not None:
                down.append(nn.BatchNorm2d(inner))
        if dropout:
            up.append(nn.Dropout(0.5))
        self.body = nn.Sequential(*down, *([inside] if inside else []), *up)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if self.outermost else torch.cat([x, self.body(x)], 1)


def reference_generator(width: int) -> nn.Module:
    """`unet_256`: eight levels, dropout in the three that follow the innermost."""
    level = Level(8 * width, 8 * width, None)
    for _ in range(3):
        level = Level(8 * width, 8 * width, level, dropout=True)
    for factor in (4, 2, 1):
        level = Level(factor * width, 2 * factor * width, level)
    return Level(3, width, level, inputs=3, outermost=True)


def reference_discriminator(width: int) -> nn.Module:
    """The 70x70 PatchGAN."""
    layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers.append(nn.Conv2d(inputs * width, outputs * width, 4, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(outputs * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class Rivals:
    """Hand-written steps over one pair of networks; what a step does is a matter of its options."""

    def __init__(self, task: Pix2Pix, *, width: int, wide: bool = False) -> None:
        self.generator = reference_generator(width)
        self.discriminator = reference_discriminator(width)
        for mine, its in ((self.generator, task.network), (self.discriminator, task.discriminator)):
            assert its is not None
            for parameter, value in zip(mine.parameters(), its.parameters(), strict=True):
                parameter.data.copy_(value)  # the same order of layers in both
        self.format = torch.channels_last if wide else torch.contiguous_format
        for mine in (self.generator, self.discriminator):
            mine.to(memory_format=self.format)  # type: ignore[call-overload]
        self.adams = {False: self._adams(), True: self._adams(fused=True)}
        self.losses: list[float] = []
        self.compiled: tuple[Any, Any] | None = None

    def _adams(self, **options: Any) -> tuple[Adam, Adam]:
        return (
            Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999), **options),
            Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999), **options),
        )

    def clear(self) -> None:
        for network in (self.generator, self.discriminator):
            network.zero_grad()

    def step(self, batch: Batch, *, forwards: int = 1, frozen: bool = True, fused: bool = False,
             bf16: bool = False, compiled: bool = False, in_place: bool = True) -> None:  # fmt: skip
        """The reference: D on the fake, then on the real, halved; then G against D without D's gradients."""
        condition, target = (tensor.contiguous(memory_format=self.format) for tensor in batch)
        generator, discriminator = self.networks(compiled)
        for module in (*self.generator.modules(), *self.discriminator.modules()):
            if isinstance(module, nn.ReLU | nn.LeakyReLU):
                module.inplace = in_place
        adam_g, adam_d = self.adams[fused]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            fake = generator(condition)
            for parameter in self.discriminator.parameters():
                parameter.requires_grad_(True)
            adam_d.zero_grad()
            score = discriminator(torch.cat([condition, fake.detach()], 1))
            loss_fake = F.binary_cross_entropy_with_logits(score, torch.zeros_like(score))
            score = discriminator(torch.cat([condition, target], 1))
            loss_real = F.binary_cross_entropy_with_logits(score, torch.ones_like(score))
        ((loss_fake + loss_real) * 0.5).backward()
        adam_d.step()
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(not frozen)
        adam_g.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if forwards == 2:
                fake = generator(condition)
            score = discriminator(torch.cat([condition, fake], 1))
            loss_gan = F.binary_cross_entropy_with_logits(score, torch.ones_like(score))
            loss_l1 = F.l1_loss(fake, target) * 100
        (loss_gan + loss_l1).backward()
        adam_g.step()
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(True)
        self.losses = [loss_fake.item() / 2, loss_real.item() / 2, loss_gan.item(), loss_l1.item()]

    def document(self, batch: Batch) -> None:
        """The document: real and fake backward one after the other, not halved; a second fake for G; sigmoids."""
        condition, target = batch
        adam_g, adam_d = self.adams[False]
        judge = nn.Sequential(self.discriminator, nn.Sigmoid())
        score = judge(torch.cat([target, condition], 1))
        F.binary_cross_entropy(score, torch.ones_like(score)).backward()
        fake = self.generator(condition).detach()
        score = judge(torch.cat([fake, condition], 1))
        F.binary_cross_entropy(score, torch.zeros_like(score)).backward()
        adam_d.step()
        adam_d.zero_grad()
        fake = self.generator(condition)
        score = judge(torch.cat([fake, condition], 1))
        loss = F.binary_cross_entropy(score, torch.ones_like(score))
        (100 * F.l1_loss(fake, target) + loss).backward()
        adam_g.step()
        adam_g.zero_grad()

    def networks(self, compiled: bool) -> tuple[Any, Any]:
        if not compiled:
            return self.generator, self.discriminator
        if self.compiled is None:
            self.compiled = torch.compile(self.generator), torch.compile(self.discriminator)
        return self.compiled


class Memory:
    """The peak of the resident memory above where the step began, where Linux tells it. In MiB."""

    def __init__(self) -> None:
        self.works = Path("/proc/self/clear_refs").exists()
        self.start = 0.0

    def _read(self, key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    def begin(self) -> None:
        if self.works:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            self.start = self._read("VmRSS")

    def peak(self) -> float:
        return self._read("VmHWM") - self.start if self.works else float("nan")


class Race(pl.Callback):
    """After each step of dvsn, one step of every rival on the same batch."""

    def __init__(self, variants: dict[str, Callable[[int, Batch], bool]]) -> None:
        self.variants, self.memory = variants, Memory()
        self.times: dict[tuple[int, str], list[float]] = {}
        self.peaks: dict[tuple[int, str], list[float]] = {}
        self.first: list[dict[str, float]] = []

    def begin(self) -> None:
        self.memory.begin()
        self.started = time.process_time()

    def end(self, size: int, name: str) -> None:
        spent = time.process_time() - self.started
        self.times.setdefault((size, name), []).append(spent)
        self.peaks.setdefault((size, name), []).append(self.memory.peak())

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        size = len(batch["image"])
        self.end(size, OURS)
        if batch_idx == 0:
            self.ours = [float(pl_module.latest[f"train/{name}"]) for name in
                         ("discriminator_fake", "discriminator_real", "gan", "l1")]  # fmt: skip
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()
        floats = tuple(batch[key].float() / 127.5 - 1 for key in ("image", "target"))
        for name, call in self.variants.items():
            torch.manual_seed(batch_idx)
            self.begin()
            if call(batch_idx, floats):  # type: ignore[arg-type]
                self.end(size, name)


def batches(rounds: int, rounds16: int) -> Iterator[dict[str, Any]]:
    """Random pictures: a step's time does not depend on them. The first is for warming up."""
    generator = torch.Generator().manual_seed(0)
    for size in [1] * (1 + rounds) + [16] * rounds16:
        picture = [
            torch.randint(256, (size, 3, 256, 256), dtype=torch.uint8, generator=generator) for _ in "ab"
        ]
        yield {
            "image": picture[0],
            "target": picture[1],
            "index": list(range(size)),
            "name": ["random"] * size,
        }


def compare(settings: dict[str, int]) -> tuple[Race, list[float], float]:
    """The race; the first losses of the reference's order; what torch.compile took."""
    compiling, first = 0.0, [float("nan")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        width = settings["width"]
        overrides = ["task=pix2pix", "data=folders", f"data.root={folder}", "trainer=cpu", "trainer.max_epochs=1",
                     "trainer.enable_progress_bar=false", "logger=none", "callbacks=none", "name=speed",
                     f"network.width={width}", f"discriminator.width={width}", f"run_dir={folder}",
                     "network.dropout=0.5"]  # fmt: skip
        with initialized(conf_dir()):
            config: Any = OmegaConf.to_container(compose("train", overrides=overrides), resolve=True)
        task = runtime.make_task(config)
        assert isinstance(task, Pix2Pix)
        trainer = runtime.build_trainer(config, task, fitting=False)

        plain = Rivals(task, width=width)
        wide = Rivals(task, width=width, wide=True)
        last_of_one, end = settings["rounds"], settings["rounds"] + settings["rounds16"]

        def always(call: Callable[[Batch], None], mine: Rivals) -> Callable[[int, Batch], bool]:
            def run(number: int, batch: Batch) -> bool:
                call(batch)
                mine.clear()
                return True

            return run

        def only(
            rounds: set[int], call: Callable[[Batch], None], mine: Rivals
        ) -> Callable[[int, Batch], bool]:
            def run(number: int, batch: Batch) -> bool:
                return number in rounds and always(call, mine)(number, batch)

            return run

        def reference(batch: Batch) -> None:
            nonlocal first
            plain.step(batch)
            first = plain.losses if len(first) == 1 else first

        def compiled(batch: Batch) -> None:
            nonlocal compiling
            start = time.process_time()
            plain.step(batch, compiled=True)
            compiling = compiling or time.process_time() - start

        single = set(range(last_of_one + 1))
        variants = {
            REFERENCE: always(reference, plain),
            DOCUMENT: only(single | {end}, plain.document, plain),
            "two generator forwards": only(single, lambda b: plain.step(b, forwards=2), plain),
            "D not frozen in G's step": only(single, lambda b: plain.step(b, frozen=False), plain),
            "activations not in place": always(lambda b: plain.step(b, in_place=False), plain),
            "fused Adam": only(single, lambda b: plain.step(b, fused=True), plain),
            "channels_last": only(single | {end}, wide.step, wide),
        }
        if settings["bf16"]:
            variants["bf16 autocast"] = only({last_of_one}, lambda b: plain.step(b, bf16=True), plain)
        if settings["compile"]:
            late = {last_of_one - 2, last_of_one - 1, last_of_one}
            variants["torch.compile"] = only(late, compiled, plain)
        race = Race(variants)
        trainer.callbacks.append(race)  # type: ignore[attr-defined]
        rounds = list(batches(settings["rounds"], settings["rounds16"]))
        trainer.fit(task, train_dataloaders=DataLoader(rounds, batch_size=None))  # type: ignore[arg-type]
    return race, first, compiling


def table(race: Race, size: int, warm: dict[str, int]) -> None:
    print("| step | rounds | s | time / reference's order | in the rounds | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    base = race.times[size, REFERENCE]
    for name in (OURS, *race.variants):
        times = race.times.get((size, name), [])
        if len(times) <= warm.get(name, warm[""]):
            continue
        times = times[warm.get(name, warm[""]) :]
        ratios = [mine / its for mine, its in zip(times, base[-len(times) :], strict=True)]
        peak = max(race.peaks[size, name][-len(times) :])
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"| {name} | {len(times)} | {statistics.median(times):.2f} | {statistics.median(ratios):.3f} | "
            f"{spread} | {peak:.0f} |"
        )


def main() -> None:
    torch.set_num_threads(1)
    quiet()
    settings = {**SETTINGS, **{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}}
    race, first, compiling = compare(settings)
    facts = environment()
    versions = facts["versions"]
    print("# A training step of the paper's pix2pix\n")
    print(f"`{' '.join(['python', 'experiments/speed/pix2pix_step.py', *sys.argv[1:]])}`, ", end="")
    print(datetime.date.today().isoformat())
    units = "with" if cpu_has_bf16() else "without"
    print(
        f"\n{facts['processor']}, shared with other jobs, {units} bf16 units; Python {facts['python']}, ",
        end="",
    )
    print(f"torch {versions['torch']}, Lightning {versions['pytorch-lightning']}.")
    print(
        "One thread, processor time, float32. The variants take turns on the same batch; each ratio is that of one"
    )
    print(
        "round, and the median of the rounds is shown. Peak memory: resident, above weights and Adam's state.\n"
    )
    print(f"unet_256 and the 70x70 PatchGAN, width {settings['width']}, 256x256, dropout 0.5, Adam.")
    if max(abs(a - b) / abs(b) for a, b in zip(race.ours[:2], first[:2], strict=True)) > 0.05:
        raise SystemExit(f"dvsn and the reference's order differ: {race.ours}, {first}")
    shown = "; ".join(", ".join(f"{value:.4f}" for value in row) for row in (race.ours, first))
    print(f"First losses (D fake, D real, GAN, L1), dvsn's and the reference's: {shown}.")
    for size in (1, 16):
        if (size, OURS) in race.times:
            print(f"\n## Batch {size}\n")
            table(race, size, {"": 1, "bf16 autocast": 0, "torch.compile": 1} if size == 1 else {"": 0})
    print(
        "\nRows from the fourth on change one thing in the reference's order, which has one generator forward, D"
    )
    print("frozen in G's step and activations in place. dvsn's memory includes the float copies of the batch")
    print("(1.5 MiB a pair), which the others are given.")
    if settings["compile"]:
        print(f"torch.compile: the first step, which compiles, took {compiling:.0f} s and is left out.")
    if not cpu_has_bf16():
        print("bf16 is emulated on this processor and so only shows what to avoid; one round.")
    print(f"\n{time.process_time():.0f} s of processor time in all.")


if __name__ == "__main__":
    main()
