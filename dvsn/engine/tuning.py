"""A learning rate and a batch size for a training, found by short trials of Lightning's Tuner.

Each search builds task, data and trainer of its own, as a training of the same options does, and throws them away: no run
folder, no checkpoint and no logger is touched, and a later training sees the same data in the same order.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.tuner.tuning import Tuner

from dvsn.atomic import write_json
from dvsn.config.build import inspect_tree
from dvsn.config.partners import check_partners
from dvsn.config.types import Rules, number, require, whole
from dvsn.data.module import DataModule
from dvsn.engine import console, teaching
from dvsn.engine import trainer as runtime
from dvsn.engine.batch_trials import Trial, batch_sizes
from dvsn.engine.callbacks import StatelessRandom
from dvsn.engine.devices import resolve_precision, uses_cuda
from dvsn.engine.initial_weights import start_from
from dvsn.engine.rate_trials import Curve, Lenient, factors_of, smooth, steepest, take_over
from dvsn.engine.tuning_pictures import batch_picture, rate_picture
from dvsn.errors import ConfigError
from dvsn.optim.schedules import Constant
from dvsn.tasks.base import Task

log = logging.getLogger("dvsn")
Config = dict[str, Any]
NEVER = 10**9
"""Epochs between two validations: none of a trial is validated."""
FEWEST = 20
"""Steps of a learning-rate search that a slope can be read from."""


class Prepared(NamedTuple):
    """What one search trains, and throws away."""

    trainer: pl.Trainer
    task: Task
    data: DataModule


def tune(config: Config) -> Config:
    """Tune by a resolved, plain config. Returns what tune.json holds."""
    console.quiet()
    logging.getLogger("pytorch_lightning.trainer.connectors.checkpoint_connector").setLevel(logging.WARNING)
    check_partners(config)
    inspect_tree(config)
    check(config)
    runtime.keep_class_weights(config)
    wanted, folder = config["tune"]["find"], Path(config["tune"]["output"])
    found: Config = {"find": wanted}
    lines: list[str] = []
    if wanted in ("batch_size", "both"):
        found["batch_size"] = tell_batch(config, folder, lines)
        config = {**config, "data": {**config["data"], "batch_size": found["batch_size"]["suggested"]}}
    if wanted in ("lr", "both"):
        found["lr"] = tell_rate(config, folder, lines)
    found["options"] = lines
    write_json(folder / "tune.json", found)
    log.info("written     %s", folder / "tune.json")
    log.info("add         %s", " ".join(lines) if lines else "nothing: no rate that is tried lowers the loss")
    return found


def check(config: Config) -> None:
    """Refuse what no trial can answer. Raises `ConfigError`."""
    node, trainer = config["tune"], config["trainer"]
    low, high, ends = node["lowest"], node["highest"], node["diverges"]
    first, most = node["first"], node["most"]
    rules: Rules = (
        ("find", node["find"], node["find"] in ("lr", "batch_size", "both"), "lr, batch_size or both"),
        ("lowest", low, number(low) and low > 0, "a learning rate above 0"),
        ("highest", high, number(high) and number(low) and high > low, f"a learning rate above tune.lowest={low}"),
        ("steps", node["steps"], whole(node["steps"], FEWEST), f"a whole number, {FEWEST} or more"),
        ("diverges", ends, ends is None or (number(ends) and ends > 1), "null, or a number above 1"),
        ("first", first, whole(first, 1), "a whole number, 1 or more"),
        ("most", most, whole(most, 1) and whole(first, 1) and most >= first, "a whole number, tune.first or more"),
        ("trial_steps", node["trial_steps"], whole(node["trial_steps"], 2), "a whole number, 2 or more"),
        ("gain", node["gain"], number(node["gain"]) and 0 < node["gain"] < 1, "a share between 0 and 1"),
        ("output", node["output"], isinstance(node["output"], str) and node["output"] != "", "a folder"),
    )  # fmt: skip
    require(rules, "tune.")
    if config.get("resume"):
        raise ConfigError("resume: a search begins with the first step of a training. Set resume=null")
    if runtime.device_count(trainer) > 1 or trainer.get("num_nodes", 1) > 1:
        raise ConfigError(
            f"trainer.devices: found {trainer['devices']} on {trainer.get('num_nodes', 1)} machines, and a search measures "
            "one device. Set trainer.devices=1 trainer.num_nodes=1. The total data.batch_size of several is so many times "
            "the one found."
        )


def prepare(config: Config, folder: str) -> Prepared:
    """Task, data and trainer as a training has them, for trials of any length without validation."""
    task, data = runtime.build_both(config)
    if config.get("weights"):
        start_from(task, config["weights"])
    teaching.distil(task, config, data, None)
    task.schedule = Constant()  # the rate is the trial's own
    options = {
        **config["trainer"],
        "max_epochs": -1,
        "max_steps": -1,
        "max_time": None,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": NEVER,
        "limit_train_batches": 1.0,
        "limit_val_batches": 1.0,
        "num_sanity_val_steps": 0,
        "fast_dev_run": False,
        "profiler": None,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    own = {"run_dir": folder, "callbacks": {}, "logger": {}, "trainer": options}
    plain = {**config, **own}
    runtime.check_optimiser(plain, task, 1)
    precision = resolve_precision(options.get("precision", "auto"), cuda=uses_cuda(options))
    runtime.check_clipping(plain, task, str(precision))
    if plain.get("gradient_checkpointing"):
        runtime.spare_memory(plain, task)
    return Prepared(runtime.build_trainer(plain, task, fitting=False), task, data)


@contextmanager
def around(trainer: pl.Trainer, seed: int, trial: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Within it each trial of the Tuner, a call of the fit loop's `run`, goes through `trial`, with random numbers as a
    training draws them. The Tuner takes all callbacks away, and has none to tell of a trial."""
    loop = trainer.fit_loop
    run = loop.run

    def tried() -> Any:
        trainer.callbacks.append(StatelessRandom(seed=seed))  # type: ignore[attr-defined]
        return trial(run)

    loop.run = tried  # type: ignore[method-assign]
    try:
        yield
    finally:
        del loop.run


