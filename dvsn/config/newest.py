"""The folder in which `resume=auto` continues, found from the checkpoint files alone, before torch is imported."""

from __future__ import annotations

import zipfile
from pathlib import Path

from dvsn.parts import INDEX

PATTERNS = ("checkpoints/*.ckpt", "hpc_ckpt_*.ckpt")
"""Where checkpoints lie in the folder of a run; the second are Lightning's, of a SLURM job that was asked to stop."""


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, files or folders in parts, the newest first."""
    found = [
        path
        for pattern in PATTERNS
        for path in folder.glob(pattern)
        if entry(path).is_file() and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: entry(path).stat().st_mtime_ns, reverse=True)


def entry(path: Path) -> Path:
    """The file that a checkpoint is there with: itself, or the index of a folder in parts."""
    return path / INDEX if path.is_dir() else path


def newest_run(place: Path, *, first: str = "") -> str | None:
    """The name of the folder in `place` with the newest checkpoint that is whole; None where no run has one at all.

    `first` is preferred to all others if it has one. Where runs have checkpoints and none is whole, the folder of the
    newest is named all the same, so that it is refused there by name, and nothing starts anew in silence.
    """
    folders = [folder for folder in place.iterdir() if folder.is_dir()] if place.is_dir() else []
    own = [folder for folder in folders if folder.name == first]
    for group in (own, folders):
        files = [(path, folder) for folder in group for path in checkpoints(folder)]
        files.sort(key=lambda item: entry(item[0]).stat().st_mtime_ns, reverse=True)
        whole = next((folder for path, folder in files if is_whole(path)), None)
        if whole is not None:
            return whole.name
    return files[0][1].name if files else None


def best_of(place: Path) -> Path | None:
    """The best checkpoint of the run in the folder `place`, else its last; of a folder of runs, such as runs/NAME, that of
    the newest. None where there is none."""
    files = {path.name: path for path in checkpoints(place)}
    found = files.get("best.ckpt") or files.get("last.ckpt")
    if found is not None:
        return found
    newest = newest_run(place)
    return None if newest is None else best_of(place / newest)


def is_whole(path: Path) -> bool:
    """Whether a file is a zip archive, as torch writes them, in which the CRC of every part is right; of a folder in parts:
    its index."""
    try:
        with zipfile.ZipFile(entry(path)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
        return False
