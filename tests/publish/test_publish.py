"""A checkpoint becomes a folder and the folder a task again; the card says what the run has recorded and no more."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import dvsn
from dvsn.errors import CheckpointError, ConfigError
from dvsn.hub import __main__ as command
from dvsn.hub import fetch
from dvsn.hub.folder import WEIGHTS
from dvsn.publish import upload as uploading
from dvsn.publish.card import NO_SCORES
from dvsn.publish.folder import replacing_folder, write_folder
from dvsn.weights import read_checkpoint
from tests.old_runs import unpack
from tests.support.fake_hub import Hub, hub_fixture  # noqa: F401

KINDS = (
    "classification",
    "distilled",
    "grafted",
    "landmarks",
    "landmarks_heatmaps",
    "pix2pix",
    "pose",
    "segmentation",
)
MEASURED = {"precision": "32-true", "mode": "whole", "scales": [1.0], "mirror": False, "samples": 3,
            "samples_in_split": 4, "size": [[8, 8], [16, 16]]}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in KINDS:
        unpack(name, folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, checkpoints: Path) -> Path:
    """The folder of a run with a checkpoint, its records and two evaluations, one of an older checkpoint."""
    content = read_checkpoint(checkpoints / "segmentation.ckpt")
    content["dvsn"]["data"]["root"] = "/home/somebody/street"
    folder = tmp_path / "runs" / "one"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    (folder / "command.txt").write_text(
        "python -m dvsn.train task=segmentation data.root=/home/somebody/street\nsecond\n"
    )
    result = {"monitor": "val/miou", "best": 0.25, "best_epoch": 3, "epochs": 4, "steps": 40, "seconds": 9.5}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "environment.json").write_text(
        json.dumps({"gpus": [], "processor": "A x 2", "versions": {"torch": "2.15"}})
    )
    for split, step in (("val", content["global_step"]), ("test", content["global_step"] + 1)):
        place = folder / "evaluation" / f"best_{split}"
        place.mkdir(parents=True)
        record = {
            "split": split,
            "step": step,
            "metrics": {"miou": 0.2468, "note": "x"},
            "measured": MEASURED,
        }
        (place / "metrics.json").write_text(json.dumps(record))
        (place / "grid.png").write_bytes(split.encode())
    return folder


def answer(path: Any) -> list[Tensor]:
    """What the network of a checkpoint answers to one picture, of a size that suits all of them."""
    task = dvsn.load(path)
    network = task.student
    generator = torch.Generator().manual_seed(0)
    channels = next(each.shape[1] for each in network.parameters() if each.ndim == 4)
    codec = getattr(task, "codec", None)
    height, width = codec.size if codec is not None else getattr(task, "size", (64, 64))
    output = network(torch.rand(1, channels, height, width, generator=generator))
    return [output] if isinstance(output, Tensor) else [each for each in output if isinstance(each, Tensor)]


# The folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_is_the_same_task(name: str, checkpoints: Path, tmp_path: Path) -> None:
    source = checkpoints / f"{name}.ckpt"
    write_folder(str(source), tmp_path / "out", name="out")
    before, after = dvsn.load(source), dvsn.load(tmp_path / "out")
    assert before.recipe == after.recipe and before.data_recipe == after.data_recipe
    expected = before.state_dict()
    assert expected.keys() == after.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in after.state_dict().items())
    pairs = list(zip(answer(source), answer(tmp_path / "out"), strict=True))
    assert pairs and all(torch.equal(*pair) for pair in pairs)


def test_the_card_is_made_from_the_run(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "out"
    write_folder(str(run / "checkpoints" / "best.ckpt"), folder, name="me/street", licence="apache-2.0")
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["README.md", "metrics.json", "model.safetensors", "picture.png", "recipe.json"]
    text = (folder / "README.md").read_text()
    assert text.startswith(
        "---\nlibrary_name: dvsn\ntags: [dvsn, segmentation]\n"
        "pipeline_tag: image-segmentation\nlicense: apache-2.0\n---\n\n# street\n"
    )
    for said in (
        "| miou | 0.2468 |", "3 of 4 samples, 8x16, float32, whole pictures, scales 1, not mirrored",
        "19 classes: road, sidewalk", "`Cityscapes`", "best val/miou of its validations: 0.2500 after epoch 3",
        "4 epochs, 40 steps, 9.5 s", "on A x 2", "torch 2.15", "dvsn.load('hf://me/street')", "(picture.png)",
        "python -m dvsn.train task=segmentation data.root=street",
    ):  # fmt: skip
        assert said in text, said
    assert "On val" in text and "On test" not in text and "note" not in text and NO_SCORES not in text
    assert "evaluation on test is of another step" in caplog.text
    assert (folder / "picture.png").read_bytes() == b"val"
    assert json.loads((folder / "metrics.json").read_text())["val"]["metrics"] == {"miou": 0.2468}
    whole = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"somebody" not in whole and dvsn.load(folder).data_recipe["root"] == "street"


def test_a_card_without_scores_says_so(
    checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(str(checkpoints / "segmentation.ckpt"), tmp_path / "out", name="out")
    assert NO_SCORES in (tmp_path / "out" / "README.md").read_text()
    assert "no scores" in caplog.text and "python -m dvsn.evaluate checkpoint=" in caplog.text
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "README.md",
        "model.safetensors",
        "recipe.json",
    ]


@pytest.mark.parametrize("damage", ["[]", "{", json.dumps({"step": 2, "metrics": [1], "split": "val"})])
def test_a_damaged_record_is_no_score(damage: str, run: Path, tmp_path: Path) -> None:
    for file in run.glob("evaluation/*/metrics.json"):
        file.write_text(damage)
    (run / "result.json").write_text("[")
    write_folder(str(run / "checkpoints" / "best.ckpt"), tmp_path / "out", name="out")
    assert NO_SCORES in (tmp_path / "out" / "README.md").read_text()


def test_nothing_half_written_and_nothing_lost(checkpoints: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "out", str(checkpoints / "classification.ckpt")
    write_folder(source, folder, name="out")
    before = (folder / WEIGHTS).read_bytes()
    with pytest.raises(OSError, match="full"), replacing_folder(folder) as place:
        (place / WEIGHTS).write_bytes(b"half")
        raise OSError("full")
    assert (folder / WEIGHTS).read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["out"]
    write_folder(str(checkpoints / "segmentation.ckpt"), folder, name="out")  # its own is replaced
    assert dvsn.load(folder).kind == "segmentation" and [each.name for each in tmp_path.iterdir()] == ["out"]
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        write_folder(str(tmp_path / "none.ckpt"), tmp_path / "new", name="new")
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_others_is_not_replaced(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match=r"was not written by this command. Choose another one: local="):
            write_folder(str(checkpoints / "classification.ckpt"), place, name="x")


def test_it_goes_around(checkpoints: Path, tmp_path: Path, hub: Hub) -> None:
    """What is written is what is fetched, and it can be published again from its name."""
    write_folder(str(checkpoints / "classification.ckpt"), tmp_path / "out", name="me/small")
    hub.folders["me/small"] = tmp_path / "out"
    assert sorted(file.name for file in fetch("hf://me/small").iterdir()) == [
        "model.safetensors",
        "recipe.json",
    ]
    write_folder("hf://me/small", tmp_path / "again", name="again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "out" / WEIGHTS).read_bytes()


# The upload -------------------------------------------------------------------------------------------------


class Api:
    """In place of the hub's: it takes what it is given, or refuses."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    error: ClassVar[Exception | None] = None

    def create_repo(self, name: str, **options: Any) -> None:
        Api.calls.append(("create", {"repo_id": name, **options}))

    def upload_folder(self, **options: Any) -> None:
        if Api.error is not None:
            raise Api.error
        Api.calls.append(
            ("upload", {**options, "files": sorted(p.name for p in Path(options["folder_path"]).iterdir())})
        )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    Api.calls, Api.error = [], None
    library = SimpleNamespace(
        get_token=lambda: "hf_x", HfApi=Api, constants=SimpleNamespace(ENDPOINT="http://hub")
    )
    monkeypatch.setattr(uploading, "import_library", lambda: library)
    return Api


