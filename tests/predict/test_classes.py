"""Classification in use: the calibration error by hand, and the classes of pictures as cards and tables."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import ConfigError
from dvsn.metrics.calibration import CalibrationError, Reliability
from dvsn.predict.command import predict
from dvsn.predict.options import COMMAND
from dvsn.tasks.classification import warn_of_enlarging
from tests.support.tiny import composed


def logits_of(shares: list[list[float]]) -> torch.Tensor:
    return torch.tensor(shares).log()


def test_the_calibration_error_by_hand() -> None:
    """Bins [0, 0.5) and [0.5, 1]: a picture at 0.4, right; four at 0.5, 0.6, 0.8 and 1, two right."""
    metric = CalibrationError(3, bins=2)
    metric.update(logits_of([[0.4, 0.3, 0.3], [0.5, 0.2, 0.3]]), torch.tensor([0, 1]))
    metric.update(logits_of([[0.6, 0.4, 0], [0.1, 0.8, 0.1], [0, 0, 1]]), torch.tensor([0, 0, 2]))
    assert float(metric.compute()) == pytest.approx(abs(1 - 0.4) / 5 + abs(2 - 2.9) / 5, abs=1e-6)
    with pytest.raises(ConfigError, match="calibration_bins"):
        CalibrationError(3, bins=0)


def test_the_bins_of_the_diagram_by_hand() -> None:
    """Bins [0, 0.5) and [0.5, 1]."""
    diagram = Reliability(2)
    diagram.add(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([False, True, True]))
    assert diagram.points() == [(0.25, 0.0, pytest.approx(1 / 3)), (0.75, 1.0, pytest.approx(2 / 3))]
    assert diagram.error() == pytest.approx(0.25 / 3 + 0.25 * 2 / 3) and Reliability().points() == []


def test_logits_between_0_and_1_are_no_probabilities() -> None:
    """torchmetrics takes them for such; so do the sums of the reliability diagram know better."""
    torch.manual_seed(0)
    logits, target = torch.rand(500, 10), torch.randint(0, 10, (500,))
    metric, diagram = CalibrationError(10), Reliability()
    metric.update(logits, target)
    confidence, answer = logits.softmax(dim=1).max(dim=1)
    diagram.add(confidence, answer == target)
    bins = np.minimum((confidence.numpy() * 15).astype(int), 14)
    expected = sum(
        abs((answer == target).numpy()[bins == n].mean() - confidence.numpy()[bins == n].mean())
        * (bins == n).mean()
        for n in np.unique(bins)
    )
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
    assert diagram.error() == pytest.approx(expected, abs=1e-6)


# Pictures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose class is the brightest channel: red, green or blue."""
    folder = tmp_path_factory.mktemp("checkpoint")
    options = ["data.dataset.names=[red,green,blue]", "data.classes=3", "transform=cifar"]
    config = composed(["task=classification", "data=cifar10", "network=resnet8", *options], folder)
    task: Any = runtime.make_task(config)
    task.data_recipe = config["data"]
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.zero_()
        task.network.conv1.weight[:3, :, 1, 1] = torch.eye(
            3
        )  # the channels, through every shortcut of the first stage
        for module in (
            task.network.bn1,
            task.network.layer2[0].downsample[1],
            task.network.layer3[0].downsample[1],
        ):
            module.weight.fill_(1)
        for layer in (task.network.layer2, task.network.layer3):
            layer[0].downsample[0].weight[:3, :3, 0, 0] = torch.eye(3)
        task.network.fc.weight[:, :3] = 4 * torch.eye(3)
    state: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    AtomicCheckpointIO().save_checkpoint(state, folder / "rgb.ckpt")
    return folder / "rgb.ckpt"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one red, one green and one blue picture of different sizes; OpenCV writes blue, green, red."""
    for name, colour, size in (
        ("r", (0, 0, 250), 40),
        ("deep/g", (0, 250, 0), 64),
        ("deep/b", (250, 0, 0), 32),
    ):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), np.full((size, 48, 3), colour, np.uint8))
    return tmp_path / "in"


def options_of(checkpoint: Path, source: Path, output: Path, **more: Any) -> dict[str, Any]:
    given = [f"checkpoint={checkpoint}", f"input={source}", f"output={output}", "device=cpu"]
    return COMMAND.parse([*given, *(f"{key}={value}" for key, value in more.items())])


def test_pictures_get_their_classes(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    written = predict(options_of(checkpoint, photos, tmp_path / "out", batch_size=2))
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written}
    assert names == {"r.png", "deep/g.png", "deep/b.png", "classes.csv", "classes.json"}
    results = json.loads((tmp_path / "out" / "classes.json").read_text())
    best = {Path(each["file"]).stem: each["classes"] for each in results}
    assert {stem: found[0]["class"] for stem, found in best.items()} == {
        "r": "red",
        "g": "green",
        "b": "blue",
    }
    for found in best.values():
        assert len(found) == 3 and sum(each["score"] for each in found) == pytest.approx(1, abs=1e-5)
        assert found[0]["score"] > 0.5 >= found[1]["score"] >= found[2]["score"]
    with (tmp_path / "out" / "classes.csv").open(newline="") as file:
        table = {Path(row["file"]).stem: row for row in csv.DictReader(file)}
    assert table["g"]["class_1"] == "green" and float(table["g"]["score_1"]) == best["g"][0]["score"]
    drawn = cv2.imread(str(tmp_path / "out" / "deep" / "g.png"))
    assert (
        drawn is not None and drawn.shape[1] == 192 and drawn[96, 96].tolist() == [0, 250, 0]
    )  # the file itself
    assert drawn.shape[0] == 192 + 3 * 20  # and three lines


def test_a_table_alone_and_the_best_alone(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    given = options_of(checkpoint, photos / "r.png", tmp_path / "out", write="table", top=1, size="32x32")
    assert [path.name for path in predict(given)] == ["classes.csv", "classes.json"]
    assert (tmp_path / "out" / "classes.csv").read_text().splitlines()[0] == "file,class_1,score_1"


@pytest.mark.parametrize(
    ("option", "words"),
    [({"write": "overlay"}, "cards"), ({"top": 0}, "top"), ({"boxes": "x.json"}, "no such option")],
)
def test_options_that_do_not_fit_are_refused(
    option: dict[str, Any], words: str, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        predict(options_of(checkpoint, photos, tmp_path / "out", **option))


def test_small_pictures_made_large_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    class Sized:
        def __init__(self, stored: int, shown: int) -> None:
            self.stored, self.shown = stored, shown

        def ruled(self) -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext()

        def read(self, _: int) -> dict[str, Any]:
            return {"photo": np.zeros((self.stored, self.stored, 3), np.uint8)}

        def __getitem__(self, _: int) -> dict[str, Any]:
            return {"image": torch.zeros(3, self.shown, self.shown)}

    with caplog.at_level(logging.WARNING, logger="dvsn"):
        warn_of_enlarging(Sized(32, 32))
        warn_of_enlarging(Sized(200, 224))
        assert not caplog.records
        warn_of_enlarging(Sized(32, 224))
    assert "transform=cifar" in caplog.text and "224x224 of pictures of 32x32" in caplog.text


def test_what_a_real_evaluation_reports(checkpoint: Path) -> None:
    import dvsn

    task: Any = dvsn.load(checkpoint)
    assert set(task.metrics) == {"top1", "ece"}
    task.use_metrics(top=[1, 2], calibration_bins=10)
    assert set(task.metrics) == {"top1", "top2", "ece"} and task.metrics["ece"].n_bins == 10
