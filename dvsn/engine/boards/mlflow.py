"""MLflow: pictures, tables as CSV, matrices and charts as pictures, files, and the config as parameters and text."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvsn.analysis.record import Chart, Matrix, Row
from dvsn.engine.boards.board import Array, Board, Config, File, as_yaml, matrix_rows, require_installed
from dvsn.engine.boards.figures import chart_picture, matrix_picture
from dvsn.engine.boards.labels import Labels, command
from dvsn.errors import ConfigError

PLACE = Path("runs")
"""Where the data base and the files of all runs lie, where no server is named: `mlflow ui` then compares them."""
PARAMETERS, LONGEST = 100, 500
"""Parameters in one call, and characters of one: what MLflow's servers take."""


def prepare(node: Config, labels: Labels, kept: Mapping[str, Any], *, folder: Path) -> Config:
    """The options of the logger with its store, a file of SQLite where none is named, its name, tags and the id of a run
    that goes on. Raises `ConfigError` where MLflow is not installed."""
    require_installed("mlflow", logger="mlflow")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    address = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        PLACE.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{PLACE.absolute() / 'mlflow.db'}"
        node = {
            **node,
            "artifact_location": node.get("artifact_location") or (PLACE.absolute() / "mlflow").as_uri(),
        }
    tags = {f"dvsn.{each}": "true" for each in labels.tags} | {"dvsn.job": labels.job}
    tags |= {"dvsn.group": labels.group} if labels.group else {}
    going_on = {"run_id": kept["id"]} if kept.get("place") == address and not node.get("run_id") else {}
    return {
        **node,
        **going_on,
        "tracking_uri": address,
        "run_name": node.get("run_name") or labels.name,
        "tags": tags | {str(key): value for key, value in (node.get("tags") or {}).items()},
    }


class MlflowBoard(Board):
    """Pictures are sent beside the training."""

    @property
    def run(self) -> Any:
        """MLflow's client, once the run is there. Raises `ConfigError` where its server refuses it."""
        from mlflow.exceptions import MlflowException

        try:
            return self.logger.experiment
        except MlflowException as error:
            said = " ".join(str(error).split())
            raise ConfigError(
                f"logger.mlflow: MLflow refused the run: {said} Look at logger.mlflow.tracking_uri and "
                "logger.mlflow.experiment_name."
            ) from error

    def begin(self, config: Config, labels: Labels) -> None:
        from mlflow.entities import Param

        run = self.run
        run.log_text(self.logger.run_id, as_yaml(config), "config.yaml")
        run.log_text(self.logger.run_id, f"{command(labels.job)}\n", "command.txt")
        there = run.get_run(self.logger.run_id).data.params  # those of an earlier part cannot be changed
        given = [(key, text[:LONGEST]) for key, text in flat(config) if key not in there]
        for start in range(0, len(given), PARAMETERS):
            chunk = [Param(key, text) for key, text in given[start : start + PARAMETERS]]
            run.log_batch(self.logger.run_id, params=chunk)

    def picture(self, key: str, picture: Array, *, caption: str, step: int, file: Path | None = None) -> None:
        self.run.log_image(self.logger.run_id, picture, key=cleaned(key), step=step, synchronous=False)

    def rows(self, key: str, rows: Sequence[Row], *, step: int) -> None:
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            self.run.log_text(self.logger.run_id, text.getvalue(), f"tables/{cleaned(key)}.csv")

    def chart(self, chart: Chart, *, step: int) -> None:
        name = f"plots/{cleaned(chart.key)}.png"
        self.run.log_image(self.logger.run_id, chart_picture(chart), artifact_file=name)

    def matrix(self, matrix: Matrix, *, step: int) -> None:
        name = f"plots/{cleaned(matrix.key)}.png"
        self.run.log_image(self.logger.run_id, matrix_picture(matrix), artifact_file=name)
        self.rows(matrix.key, matrix_rows(matrix), step=step)

    def file(self, file: File) -> None:
        self.run.log_artifact(self.logger.run_id, str(file.path), f"{file.kind}s")
        about = {**file.about, "made_from": list(file.uses)}
        self.run.log_dict(self.logger.run_id, about, f"{file.kind}s/{cleaned(file.name)}.json")

    def summary(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, int | float):
                self.run.log_metric(self.logger.run_id, cleaned(key), value)

    def end(self, *, failed: bool = False) -> None:
        import mlflow

        mlflow.flush_artifact_async_logging()
        self.run.set_terminated(self.logger.run_id, "FAILED" if failed else "FINISHED")

    @property
    def identity(self) -> dict[str, Any] | None:
        return {"id": str(self.run and self.logger.run_id), "place": str(self.logger._tracking_uri)}


def flat(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Options by their dotted names, as text; lists whole."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flat(value, f"{path}.{cleaned(str(key))}".lstrip("."))
    else:
        yield path, str(config)


def cleaned(name: str) -> str:
    """A name as MLflow takes it: letters, digits, `_`, `-`, `.`, `/` and spaces; no `..` and no `/` at its ends."""
    text = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)
    return re.sub(r"\.\.+", "_", text).strip("/. ") or "_"
