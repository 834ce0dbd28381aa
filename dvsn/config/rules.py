"""Checks of options whose values have a meaning, made before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from dvsn.config.allow import check, join
from dvsn.config.types import Rules, fits, found, number, require, spell, whole
from dvsn.errors import ConfigError, nearest
from dvsn.reading import check_unpacked

Count = int | None


Share = int | float | None


Precision = Literal[
    "auto", 16, 32, 64, "16", "32", "64", "bf16", "16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true",
    "64-true", "transformer-engine", "transformer-engine-float16",
]  # fmt: skip


ENGINES = ("eager", "folded", "channels_last", "compiled", "onnx", "auto")
"""The forms of `dvsn.distill.deployed` in which a teacher teaches, and their choice by a measurement."""


TRAINER_OPTIONS: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    "precision": Precision,
    "devices": int | list[int] | str,
    "num_nodes": int,
    "max_epochs": Count,
    "min_epochs": Count,
    "max_steps": int,
    "min_steps": Count,
    "limit_train_batches": Share,
    "limit_val_batches": Share,
    "limit_test_batches": Share,
    "limit_predict_batches": Share,
    "overfit_batches": int | float,
    "val_check_interval": Share,
    "check_val_every_n_epoch": Count,
    "num_sanity_val_steps": Count,
    "log_every_n_steps": Count,
    "accumulate_grad_batches": int,
    "gradient_clip_val": Share,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "deterministic": bool | Literal["warn"] | None,
    "benchmark": bool | None,
    "inference_mode": bool,
    "fast_dev_run": bool | int,
    "sync_batchnorm": bool,
    "use_distributed_sampler": bool,
    "detect_anomaly": bool,
    "enable_checkpointing": bool | None,
    "enable_progress_bar": bool | None,
    "enable_model_summary": bool | None,
    "reload_dataloaders_every_n_epochs": int,
    "barebones": bool,
    **dict.fromkeys(
        ("strategy", "logger", "callbacks", "plugins", "profiler", "max_time", "model_registry"), Any
    ),
    "default_root_dir": str | None,
    "process_timeout": float,
    "ddp_bucket_mb": float,
    "ddp_bucket_view": bool,
    "ddp_static_graph": bool,
    "ddp_compress": Literal["bf16"] | None,
    "fsdp_teacher": Literal["sharded", "replicated"],
    "fsdp_checkpoint": Literal["whole", "sharded"],
}


TRAINER_REFUSED: dict[str, tuple[Any, str]] = {
    "use_distributed_sampler": (False, "dvsn's own batches are shared between processes, and data.batch_size is "
                                       "their total. Leave it out."),
    "overfit_batches": (0, "would draw other samples every epoch. To learn a few by heart set data.train_samples=8 "
                           "data.splits.val=train trainer.limit_val_batches=8"),
    "reload_dataloaders_every_n_epochs": (0, "a batch is a function of seed and epoch, and nothing changes by reading the "
                                             "data set again. Leave it out."),
    "limit_predict_batches": (None, "nothing is predicted here. `dvsn predict` takes a folder or a list of pictures."),
    "enable_checkpointing": (True, "last.ckpt and best.ckpt are always written. Set checkpoint.every_n_epochs=1000000 for "
                                   "one at the end."),
    "barebones": (False, "is Lightning's loop without what dvsn needs. Set callbacks=none logger=none "
                         "trainer.enable_progress_bar=false"),
    "model_registry": (None, "is Lightning's own service. Set logger=wandb logger.artifact=true"),
    "logger": (None, "is a group of its own. Set logger=csv"),
    "callbacks": (None, "is a group of its own. Set callbacks=default"),
    "plugins": (None, "are dvsn's own: whole checkpoint files. Leave it out."),
    "default_root_dir": (None, "is the folder of the run. Set hydra.run.dir=FOLDER"),
}  # fmt: skip
"""Options of Lightning's trainer that would do nothing here, or harm: the value that is allowed all the same, and what to
do instead."""


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse options of the trainer that do nothing, and values that have no meaning."""
    for key, (neutral, advice) in TRAINER_REFUSED.items():
        if key in trainer and trainer[key] is not None and trainer[key] != neutral:
            raise ConfigError(f"trainer.{key}: found {trainer[key]!r}; {advice}")
    _check_length(trainer)
    every, between = trainer.get("check_val_every_n_epoch", 1), trainer.get("val_check_interval", 1.0)
    share, quick = trainer.get("limit_train_batches", 1.0), trainer.get("fast_dev_run", False)
    timeout, strategy = trainer.get("process_timeout", 300), trainer.get("strategy", "auto")
    bucket = trainer.get("ddp_bucket_mb", 25)
    rules: Rules = (
        ("check_val_every_n_epoch", every, every is None or whole(every, 1), "null, or a whole number, 1 or more"),
        ("val_check_interval", between, between is None or (number(between) and between > 0), "a share of an epoch "
         "such as 0.5, or a number of batches"),
        ("limit_train_batches", share, share is None or (number(share) and share > 0), "a share of an epoch such as 0.5, or "
         "a number of batches"),
        ("fast_dev_run", quick, isinstance(quick, bool) or whole(quick, 0), "true, false, or a number of batches"),
        ("process_timeout", timeout, number(timeout) and timeout > 0, "a number of seconds above 0"),
        ("ddp_bucket_mb", bucket, number(bucket) and bucket > 0, "a number of MiB above 0"),
        ("strategy", strategy, not isinstance(strategy, str) or strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}; "
         "others were never tried with dvsn's batches and checkpoints"),
    )  # fmt: skip
    require(rules, "trainer.")
    precision, time = trainer.get("precision", "auto"), trainer.get("max_time")
    if str(precision) in ("64", "16-true", "bf16-true", "64-true") or str(precision).startswith(
        "transformer"
    ):
        raise ConfigError(
            f"trainer.precision: found {precision}, in which pictures and losses, which are float32, cannot be worked with. "
            "Set trainer.precision=32-true or bf16-mixed or 16-mixed"
        )
    if time is not None and not isinstance(time, str | Mapping):
        raise ConfigError(
            f"trainer.max_time: found {time!r}, expected days:hours:minutes:seconds, such as 00:12:00:00."
        )


