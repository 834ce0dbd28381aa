"""What it costs a training to be logged: PIDNet-S on CamVid, crops of 288x384, with everything on and with nothing on.

    DVSN_DATA=data python experiments/speed/logged_run.py rounds=4 > experiments/speed/logged_run.md

On: `callbacks=default` (pictures of each validation, rates, gradient norms, times) with `logger=tensorboard`, which is
metrics.csv and TensorBoard. Nothing: `callbacks=none logger=none`. Two measurements:

1. In turns: the second short epochs of runs of both, trained one after the other in one process, whose order is turned
   round every other round. Their ratio holds everything, and the noise of the machine.
2. Within the epochs that have everything on: the processor time spent inside of the callbacks, the loggers, and the
   scores by class. What is spent a step and what is spent an epoch are told apart, so that the share of a whole epoch of
   CamVid can be said: 367 pictures and a validation of 101.

The loader's clocks run in both; their cost is measured beside a loader without. `strip.png`, which a run writes once within
about a second where it has several epochs, is not in it. One thread. `rounds=`, `batches=`, `batch=`, `pictures=` and
`logger=` can be given.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import datetime
import functools
import logging
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import cv2
import torch
from hydra import compose
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.data.loading import Clocked, Loader
from dvsn.engine import trainer as runtime
from dvsn.engine.console import quiet
from dvsn.engine.run_folder import environment

SETTINGS = {"rounds": "4", "batches": "10", "batch": "8", "pictures": "24", "logger": "tensorboard"}
SHARED = [
    "experiment=pidnet_s_camvid_scratch", "trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
    "data.workers=0", "trainer.enable_progress_bar=false", "data.check_classes=skip",
]  # fmt: skip
TRAIN, VAL = 367, 101
GOAL = 0.01


class Spent:
    """Processor seconds inside of what is watched, by its name; what is called within is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inside = False

    def watch(self, owner: Any, method: str, name: str) -> None:
        whole = getattr(owner, method)

        @functools.wraps(whole)
        def timed(*args: Any, **options: Any) -> Any:
            if self.inside:
                return whole(*args, **options)
            self.inside, began = True, time.process_time()
            try:
                return whole(*args, **options)
            finally:
                self.inside = False
                self.seconds[name] += time.process_time() - began

        setattr(owner, method, timed)


