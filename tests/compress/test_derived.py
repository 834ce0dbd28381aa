"""Candidates that are made of the teacher: their networks, what they start from, and what cannot be made."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import dvsn
from dvsn.compress import derived, question, training
from dvsn.compress.candidates import Menu, own_words, read
from dvsn.compress.command import COMMAND
from dvsn.compress.training import Student, better_starts
from dvsn.errors import ConfigError
from tests.support.six_tasks import write_checkpoint

SHARED = ["data=imagefolder", "transform=none", "data.workers=0", "data.batch_size=4", "trainer=cpu"]
MINE = """
task: classification
candidates:
  resnet8x4: [network=resnet8x4]
  resnet20: [network=resnet20]
  half: [network=teacher, input=0.5]
  pruned_50: [network=teacher, pruned=0.5]
  small_half: [network=resnet8, "network.widths=[8,8,8,8]", input=0.5]
methods:
  alone: []
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("classification", tmp_path_factory.mktemp("teacher"))


def asked(teacher: Path, root: Path, folder: Path, text: str = MINE, *more: str) -> Any:
    file = folder / "mine.yaml"
    file.write_text(text)
    options = COMMAND.parse([str(teacher), f"folder={folder}/answer", f"candidates={file}", *more])
    return question.ask(options, [*SHARED, f"data.root={root}", "data.classes=3"])


def test_candidates_of_the_teacher_become_networks(teacher: Path, nine_blobs: Path, tmp_path: Path) -> None:
    mine = asked(teacher, nine_blobs, tmp_path)
    found, out = derived.derive(mine)
    pruned = importlib.util.find_spec("torch_pruning") is not None
    assert set(out) == (set() if pruned else {"pruned_50"})
    words = found.menu.candidates
    assert words["resnet8x4"] == ["network=resnet8x4"]
    assert words["half"] == ["network=compress_half", f"weights={teacher}"]
    assert words["small_half"] == ["network=compress_small_half"]
    assert found.flags == [] and found.conf == tmp_path / "answer" / "conf"
    made = question.check_students(found, found.menu)
    small = made["small_half"][0].network
    assert small.multiple == 2 and small.conv1.out_channels == 8
    assert made["half"][0].network.conv1.out_channels == 16
    if pruned:
        start = tmp_path / "answer" / "starts" / "pruned_50.ckpt"
        assert words["pruned_50"][-1] == f"weights={start}"
        assert dvsn.load(start).network.layer3[0].conv1.out_channels == 32
    begun = derived.starts(found, {name: task for name, (task, _) in made.items()})
    assert set(begun) == {"resnet20"}, "of others no shape agrees, or they start from the teacher anyway"
    theirs, own = (dvsn.load(path).network.state_dict() for path in (teacher, begun["resnet20"]))
    drawn = made["resnet20"][0].network.state_dict()
    for key, value in own.items():
        torch.testing.assert_close(value, theirs[key] if key in theirs else drawn[key])


def test_a_folder_of_options_is_read_where_it_lies(teacher: Path, nine_blobs: Path, tmp_path: Path) -> None:
    """Also where it holds the folder of the answer, and where its path has what Hydra's grammar takes for its own."""
    own = tmp_path / "my, lr=1 conf"
    (own / "network").mkdir(parents=True)
    known = (Path(derived.__file__).parents[2] / "conf" / "network" / "resnet8.yaml").read_text()
    (own / "network" / "mine.yaml").write_text(known)
    shutil.copy(teacher, own / "teacher.ckpt")
    text = "task: classification\ncandidates:\n  half: [network=teacher, input=0.5]\n  mine: [network=mine, input=0.5]\n"
    mine = asked(
        own / "teacher.ckpt", nine_blobs, own, f"{text}methods: {{alone: []}}\n", f"config_dir={own}"
    )
    found, out = derived.derive(mine)
    made = question.check_students(found, found.menu)
    assert not out and {name: task.network.multiple for name, (task, _) in made.items()} == {
        "half": 2,
        "mine": 2,
    }
    assert found.flags == ["--config-dir", str(own)]
    assert {file.name for file in (own / "answer").rglob("*.yaml")} == {
        "compress_half.yaml",
        "compress_mine.yaml",
    }


def test_starts_double_only_what_has_one(tmp_path: Path) -> None:
    menu = Menu("classification", {"a": [], "b": []}, {"alone": [], "kd": []})
    fake: Any = type("Q", (), {"menu": menu, "starts": {"a": tmp_path}, "options": {"starts": None}})
    assert [each.name for each in training.students(fake, ["a", "b"])] == [
        "a.alone", "a.alone.from_teacher", "a.kd", "a.kd.from_teacher", "b.alone", "b.kd",
    ]  # fmt: skip
    fake.options = {"starts": "teacher"}
    assert [each.name for each in training.students(fake, ["a", "b"])] == [
        "a.alone.from_teacher", "a.kd.from_teacher", "b.alone", "b.kd",
    ]  # fmt: skip
    order = [Student("a", "kd", True), Student("b", "kd"), Student("a", "kd"), Student("a", "alone")]
    assert better_starts(order) == [order[0], order[1], order[3]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("network=resnet8, input=2", "candidates.a: found input=2, expected a number between 0 and 1"),
        ("network=resnet8, input=0.4", "found input=0.4, expected 1/2, 1/3, 1/4, ..., or a number between"),
        ("network=teacher, pruned=1/1", "found pruned=1/1, expected a number between 0 and 1"),
        ("network=teacher, pruned=half", "found pruned=half, expected"),
        ("network=resnet8, pruned=0.5", "candidates.a: pruned=... needs network=teacher"),
        ("network=teacher, network.depth=8", "network=teacher is taken as it is"),
    ],
)
def test_words_without_meaning_are_refused_with_their_place(words: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"task: pose\ncandidates:\n  a: [{words}]\nmethods: {{alone: []}}\n")
    with pytest.raises(ConfigError, match=message):
        read(file)


def test_own_words_are_parted() -> None:
    assert own_words(["network=teacher", "input=.25"]) == ({"network": "teacher", "input": 0.25}, [])
    assert own_words(["network=pfld", "input=1/3"]) == ({"input": 1 / 3}, ["network=pfld"])
    assert own_words(["network=pfld", "network.width=0.5"]) == ({}, ["network=pfld", "network.width=0.5"])


def test_places_in_a_smaller_picture_are_refused(tmp_path: Path) -> None:
    pose = write_checkpoint("pose", tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text("task: pose\ncandidates:\n  half: [network=teacher, input=0.5]\nmethods: {alone: []}\n")
    options = COMMAND.parse([str(pose), f"folder={tmp_path}/answer", f"candidates={file}"])
    mine = question.ask(options, ["data=lspet"])
    with pytest.raises(ConfigError, match=r"half: input: answers of heatmaps have places.*transform\.size"):
        derived.derive(mine)
