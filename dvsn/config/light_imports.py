"""Lightning without torchvision, matplotlib and scipy's signal processing, of which hardly a run uses anything.

`import pytorch_lightning` imports torchmetrics, and that imports torchvision for two metrics that score pictures by a
pretrained network, scipy's signal processing, with its statistics, for a package of speech, and matplotlib where it is
installed. That is a sixth of the processor time until the first batch, without matplotlib. A command calls
`import_lightning` first; they then wait until they are used, as by
`lazy import` of PEP 810, which Python has from 3.15 on.
"""

from __future__ import annotations

import builtins
import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

DEFERRED = {
    "torchmetrics": (
        "torchvision", "torchvision.models", "scipy.signal", "matplotlib", "matplotlib.axes", "matplotlib.pyplot",
    )
}  # fmt: skip
"""Modules whose import waits, by the package that imports them. Whoever else imports them gets them at once."""


class Deferred:
    """Stands for a module, class or function: it is imported when it is first called or asked for an attribute.

    While the imports that it is left out of still run, an attribute is another `Deferred`, and so is what a call returns,
    such as a function that is decorated.
    """

    importing = False

    def __init__(self, path: str) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return Deferred(f"{self.path}.{name}") if Deferred.importing else getattr(self.real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return DeferredCall(self, args, kwargs) if Deferred.importing else self.real()(*args, **kwargs)

    def real(self) -> Any:
        """Import and return the real object."""
        return pkgutil.resolve_name(self.path)


class DeferredCall(Deferred):
    """The result of a call that has not been made yet."""

    def __init__(self, function: Deferred, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__(f"{function.path}()")
        self.function, self.args, self.kwargs = function, args, kwargs
        self.made: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real(), name)

    def real(self) -> Any:
        if self.made is None:
            self.made = self.function.real()(*self.args, **self.kwargs)
        return self.made


@contextmanager
def deferring(deferred: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Inside it, an import statement of a package in `deferred` gets a `Deferred` for each of the modules listed there."""
    plain_import = builtins.__import__

    def deferring_import(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        importer = str((globals or {}).get("__name__", "")).partition(".")[0]
        if level == 0 and name in deferred.get(importer, ()):
            return Deferred(name if fromlist else name.partition(".")[0])
        return plain_import(name, globals, locals, fromlist, level)

    builtins.__import__, Deferred.importing = deferring_import, True
    try:
        yield
    finally:
        builtins.__import__, Deferred.importing = plain_import, False


def import_light(package: str, deferred: Mapping[str, Sequence[str]]) -> None:
    """Import `package` with `deferred` imports, or in full where it needs one of them at once. One that is there stays."""
    if package in sys.modules:
        return
    try:
        with deferring(deferred):
            importlib.import_module(package)
    except Exception as error:  # noqa: BLE001  of a class that inherits from a deferred one, for instance
        log.debug("%s: imported in full, since: %s", package, error)
        importlib.import_module(package)


def import_lightning() -> None:
    """Import Lightning and torchmetrics, and what they import but for `DEFERRED`."""
    import_light("pytorch_lightning", DEFERRED)
