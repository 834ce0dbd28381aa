"""Comet: pictures with boxes that can be switched, tables, its own confusion matrix and curves, files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers

from dvsn.analysis.record import Chart, Matrix, Row
from dvsn.engine.boards.board import (
    Array,
    Board,
    Config,
    File,
    Shown,
    as_yaml,
    matrix_rows,
    require_installed,
)
from dvsn.engine.boards.figures import chart_picture
from dvsn.engine.boards.labels import Labels, command
from dvsn.errors import ConfigError
from dvsn.pictures.layers import Layers


class CometLogger(loggers.CometLogger):
    """Lightning's, which offline writes nothing: it asks for an experiment that is switched off (2.6.6). Here it is on.

    `options` are those of Lightning's logger and of `comet_ml.ExperimentConfig`. Raises `ConfigError` where Comet refuses
    the experiment.
    """

    def __init__(self, **options: Any) -> None:
        if options.get("online") is False:
            Path(str(options.get("offline_directory") or ".")).mkdir(parents=True, exist_ok=True)
        import comet_ml

        try:
            super().__init__(**options)
        except (ValueError, TypeError, comet_ml.exceptions.CometException) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"logger.comet: Comet refused the experiment: {said} Look at logger.comet.workspace, logger.comet.project "
                "and COMET_API_KEY, or log offline with logger.comet.online=false"
            ) from error

    def _create_experiment(self) -> None:
        import comet_ml

        self._comet_config = comet_ml.ExperimentConfig(**self._kwargs)
        super()._create_experiment()


def prepare(node: Config, labels: Labels, kept: Mapping[str, Any], *, folder: Path) -> Config:
    """The options of the logger with its name, tags and folder, and the key of an experiment that goes on. Without a key of
    the account it writes a file that `comet upload` sends. Raises `ConfigError` where comet-ml is not installed."""
    require_installed("comet_ml", logger="comet")
    online = node.get("online")
    if online is None:
        online = bool(node.get("api_key") or has_key())
    if not online:  # else reports of its own errors go to a server
        os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
    going_on = (
        {"experiment_key": kept["id"], "mode": "get"} if kept and not node.get("experiment_key") else {}
    )
    tags = [*labels.tags, labels.job, *([labels.group] if labels.group else [])]
    return {
        **node,
        **going_on,
        "_target_": f"{__name__}.CometLogger",
        "online": online,
        "name": node.get("name") or labels.name,
        "tags": list(dict.fromkeys([*tags, *map(str, node.get("tags") or ())])),
        "offline_directory": node.get("offline_directory") or str(next_part(folder / "comet")),
    }


def next_part(folder: Path) -> Path:
    """A folder for each part of a run: Comet draws names of files from the seed, so a second would replace the first."""
    return folder / str(len(list(folder.glob("*"))))


def has_key() -> bool:
    return bool(os.environ.get("COMET_API_KEY")) or Path("~/.comet.config").expanduser().is_file()


class CometBoard(Board):
    """Layers are its annotations."""

    @property
    def run(self) -> Any:
        return self.logger.experiment

    def begin(self, config: Config, labels: Labels) -> None:
        self.run.log_parameters(config)
        self.run.log_asset_data(as_yaml(config), name="config.yaml", overwrite=True)
        self.run.log_other("command", command(labels.job))

    def picture(self, key: str, picture: Array, *, caption: str, step: int, file: Path | None = None) -> None:
        self.run.log_image(picture, name=key, step=step, metadata={"caption": caption})

    def fixed(self, shown: Sequence[Shown], *, epoch: int, step: int) -> None:
        for each in shown:
            found = [] if each.layers is None else annotated(each.layers)
            if each.layers is not None and found:
                name = f"val/overlays/{each.name}"
                self.run.log_image(each.layers.picture, name=name, step=step, annotations=found)

    def rows(self, key: str, rows: Sequence[Row], *, step: int) -> None:
        if rows:
            columns = list(rows[0])
            data = [[row.get(name) for name in columns] for row in rows]
            self.run.log_table(f"{key.replace('/', '_')}.csv", tabular_data=data, headers=columns)

    def chart(self, chart: Chart, *, step: int) -> None:
        """Lines by its own curves; bars as a picture."""
        if chart.kind == "bars":
            self.picture(f"plots/{chart.key}", chart_picture(chart), caption=chart.title, step=step)
            return
        for curve in chart.curves:
            points = [(float(x), y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
            self.run.log_curve(
                f"{chart.key}/{curve.name}", x=[x for x, _ in points], y=[y for _, y in points], step=step
            )

    def matrix(self, matrix: Matrix, *, step: int) -> None:
        """Its own matrix is square: one with further columns, such as `missed`, is a table."""
        if matrix.rows == matrix.columns:
            self.run.log_confusion_matrix(
                matrix=[list(counts) for counts in matrix.counts], labels=list(matrix.rows), title=matrix.title,
                file_name=f"{matrix.key}.json", step=step, max_categories=len(matrix.rows),
            )  # fmt: skip
            return
        self.rows(matrix.key, matrix_rows(matrix), step=step)

    def file(self, file: File) -> None:
        about = {**file.about, "made_from": list(file.uses)}
        self.run.log_model(file.name, str(file.path), metadata=about)

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.log_others(dict(values))

    def end(self, *, failed: bool = False) -> None:
        self.run.end()

    @property
    def identity(self) -> dict[str, Any] | None:
        return {"id": str(self.run.get_key())}


def annotated(layers: Layers) -> list[dict[str, Any]]:
    """Boxes of each layer as Comet takes them: left, top, width, height, and a score of 100; keypoints as small ones."""
    half = 0.012 * max(layers.picture.shape[:2])
    found: dict[str, list[tuple[int, float | None, list[float]]]] = {}
    for key, boxes in layers.boxes.items():
        found[key] = [(b.label, b.score, [b.left, b.top, b.right - b.left, b.bottom - b.top]) for b in boxes]
    for key, points in layers.points.items():
        found[key] = [(p.label, p.score, [p.x - half, p.y - half, 2 * half, 2 * half]) for p in points]
    return [
        {
            "name": key,
            "data": [
                {
                    "label": layers.classes[label] if label < len(layers.classes) else str(label),
                    "score": 100.0 if score is None else 100 * float(score),
                    "boxes": [list(map(float, place))],
                    "points": None,
                }
                for label, score, place in each
            ],
        }
        for key, each in found.items()
    ]
