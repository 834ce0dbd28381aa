"""Build the data module, the task and the trainer of a resolved config."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytorch_lightning as pl

from dvsn.config.build import build
from dvsn.config.compose import PROCESS_TIMEOUT
from dvsn.config.rules import TRAINER_REFUSED, check_channels, check_options
from dvsn.config.types import fits, found, spell
from dvsn.data.module import DataModule
from dvsn.engine.averaging import EpochAverage, WeightAverage
from dvsn.engine.boards.find import is_board
from dvsn.engine.boards.showing import ShowOnBoards
from dvsn.engine.callbacks import StatelessRandom
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.devices import Ddp, bf16_choice, device_count, record_flights, resolve_precision, uses_cuda
from dvsn.engine.loggers import CsvLogger, build_loggers, build_parts
from dvsn.engine.progress import Bar, EpochLines
from dvsn.engine.saving import Checkpoints
from dvsn.engine.scores import Scores
from dvsn.engine.screens import Screen, Terminal, find_screen
from dvsn.engine.together import Together
from dvsn.errors import ConfigError, nearest
from dvsn.losses import class_weights
from dvsn.networks.recompute import recompute
from dvsn.networks.shared_norm import share_statistics
from dvsn.optim.distillation_oriented import DistillationOriented
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task
from dvsn.tasks.items import require_items, require_mix, require_views
from dvsn.tasks.recipe import build_task

log = logging.getLogger(__name__)
Config = dict[str, Any]


def build_both(config: Config) -> tuple[Task, DataModule]:
    """The task and the data of a training. Raises `ConfigError` where they do not go together."""
    data, task = build_data(config), make_task(config)
    task.ask_data(data)
    distilled = any(node is not None for node in (config.get("distill") or {}).values())
    require_items(task, data)
    require_mix(task, data, distilled=distilled)
    require_views(task, data, distilled=distilled)
    return task, data


def build_data(config: Config) -> DataModule:
    """The data module of `config["data"]`. No file is opened."""
    data = build(config["data"], path="data")
    assert isinstance(data, DataModule)
    return data


def make_task(config: Config) -> Task:
    """The task with weights drawn from the run's seed, the same on every rank."""
    check_options(config)
    check_channels(config)
    seed_everything(int(config["seed"]), rank=0, epoch=0, batch=0, stage=2)
    task = build_task(config["task"], data=config["data"])
    measure_by(task, config.get("metrics") or {})
    return task


def measure_by(task: Task, given: Config) -> None:
    """Give a task the metrics that the options `metrics` ask for; null: as the task has it. Raises
    `ConfigError` for an option that the task has not, and a value that it cannot have."""
    owners = [owner for owner in type(task).__mro__ if "use_metrics" in vars(owner)]
    known: Config = {}
    for owner in owners:
        hints = get_type_hints(vars(owner)["use_metrics"])
        known = {key: hint for key, hint in hints.items() if key not in ("return", "options")}
        if "options" not in hints:  # else it passes them on to its base
            break
    wanted = {key: value for key, value in given.items() if value is not None}
    for key, value in wanted.items():
        if key not in known:
            raise ConfigError(
                f"metrics.{key}: the task '{task.kind}' has no such option. {nearest(key, known)}"
            )
        if not fits(value, known[key]):
            raise ConfigError(f"metrics.{key}: expected {spell(known[key])}, {found(value)}")
    task.use_metrics(**wanted)


