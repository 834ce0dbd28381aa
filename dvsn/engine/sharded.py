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
from dvsn.engine.devices import join_again, watch_others
from dvsn.engine.writing_parts import write_parts
from dvsn.parts import INDEX, described, in_parts, read_into, shared
from dvsn.weights import read_checkpoint

Teaching = Literal["sharded", "replicated"]
Form = Literal["whole", "sharded"]
UNITS = 8
"""A network is gathered in about so many parts, one after the other."""
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SHARES = StateDictOptions(full_state_dict=False, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """Shares the networks of a task out, and its teachers where `teacher` is "sharded"; what the methods of distillation
    learn stays whole on each process, and its gradients are averaged.

    Checkpoints are those of every other run, one whole file, or with `checkpoint` "sharded" a folder in parts
    (`dvsn.parts`), to which each process writes its share. Any number of processes goes on from either. A validation has
    the whole network on each process, since they need not have equal numbers of batches.
    """

    def __init__(
        self, *, timeout: timedelta, teacher: Teaching = "sharded", checkpoint: Form = "whole"
    ) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        self.teacher, self.form = teacher, checkpoint
        self.parts: Path | None = None
        """Of the checkpoint that is gone on from, if it is in parts: the folder of these."""
        self.roots: list[nn.Module] = []

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        join_again(self, self._timeout)
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
        """What a checkpoint holds: the whole state on process 0 and nothing on the others, or the share of each."""
        if self.form == "whole":
            return self.whole_state()
        self.share_statistics()
        assert self.model is not None
        return get_model_state_dict(self.model, options=SHARES)

    def whole_state(self) -> dict[str, Any]:
        """The whole state on process 0, nothing on the others."""
        self.share_statistics()
        assert self.model is not None
        return get_model_state_dict(self.model, options=WHOLE)

    def share_statistics(self) -> None:
        """Give all processes the statistics of batch norm of process 0."""
        for root in self.roots:
            for module in root.modules():
                if isinstance(module, _BatchNorm):
                    for buffer in module.buffers(recurse=False):
                        dist.broadcast(buffer, src=0)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        assert self.model is not None
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        options = WHOLE if self.form == "whole" else SHARES
        state = get_optimizer_state_dict(self.model, optimizer, options=options)
        return Fsdp.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model) if state else {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        if self.form == "sharded":
            write_parts(checkpoint, Path(filepath), io=self.checkpoint_io)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The content of a file, or of a folder in parts with the shapes of what each process reads its share of."""
        path = Path(checkpoint_path)
        self.parts = None
        if not in_parts(path):
            return self.checkpoint_io.load_checkpoint(path)  # type: ignore[no-any-return]
        content = read_checkpoint(path / INDEX)
        self.parts = described(path, content).folder
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        state, whole = dict(checkpoint["state_dict"]), self.parts is None
        if self.parts is not None:
            state = get_model_state_dict(self.model)
            read_into({f"state_dict.{name}": value for name, value in state.items()}, self.parts)
        set_model_state_dict(self.model, state, options=StateDictOptions(full_state_dict=whole))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        assert self.model is not None
        if self.parts is not None:
            self.read_optimizers(checkpoint)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer = getattr(optimizer, "_optimizer", optimizer)
            named = Fsdp.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            options = StateDictOptions(full_state_dict=self.parts is None)
            set_optimizer_state_dict(self.model, optimizer, named, options=options)

    def read_optimizers(self, checkpoint: Mapping[str, Any]) -> None:
        """Put this process's share in place of the shapes that an index has of the states of optimisers."""
        assert self.model is not None and self.parts is not None
        parameters = list(self.model.parameters())  # by number, as the states are
        wanted = {}
        for name, group, key in shared({"optimizer_states": checkpoint["optimizer_states"]}):
            of, shape = parameters[int(name.split(".")[2])], group[key]
            like = (
                of
                if isinstance(of, DTensor) and of.shape == shape.shape
                else shape.new_empty(shape.shape, device="cpu")
            )
            group[key] = torch.empty_like(like, dtype=shape.dtype, requires_grad=False)
            wanted[name] = group[key]
        read_into(wanted, self.parts)


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
