"""What tells one run from another: of a sweep's jobs, of single runs; and the ids that find a run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dvsn.engine.boards.ids import ids_in, keep_ids, plain_ids, read_ids, write_ids
from dvsn.engine.boards.labels import cut, labels_of, shorter, swept

CONFIG: dict[str, Any] = {
    "name": "segmentation_pidnet_s_camvid",
    "task": {"_target_": "dvsn.tasks.segmentation.Segmentation", "network": {"_target_": "dvsn.networks.pidnet.PIDNet"}},
    "data": {"_target_": "dvsn.data.module.DataModule", "dataset": {"_target_": "dvsn.data.camvid.CamVid"}},
    "distill": {"cwd": {"weight": 1.0}, "kd": None},
}  # fmt: skip


def command(patch: pytest.MonkeyPatch, *words: str) -> None:
    patch.setattr("sys.argv", ["dvsn.train", *words])


def test_a_run_is_named_by_what_its_command_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    command(
        monkeypatch, "task=segmentation", "data=camvid", "network=pidnet_s", "logger=wandb", "optim.lr=0.01", "seed=3",
        "data.root=/data", "--allow", "mine", "+loss.terms.main.weight=2", "discriminator.weight=3", "hydra.run.dir=x",
    )  # fmt: skip
    found = labels_of(CONFIG, folder=Path("runs/a/2026-11-30_12-00-00"))
    assert found.name == (
        "segmentation_pidnet_s_camvid lr=0.01, seed=3, +loss.terms.main.weight=2, discriminator.weight=3"
    )
    assert found.tags == ("segmentation", "pidnet_s", "camvid", "cwd")
    assert (found.group, found.job) == (None, "train")


def test_one_that_changes_nothing_by_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "experiment=demo", "logger=wandb")
    found = labels_of({**CONFIG, "name": "demo"}, folder=Path("runs/demo/2026-11-30_12-00-00"))
    assert found.name == "demo 2026-11-30_12-00-00"
    assert found.tags == ("segmentation", "pidnet", "camvid", "cwd")  # by the classes


def test_the_jobs_of_a_sweep_by_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are one group: the folder of the sweep."""
    sweep = tmp_path / "sweep_2026-11-30_12-00-00"
    shared = [
        "task=segmentation",
        "logger=wandb",
        "optim.lr=0.01",
        f"loss.classes=['{'a long name ' * 9}',b]",
    ]
    words = {"hydra": {"overrides": {"task": [*shared, "distill=cwd,kd", "seed=0,1"]}}}
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(words))  # which breaks the long line
    names = []
    for number, own in enumerate(
        (["distill=cwd", "seed=0"], ["distill=cwd", "seed=1"], ["distill=kd", "seed=0"])
    ):
        folder = sweep / str(number)
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps({"overrides": sorted(own + shared)}))
        monkeypatch.setenv("DVSN_JOB_FOLDER", str(folder))
        command(monkeypatch, *own, *shared)
        found = labels_of(CONFIG, folder=folder)
        assert found.group == sweep.name
        names.append(found.name)
    assert names == ["distill=cwd, seed=0", "distill=cwd, seed=1", "distill=kd, seed=0"]


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"overrides": 3}', '{"overrides": ["a=1"]}'])
def test_a_job_whose_files_are_gone_has_a_name(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVSN_JOB_FOLDER", str(tmp_path / "7"))
    (tmp_path / "7").mkdir()
    if content is not None:
        (tmp_path / "7" / "job.json").write_text(content)
    expected = "a=1" if content and "a=1" in content else "segmentation_pidnet_s_camvid 7"
    assert labels_of(CONFIG, folder=tmp_path / "7").name == expected


def test_names_are_short_and_on_one_line() -> None:
    assert cut("a\n b " + "x" * 200, 20) == "a b " + "x" * 13 + "..."
    assert shorter(["a.lr=1", "b.lr=2", "c.seed=3"]) == ["a.lr=1", "b.lr=2", "seed=3"]
    assert swept(Path("nowhere")) == []


# Ids -------------------------------------------------------------------------------------------------

IDS = {"wandb": {"id": "abc", "project": "dvsn"}}


def saved(folder: Path, header: Any) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "dvsn": header}, path)
    return path


def test_a_run_that_goes_on_keeps_its_ids(tmp_path: Path) -> None:
    write_ids(tmp_path, IDS)
    keep_ids(tmp_path, None, again=True)  # killed before its first checkpoint
    assert read_ids(tmp_path) == IDS
    keep_ids(tmp_path, None, again=False)  # another run in the same folder
    assert read_ids(tmp_path) == {}


def test_one_that_goes_on_elsewhere_takes_them_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(tmp_path / "old", {"loggers": {**IDS, "mlflow": {"id": "m"}}})
    keep_ids(tmp_path / "new", checkpoint, again=True)
    assert read_ids(tmp_path / "new") == {**IDS, "mlflow": {"id": "m"}}
    write_ids(tmp_path / "old", IDS)  # what the folder says comes first
    keep_ids(tmp_path / "third", checkpoint, again=True)
    assert read_ids(tmp_path / "third") == IDS
    monkeypatch.setenv("DVSN_JOB_FOLDER", str(tmp_path / "job"))  # one of several that go on from there
    keep_ids(tmp_path / "job", checkpoint, again=True)
    assert read_ids(tmp_path / "job") == {}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"wandb": 3}', '{"wandb": {"id": 3}}', '{"wandb": {"id": ""}}']
)
def test_a_damaged_file_of_ids_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "loggers.json").write_text(content)
    assert read_ids(tmp_path) == {}


@pytest.mark.parametrize("header", [None, 3, {}, {"loggers": 3}, {"loggers": {"wandb": {"id": 3}}}])
def test_a_checkpoint_without_ids(header: Any, tmp_path: Path) -> None:
    assert ids_in(saved(tmp_path, header)) == {}
    assert ids_in(tmp_path / "gone.ckpt") == {}
    assert plain_ids({"mlflow": {"id": "x", "place": "y", "bad": {}}}) == {
        "mlflow": {"id": "x", "place": "y"}
    }