def build_trainer(config: Config, task: Task, *, fitting: bool = True) -> pl.Trainer:
    """The Lightning trainer of a config, with dvsn's callbacks, strategy and checkpoint files."""
    check_options(config)
    options = {key: value for key, value in config["trainer"].items() if key not in TRAINER_REFUSED}
    quick = smoke(options)
    timeout = timedelta(seconds=float(options.pop("process_timeout", PROCESS_TIMEOUT)))
    cuda = uses_cuda(options)
    options["precision"] = resolve_precision(options.get("precision", "auto"), cuda=cuda)
    count = device_count(options)
    if fitting:
        check_optimiser(config, task, count)
        check_clipping(config, task, str(options["precision"]))
    if cuda and count > 1 and fitting:
        record_flights(Path(config["run_dir"]))
    own = {key: options.pop(key, None) for key in OWN_OPTIONS}
    if options.get("strategy") == "fsdp":
        check_fsdp(config, task)
    share_work(options, own, task, cuda=cuda, fitting=fitting, timeout=timeout)
    if fitting and task.distiller is not None:
        shorten(options, task.distiller.share)
        extend(options, task.distiller.initial_epochs, config.get("distillation") or {})
    if not task.automatic_optimization:  # the task does these itself, see its docstring
        options.update(gradient_clip_val=None, gradient_clip_algorithm=None, accumulate_grad_batches=1)

    if in_channels_last(config):
        task.to_channels_last()
    if config.get("gradient_checkpointing") and fitting:
        spare_memory(config, task)
    if config.get("compile"):
        task.compile_networks()
    screen = find_screen() if options.get("enable_progress_bar", True) is not False else None
    options["enable_progress_bar"] = screen is not None
    folder = Path(config["run_dir"])
    loggers = build_loggers(config) if fitting else []
    if quick:
        loggers = [logger for logger in loggers if isinstance(logger, CsvLogger)]
    try:
        return pl.Trainer(
            **options,
            logger=loggers or False,
            callbacks=build_callbacks(config, screen=screen, fitting=fitting),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder),
            use_distributed_sampler=False,
            enable_checkpointing=fitting,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, LookupError) as error:
        raise ConfigError(f"trainer: {str(error).strip()}") from error
    except pl.utilities.exceptions.MisconfigurationException as error:  # type: ignore[attr-defined]
        raise ConfigError(f"trainer: {str(error).strip()}") from error


def share_work(
    options: Config, own: Config, task: Task, *, cuda: bool, fitting: bool, timeout: timedelta
) -> None:
    """Put the strategy of several processes, and what goes with it, into the options of Lightning's trainer."""
    count, fsdp = device_count(options), options.get("strategy") == "fsdp"
    if own["fsdp_checkpoint"] == "sharded" and not fsdp:
        raise ConfigError(
            "trainer.fsdp_checkpoint: found sharded, which is for trainer=fsdp. Set trainer.fsdp_checkpoint=whole, or "
            "trainer=fsdp."
        )
    if options.get("sync_batchnorm") and (fsdp or not cuda):
        if count > 1 and fitting:
            share_statistics(task)
        options["sync_batchnorm"] = False
    if fsdp:
        options["inference_mode"] = False  # gathered parameters outlive a validation
    if count > 1 and isinstance(options.get("strategy", "auto"), str):
        if fsdp and fitting:
            from dvsn.engine.sharded import Sharded  # and the half second of torch's part for it

            options["strategy"] = Sharded(
                timeout=timeout,
                teacher=own["fsdp_teacher"] or "sharded",
                checkpoint=own["fsdp_checkpoint"] or "whole",
            )
        else:
            options["strategy"] = ddp(str(options["strategy"]), own, task, timeout)
    elif fsdp:
        options["strategy"] = "auto"  # a single process keeps everything


def spare_memory(config: Config, task: Task) -> None:
    """Recompute the stages of the student that `gradient_checkpointing` names. Raises `ConfigError`."""
    if config.get("compile"):
        raise ConfigError(
            "gradient_checkpointing: a compiled network chooses itself what it keeps. Set compile=false or "
            "gradient_checkpointing=null"
        )
    recompute(task.student, config["gradient_checkpointing"])


OWN_OPTIONS = (
    "ddp_bucket_mb", "ddp_bucket_view", "ddp_static_graph", "ddp_compress", "fsdp_teacher", "fsdp_checkpoint",
)  # fmt: skip
"""Options of `trainer` that are of a strategy, and not Lightning's."""


