"""Exported files asked without torch: `from dvsn.portable import Model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvsn.portable.model import Model
    from dvsn.portable.result import Result

__all__ = ["Model", "Result"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: who draws a result needs no model."""
    if name == "Model":
        from dvsn.portable.model import Model

        return Model
    if name == "Result":
        from dvsn.portable.result import Result

        return Result
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
