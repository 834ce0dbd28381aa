"""Weights & Biases: Lightning's logger for the scalars, and overlays, tables, plots and artifacts.

When a run goes on, what it has logged already is left out, so that the steps of its curves never go backwards.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning import loggers
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from wandb.plot.custom_chart import CustomChart

from dvsn.analysis.record import Analysis, Chart, Matrix, Row
from dvsn.engine.boards.board import Array, Board, Config, File, Shown
from dvsn.engine.boards.keys import has_wandb_key
from dvsn.engine.boards.labels import Labels, command
from dvsn.engine.boards.wandb_file import STEP, Logged, logged_by
from dvsn.errors import ConfigError, nearest
from dvsn.pictures.layers import Box, Layers
from dvsn.types import IGNORE

log = logging.getLogger("dvsn")
SECTIONS = ("train", "val", "test", "system", "time", "best")
"""The first part of the names of metrics, which W&B makes sections of."""
KEYPOINT = 0.012
"""Half the side of the box by which a keypoint is shown, as a share of the picture's longer side."""


class WandbLogger(loggers.WandbLogger):
    """Lightning's, with an id that is kept.

    - `folder`: of the run that goes on, whose files say what it has logged; None: a new run.
    - `options`: those of Lightning's logger and of `wandb.init`, such as `entity`, `project`, `group`, `tags`, `notes`.

    Raises `ConfigError` for an option that `wandb.init` does not have, and where W&B refuses the run.
    """

    def __init__(self, *, folder: str | None = None, **options: Any) -> None:
        known = inspect.signature(loggers.WandbLogger.__init__).parameters
        given = inspect.signature(wandb.init).parameters
        for key in options:
            if key not in known and key not in given:
                raise ConfigError(
                    f"logger.wandb.{key}: unknown option of wandb.init. {nearest(key, [*known, *given])}"
                )
        super().__init__(**options)
        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)  # W&B warns of it
        goes_on = folder is not None and bool(self._id)
        self._before = logged_by(Path(str(self._save_dir)), str(self._id)) if goes_on else Logged()

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            with refusals():
                return super().experiment
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """What an earlier part of the run has logged at this step is left out."""
        if step is None:
            self.experiment.log(dict(metrics))
            return
        new = {name: value for name, value in metrics.items() if not self.logged(name, step)}
        if set(new) <= {"epoch"}:
            return
        run = self.experiment
        # without a network W&B does not know how many rows the earlier part has
        place = {"step": self._before.row + 1} if self._before.row >= run.step else {}
        run.log({**new, STEP: step}, commit=True, **place)

    def logged(self, name: str, step: int) -> bool:
        """Whether an earlier part of the run has logged a metric at a step."""
        before = self._before
        return step < before.step or (step == before.step and name in before.names)


def identity(run: Any) -> dict[str, Any]:
    found = {"id": run.id, "entity": run.entity, "project": run.project, "group": run.group, "name": run.name}
    return {key: str(value) for key, value in found.items() if value}


@contextmanager
def refusals() -> Iterator[None]:
    """What W&B says of a wrong project, entity or key, as a `ConfigError`."""
    try:
        yield
    except (wandb.Error, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"logger.wandb: W&B refused the run: {said} Look at logger.wandb.entity, logger.wandb.project and the key "
            "(`wandb login`), or log offline with logger=wandb_offline"
        ) from error


def prepare(node: Config, labels: Labels, kept: Mapping[str, Any], *, folder: Path) -> Config:
    """The options of the logger with what was left open: name, tags, group, kind of work, the id of a run that goes on.
    Without a key to log in with it goes offline, and says so."""
    if not node.get("offline") and not has_wandb_key():
        log.warning("W&B: no API key (WANDB_API_KEY or `wandb login`), so the run is logged offline.")
        node = {**node, "offline": True}
    for key in ("name", "group", "job_type"):
        if node.get(key) is None:
            value = {"name": labels.name, "group": labels.group, "job_type": labels.job}[key]
            node = {**node, key: value}
    tags = dict.fromkeys([*labels.tags, *map(str, node.get("tags") or ())])
    own: Config = {"_target_": f"{__name__}.WandbLogger", "save_dir": node.get("save_dir") or str(folder)}
    own["folder"] = str(folder) if labels.job == "train" else None
    same = kept.get("project", node.get("project")) == node.get("project")
    going_on = {"id": kept["id"]} if kept and same and not (node.get("id") or node.get("version")) else {}
    return {**node, **own, **going_on, "tags": list(tags)}


