"""TensorBoard, MLflow and Comet: what each is given. The last two are tried where their packages are installed."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dvsn.analysis.record import Analysis, Chart, Curve, Matrix, PrecisionRecall
from dvsn.engine.boards.board import File
from dvsn.engine.boards.comet import annotated
from dvsn.engine.boards.figures import chart_picture, matrix_picture
from dvsn.engine.boards.find import find_boards, prepared
from dvsn.engine.boards.ids import write_ids
from dvsn.engine.boards.labels import Labels
from dvsn.engine.boards.mlflow import cleaned, flat
from dvsn.engine.boards.runs import finish, kept_files, teachers
from dvsn.engine.boards.tensorboard import fenced, markdown
from dvsn.engine.loggers import build_loggers
from dvsn.pictures.layers import Box, Layers, Point
from dvsn.tasks.classification import Classification
from dvsn.train import train
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes

NAMES = ("left $x$", "a|b\n`c`", "rest")
RECORD = Analysis(
    task="segmentation", checkpoint="best.ckpt", split="val", samples=2, score="miou", better="more", classes=NAMES,
    tables={"classes": [{"class": "a|b", "iou": 0.5}, {"class": "rest", "iou": None}]},
    charts=(
        Chart("precision", "Precision and recall", "recall", "precision", (Curve("a $", (0.0, 1.0), (1.0, None)),)),
        Chart("iou", "IoU", "class", "IoU", (Curve("", NAMES, (0.5, 0.25, None)),), kind="bars", diagonal=True),
    ),
    matrices=(Matrix("confusion", "Confusion", NAMES, NAMES, ((3, 1, 0), (0, 0, 0), (0, 2, 5))),),
    curves=(PrecisionRecall("a/b $", (3, 2, 0), (1, 0, 0), (0, 1, 1), (1, 2, 4)),),
)  # fmt: skip


# Figures ---------------------------------------------------------------------------------------------


def test_a_matrix_is_drawn_by_shares_of_its_rows() -> None:
    """Blue as dark as the share; a class without pictures has none. Read from the middle of the cells."""
    picture = matrix_picture(Matrix("k", "t", ("a", "b"), ("a", "b"), ((4, 0), (0, 0))))
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    dark = (picture.astype(int).sum(axis=2) < 250) & (picture[..., 2] > 60)
    columns = np.flatnonzero(dark.sum(axis=0) > picture.shape[0] // 5)
    assert columns.size and columns.max() < 0.62 * picture.shape[1]  # the left one alone


@pytest.mark.parametrize("kind", ["line", "steps", "bars"])
def test_charts_with_gaps_and_odd_names_are_drawn(kind: str) -> None:
    chart = Chart(
        "k", "$x", "x_$", "y$$", (Curve("$", ("a", "b") if kind == "bars" else (0, 1), (None, 2.0)),), kind
    )
    assert chart_picture(chart).std() > 5


# TensorBoard -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("tensorboard")
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("boards")
    root = write_scenes(place / "scenes", train=2, val=2)
    options = [
        *TINY_SEGMENTATION,
        f"data.root={root}",
        "callbacks=default",
        "logger=tensorboard",
        "trainer.max_epochs=1",
    ]
    train(composed(options, place / "run"))
    yield place / "run"


def events_of(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def tensorboard_rows(event: Any) -> Any:
    """Of a precision-recall curve."""
    from tensorboard.util.tensor_util import make_ndarray

    return make_ndarray(event.tensor_proto)


def test_a_training_has_curves_in_the_form_of_tensorboard(run: Path) -> None:
    """Of each class against all others, with the number of thresholds that its tab reads."""
    from tensorboard.plugins.pr_curve import metadata

    events = events_of(run / "tensorboard")
    found = events.PluginTagToContent("pr_curves")
    assert set(found) == {f"precision_recall/{name}" for name in ("all", "left", "right", "rest")}
    assert metadata.parse_plugin_metadata(found["precision_recall/all"]).num_thresholds == 101
    (whole,) = events.Tensors("precision_recall/all")
    rows = tensorboard_rows(whole)
    assert rows.shape == (6, 101) and len(set(rows[:4].sum(axis=0).tolist())) == 1
    pixels = rows[0, 0]  # at a threshold of 0 all of them, each found, and wrong of the two other classes
    assert (
        pixels == rows[0, 0] + rows[3, 0] and rows[1, 0] == 2 * pixels and rows[4, 0] == pytest.approx(1 / 3)
    )


def test_tensorboard_has_pictures_the_config_and_the_matrix(run: Path) -> None:
    events = events_of(run / "tensorboard")
    tags = events.Tags()
    assert set(tags["images"]) == {"val/pictures", "plots/confusion"}
    assert {"config/text_summary", "command/text_summary"} <= set(tags["tensors"])
    (config,) = events.Tensors("config/text_summary")
    text = config.tensor_proto.string_val[0].decode()
    assert text.startswith("```yaml\n") and "max_epochs: 1" in text
    (grid,) = events.Images("val/pictures")
    assert grid.encoded_image_string == (run / "pictures" / "latest.png").read_bytes()


def test_tensorboard_shows_a_record(tmp_path: Path) -> None:
    loggers = pytest.importorskip("pytorch_lightning.loggers")
    logger = loggers.TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    (board,) = find_boards([logger])
    board.analysis(RECORD, tmp_path, step=5)
    board.end()
    events = events_of(tmp_path / "tensorboard")
    assert set(events.Tags()["images"]) == {"plots/precision", "plots/iou", "plots/confusion"}
    (drawn,) = events.Images("plots/confusion")
    assert drawn.step == 5
    picture = cv2.imdecode(np.frombuffer(drawn.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(picture, matrix_picture(RECORD.matrices[0]))
    assert (drawn.height, drawn.width) == picture.shape[:2]
    (curve,) = events.Tensors("precision_recall/a/b $")
    rows = tensorboard_rows(
        curve
    )  # true positives, false ones, true negatives, false ones, precision, recall
    assert curve.step == 5 and rows.tolist() == [
        [3, 2, 0], [1, 0, 0], [0, 1, 1], [1, 2, 4], [0.75, 1, 0], [0.75, 0.5, 0],
    ]  # fmt: skip
    (table,) = events.Tensors("val/classes/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    assert lines == ["| class | iou |", "| --- | --- |", r"| a\|b | 0.5000 |", "| rest | - |"]


def test_text_is_fenced_whatever_is_in_it() -> None:
    assert fenced("a\n````\nb", "yaml") == "`````yaml\na\n````\nb\n`````"
    assert markdown([{"a": 1}]) == "| a |\n| --- |\n| 1 |"


# Files and where they come from ----------------------------------------------------------------------


class Kept:
    """A board that keeps what it is given."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.values: dict[str, Any] = {}
        self.ended = False
        self.identity = {"id": "abc", "project": "dvsn"}

    def file(self, file: File) -> None:
        self.files.append(file)

    def summary(self, values: dict[str, Any]) -> None:
        self.values |= values

    def end(self) -> None:
        self.ended = True


