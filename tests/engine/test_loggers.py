"""What a run leaves behind: its folder, the CSV of metrics, and what W&B and TensorBoard are told."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import wandb
import yaml

from dvsn.engine.loggers import CsvLogger
from dvsn.pictures.layout import read_layout
from dvsn.pictures.strip import strip
from dvsn.train import train
from tests.support.tiny import TINY, composed, write_pairs
from tests.support.wandb_files import keep_quiet, records, values

OPTIONS = [
    *TINY, "callbacks=default", "callbacks.rates.every_n_steps=1", "trainer.log_every_n_steps=1", "data.batch_size=2",
]  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The CSV ---------------------------------------------------------------------------------------------


def test_csv_by_hand(tmp_path: Path) -> None:
    logger = CsvLogger(folder=str(tmp_path))
    logger.log_metrics({"loss": 0.5, "lr": 1e-3}, step=0)
    logger.log_metrics({"loss": 1 / 3}, step=10)
    logger.log_metrics({"val/l1": 2.0}, step=10)
    logger.log_metrics({"late": float("nan")}, step=5)
    logger.finalize("success")
    text = (tmp_path / "metrics.csv").read_text().replace("\r", "")
    assert text == "step,loss,lr,val/l1,late\n0,0.5,0.001,,\n5,,,,nan\n10,0.333333,,2,\n"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]  # no temporary file stays


def test_a_damaged_table_goes_on_with_what_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cut line, text for a number, a step that is none, bytes of no text: told by line, and the file is kept."""
    damaged = b"step,loss,val/l1\n0,0.5,\n1,0.4\n2,much,\nx,0.1,\n\xff\xfe\x00,,\n3,0.25,1.5\n4,0.2,\n"
    (tmp_path / "metrics.csv").write_bytes(damaged)
    logger = CsvLogger(folder=str(tmp_path))
    logger.resume(4)
    assert "metrics.csv: line 3, 4, 5, 6 cannot be read" in caplog.text
    logger.log_metrics({"loss": 0.125}, step=4)
    logger.save()
    assert [(row["step"], row["loss"], row["val/l1"]) for row in rows_of(tmp_path / "metrics.csv")] == [
        ("0", "0.5", ""), ("3", "0.25", "1.5"), ("4", "0.125", "")
    ]  # fmt: skip
    assert (tmp_path / "metrics_damaged.csv").read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"\n", b"a,b\n1,2\n", bytes(range(256))])
def test_a_file_that_is_no_table_is_kept_beside_the_new_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = CsvLogger(folder=str(tmp_path))
    logger.resume(4)
    logger.log_metrics({"loss": 1.0}, step=4)
    logger.save()
    assert [row["step"] for row in rows_of(tmp_path / "metrics.csv")] == ["4"]


def test_csv_is_flushed_now_and_then(tmp_path: Path) -> None:
    logger = CsvLogger(folder=str(tmp_path), flush_every=2)
    logger.log_metrics({"a": 1.0}, step=0)
    assert not (tmp_path / "metrics.csv").exists()
    logger.log_metrics({"a": 2.0}, step=1)
    assert len(rows_of(tmp_path / "metrics.csv")) == 2


def test_a_resumed_csv_reads_as_if_never_interrupted(tmp_path: Path) -> None:
    first = CsvLogger(folder=str(tmp_path))
    for step in range(5):
        first.log_metrics({"loss": float(step), **({"old, wet": 1.0} if step in (1, 3) else {})}, step=step)
    first.save()
    second = CsvLogger(folder=str(tmp_path))
    second.resume(3)  # steps 3 and 4 are trained again
    second.log_metrics({"loss": 30.0, "new": 7.0}, step=3)
    second.save()
    rows = rows_of(tmp_path / "metrics.csv")
    assert [(row["step"], row["loss"]) for row in rows] == [("0", "0"), ("1", "1"), ("2", "2"), ("3", "30")]
    assert (
        [row["old, wet"] for row in rows] == ["", "1", "", ""]
        and rows[3]["new"] == "7"
        and rows[0]["new"] == ""
    )


