"""A module that can be called: `dvsn.train` is the command's module, and in Python the function of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Make the module of this name callable: calling it calls `function`. Does nothing for `__main__`."""

    class Called(ModuleType):
        __call__ = staticmethod(function)

    if name != "__main__":
        module = sys.modules[name]
        module.__class__, module.__doc__ = Called, function.__doc__
