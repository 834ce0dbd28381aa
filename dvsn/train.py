"""`python -m dvsn.train`: compose a config, build everything, train, and say where the results are."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from dvsn import command_line
from dvsn.command_line import UNPACKED, Command, Option
from dvsn.config import python
from dvsn.config.callable_module import make_callable
from dvsn.config.light_imports import import_lightning
from dvsn.engine.records import Run
from dvsn.errors import ConfigError

Config = dict[str, Any]

COMMAND = Command(
    name="train",
    summary="Train a task on a data set.",
    groups=True,
    menu=True,
    sweeps=True,
    options=(
        Option("seed", "0", "everything random derives from it"),
        Option("name", "task_network_data", "runs are kept in runs/NAME/DATE_TIME"),
        Option("resume", "null", "auto: the newest checkpoint of this name that loads; or a path"),
        Option("resume.force", "[]", "options that may be changed in a resumed run, such as [optim.lr]"),
        Option("weights", "null", "start from the networks of a checkpoint, such as a converted one"),
        Option(
            "teacher",
            "null",
            "a checkpoint to learn from, or a list; or ema, its own average; goes with distill=...",
        ),
        Option("distillation.task_weight", "null", "times the task's own loss; 0: without labels"),
        Option("ema", "null", "decay of a moving average of the weights, such as 0.999"),
        Option("swa", "null", "the first epoch of a plain average of the weights, such as 150"),
        Option("compile", "false", "torch.compile the networks"),
        Option(
            "gradient_checkpointing",
            "null",
            "stages that are run again instead of kept, such as [layer1,layer2]",
        ),
        Option("channels_last", "auto", "memory layout: auto, true, false"),
        Option("checkpoint.every_n_steps", "null", "save within an epoch too"),
        Option("trainer.devices", "1", "GPUs or processes; several mean DDP"),
        Option("sweep.jobs", "1", "of -m at the same time, on the same device"),
        Option("data.root", "data/NAME", "where the data set lies"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.train task=pix2pix data=cityscapes data.batch_size=4 trainer.devices=4",
        "python -m dvsn.train -m experiment=pix2pix_paper data=street network=unet_256,resnet_9blocks seed=0,1",
        "python -m dvsn.train task=classification network=resnet8x4 teacher=best.ckpt distill=[kd,at] distill.at.weight=500",
        "python -m dvsn.train -m task=distillation network=resnet8x4 teacher=best.ckpt distill=none,kd,sp,crd seed=0,1,2",
    ),
)


def train(config: Config) -> dict[str, Any]:
    """Train by a resolved, plain config. Returns what result.json holds."""
    import_lightning()
    from dvsn.engine import training  # Lightning, which `--help` and a wrong option do without

    return training.train(config)


def check_config(config: Config) -> None:
    """Refuses a name that cannot be that of a folder, before the folder is made."""
    name = str(config["name"])
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
        raise ConfigError(f"name: found '{name}', expected letters, digits, '.', '_', '-' and '/'.")


def compose_and_train() -> Any:
    """Runs the command line, once or for every job of a sweep."""
    from dvsn.sweep import launcher  # imports Hydra, which `--help` does without

    return launcher.run("train", train, check=check_config, keeps=True)


def called(
    *overrides: str,
    config_dir: str | os.PathLike[str] | None = None,
    allow: Sequence[str] = (),
    **options: Any,
) -> Run:
    """Train, as `python -m dvsn.train` does with the same words: the same recipe, folder and weights, to the bit.

        run = dvsn.train("task=segmentation", "data=mine", config_dir="my_conf", max_epochs=20)

    - `overrides`: options as the command line has them, `key=value`.
    - `options`: the same by name. A dict sets what lies below its key, `**{"optim.lr": 0.1}` a dotted one, and these are
      short: max_epochs, max_steps, max_time, accelerator, devices, precision, limit_train_batches, limit_val_batches,
      enable_progress_bar (of trainer); root, batch_size, workers (of data); lr (of optim).
    - `config_dir`: a folder of YAMLs of your own, laid out like conf/. `allow`: packages of which they may build classes.

    It may be called several times in a process, in a script or a notebook: logging, warnings and Hydra's state are left as
    they were. Raises `ConfigError`, `DataError` and `CheckpointError` for what is yours to mend; Ctrl-C ends the run after
    its batch, and raises `KeyboardInterrupt`.
    """
    result = python.call(
        "train", train, overrides, options, config_dir=config_dir, allow=allow, check=check_config, keeps=True
    )
    return Run.of(result)


make_callable(__name__, called)


def main() -> None:
    command_line.run(compose_and_train, command=COMMAND)


if __name__ == "__main__":
    main()
