"""An exported file as an artifact of W&B, made from that of the checkpoint: a run of its own in the same project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dvsn.engine.boards.board import File
from dvsn.engine.boards.evaluated import trained_by
from dvsn.engine.boards.find import find_boards
from dvsn.engine.boards.labels import LONGEST, Labels, cut
from dvsn.engine.boards.runs import artifact_name, renamed
from dvsn.engine.loggers import build_loggers
from dvsn.errors import ConfigError
from dvsn.hub.names import is_name
from dvsn.weights import read_checkpoint


def source_of(checkpoint: Path) -> dict[str, Any]:
    """The run of W&B that wrote a checkpoint. Raises `ConfigError` where none did, before anything is exported, and
    `CheckpointError` for a file that is none."""
    found = trained_by(checkpoint).get("wandb")
    if not found or not found.get("project"):
        if not is_name(checkpoint):
            read_checkpoint(checkpoint, verify=False)  # says what is wrong with it
        raise ConfigError(
            f"artifact: {checkpoint} was not trained with logger=wandb, so there is no project of W&B for the file. Export "
            "it with artifact=false"
        )
    return found


def keep_export(path: Path, source: dict[str, Any]) -> None:
    """Log an exported file, with its manifest, beside the run `source` that wrote its checkpoint."""
    beside = path.with_suffix(".json")
    about = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    node = {
        "_target_": "pytorch_lightning.loggers.WandbLogger",
        "project": source["project"],
        "entity": source.get("entity"),
        "offline": False,
    }
    run = source.get("name") or source["id"]
    labels = Labels(cut(f"{run}: {path.name}", LONGEST), (), source.get("group"), "export")
    config = {"run_dir": str(path.parent), "logger": {"wandb": node}}
    for board in find_boards(build_loggers(config, labels=labels)):
        board.begin({"manifest": about, "trained_by": {"wandb": source}}, labels)
        file = File(path, f"{path.stem}-{path.suffix[1:]}", "export", about, (artifact_name(source),))
        board.file(renamed(file, board))
        board.end()