def test_a_run_ends_with_its_score_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvsn.engine.boards import runs

    board, place = Kept(), tmp_path / "run" / "checkpoints"
    place.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt", "best.onnx", "best.json", "last.safetensors"):
        (place / name).write_bytes(b"x")
    taught = tmp_path / "teacher" / "checkpoints" / "best.ckpt"
    taught.parent.mkdir(parents=True)
    taught.write_bytes(b"x")
    write_ids(tmp_path / "teacher", {"wandb": {"id": "old", "entity": "team", "project": "dvsn"}})
    monkeypatch.setattr(runs, "find_boards", lambda _: [board])
    config = {
        "logger": {"artifact": True},
        "teacher": [str(taught), "gone.ckpt"],
        "data": {"root": "/data", "classes": 3},
    }
    result = {"monitor": "val/miou", "best": 0.5, "best_epoch": 2}
    finish([], config, result=result, folder=tmp_path / "run")
    assert board.values == {"best/val/miou": 0.5} and board.ended
    assert [(each.name, each.kind, each.path.name) for each in board.files] == [
        ("checkpoint-abc", "model", "best.ckpt"), ("best-onnx-abc", "export", "best.onnx"),
    ]  # fmt: skip
    assert board.files[0].uses == ("team/dvsn/checkpoint-old:best",)
    assert board.files[1].uses == ("dvsn/checkpoint-abc:best",)
    assert board.files[0].about["data"]["root"] == "/data" and board.files[0].about["best"] == 0.5
    board.files.clear()
    finish([], {**config, "logger": {"artifact": False}}, result=result, folder=tmp_path / "run")
    assert board.files == []
    assert kept_files(config, result, tmp_path / "gone") == [] and teachers({"teacher": None}) == ()


# MLflow and Comet ------------------------------------------------------------------------------------


def test_names_as_mlflow_takes_them() -> None:
    assert cleaned("a<b>&é/../x") == "a_b___/_/x" and cleaned("//") == "_" and cleaned("..") == "_"
    assert dict(flat({"a": {"b": 1, "c": []}, "d é": {}, "e": None})) == {
        "a.b": "1",
        "a.c": "[]",
        "d _": "{}",
        "e": "None",
    }


