"""Model soups: the weights of several checkpoints averaged (Wortsman et al., 2022, arXiv:2203.05482)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.config.folders import at_home, require_writable
from dvsn.config.types import whole
from dvsn.data.module import DataModule, TrainBatches
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.console import quiet
from dvsn.engine.devices import measuring
from dvsn.engine.differences import differences
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub.resolve import read
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import build_task, load_state, read_recipe

log = logging.getLogger("dvsn")
Config = dict[str, Any]
State = Mapping[str, Tensor]
OF_TRAINING = (
    "optim",
    "optim_discriminator",
    "schedule",
    "loss",
    "head_factor",
    "head_modules",
    "decay_norms",
    "freeze",
    "rates",
)
"""Parts of a recipe that may differ: how weights were found, not what they mean."""


class Ingredient(NamedTuple):
    """One checkpoint of a soup."""

    path: str
    header: Config
    """Of its file: recipe, data and config."""
    state: State
    """Its weights, without what belongs to methods of distillation."""


def average(options: Config) -> Path:
    """Write the soup of the checkpoints that the options of `dvsn.average` name, and return its path."""
    quiet()
    paths, method, statistics = _checked(options)
    output = at_home(str(options["output"]), option="output")
    require_writable(output.parent, option="output")
    found = [read_ingredient(path) for path in paths]
    require_alike(found)
    first, picked, scores = found[0], list(range(len(found))), None
    task = build_task(first.header["recipe"], data=first.header.get("data"), path=first.path)
    if method == "greedy":
        picked, scores = greedy(task, found, options)
    load_state(task, mean([found[number].state for number in picked]), "the average")
    if statistics:
        measure_statistics(
            task, data_of(first, options), batches=None if statistics is True else int(statistics)
        )
    content: Config = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    kept = {"config": first.header["config"]} if "config" in first.header else {}
    content["dvsn"] |= kept | {"averaged": [Path(found[number].path).name for number in picked]}
    AtomicCheckpointIO().save_checkpoint(content, output)
    log.info("written %s, the mean of %d checkpoints", output, len(picked))
    if scores is not None:
        log.info("score %.4f, the best of them alone %.4f", scores[-1], scores[0])
    if not statistics and any(isinstance(module, _BatchNorm) for module in task.modules()):
        log.info(
            "batch norms: means and variances are averages too. statistics=true measures them again on the training data"
        )
    return output


def _checked(options: Config) -> tuple[list[str], str, bool | int]:
    """The options, which must have a meaning. Raises `ConfigError`."""
    paths, method, statistics = options["checkpoints"], str(options["method"]), options["statistics"]
    fewest = 1 if statistics else 2
    if not isinstance(paths, list) or len(paths) < fewest or not all(isinstance(each, str) for each in paths):
        raise ConfigError(
            "checkpoints: expected two or more files, such as a.ckpt b.ckpt; one with statistics=true"
        )
    if method not in ("uniform", "greedy"):
        raise ConfigError(f"method: found '{method}', expected uniform or greedy.")
    if not isinstance(statistics, bool) and not whole(statistics, 1):
        raise ConfigError(f"statistics: found {statistics!r}, expected true, false or a number of batches.")
    return paths, method, statistics


def read_ingredient(path: str) -> Ingredient:
    content = read(path)
    header = read_recipe(content, path)
    state = {key: value for key, value in content["state_dict"].items() if not key.startswith("distiller.")}
    return Ingredient(path, header, state)


def require_alike(found: Sequence[Ingredient]) -> None:
    """Raise `CheckpointError` for checkpoints whose weights do not mean the same: another recipe, other classes, other
    tensors."""
    first = found[0]
    for other in found[1:]:
        one, two = (
            {key: node for key, node in each.header["recipe"].items() if key not in OF_TRAINING}
            for each in (first, other)
        )
        unlike = [
            f"{each.path}: {each.there!r} there, {each.now!r} here"
            for each in differences({"task": one}, {"task": two})
        ]
        names = [(each.header.get("data") or {}).get("dataset") or {} for each in (first, other)]
        if names[0].get("names") != names[1].get("names"):
            unlike.append(f"data.dataset.names: {names[0].get('names')} there, {names[1].get('names')} here")
        if not unlike:
            unlike = unlike_tensors(first.state, other.state)
        if unlike:
            listed = "".join(f"\n  {line}" for line in unlike[:8])
            raise CheckpointError(
                f"{other.path}: cannot be averaged with {first.path} (there), they differ:{listed}\nAverage "
                "checkpoints of one network and one set of classes alone, best of runs from the same start."
            )


def unlike_tensors(one: State, two: State) -> list[str]:
    """How the tensors of two states differ, a line each."""
    alone = [f"{key}: in one of them alone" for key in sorted(one.keys() ^ two.keys())]
    unlike = [key for key in one if key in two and one[key].shape != two[key].shape]
    return alone + [f"{key}: {tuple(one[key].shape)} there, {tuple(two[key].shape)} here" for key in unlike]


def mean(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of each tensor, in float64; of whole numbers, such as the batches that a norm has counted, the largest."""
    found = {}
    for key, value in states[0].items():
        every = torch.stack([state[key] for state in states])
        exact = not (value.is_floating_point() or value.is_complex())
        found[key] = every.amax(dim=0) if exact else every.double().mean(dim=0).to(value.dtype)
    return found


