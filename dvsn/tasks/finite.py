"""The check that stops a run whose losses are NaN or infinite."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvsn.errors import UserError

TEACHER = "teacher"
"""The name under which a sum over a teacher's answer is watched."""
MOST_PENDING = 16


class NotFinite(UserError):
    """A loss, a weight or a teacher's answer became NaN or infinite."""


class Pending(NamedTuple):
    """The values of one step that have not been checked yet."""

    names: list[str]
    values: Tensor
    """(len(names),) float32, on the CPU once `arrived` has happened."""
    step: int
    epoch: int
    arrived: Any
    """The CUDA event after the copy to the CPU; None where the values were on the CPU."""


class FiniteGuard:
    """Checks every loss of every step without waiting for the device.

    On a CPU values are checked in `watch` itself. On a GPU they are copied in the background and checked some steps
    later, at the latest in `check`, which is called before a checkpoint is written.
    """

    def __init__(self) -> None:
        self._pending: deque[Pending] = deque()

    def clear(self) -> None:
        """Forget what has not been checked."""
        self._pending.clear()

    def watch(self, values: Mapping[str, Tensor], *, step: int, epoch: int) -> None:
        """Take float32 scalars by name. Raises `NotFinite` as soon as one is known to be NaN or infinite."""
        losses = list(values.values())
        if losses[0].device.type == "cuda":
            joined = torch.stack(losses)
            host = torch.empty(joined.shape, pin_memory=True).copy_(joined, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._pending.append(Pending(list(values), host, step, epoch, arrived))
            while self._pending and (len(self._pending) > MOST_PENDING or self._pending[0].arrived.query()):
                require_finite(self._pending.popleft())
        elif not all(math.isfinite(loss) for loss in losses):
            require_finite(Pending(list(values), torch.stack(losses), step, epoch, None))

    def check(self) -> None:
        """Check all values so far. Raises `NotFinite` for the earliest step with one that is NaN or infinite."""
        while self._pending:
            require_finite(self._pending.popleft())


def require_finite(pending: Pending) -> None:
    """Raise `NotFinite` with the step, the terms and what to do, unless all values are finite."""
    if pending.arrived is not None:
        pending.arrived.synchronize()
    if bool(torch.isfinite(pending.values).all()):
        return
    where = f"step {pending.step} (epoch {pending.epoch})"
    numbers = dict(zip(pending.names, pending.values.tolist(), strict=True))
    if not math.isfinite(numbers.get(TEACHER, 0.0)):
        raise NotFinite(
            f"{where}: the teacher's answer is not finite. The run stops here and the "
            "last good checkpoint is kept. Look at the teacher with `python -m dvsn.evaluate`; in half precision its "
            "activations may be too large: use trainer.precision=32-true or bf16-mixed."
        )
    bad = ", ".join(f"{name} = {value:g}" for name, value in numbers.items() if not math.isfinite(value))
    raise NotFinite(
        f"{where}: the loss is not finite: {bad}. "
        "The run stops here and the last good checkpoint is kept. Lower optim.lr, set "
        "trainer.gradient_clip_val, or use trainer.precision=32-true."
    )