def test_what_mlflow_and_comet_are_built_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server is named, a store in the working directory; ids are taken up only in the same store."""
    for name in ("mlflow", "comet_ml"):
        monkeypatch.setitem(sys.modules, name, stand_in(name))
    for name in ("MLFLOW_TRACKING_URI", "COMET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    labels = Labels("mine", ("segmentation",), "sweep_1")
    node = {
        "_target_": "pytorch_lightning.loggers.MLFlowLogger",
        "tracking_uri": None,
        "run_name": None,
        "tags": {"a": 1},
    }
    address = f"sqlite:///{tmp_path}/runs/mlflow.db"
    found = prepared(node, labels, {"mlflow": {"id": "x", "place": address}}, folder=tmp_path)
    assert (found["tracking_uri"], found["run_name"], found["run_id"]) == (address, "mine", "x")
    assert found["artifact_location"] == (tmp_path / "runs" / "mlflow").as_uri()
    assert found["tags"] == {
        "dvsn.segmentation": "true",
        "dvsn.job": "train",
        "dvsn.group": "sweep_1",
        "a": 1,
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    other = prepared(node, labels, {"mlflow": {"id": "x", "place": address}}, folder=tmp_path)
    assert other["tracking_uri"] == "http://server" and "run_id" not in other
    node = {"_target_": "pytorch_lightning.loggers.CometLogger", "online": None, "tags": ["b"]}
    found = prepared(node, labels, {}, folder=tmp_path)
    assert found["online"] is False and found["offline_directory"] == str(tmp_path / "comet" / "0")
    assert found["tags"] == ["segmentation", "train", "sweep_1", "b"] and "experiment_key" not in found
    monkeypatch.setenv("COMET_API_KEY", "x")
    found = prepared(node, labels, {"comet": {"id": "k"}}, folder=tmp_path)
    assert found["online"] is True and (found["experiment_key"], found["mode"]) == ("k", "get")


def stand_in(name: str) -> ModuleType:
    from importlib.machinery import ModuleSpec

    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module


def test_layers_as_comet_takes_them() -> None:
    layers = Layers(
        "one", np.zeros((100, 200, 3), np.uint8), ("cat",), boxes={"prediction": (Box(20, 10, 60, 30, 0, 0.75),)},
        points={"label": (Point(100, 50, 3),)},
    )  # fmt: skip
    prediction, label = annotated(layers)
    assert prediction == {
        "name": "prediction",
        "data": [{"label": "cat", "score": 75.0, "boxes": [[20, 10, 40, 20]], "points": None}],
    }
    assert label["data"][0]["label"] == "3" and label["data"][0]["boxes"][0] == pytest.approx(
        [97.6, 47.6, 4.8, 4.8]
    )


def trained(place: Path, name: str, *options: str) -> Path:
    torch.set_num_threads(1)
    root = write_scenes(place / "scenes", train=2, val=2)
    words = [*TINY_SEGMENTATION, f"data.root={root}", "callbacks=default", f"logger={name}", "logger.artifact=true",
             "trainer.log_every_n_steps=1", 'data.dataset.names=[left,"a<b>/é",rest]']  # fmt: skip
    train(composed([*words, "trainer.max_epochs=1", *options], place / "run"))
    train(
        composed(
            [*words, "trainer.max_epochs=2", "resume=auto", *options],
            place / "run",
        )
    )
    return place / "run"


@pytest.mark.slow
def test_a_run_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store of SQLite: one run after going on, its scores, pictures, config, matrix, checkpoint."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run = trained(tmp_path, "mlflow", "schedule=constant")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "dvsn"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.tags["dvsn.segmentation"] == "true"
    history = client.get_metric_history(found.info.run_id, "val/miou")
    assert [each.step for each in history] == [0, 1]
    result = json.loads((run / "result.json").read_text())
    assert found.data.metrics["best/val/miou"] == pytest.approx(result["best"])
    assert found.data.params["network.width"] == "4"
    names = {each.path for folder in (None, "images", "plots", "models", "tables")
             for each in client.list_artifacts(found.info.run_id, folder)}  # fmt: skip
    assert {"config.yaml", "plots/confusion.png", "models/best.ckpt", "tables/confusion.csv"} <= names
    assert sum("val~pictures" in each and each.endswith(".png") for each in names) == 2


@pytest.mark.slow
def test_a_run_in_comet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: two files of one key."""
    pytest.importorskip("comet_ml")
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = trained(tmp_path, "comet", "schedule=constant")
    files = sorted((run / "comet").glob("*/*.zip"))
    assert len(files) == 2 and len({file.name.partition("-")[0] for file in files}) == 1
    texts = []
    for file in files:
        with zipfile.ZipFile(file) as archive:
            texts.append(archive.read("messages.json").decode())
    assert all("val/miou" in text and "val/pictures" in text for text in texts)
    assert "confusion-matrix" in texts[1] and "best/val/miou" in texts[1]


# The matrix of a classification ----------------------------------------------------------------------


def test_classes_are_counted_by_truth_and_answer() -> None:
    task = Classification.__new__(Classification)
    torch.nn.Module.__init__(task)
    task.classes, task.data_recipe = 3, {}
    task.use_metrics()
    logits = torch.eye(3)[torch.tensor([0, 1, 1, 2])]
    task.class_score.update(logits, torch.tensor([0, 1, 0, 1]))
    (matrix,) = task.matrices()
    assert matrix.counts == ((1, 1, 0), (0, 1, 1), (0, 0, 0)) and matrix.rows == (
        "class 0",
        "class 1",
        "class 2",
    )


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from dvsn.errors import ConfigError

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in ("tensorboard", "mlflow", "comet"):
        with pytest.raises(ConfigError, match=rf"logger\.{name}: .* pip install 'dvsn\[{name}\]'"):
            build_loggers(composed(["task=pix2pix", f"logger={name}"], tmp_path))
