"""The command: YAML that composes and trains by one line, or one sentence and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from dvsn.config import compose
from dvsn.data.__main__ import task_of, with_task
from dvsn.data_tools.commands import INIT
from dvsn.data_tools.init.command import init
from dvsn.data_tools.init.write import flow, scalar
from dvsn.errors import ConfigError, DataError
from tests.support.own_data import write_classes, write_masks


def run(folder: Path, *options: str) -> list[Path]:
    return init(INIT.parse([str(folder), *options]))


def composed(folder: Path, name: str = "mine") -> dict[str, Any]:
    with compose.opened("train", ["--config-dir", str(folder), f"experiment={name}"]) as session:
        made = compose.compose(session.loader, session.name, session.overrides)
        return compose.preflight(made, folder=folder)


def test_two_files_and_the_lines_that_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_masks(tmp_path / "my scans", count=10)
    caplog.set_level("INFO", logger="dvsn")
    files = run(Path("my scans"), "ratio=60/20/20", "seed=3")
    assert files == [Path("my_conf/data/mine.yaml"), Path("my_conf/experiment/mine.yaml")]
    said = caplog.text
    assert "6 train, 2 val, 2 test" in said
    for line in ("data check --config-dir my_conf data=mine", "data show --config-dir my_conf experiment=mine",
                 "train --config-dir my_conf experiment=mine"):  # fmt: skip
        assert f"python -m dvsn.{line}" in said
    assert "python -m dvsn.predict runs/mine 'my scans/images'" in said
    tree = composed(tmp_path / "my_conf")
    assert tree["data"]["splits"] == {"train": "all[:60%]", "val": "all[60%:80%]", "test": "all[80%:]"}
    assert (tree["data"]["split_seed"], tree["data"]["classes"]) == (3, 4)
    assert tree["data"]["root"] == str(tmp_path / "my scans")
    assert tree["task"]["_target_"] == "dvsn.tasks.segmentation.Segmentation"
    arguments = ["--config-dir", "my_conf"]
    assert with_task([*arguments, "experiment=mine"])[-1] == "task=segmentation"
    assert with_task([*arguments, "data=mine"]) == [*arguments, "data=mine"]  # which is the task of no word


def test_the_task_of_an_experiment(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"cat": 6, "dog": 6, "owl": 6})
    run(tmp_path / "pets", f"into={tmp_path / 'conf'}", "name=pets")
    assert task_of("pets", [tmp_path / "conf"]) == "classification"
    assert composed(tmp_path / "conf", "pets")["task"]["_target_"].endswith("Classification")
    base = tmp_path / "conf" / "experiment" / "longer.yaml"
    base.write_text("# @package _global_\ndefaults: [pets]\ntrainer: {max_epochs: 900}\n")
    assert task_of("longer", [tmp_path / "conf"]) == "classification"


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("options, message", [
    (["name=street"], "name: 'street' is a choice of data that dvsn has already"),
    (["name=a/b"], "name: found 'a/b', expected letters"),
    (["ratio=90/20"], "ratio: found"),
    (["group=zzz"], "matches no name"),
    (["minutes=0"], "minutes: found 0"),
    (["task=pose"], "task: found 'pose'"),
])  # fmt: skip
def test_wrong_options_write_nothing(options: list[str], message: str, tmp_path: Path) -> None:
    write_masks(tmp_path / "set")
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "set", f"into={tmp_path / 'conf'}", *options)
    assert not (tmp_path / "conf").exists()


def test_nothing_is_overwritten_or_half_written(tmp_path: Path) -> None:
    write_masks(tmp_path / "set")
    conf, into = tmp_path / "conf", f"into={tmp_path / 'conf'}"
    (conf / "experiment").mkdir(parents=True)
    (conf / "experiment" / "mine.yaml").write_text("mine: true\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is there already.*name=\.\.\., or overwrite=true"):
        run(tmp_path / "set", into)
    assert [path.name for path in files_below(conf)] == ["mine.yaml"]
    run(tmp_path / "set", into, "overwrite=true")
    assert "mine: true" not in (conf / "experiment" / "mine.yaml").read_text()
    before = {path: path.read_text() for path in files_below(conf)}
    (tmp_path / "set" / "labels" / "p1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"p1\.png"):
        run(tmp_path / "set", into, "overwrite=true")
    assert {path: path.read_text() for path in files_below(conf)} == before


def test_a_class_folder_without_a_picture_is_found_before_anything_is_written(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"cat": 6, "dog": 6, "owl": 6})
    (tmp_path / "pets" / "ape").mkdir()
    with pytest.raises(DataError, match="ape: this class has no picture"):
        run(tmp_path / "pets", f"into={tmp_path / 'conf'}")
    assert not (tmp_path / "conf").exists()


@pytest.mark.parametrize("text", [
    "cat", "no", "null", "1e5", "012", "12:30", "a: b", "${oc.env:HOME}", "", " x ", "'", '"', "ünï", "#5", "[a]", "y",
    "true", "~", "a,b", "*", "&x", "!t", "%", "@", "0x10", ".5", "1_000", "red disc", "-", "a\\b", "é\n",
])  # fmt: skip
def test_names_are_read_back_as_they_are(text: str) -> None:
    """By YAML and by OmegaConf, whose numbers are others."""
    assert yaml.safe_load(scalar(text)) == (text.replace("${", "\\${"))
    tree = OmegaConf.create(f"names: {flow([text, 'b'])}\nkey: {flow({'k': text})}")
    assert OmegaConf.to_container(tree, resolve=True) == {"names": [text, "b"], "key": {"k": text}}


@pytest.mark.parametrize("value", [1.0, 0.001, 1e-5, 1e20, 3, None, True, [1, 2.5], {7: 0, 255: None}])
def test_values_are_read_back(value: Any) -> None:
    assert OmegaConf.to_container(OmegaConf.create(f"x: {flow(value)}")) == {"x": value}
