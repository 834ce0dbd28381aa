"""`python -m dvsn.compress`: its words, what is refused before it measures, and, slow, from a teacher to an answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dvsn.compress.budget import Budget, Floor
from dvsn.compress.candidates import Menu
from dvsn.compress.command import COMMAND, compress, split_words
from dvsn.compress.question import Question
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import UserError
from tests.support.six_tasks import write_checkpoint
from tests.support.tiny import composed, write_blobs

ROOT = Path(__file__).parents[2]
SHARED = ["data=imagefolder", "transform=none", "data.workers=0", "data.batch_size=4", "trainer=cpu"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("classification", tmp_path_factory.mktemp("teacher"))


def called(teacher: Path, *words: str) -> str:
    own, others = split_words([f"teacher={teacher}", *words])
    return compress(COMMAND.parse(own), others)


def test_words_are_shared_out() -> None:
    line = [
        "a.ckpt",
        "data=mine",
        "--config-dir",
        "my_conf",
        "latency=5ms",
        "optim.lr=0.1",
        "--allow=mine",
        "seed=3",
    ]
    own, others = split_words(line)
    assert others == ["data=mine", "optim.lr=0.1"]
    options = COMMAND.parse(own)
    assert [options[name] for name in ("teacher", "config_dir", "latency", "allow", "seed")] == [
        "a.ckpt", "my_conf", "5ms", "mine", 3,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.max_epochs=3"], "trainer.max_epochs: not for dvsn.compress. Epochs are chosen by hours"),
        (["network=resnet8"], "network: not for dvsn.compress. Networks are chosen by candidates"),
        (["finalists=0"], "finalists: found 0, expected a whole number, 1 or more"),
        (["hours=-1"], "hours: found -1, expected null, or a number above 0"),
        (["keep=1"], r"keep: found 1(\.0)?, expected a number above 1"),
        (["latency=soon"], "latency: found soon, expected a number above 0"),
        (["candidates=[resnet_8]"], "candidates: resnet_8 is none of"),
        (
            ["data.classes=4"],
            "teacher: .* was trained on data with classes 3, and the students' data set has 4",
        ),
        (["data.root=nowhere"], "nowhere"),
        (["optim.lr=fast"], "optim.lr"),
        (["engines=tensorrt"], "engines: found tensorrt, expected onnxruntime or openvino"),
    ],
)
def test_it_is_refused_before_anything_is_measured(
    words: list[str],
    message: str,
    teacher: Path,
    nine_blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = [*SHARED, f"data.root={nine_blobs}", "data.classes=3", "candidates=[resnet8]"]
    given = {word.partition("=")[0] for word in words}
    with pytest.raises(UserError, match=message):
        called(teacher, *(word for word in usual if word.partition("=")[0] not in given), *words)
    assert not list(tmp_path.rglob("measured/*"))
    if "engines" not in given:
        assert not (tmp_path / "runs").exists(), "nothing that a corrected line would stumble over"


def test_a_refused_line_of_derived_candidates_is_corrected_in_its_folder(
    teacher: Path, nine_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are checked once their networks lie in the folder, which must not hold the refused question afterwards."""
    monkeypatch.chdir(tmp_path)
    line = [*SHARED, f"data.root={nine_blobs}", "candidates=[teacher_input_50]", "folder=answer"]
    with pytest.raises(UserError, match="students' data set has 4"):
        called(teacher, *line, "data.classes=4")
    assert [file.name for file in (tmp_path / "answer").iterdir()] == [".lock"]
    with pytest.raises(UserError, match="engines: found tensorrt"):
        called(teacher, *line, "data.classes=3", "engines=tensorrt")
    with pytest.raises(UserError, match="folder: answer holds another question, with another with"):
        called(teacher, *line, "data.classes=4")
    assert (tmp_path / "answer" / "question.json").is_file(), "an earlier question stays"


def test_a_teacher_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"gone\.ckpt"):
        called(Path("gone.ckpt"), *SHARED)


