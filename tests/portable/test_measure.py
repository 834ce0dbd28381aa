"""`python -m dvsn.portable.measure`: a table of files, made without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.errors import ConfigError
from dvsn.portable import measure
from dvsn.portable.measure import architecture, read_options

ROOT = Path(__file__).parents[2]


def manifest(shape: list[int | None], **recipe: Any) -> dict[str, Any]:
    return {
        "format": 1, "task": "classification", "answer": "classes", "raw": False, "precision": "fp32", "recipe": recipe,
        "input": {"shape": shape, "multiple": 1, "range": [0, 255]}, "outputs": [{"name": "probabilities"}],
    }  # fmt: skip


def write(path: Path, shape: list[int | None]) -> Path:
    """A file that gives back its input as numbers."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sides = ["n" if each is None else each for each in shape]
    node = onnx.helper.make_node("Cast", ["image"], ["probabilities"], to=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [node], "copy",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, sides)],
        [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, sides)],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = "dvsn", json.dumps(manifest(shape, network={"width": 3}))
    onnx.save(model, str(path))
    return path


def test_a_table_by_another_process_without_torch(tmp_path: Path) -> None:
    file = write(tmp_path / "a.fp32.onnx", [1, 3, 8, 16])
    code = (
        "import sys; from dvsn.portable import measure\n"
        "measure.main()\n"
        "assert not {'torch', 'hydra', 'cv2'} & set(sys.modules), 'imported'\n"
    )
    words = [str(file.parent), f"output={tmp_path}/device.json", "threads=1", "seconds=0.01", "rounds=2"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "device.json").read_text())
    (row,) = content["rows"]
    assert [row[key] for key in ("file", "engine", "precision", "threads", "size", "batch")] == [
        "a.fp32.onnx", "onnxruntime", "fp32", 1, [8, 16], 1,
    ]  # fmt: skip
    assert 0 < row["p50"] <= row["p95"] and row["answers"] >= 10 and row["bytes"] == file.stat().st_size
    assert row["architecture"] == architecture(manifest([1, 3, 8, 16], network={"width": 3}))
    assert content["machine"]["versions"]["onnxruntime"] and content["date"]
    assert "a.fp32.onnx  onnxruntime  fp32" in done.stdout


def test_percentiles_are_those_of_all_rounds(tmp_path: Path) -> None:
    part = {
        "memory": 5, "size": [4, 4], "batch": 1, "task": "pose", "precision": "int8", "architecture": "x", "channels": 3,
    }  # fmt: skip
    parts = [{**part, "times": [0.001, 0.002]}, {**part, "times": [0.003, 0.004, 0.1], "memory": 7}]
    file = tmp_path / "a.onnx"
    file.write_bytes(b"abc")
    row = measure.row(file, 2, parts)
    assert row["p50"] == pytest.approx(3.0) and row["p95"] == pytest.approx(
        np.percentile([1, 2, 3, 4, 100], 95)
    )
    assert row["memory"] == 7 and row["answers"] == 5 and row["bytes"] == 3


def test_the_architecture_is_that_of_the_graph() -> None:
    one = architecture(manifest([1, 3, 8, 8], network={"width": 3}, optim={"lr": 1}))
    assert one == architecture(manifest([2, 3, 4, 4], network={"width": 3}, optim={"lr": 2}, loss="other"))
    assert one != architecture(manifest([1, 3, 8, 8], network={"width": 4}))
    assert one != architecture(manifest([1, 3, 8, 8], network={"width": 3}, flip_test=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "files: expected one or more"),
        (["a.onnx", "seeds=3"], "seeds: there is no such option"),
        (["a.onnx", "threads=0"], "threads: found 0, expected a whole number"),
        (["a.onnx", "seconds=soon"], "seconds: expected a number above 0"),
        (["a.onnx", "size=12"], "size: found 12, expected HEIGHTxWIDTH"),
    ],
)
def test_other_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(words)


def test_a_folder_that_is_not_there_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output: the folder .*nowhere is not there"):
        measure.answer([str(tmp_path / "gone.onnx"), f"output={tmp_path}/nowhere/device.json"])


def test_a_file_of_any_size_needs_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.onnx", [None, 3, None, None])
    with pytest.raises(ConfigError, match=r"size: .* takes pictures of any size"):
        measure.ask(file, threads=1, seconds=0.001, size=None, batch=None)
    found = measure.ask(file, threads=1, seconds=0.001, size="4x6", batch=2)
    assert found["size"] == [4, 6] and found["batch"] == 2 and len(found["times"]) >= 5
    fixed = write(tmp_path / "b.onnx", [1, 3, 8, 8])
    with pytest.raises(ConfigError, match=r"batch: found 2, and .* takes 1"):
        measure.ask(fixed, threads=1, seconds=0.001, size=None, batch=2)
    with pytest.raises(ConfigError, match=r"files: found .*gone\.onnx"):
        measure.measure({"rounds": 1, "threads": [1]}, [tmp_path / "gone.onnx"])
