"""The proposed files, tried before they are written: they compose, and the first samples of train and val can be read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvsn.config import compose
from dvsn.data_tools.walk import choose_kind
from dvsn.engine import trainer as runtime
from dvsn.errors import DataError


def verify(texts: Mapping[str, str], name: str, root: Path) -> None:
    """Composes `experiment=NAME` from `texts` (contents by path below a folder of configs) and opens train and val.

    Raises what training would raise: `DataError` for files that cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path, text in texts.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        with compose.opened("train", ["--config-dir", folder, f"experiment={name}"]) as session:
            composed = compose.compose(session.loader, session.name, session.overrides)
            config = compose.preflight(composed, folder=Path(folder))
    try:
        _open_splits(config)
    except DataError as error:
        raise DataError(f"{root}: understood, but it cannot be read: {error}") from error


def _open_splits(config: dict[str, Any]) -> None:
    data = runtime.build_data(config)
    choose_kind(data, config)
    data.prepare_data()
    data.open("train", augment=True)
    data.open("val")
