"""How the processes that a launcher has started come to one run: one folder, one config, one version."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvsn.config import board, folders
from dvsn.config.messages import leaves
from dvsn.version import VERSION

OWN = ("run_dir", "data.root", "data.workers")
"""Options that may differ between machines, whose disks and cores do. What is in the folder is compared later."""
PACKAGES = ("torch", "pytorch-lightning", "numpy")


@contextmanager
def entered(folder: Path, *, given: bool, resume: bool) -> Iterator[Path]:
    """The folder of the run: `folders.claimed` of a single process; of several, the first makes it and tells the others.

    Where torchrun has started all of them again, it is the folder of the first time.
    """
    ours = board.current()
    if ours is None:
        with folders.claimed(folder, given=given, resume=resume) as place:
            yield place
        return
    if ours.place.rank:
        place = Path(ours.wait("folder", of=0))
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    earlier = ours.remembered("folder") if ours.place.attempt else None
    again = earlier is not None
    with folders.claimed(Path(earlier or folder), given=given or again, resume=resume or again) as place:
        ours.remember("folder", str(place.absolute()))
        ours.write("folder", str(place.absolute()))
        yield place


def compare(tree: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the processes of a run have other options, or other versions of what computes."""
    from importlib.metadata import version

    versions = {"dvsn": VERSION, "python": ".".join(platform.python_version_tuple()[:2])}
    versions |= {name: version(name) for name in PACKAGES}
    board.agree("versions", versions, advice="Install the same versions on every machine.")
    place = str(tree.get("run_dir") or "")
    own = {
        path: value.replace(place, "RUN_DIR") if place and isinstance(value, str) else value
        for path, value in leaves(tree, "")
        if path not in OWN
    }
    board.agree("config", own, advice="Start every process with the same command and the same YAML files.")
