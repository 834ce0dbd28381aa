"""Devices: how many, which precision is fast on them, and DDP that evaluates exactly."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy

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
