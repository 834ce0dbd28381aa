"""Resuming a run: which checkpoint to use, whether it fits this config, and at which step it was written."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.core.optimizer import _init_optimizers_and_lr_schedulers

from dvsn.config import board
from dvsn.config.allow import renamed
from dvsn.config.launched import restarted
from dvsn.config.newest import checkpoints, entry
from dvsn.engine.devices import device_count
from dvsn.engine.differences import APPLIED, LENGTH, PLACE, PROCESSES, Difference, differences, kept
from dvsn.errors import CheckpointError, ConfigError
from dvsn.parts import INDEX, described, in_parts, require_sums
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import read_checkpoint, require_equal

log = logging.getLogger("dvsn")
Config = dict[str, Any]
LISTED = 12  # differences in a message
PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "None": "32-true"}


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to continue from: a path, or with `auto` the newest of the run's folder that loads.

    What a launcher has started again goes on without being told, from its own checkpoints if it has any. Raises
    `CheckpointError` for a path that cannot be used, and where a folder has checkpoints and none loads.
    """
    if resume is None and not restarted():
        return None
    found = checkpoints(folder)
    if resume is not None and resume != "auto" and not (restarted() and found):
        return loads(Path(resume), share=seen_by_all([Path(resume)]))
    faults, share = [], seen_by_all(found)
    for path in found:
        try:
            loads(path, share=share)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            log.warning("resume=auto: passed over:\n  %s", "\n  ".join(faults))
        log.info("resume=auto: continuing from %s", path)
        return path
    if faults:
        listed = "\n  ".join(faults)
        raise CheckpointError(
            f"resume=auto: {folder} has checkpoints, and none of them can be continued:\n  {listed}\nName an older one with "
            "resume=PATH, or start anew with resume=null."
        )
    log.info("resume=auto: no checkpoint yet, starting anew")
    return None


def seen_by_all(found: list[Path]) -> bool:
    """Whether all processes of a run see the same checkpoints, in this order, as on a disk that they share."""
    marks = [[path.name, entry(path).stat().st_mtime_ns if entry(path).is_file() else 0] for path in found]
    return board.decided("checkpoints", marks, lambda told: all(each == told[0] for each in told))


def loads(path: Path, *, share: bool = False) -> Path:
    """The path of a checkpoint from which a run can go on. Raises `CheckpointError` for any other. With `share` all
    processes of a run ask for it, and each checks its share of the sums of a checkpoint in parts."""
    content = checked_together(path) if share and in_parts(path) else read_checkpoint(path, shapes=True)
    read_recipe(content, path)
    missing = [part for part in ("loops", "optimizer_states", "lr_schedulers") if part not in content]
    if missing:
        raise CheckpointError(
            f"{path}: holds weights and no state of a training ({', '.join(missing)}), so there is nothing to continue. "
            f"Start a run from its weights with {option('weights', path)} resume=null"
        )
    return path


def checked_together(path: Path) -> dict[str, Any]:
    """The shapes of a checkpoint in parts. What one process finds wrong all raise, so that they go on from the same one."""
    content: dict[str, Any] = {}
    ours, own = board.of_several(), ""
    rank, world = (0, 1) if ours is None else (ours.place.rank, ours.place.world)
    try:
        content = read_checkpoint(path, shapes=True, verify=False)
        parts = described(path, read_checkpoint(path / INDEX))
        require_sums(parts, rank, world)
    except CheckpointError as error:
        own = str(error)
    fault = board.decided("parts", own, lambda told: next(filter(None, told), ""))
    if fault:
        raise CheckpointError(fault)
    return content


def option(name: str, value: Any) -> str:
    """An option as text to paste into a shell."""
    return shlex.quote(f"{name}={value}")


class Resumption(NamedTuple):
    """A run that is to be continued: the config as it will run, the options that were forced, and the form in
    which each teacher has taught; None where that is chosen anew."""

    config: Config
    forced: tuple[str, ...]
    teachers: tuple[str, ...] | None = None


