"""What W&B is told, read from the files of offline runs: one that is killed and goes on, and what is drawn on pictures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from hydra import compose
from omegaconf import OmegaConf

from dvsn.analysis.record import Analysis, Chart, Curve, Matrix, Picture
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.engine.boards.board import File
from dvsn.engine.boards.exported import keep_export, source_of
from dvsn.engine.boards.find import find_boards, prepared
from dvsn.engine.boards.labels import Labels
from dvsn.engine.boards.wandb import WandbBoard, WandbLogger, image_of, plot_of, unique
from dvsn.engine.boards.wandb_file import history, logged_by
from dvsn.engine.loggers import build_loggers
from dvsn.errors import CheckpointError, ConfigError
from dvsn.evaluate import evaluate
from dvsn.pictures.layers import Box, Layers, Point
from dvsn.tasks.segmentation import Segmentation
from dvsn.train import train
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes
from tests.support.wandb_files import OfflineRun, keep_quiet, read_run

NAMES = ("left", "a<b>&'\"/é", "rest")


def table_of(folder: Path, history: list[dict[str, Any]], key: str) -> list[list[Any]]:
    """The rows of a table in the order in which they were logged."""
    rows: list[list[Any]] = []
    for each in history:
        path = each.get(f"{key}/path")
        if path:
            (file,) = folder.rglob(Path(path).name)
            rows += json.loads(file.read_text())["data"]
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two steps an epoch that dies in its third epoch and goes on; then an evaluation of it with a record."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("wandb")
    root = write_scenes(place / "scenes", train=4, val=2)
    names = 'data.dataset.names=[left,"a<b>&\'\\"/é",rest]'
    options = [
        *TINY_SEGMENTATION, f"data.root={root}", names, "callbacks=default", "logger=wandb_offline", "logger.artifact=true",
        "logger.wandb.tags=[mine]", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "optim.lr=0.001",
    ]  # fmt: skip
    step = Segmentation.training_step

    def dies(task: Segmentation, batch: Any, index: int) -> Any:
        if task.global_step == 5:
            raise RuntimeError("killed")
        return step(task, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        keep_quiet(patch, place)
        words = [*options, "resume=auto"]
        patch.setattr(
            "sys.argv", ["dvsn.train", "task=segmentation", "optim.lr=0.001", "logger=wandb_offline"]
        )
        patch.setattr(Segmentation, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(composed(options, place / "run"))
        patch.setattr(Segmentation, "training_step", step)
        train(composed(words, place / "run"))
        wandb.teardown()
        yield place


@pytest.fixture(scope="module")
def parts(place: Path) -> tuple[OfflineRun, OfflineRun]:
    first, second = (read_run(next(folder.glob("*.wandb"))) for folder in folders(place))
    return first, second


def folders(place: Path) -> list[Path]:
    """Those of the two parts of the run."""
    return sorted((place / "run" / "wandb").glob("offline-run-*"))


def test_a_killed_run_goes_on_as_the_same(parts: tuple[OfflineRun, OfflineRun], place: Path) -> None:
    first, second = parts
    assert first.run.run_id == second.run.run_id
    kept = json.loads((place / "run" / "loggers.json").read_text())["wandb"]
    assert kept["id"] == first.run.run_id and kept["project"] == "dvsn"
    held = torch.load(place / "run" / "checkpoints" / "last.ckpt", weights_only=True)["dvsn"]["loggers"]
    assert held["wandb"]["id"] == first.run.run_id and not {"step", "row"} & set(held["wandb"])


def test_its_curves_never_go_backwards(parts: tuple[OfflineRun, OfflineRun], place: Path) -> None:
    """Steps 4 was logged before the end and is trained again: its losses are there once, and rows are counted on."""
    rows = [row for part in parts for row in part.history]
    steps = [row["trainer/global_step"] for row in rows]
    assert steps == sorted(steps) and [row["_step"] for row in rows] == list(range(len(rows)))
    losses = [(row["trainer/global_step"], row["train/main"]) for row in rows if "train/main" in row]
    assert [step for step, _ in losses] == [0, 1, 2, 3, 4, 5]
    assert [row["epoch"] for row in rows if "val/miou" in row] == [0, 1, 2]
    with (place / "run" / "metrics.csv").open(newline="") as file:
        table = [float(row["train/main"]) for row in csv.DictReader(file) if row["train/main"]]
    assert [value for _, value in losses] == pytest.approx(table, rel=1e-4)  # what the unbroken run has


def test_names_that_tell_runs_apart(parts: tuple[OfflineRun, OfflineRun]) -> None:
    for part in parts:
        assert part.run.display_name == "test lr=0.001" and part.run.job_type == "train"
        assert list(part.run.tags) == ["segmentation", "pidnet", "segmentationfolders", "mine"]
        assert part.run.run_group == "" and part.run.project == "dvsn"
        assert part.config["command"].startswith("python -m dvsn.train task=segmentation")
        assert part.config["optim"]["lr"] == 0.001


def test_sections(parts: tuple[OfflineRun, OfflineRun]) -> None:
    logged = {name for part in parts for row in part.history for name in row if not name.startswith("_")}
    sections = {name.partition("/")[0] for name in logged} - {"epoch"}
    assert sections == {"train", "val", "system", "time", "trainer", "Custom Chart Tables"}


def test_overlays_are_masks_with_their_classes(parts: tuple[OfflineRun, OfflineRun], place: Path) -> None:
    labels = parts[1].config["_wandb"]["mask/class_labels"]
    for layer in ("prediction", "label"):
        found = labels[f"val/overlays_wandb_delimeter_{layer}"]["value"]
        assert found == {**{str(n): name for n, name in enumerate(NAMES)}, "255": "not scored"}
    overlays = [row for part in parts for row in part.history if "val/overlays/all_masks" in row]
    assert len(overlays) == 3 and all(row["val/overlays/captions"] == ["val0", "val1"] for row in overlays)
    import cv2

    truth = cv2.imread(str(place / "scenes" / "val" / "labels" / "val0.png"), cv2.IMREAD_UNCHANGED)
    path = overlays[2]["val/overlays/all_masks"][0]["label"]["path"]
    (file,) = folders(place)[1].rglob(Path(path).name)
    assert np.array_equal(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), truth)


def test_a_table_of_the_fixed_pictures(parts: tuple[OfflineRun, OfflineRun], place: Path) -> None:
    before = table_of(folders(place)[0], parts[0].history, "val/fixed_pictures")
    after = table_of(folders(place)[1], parts[1].history, "val/fixed_pictures")
    rows = [(epoch, name) for epoch, name, *_ in before + after]
    assert rows == [(1, "val0"), (1, "val1"), (2, "val0"), (2, "val1"), (3, "val0"), (3, "val1")]
    (kept,) = [each for each in parts[1].artifacts if each.type == "wandb-run-incremental-table"]
    (file,) = [each for each in kept.manifest.contents if each.path.endswith(".table.json")]
    picture = json.loads(Path(file.local_path).read_text())["data"][0][2]
    assert picture["_type"] == "image-file" and set(picture["masks"]) == {"prediction", "label"}


def test_the_confusion_matrix_of_the_last_validation(
    parts: tuple[OfflineRun, OfflineRun], place: Path
) -> None:
    cells = table_of(folders(place)[1], parts[1].history, "Custom Chart Tables/plots/confusion_table")
    assert [cell[:2] for cell in cells] == [[row, column] for row in NAMES for column in NAMES]
    counts = np.array([cell[2] for cell in cells]).reshape(3, 3)
    truth = [np.bincount(np.concatenate([
        _ids(place, name).ravel() for name in ("val0", "val1")]), minlength=3)]  # fmt: skip
    assert np.array_equal(counts.sum(axis=1), truth[0])
    right = parts[1].history[[n for n, row in enumerate(parts[1].history) if "val/miou" in row][-1]]
    assert np.trace(counts) / counts.sum() == pytest.approx(right["val/pixel_accuracy"])
    assert parts[1].config["_wandb/visualize/plots/confusion"]["panel_config"]["panelDefId"] == (
        "wandb/confusion_matrix/v1"
    )


def _ids(place: Path, name: str) -> np.ndarray:
    import cv2

    return cv2.imread(str(place / "scenes" / "val" / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)


def test_the_best_checkpoint_and_where_it_comes_from(parts: tuple[OfflineRun, OfflineRun]) -> None:
    (artifact,) = [each for each in parts[1].artifacts if each.type == "model"]
    assert artifact.name == f"checkpoint-{parts[1].run.run_id}" and "best" in artifact.aliases
    assert [each.path for each in artifact.manifest.contents] == ["best.ckpt"]
    about = json.loads(artifact.metadata)
    assert about["best"] == parts[1].summary["best/val/miou"] and about["monitor"] == "val/miou"
    assert about["data"]["dataset"].endswith("SegmentationFolders") and about["run"].endswith("run")


RECORD = Analysis(
    task="segmentation", checkpoint="best.ckpt", split="val", samples=2, score="miou", better="more", classes=NAMES,
    tables={"classes": [{"class": "left", "iou": 0.5}, {"class": "rest", "iou": None}, {"class": "all", "iou": "none"}]},
    pictures=(
        Picture("val0", 0.25, file="grid.png", note="a for b"), Picture("val1", 0.5), Picture("x", 1.0, file="worst/x"),
    ),
    charts=(
        Chart("calibration", "Reliability", "sure", "right", (Curve("all", (0.0, 0.5), (0.1, None)),), diagonal=True),
        Chart("iou", "IoU", "class", "IoU", (Curve("", ("left", "rest"), (0.5, 0.25)),), kind="bars"),
    ),
    matrices=(Matrix("confusion", "Confusion", ("a", "b"), ("a", "b", "missed"), ((3, 1, 0), (0, 2, 5))),),
)  # fmt: skip


def test_an_evaluation_is_a_run_beside_the_training(
    place: Path, parts: tuple[OfflineRun, OfflineRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables, plots and matrix are those of the record that the evaluation has written."""
    from dvsn.engine import evaluation

    monkeypatch.setattr("sys.argv", ["dvsn.evaluate", "checkpoint=best.ckpt", "inference.flip=true"])
    folder = place / "run" / "evaluation" / "best_val"
    monkeypatch.setattr(evaluation.Analysing, "write", lambda *_: RECORD.write(folder))
    checkpoint = place / "run" / "checkpoints" / "best.ckpt"
    with initialized(conf_dir()):
        options = [f"checkpoint={checkpoint}", "logger=wandb_offline", "trainer=cpu"]
        config = OmegaConf.to_container(compose("evaluate", overrides=options), resolve=True)
    evaluate(config, shown=False)  # type: ignore[arg-type]
    wandb.teardown()
    (file,) = folder.rglob("*.wandb")
    run = read_run(file)
    assert run.run.run_id != parts[0].run.run_id and run.run.job_type == "evaluate"
    assert run.run.display_name == "run/best.ckpt on val flip=true"
    assert run.config["trained_by"]["wandb"]["id"] == parts[0].run.run_id
    assert run.summary["val/miou"] == pytest.approx(parts[1].summary["best/val/miou"])
    assert table_of(folder, run.history, "val/classes") == [
        ["left", 0.5], ["rest", None], ["all", "none"],
    ]  # fmt: skip
    (shown,) = table_of(folder, run.history, "val/worst_and_best")
    assert shown[:3] == ["val0", 0.25, "a for b"]
    points = table_of(folder, run.history, "Custom Chart Tables/plots/calibration_table")
    assert sorted(points) == sorted([[0.0, "all", 0.1], [0.0, "y = x", 0.0], [1.0, "y = x", 1.0]])
    assert table_of(folder, run.history, "Custom Chart Tables/plots/iou_table") == [
        ["left", 0.5],
        ["rest", 0.25],
    ]
    cells = table_of(folder, run.history, "Custom Chart Tables/plots/confusion_table")
    assert cells[2] == ["a", "missed", 0] and cells[5] == ["b", "missed", 5]
    assert any("val/pictures/filenames" in row for row in run.history)
    assert not (folder / "loggers.json").exists()