class WandbBoard(Board):
    """Sections by the first part of a name; layers that are switched by class; tables, W&B's own plots, artifacts."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self.history: Any = None

    @property
    def run(self) -> Any:
        return self.logger.experiment

    def begin(self, config: Config, labels: Labels) -> None:
        run, monitor = self.run, config.get("monitor") or {}
        run.config.update({**config, "command": command(labels.job)}, allow_val_change=True)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        for section in SECTIONS:
            run.define_metric(f"{section}/*", step_metric=STEP)
        if monitor.get("name"):
            run.define_metric(monitor["name"], step_metric=STEP, summary=f"{monitor.get('mode', 'min')},last")

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        self.logger.log_metrics(values, step)

    def picture(self, key: str, picture: Array, *, caption: str, step: int, file: Path | None = None) -> None:
        self.log({key: [wandb.Image(picture if file is None else str(file), caption=caption)]}, step=step)

    def fixed(self, shown: Sequence[Shown], *, epoch: int, step: int) -> None:
        """Each picture with its layers, and a row of the table of all epochs, to which rows are only ever added."""
        key = "val/fixed_pictures"
        if isinstance(self.logger, WandbLogger) and self.logger.logged(key, step):
            return
        pictures = [None if each.layers is None else image_of(each.layers) for each in shown]
        titles = (
            ["picture"] if any(pictures) else list(dict.fromkeys(t for each in shown for t in each.panels))
        )
        if self.history is None:
            self.history = wandb.Table(columns=["epoch", "name", *titles], log_mode="INCREMENTAL")
        for each, picture in zip(shown, pictures, strict=True):
            cells = [picture] if any(pictures) else [small(each.panels.get(title)) for title in titles]
            self.history.add_data(epoch, each.name, *cells)
        layered = {"val/overlays": [each for each in pictures if each is not None]} if any(pictures) else {}
        self.log({**layered, key: self.history}, step=step)

    def rows(self, key: str, rows: Sequence[Row], *, step: int) -> None:
        if rows:
            columns: list[str | int] = list(rows[0])
            table = wandb.Table(
                columns=columns,
                data=[[row.get(str(name)) for name in columns] for row in rows],
                allow_mixed_types=True,
            )
            self.log({key: table}, step=step)

    def pictures(self, found: Analysis, folder: Path, *, step: int) -> None:
        """A table, the worst first."""
        kept = [each for each in found.pictures if each.file and (folder / each.file).is_file()]
        if kept:
            columns: list[str | int] = ["name", found.score, "what", "picture"]
            rows = [
                [each.name, each.score, each.note, wandb.Image(str(folder / str(each.file)))] for each in kept
            ]
            self.log({f"{found.split}/worst_and_best": wandb.Table(columns=columns, data=rows)}, step=step)

    def chart(self, chart: Chart, *, step: int) -> None:
        self.log({f"plots/{safe(chart.key)}": plot_of(chart)}, step=step)

    def matrix(self, matrix: Matrix, *, step: int) -> None:
        """By W&B's own confusion matrix, which takes counts as a table."""
        cells = [
            [row, column, count]
            for row, counts in zip(unique(matrix.rows), matrix.counts, strict=True)
            for column, count in zip(unique(matrix.columns), counts, strict=True)
        ]
        table = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells)
        plot = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=table,
            fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
            string_fields={"title": f"{matrix.title} ({matrix.unit})"},
            split_table=True,
        )
        self.log({f"plots/{safe(matrix.key)}": plot}, step=step)

    def file(self, file: File) -> None:
        """An artifact. With a network, what it was made from is recorded as used by the run."""
        for name in () if self.run.offline else file.uses:
            try:
                self.run.use_artifact(name)
            except (wandb.Error, ValueError) as error:
                log.warning("W&B: the artifact %s cannot be named as a source: %s", name, error)
        artifact = wandb.Artifact(
            re.sub(r"[^\w.-]", "_", file.name, flags=re.ASCII)[:128],
            type=file.kind,
            metadata={**file.about, "made_from": list(file.uses)},
        )
        artifact.add_file(str(file.path))
        for beside in companions(file.path):
            artifact.add_file(str(beside))
        self.run.log_artifact(artifact, aliases=["latest", "best"] if file.kind == "model" else ["latest"])

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(values))

    def end(self, *, failed: bool = False) -> None:
        self.run.finish(exit_code=int(failed))

    @property
    def identity(self) -> dict[str, Any] | None:
        return identity(self.run)


