"""`dvsn evaluate worst=...`: what it writes, against masks that are counted here, and what it refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hydra import compose
from omegaconf import OmegaConf

from dvsn.analysis import confusion
from dvsn.analysis.record import Picture, read
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.engine import compared
from dvsn.engine import trainer as runtime
from dvsn.engine.analysing import listed, rows_of
from dvsn.engine.compared import find_teacher, load_teacher
from dvsn.errors import CheckpointError, ConfigError
from dvsn.evaluate import evaluate
from tests.support.ranks import environment
from tests.support.tiny import TINY_SEGMENTATION, composed, write_scenes

PICTURES = 5


def untrained(words: list[str], folder: Path, name: str) -> Path:
    """The checkpoint of a task that was not trained, whose answers differ over a picture."""
    torch.set_num_threads(1)
    config = composed([*words, "seed=1"], folder)
    task: Any = runtime.make_task(config)
    task.data_recipe = config["data"]
    with torch.no_grad():
        for module in task.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.fill_(0.1)
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    (folder / "checkpoints").mkdir(exist_ok=True)
    torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    return folder / "checkpoints" / f"{name}.ckpt"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), val=PICTURES)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    folder = tmp_path_factory.mktemp("segmenter")
    words = [*TINY_SEGMENTATION, f"data.root={scenes}", "data.dataset.names=[left,'<i>right</i>',rest]"]
    return untrained(words, folder, "best")


def options_of(*words: str) -> dict[str, Any]:
    quiet = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "pictures=null"]
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose("evaluate", overrides=[*quiet, *words]), resolve=True)
    return dict(config)


def measured(*words: str) -> Path:
    """The folder of an evaluation."""
    config = options_of(*words)
    evaluate(config, shown=False)
    return Path(config["output"])


@pytest.fixture(scope="module")
def written(segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("written")
    return measured(f"checkpoint={segmenter}", f"output={output}", "worst=2", "save_all=true", "batch_size=2")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "pictures.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_has_its_score(written: Path, scenes: Path) -> None:
    """Counted from the ids that were written and the labels, class by class."""
    expected, confusion = {}, np.zeros((3, 3))
    for file in sorted((written / "ids").iterdir()):
        said = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        truth = cv2.imread(str(scenes / "val" / "labels" / file.name), cv2.IMREAD_UNCHANGED)
        assert said is not None and truth is not None
        shares = [((said == k) & (truth == k)).sum() / ((said == k) | (truth == k)).sum() for k in range(3)]
        expected[file.stem] = float(np.mean(shares))
        np.add.at(confusion, (truth, said), 1)
    record = read(written / "analysis.json")
    assert len(expected) == PICTURES and {each.name: each.score for each in record.pictures} == pytest.approx(
        expected
    )
    assert [each.name for each in record.pictures] == sorted(expected, key=lambda name: expected[name])
    assert len({each.score for each in record.pictures}) > 1, "the network answers otherwise for each"
    assert [row["name"] for row in rows(written)] == [each.name for each in record.pictures]
    assert [float(row["miou"]) for row in rows(written)] == sorted(expected.values())
    assert record.matrices[0].counts == tuple(map(tuple, confusion.tolist()))
    assert (record.task, record.split, record.samples, record.score) == (
        "segmentation",
        "val",
        PICTURES,
        "miou",
    )
    assert record.classes == ("left", "<i>right</i>", "rest") and set(record.tables) == {
        "classes",
        "largest confusions",
    }
    assert sum(cell.count for each in record.pictures for cell in each.cells) == confusion.sum() - np.trace(
        confusion
    )


def test_the_worst_and_the_best_are_there(written: Path) -> None:
    names = [row["name"] for row in rows(written)]
    files = {row["name"]: row["file"] for row in rows(written) if row["file"]}
    confused = {name: file for name, file in files.items() if file.startswith("confused/")}
    assert {name: file for name, file in files.items() if name not in confused} == {
        names[0]: f"worst/0001_{names[0]}.jpg", names[1]: f"worst/0002_{names[1]}.jpg",
        names[-1]: f"best/0001_{names[-1]}.jpg", names[-2]: f"best/0002_{names[-2]}.jpg",
    }  # fmt: skip
    cells = {each.name: each.cells for each in read(written / "analysis.json").pictures}
    assert all(cells[name] for name in confused), "kept for a confusion that they show"
    for file in files.values():
        assert cv2.imread(str(written / file)) is not None
    assert {each.name: each.file for each in read(written / "analysis.json").pictures if each.file} == files


def test_calibration_is_of_the_answers_that_were_counted(written: Path) -> None:
    chart = {each.key: each for each in read(written / "analysis.json").charts}["calibration"]
    confidence, right = chart.curves[0].x, chart.curves[0].y
    shares = np.array(chart.curves[1].y, float)
    assert shares.sum() == pytest.approx(1)
    content = json.loads((written / "metrics.json").read_text())
    assert float(np.dot(shares, np.array(right, float))) == pytest.approx(
        content["metrics"]["pixel_accuracy"], abs=1e-6
    )
    assert all(1 / 3 <= float(each) <= 1 for each in confidence), "of the largest of three"


def test_scores_alone_leave_no_pictures_of_an_earlier_evaluation(segmenter: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={segmenter}", f"output={tmp_path}"]
    measured(*given, "worst=1", "trainer.limit_test_batches=2")
    record = read(tmp_path / "analysis.json")
    assert record.samples == len(record.pictures) == 2 and (tmp_path / "worst").is_dir()
    measured(*given)
    record = read(tmp_path / "analysis.json")
    assert record.pictures == () and record.samples == PICTURES
    assert set(record.tables) == {"classes", "largest confusions"} and record.matrices[0].unit == "pixels"
    assert [each.key for each in record.charts] == ["iou"], "nobody has listened to the network's scores"
    assert not (tmp_path / "pictures.csv").exists() and not (tmp_path / "worst").exists()


def test_pictures_lie_behind_the_cells_that_are_shown(
    segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the matrix has one class and all others, so have the cells of the pictures."""
    monkeypatch.setattr(confusion, "MOST", 1)
    given = [f"checkpoint={segmenter}", f"output={tmp_path}", "worst=1", "trainer.limit_test_batches=2"]
    record = read(measured(*given) / "analysis.json")
    counts = np.array(record.matrices[0].counts)
    assert counts.shape == (2, 2)
    found = np.zeros((2, 2))
    for each in record.pictures:
        for cell in each.cells:
            found[cell.row, cell.column] += cell.count
    assert found.sum() > 0 and found.tolist() == (counts - np.diag(counts.diagonal())).tolist()