def greedy(task: Task, found: Sequence[Ingredient], options: Config) -> tuple[list[int], list[float]]:
    """The greedy soup (Wortsman et al., 2022, algorithm 1): from the best checkpoint on, each in the order of their scores
    stays in if the mean with it is no worse on val. Returns their numbers, and the score of the best alone and of each
    soup that was kept."""
    config = found[0].header.get("config") or {}
    monitor = config.get("monitor") or {}
    if not monitor.get("name"):
        raise ConfigError(
            f"method: greedy needs a score, and {found[0].path} knows none: it was not written by a training. Set "
            "method=uniform"
        )
    folds = {(each.header.get("data") or {}).get("fold") for each in found}
    if len(folds) > 1:
        raise ConfigError(
            f"method: greedy chooses by what all have not seen, and the checkpoints held back other parts of the data: "
            f"data.fold {', '.join(map(str, sorted(folds, key=str)))}. Set method=uniform"
        )
    sign = 1.0 if monitor.get("mode") == "max" else -1.0
    measure = scorer(task, data_of(found[0], options), config, str(monitor["name"]))

    def score(numbers: Sequence[int]) -> float:
        load_state(task, mean([found[number].state for number in numbers]), "the average")
        return measure()

    alone = [score([number]) for number in range(len(found))]
    for each, value in zip(found, alone, strict=True):
        log.info("%s: %s %.4f", each.path, monitor["name"], value)
    order = sorted(range(len(found)), key=lambda number: -sign * alone[number])
    kept, scores = order[:1], [alone[order[0]]]
    for number in order[1:]:
        value = score([*kept, number])
        better = sign * value >= sign * scores[-1]
        log.info("with %s: %.4f, %s", found[number].path, value, "kept" if better else "left out")
        if better:
            kept.append(number)
            scores.append(value)
    return kept, scores


def data_of(first: Ingredient, options: Config) -> Config:
    """The data of the first checkpoint, with the options of the command. Raises `ConfigError` where it has none."""
    node = first.header.get("data")
    if not node:
        raise ConfigError(
            f"{first.path}: was converted from a published file and knows no data set, which method=greedy and statistics "
            "need. Set method=uniform statistics=false"
        )
    given = {key: options.get(key) for key in ("root", "workers", "batch_size")}
    return {**node, **{key: value for key, value in given.items() if value is not None}}


def scorer(task: Task, node: Config, config: Config, name: str) -> Callable[[], float]:
    """What measures the score `name` on val, in float32, with the weights that the task has then."""
    data = runtime.build_data({"data": node})
    task.data_recipe = node
    task.ask_data(data)
    runtime.measure_by(task, config.get("metrics") or {})
    trainer_options = measuring({"enable_progress_bar": False, "enable_model_summary": False, "devices": 1})
    trainer = runtime.build_trainer(
        {
            **config,
            "data": node,
            "run_dir": ".",
            "callbacks": {},
            "logger": {},
            "trainer": trainer_options,
            "compile": False,
        },
        task,
        fitting=False,
    )

    def measure() -> float:
        trainer.validate(task, data, verbose=False)
        return float(trainer.callback_metrics[name])

    return measure


def measure_statistics(task: Task, node: Config, *, batches: int | None) -> None:
    """Measure the means and variances of all batch norms again: their mean over the batches of one epoch of training, or the
    first of them, with the weights as they are."""
    norms = [
        module for module in task.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        log.info("statistics: the network has no batch norm")
        return
    data: DataModule = runtime.build_data({"data": node})
    task.ask_data(data)
    data.prepare_data()
    data.datasets = {"train": data.open("train", augment=True)}
    size = len(data.datasets["train"])
    every = TrainBatches(
        size=size, batch_size=data.batch_size, seed=data.seed, drop_last=size >= data.batch_size
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).train()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    seed_everything(data.seed, rank=0, epoch=0, batch=0, stage=0)
    with torch.no_grad():
        for number, batch in enumerate(data._loader("train", every)):
            if batches is not None and number >= batches:
                break
            task.try_step(task.transfer_batch_to_device(batch, device, 0))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    task.to("cpu").eval()
    log.info("statistics: batch norms %d, batches %d", len(norms), min(len(every), batches or len(every)))
