"""What `python -m dvsn.report` makes of its words: a run, runs, or a sweep; and an evaluation before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dvsn.report import command
from tests.support.run_folders import write_analysis, write_run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    measured: list[tuple[str, str]] = []

    def measure(checkpoint: Path, split: str) -> None:
        measured.append((checkpoint.name, split))
        write_analysis(checkpoint.parent.parent)

    def run(*words: object, code: int | None = None) -> tuple[str, list[tuple[str, str]]]:
        monkeypatch.setattr(sys, "argv", ["dvsn.report", *map(str, words)])
        if code is None:
            command.run(measure)
        else:
            with pytest.raises(SystemExit) as left:
                command.run(measure)
            assert left.value.code == code
        said = capsys.readouterr()
        return said.out + said.err, measured

    return run


def test_a_run_is_shown_as_a_page(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = write_run(tmp_path / "run")
    text, _ = call(run, f"output={tmp_path / 'out'}")
    assert text.startswith("tiny\n") and (tmp_path / "out" / "report.html").is_file()
    assert not (run / "report.html").exists()


def test_it_evaluates_first_where_asked(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = write_run(tmp_path / "run")
    text, _ = call(run, "evaluate=val", code=2)
    assert "holds neither best.ckpt nor last.ckpt" in text
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    text, measured = call(run, "evaluate=val")
    assert measured == [("last.ckpt", "val")] and "Classes" in text
    assert "evaluate: found all, expected one of val, test, train" in call(run, "evaluate=all", code=2)[0]
    (tmp_path / "empty").mkdir()
    assert "is not the folder of one run" in call(tmp_path / "empty", "evaluate=val", code=2)[0]


def test_a_student_is_measured_beside_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One teacher, if it fits; several, or none, are left out."""
    import dvsn.evaluate
    from dvsn.errors import CheckpointError, ConfigError
    from dvsn.report.__main__ import measure

    asked: list[object] = []

    def called(checkpoint: Path, *, split: str, worst: int, teacher: str | None = None) -> None:
        asked.append(teacher)
        if teacher and "other" in str(checkpoint):
            raise CheckpointError("teacher: it knows 3 classes, expected as many.")
        if teacher and "boxes" in str(checkpoint):
            raise ConfigError("teacher: knows 80 classes, the checkpoint 3; expected as many.")

    monkeypatch.setattr(dvsn.evaluate, "called", called)
    for name, teacher in (
        ("a", "t.ckpt"),
        ("b", ["t.ckpt"]),
        ("c", ["t.ckpt", "u.ckpt"]),
        ("d", None),
        ("other", "t"),
        ("boxes", "t"),
    ):
        run = write_run(tmp_path / name, teacher=teacher)
        measure(run / "checkpoints" / "best.ckpt", "val")
    assert asked == ["auto", "auto", None, None, "auto", None, "auto", None]
    (tmp_path / "a" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "a" / "checkpoints" / "best.ckpt").touch()
    assert "worst=50 teacher=auto" in command.report(tmp_path / "a")


def test_two_runs_are_compared_and_a_run_below_counts(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, second = write_run(tmp_path / "a" / "date"), write_run(tmp_path / "b" / "date", name="other")
    text, _ = call(tmp_path / "a", second)
    assert text.startswith("tiny | other") and (first / "compare.html").is_file()
    assert "evaluation: is for the report of one run" in call(first, second, "evaluation=x", code=2)[0]


def test_an_unfinished_run_alone_in_its_folder_is_shown(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = write_run(tmp_path / "name" / "date")
    (run / "result.json").unlink()
    text, _ = call(tmp_path / "name")
    assert "the run has not ended" in text and (run / "report.html").is_file()


def test_a_folder_without_runs_is_refused(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "no finished run below it" in call(tmp_path, code=2)[0]
    assert "there is no such folder" in call(tmp_path / "none", code=2)[0]


def test_the_command_evaluates_by_dvsn_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    from dvsn import evaluate
    from dvsn.report import __main__ as program

    asked: list[object] = []
    monkeypatch.setattr(
        sys.modules["dvsn.evaluate"], "called", lambda *words, **options: asked.append((words, options))
    )
    program.measure(Path("best.ckpt"), "test")
    assert evaluate and asked == [((Path("best.ckpt"),), {"split": "test", "worst": 50})]


def test_its_help_needs_no_page() -> None:
    heavy = {"numpy", "jinja2", "plotly", "PIL"}
    code = f"import sys; import dvsn.report.command; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