def test_an_exported_file_is_made_from_the_checkpoint(
    place: Path, parts: tuple[OfflineRun, OfflineRun], tmp_path: Path
) -> None:
    """Beside the run of the training, with its manifest. A checkpoint of another origin is refused before anything."""
    source = source_of(place / "run" / "checkpoints" / "best.ckpt")
    (tmp_path / "best.onnx").write_bytes(b"graph")
    (tmp_path / "best.json").write_text('{"task": "segmentation"}')
    keep_export(tmp_path / "best.onnx", source)
    wandb.teardown()
    (file,) = tmp_path.rglob("*.wandb")
    run = read_run(file)
    (artifact,) = run.artifacts
    assert (run.run.job_type, run.run.display_name) == ("export", "test lr=0.001: best.onnx")
    assert artifact.type == "export" and artifact.name.startswith("best-onnx-")
    assert sorted(each.path for each in artifact.manifest.contents) == ["best.json", "best.onnx"]
    about = json.loads(artifact.metadata)
    assert about["task"] == "segmentation"
    assert about["made_from"] == [f"dvsn/checkpoint-{parts[0].run.run_id}:best"]
    torch.save({"state_dict": {}, "dvsn": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="was not trained with logger=wandb"):
        source_of(tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"gone\.ckpt"):
        source_of(tmp_path / "gone.ckpt")


def test_what_was_logged_is_read_from_a_file_that_is_cut(
    parts: tuple[OfflineRun, OfflineRun], place: Path, tmp_path: Path
) -> None:
    """Anywhere: the rows up to there, as the tests' own reader has them."""
    (file,) = folders(place)[0].glob("*.wandb")
    content, rows = file.read_bytes(), parts[0].history
    found = logged_by(place / "run", parts[0].run.run_id)
    assert (found.step, found.row) == (6, len(parts[0].history) + len(parts[1].history) - 1)
    cut = tmp_path / "wandb" / "offline-run-1-abc" / "run-abc.wandb"
    cut.parent.mkdir(parents=True)
    seen = set()
    for length in [*range(0, len(content), 997), len(content)]:
        cut.write_bytes(content[:length])
        there = list(history(cut))
        assert [row["_step"] for row in there] == [row["_step"] for row in rows[: len(there)]]
        logged = logged_by(tmp_path, "abc")
        assert logged.step == max((row["trainer/global_step"] for row in rows[: len(there)]), default=-1)
        seen.add(len(there))
    assert {0, len(rows)} <= seen and len(seen) > 5
    last = logged_by(tmp_path, "abc")
    assert last.step == 4 and "train/main" in last.names and "val/miou" not in last.names
    assert logged_by(tmp_path, "other").row == -1


# Pieces ----------------------------------------------------------------------------------------------


def test_boxes_and_keypoints_are_switched_by_class() -> None:
    layers = Layers(
        "one", np.zeros((100, 200, 3), np.uint8), ("cat", "cat", ""),
        boxes={"prediction": (Box(20, 10, 60, 30, 1, 0.75), Box(0, 0, 4, 4, 2))},
        points={"label": (Point(100, 50, 0),)},
    ).within(100)  # fmt: skip
    assert layers.picture.shape == (50, 100, 3)
    found = image_of(layers)._boxes
    first, second = found["prediction"]._val
    assert first["position"] == {"minX": 10, "maxX": 30, "minY": 5, "maxY": 15} and first["domain"] == "pixel"
    assert (first["class_id"], first["scores"], first["box_caption"]) == (1, {"score": 0.75}, "cat (1) 0.75")
    assert "scores" not in second and second["box_caption"] == "class 2"
    (spot,) = found["label"]._val
    assert spot["position"] == pytest.approx({"minX": 48.8, "maxX": 51.2, "minY": 23.8, "maxY": 26.2})
    assert spot["box_caption"] == "cat"


def test_masks_are_scaled_without_mixing_ids() -> None:
    mask = np.array([[0, 0, 255, 255], [0, 0, 255, 255], [7, 7, 1, 1], [7, 7, 1, 1]], np.uint8)
    layers = Layers("one", np.zeros((4, 4, 3), np.uint8), (), masks={"label": mask}).within(2)
    assert layers.masks["label"].tolist() == [[0, 255], [7, 1]]


def test_names_of_classes_are_keys() -> None:
    assert unique(["a", "b", "a", ""]) == ["a", "b", "a (2)", "class 3"]


def test_charts_of_many_bars_and_gaps() -> None:
    chart = Chart(
        "k",
        "t",
        "x",
        "y",
        (Curve("one", ("a", "b"), (1.0, None)), Curve("two", ("a", "b"), (2.0, 3.0))),
        "bars",
    )
    assert plot_of(chart).table.data == [["one: a", 1.0], ["two: a", 2.0], ["two: b", 3.0]]


class Recorded:
    """Stands for a run with a network, which no test has."""

    id, entity, project, group, name = "abc", "team", "dvsn", None, "n"

    offline = False

    def __init__(self, known: set[str]) -> None:
        self.known, self.used, self.logged = known, [], []

    def use_artifact(self, name: str) -> None:
        if name not in self.known:
            raise wandb.errors.CommError("project not found")
        self.used.append(name)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.logged.append((artifact, aliases))


def test_sources_of_an_artifact_with_a_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exported file with its manifest; a source that is not there is told and kept as text."""
    for name in ("best.onnx", "best.json"):
        (tmp_path / name).write_bytes(b"x")
    run = Recorded({"team/dvsn/checkpoint-abc:best"})
    board = WandbBoard(type("WandbLogger", (), {"experiment": run})())
    sources = ("team/dvsn/checkpoint-abc:best", "team/gone/checkpoint-x:best")
    board.file(File(tmp_path / "best.onnx", "best onnx/é-abc", "export", {"best": 0.5}, sources))
    ((artifact, aliases),) = run.logged
    assert run.used == [sources[0]] and "team/gone/checkpoint-x:best cannot be named" in caplog.text
    assert artifact.name == "best_onnx__-abc" and aliases == ["latest"] and artifact.type == "export"
    assert set(artifact.manifest.entries) == {"best.onnx", "best.json"}
    assert artifact.metadata == {"best": 0.5, "made_from": list(sources)}


def test_an_id_is_given_only_to_the_same_project() -> None:
    node = {
        "_target_": "pytorch_lightning.loggers.WandbLogger",
        "project": "dvsn",
        "tags": ["a"],
        "name": "mine",
    }
    labels = Labels("made", ("a", "b"), "sweep_1")
    kept = {"wandb": {"id": "abc", "project": "dvsn"}}
    found = prepared(node, labels, kept, folder=Path("run"))
    assert found["id"] == "abc" and found["name"] == "mine" and found["group"] == "sweep_1"
    assert found["tags"] == ["a", "b"] and found["job_type"] == "train"
    assert "id" not in prepared({**node, "project": "other"}, labels, kept, folder=Path("run"))
    assert prepared({**node, "id": "own"}, labels, kept, folder=Path("run"))["id"] == "own"


# Bad input -------------------------------------------------------------------------------------------


def test_an_unknown_option_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_quiet(monkeypatch, tmp_path)
    config = composed(["task=pix2pix", "logger=wandb_offline", "+logger.wandb.projct=x"], tmp_path)
    with pytest.raises(
        ConfigError, match=r"logger\.wandb\.projct: unknown option of wandb\.init\. Did you mean 'project'\?"
    ):
        build_loggers(config)


@pytest.mark.parametrize(("option", "said"), [("project", "a/b"), ("id", "a/b")])
def test_what_wandb_refuses_is_told(
    option: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_quiet(monkeypatch, tmp_path)
    logger = WandbLogger(**{"project": "dvsn", "save_dir": str(tmp_path), "offline": True, option: said})
    with pytest.raises(ConfigError, match=r"logger\.wandb: W&B refused the run: .*wandb login"):
        find_boards([logger])[0].begin({}, Labels("x"))


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from dvsn.tasks.segmentation import Segmentation
from dvsn.train import train
from tests.support.tiny import TINY_SEGMENTATION, composed

step = Segmentation.training_step
def dies(task, batch, index):
    if task.global_step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(task, batch, index)

Segmentation.training_step = dies
folder = Path(sys.argv[1])
torch.set_num_threads(1)
train(composed([*TINY_SEGMENTATION, f"data.root={folder / 'scenes'}", "callbacks=default", "logger=wandb_offline",
    "trainer.max_epochs=3", "trainer.log_every_n_steps=1", *sys.argv[3:]], folder / "run"))
"""


@pytest.mark.slow
def test_a_kill_without_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the second epoch; the rest is one run with each step once."""
    keep_quiet(monkeypatch, tmp_path)
    write_scenes(tmp_path / "scenes", train=4, val=2)
    root = str(Path(__file__).parents[3])
    call = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*call, "3"], env=environment, capture_output=True, check=False).returncode == -9
    done = subprocess.run(
        [*call, "-1", "resume=auto"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted((tmp_path / "run" / "wandb").rglob("*.wandb"), key=lambda file: file.stat().st_mtime)
    runs = [read_run(file) for file in files]
    assert len(runs) == 2 and len({each.run.run_id for each in runs}) == 1
    rows = [row for each in runs for row in each.history]
    steps = [row["trainer/global_step"] for row in rows if "train/main" in row]
    assert steps == [0, 1, 2, 3, 4, 5]
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