def settle(path: Path, config: Config, task: Task) -> Resumption:
    """Compare the config with that of the run which wrote the checkpoint.

    What the learning does not depend on is applied and said. Another difference is refused, with all of them listed,
    unless `resume_force` names it. `auto` becomes what the run has had. Raises `CheckpointError`, or `ConfigError` for
    options that cannot be forced.
    """
    content = read_checkpoint(path, verify=False, shapes=True)
    header = read_recipe(content, path)
    config = as_it_ran(config, header)
    _require_methods(path, header, config)
    there = _earlier(header)
    found = differences(there, renamed(kept(config)), whole="config" in header)
    applied = [*APPLIED] if not task.schedule.needs_end else [each for each in APPLIED if each not in LENGTH]
    named = tuple(map(str, config.get("resume_force") or ()))
    refused = [each for each in found if not each.within(applied) and not each.within(named)]
    if refused:
        useful = tuple(each for each in named if any(one.within([each]) for one in found))
        raise CheckpointError(_refusal(path, refused, task, useful))
    forced = [each for each in found if each.within(named)]
    _check_forced(path, content, forced)
    _check_length(path, config, content)
    for each in found:
        log.info("%-11s %s", "forced" if each in forced else "applied", each)
    _tell_of_processes(found, there, config)
    changed = any(each.within(["teacher", "distillation.engine"]) for each in forced)
    teachers = None if changed else tuple((header.get("ran") or {}).get("teachers") or ())
    return Resumption(config, tuple(each.path for each in forced), teachers)


def _tell_of_processes(found: list[Difference], there: Config, config: Config) -> None:
    """Say it where the run goes on with another number of processes."""
    if any(each.within(PROCESSES) for each in found):
        before, now = (device_count({"devices": 1, **each["trainer"]}) for each in (there, config))
        if before != now:
            log.warning(
                "resume: %d processes instead of %d. The run goes on with the batch after the last one, and sees every "
                "sample of the epoch; it does not end bit for bit as the unbroken one, since random numbers and the "
                "statistics of batch norm are each process's own.", now, before,
            )  # fmt: skip


def as_it_ran(config: Config, header: Config) -> Config:
    """The config with what `auto` chose in the earlier run (precision and memory layout), and the weights that it
    started from."""
    ran, there = header.get("ran") or {}, header.get("config") or {}
    trainer = dict(config["trainer"])
    if "precision" in ran and trainer.get("precision", "auto") == "auto":
        trainer["precision"] = ran["precision"]
    given = str(trainer.get("precision"))
    if "precision" in ran and PRECISIONS.get(given, given) == ran["precision"]:
        trainer["precision"] = ran["precision"]
    config = {**config, "trainer": trainer}
    if "channels_last" in ran and config.get("channels_last", "auto") == "auto":
        config["channels_last"] = ran["channels_last"]
    if config.get("weights") is None and there.get("weights") is not None:
        config["weights"] = there["weights"]
    return config


def _earlier(header: Config) -> Config:
    """The config of the run that wrote a checkpoint. Checkpoints written before 2026-12 hold only parts of it."""
    if "config" in header:
        there = {**renamed(header["config"])}
        there["trainer"] = {**there["trainer"], "precision": header["ran"]["precision"]}
        return {**there, "channels_last": header["ran"]["channels_last"]}
    recipe = {key: value for key, value in header["recipe"].items() if key != "graft"}
    return {"task": recipe, "data": header.get("data") or {}, "distill": header.get("distill") or {}}


def _require_methods(path: Path, header: Config, config: Config) -> None:
    chosen = config.get("distill") or {}
    taught, methods = sorted(header.get("distill") or {}), sorted(k for k in chosen if chosen[k] is not None)
    if taught != methods:
        raise CheckpointError(
            f"{path}: was trained with distill=[{','.join(taught)}], found distill=[{','.join(methods)}]. Continue with the "
            "methods of that run, or start a new one with resume=null."
        )
    dense = [name for name in methods if chosen[name].get("taps") == "dense"]
    if dense and "task_weight" not in header:
        options = " ".join(f"distill.{name}.taps=last" for name in dense)
        raise CheckpointError(
            f"{path}: is of an earlier version, in which {', '.join(dense)} tapped the last stage. Continue with {options}, "
            "or start a new run with resume=null."
        )