# A whole run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=6, val=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Iterator[Path]:
    """Two epochs of three batches, then a third epoch by resuming, with TensorBoard."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["dvsn.train", "task=pix2pix", "name=a b"])
        options = [*OPTIONS, f"data.root={pairs}"]
        train(composed([*options, "logger=csv", "trainer.max_epochs=2"], folder))
        (folder / "first.csv").write_bytes((folder / "metrics.csv").read_bytes())
        train(composed([*options, "logger=tensorboard", "trainer.max_epochs=3", "resume=auto"], folder))
    yield folder


def test_the_run_folder_records_the_run(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["network"]["width"] == 4 and config["data"]["batch_size"] == 2 and "${" not in str(config)
    commands = (run / "command.txt").read_text().splitlines()
    assert commands == ["python -m dvsn.train task=pix2pix 'name=a b'"] * 2  # a resumed run adds its own
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__ and environment["python"]
    assert {"git", "system", "processor", "gpus", "cpu_threads"} <= set(environment)
    result = json.loads((run / "result.json").read_text())
    assert result["epochs"] == 3 and result["steps"] == 9 and result["monitor"] == "val/l1"
    assert result["objective"] == result["best"] == pytest.approx(min(column(run, "val/l1")), rel=1e-4)
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert not list(run.rglob("*.tmp"))


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows_of(run / "metrics.csv") if row[name]]


def test_metrics_csv_has_every_step_once(run: Path) -> None:
    rows = rows_of(run / "metrics.csv")
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert len(column(run, "train/l1")) == 9 and len(column(run, "val/psnr")) == 3
    names = set(rows[0])
    assert {
        "train/gan",
        "train/l1",
        "train/discriminator_accuracy",
        "val/l1",
        "val/psnr",
        "val/ssim",
    } <= names
    assert {"system/images_per_second", "system/lr_network", "system/lr_discriminator"} <= names
    assert {name.partition("/")[0] for name in names} <= {"step", "epoch", "train", "val", "system", "time"}
    assert all(0.01 < float(value) < 100 for value in column(run, "system/memory_gib"))


def test_the_gradient_norm_of_each_optimiser_is_in_the_table(run: Path) -> None:
    for name in ("discriminator", "network"):
        norms = [float(value) for value in column(run, f"system/gradient_norm_{name}")]
        assert len(norms) == 9 and all(norm > 0 for norm in norms) and len(set(norms)) > 1


def test_the_times_of_every_epoch_stand_in_the_row_of_its_scores(run: Path) -> None:
    rows = [row for row in rows_of(run / "metrics.csv") if row["val/l1"]]
    assert len(rows) == 3
    for row in rows:
        parts = [float(row[f"time/{part}"]) for part in ("data", "forward", "backward", "validation", "rest")]
        assert all(part > 0 for part in parts)
    assert len(column(run, "time/data")) == 3, "and nowhere else"


def test_the_rows_before_the_resume_are_kept(run: Path) -> None:
    first, both = rows_of(run / "first.csv"), rows_of(run / "metrics.csv")
    assert len(both) > len(first) >= 6
    for old, new in zip(first, both, strict=False):
        assert {key: value for key, value in new.items() if key in old} == old


def test_pictures_of_every_epoch(run: Path) -> None:
    files = sorted(p.name for p in (run / "pictures").iterdir())
    grids = ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    assert files == [*grids, "latest.png", "layout.json", "strip.png", "strip.webp"]
    picture = cv2.imread(str(run / "pictures" / "latest.png"))
    assert picture.shape[0] >= 2 * 16 and picture.shape[1] >= 3 * 16  # two rows of input, generated, real
    assert (run / "pictures" / "latest.png").read_bytes() == (
        run / "pictures" / "epoch_0003.png"
    ).read_bytes()


def test_the_pictures_of_a_resumed_run_are_the_same(run: Path) -> None:
    layout = read_layout(run / "pictures")
    assert layout.since == "epoch_0001" and len(layout.rows) == 2, "rows and places have not changed"
    found = strip(run / "pictures")
    assert (found.column, found.numbers, list(found.fixed)) == ("generated", (1, 2, 3), ["input a", "real"])


def test_tensorboard_has_metrics_and_a_picture(run: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/l1", "val/l1", "val/psnr"} <= set(events.Tags()["scalars"])
    assert "val/pictures" in events.Tags()["images"]
    assert [event.value for event in events.Scalars("val/l1")] == pytest.approx(
        column(run, "val/l1")[-1:], rel=1e-4
    )
    assert events.Images("val/pictures")[0].height >= 32


def test_the_rows_before_a_resume_are_kept_under_accumulation(pairs: Path, tmp_path: Path) -> None:
    options = [*OPTIONS, f"data.root={pairs}", "logger=csv", "trainer.accumulate_grad_batches=3"]
    train(composed([*options, "trainer.max_epochs=2"], tmp_path))
    before = [row["step"] for row in rows_of(tmp_path / "metrics.csv")]
    train(composed([*options, "trainer.max_epochs=3", "resume=auto"], tmp_path))
    after = [row["step"] for row in rows_of(tmp_path / "metrics.csv")]
    assert after[: len(before)] == before and len(after) > len(before)


# W&B -------------------------------------------------------------------------------------------------


def test_wandb_offline(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    keep_quiet(monkeypatch, tmp_path)
    options = ["logger=wandb_offline", "trainer.max_epochs=2", "optim.lr=0.00025", "logger.artifact=true"]
    result = train(composed([*OPTIONS, f"data.root={pairs}", *options], tmp_path))
    (log,) = tmp_path.rglob("*.wandb")
    wandb.teardown()  # ends W&B's own process, which may still be writing when `finish` returns
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    kinds: set[str] = set()
    for record in records(log):
        kinds.add(record.WhichOneof("record_type"))
        if record.HasField("run"):
            config |= values(record.run.config.update)
        config |= values(record.config.update)
        summary |= values(record.summary.update)
        if record.HasField("history"):
            history.append(values(record.history.item))
    assert config["network"]["width"] == 4 and config["optim"]["lr"] == 0.00025
    logged = {name for row in history for name in row}
    assert {"train/l1", "val/l1", "val/psnr", "system/lr_network", "trainer/global_step"} <= logged
    named = [name for name in logged if not name.startswith("_") and name != "epoch"]
    assert {name.partition("/")[0] for name in named} == {
        "train",
        "val",
        "system",
        "time",
        "trainer",
    }  # sections
    assert all("trainer/global_step" in row for row in history if "val/l1" in row or "train/l1" in row)
    pictures = [row for row in history if any(name.startswith("val/pictures") for name in row)]
    scores = [row for row in history if "val/l1" in row]
    for number, (picture, score) in enumerate(zip(pictures, scores, strict=True), start=1):
        (caption,) = picture["val/pictures/captions"]
        assert caption.startswith(
            f"epoch_{number:04d}: l1 {score['val/l1']:.4g}, psnr {score['val/psnr']:.4g}, "
        )
        assert caption.endswith("; 000, 001")  # the files
        assert picture["trainer/global_step"] == score["trainer/global_step"]
    assert len(list(tmp_path.rglob("media/images/**/*.png"))) == 2
    found = [row["val/l1"] for row in history if "val/l1" in row]
    assert summary["best/val/l1"] == pytest.approx(result["best"]) == pytest.approx(min(found))
    assert "artifact" in kinds  # the checkpoint


def test_an_epoch_shorter_than_the_interval_of_the_log_is_logged_once(tmp_path: Path) -> None:
    """trainer.log_every_n_steps is 10; a small set of pictures has fewer batches."""
    pairs = write_pairs(tmp_path / "pairs", train=6, val=1)
    options = [*TINY, "logger=csv", "data.batch_size=2", "trainer.max_epochs=3", f"data.root={pairs}"]
    train(composed(options, tmp_path / "run"))
    rows = rows_of(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows if row["train/gan"]] == ["2", "5", "8"]