def test_a_split_of_one_picture(segmenter: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=1, val=1)
    folder = measured(
        f"checkpoint={segmenter}", f"output={tmp_path}/out", f"root={tmp_path}/data", "worst=50"
    )
    assert [each["file"] for each in rows(folder)] == ["worst/0001_val0.jpg"] and not (
        folder / "best"
    ).exists()


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "true", "[1]"])
def test_a_count_that_is_none_is_refused(value: str, segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"worst: found .*, expected null or how many pictures"):
        measured(f"checkpoint={segmenter}", f"output={tmp_path}", f"worst={value}")


def test_a_data_set_for_fiftyone(segmenter: Path, tmp_path: Path) -> None:
    folder = measured(
        f"checkpoint={segmenter}", f"output={tmp_path}", "worst=1", "fiftyone=mine", "save_all=true"
    )
    samples = json.loads((folder / "fiftyone" / "samples.json").read_text())["samples"]
    assert [each["name"] for each in samples] == [f"val{n}" for n in range(PICTURES)]
    scores = {row["name"]: float(row["miou"]) for row in rows(folder)}
    for each in samples:
        said = cv2.imread(str(folder / "ids" / f"{each['name']}.png"), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(folder / "fiftyone" / each["predictions"]["mask_path"]), cv2.IMREAD_UNCHANGED)
        assert said is not None and mask is not None and np.array_equal(mask, said + 1)
        assert each["score"] == pytest.approx(scores[each["name"]])


