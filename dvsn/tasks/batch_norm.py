"""A check before training: no batch norm may get a single value per channel, which has no variance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.data.module import collate
from dvsn.errors import ConfigError
from dvsn.networks.shared_norm import SharedBatchNorm


class Share(NamedTuple):
    """The smallest batch of a training."""

    items: int
    """Items that one device gets."""
    together: int
    """Items that all devices get in the same step."""
    last: bool
    """Whether only the last batch of an epoch is so small."""


def smallest_share(data: Any, *, world: int, batches: int) -> Share:
    """The smallest batch among the first `batches` of an epoch of `dvsn.data.module.TrainBatches`."""
    size = min(len(data.datasets["train"]), data.train_samples or len(data.datasets["train"]))
    chooser = getattr(data, "sampler", None) or getattr(data, "ratios", None)
    size = size if chooser is None else chooser.length
    rest = size % data.batch_size
    whole = Share(data.batch_size // world, data.batch_size, last=False)
    if data.drop_last or not rest or batches <= size // data.batch_size:
        return whole
    items = -(-rest // world)
    return Share(items, items * world, last=True) if items < whole.items else whole


class _OneValue(Exception):
    """A batch norm would see one value a channel."""


def require_statistics(task: Any) -> None:
    """Where a device may get a batch of one item, try the forward passes of a training step (`try_step`) on one.

    Raises `ConfigError` with the batch norm that would get one value per channel, and what to set. Buffers and random
    state are restored.
    """
    trainer: Any = task.trainer
    data = trainer.datamodule
    if data is None or not hasattr(data, "batch_size"):
        return
    share = smallest_share(data, world=trainer.world_size, batches=int(trainer.num_training_batches))
    if share.items > 1:
        return
    samples = data.datasets["train"]
    batch = getattr(samples, "collate", collate)([samples[0]])
    batch = trainer.strategy.batch_to_device(task.on_before_batch_transfer(batch, 0), task.device)
    try:
        with watched(task, share), unchanged(task), trainer.precision_plugin.forward_context():
            task.try_step(batch)
    except _OneValue as found:
        raise ConfigError(message(str(found), share, trainer.world_size)) from None


def message(norm: str, share: Share, world: int) -> str:
    """What is wrong and what to set."""
    which = "the last batch of an epoch" if share.last else "every batch"
    remedies = [f"data.batch_size={2 * world}"]
    if share.last:
        remedies = ["data.drop_last=true", "another data.batch_size"]
    if world > 1 and share.together > 1:
        remedies.append("trainer.sync_batchnorm=true")
    return (
        f"data.batch_size: {which} gives 1 item a device, of which the batch norm '{norm}' sees one value a channel: it has "
        f"no variance, and cannot be normalised. Set {' or '.join(remedies)}."
    )


@contextlib.contextmanager
def watched(task: nn.Module, share: Share) -> Iterator[None]:
    """Within it a batch norm that would see one value a channel raises `_OneValue` with its path."""

    def hook(name: str) -> Any:
        def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not norm.training:
                return
            joined = share.together if isinstance(norm, nn.SyncBatchNorm | SharedBatchNorm) else 1
            if inputs[0].numel() // max(1, inputs[0].shape[1]) * joined == 1:
                raise _OneValue(name)

        return look

    norms = [(name, module) for name, module in task.named_modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def unchanged(task: nn.Module) -> Iterator[None]:
    """Forward passes that leave no trace: no gradient; buffers, numbers of modules and random state are put back."""
    kept = [(buffer, buffer.clone()) for buffer in task.buffers()]
    plain = (int, float, bool, str, type(None))
    words = [
        (module, {k: v for k, v in vars(module).items() if isinstance(v, plain)}) for module in task.modules()
    ]
    devices = {p.device.index or 0 for p in task.parameters() if p.device.type == "cuda"}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
        for module, values in words:
            vars(module).update(values)
