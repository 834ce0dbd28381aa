"""Fine-tuning with 8 bits in the loop: the rounded network learns to answer as it did in float32, its own teacher."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from dvsn.config import types
from dvsn.config.partners import shipped
from dvsn.engine import console
from dvsn.engine.callbacks import StatelessRandom
from dvsn.engine.progress import EpochLines
from dvsn.engine.teaching import distil
from dvsn.errors import ConfigError
from dvsn.export import formats, placing
from dvsn.export.graph import Graph
from dvsn.export.shape import Shape
from dvsn.optim.schedules import Cosine

log = logging.getLogger("dvsn")

TAUGHT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "pixels": ("pixel_kd", {}, {}),
    "classes": ("kd", {"weight": 1.0}, {"temperature": 1.0}),
    "heatmaps": ("fpd", {}, {"weighted": False}),
    "points": ("bounded_regression", {}, {"bounded": False, "distance": "l1"}),
    "image": ("gan_compression", {"taps": "last"}, {"feature_weight": 0.0, "output_weight": 100.0}),
}
"""By a task's response: the method of conf/distill by which the network in float32 teaches, and what is set otherwise: a
network that copies itself follows its teacher everywhere, and has no maps to translate."""

MOVING = 2 / 3
"""The share of the steps in which scales are learned; afterwards they stand still."""

LR = 1e-5
TASK_WEIGHT = 0.1


class Plan(NamedTuple):
    """How long the fine-tuning is and how it learns: `lr` of Adam, falling by half a cosine; `task_weight` is that of the
    task's own loss beside distillation by `teacher`, a checkpoint."""

    epochs: int
    lr: float
    task_weight: float
    teacher: str


def read_plan(options: dict[str, Any]) -> Plan | None:
    """The options `finetune` and `finetune.*`; None: nothing is trained. Raises `ConfigError`."""
    epochs, more = options["finetune"], ("lr", "task_weight", "teacher")
    given = {name: options[f"finetune.{name}"] for name in more if options[f"finetune.{name}"] is not None}
    if epochs is None:
        if given:
            raise ConfigError(f"finetune.{next(iter(given))}: goes with finetune=EPOCHS, such as finetune=3.")
        return None
    if not types.whole(epochs, 1):
        raise ConfigError(f"finetune: found {epochs!r}, expected a number of epochs such as 3, or null.")
    if options["precision"] != "int8":
        raise ConfigError(
            f"finetune: is for 8 bits, and precision is {options['precision']}. Set precision=int8, or leave finetune out."
        )
    lr = number("lr", given.get("lr", LR), above=True)
    weight = number("task_weight", given.get("task_weight", TASK_WEIGHT), above=False)
    return Plan(epochs, lr, weight, str(given.get("teacher", options["checkpoint"])))


def number(name: str, value: Any, *, above: bool) -> float:
    """A finite number of at least 0, or above it."""
    if not types.number(value) or not 0 <= value < float("inf"):
        raise ConfigError(f"finetune.{name}: found {value!r}, expected a number such as 0.00001.")
    if above and value == 0:
        raise ConfigError(f"finetune.{name}: found 0, with which nothing is learned.")
    return float(value)


class Tuned(NamedTuple):
    """The ONNX model in 8 bits, and what makes that of the same network without rounding, with operations of equal names."""

    model: Any
    plain: Callable[[], Any]
    about: dict[str, Any]


def tuned(
    task: Any,
    graph: Graph,
    shape: Shape,
    images: Sequence[dict[str, np.ndarray]],
    plan: Plan,
    data: Any,
    *,
    gpu: bool,
) -> Tuned:
    """A copy of the graph's network, rounded to 8 bits and trained on `data`, the data module of the recipe.

    `task` is that of the checkpoint, with what only training reads; `images` are inputs of the graph, of which the first
    scales are. The task must be one that `require_tunable` lets through.
    """
    graph = copy.deepcopy(graph)
    plain_network: Any = graph.task.network
    network = placing.rounding(plain_network, given_to(plain_network, graph, images), gpu=gpu)
    count = len(placing.roundings(network))
    log.info("int8  %d epochs of fine-tuning with %d places rounded", plan.epochs, count)
    name = learn(learner(task, network), plan, data)
    network.cpu().eval().requires_grad_(False)
    graph.task.network = network
    floats = copy.deepcopy(network.state_dict())
    placing.settle(network, given_to(network, graph, images[:1])[0])
    model = placing.in_8_bits(formats.onnx_model(graph, shape))

    def plain() -> Any:
        network.load_state_dict(floats)
        placing.without_rounding(network)
        made = formats.onnx_model(graph, shape)
        placing.named_as(model, made)
        return made

    about = {**plan._asdict(), "teacher": Path(plan.teacher).name, "method": name}
    return Tuned(model, plain, {**about, "seed": int(data.seed), "places": count})


