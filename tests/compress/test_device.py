"""A table of another machine: which of its rows is meant, and what it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dvsn.compress import device
from dvsn.compress.device import Device
from dvsn.errors import ConfigError
from dvsn.portable.measure import architecture

ONNX, INT8 = "folded+onnxruntime", "folded+int8+onnxruntime"


def about(width: int = 3, side: int = 8, batch: int = 1) -> dict[str, Any]:
    shape = [batch, 3, side, side]
    return {
        "task": "classification",
        "raw": False,
        "recipe": {"network": {"width": width}},
        "input": {"shape": shape},
    }


def row(width: int = 3, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    return {
        "file": "a.onnx", "engine": "onnxruntime", "precision": precision, "threads": 2, "batch": 1, "size": [8, 8],
        "architecture": architecture(about(width)), "p50": 2.0, "p95": 3.0, "memory": None, "bytes": 100, **more,
    }  # fmt: skip


def table(path: Path, *rows: Any, **more: Any) -> Path:
    content = {
        "format": 1,
        "machine": {"processor": "Small One", "versions": {"onnxruntime": "1.2"}},
        "date": "2026-12-01",
        "rows": list(rows),
    }
    path.write_text(json.dumps({**content, **more}))
    return path


def read(path: Path, *rows: Any, threads: int | None = None) -> Device:
    return device.read(table(path / "device.json", *rows), threads)


def test_the_rows_of_an_architecture(tmp_path: Path) -> None:
    found = read(tmp_path, row(), row(precision="int8", p50=1.0), row(4, p50=9.0))
    assert (
        found.variants == {ONNX, INT8} and found.said == "Small One, 2 threads, onnxruntime 1.2, 2026-12-01"
    )
    times = found.find(about(), [INT8, ONNX])
    assert {name: each["p50"] for name, each in times.items()} == {ONNX: 2.0, INT8: 1.0}


@pytest.mark.parametrize(
    ("asked", "wanted", "message"),
    [
        (about(5), [ONNX], "^lacks it$"),
        (about(side=16), [ONNX], "has it at 8x8, batch 1, and it is asked at 16x16, batch 1"),
        (about(batch=4), [ONNX], "and it is asked at 8x8, batch 4"),
        (about(), [ONNX, INT8], r"lacks it by folded\+int8\+onnxruntime"),
    ],
)
def test_what_a_table_lacks(asked: Any, wanted: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, row()).find(asked, wanted)


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([], {}, "holds no rows; expected the table"),
        ([row()], {"format": 2}, "has the format 2"),
        ([row(), row(p50="fast")], {}, r"rows\.1 is damaged"),
        ([row(engine=[])], {}, r"rows\.0 is damaged"),
        ([3], {}, r"rows\.0 is damaged"),
        ([row(), row(threads=4)], {}, "threads: found None, and .* was measured with 2, 4"),
    ],
)
def test_a_damaged_table_is_refused(rows: list[Any], more: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        device.read(table(tmp_path / "device.json", *rows, **more), None)


def test_threads_choose_the_rows(tmp_path: Path) -> None:
    found = read(tmp_path, row(), row(threads=4, p50=1.5), threads=4)
    assert found.find(about(), [ONNX])[ONNX]["p50"] == 1.5
    with pytest.raises(ConfigError, match=r"threads: found 3, and .* measured with 2, 4"):
        read(tmp_path, row(), row(threads=4), threads=3)


def test_what_is_to_be_done_with_the_files() -> None:
    said = device.told([Path("f/a.fp32.onnx"), Path("f/a.bf16.xml")], Path("f"))
    assert "2 files" in said and "./portable[onnx,openvino]" in said
    assert "python -m dvsn.portable.measure f/*.onnx f/*.xml output=device.json" in said
