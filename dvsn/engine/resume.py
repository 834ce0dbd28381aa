"""Continuing a run: which checkpoint, whether it belongs to this config, and where in the run it was written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dvsn.engine.checkpoint import newest
from dvsn.errors import CheckpointError
from dvsn.tasks.recipe import read_recipe
from dvsn.weights import read_checkpoint

log = logging.getLogger("dvsn")
Config = dict[str, Any]


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to continue from. Raises `CheckpointError` for a path that cannot be used."""

    if resume is None:
        return None
    if resume == "auto":
        found = newest(folder / "checkpoints") if (folder / "checkpoints").is_dir() else None
        log.info(
            "resume=auto: %s", f"continuing from {found}" if found else "no checkpoint yet, starting anew"
        )
        return found
    path = Path(resume)
    read_recipe(read_checkpoint(path), path)
    return path


def check_resume(path: Path, config: Config) -> None:
    """Refuse to continue with another network than the one that was trained."""

    header = read_recipe(read_checkpoint(path, verify=False), path)
    recipe, wanted = header["recipe"], config["task"]
    taught, methods = sorted(header.get("distill") or {}), sorted(config.get("distill") or {})
    if taught != methods:
        raise CheckpointError(
            f"{path}: was trained with distill=[{','.join(taught)}], found distill=[{','.join(methods)}]. Continue with the "
            "methods of that run, or start a new one with resume=null."
        )
    different = [
        f"task.{key}.{option}: {recipe[key].get(option)!r} there, {wanted[key].get(option)!r} now"
        for key in wanted
        if isinstance(wanted[key], dict)
        and isinstance(recipe.get(key), dict)
        and key in ("network", "discriminator")
        for option in sorted({*wanted[key], *recipe[key]})
        if wanted[key].get(option) != recipe[key].get(option)
    ]
    if different:
        listed = "\n  ".join(different[:8])
        raise CheckpointError(
            f"{path}: was trained with other networks:\n  {listed}\nContinue with the options of that run "
            f"({path.parent.parent / 'config.yaml'}), or start a new one with resume=null."
        )


def step_of(checkpoint: Path) -> int:
    """The step, as loggers count it, of the first batch after the checkpoint.

    Within an epoch Lightning counts a batch only after its callbacks and its validation, which is where dvsn saves.
    """
    content = read_checkpoint(checkpoint, verify=False)
    stepped = int(content["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])
    inside = int((content.get("DataModule") or {}).get("batch", 0)) > 0
    return stepped + int(inside)