def require_tunable(task: Any) -> None:
    if task.response not in TAUGHT:
        raise ConfigError(
            f"finetune: found the task '{task.kind}', whose training depends on which boxes are found. Leave finetune "
            "out: the backbone is put in 8 bits without training."
        )
    if getattr(task, "test_norm", "") == "batch":
        raise ConfigError(
            "finetune: the recipe normalises by the statistics of what is asked together (test_norm=batch), which cannot be "
            "folded into scales. Leave finetune out."
        )
    if hasattr(task, "discriminator") and task.discriminator is None:
        raise ConfigError(
            "finetune: the checkpoint has no discriminator to train against, since it was converted. Leave finetune out."
        )


def given_to(network: nn.Module, graph: Graph, images: Sequence[dict[str, np.ndarray]]) -> list[Tensor]:
    """What the network is given when the graph is asked about each of the images, (N, C, H, W) float32."""
    found: list[Tensor] = []
    handle = network.register_forward_pre_hook(lambda _, given: found.append(given[0].clone()))
    try:
        with torch.no_grad():
            for image in images:
                graph(*(torch.from_numpy(each) for each in image.values()))
    finally:
        handle.remove()
    return found


# The training -----------------------------------------------------------------------------------------


def learner(task: Any, network: nn.Module) -> Any:
    """A copy of the task around the rounded network, which is trained as it will be asked."""
    plain, task.network = task.network, nn.Identity()
    try:
        made = copy.deepcopy(task)
    finally:
        task.network = plain
    made.network = network
    made.requires_grad_(True)
    if hasattr(made.loss, "of_the_answer"):
        made.loss.of_the_answer()
    return made


def learn(task: Any, plan: Plan, data: Any) -> str:
    """Train the task in place. Returns the name of the method of distillation."""
    console.quiet()
    task.optim, task.schedule = functools.partial(torch.optim.Adam, lr=plan.lr), Cosine()
    task.head_factor = 1.0
    if getattr(task, "optim_discriminator", None) is not None:
        task.optim_discriminator = task.optim
    name, node = method_of(task.response)
    config = {
        "seed": int(data.seed),
        "distill": {name: node},
        "teacher": plan.teacher,
        "distillation": {"task_weight": plan.task_weight, "engine": "folded"},
        "trainer": {"accelerator": "auto", "devices": 1, "precision": "32-true"},
        "channels_last": False,
        "data": {"batch_size": data.batch_size},
    }
    task.network.eval()
    distil(task, config, data)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        precision="32-true",
        max_epochs=plan.epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[StatelessRandom(seed=int(data.seed)), AsAsked(), EpochLines(monitor=None, width=None)],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*in eval mode at the start of training.*")
        trainer.fit(task, datamodule=data)
    task.check_finite()
    task.distiller = None
    return name


def method_of(response: str) -> tuple[str, dict[str, Any]]:
    """The method of distillation for a kind of answer and its node, from conf/distill."""
    name, changes, arguments = TAUGHT[response]
    node = shipped("distill")[name][name]
    return name, {**node, **changes, "method": {**node["method"], **arguments}}


class AsAsked(Callback):
    """Keeps the network in the form in which it is evaluated: batch norms by their statistics, which do not move, and no
    heads for training. Scales stand still from `MOVING` of the steps."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.network.eval()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        if done >= MOVING * int(trainer.num_training_batches) * int(trainer.max_epochs or 1):
            for each in placing.roundings(pl_module.network):
                if not each.held:
                    each.hold()
