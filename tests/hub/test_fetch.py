"""Weights by name, from a server on this machine: what arrives, what is kept, and one sentence for each refusal."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, file_download

import dvsn
from dvsn.engine.evaluation import default_output
from dvsn.engine.initial_weights import start_from
from dvsn.engine.teachers import measured_by, own_teacher
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub import fetch, local, resolve
from dvsn.hub.folder import restored, storable, write_header, write_weights
from dvsn.hub.names import Name, is_name, parse
from dvsn.weights import read_checkpoint
from tests.old_runs import unpack
from tests.support.fake_hub import COMMIT, Hub, hub_fixture, use  # noqa: F401

PLACE = "someone/small"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("classification", tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The checkpoint as a folder of plain files, beside something that is not dvsn's."""
    folder, content = tmp_path_factory.mktemp("folder"), read_checkpoint(checkpoint)
    write_header(folder / "recipe.json", content["dvsn"])
    write_weights(folder / "model.safetensors", content["state_dict"])
    (folder / "run.py").write_text("raise SystemExit('executed')")
    (folder / "best.ckpt").write_bytes(checkpoint.read_bytes())
    return folder


def answer(path: Any) -> torch.Tensor:
    task = dvsn.load(path)
    return task(torch.arange(3 * 32 * 32, dtype=torch.uint8).reshape(1, 3, 32, 32))


# Names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", Name("a/b", None, None)),
        ("hf://a/b.c@v1.0", Name("a/b.c", None, "v1.0")),
        ("hf://a/b/best.ckpt", Name("a/b", "best.ckpt", None)),
        ("hf://a/b/sub/best-1.ckpt@refs/pr/2", Name("a/b", "sub/best-1.ckpt", "refs/pr/2")),
    ],
)
def test_a_name_is_taken_apart(text: str, expected: Name) -> None:
    assert parse(text) == expected and str(expected) == text
    assert parse(Path(text)) == expected  # a path joins two slashes to one
    assert is_name(text) and is_name(Path(text))