@pytest.mark.parametrize("value", ["''", "5", "[a]"])
def test_a_name_for_fiftyone_is_text(value: str, segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fiftyone: found .*, expected null, or a name"):
        measured(f"checkpoint={segmenter}", f"output={tmp_path}", f"fiftyone={value}")


# A teacher beside it -------------------------------------------------------------------------------------


def test_a_teacher_is_compared_picture_by_picture(written: Path, segmenter: Path, tmp_path: Path) -> None:
    """With itself in the teacher's place: the same answers everywhere."""
    folder = measured(
        f"checkpoint={segmenter}",
        f"output={tmp_path}",
        "worst=1",
        f"teacher={segmenter}",
        "channels_last=false",
    )
    record = read(folder / "analysis.json")
    assert all(each.values["teacher"] == pytest.approx(each.score) for each in record.pictures)
    assert all(each.values["same_answer"] == pytest.approx(1, abs=1e-3) for each in record.pictures)
    assert record.tables["student and teacher"][-1]["pixels"] == PICTURES * 64 * 64
    assert not [title for title in record.tables if "better" in title]


def test_auto_is_the_teacher_of_the_run(
    segmenter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    student, config = run / "checkpoints" / "best.ckpt", run / "config.yaml"
    with caplog.at_level("INFO"):
        assert find_teacher("auto", student) is None and "no config.yaml" in caplog.text
        config.write_text(yaml.safe_dump({"teacher": None}))
        assert find_teacher("auto", student) is None and "names none" in caplog.text
        config.write_text(yaml.safe_dump({"teacher": "gone.ckpt"}))
        assert find_teacher("auto", student) is None and "gone.ckpt, which is not there" in caplog.text
    config.write_text(yaml.safe_dump({"teacher": [str(segmenter)]}))
    assert find_teacher("auto", student) == str(segmenter)
    config.write_text(yaml.safe_dump({"teacher": [str(segmenter), "b.ckpt"]}))
    with pytest.raises(ConfigError, match="names 2 teachers, expected one"):
        find_teacher("auto", student)
    for text in ("teacher: [", "teacher: 2024-99-99", "a: " + 3000 * "["):
        config.write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read as YAML"):
            find_teacher("auto", student)
    assert find_teacher(None, student) is None and find_teacher("x.ckpt", student) == "x.ckpt"


UNFIT = {
    "a checkpoint of the task 'pix2pix', expected 'segmentation'": ("pix2pix", 2, ()),
    "b.ckpt knows 3 classes, the checkpoint 2": ("segmentation", 3, ()),
    "b.ckpt calls class 0 'car', the checkpoint 'road'": ("segmentation", 2, ("car", "road")),
}


@pytest.mark.parametrize("message", UNFIT)
def test_teachers_that_do_not_fit_are_refused(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(kind: str, classes: int, names: tuple[str, ...]) -> Any:
        return SimpleNamespace(kind=kind, classes=classes, class_names=names)

    monkeypatch.setattr(compared, "open_task", lambda path: task(*UNFIT[message]))
    with pytest.raises(CheckpointError, match=message):
        load_teacher("b.ckpt", task("segmentation", 2, ("road", "car")))
    monkeypatch.setattr(compared, "open_task", lambda path: task("segmentation", 2, ()))
    assert load_teacher("b.ckpt", task("segmentation", 2, ("road", "car"))).kind == "segmentation"


def test_a_teacher_needs_pictures_and_a_path(segmenter: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={segmenter}", f"output={tmp_path}/out"]
    with pytest.raises(
        ConfigError, match=r"teacher: is set beside the checkpoint picture by picture\. Set worst=50"
    ):
        measured(*given, f"teacher={segmenter}")
    with pytest.raises(
        ConfigError, match=r"teacher: found \['a', 'b'\], expected null, auto, or the path of one"
    ):
        measured(*given, "worst=1", "teacher=[a,b]")


# Parts ---------------------------------------------------------------------------------------------------


def test_rows_have_the_same_columns() -> None:
    pictures = [
        Picture("a", 0.5, {"ssim": 0.1}, file="worst/0001_a.jpg"),
        Picture("b", float("nan"), note="n"),
    ]
    assert rows_of(pictures, "psnr") == [
        {"name": "a", "psnr": 0.5, "ssim": 0.1, "file": "worst/0001_a.jpg", "note": ""},
        {"name": "b", "psnr": None, "ssim": None, "file": None, "note": "n"},
    ]
    assert rows_of([], "psnr") == []


def test_a_large_split_is_listed_from_both_ends() -> None:
    pictures = [Picture(str(n), float(n)) for n in range(10)]
    assert [each.name for each in listed(pictures, 5)] == ["0", "1", "2", "8", "9"]
    assert len(listed(pictures, 10)) == 10


@pytest.mark.slow
def test_two_processes_find_what_one_does(segmenter: Path, tmp_path: Path) -> None:
    """Five pictures on two ranks, a teacher beside: the same record, table and pictures, byte by byte."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, devices in zip(folders, (1, 2), strict=True):
        words = [
            f"checkpoint={segmenter}",
            f"output={folder}",
            f"teacher={segmenter}",
            "worst=2",
            "pictures=null",
        ]
        words += [
            "trainer.accelerator=cpu",
            "trainer.enable_progress_bar=false",
            f"trainer.devices={devices}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "dvsn.evaluate", *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    contents = [
        {
            each.relative_to(folder).as_posix(): each.read_bytes()
            for each in folder.rglob("*")
            if each.is_file()
        }
        for folder in folders
    ]
    for content in contents:
        content.pop("metrics.json")
    assert contents[0].keys() == contents[1].keys() and len(contents[0]) == 3 + 4
    for name, content in contents[0].items():
        assert content == contents[1][name], name