def ddp(strategy: str, own: Config, task: Task, timeout: timedelta) -> Ddp:
    """DDP with what the task needs and the config asks for. Raises `ConfigError` for a graph that is not static."""
    partly = task.distiller is not None and task.distiller.needs_unused_parameters
    unused = task.needs_unused_parameters or partly or strategy.endswith("_true")
    static = bool(own["ddp_static_graph"])
    if static and (partly or not task.automatic_optimization):
        what = (
            "methods that do not count in every epoch"
            if partly
            else f"task={task.kind}, with two optimisers,"
        )
        raise ConfigError(
            f"trainer.ddp_static_graph: found true, but {what} use other parameters from step to step. Set "
            "trainer.ddp_static_graph=false"
        )
    return Ddp(
        find_unused_parameters=unused and not static,
        static_graph=static,
        gradient_as_bucket_view=bool(own["ddp_bucket_view"]),
        bucket_cap_mb=own["ddp_bucket_mb"] or 25,
        compress=own["ddp_compress"],
        timeout=timeout,
    )


def check_fsdp(config: Config, task: Task) -> None:
    """Refuse what does not go together with shared parameters. Raises `ConfigError`."""
    trainer, what = config["trainer"], "trainer.strategy: fsdp"
    if not task.automatic_optimization:
        raise ConfigError(
            f"{what} is for tasks of one optimiser, and task={task.kind} has two. Set trainer.strategy=ddp."
        )
    for name in ("ema", "swa", "compile"):
        if config.get(name):
            off = "false" if name == "compile" else "null"
            raise ConfigError(
                f"{what} does not go with {name}={config[name]}. Set {name}={off} or trainer.strategy=ddp."
            )
    if task.distiller is not None and task.distiller.stages:
        names = ", ".join(name for name, _ in task.distiller.stages)
        raise ConfigError(
            f"{what} settles once which parameters learn, and {names} has an initial stage in which others do. Set "
            "trainer.strategy=ddp"
        )
    if trainer.get("gradient_clip_val") and task.distiller is not None and list(task.distiller.parameters()):
        raise ConfigError(
            f"{what} cannot clip the gradients of methods of distillation that learn together with the network's. Set "
            "trainer.gradient_clip_val=null or trainer.strategy=ddp."
        )
    if config.get("channels_last") is True:
        raise ConfigError(f"{what} needs plain memory layouts. Set channels_last=false.")
    if str(trainer.get("precision", "auto")) not in ("auto", "32", "32-true", "bf16-mixed", "bf16"):
        raise ConfigError(
            f"trainer.precision: found {trainer['precision']}; fsdp runs in 32-true and bf16-mixed. Set one of them, or "
            "trainer.strategy=ddp."
        )


def in_channels_last(config: Config) -> bool:
    """Whether the networks of a run use the memory layout channels_last."""
    if config["trainer"].get("strategy") == "fsdp":
        return False
    wanted, cuda = config.get("channels_last", "auto"), uses_cuda(config["trainer"])
    return wanted is True or (wanted == "auto" and (cuda or bf16_choice(cuda=False).fast))


def build_callbacks(config: Config, *, screen: Screen | None, fitting: bool) -> list[Any]:
    """dvsn's callbacks and those of the group; when fitting also the lines of the log, the average of the
    weights and the checkpoints. `screen` is where the progress is drawn."""
    callbacks: list[Any] = [StatelessRandom(seed=int(config["seed"])), Together()]
    if screen is not None:
        callbacks.append(Bar(screen))
    folder = Path(config["run_dir"])
    if fitting and any(map(is_board, (config.get("logger") or {}).values())):
        callbacks.append(ShowOnBoards(folder))
    callbacks += build_parts(config, "callbacks")
    if not fitting:
        return callbacks
    monitor, saving = config.get("monitor") or {}, config.get("checkpoint") or {}
    width = screen.width() if isinstance(screen, Terminal) else None
    callbacks.append(EpochLines(monitor=monitor.get("name"), width=width))
    callbacks.append(Scores(monitor=monitor.get("name"), mode=monitor.get("mode", "min")))
    if config.get("ema"):
        callbacks.append(WeightAverage(decay=float(config["ema"])))
    if config.get("swa") is not None:
        callbacks.append(EpochAverage(start=int(config["swa"])))
    saved = Checkpoints(
        folder=str(folder / "checkpoints"),
        monitor=monitor.get("name"),
        mode=monitor.get("mode", "min"),
        every_n_epochs=saving.get("every_n_epochs", 1),
        every_n_steps=saving.get("every_n_steps"),
        save_weights=saving.get("weights", False),
        config=config,
    )
    return [*callbacks, saved]


