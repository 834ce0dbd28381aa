"""Devices: how many, which precision is fast on them, and DDP that evaluates exactly."""

from __future__ import annotations

import atexit
import functools
import os
import platform
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.strategies import DDPStrategy, ParallelStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from dvsn.config import board
from dvsn.config.compose import PROCESS_TIMEOUT
from dvsn.config.launched import Place

Config = dict[str, Any]
FLIGHTS = "DVSN_FLIGHTS"
"""The variable of the environment with the place that dvsn itself has given to NCCL's flight recorder."""


class Ddp(DDPStrategy):
    """DDP whose evaluation does not go through the wrapper.

    The wrapper broadcasts buffers in every forward, so ranks with unequal numbers of validation batches
    would wait for each other forever. Batch-norm statistics are shared once before evaluation instead.
    """

    def __init__(self, *, compress: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.compress = compress

    def _register_ddp_hooks(self) -> None:
        """Send gradients as bf16 where that is asked for; Lightning's own does so on GPUs only."""
        if self.compress == "bf16":
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(None, bf16_compress_hook)

    def setup_environment(self) -> None:
        """Also begin to look at the other processes, which may fail while this one waits in a collective."""
        join_again(self, self._timeout)
        super().setup_environment()
        watch_others(self, self._timeout)

    def teardown(self) -> None:
        if (ours := board.current()) is not None:
            ours.close()
        super().teardown()

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


def record_flights(folder: Path) -> None:
    """Let NCCL keep its last collectives, and write them to the folder of the run, a file `nccl_rank_N` a process, where one
    of them runs into the time-out; `torchfrtrace` reads these. What the environment says already stays, except the folder
    of an earlier run of this process or of its parent."""
    file = str(folder.absolute() / "nccl_rank_")
    wanted = {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": file,
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",  # before torch 2.15
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": file,
    }
    for name, value in wanted.items():
        if os.environ.get(name, value) in (value, os.environ.get(FLIGHTS)):
            os.environ[name] = value
    os.environ[FLIGHTS] = file


def join_again(strategy: Any, timeout: timedelta | None) -> None:
    """Open the process group of a run that torchrun has started again, over a part of its store that is of this time alone:
    the rest keeps the addresses of the processes of before, which those of now would wait for. Lightning takes a group that
    is there."""
    ours = board.current()
    if ours is None or not ours.place.attempt or torch.distributed.is_initialized():
        return
    store: Any = ours.store  # of which each user needs a connection of its own
    backend = strategy._get_process_group_backend()
    torch.distributed.init_process_group(
        backend,
        store=torch.distributed.PrefixStore(f"torch/{ours.place.attempt}", store.clone()),
        rank=ours.place.rank,
        world_size=ours.place.world,
        timeout=timeout,
    )
    if backend == "nccl":
        atexit.register(torch.distributed.destroy_process_group)


def watch_others(strategy: ParallelStrategy, timeout: timedelta | None) -> None:
    """Give signs of life to the other processes of a strategy and look for theirs, where the launcher's meeting has not."""
    place = Place(
        strategy.global_rank,
        strategy.world_size,
        strategy.local_rank,
        len(strategy.parallel_devices or ()),
        "processes",
    )
    if place.world > 1:
        board.begin(place, timeout=PROCESS_TIMEOUT if timeout is None else timeout.total_seconds())


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is emulated, and far slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


class Choice(NamedTuple):
    """The precision that `auto` chose, and the reason in a few words."""

    fast: bool
    why: str


def bf16_choice(*, cuda: bool) -> Choice:
    """Whether bf16 is faster than float32 here. A rule over what the hardware has, never a measurement: a run that is
    resumed chooses as it did before.

    Intel's cores run avx512_bf16 at half the rate of float32 and need AMX; AMD's run it at twice the rate.
    """
    if cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice(native, f"the GPU has {'' if native else 'no '}bf16 units")
    if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return Choice(True, "the CPU has AMX")
    if not cpu_has_bf16():
        return Choice(False, "the CPU has no bf16 units")
    if cpu_vendor() == "GenuineIntel":
        return Choice(False, "the CPU has avx512_bf16 but no AMX, and is faster in float32")
    return Choice(True, "the CPU has avx512_bf16 at full rate")


@functools.cache
def cpu_vendor() -> str:
    """The maker of this CPU as it calls itself, such as GenuineIntel; empty where the system does not say."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    if named:
        return named[0]
    return next((maker for maker in ("GenuineIntel", "AuthenticAMD") if maker in platform.processor()), "")


def resolve_precision(wanted: str | int, *, cuda: bool) -> str | int:
    """`auto` -> bf16-mixed where that is faster, else 32-true."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if bf16_choice(cuda=cuda).fast else "32-true"


def precision_reason(trainer: Config) -> str:
    """Why the trainer's `precision` is what it is: text for the screen, empty where it was asked for by name."""
    wanted = trainer.get("precision", "auto")
    return f" (auto: {bf16_choice(cuda=uses_cuda(trainer)).why})" if wanted == "auto" else ""


def measuring(trainer: Config) -> Config:
    """The trainer's options of a measurement: float32, as published numbers are, unless a precision is asked for."""
    wanted = trainer.get("precision", "auto")
    return {**trainer, "precision": "32-true" if wanted in ("auto", None) else wanted}


def uses_cuda(trainer: Config) -> bool:
    return trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def device_count(trainer: Config) -> int:
    """The number of processes that the trainer's `devices` and `num_nodes` stand for."""
    devices = trainer.get("devices", 1)
    here = torch.cuda.device_count() if uses_cuda(trainer) else 1
    if isinstance(devices, list):
        count = len(devices)
    elif isinstance(devices, str) and not devices.lstrip("-").isdigit():
        count = here if devices == "auto" else len(devices.split(","))
    else:
        count = here if int(devices) == -1 else int(devices)
    return max(1, count) * int(trainer.get("num_nodes", 1))