@pytest.mark.parametrize(
    "text", ["hf://a", "hf://a/b/../c", "hf://../b", "hf://a/b@", "hf://a//b", "hf://a/b c", "hf://"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no name of weights on the hub. Expected hf://OWNER/NAME"):
        fetch(text)


def test_a_path_stays_a_path() -> None:
    assert not is_name("best.ckpt") and local("best.ckpt") == Path("best.ckpt")


# What arrives -----------------------------------------------------------------------------------------------


def test_others_may_read_the_weights_where_they_may_read_the_recipe(folder: Path) -> None:
    recipe, weights = ((folder / name).stat().st_mode for name in ("recipe.json", "model.safetensors"))
    assert weights == recipe
    assert not list(folder.glob("*.mode")) and not list(folder.glob(".*"))


def test_a_folder_arrives_and_answers_as_the_checkpoint(hub: Hub, folder: Path, checkpoint: Path) -> None:
    hub.folders[PLACE] = folder
    there = fetch(f"hf://{PLACE}")
    assert sorted(file.name for file in there.iterdir()) == ["model.safetensors", "recipe.json"]
    assert there.name == COMMIT
    expected = answer(checkpoint)
    assert torch.equal(answer(f"hf://{PLACE}"), expected)
    assert torch.equal(answer(folder), expected) and torch.equal(
        answer(folder / "model.safetensors"), expected
    )
    assert torch.equal(answer(f"hf://{PLACE}/best.ckpt@main"), expected)


def test_a_file_is_downloaded_once_and_works_offline(
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.folders[PLACE] = folder
    first = fetch(f"hf://{PLACE}")
    got = [each for each in hub.asked if each.startswith("GET")]
    assert len(got) == 2
    assert fetch(f"hf://{PLACE}") == first and [each for each in hub.asked if each.startswith("GET")] == got
    asked = list(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(f"hf://{PLACE}") == first and hub.asked == asked  # nobody was asked


def test_weights_and_teachers_take_names(
    hub: Hub,
    folder: Path,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    hub.folders[PLACE] = folder
    fresh = dvsn.load(checkpoint)
    expected = {key: value.clone() for key, value in fresh.state_dict().items()}
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    start_from(fresh, f"hf://{PLACE}")
    assert all(torch.equal(value, expected[key]) for key, value in fresh.state_dict().items())
    config = {"teacher": f"hf://{PLACE}", "distillation": {}, "data": {}, "trainer": {}}
    before = measured_by(config)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert measured_by({**config, "teacher": str(copy)}) == before  # the same content in another place
    (copy / "recipe.json").write_text("{}")
    assert measured_by({**config, "teacher": str(copy)}) != before
    network = fresh.recipe["network"]
    with pytest.raises(CheckpointError, match="the weights do not fit"):  # a task's keys, not a network's
        own_teacher(fresh, {"network": network, "weights": f"hf://{PLACE}/best.ckpt"}, None)


def test_an_evaluation_of_a_name_is_written_to_the_working_directory() -> None:
    assert default_output(Path("hf://a/b"), "val") == Path("evaluation/a_b_val")


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf://someone/missing",
            "there is no someone/missing on the hub, or it is private. .* `hf auth login`",
        ),
        ("hf://someone/nothing", "there is no someone/nothing on the hub"),
        (
            "hf://someone/gated",
            "its owner wants to be asked first. Log in with .*, and ask for access at http",
        ),
        ("hf://someone/small@v9", "someone/small has no revision 'v9'. Leave out @v9"),
        ("hf://someone/small/other.ckpt", "someone/small holds no other.ckpt. Its files: http"),
        ("hf://someone/empty", "someone/empty holds no recipe.json, so it was not written by"),
        ("hf://someone/broken", "the hub answers with the status 400 and no file. Try again"),
        ("hf://someone/forbidden", "answers with the status 403 and no file. Log in with"),
    ],
)
def test_what_the_hub_refuses_is_said(
    name: str,
    message: str,
    hub: Hub,
    folder: Path,
    tmp_path: Path,
) -> None:
    hub.folders |= {PLACE: folder, "someone/empty": tmp_path}
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch(name)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)  # nobody listens there
    monkeypatch.setattr(file_download, "_DEFAULT_RETRY_ON_EXCEPTIONS", ())  # it would wait for half a minute
    with pytest.raises(CheckpointError, match=r"127.0.0.1:9 does not answer \(.*\). Check the network"):
        fetch(f"hf://{PLACE}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="is not in the cache, and HF_HUB_OFFLINE=1 forbids"):
        fetch(f"hf://{PLACE}")


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"need the package huggingface_hub .*pip install 'dvsn\[hub\]'"):
        fetch(f"hf://{PLACE}")


def test_what_is_too_large_is_not_downloaded(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.folders[PLACE] = folder
    hub.claimed["recipe.json"] = 5 << 20
    with pytest.raises(
        CheckpointError, match=r"recipe\.json has 5,242,880 bytes, expected 4,194,304 at most"
    ):
        fetch(f"hf://{PLACE}")
    assert not [each for each in hub.asked if each.startswith("GET")]
    hub.claimed.clear()
    monkeypatch.setattr(resolve, "WEIGHTS_LIMIT", 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .* bytes, expected 100 at most"):
        fetch(f"hf://{PLACE}")


# Hostile files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"_target_": "os.system", "command": "true"}}, "its recipe is refused: task"),
        ({"data": {"_target_": "subprocess.Popen"}}, "its recipe is refused: data"),
        ({"recipe": [1, 2]}, "holds no recipe of dvsn"),
        ({"data": {"_items_": [[[1], 2]]}}, "expected pairs"),
        ("{" * 100_000, "not a JSON file"),
    ],
)
def test_a_hostile_recipe_is_refused_before_the_weights_are_downloaded(
    change: Any,
    message: str,
    hub: Hub,
    folder: Path,
    tmp_path: Path,
) -> None:
    header = json.loads((folder / "recipe.json").read_text())
    text = change if isinstance(change, str) else json.dumps({**header, **change})
    (tmp_path / "recipe.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    hub.folders[PLACE] = tmp_path
    with pytest.raises(CheckpointError, match=message):
        fetch(f"hf://{PLACE}")
    assert not [each for each in hub.asked if "safetensors" in each]
    with pytest.raises(CheckpointError, match=message):
        dvsn.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x04N.", None])
def test_weights_that_are_none_are_refused(content: bytes | None, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((folder / "recipe.json").read_bytes())
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match="holds a recipe and no weights" if content is None else "not a readable"
    ):
        dvsn.load(tmp_path)


def test_plain_data_survives_as_json() -> None:
    tree = {"a": {0: 0, 255: 1}, "b": [1.5, None, {"_items_": 3}], "c": {True: "x"}, "d": 1e-7}
    assert restored(json.loads(json.dumps(storable(tree)))) == tree
    with pytest.raises(CheckpointError, match="cannot be written as text"):
        write_header(Path("none.json"), {"recipe": {"a": object()}})