def companions(path: Path) -> list[Path]:
    """What belongs to an exported file: its manifest, and the weights of OpenVINO."""
    if path.suffix == ".ckpt":
        return []
    return [each for each in (path.with_suffix(".json"), path.with_suffix(".bin")) if each.is_file()]


# Pictures --------------------------------------------------------------------------------------------


def small(picture: Array | None) -> Any:
    """JPEG: a PNG of half a megapixel takes a CPU tens of milliseconds."""
    return None if picture is None else wandb.Image(picture, file_type="jpg")


def image_of(layers: Layers) -> Any:
    names = dict(enumerate(unique(layers.classes)))
    masks = {
        key: {"mask_data": mask, "class_labels": {**names, IGNORE: "not scored"}}
        for key, mask in layers.masks.items()
    }
    boxes = {
        key: {"box_data": [box_of(each, names) for each in found], "class_labels": names}
        for key, found in {**layers.boxes, **spots(layers)}.items()
    }
    drawn: Config = {key: value for key, value in (("masks", masks), ("boxes", boxes)) if value}
    return wandb.Image(layers.picture, caption=layers.name, file_type="jpg", **drawn)


def spots(layers: Layers) -> dict[str, tuple[Box, ...]]:
    """Keypoints as small boxes, which W&B can switch by name: it has no points."""
    half = max(1.0, KEYPOINT * max(layers.picture.shape[:2]))
    return {
        key: tuple(
            Box(each.x - half, each.y - half, each.x + half, each.y + half, each.label, each.score)
            for each in found
        )
        for key, found in layers.points.items()
    }


def box_of(box: Box, names: Mapping[int, str]) -> dict[str, Any]:
    name = names.get(box.label, str(box.label))
    scored = {"scores": {"score": float(box.score)}} if box.score is not None else {}
    return {
        "position": {
            "minX": float(box.left),
            "maxX": float(box.right),
            "minY": float(box.top),
            "maxY": float(box.bottom),
        },
        "domain": "pixel",
        "class_id": int(box.label),
        "box_caption": name if box.score is None else f"{name} {box.score:.2f}",
        **scored,
    }


# Plots -----------------------------------------------------------------------------------------------


def plot_of(chart: Chart) -> CustomChart:
    """A chart by W&B's own plots: bars of the first curve, else lines."""
    if chart.kind == "bars":
        rows = [
            [f"{curve.name}: {x}" if len(chart.curves) > 1 else str(x), y]
            for curve in chart.curves
            for x, y in zip(curve.x, curve.y, strict=True)
            if y is not None
        ]
        table = wandb.Table(columns=[chart.x, chart.y], data=rows)
        return wandb.plot.bar(table, chart.x, chart.y, title=chart.title, split_table=True)
    drawn = [
        [(float(x), y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
        for curve in chart.curves
    ]
    names = [curve.name or chart.y for curve in chart.curves]
    if chart.diagonal:
        drawn, names = [*drawn, [(0.0, 0.0), (1.0, 1.0)]], [*names, "y = x"]
    return wandb.plot.line_series(
        xs=[[x for x, _ in each] for each in drawn],
        ys=[[y for _, y in each] for each in drawn],
        keys=unique(names),
        title=chart.title,
        xname=chart.x,
        split_table=True,
    )


def unique(names: Sequence[str]) -> list[str]:
    """Names that are all there and all different, for W&B takes them as keys."""
    found: list[str] = []
    for number, name in enumerate(names):
        text = name or f"class {number}"
        found.append(text if text not in found else f"{text} ({number})")
    return found


def safe(key: str) -> str:
    """A part of the name of a metric: W&B reads `/` as a section and `.` as a nested key."""
    return re.sub(r"[^\w -]", "_", key)
