"""Latencies of runs, from the file of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dvsn.errors import DataError
from dvsn.report import latencies
from dvsn.report.runs import read_runs
from tests.support.hand_made_runs import write_run


def rows(name: str, median: float, variant: str = "plain") -> dict[str, Any]:
    return {"name": name, "variant": variant, "milliseconds": {"median": median, "p95": 2 * median}}


def test_runs_get_what_their_folder_took(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 3, "kd", 0.7)
    write_run(tmp_path / "a", 4, "kd", 0.7, seed=1)
    write_run(tmp_path / "b", 4, "kd", 0.7, seed=2)
    found = read_runs(tmp_path).runs
    file = tmp_path / "speed.json"
    group = {
        "batch": 2,
        "rows": [
            rows("3/best.ckpt", 8.0),
            rows("3/best.ckpt", 1.0, "folded"),
            {"name": "3/best.ckpt", "variant": "int8", "skipped": "-"},
        ],
    }
    others = {"rows": [rows("4/best.ckpt", 5.0), rows("best.onnx", 5.0, "file"), rows("9/best.ckpt", 5.0)]}
    file.write_text(json.dumps({"groups": [group, others]}))
    notes = latencies.give(found, file)
    assert [run.latency for run in found] == [4.0, None, None]  # 8 ms for a batch of two
    assert "4: 2 runs here are called so" in notes[0] and "9: no run here is called so" in notes[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"speed.json: found \[\], expected what python -m dvsn.benchmark"),
        ('{"groups": 3}', "groups: found 3, expected a list"),
        ('{"groups": [{"rows": [{"name": "1/best.ckpt", "variant": "plain", "milliseconds": {"median": "x"}}]}]}',
         r"groups\[0\].rows\[0\].milliseconds.median: found 'x'"),
    ],
)  # fmt: skip
def test_another_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(content)
    with pytest.raises(DataError, match=message):
        latencies.read(tmp_path / "speed.json")
