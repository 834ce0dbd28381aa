"""The record of an evaluation: written and read again, and refused where it is damaged."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from dvsn.analysis.record import FILE, Analysis, Cell, Chart, Curve, Matrix, Picture, PrecisionRecall, read
from dvsn.errors import DataError

RECORD = Analysis(
    task="segmentation",
    checkpoint="best.ckpt",
    split="val",
    samples=2,
    score="miou",
    better="more",
    classes=("road", "car"),
    tables={"classes": [{"class": "road", "iou": 0.5}, {"class": "car", "iou": None}]},
    charts=(
        Chart("ece", "Calibration", "confidence", "accuracy", (Curve("", (0.1, 0.9), (0.2, None)),), diagonal=True),
        Chart("errors", "Kinds of errors", "kind", "share", (Curve("", ("missed", "double"), (0.5, 0.25)),), "bars"),
    ),
    matrices=(Matrix("confusion", "Confusion", ("road", "car"), ("road", "car"), ((4.0, 1.0), (0.0, 2.0)), "pixels"),),
    pictures=(
        Picture("a", 0.25, {"loss": 1.5}, "worst/0001_a.jpg", (Cell(0, 1, 1.0),), "road taken for car"),
        Picture("b", 1.0),
    ),
    curves=(PrecisionRecall("road", (2.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0)),),
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read(RECORD.write(tmp_path)) == RECORD


def test_a_record_of_before_has_no_curves(tmp_path: Path) -> None:
    path = RECORD.write(tmp_path)
    content = json.loads(path.read_text())
    del content["curves"]
    path.write_text(json.dumps(content))
    assert read(path).curves == ()


def test_a_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    chart = Chart("c", "t", "x", "y", (Curve("", (1.0,), (math.nan,)),))
    path = Analysis("pose", "a", "val", 1, "oks", "more", charts=(chart,)).write(tmp_path)
    assert "NaN" not in path.read_text()
    assert read(path).charts[0].curves[0].y == (None,)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("version",), 2, "version: found 2, expected 1"),
        (("better",), "most", "better: found 'most', expected more or less"),
        (("samples",), "many", "samples: found 'many'"),
        (("classes", 0), None, "classes[0]: found null"),
        (("tables",), [], "tables: found []"),
        (("charts", 0, "kind"), "pie", "charts[0]: kind: found 'pie'"),
        (("charts", 0, "curves", 0, "x"), [0.1], "1 values in x and 2 in y"),
        (("matrices", 0, "counts", 1), [1], "counts: expected 2 lists of 2 numbers"),
        (("pictures", 0, "file"), "../../secret.png", "expected a file below"),
        (("pictures", 0, "file"), "/etc/passwd", "expected a file below"),
        (("pictures", 0, "cells", 0, "row"), 0.5, "cells[0]: row: found 0.5"),
        (("curves", 0, "true_positives"), [1], "curves[0]: found 1 true_positives, 2 false_positives"),
        (("curves", 0, "false_negatives", 1), "many", "curves[0]: false_negatives[1]: found 'many'"),
        (("pictures", 1, "score"), None, "pictures[1]: score: found null"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any, words: str) -> None:
    path = RECORD.write(tmp_path)
    content = copy.deepcopy(json.loads(path.read_text()))
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read(path)
    assert words in str(error.value)
    assert FILE in str(error.value)
