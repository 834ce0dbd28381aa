"""Errors inside Lightning's loops that the user can mend, turned into plain messages: wrong options,
callbacks, lost processes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from dvsn.config import board
from dvsn.errors import ConfigError, UserError

OTHERS = 10.0
"""Seconds in which other processes that have waited as well say so."""
GRACE = 2.0
"""Seconds more, after which the store itself does not answer."""


@contextmanager
def told(trainer: pl.Trainer, config: Mapping[str, Any]) -> Iterator[None]:
    """Around a fit or a test: raises `UserError` in place of what Lightning says of wrong options, of a
    callback or a logger of the config that fails, and of a process that the others have waited for in vain."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = (
            of_options(error)
            or of_processes(error, trainer, config)
            or of_parts(error, {"callbacks": trainer.callbacks, "logger": trainer.loggers}, config)  # type: ignore[attr-defined]
        )
        if found is None:
            raise
        raise found from error


def of_options(error: Exception) -> UserError | None:
    """The message for a wrong option that Lightning finds only after it has counted the batches."""
    text = str(error)
    between = re.search(r"`val_check_interval` \((\d+)\) must be .* training batches \((\d+)\)", text)
    if between is not None:
        wanted, batches = between.groups()
        return ConfigError(
            f"trainer.val_check_interval: found {wanted}, but an epoch has {batches} batches. Set "
            f"trainer.val_check_interval={batches} or less, or trainer.check_val_every_n_epoch=null to count across epochs."
        )
    share = re.search(
        r"check ([\d.e-]+) of the `(train|val|test)_dataloader` but [\d.e-]+ \* (\d+) < 1", text
    )
    if share is not None:
        part, split, batches = share.groups()
        return ConfigError(
            f"trainer.limit_{split}_batches: found {part}, which of {batches} batches is none. Set "
            f"trainer.limit_{split}_batches=1 or another whole number, which counts batches."
        )
    if "within local rank has zero length" in text:
        return ConfigError(
            "trainer.devices: there are more processes than pictures, so that one of them has none. Set trainer.devices=1, "
            "or so many that each has a picture."
        )
    return None


def of_processes(error: Exception, trainer: pl.Trainer, config: Mapping[str, Any]) -> UserError | None:
    """The message for a process that waited for another until `trainer.process_timeout`."""
    ours, waited = board.current(), re.search(r"[Tt]imed out|[Tt]imeout", str(error))
    if trainer.world_size < 2 or not board.of_collective(error):
        return None
    if ours is not None and (waited is None or ours.fault()):
        reason = ours.reason(4 * ours.beat + 1)
        return board.Failed(f"{reason} Process {ours.place.rank} ends with it.") if reason else None
    if waited is None:
        return None
    seconds, own = config["trainer"].get("process_timeout", 300), trainer.global_rank
    silent = silent_processes(own, trainer.world_size)
    which = " and ".join(map(str, silent)) or "another"
    return board.Failed(  # of another process: no fault to tell the others
        f"process {own} has waited {seconds:g} s (trainer.process_timeout) for process {which} of {trainer.world_size}, "
        "which does not answer: it is stopped, out of memory, or busy. See what it does (its processor time, its last "
        "message), end what is left of the run and continue with resume=auto. Where it is only slow, set "
        f"trainer.process_timeout={2 * float(seconds):g}"
    )


def silent_processes(own: int, world: int) -> list[int]:
    """The ranks that did not report, within `OTHERS` seconds, that they were waiting as well."""
    others = [rank for rank in range(world) if rank != own]
    if len(others) == 1:
        return others
    silent = [0]  # the first process keeps the store: where nobody answers, it is that one

    def ask() -> None:
        store = torch.distributed.distributed_c10d._get_default_store()
        store.set(f"dvsn_waited_{own}", "1")
        deadline = time.monotonic() + OTHERS
        waited = set[int]()
        while len(waited) < len(others) - 1 and time.monotonic() < deadline:
            waited |= {rank for rank in others if store.check([f"dvsn_waited_{rank}"])}
            time.sleep(0.2)
        silent[:] = [rank for rank in others if rank not in waited]

    asking = threading.Thread(target=ask, daemon=True)  # a store that does not answer blocks for good
    asking.start()
    asking.join(OTHERS + GRACE)
    return silent


def of_parts(error: Exception, parts: Mapping[str, list[Any]], config: Mapping[str, Any]) -> UserError | None:
    """The message for an error in the code of a callback or a logger of the config."""
    if isinstance(error, OSError | MemoryError | torch.OutOfMemoryError):
        return None  # of the machine
    trace = error.__traceback__
    inside: list[Any] = []
    while trace is not None:
        inside.append(trace.tb_frame.f_locals.get("self"))
        trace = trace.tb_next
    for group, objects in parts.items():
        for name, node in (config.get(group) or {}).items():
            target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
            for each in objects:
                if type(each).__name__ == target.rpartition(".")[2] and any(one is each for one in inside):
                    text = " ".join(str(error).split()) or "no message"
                    return UserError(
                        f"{group}.{name}: {type(each).__name__} failed: {type(error).__name__}: {text} Change its "
                        f"options, or leave it out with {group}.{name}=null. debug=true shows the traceback."
                    )
    return None