def smoke(options: Config) -> bool:
    """Whether this is a `fast_dev_run`, whose trainer has one epoch of a few batches. Checkpoints are written
    and pictures drawn, as Lightning's own would not."""
    batches = int(options.pop("fast_dev_run", 0) or 0)
    if batches:
        options.update(
            dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), batches)
        )
        options.update(
            max_epochs=1, max_steps=-1, max_time=None, val_check_interval=1.0, check_val_every_n_epoch=1
        )
        options.update(num_sanity_val_steps=0, log_every_n_steps=1)
        options.update(min_epochs=None, min_steps=None)
    return batches > 0


def shorten(options: Config, share: float) -> None:
    """Leave a share of the epochs, at least one, for a method that asks for less."""
    epochs = options.get("max_epochs")
    if share < 1 and epochs is not None and epochs > 0:
        options["max_epochs"] = max(1, round(epochs * share))


def check_optimiser(config: Config, task: Task, devices: int) -> None:
    """Refuse DOT where it cannot take the gradients of the task and of distillation apart."""
    chosen = [getattr(task, name, None) for name in ("optim", "optim_discriminator")]
    if not any(getattr(each, "func", None) is DistillationOriented for each in chosen):
        return
    what = "optim: DOT makes two backward passes over one forward pass"
    if not task.automatic_optimization:
        raise ConfigError(f"{what}, and task={task.kind} makes its own. Choose another optimiser.")
    if devices > 1:
        raise ConfigError(
            f"{what}, which DDP does not allow: found {devices} devices. Set trainer.devices=1 or optim=sgd."
        )
    if config.get("compile"):
        raise ConfigError(f"{what}, which a compiled network does not allow. Set compile=false or optim=sgd.")
    trainer = config["trainer"]
    if trainer.get("gradient_clip_val") and trainer.get("gradient_clip_algorithm") == "value":
        raise ConfigError(
            "trainer.gradient_clip_algorithm: found value, which has no meaning for the two gradients of DOT. Set "
            "trainer.gradient_clip_algorithm=norm"
        )
    if task.distiller is None:
        log.warning("optim: DOT without distillation is SGD with momentum.")


def check_clipping(config: Config, task: Task, precision: str) -> None:
    """Refuse a fused optimiser whose gradients shall be clipped under mixed precision: it takes them as they are."""
    clipped = config["trainer"].get("gradient_clip_val")
    for name in ("optim", "optim_discriminator"):
        chosen = getattr(getattr(task, name, None), "keywords", {})
        if clipped and chosen.get("fused") and precision.endswith("mixed"):
            path = name if name == "optim" else f"task.{name}"
            raise ConfigError(
                f"{path}.fused: found true with trainer.gradient_clip_val={clipped} and precision {precision}, which go "
                f"together in full precision only. Set {path}.fused=false or trainer.precision=32-true"
            )


def extend(options: Config, initial: int, distillation: Config) -> None:
    """Make room for the initial stages of distillation in the trainer's options."""
    epochs = options.get("max_epochs")
    if not initial or epochs is None or epochs < 0:
        return
    if distillation.get("on_top", True):
        options["max_epochs"] = epochs + initial
    elif initial >= epochs:
        raise ConfigError(
            f"trainer.max_epochs: found {epochs}, and the initial stages of distillation alone take {initial}. Set "
            f"trainer.max_epochs={initial + 1} or more, or distillation.on_top=true"
        )


def keep_class_weights(config: Config) -> None:
    """Put the numbers of a class-weights file into the recipe, so that a checkpoint does not need the file."""
    loss = config["task"].get("loss") or {}
    name = loss.get("class_weights")
    if isinstance(name, str) and name not in class_weights.BUILT_IN:
        loss["class_weights"] = list(class_weights.resolve(name, classes=int(loss["classes"])) or ())
