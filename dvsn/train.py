"""`python -m dvsn.train`: compose a config, build everything, train, and say where the results are."""

from __future__ import annotations

import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.command_line import Command, Option
from dvsn.config import compose
from dvsn.config.rules import check_options
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
Config = dict[str, Any]

COMMAND = Command(
    name="train",
    summary="Train a task on a data set.",
    groups=True,
    sweeps=True,
    options=(
        Option("seed", "0", "everything random derives from it"),
        Option("name", "task_network_data", "runs are kept in runs/NAME/DATE_TIME"),
        Option("resume", "null", "auto: the newest checkpoint of this name that loads; or a path"),
        Option("weights", "null", "start from the networks of a checkpoint, such as a converted one"),
        Option("teacher", "null", "a checkpoint to learn from, or a list; goes with distill=..."),
        Option("distillation.task_weight", "null", "times the task's own loss; 0: without labels"),
        Option("ema", "null", "decay of a moving average of the weights, such as 0.999"),
        Option("compile", "false", "torch.compile the networks"),
        Option("channels_last", "auto", "memory layout: auto, true, false"),
        Option("checkpoint.every_n_steps", "null", "save within an epoch too"),
        Option("trainer.devices", "1", "GPUs or processes; several mean DDP"),
        Option("sweep.jobs", "1", "of -m at the same time, on the same device"),
        Option("data.root", "data/NAME", "where the data set lies"),
    ),
    examples=(
        "python -m dvsn.train task=pix2pix data=cityscapes trainer.devices=4",
        "python -m dvsn.train -m experiment=pix2pix_paper data=street network=unet_256,resnet_9blocks seed=0,1",
        "python -m dvsn.train task=classification network=resnet8x4 teacher=best.ckpt distill=[kd,at] distill.at.weight=500",
        "python -m dvsn.train -m task=distillation network=resnet8x4 teacher=best.ckpt distill=none,kd,sp,crd seed=0,1,2",
    ),
)


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to continue from. Raises `CheckpointError` for a path that cannot be used."""
    from dvsn.engine.checkpoint import newest
    from dvsn.tasks.recipe import read_recipe
    from dvsn.weights import read_checkpoint

    if resume is None:
        return None
    if resume == "auto":
        found = newest(folder / "checkpoints") if (folder / "checkpoints").is_dir() else None
        log.info(
            "resume=auto: %s", f"continuing from {found}" if found else "no checkpoint yet, starting anew"
        )
        return found
    path = Path(resume)
    read_recipe(read_checkpoint(path), path)
    return path


def check_resume(path: Path, config: Config) -> None:
    """Refuse to continue with another network than the one that was trained."""
    from dvsn.errors import CheckpointError
    from dvsn.tasks.recipe import read_recipe
    from dvsn.weights import read_checkpoint

    header = read_recipe(read_checkpoint(path, verify=False), path)
    recipe, wanted = header["recipe"], config["task"]
    taught, methods = sorted(header.get("distill") or {}), sorted(config.get("distill") or {})
    if taught != methods:
        raise CheckpointError(
            f"{path}: was trained with distill=[{','.join(taught)}], found distill=[{','.join(methods)}]. Continue with the "
            "methods of that run, or start a new one with resume=null."
        )
    different = [
        f"task.{key}.{option}: {recipe[key].get(option)!r} there, {wanted[key].get(option)!r} now"
        for key in wanted
        if isinstance(wanted[key], dict)
        and isinstance(recipe.get(key), dict)
        and key in ("network", "discriminator")
        for option in sorted({*wanted[key], *recipe[key]})
        if wanted[key].get(option) != recipe[key].get(option)
    ]
    if different:
        listed = "\n  ".join(different[:8])
        raise CheckpointError(
            f"{path}: was trained with other networks:\n  {listed}\nContinue with the options of that run "
            f"({path.parent.parent / 'config.yaml'}), or start a new one with resume=null."
        )


def quiet() -> None:
    """Hints of the libraries that a user of dvsn cannot act on."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*dataloader is not resumable.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*is smaller than the logging interval.*",
        r".*Trying to infer the `batch_size`.*",
        r".*find_unused_parameters=True was specified.*",
        r".*It is recommended to use `self\.log.*sync_dist=True.*",  # metrics are gathered before they are logged
        r".*lr_scheduler\.step\(\).*before.*optimizer\.step\(\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)


