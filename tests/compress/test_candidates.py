"""The files of conf/compress, and files of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvsn.compress import candidates
from dvsn.compress.candidates import ALONE, KINDS, Menu
from dvsn.config import menu, python
from dvsn.errors import ConfigError

FILES = candidates.files()
STUDENTS = [
    (task, name, method)
    for task, file in FILES.items()
    for listed in [candidates.read(file).plain()]
    for name, method in [
        *((name, ALONE) for name in listed.candidates),
        *((next(iter(listed.candidates)), method) for method in listed.methods if method != ALONE),
    ]
]
FIRST = {(task, *next((n, m) for t, n, m in STUDENTS[::-1] if t == task)) for task in FILES}


def test_every_task_has_candidates() -> None:
    tasks = set(menu.choices()["task"]) - {"distillation"}
    assert {KINDS.get(task, task) for task in tasks} == set(FILES)
    for file in FILES.values():
        found = candidates.read(file)
        assert found.methods[ALONE] == [] and len(found.methods) > 1 and len(found.candidates) > 1


@pytest.mark.parametrize(
    ("task", "name", "method"),
    [
        pytest.param(*each, marks=() if each in FIRST else pytest.mark.slow, id="-".join(each))
        for each in STUDENTS
    ],
)
def test_a_student_composes(
    task: str, name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options are those of dvsn.train, and its parts fit each other."""
    monkeypatch.chdir(tmp_path)
    words = candidates.load(task).words(name, method)
    if method != ALONE:
        (tmp_path / "teacher.ckpt").touch()
        words = [*words, "teacher=teacher.ckpt"]
    config = python.call("train", lambda config: config, words, {})
    assert config["distill"].keys() == {method} if method != ALONE else not config["distill"]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: pose\ncandidates: {a: [network=hrnet_small]}\nmethods: {alone: [], kd: [distill=fpd]}\n"
    )
    found = candidates.load("pose", str(file))
    assert found == Menu("pose", {"a": ["network=hrnet_small"]}, {"alone": [], "kd": ["distill=fpd"]})
    assert found.words("a", "kd") == ["task=pose", "network=hrnet_small", "distill=fpd"]
    assert found.only(methods="kd").methods == {"kd": ["distill=fpd"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: pose", "found task, expected the keys task, candidates and methods"),
        ("- a", "found list, expected the keys"),
        ("task: 3\ncandidates: {a: []}\nmethods: {alone: []}", "task: found 3, expected a name"),
        ("task: pose\ncandidates: {}\nmethods: {alone: []}", r"candidates: found \{\}, expected names"),
        ("task: pose\ncandidates: {a: network=x}\nmethods: {alone: []}", "candidates.a: found 'network=x', expected a list"),
        ("task: pose\ncandidates: {a: [x]}\nmethods: {alone: []}", "candidates.a: found 'x', expected a list of options"),
        ("task: pose\ncandidates: {../a: []}\nmethods: {alone: []}", r"found the name '\.\./a', expected letters"),
        ("task: [", "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        candidates.read(file)


def test_a_name_that_there_is_not() -> None:
    found = candidates.load("segmentation")
    with pytest.raises(
        ConfigError, match=r"candidates: pidnet_z is none of pidnet_s.*Did you mean 'pidnet_s'"
    ):
        found.only(candidates=["pidnet_z"])
    with pytest.raises(
        ConfigError, match="candidates: there are none for the task painting, only for classification"
    ):
        candidates.load("painting")
