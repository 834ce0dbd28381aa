"""Comparisons of checkpoints, exported files and networks: rows, winners, the picture, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose

from dvsn.benchmark import backends, best, compare, compare_table, named, stopwatch
from dvsn.benchmark.__main__ import benchmark, with_files
from dvsn.benchmark.agreement import agreement
from dvsn.benchmark.picture import points_of
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.errors import CheckpointError, ConfigError
from dvsn.export.__main__ import COMMAND, export, settled
from tests.support.six_tasks import TASKS, write_checkpoint

QUICK = ["device=cpu", "runs=1", "rounds=1", "variants=[folded,folded+graph]"]


def asked(*words: Any, quick: list[str] = QUICK) -> dict[str, Any]:
    """The result for a command line."""
    argv = with_files([str(word) for word in words])
    with initialized(conf_dir()):
        config = plain(hydra_compose("benchmark", overrides=[*quick, *argv]))
    return benchmark(config)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("segmentation", tmp_path_factory.mktemp("compared"))


def need_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs pip install 'dvsn[onnx]'")


SLOW = ("pix2pix", "detection", "classification", "pose", "landmarks")


@pytest.mark.parametrize(
    "task", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TASKS]
)
def test_a_table_of_every_task(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_checkpoint(task, tmp_path)
    sides = {"pix2pix": ["size=[32,32]"], "segmentation": ["size=[64,64]"], "detection": ["size=[64,128]"]}
    variants = "variants=[folded,folded+graph,folded+channels_last+bf16]"
    (group,) = asked(path, *sides.get(task, []), variants)["groups"]
    assert group["task"] == task and group["trained"]
    rows = {row["variant"]: row for row in group["rows"]}
    assert list(rows) == ["plain", "folded", "folded+graph", "folded+channels_last+bf16"]
    assert "needs CUDA" in rows["folded+graph"]["skipped"] and "milliseconds" not in rows["folded+graph"]
    for name in ("plain", "folded"):
        assert rows[name]["same"] == 1 and rows[name]["peak_memory"] > 0 and rows[name]["passes"] == 1
        assert rows[name]["precision"] == "fp32"
        assert set(rows[name]["stages"]) == {"decode", "preprocess", "network", "postprocess"}
        assert rows[name]["stages"]["network"] > 0
    assert rows["plain"]["ratio"] == 1
    half = rows["folded+channels_last+bf16"]
    assert "float32" in half["skipped"] if task == "detection" else half["precision"] == "bf16"
    shown = capsys.readouterr().out
    assert "needs CUDA" in shown and f"{group['costs']['parameters']:,} parameters" in shown


@pytest.mark.slow
def test_a_file_beside_its_checkpoint_and_one_alone(segmenter: Path, tmp_path: Path) -> None:
    need_onnx()
    file = export(COMMAND.parse([str(segmenter), f"output={tmp_path}/seen.onnx", "size=64x64"]))
    output = tmp_path / "table.md"
    result = asked(file, segmenter, "size=[64,64]", "variants=[folded+onnxruntime]", f"output={output}")
    (group,) = result["groups"]
    assert [(row["name"], row["variant"]) for row in group["rows"]] == [
        ("segmentation.ckpt", "plain"), ("segmentation.ckpt", "folded+onnxruntime"), ("seen.onnx", "file"),
    ]  # fmt: skip
    for row in group["rows"]:
        assert row["same"] > 0.999 and row["milliseconds"]["p95"] > 0 and row["peak_memory"] is not None
    page = output.read_text(encoding="utf-8")
    assert "| seen.onnx | file | fp32 by ONNX Runtime |" in page and "times plain" in page
    (alone,) = asked(file, "size=[64,64]")["groups"]
    rows = {row["variant"]: row for row in alone["rows"]}
    assert list(rows) == ["plain", "file"] and "same" not in rows["file"] and rows["file"]["ratio"] > 0
    assert not alone["trained"] and "random weights" in compare_table.said(alone)
    (other,) = asked(file, segmenter, "size=[128,64]", "variants=[plain]")["groups"]
    assert "takes anyx3x64x64" in other["rows"][1]["skipped"]


@pytest.mark.slow
def test_two_tasks_have_a_table_each_and_a_network_is_named(
    segmenter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = asked(segmenter, "pfld_025", "variants=[plain]")
    assert {name: len(groups) for name, groups in compare_table.by_task(result).items()} == {
        "segmentation": 1, "landmarks": 1,
    }  # fmt: skip
    network = result["groups"][1]
    assert network["name"] == "pfld_025" and not network["trained"] and network["size"] == [112, 112]
    assert "random weights" in capsys.readouterr().out


def test_scores_are_found_or_measured(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.ckpt"
    task = type("", (), {"response": "pixels"})
    group = compare.Group(named.Named("run/best.ckpt", task, {}, path))
    rows = [{**row(9, 1), "name": "run/best.ckpt"}, {**row(5, 0.9995, "folded"), "name": "run/best.ckpt"}]
    compare.give_scores(group, rows, None)
    assert rows[0]["score"] is None and "score" not in rows[1]
    folder = tmp_path / "evaluation" / "best_val"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"miou": 0.625}}), encoding="utf-8")
    compare.give_scores(group, rows, None)
    assert rows[0]["score"] == 0.625
    rows.append({**row(2, 0.95, "folded+bf16"), "name": "run/best.ckpt"})
    found = points_of([{"rows": rows}])
    assert [(point.label, point.score) for point in found] == [
        ("plain", 0.625), ("folded", 0.625), ("folded+bf16", None),
    ]  # fmt: skip
    compare.give_scores(group, rows, lambda measured: {"miou": 0.25 if measured == path else 0.0})
    assert rows[0]["score"] == 0.25


@pytest.mark.slow
def test_the_picture(segmenter: Path, tmp_path: Path) -> None:
    result = asked(segmenter, "pfld_025", f"picture={tmp_path}/speed.svg", "variants=[folded]")
    assert len(result["groups"]) == 2
    drawn = (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml") and len(drawn) > 5000


def row(median: float, same: float, variant: str = "plain") -> dict[str, Any]:
    return {"name": "a", "variant": variant, "milliseconds": {"median": median}, "same": same}


def test_the_fastest_that_agrees_wins() -> None:
    rows = [row(9, 1), row(5, 0.991), row(2, 0.9), row(4, 0.98), {"skipped": "why"}]
    assert (
        compare.winner(rows, 0.99) == 1 and compare.winner(rows, 0.95) == 3 and compare.winner(rows, 0) == 2
    )
    assert compare.winner([row(1, 0.5)], 0.99) is None
    assert compare.as_export("folded+bf16+openvino") == "format=openvino precision=bf16"
    assert compare.as_export("folded+int8+onnxruntime") == "format=onnx precision=int8"
    assert compare.as_export("folded+channels_last+compiled") == ""


def test_agreement_by_hand() -> None:
    ids = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    other = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    assert agreement("pixels", ["ids"], [(ids,), (ids,)], [(ids,), (other,)]) == (0, 7 / 8)
    points = torch.tensor([[[3.0, 4.0], [8.0, 8.0]]])
    moved = points + torch.tensor([[[0.3, 0.3], [0.0, 0.6]]])  # 0.42 and 0.6 pixels away
    largest, same = agreement(
        "points", ["points", "confidence"], [(moved, points[..., 0])], [(points, points[..., 0])]
    )
    assert largest == pytest.approx(0.6, abs=1e-6) and same == 0.5
    boxes, labels = torch.tensor([[0.0, 0, 9, 9], [5.0, 5, 7, 8]]), torch.tensor([1, 2])
    found = (boxes.flip(0) + 1, labels.flip(0))  # in another order, a pixel away
    assert agreement("objects", ["boxes", "labels"], [found], [(boxes, labels)]) == (1, 1)
    one_more = (torch.cat([boxes, boxes[:1]]), torch.tensor([1, 2, 2]))
    assert agreement("objects", ["boxes", "labels"], [one_more], [(boxes, labels)]).same == pytest.approx(
        2 / 3
    )
    shares = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    swapped = torch.tensor([[0.5, 0.5], [0.8, 0.2]])
    assert agreement("classes", ["probabilities"], [(swapped,)], [(shares,)]).same == 0.5
    assert agreement(
        "objects", ["boxes", "labels"], [(boxes[:0], labels[:0])], [(boxes[:0], labels[:0])]
    ) == (0, 1)


def test_the_reason_is_what_the_error_says() -> None:
    text = "Check 'false' failed at src/core.cpp:151:\nFrontEnd API failed:\nNo conversion rule"
    assert compare.said_by(RuntimeError(text)) == "FrontEnd API failed:"
    assert compare.said_by(KeyError()) == "KeyError"


def test_memory_that_is_taken_is_seen() -> None:
    growth = backends.Growth()
    growth.start()
    if growth.before is None:
        pytest.skip("not Linux, or no right to reset the peak")
    taken = np.ones(40 << 17)  # 40 MiB
    del taken
    found = growth.bytes
    assert found is not None and 30 << 20 < found < 80 << 20


@pytest.mark.slow
def test_best_takes_the_winner(segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_onnx()
    monkeypatch.setattr(best, "TIMING", {"seconds": 0.1, "runs": 1, "rounds": 1})
    monkeypatch.setattr(best, "CANDIDATES", {"fp32": ("folded+onnxruntime",), "bf16": ("folded+graph",)})
    path = export(
        COMMAND.parse([str(segmenter), f"output={tmp_path}/best.onnx", "format=best", "size=64x64"])
    )
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["precision"] == "fp32"
    monkeypatch.setattr(best, "CANDIDATES", {"bf16": ("folded+graph",)})
    with pytest.raises(ConfigError, match=r"none of folded\+graph can be had"):
        settled(COMMAND.parse([str(segmenter), "format=best", "precision=bf16", "size=64x64"]))
    with pytest.raises(ConfigError, match="found 'fp16', but format=best chooses among"):
        settled(COMMAND.parse([str(segmenter), "format=best", "precision=fp16"]))
    assert settled(COMMAND.parse([str(segmenter)]))["precision"] == "fp32"


def test_files_are_what_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.onnx").touch()
    given = ["x.ckpt", "size=[1,2]", "--config-dir", "mine", "a=b.onnx", "-m", "+new=1", "it's.ckpt"]
    assert with_files(given) == [
        "size=[1,2]", "--config-dir", "mine", "-m", "+new=1", "files=[x.ckpt,'a=b.onnx','it\\'s.ckpt']",
    ]  # fmt: skip
    assert with_files(["network=pidnet_s"]) == ["network=pidnet_s"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pidnet_z"], "found 'pidnet_z', which is no file, no folder and no network. Did you mean 'pidnet_"),
        (["none.ckpt"], "none.ckpt: no such checkpoint"),
        (["none.onnx"], "none.onnx: no such file"),
        (["a.pt2"], "a.pt2: found the ending '.pt2', expected a checkpoint, .onnx or .xml"),
        (["a.ckpt", "network=pidnet_s", "data.classes=3"], "files, network: found both"),
        (["a.ckpt", "checkpoint=b.ckpt"], "files, checkpoint: found both"),
        (["a.ckpt", "picture=a.gif"], "picture: found 'a.gif'"),
        (["a.ckpt", "clock=cpu"], "clock: found 'cpu', expected wall or processor"),
        (["a.ckpt", "clock=processor", "threads=2"], "Expected threads=1 beside it"),
        (["a.ckpt", "agreement=2"], "agreement: found 2"),
        (["a.ckpt", "variants=[foldde]"], "there is no lever 'foldde'"),
        (["network=pidnet_s", "picture=a.png"], "picture, score: are for files"),
    ],
)
def test_refuses(words: list[str], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError)) as raised:
        asked(*words, quick=["device=cpu"])
    assert message in str(raised.value)


def test_the_clock_of_the_processor_stands_still_while_nothing_works() -> None:
    with stopwatch.reading("processor"):
        start = stopwatch.clock()
        time.sleep(0.05)
        assert stopwatch.clock() - start < 0.04
    assert stopwatch.clock is time.perf_counter
    result = {"device": "a CPU", "threads": 1, "load": [1.0, 2.0], "date": "2026-12-01", "clock": "processor",
              "environment": {"versions": {"torch": "2", "dvsn": "1"}}}  # fmt: skip
    assert "1 thread, processor time; torch 2" in compare_table.where(result)


def test_a_file_of_another_origin(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"GIF89a")
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        named.read_named(str(tmp_path / "other.onnx"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    task = type("", (), {"response": "pixels"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backends.refusal(frozenset({"openvino"}), "cpu", task).endswith(
        "pip install 'dvsn[onnx,openvino]'"
    )
    eight = backends.refusal(frozenset({"int8", "onnxruntime"}), "cpu", task)
    assert eight.startswith("onnx, onnxscript, onnxruntime, nncf not installed")
    assert "CPUs only" in backends.refusal(frozenset({"openvino"}), "cuda", task)
    detector = type("", (), {"response": "objects"})
    assert "float32" in backends.refusal(frozenset({"bf16"}), "cpu", detector)
