"""A GPU that is not there: shapes and devices are followed, nothing is computed.

Within `pretended_cuda()` tensors on `cuda` are fake, and an operation that mixes devices raises. Autocast is on as on a GPU.
Whatever waits for the device (reading a number, counting what a mask holds, copying to the CPU) is written down with the
file that asked, and answered with something of the right type: a number is 0, a mask is true everywhere.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
MODE = FakeTensorMode(allow_non_fake_inputs=True)  # one for all: what a cache keeps belongs to it
ROOT = Path(__file__).resolve().parents[2]


class Waits(TorchDispatchMode):
    """Writes down what waits for the device: `found` holds `FILE:LINE operation`."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.found: list[str] = []

    @property
    def own(self) -> list[str]:
        """Those that a line of dvsn asks for, be it through a library; not those of a library's own functions."""
        return [each for each in self.found if each.startswith("dvsn/")]

    def note(self, name: str) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            inside = ("/torch/", "tests/support/pretended", "/unittest/", "/contextlib.py", "<")
            if not any(part in file for part in inside):
                break
            frame = frame.f_back
        file = frame.f_code.co_filename
        where = (
            Path(file).relative_to(ROOT).as_posix()
            if file.startswith(str(ROOT))
            else file.split("site-packages/")[-1]
        )
        self.found.append(f"{where}:{frame.f_lineno} {name}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = any(isinstance(each, FakeTensor) or each.device.type == self.device for each in tensors)
        if not there and not str(kwargs.get("device")).startswith(self.device):
            with unset_fake_temporarily():  # what happens on the CPU alone happens
                return func(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        on_device = first is not None and first.device.type == self.device
        if func is aten._local_scalar_dense.default and on_device:
            self.note("item")
            return {torch.bool: False}.get(first.dtype, 0.0 if first.is_floating_point() else 0)
        if func is aten.equal.default and on_device:
            self.note("equal")
            return True
        if func is aten._to_copy.default and on_device and kwargs.get("device") == torch.device("cpu"):
            if not kwargs.get("non_blocking"):
                self.note("to cpu")
            return torch.zeros(
                first.shape, dtype=kwargs.get("dtype") or first.dtype
            )  # a real one, which can be read
        if (
            func is aten.copy_.default
            and first is not None
            and not on_device
            and args[1].device.type == self.device
        ):
            if not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking"):
                self.note("copy to cpu")
            with unset_fake_temporarily():
                return first.zero_()
        if func is aten.nonzero.default and on_device:
            self.note("nonzero")
            return first.new_zeros((first.numel(), first.ndim), dtype=torch.long)
        if func is aten.masked_select.default and on_device:
            self.note("masked_select")
            return first.new_zeros(first.numel())
        if "unique" in func.name() and on_device:
            self.note("unique")
            flat = first.flatten()
            return flat, flat.long(), flat.long()
        if func is aten.bincount.default and on_device:
            self.note("bincount")
            return first.new_zeros(kwargs.get("minlength", args[2] if len(args) > 2 else 1), dtype=torch.long)
        if func.name() == "torchvision::nms":
            self.note("nms")
            return torch.zeros(min(4, args[0].shape[0]), dtype=torch.long, device=args[0].device)
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and on_device:
            args = (first, [self.counted(each) for each in args[1]], *args[2:])
            args = (
                first,
                [one for each in args[1] for one in (each if isinstance(each, tuple) else (each,))],
                *args[2:],
            )
        return func(*args, **kwargs)

    def counted(self, index: Any) -> Any:
        """A mask as the places of all its elements: which they are, the device alone knows."""
        if not isinstance(index, Tensor) or index.dtype not in (torch.bool, torch.uint8):
            return index
        self.note("mask as an index")
        return tuple(index.new_zeros(index.numel(), dtype=torch.long) for _ in range(index.ndim))


class Event:
    """A CUDA event that has always happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, *args: Any) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class Scaler(torch.amp.GradScaler):
    """What scales losses of float16, with all that is on the device, and without its look at what overflowed."""

    def __init__(self, device: str) -> None:
        super().__init__(device, enabled=False)
        self.factor = torch.full((), 2.0**16, device=device)
        self.scaled: list[Tensor] = []
        self.unscaled: list[torch.optim.Optimizer] = []

    def scale(self, outputs: Any) -> Any:
        self.scaled.append(outputs)
        return outputs * self.factor

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.unscaled.append(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(self.factor)

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        pass


@contextlib.contextmanager
def pretended_meta() -> Iterator[Waits]:
    """The device `meta` as another one, on which a backward pass runs too."""
    real = torch.autocast

    def autocast(device: str, **options: Any) -> Any:
        return contextlib.nullcontext() if device == "meta" else real(device, **options)

    def enabled(*device: str) -> bool:
        return device != ("meta",) and asked(*device)

    asked = torch.is_autocast_enabled
    with (
        mock.patch("torch.autocast", autocast),
        mock.patch("torch.is_autocast_enabled", enabled),
        Waits("meta") as waits,
    ):
        yield waits


@contextlib.contextmanager
def pretended_cuda() -> Iterator[Waits]:
    """A machine with a GPU, for what happens inside. Pinned memory, events and backward passes of a
    method's own are stand-ins."""
    waits, empty = Waits("cuda"), torch.empty

    def no_gradient(_: Any, inputs: Any, **__: Any) -> tuple[Tensor, ...]:
        return tuple(map(torch.zeros_like, inputs if isinstance(inputs, list | tuple) else [inputs]))

    def unpinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        return empty(*args, **kwargs)

    with (
        mock.patch("torch.cuda.current_device", lambda: 0),
        mock.patch("torch.cuda.is_bf16_supported", lambda *_: True),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch("torch.cuda.Event", Event),
        mock.patch("torch.empty", unpinned),
        mock.patch("torch.autograd.grad", no_gradient),
        mock.patch("torch.Tensor.backward", lambda *_, **__: None),
        MODE,
        waits,
    ):
        yield waits


def moved(value: Any, device: str) -> Any:
    """A batch on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(each, device) for key, each in value.items()}
    return [moved(each, device) for each in value] if isinstance(value, list) else value
