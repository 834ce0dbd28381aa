"""From a resolved config to a data module, a task and a trainer; and what a run folder records."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from dvsn.atomic import replacing
from dvsn.config.build import build
from dvsn.config.rules import check_options
from dvsn.data.module import DataModule
from dvsn.engine.averaging import WeightAverage
from dvsn.engine.callbacks import Checkpoints, ProgressBar, StatelessRandom
from dvsn.engine.checkout import git_state
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.engine.loggers import CsvLogger
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.blocks import class_layers
from dvsn.optim.distillation_oriented import DistillationOriented
from dvsn.seeding import seed_everything
from dvsn.tasks.base import Task
from dvsn.tasks.recipe import build_task, read_recipe
from dvsn.weights import read_checkpoint, require_equal

log = logging.getLogger(__name__)
Config = dict[str, Any]


class Ddp(DDPStrategy):
    """DDP whose evaluation does not go through the wrapper.

    The wrapper broadcasts buffers in every forward, so ranks with unequal numbers of validation batches
    would wait for each other forever. Batch-norm statistics are shared once before evaluation instead.
    """

    def share_buffers(self) -> None:
        for name, buffer in self.lightning_module.named_buffers():  # type: ignore[union-attr]
            if not name.startswith("distiller."):
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_start(self) -> None:
        self.share_buffers()

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware, where it is faster; elsewhere it is far slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


def resolve_precision(wanted: str | int, *, cuda: bool) -> str | int:
    """`auto` -> bf16-mixed where the hardware has it, else 32-true."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if (torch.cuda.is_bf16_supported() if cuda else cpu_has_bf16()) else "32-true"


def uses_cuda(trainer: Config) -> bool:
    return trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def device_count(trainer: Config) -> int:
    """How many processes the trainer's `devices` and `num_nodes` mean."""
    devices = trainer.get("devices", 1)
    here = torch.cuda.device_count() if uses_cuda(trainer) else 1
    if isinstance(devices, list):
        count = len(devices)
    elif isinstance(devices, str) and not devices.lstrip("-").isdigit():
        count = here if devices == "auto" else len(devices.split(","))
    else:
        count = here if int(devices) == -1 else int(devices)
    return max(1, count) * int(trainer.get("num_nodes", 1))


def build_data(config: Config) -> DataModule:
    """The data module of `config["data"]`. No file is opened."""
    data = build(config["data"], path="data")
    assert isinstance(data, DataModule)
    return data


def make_task(config: Config) -> Task:
    """The task with weights drawn from the run's seed, the same on every rank."""
    check_options(config)
    seed_everything(int(config["seed"]), rank=0, epoch=0, batch=0, stage=2)
    task = build_task(config["task"], data=config["data"])
    task.use_metrics(**config.get("metrics", {}))
    return task


def start_from(task: Task, path: Path) -> None:
    """Load the networks that the checkpoint holds; one that it lacks as a whole stays fresh.

    From a checkpoint of the same task everything must fit, except that the class layers (`network.classifier`)
    start anew when the number of classes differs. From another task, such as the ImageNet classifier of the
    same family, or from a relative that the network can `adopt`, every tensor of equal name and shape is taken.
    What was taken and what was not is logged. Raises `CheckpointError` when it does not fit, or hardly anything
    does.
    """
    content = read_checkpoint(path)
    header = read_recipe(content, path)
    for name, network in task.networks.items():
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        if not state:
            log.warning("weights: %s has no %s, which starts anew", path, name)
            continue
        own, same = network.state_dict(), header.get("task") == task.kind
        adopt = getattr(network, "adopt", None)  # renames what a relative calls otherwise
        if adopt is not None and set(state) != set(own):
            state, same = adopt(state), False
        fitting = {
            key: value
            for key, value in state.items()
            if key in own and isinstance(value, torch.Tensor) and value.shape == own[key].shape
        }
        if same:
            heads = tuple(f"{path}." for path in class_layers(network))
            fresh = [key for key in own if key not in fitting]
            if any(not key.startswith(heads or ("/",)) for key in fresh) or any(
                key not in own for key in state
            ):
                require_equal(own, state, f"{path}, {name}")
        elif len(fitting) < len(own) // 3:
            raise CheckpointError(
                f"{path}: of the {len(own)} tensors of {type(network).__name__} only {len(fitting)} are in this "
                f"checkpoint of the task '{header.get('task')}'. Expected a network of the same family."
            )
        network.load_state_dict(own | fitting, strict=True)
        if len(fitting) < len(own) or len(fitting) < len(state):
            log.info(
                "weights     %d tensors of %s taken for %s; %d start anew, %d of the file not used",
                len(fitting), path, name, len(own) - len(fitting), len(state) - len(fitting),
            )  # fmt: skip