class Epoch:
    """The second short epoch of a run, with its validation: processor seconds, those of its validation, and seconds by the
    clock."""

    def __init__(self, settings: dict[str, str], *, on: bool) -> None:
        self.spent = Spent()
        words = [
            *SHARED, f"data.batch_size={settings['batch']}", f"trainer.limit_train_batches={settings['batches']}",
            f"trainer.limit_val_batches={settings['pictures']}",
            *([f"logger={settings['logger']}", "callbacks=default"] if on else ["logger=none", "callbacks=none"]),
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            with initialized(conf_dir()):
                composed = compose("train", overrides=["name=speed", f"run_dir={folder}", *words])
            config: Any = OmegaConf.to_container(composed, resolve=True)
            data, task = runtime.build_data(config), runtime.make_task(config)
            task.ask_data(data)
            trainer = runtime.build_trainer(config, task)
            if on:
                self.watch(trainer, task)
            parts = Parts(self.spent)
            trainer.callbacks.insert(0, parts)  # type: ignore[attr-defined]
            trainer.fit(task, datamodule=data)
        self.processor, self.clock, self.validation = parts.processor, parts.clock, parts.validation

    def watch(self, trainer: Any, task: Any) -> None:
        """The callbacks of the group with the scores, the loggers, and the scores by class."""
        for callback in trainer.callbacks:
            name = type(callback).__name__
            if name not in ("PictureGrid", "Rates", "GradientNorm", "Times", "Scores"):
                continue
            own = [method for method in dir(Callback) if method.startswith("on_")]
            for method in own:
                if getattr(type(callback), method) is not getattr(Callback, method):
                    step = any(part in method for part in ("train_batch", "optimizer", "backward"))
                    self.spent.watch(callback, method, f"{name}, {'a step' if step else 'an epoch'}")
        for logger in trainer.loggers:
            self.spent.watch(logger, "log_metrics", "rows of the loggers, a step")
            self.spent.watch(logger, "save", "files of the loggers, an epoch")
        self.spent.watch(task, "by_class", "by_class, an epoch")


class Parts(Callback):
    """The second epoch from its start to the end of its last hook. It is the first of the callbacks."""

    def __init__(self, spent: Spent) -> None:
        self.spent = spent

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began = time.process_time(), time.perf_counter()
        self.spent.seconds.clear()

    def on_validation_start(self, *_: Any) -> None:
        self.validated = time.process_time()

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.validation = time.process_time() - self.validated

    def on_train_end(self, *_: Any) -> None:
        self.processor, self.clock = time.process_time() - self.began[0], time.perf_counter() - self.began[1]
        self.spent.inside = True  # what follows is of the run


def clocks(batches: int = 2000) -> float:
    """Microseconds that the clocks of a loader cost a batch."""
    data = torch.zeros(4 * batches)
    clocked = Clocked(data, torch.stack, workers=0)
    loaders: list[Any] = [DataLoader(data, batch_size=4, collate_fn=torch.stack),  # type: ignore[arg-type]
                          Loader(clocked, batch_size=4, collate_fn=clocked.collate)]  # fmt: skip
    times: list[list[float]] = [[], []]
    for _ in range(7):
        for loader, taken in zip(loaders, times, strict=True):
            began = time.process_time()
            for _batch in loader:
                pass
            taken.append(time.process_time() - began)
    return 1e6 * (min(times[1]) - min(times[0])) / batches


def ratio_row(title: str, off: list[float], on: list[float]) -> str:
    ratios = [b / a for a, b in zip(off, on, strict=True)]
    return (
        f"| {title} | {statistics.median(off):.2f} | {statistics.median(on):.2f} | {statistics.median(ratios):.3f} | "
        f"{min(ratios):.3f} to {max(ratios):.3f} |"
    )


def main() -> None:
    settings = SETTINGS | dict(argument.split("=", 1) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    quiet()
    logging.getLogger("dvsn").setLevel(logging.ERROR)
    rounds, load = int(settings["rounds"]), os.getloadavg()[0]
    Epoch({**settings, "batches": "1", "batch": "2", "pictures": "1"}, on=True)  # warm
    epochs: dict[bool, list[Epoch]] = {True: [], False: []}
    for number in range(rounds):
        for on in (True, False) if number % 2 else (False, True):
            epochs[on].append(Epoch(settings, on=on))
    facts, given = environment(), " ".join(f"{key}={value}" for key, value in settings.items())
    loads = f"load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
    versions = f"torch {facts['versions']['torch']}, Lightning {facts['versions']['pytorch-lightning']}"
    print("# What it costs a training to be logged\n")
    print(f"`python experiments/speed/logged_run.py {given}`, {datetime.date.today()}\n")
    print(f"{facts['processor']}, shared with other jobs ({loads});")
    print(f"Python {facts['python']}, {versions}. One thread.\n")
    print(f"## Short epochs in turns, {rounds} rounds\n")
    print(
        "| | nothing on, s | everything on, s | ratio, median | lowest and highest |\n|---|---|---|---|---|"
    )
    for title, key in (("processor time", "processor"), ("by the clock", "clock")):
        off, on_ = ([getattr(each, key) for each in epochs[which]] for which in (False, True))
        print(ratio_row(title, off, on_))
    tell_parts(epochs[True], epochs[False], settings)
    print(f"\nThe clocks of the loader, which always run: {clocks():.0f} microseconds a batch.")
    print(f"\n{time.process_time():.0f} s of processor time in all.")


def tell_parts(on: list[Epoch], off: list[Epoch], settings: dict[str, str]) -> None:
    """What is spent inside of callbacks and loggers, and its share of a whole epoch."""
    batches, batch, pictures = (int(settings[key]) for key in ("batches", "batch", "pictures"))
    names = {name for each in on for name in each.spent.seconds}
    means = {name: statistics.fmean(each.spent.seconds[name] for each in on) for name in names}
    print("\n## Inside of it, milliseconds of processor time\n")
    print("| what | a short epoch | a step |\n|---|---|---|")
    for name in sorted(means, key=lambda each: -means[each]):
        step = "" if name.endswith(", an epoch") else f"{1000 * means[name] / batches:.2f}"
        print(f"| {name} | {1000 * means[name]:.1f} | {step} |")
    by_epoch = sum(value for name, value in means.items() if name.endswith(", an epoch"))
    by_step = (sum(means.values()) - by_epoch) / batches
    picture = statistics.median(each.processor - each.validation for each in off) / (batches * batch)
    validated = statistics.median(each.validation for each in off) / pictures
    whole, steps = TRAIN * picture + VAL * validated, -(-TRAIN // batch)
    extra = steps * by_step + by_epoch
    print(f"\n## A whole epoch of CamVid: {TRAIN} pictures in {steps} batches, {VAL} validated\n")
    print(
        f"With nothing on a picture takes {picture:.3f} s of processor time to train on, {validated:.3f} s to validate:"
    )
    print(
        f"{whole:.0f} s an epoch. What is on takes {1000 * by_step:.1f} ms a step and {1000 * by_epoch:.0f} ms an epoch,"
    )
    print(f"{extra:.2f} s in all: **{100 * extra / whole:.2f} %** (goal: at most {100 * GOAL:.0f} %).")


if __name__ == "__main__":
    main()