def push(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hub", "push", *words])
    command.main()


def test_a_push_writes_and_uploads(
    api: type[Api], checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    push(monkeypatch, str(checkpoints / "classification.ckpt"), "me/small", "private=true")
    assert [kind for kind, _ in api.calls] == ["create", "upload"]
    assert api.calls[0][1] == {"repo_id": "me/small", "private": True, "exist_ok": True}
    assert api.calls[1][1]["files"] == ["README.md", "model.safetensors", "recipe.json"]
    assert api.calls[1][1]["folder_path"] == "hub/small" and (tmp_path / "hub" / "small" / WEIGHTS).is_file()


def test_local_alone_uploads_nothing(
    api: type[Api], checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(monkeypatch, str(checkpoints / "classification.ckpt"), f"local={tmp_path / 'out'}")
    assert not api.calls and (tmp_path / "out" / WEIGHTS).is_file()


def test_without_a_login_the_folder_stays_and_the_way_is_said(
    api: type[Api],
    checkpoints: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(uploading.import_library(), "get_token", lambda: None)
    with pytest.raises(SystemExit) as stop:
        push(monkeypatch, str(checkpoints / "classification.ckpt"), "me/small")
    said = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and "not logged in; the folder hub/small is written. Log in with `hf auth login`" in said
    )
    assert said.strip().endswith("me/small local=hub/small") and not api.calls
    assert (tmp_path / "hub" / "small" / WEIGHTS).is_file()


def test_what_the_hub_refuses_is_said(
    api: type[Api],
    checkpoints: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api.error = ConnectionError("no route\nto host")
    words = [str(checkpoints / "classification.ckpt"), "me/small", f"local={tmp_path / 'out'}"]
    with pytest.raises(SystemExit):
        push(monkeypatch, *words)
    assert "me/small: not uploaded: no route to host. The folder" in capsys.readouterr().err
    api.error = RuntimeError("Forbidden")
    api.error.response = SimpleNamespace(status_code=403)  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        push(monkeypatch, *words)
    assert "your login may not write there (status 403)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.ckpt"], "Write OWNER/NAME, or local=FOLDER"),
        (["a.ckpt", "small"], "repository: found 'small', expected OWNER/NAME"),
        (["a.ckpt", "me/small", "third"], "me/small: not understood"),
        (["a.ckpt", "me/small", "license=a b"], "expected one word"),
        (["a.ckpt", "me/small", "privat=true"], "Did you mean 'private'"),
    ],
)
def test_bad_options(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        command.read_options(words)


def test_options_by_name_and_by_position() -> None:
    by_name = command.read_options(["checkpoint=a.ckpt", "repository=me/b"])
    assert by_name == command.read_options(["a.ckpt", "me/b"]) and by_name["local"] == "hub/b"
    assert command.read_options(["a.ckpt", "local=x"])["repository"] == ""
