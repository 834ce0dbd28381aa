"""Compiled networks whose hooks count."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compile_in_place(network: nn.Module, **options: Any) -> None:
    """`network.compile(**options)`, with code that is made anew where hooks have come or gone.

    PyTorch does not look at hooks when it reuses code: a network with taps would run that of an earlier one of its class
    without, in the same process, and record nothing.
    """
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    network.compile(**options)