def build_trainer(config: Config, task: Task, *, fitting: bool = True) -> pl.Trainer:
    """The Lightning trainer of a config, with dvsn's callbacks, strategy and checkpoint files."""
    check_options(config)
    options = dict(config["trainer"])
    cuda = uses_cuda(options)
    options["precision"] = resolve_precision(options.get("precision", "auto"), cuda=cuda)
    count = device_count(options)
    if fitting:
        check_optimiser(config, task, count)
    if options.get("sync_batchnorm") and not cuda:
        if count > 1:
            log.warning("trainer.sync_batchnorm: needs CUDA devices; batch norm stays each process's own.")
        options["sync_batchnorm"] = False
    if count > 1 and options.get("strategy", "auto") in ("auto", "ddp"):
        partly = task.distiller is not None and task.distiller.needs_unused_parameters
        options["strategy"] = Ddp(find_unused_parameters=task.needs_unused_parameters or partly)
    if fitting and task.distiller is not None:
        shorten(options, task.distiller.share)
        extend(options, task.distiller.initial_epochs, config.get("distillation") or {})
    if not task.automatic_optimization:  # the task does these itself, see its docstring
        options.update(gradient_clip_val=None, gradient_clip_algorithm=None, accumulate_grad_batches=1)

    wide = config.get("channels_last", "auto")
    if wide is True or (wide == "auto" and (cuda or cpu_has_bf16())):
        task.to_channels_last()
    if config.get("compile"):
        task.compile_networks()
    folder = Path(config["run_dir"])
    callbacks: list[Any] = [StatelessRandom(seed=int(config["seed"]))]
    if options.get("enable_progress_bar", True):
        callbacks.append(ProgressBar(refresh_rate=1 if sys.stderr.isatty() else 20))
    callbacks += list(build(config.get("callbacks") or {}, path="callbacks").values())
    loggers: list[Any] = []
    if fitting:
        if config.get("ema"):
            callbacks.append(WeightAverage(decay=float(config["ema"])))
        monitor = config.get("monitor") or {}
        saving = config.get("checkpoint") or {}
        callbacks.append(
            Checkpoints(
                folder=str(folder / "checkpoints"),
                monitor=monitor.get("name"),
                mode=monitor.get("mode", "min"),
                every_n_epochs=saving.get("every_n_epochs", 1),
                every_n_steps=saving.get("every_n_steps"),
                save_weights=saving.get("weights", False),
            )
        )
        loggers = build_loggers(config)
    try:
        return pl.Trainer(
            **options,
            logger=loggers or False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder),
            use_distributed_sampler=False,
            enable_checkpointing=fitting,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, LookupError) as error:
        raise ConfigError(f"trainer: {str(error).strip()}") from error
    except pl.utilities.exceptions.MisconfigurationException as error:  # type: ignore[attr-defined]
        raise ConfigError(f"trainer: {str(error).strip()}") from error


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
            "trainer.gradient_clip_algorithm: found value, which has no meaning for the two gradients of DOT. Set norm."
        )
    if task.distiller is None:
        log.warning("optim: DOT without distillation is SGD with momentum.")


def extend(options: Config, initial: int, distillation: Config) -> None:
    """Make room for the initial stages of distillation in the trainer's options."""
    epochs = options.get("max_epochs")
    if not initial or epochs is None or epochs < 0:
        return
    if distillation.get("on_top", True):
        options["max_epochs"] = epochs + initial
    elif initial >= epochs:
        raise ConfigError(
            f"trainer.max_epochs: found {epochs}, and the initial stages of distillation alone take {initial}. Set more, or "
            "distillation.on_top=true."
        )


def build_loggers(config: Config) -> list[Any]:
    """The loggers of the group; W&B goes offline, and says so, when there is no key to log in with."""
    nodes = {key: dict(node) for key, node in (config.get("logger") or {}).items() if isinstance(node, dict)}
    wandb_node = nodes.get("wandb")
    if wandb_node is not None and not wandb_node.get("offline") and not has_wandb_key():
        log.warning("W&B: no API key (WANDB_API_KEY or `wandb login`), so the run is logged offline.")
        wandb_node["offline"] = True
    return list(build(nodes, path="logger").values())


def has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def csv_logger(trainer: pl.Trainer) -> CsvLogger | None:
    return next((item for item in trainer.loggers if isinstance(item, CsvLogger)), None)


# What a run folder records ---------------------------------------------------------------------------


def record_run(folder: Path, config: Config) -> None:
    """config.yaml (resolved), command.txt and environment.json; a resumed run adds its command."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = shlex.join(["python", "-m", "dvsn.train", *sys.argv[1:]])
    with (folder / "command.txt").open("a", encoding="utf-8") as file:
        file.write(f"{command}\n")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Versions, machine and the state of the git checkout that the run starts from."""
    from importlib.metadata import PackageNotFoundError, version

    packages = ("dvsn", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf",
                "albumentations", "numpy", "opencv-python-headless", "wandb")  # fmt: skip
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    versions["torch"] = torch.__version__  # with its build, such as +cu126
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cpu_threads": torch.get_num_threads(),
        "gpus": gpus,
        "versions": versions,
        "git": git_state(Path(__file__).resolve().parent.parent.parent),
    }


def peak_memory() -> int:
    """The most bytes that this process has held so far: on the GPU if there is one, else in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if names:
            return f"{names[0]} x {len(names)}"
    return platform.processor()


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: list[Config]) -> None:
    """A table with the columns of its first row."""
    import csv

    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