def _check_length(trainer: Mapping[str, Any]) -> None:
    """Refuse a run in which nothing is trained, or too short for its first validation, as far as that can be said before
    batches are counted; `dvsn.engine.validations` counts them."""
    if trainer.get("fast_dev_run"):
        return  # which is one epoch with a validation, whatever else is said
    epochs: Any = trainer.get("max_epochs")
    every: Any = trainer.get("check_val_every_n_epoch")
    for key in ("max_epochs", "max_steps"):
        if trainer.get(key) == 0:
            raise ConfigError(
                f"trainer.{key}: found 0, with which nothing is trained. Leave it out, or measure a checkpoint with "
                "python -m dvsn.evaluate checkpoint=PATH"
            )
    for unit in ("epochs", "steps"):
        least: Any = trainer.get(f"min_{unit}")
        most: Any = trainer.get(f"max_{unit}")
        if whole(least, 1) and whole(most, 1) and least > most:
            raise ConfigError(
                f"trainer.min_{unit}: found {least}, but the run ends after {most}. Set trainer.max_{unit}={least} or more, "
                f"or trainer.min_{unit}={most} or less."
            )
    unwanted = trainer.get("limit_val_batches", 1.0) == 0
    if whole(epochs, 1) and whole(every, 1) and not unwanted and every > epochs:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch: found {every}, and the run has {epochs} epochs, so it would never be "
            f"validated. Set trainer.check_val_every_n_epoch={epochs} or less, or trainer.limit_val_batches=0 for a run "
            "without validation."
        )


