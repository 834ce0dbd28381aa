"""The place of this process in a run that torchrun or SLURM's srun has started: its rank, and how many there are."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from dvsn.errors import ConfigError


class Place(NamedTuple):
    """Where a process stands among those of its run."""

    rank: int
    """Its number among all, from 0."""
    world: int
    """How many there are."""
    local_rank: int
    """Its number among those of its machine."""
    local_world: int
    """How many its machine has; 0: not known."""
    launcher: str
    """`torchrun` or `srun`."""
    attempt: int = 0
    """How often torchrun has started all of them again."""

    @property
    def nodes(self) -> int:
        """How many machines there are, each of which has as many processes."""
        return max(1, self.world // self.local_world) if self.local_world else 1


def place() -> Place | None:
    """The place of this process; None where neither torchrun nor srun has started it.

    A shell within a SLURM job, which is called `bash` or `interactive`, is no process of a run. Raises `ConfigError` for
    variables that are no numbers, and where machines have unequal numbers of processes.
    """
    env = os.environ
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if all(name in env for name in ("TORCHELASTIC_RUN_ID", *names)):
        rank, world, local_rank, local_world = (_number(name) for name in names)
        found = Place(
            rank, world, local_rank, local_world, "torchrun", _number("TORCHELASTIC_RESTART_COUNT", 0)
        )
    elif (
        "SLURM_NTASKS" in env
        and "SLURM_PROCID" in env
        and env.get("SLURM_JOB_NAME")
        not in (
            "bash",
            "interactive",
        )
    ):
        rank, world, local_rank = (
            _number(name) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
        )
        local_world = _number("SLURM_NTASKS_PER_NODE", 0)
        found = Place(rank, world, local_rank, local_world, "srun", _number("SLURM_RESTART_COUNT", 0))
    else:
        return None
    if found.local_world and found.world % found.local_world:
        raise ConfigError(
            f"{found.launcher}: this machine has {found.local_world} of {found.world} processes, so that another has a "
            "different number. Start as many on each: --nproc-per-node of torchrun, --ntasks-per-node of srun."
        )
    return found


def _number(name: str, usual: int | None = None) -> int:
    text = os.environ.get(name) or ("" if usual is None else str(usual))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}: found '{text}' in the environment, expected a number.") from None


def restarted() -> bool:
    """Whether the launcher has started this run before: a SLURM job that was requeued, or torchrun's --max-restarts."""
    names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(_number(name, 0) > 0 for name in names)


def of_launcher(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's options with `devices` and `num_nodes` as the launcher has it.

    They are taken from the launcher where they are left as they are (1, or `auto`). Raises `ConfigError` where others were
    asked for.
    """
    here, options = place(), dict(trainer)
    if here is None or not here.local_world:
        return options
    devices, nodes = options.get("devices", 1), options.get("num_nodes", 1)
    count = len(devices) if isinstance(devices, list) else devices
    if count in (1, "1", "auto", -1, "-1") and nodes == 1:
        return {**options, "devices": here.local_world, "num_nodes": here.nodes}
    if (str(count), nodes) != (str(here.local_world), here.nodes):
        raise ConfigError(
            f"trainer.devices, trainer.num_nodes: found {devices} and {nodes}, but {here.launcher} has started "
            f"{here.local_world} processes on each of {here.nodes} machines. Leave both out: they are taken from "
            f"{here.launcher}."
        )
    return options


def named(rank: int, world: int, host: str = "") -> str:
    """A process in words."""
    return f"process {rank} of {world}{f' ({host})' if host else ''}"


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


def rank_here() -> int:
    """The rank of this process by whoever has started it; 0 for a single one."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        text = os.environ.get(name, "")
        if text.isdecimal():
            return int(text)
    return 0