def train(config: Config) -> dict[str, Any]:
    """Train by a resolved, plain config. Returns what result.json holds."""
    from dvsn.config.allow import check
    from dvsn.engine import teaching
    from dvsn.engine import trainer as runtime
    from dvsn.engine.callbacks import Checkpoints
    from dvsn.pictures.grids import define_wandb, finish_wandb

    quiet()
    check(config)
    keep_class_weights(config)
    folder = Path(config["run_dir"])
    data = runtime.build_data(config)
    task = runtime.make_task(config)
    task.ask_data(data)
    if config.get("weights"):
        runtime.start_from(task, Path(config["weights"]))
    teaching.distil(task, config, data)
    trainer = runtime.build_trainer(config, task)
    taught = task.distiller is not None and config["distillation"].get("measure", True)
    teacher_score = teaching.measure(task, config) if taught else None
    # now, since the file may be gone at the end
    measured_by = None if teacher_score is None else teaching.measured_by(config)
    resume = find_resume(config.get("resume"), folder)
    if resume is not None:
        check_resume(resume, config)
    if trainer.is_global_zero:
        runtime.record_run(folder, config)
        describe(config, task, trainer, folder, teacher_score=teacher_score)
    wandb_logger = next((item for item in trainer.loggers if type(item).__name__ == "WandbLogger"), None)
    monitor = config.get("monitor") or {}
    if wandb_logger is not None and trainer.is_global_zero:
        define_wandb(
            wandb_logger, config=config, monitor=monitor.get("name"), mode=monitor.get("mode", "min")
        )
    csv = runtime.csv_logger(trainer)
    if csv is not None and resume is not None:
        csv.resume(step_of(resume))

    before = 0 if resume is None else step_of(resume)
    started = time.perf_counter()
    trainer.fit(task, datamodule=data, ckpt_path=None if resume is None else str(resume), weights_only=True)
    saved = next(item for item in trainer.callbacks if isinstance(item, Checkpoints))  # type: ignore[attr-defined]
    result = {
        "monitor": monitor.get("name"),
        "best": saved.best,
        "objective": saved.best,
        "metrics": {key: float(value) for key, value in sorted(trainer.callback_metrics.items())},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(time.perf_counter() - started, 1),
        "epoch_seconds": epoch_seconds(time.perf_counter() - started, trainer, before),
        "peak_memory_bytes": runtime.peak_memory(),
        "teacher_score": teacher_score,
        "teacher_measured_by": measured_by,
        "parameters": sum(parameter.numel() for parameter in task.deployable().parameters()),
        "folder": str(folder),
    }
    if trainer.is_global_zero:
        runtime.write_json(folder / "result.json", result)
        report(result, folder)
        if wandb_logger is not None:
            wanted = (config.get("logger") or {}).get("artifact")
            best = folder / "checkpoints" / "best.ckpt"
            finish_wandb(
                wandb_logger,
                best=saved.best,
                monitor=monitor.get("name"),
                checkpoint=best if wanted else None,
            )
    return result


def epoch_seconds(seconds: float, trainer: Any, before: int) -> float | None:
    """How long an epoch took, with its validation; `before` is the number of batches that an earlier part of the run did."""
    batches = trainer.fit_loop.epoch_loop._batches_that_stepped - before
    return round(seconds * int(trainer.num_training_batches) / batches, 3) if batches > 0 else None


def keep_class_weights(config: Config) -> None:
    """Put the numbers of a class-weights file into the recipe, so that a checkpoint does not need the file."""
    from dvsn.losses import class_weights

    loss = config["task"].get("loss") or {}
    name = loss.get("class_weights")
    if isinstance(name, str) and name not in class_weights.BUILT_IN:
        loss["class_weights"] = list(class_weights.resolve(name, classes=int(loss["classes"])) or ())


def step_of(checkpoint: Path) -> int:
    """The step of the loggers, which counts batches, at which a checkpoint was written."""
    from dvsn.weights import read_checkpoint

    loops = read_checkpoint(checkpoint, verify=False)["loops"]
    return int(loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])


def describe(
    config: Config, task: Any, trainer: Any, folder: Path, *, teacher_score: float | None = None
) -> None:
    """What is about to happen, in a few lines."""
    log.info("run folder  %s", folder)
    for name, network in task.networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        log.info("%-11s %s, %s parameters", name, type(network).__name__, f"{count:,}")
    if task.distiller is not None:
        from dvsn.engine import teaching

        if teacher_score is not None:
            log.info("%-11s %s %.4f", "teacher", config["monitor"]["name"], teacher_score)
        for title, text in teaching.describe(task.distiller):
            log.info("%-11s %s", title, text)
    device = trainer.strategy.root_device
    log.info(
        "device      %s x %d, %s%s%s",
        device.type, trainer.world_size, trainer.precision,
        ", channels_last" if task.channels_last else "", ", compiled" if config.get("compile") else "",
    )  # fmt: skip


def report(result: dict[str, Any], folder: Path) -> None:
    """Where to look."""
    values = {k.removeprefix("val/"): v for k, v in result["metrics"].items() if k.startswith("val/")}
    log.info("")
    log.info("trained     %d epochs, %d steps, %.0f s", result["epochs"], result["steps"], result["seconds"])
    if values:
        log.info("validation  %s", ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for title, path in (
        ("pictures", folder / "pictures" / "latest.png"),
        ("metrics", folder / "metrics.csv"),
        ("checkpoint", folder / "checkpoints" / "best.ckpt"),
    ):
        if path.exists():
            log.info("%-11s %s", title, path)


def check_config(config: Config) -> None:
    """Refuses a name that is no folder's, and options without a meaning, before a folder is made and torch loaded."""
    name = str(config["name"])
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
        raise ConfigError(f"name: found '{name}', expected letters, digits, '.', '_', '-' and '/'.")
    check_options(config)


def compose_and_train() -> Any:
    """Runs the command line, once or for every job of a sweep."""
    from dvsn.sweep import launcher  # imports Hydra, which `--help` does without

    launcher.register()
    return compose.hydra_main("train", train, sweep=launcher.sweep, check=check_config, keeps=True)


def main() -> None:
    command_line.run(compose_and_train, command=COMMAND)


if __name__ == "__main__":
    main()