STRATEGIES = ("auto", "fsdp", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse values of the top-level options that have no meaning. Raises `ConfigError`."""
    _check_trainer(config["trainer"])
    monitor, saving = config.get("monitor") or {}, config.get("checkpoint") or {}
    saving = saving if isinstance(saving, dict) else {}  # evaluate's `checkpoint` is a file
    if "task" in config and not isinstance(config.get("checkpoint") or {}, Mapping):
        raise ConfigError(
            f"checkpoint: found {config['checkpoint']!r}, expected options such as checkpoint.every_n_epochs=1. To go on "
            f"from a file set resume={config['checkpoint']}"
        )
    for key in ("resume", "weights"):
        value = config.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigError(f"{key}: found {value!r}, expected null or the path of a checkpoint.")
    force = config.get("resume_force")
    if force is not None and not (isinstance(force, list) and all(isinstance(each, str) for each in force)):
        raise ConfigError(f"resume.force: found {force!r}, expected names of options, such as [optim.lr].")
    ema, clip = config.get("ema"), config["trainer"].get("gradient_clip_val")
    steps, epochs = saving.get("every_n_steps"), saving.get("every_n_epochs", 1)
    stages = config.get("gradient_checkpointing")
    swa, length = config.get("swa"), config["trainer"].get("max_epochs")
    room = length if whole(length, 1) else None
    rules = (
        ("seed", config["seed"], whole(config["seed"], 0), "a whole number, 0 or more"),
        ("monitor.mode", monitor.get("mode"), monitor.get("mode", "min") in ("min", "max"), "min or max"),
        ("ema", ema, ema is None or (number(ema) and 0 < ema < 1), "null, or a decay between 0 and 1 such as 0.999"),
        ("swa", swa, swa is None or (whole(swa, 0) and (room is None or swa < room)),
         "null, or an epoch from 0 on, below trainer.max_epochs"),
        ("ema", ema, ema is None or swa is None, "null with swa, which is an average already"),
        ("gradient_checkpointing", stages, stages is None or (isinstance(stages, list) and stages != [] and
         all(isinstance(each, str) for each in stages)), "null, or a list of patterns such as [layer1, 'layer[23]']"),
        ("checkpoint.every_n_epochs", epochs, whole(epochs, 1), "a whole number, 1 or more"),
        ("checkpoint.every_n_steps", steps, steps is None or whole(steps, 1), "null, or a whole number, 1 or more"),
        ("channels_last", config.get("channels_last"), config.get("channels_last", "auto") in ("auto", True, False),
         "auto, true or false"),
        ("trainer.gradient_clip_val", clip, clip is None or (number(clip) and clip >= 0), "null, or 0 or more"),
    )  # fmt: skip
    require(rules)
    _check_share(config)
    check_distillation(config)


def _check_share(config: Mapping[str, Any]) -> None:
    """Refuse a batch that does not divide by the devices, where their number is said, before a process is started."""
    data, trainer = config.get("data"), config["trainer"]
    if "task" not in config or not isinstance(data, Mapping):
        return
    devices, nodes, batch = trainer.get("devices"), trainer.get("num_nodes", 1), data.get("batch_size")
    count = len(devices) if isinstance(devices, list) else devices
    if whole(count, 1) and whole(nodes, 1) and whole(batch, 1) and batch % (world := count * nodes):
        raise ConfigError(
            f"data.batch_size: {batch} is the total over devices and does not divide by {world} of them. Set "
            f"data.batch_size={world * max(1, batch // world)} or another multiple of {world}."
        )


def check_channels(config: Mapping[str, Any]) -> None:
    """Refuse means of another number of channels than the pictures have. Raises `ConfigError`."""
    data, task = config.get("data"), config.get("task")
    if not isinstance(data, Mapping) or not isinstance(task, Mapping) or data.get("label_classes"):
        return
    channels, mean = data.get("input_channels", 3), task.get("mean")
    if not isinstance(mean, list) or not isinstance(channels, int) or len(mean) == channels:
        return
    raise ConfigError(
        f"task.mean: has {len(mean)} numbers, and pictures have {channels} channels (data.input_channels). Expected as "
        "many in task.mean and in task.std. `python -m dvsn.data stats` with the same data=... computes them."
    )


PART = ("weight", "taps", "start", "end", "ramp", "method", "task_weight")


def check_distillation(config: Mapping[str, Any]) -> None:
    """Refuse methods without a teacher, a teacher without methods, and options of them that have no meaning."""
    chosen, options = config.get("distill"), config.get("distillation") or {}
    methods = {name: node for name, node in (chosen or {}).items() if node is not None}
    teachers, network = config.get("teacher"), options.get("network")
    teachers = teachers if isinstance(teachers, list) else [] if teachers is None else [teachers]
    if not all(isinstance(each, str) and each for each in teachers):
        raise ConfigError(
            f"teacher: {found(config['teacher'])}, expected the path of a checkpoint, or a list of paths."
        )
    if methods and not teachers and network is None:
        raise ConfigError(
            f"distill: {', '.join(methods)} needs a teacher. Set teacher=PATH, a checkpoint of dvsn or a converted one, or "
            "distillation.network for a network of your own."
        )
    if teachers and network is not None:
        raise ConfigError("teacher, distillation.network: found both, expected one of them.")
    if "ema" in teachers and (len(teachers) > 1 or not config.get("ema")):
        raise ConfigError(
            "teacher: ema is the moving average of the student's own weights, by itself. Set teacher=ema and its decay, "
            "such as ema=0.99"
        )
    if "distill" in config and chosen is None and (teachers or network is not None):
        raise ConfigError(
            "teacher: is given, and nothing is learned from it. Choose a method such as distill=kd, or distill=none for the "
            "student alone."
        )
    precision = str(config["trainer"].get("precision") or "32-true") if methods else "32-true"
    if precision.endswith("-true") and precision != "32-true":
        raise ConfigError(
            f"trainer.precision: found {precision}, but distillation works in float32. Use 32-true, bf16-mixed or "
            "16-mixed."
        )
    for name, node in methods.items():
        _check_part(node, f"distill.{name}")
    _check_shared(options)


def _check_part(node: Any, path: str) -> None:
    """One method of `distill`: its weight, taps and epochs."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path}: {found(node)}, expected a method's options.")
    for key in node:
        if key not in PART:
            raise ConfigError(f"{path}.{key}: unknown key. {nearest(str(key), PART)}")
    for key in ("weight", "method"):
        if node.get(key) is None:
            raise ConfigError(f"{path}.{key}: is missing.")
    taps, end = node.get("taps"), node.get("end")
    lists = (
        isinstance(taps, list)
        and taps != []
        and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
            for pair in taps
        )
    )
    own: Rules = (
        ("weight", node["weight"], number(node["weight"]) and node["weight"] >= 0, "a number, 0 or more"),
        ("start", node.get("start"), whole(node.get("start", 0), 0), "a whole number, 0 or more"),
        ("ramp", node.get("ramp"), whole(node.get("ramp", 0), 0), "a whole number, 0 or more"),
        ("end", end, end is None or whole(end, node.get("start", 0) + 1), "null, or an epoch after start"),
        ("task_weight", node.get("task_weight"), node.get("task_weight") is None or
         (number(node["task_weight"]) and node["task_weight"] >= 0), "null, or a number, 0 or more"),
        ("taps", taps, taps is None or isinstance(taps, str) or lists, "null, a role, or [[STUDENT,TEACHER],...]"),
    )  # fmt: skip
    require(own, f"{path}.")