# The learning rate ----------------------------------------------------------------------------------------


def find_rate(config: Config) -> Config:
    """The curve of a learning-rate search, and the rate of its steepest fall (None where it never falls).

    The rate rises from `lowest` to `highest` in equal ratios over `steps` optimiser steps (Smith, 2017, arXiv:1506.01186);
    rates of layers with factors of their own keep these.
    """
    node = config["tune"]
    with tempfile.TemporaryDirectory() as folder:
        trainer, task, data = prepare(config, folder)
        if not task.automatic_optimization:
            raise ConfigError(
                f"tune.find: found {node['find']}, and task={task.kind} trains two networks against each other, with an "
                "optimiser each: the loss of the one falls where the other loses, so that no curve of it tells a rate. Set "
                "tune.find=batch_size, and keep the published optim.lr."
            )
        if task.distiller is not None and task.distiller.initial_epochs:
            raise ConfigError(
                "tune.find: a method of distill=... has an initial stage with a loss of its own, which says nothing of the "
                "training's rate. Set distill=none teacher=null, and distillation.stage_lr by hand."
            )
        task.finite = Lenient(trainer)
        factors: list[float] = []
        curves: list[Curve] = []

        def trial(run: Callable[[], Any]) -> Any:
            curves.append(take_over(trainer, factors, node))
            return run()

        with around(trainer, int(config["seed"]), trial), factors_of(task, factors):
            Tuner(trainer).lr_find(
                task,
                datamodule=data,
                min_lr=node["lowest"],
                max_lr=node["highest"],
                num_training=node["steps"],
                early_stop_threshold=None,  # the curve has its own
                update_attr=False,
            )
    pairs = zip(curves[0].rates, curves[0].losses, strict=True)
    finite = [(rate, loss) for rate, loss in pairs if math.isfinite(loss)]
    rates, losses = [rate for rate, _ in finite], [loss for _, loss in finite]
    return {
        "rates": rates,
        "losses": losses,
        "smooth": smooth(rates, losses) if rates else [],
        "suggested": steepest(rates, losses),
        "asked": node["steps"],
        "batch_size": config["data"]["batch_size"],
        "now": config["optim"].get("lr"),
    }


def tell_rate(config: Config, folder: Path, lines: list[str]) -> Config:
    """Search, say and draw what was found; adds the option to paste to `lines`."""
    found = find_rate(config)
    if found["suggested"] is not None:
        found["suggested"] = float(f"{found['suggested']:.2g}")
        lines.append(f"optim.lr={found['suggested']:g}")
    rate_picture(found, folder / "tune_lr.png")
    steps, end = len(found["rates"]), found["rates"][-1] if found["rates"] else math.nan
    log.info("steps       %d of %d, up to a rate of %.3g", steps, found["asked"], end)
    if found["suggested"] is None:
        log.info(
            "rate        none: the loss falls nowhere by more than its noise. Set tune.steps=%d, a larger batch or a higher "
            "tune.highest", 3 * found["asked"]
        )  # fmt: skip
    else:
        log.info("rate        %g, where the loss falls fastest; now %s", found["suggested"], found["now"])
    log.info("picture     %s", folder / "tune_lr.png")
    return found


# The batch size -------------------------------------------------------------------------------------------


def tell_batch(config: Config, folder: Path, lines: list[str]) -> Config:
    """Search, say and draw what was found; adds the options to paste to `lines`."""
    node = config["tune"]
    with tempfile.TemporaryDirectory() as temporary:
        own = {
            **config,
            "data": {**copy.deepcopy(config["data"]), "drop_last": True, "batch_size": node["first"]},
        }
        trainer, task, data = prepare(own, temporary)
        trials: list[Trial] = []
        found = batch_sizes(
            trainer,
            task,
            data,
            node,
            trials,
            lambda trial: around(trainer, int(config["seed"]), trial),
        )
    found["now"] = config["data"]["batch_size"]
    lines.append(f"data.batch_size={found['suggested']}")
    if found["drop_last"] and not config["data"].get("drop_last"):
        lines.append("data.drop_last=true")
        log.info("an epoch would end with a batch of one item, of which a batch norm has no variance")
    batch_picture(found, folder / "tune_batch_size.png")
    for line in table(found):
        log.info("%s", line)
    log.info("measured    %s", found["measured"])
    log.info("ended       %s", found["ended"])
    log.info("picture     %s", folder / "tune_batch_size.png")
    return found


def table(found: Mapping[str, Any]) -> list[str]:
    """The trials, a line each."""
    lines = [f"{'batch size':>10}  {'images/s':>9}  {'memory, GiB':>11}"]
    return lines + [
        f"{each['batch_size']:>10}  {each['images_per_second']:>9.1f}  {each['memory_gib']:>11.2f}"
        for each in found["trials"]
    ]
