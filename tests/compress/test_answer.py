"""Which file is recommended, and what is said of it, on figures made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dvsn.compress.answer import Answer
from dvsn.compress.budget import Budget, Floor
from dvsn.compress.finish import File


def asked(folder: Path, *, budget: Budget | None = None, floor: Floor | None = None) -> Any:
    return SimpleNamespace(
        budget=budget or Budget(), floor=floor or Floor(1.0), sign=(floor or Floor(1.0)).sign, score="top1", folder=folder,
        named=SimpleNamespace(name="best.ckpt"), device=None, untried=["pruned forms of the teacher"],
    )  # fmt: skip


def made(student: str, precision: str, latency: float, val: float, size: float = 1e6, **more: Any) -> File:
    costs = {"latency": latency, "p50": latency, "p95": 2 * latency, "size": size, "macs": 5e6, "memory": 1e6}
    path = Path(f"{student}.{precision}.onnx")
    return File(
        path.stem,
        path,
        precision,
        student,
        Path("best.ckpt"),
        costs,
        {"val": val},
        lines=["python -m dvsn.train"],
        **more,
    )  # type: ignore[arg-type]


TEACHER = made("teacher", "fp32", 30.0, 0.80, 9e6)
FILES = [
    TEACHER, made("teacher", "int8", 12.0, 0.795, 3e6), made("small.kd", "fp32", 6.0, 0.79),
    made("small.kd", "int8", 3.0, 0.75), made("tiny.alone", "fp32", 4.0, 0.60),
]  # fmt: skip


def names(files: Any) -> list[str]:
    return [file.name for file in files]


def test_the_best_score_within_the_budget_and_the_floor(tmp_path: Path) -> None:
    found = Answer(asked(tmp_path, budget=Budget(latency=10.0)), FILES)
    assert found.best is FILES[2]
    assert names(found.order) == ["small.kd.int8", "small.kd.fp32", "teacher.int8", "teacher.fp32"]
    assert Answer(asked(tmp_path, budget=Budget(latency=5.0)), FILES).best is FILES[3]
    assert Answer(asked(tmp_path), FILES).best is FILES[1]  # the teacher in 8 bits; as it is, it is no answer
    strict = Answer(asked(tmp_path, budget=Budget(latency=5.0), floor=Floor(1.0, drop=1.0)), FILES)
    assert strict.best is None
    assert (
        "The nearest is small.kd.int8: within the budget, 5.00 points below the teacher."
        in strict.paragraph()
    )
    said = Answer(asked(tmp_path, budget=Budget(latency=2.0)), FILES).paragraph()
    assert "The nearest is small.kd.int8: latency 3 ms, 5.00 points below the teacher." in said


def test_a_student_as_good_as_the_teacher(tmp_path: Path) -> None:
    said = Answer(asked(tmp_path), [TEACHER, made("a", "fp32", 5.0, 0.80)]).paragraph()
    assert "0.8000, the same as the teacher (0.8000)." in said
    assert (
        "0.50 points more than the teacher"
        in Answer(asked(tmp_path), [TEACHER, made("a", "fp32", 5.0, 0.805)]).paragraph()
    )


def test_of_an_error_less_is_better(tmp_path: Path) -> None:
    files = [made("teacher", "fp32", 30.0, 0.05), made("a", "fp32", 5.0, 0.06), made("b", "fp32", 5.0, 0.07)]
    found = Answer(asked(tmp_path, floor=Floor(-1.0, drop=1.5)), files)
    assert found.best is files[1] and names(found.order) == ["a.fp32", "teacher.fp32"]
    assert names(sorted(files, key=found.gain, reverse=True)) == ["teacher.fp32", "a.fp32", "b.fp32"]


def test_what_is_written(tmp_path: Path) -> None:
    question = asked(tmp_path, budget=Budget(latency=10.0), floor=Floor(1.0, drop=2.0))
    found = Answer(question, FILES, [{"rung": 1}], {"big": "25 ms"})
    text = found.write()
    assert "answers in 6 ms (p95 12), 5 times as fast as" in text
    assert "1.00 points less than the teacher (0.8000)" in text and "Test was not measured." in text
    assert "big: 25 ms" in text and "Not tried: pruned forms" in text and "    python -m dvsn.train" in text
    assert "latency 10 ms, a drop of 2 points" in text.splitlines()[0]
    lines = (tmp_path / "answer.csv").read_text().splitlines()
    assert lines[0].startswith("file,top1 val,")
    assert lines[3].startswith("small.kd.fp32,0.79,,1.0,,6.0,12.0,5.0,1.0,5.0,yes,yes")
    content = json.loads((tmp_path / "answer.json").read_text())
    assert content["recommended"] == "small.kd.fp32.onnx" and content["front"] == names(found.order)
    assert (tmp_path / "answer.png").read_bytes().startswith(b"\x89PNG")
    assert "| small.kd.fp32 | 0.79 |" in (tmp_path / "answer.md").read_text()


@pytest.mark.parametrize(
    ("deviations", "said"),
    [
        ((None, None), "One seed was trained, so its lead of 0.0100"),
        ((0.004, 0.007), "it may be chance"),
        ((0.001, 0.002), ""),
    ],
)
def test_a_lead_that_may_be_chance_is_called_so(
    deviations: tuple[Any, Any], said: str, tmp_path: Path
) -> None:
    files = [
        TEACHER, made("a", "fp32", 5.0, 0.79, deviation=deviations[0]), made("b", "fp32", 5.0, 0.78, deviation=deviations[1])
    ]  # fmt: skip
    found = Answer(asked(tmp_path), files).chance(files[1])
    assert said in found and bool(found) == bool(said)