def _check_shared(options: Mapping[str, Any]) -> None:
    """`distillation`: what all methods share."""
    size, weight, rate = options.get("size"), options.get("task_weight"), options.get("stage_lr")
    sides = isinstance(size, list) and len(size) == 2 and all(whole(side, 1) for side in size)
    average, cache = options.get("average", "probabilities"), options.get("cache")
    engine = options.get("engine", "folded")
    shared: Rules = (
        ("size", size, size is None or sides, "null, or [HEIGHT, WIDTH]"),
        ("task_weight", weight, weight is None or (number(weight) and weight >= 0), "null, or a number, 0 or more"),
        ("stage_lr", rate, rate is None or (number(rate) and rate > 0), "null, or a number above 0"),
        ("cache", cache, cache is None or (isinstance(cache, str) and cache != ""), "null, or a folder"),
        ("average", average, average in ("probabilities", "logits"), "probabilities or logits"),
        ("engine", engine, engine in ENGINES, f"one of {', '.join(ENGINES)}"),
    )  # fmt: skip
    require(shared, "distillation.")


def validate(tree: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Everything that can be said about a resolved config without importing what it builds.

    The allow-list; the trainer's options; the type of each value of `defaults`, the same composition without the values
    set by hand (not resolved); and `check_options`. Options of a node with `_target_` are left to `build.inspect_tree`,
    which imports the class. Raises `ConfigError` for the first fault.
    """
    check(tree)
    check_unpacked(tree.get("max_unpacked"))
    for key in tree if defaults else ():
        if key not in (defaults or {}):
            raise ConfigError(f"{key}: unknown key. {nearest(key, defaults or {})}")
    trainer, usual = tree.get("trainer"), (defaults or {}).get("trainer")
    if isinstance(trainer, Mapping):
        _validate_trainer(trainer, usual if isinstance(usual, Mapping) else {})
    _validate(tree, defaults, "")
    if isinstance(trainer, Mapping) and "seed" in tree:
        check_options(tree)


def _validate_trainer(trainer: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    for key, value in trainer.items():
        path, hint = f"trainer.{key}", TRAINER_OPTIONS.get(key, Any)
        if key not in TRAINER_OPTIONS and key not in usual and usual:
            useful = {*TRAINER_OPTIONS, *usual} - TRAINER_REFUSED.keys()
            raise ConfigError(f"{path}: unknown option. {nearest(key, useful)}")
        if not fits(value, hint):
            raise ConfigError(f"{path}: expected {spell(hint)}, {found(value)}")
    devices = trainer.get("devices", "auto")
    words = isinstance(devices, str) and devices != "auto" and not re.fullmatch(r"-1|\d+(,\d+)*,?", devices)
    if words or devices in (0, "0", []):
        raise ConfigError(
            f"trainer.devices: expected auto, a number of devices, or a list of their ids, {found(devices)}"
        )


def _validate(node: Any, default: Any, path: str) -> None:
    if isinstance(node, list | tuple):
        for i, value in enumerate(node):
            same = isinstance(default, list | tuple) and i < len(default)
            _validate(value, default[i] if same else None, join(path, i))
    if not isinstance(node, Mapping):
        return
    alike = isinstance(default, Mapping) and default.get("_target_") == node.get("_target_")
    default = default if alike else {}
    for key, value in node.items():
        usual = default.get(key)
        part = key in PART and path.startswith("distill.") and path.count(".") == 1  # see check_distillation
        known = "_target_" in node or part or (path == "trainer" and key in TRAINER_OPTIONS)
        hint = None if known else _usual_hint(usual)
        if hint is not None and not fits(value, hint):
            raise ConfigError(
                f"{join(path, key)}: expected {spell(hint)} like the default {usual!r}, {found(value)}"
            )
        _validate(value, usual, join(path, key))


def _usual_hint(default: Any) -> Any:
    """The type that may replace a default value whose class is not known: null, or a value of the same kind."""
    if isinstance(default, bool):
        return bool | None
    if isinstance(default, int | float):
        return float | None
    if isinstance(default, str):
        if "${" in default or default == "???":  # not resolved: unknown
            return None
        return str | float | bool | None  # names may be numbers, and words are often switched off by false
    if isinstance(default, list | tuple):
        numbers = all(isinstance(value, int | float) for value in default)
        return list | float | None if numbers else list | None
    return None