def test_data_without_val(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_blobs(tmp_path / "blobs", size=16, train=3, val=1)
    (root / "val").rename(root / "put_away")
    with pytest.raises(UserError, match="val"):
        called(teacher, *SHARED, f"data.root={root}", "data.classes=3", "candidates=[resnet8]")


def test_students_are_judged_by_the_score_that_decides() -> None:
    """The best checkpoint of each run is chosen by it, too, whatever its task is usually judged by."""
    menu = Menu("landmarks", {"a": ["network=pfld"]}, {"alone": [], "kd": ["distill=bounded_regression"]})
    named: Any = SimpleNamespace(name="t.ckpt")
    options = {"config_dir": None, "allow": None}
    asked = Question(
        Path("t.ckpt"), named, menu, ["data=faces68"], Budget(), Floor(-1.0), "nme", options, Path("f")
    )
    alone = asked.student_words("a", "alone")
    judged = ["monitor.name=val/nme", "monitor.mode=min"]
    assert alone == ["task=landmarks", "network=pfld", "data=faces68", *judged]
    taught = asked.student_words("a", "kd")
    assert set(taught) - set(alone) == {"distill=bounded_regression", "teacher=t.ckpt"}


# From a teacher to an answer --------------------------------------------------------------------------------


def write_teacher(root: Path, folder: Path) -> None:
    """A checkpoint of the students' own data set, with drawn weights."""
    words = ["task=classification", "network=resnet20", *SHARED, f"data.root={root}", "data.classes=3"]
    task = runtime.make_task(composed(words, folder))
    state: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    AtomicCheckpointIO().save_checkpoint(state, folder / "teacher.ckpt")


def line(folder: Path, root: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "dvsn.compress", f"teacher={folder}/teacher.ckpt", *SHARED, f"data.root={root}",
        "data.classes=3", "candidates=[resnet8,wrn_16_1]", "methods=[alone,kd]", "rungs=2",
        "keep=2", "epochs=2", "engines=onnxruntime",
        "threads=1", "optim.lr=0.02", f"folder={folder}/answer", *more,
    ]  # fmt: skip


def table(folder: Path) -> list[Any]:
    """What does not depend on the machine: files, their scores, the trainings."""
    content = json.loads((folder / "answer" / "answer.json").read_text())
    trainings = [
        (each["student"], each["epochs"], each["seed"], each["score"]) for each in content["trainings"]
    ]
    return [[(each["name"], each["scores"]) for each in content["files"]], trainings]


KILLS = 10
WITHIN = (5, 30)
"""Seconds after which a run is killed."""


def kill_all(number: int, by: signal.Signals) -> None:
    """Kill a process; of SIGKILL also the trainings that it has started, which could not be told, as of a machine that goes
    down."""
    found, waiting = [], [number]
    while waiting:
        each = waiting.pop()
        found.append(each)
        for file in Path(f"/proc/{each}/task").glob("*/children"):
            waiting += [int(child) for child in file.read_text().split()]
    for each in found if by is signal.SIGKILL else found[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, by)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="the children of a process are listed in Linux's /proc"
)
def test_from_a_teacher_to_an_answer_also_when_it_is_killed(tmp_path: Path) -> None:
    """Ten kills at random moments, every other one by SIGKILL; the same line goes on, and ends with the table of a whole
    run."""
    pytest.importorskip("onnxruntime")
    root = write_blobs(tmp_path / "blobs", size=32, train=8, val=4)
    (root / "test").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        write_teacher(root, tmp_path / name)
    whole = subprocess.run(
        line(tmp_path / "whole", root), env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert "answers in" in whole.stdout and (tmp_path / "whole" / "answer" / "answer.png").is_file()
    draw, killed = random.Random(0), 0
    while killed < KILLS:
        process = subprocess.Popen(
            line(tmp_path / "killed", root), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
        time.sleep(draw.uniform(*WITHIN))
        if process.poll() is not None:  # it was done before: begin anew, so that each kill meets a run
            shutil.rmtree(tmp_path / "killed" / "answer")
            continue
        number, killed = (signal.SIGTERM, signal.SIGKILL)[killed % 2], killed + 1
        kill_all(process.pid, number)
        process.wait()
    done = subprocess.run(
        line(tmp_path / "killed", root), env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    again = subprocess.run(
        line(tmp_path / "whole", root, "latency=1us"),
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert again.returncode == 2 and "no candidate meets latency 0.001 ms. The nearest is" in again.stderr
