"""`trainer=fsdp`: parameters, gradients and the optimiser's state are shared out over the processes (FSDP2's `fully_shard`).

Each process keeps its share of every tensor; a module's whole tensors are there while it runs. Tasks see networks as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, OptimStateKeyType, fully_shard
from torch.distributed.fsdp import FullyShardedDataParallel as Fsdp
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.config import board
from dvsn.engine.devices import watch_others

Teaching = Literal["sharded", "replicated"]
UNITS = 8
"""A network is gathered in about so many parts, one after the other."""
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """Shares the networks of a task out, and its teachers where `teacher` is "sharded"; what the methods of distillation
    learn stays whole on each process, and its gradients are averaged.

    Checkpoints are those of every other run: one whole file, which any number of processes goes on from. A validation has
    the whole network on each process, since they need not have equal numbers of batches.
    """

    def __init__(self, *, timeout: timedelta, teacher: Teaching = "sharded") -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        self.teacher = teacher
        self.roots: list[nn.Module] = []

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()
        watch_others(self, self._timeout)

    def setup(self, trainer: pl.Trainer) -> None:
        task: Any = self.lightning_module
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            modes = [(module, module.training) for module in task.modules()]
            task.shipped_parameters = sum(p.numel() for p in task.deployable().parameters())
            for module, training in modes:  # what is shipped is in eval mode
                module.training = training
            self.share_out(task)
            self.setup_optimizers(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.barrier()
        self.setup_precision_plugin()

    def share_out(self, task: Any) -> None:
        """Shard the networks, and the teachers where that is wanted; average the gradients of what stays whole."""
        mesh = self.device_mesh["data_parallel"]
        self.roots = [shard(network, mesh) for network in task.networks.values()]
        for parameter in task.parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                parameter.register_post_accumulate_grad_hook(averaged)
        if task.distiller is not None and self.teacher == "sharded":
            for teacher in task.distiller.teachers:
                teacher.holder.to(self.root_device)
                shard(teacher.taught_by, mesh)

    def teardown(self) -> None:
        if (ours := board.current()) is not None:
            ours.close()
        super().teardown()

    # Validation -------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        for root in self.roots:
            for each in sharded_parts(root):
                each.set_reshard_after_forward(False, recurse=False)
                each.unshard()
            for buffer in root.buffers():
                dist.broadcast(buffer, src=0)

    def on_validation_end(self) -> None:
        for root in self.roots:
            for each in sharded_parts(root):
                each.reshard()
                each.set_reshard_after_forward(each is not root, recurse=False)

    # Checkpoints ------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state on process 0, nothing on the others."""
        for root in self.roots:
            for module in root.modules():
                if isinstance(module, _BatchNorm):
                    for buffer in module.buffers(recurse=False):
                        dist.broadcast(buffer, src=0)
        assert self.model is not None
        return get_model_state_dict(self.model, options=WHOLE)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        assert self.model is not None
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        state = get_optimizer_state_dict(self.model, optimizer, options=WHOLE)
        return Fsdp.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model) if state else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(Path(checkpoint_path))  # type: ignore[no-any-return]

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        set_model_state_dict(
            self.model, dict(checkpoint["state_dict"]), options=StateDictOptions(full_state_dict=True)
        )

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        assert self.model is not None
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer = getattr(optimizer, "_optimizer", optimizer)
            named = Fsdp.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(
                self.model, optimizer, named, options=StateDictOptions(full_state_dict=True)
            )


@torch.no_grad()
def averaged(parameter: Tensor) -> None:
    """Replace the gradient of a parameter by its mean over the processes."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


def shard(network: nn.Module, mesh: Any) -> nn.Module:
    """Share the parameters of a network out over the processes of a mesh, in units that are gathered one after the other;
    buffers stay whole. Returns the network, whose modules and taps stay what they are."""
    total = sum(parameter.numel() for parameter in network.parameters())
    for unit in units(network, total // UNITS):
        fully_shard(unit, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def units(module: nn.Module, most: int) -> Iterator[nn.Module]:
    """The largest modules below this one that have a forward pass of their own and at most so many parameters."""
    containers = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    for child in module.children():
        count = sum(parameter.numel() for parameter in child.parameters())
        if count == 0:
            continue
        if count <= most and not isinstance(child, containers):
            yield child
        else:
            yield from units(child, most)


def sharded_parts(root: nn.Module) -> list[FSDPModule]:
    """The root and its units."""
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def own_bytes(module: nn.Module) -> int:
    """Bytes of the parameters that this process keeps."""
    kept = (p.to_local() if isinstance(p, DTensor) else p for p in module.parameters())
    return sum(each.numel() * each.element_size() for each in kept)