def _refusal(path: Path, refused: list[Difference], task: Task, named: tuple[str, ...]) -> str:
    lines = [str(each) for each in refused[:LISTED]]
    lines += [f"and {len(refused) - LISTED} more"] if len(refused) > LISTED else []
    listed, source = "\n  ".join(lines), path.parent.parent / "config.yaml"
    advice = f"Continue with the options of that run{f' ({source})' if source.is_file() else ''}"
    if not any(_unforceable(each) for each in refused):
        paths = ",".join([*named, *(each.path for each in refused)])
        advice += f", allow what is meant by {option('resume.force', f'[{paths}]')}"
    length = [each.path for each in refused if each.within(LENGTH)]
    why = (
        f" ({', '.join(length)}: {type(task.schedule).__name__} depends on the length of the run)"
        if length
        else ""
    )
    return (
        f"{path}: the run that is to be continued was trained otherwise:\n  {listed}\n{advice}, or start a new one with "
        f"resume=null.{why}"
    )


def _unforceable(each: Difference) -> bool:
    """Differences that no option can force: another task or optimiser, other frozen layers or groups of rates, and a moving
    average that starts or ends."""
    other = each.path.endswith("_target_") and each.path.startswith(
        ("task.", "optim", "network", "discriminator")
    )
    other = other or each.within(["task.freeze", "task.rates"])
    return other or (each.path in ("ema", "swa") and None in (each.there, each.now))


def _check_forced(path: Path, content: Config, forced: list[Difference]) -> None:
    for each in forced:
        if _unforceable(each):
            raise ConfigError(
                f"resume.force: {each} cannot be changed within a run, whose state belongs to the former. Start a new run "
                f"from its weights with {option('weights', path)} resume=null"
            )
        batch = int((content.get("DataModule") or {}).get("batch", 0))
        if batch and each.within(PLACE):
            raise ConfigError(
                f"resume.force: {each}, but {path} was saved inside an epoch, after {batch} batches, and the rest of it "
                "would be other samples. Force it from a checkpoint at the end of an epoch."
            )


def _check_length(path: Path, config: Config, content: Config) -> None:
    epochs, done = config["trainer"].get("max_epochs"), int((content.get("DataModule") or {}).get("epoch", 0))
    if epochs is not None and 0 <= epochs < done:
        raise ConfigError(
            f"trainer.max_epochs: found {epochs}, but {path} has {done} epochs behind it. Set trainer.max_epochs={done + 1} "
            "or more."
        )


def require_weights(task: Task, path: Path) -> None:
    """Raise `CheckpointError` where the weights of a checkpoint do not fit the task, before a trainer tries."""
    require_equal(task.state_dict(), read_checkpoint(path, verify=False, shapes=True)["state_dict"], path)


class ForcedOptions(Callback):
    """Gives the optimisers of a resumed run the options of its config.

    Lightning restores them as the checkpoint has them: learning rate, betas, decay and the rest of each parameter group,
    and of the schedule its base rates and present values. What the optimisers have gathered, such as momentum, stays. Where
    the steps of an epoch have changed, the schedule goes on after as many epochs as before.
    """

    def __init__(self, forced: tuple[str, ...]) -> None:
        self.replaced = any(Difference(path, None, None).within(PLACE) for path in forced)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        optimizers, configs = _init_optimizers_and_lr_schedulers(pl_module)
        for restored, wanted in zip(trainer.optimizers, optimizers, strict=True):
            for group, options in zip(restored.param_groups, wanted.param_groups, strict=True):
                group.update({key: value for key, value in options.items() if key != "params"})
        accumulate = max(trainer.accumulate_grad_batches, getattr(pl_module, "accumulate_grad_batches", 1))
        steps = -(-int(trainer.num_training_batches) // accumulate)
        for own, new in zip(trainer.lr_scheduler_configs, configs, strict=True):
            schedule: Any = own.scheduler
            schedule.base_lrs = list(new.scheduler.base_lrs)
            if self.replaced:
                schedule.last_epoch = trainer.current_epoch * steps
            rates = [
                base * rule(schedule.last_epoch)
                for base, rule in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
            ]
            for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            schedule._last_lr = rates


class Reached(NamedTuple):
    """Where a checkpoint was written."""

    epoch: int
    step: int
    """Of the optimiser."""
    logged: int
    """The step, as loggers count it, of the first batch after the checkpoint."""


def reached(checkpoint: Path) -> Reached:
    """How far the run of a checkpoint was. Within an epoch Lightning counts a batch only after its callbacks and its
    validation, which is where dvsn saves."""
    content = read_checkpoint(checkpoint, verify=False, shapes=True)
    stepped = int(content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])
    inside = int((content.get("DataModule") or {}).get("batch", 0)) > 0
    return Reached(int(content.get("epoch", 0)), int(content.get("global_step", 0)), stepped + int(inside))
