"""The facts of a data set: their checks, who refers to them, and where they stood in earlier versions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvsn.config import compose as composing
from dvsn.config.allow import MOVED, renamed
from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.data.facts import DataFacts
from dvsn.data.module import DataModule
from dvsn.errors import ConfigError

Composed = Callable[..., dict[str, Any]]


@pytest.fixture
def composed(tmp_path: Path) -> Composed:
    """The resolved config of a command line, by the way of the commands, with YAML files of a user."""

    def compose(*overrides: str, **files: str) -> dict[str, Any]:
        for name, text in files.items():
            path = tmp_path / "mine" / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        argv = [
            f"--config-dir={tmp_path / 'mine'}",
            "task=pose",
            "name=x",
            f"++run_dir={tmp_path}",
            *overrides,
        ]
        with composing.opened("train", argv if files else argv[1:]) as session:
            return composing.plain(composing.compose(session.loader, "train", session.overrides).cfg)

    return compose


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5]}, r"data\.facts\.mean: .*expected as many numbers"),
        ({"mean": [0.5], "std": [0.0]}, r"data\.facts\.std: found \[0\.0\], expected numbers above 0"),
        ({"boundary_frame": -1}, r"data\.facts\.boundary_frame: found -1"),
        ({"padding": 0.0}, r"data\.facts\.padding: found 0\.0"),
        ({"score": "oks"}, r"data\.facts\.score: expected one of 'ap'"),
        ({"padding": "wide"}, r"data\.facts\.padding: expected a number"),
        ({"paddin": 1.0}, r"data\.facts\.paddin: .*Did you mean 'padding'"),
    ],
)
def test_wrong_facts(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"_target_": "dvsn.data.facts.DataFacts", **given}, path="data.facts")


def test_no_shipped_file_refers_to_a_fact_where_it_was() -> None:
    flat = re.compile(rf"\$\{{\.*data\.({'|'.join(MOVED)})\b|^({'|'.join(MOVED)}):", re.MULTILINE)
    texts = {path: path.read_text(encoding="utf-8") for path in Path(conf_dir()).rglob("*.yaml")}
    found = {str(path): flat.findall(text) for path, text in texts.items() if path.parent.name == "data"}
    found |= {
        str(path): re.findall(rf"\$\{{data\.(?:{'|'.join(MOVED)})\b", text) for path, text in texts.items()
    }
    assert len(texts) > 150 and not any(found.values()), {key: value for key, value in found.items() if value}


def test_other_files_read_the_facts(composed: Composed) -> None:
    config = composed("data=lspet", "data.facts.padding=1.5", "data.facts.score=nme")
    assert config["transform"]["eval"]["padding"] == config["data"]["transform"]["train"]["padding"] == 1.5
    assert config["monitor"]["name"] == "val/nme"
    config = composed("task=classification", "data=cifar10")
    assert config["task"]["mean"] == [0.4914, 0.4822, 0.4465]


def test_a_data_module_holds_them() -> None:
    node = yaml.safe_load(Path(conf_dir(), "data", "_base.yaml").read_text(encoding="utf-8"))
    node |= {"root": "data", "transform": {"train": [], "eval": []}, "seed": 0}
    module: Any = build(node | {"facts": node["facts"] | {"padding": 2.0}}, path="data")
    assert isinstance(module, DataModule) and isinstance(module.facts, DataFacts)
    assert (module.facts.padding, module.facts.score, module.facts.mean) == (
        2.0,
        "pck",
        [0.485, 0.456, 0.406],
    )


# Earlier versions had them beside the other options of a data set -------------------------------------------------


def test_a_recipe_of_a_checkpoint_has_them_beside_the_others(composed: Composed) -> None:
    """As old checkpoints carry it: the node of today with its facts one floor up."""
    node = composed("data=lspet")["data"]
    today = node | {"facts": node["facts"] | {"padding": 1.75, "score": "ap"}}
    facts = {key: value for key, value in today["facts"].items() if key in MOVED}
    old = {key: value for key, value in today.items() if key != "facts"} | facts
    today["facts"] = {"_target_": "dvsn.data.facts.DataFacts", **facts}
    assert old.keys() & set(MOVED) == set(MOVED)
    assert renamed(old) == today and renamed(today) == today
    assert build(old, path="data").facts.padding == 1.75
    assert renamed({"data": old})["data"] == today
    other: dict[str, Any] = {"transform": {"mean": 1, "padding": 2}, "padding": 3}  # not of a data set
    assert renamed(other) == other


def test_files_of_a_user_that_were_written_then(composed: Composed) -> None:
    """A data set with flat facts, an experiment that sets one, and a transform that refers to one."""
    files = {
        "data__mine": "defaults: [lspet, _self_]\npadding: 1.5\nscore: nme\nnormalise: {torso: [[neck], [left_hip]]}\n",
        "transform__mine": "defaults: [pose]\neval: {padding: '${data.padding}'}\n",
        "experiment__mine": "# @package _global_\ndefaults: [override /data: mine]\ndata: {padding: 1.25}\n",
    }
    config = composed("data=mine", "transform=mine", **files)
    assert config["data"]["facts"]["padding"] == config["transform"]["eval"]["padding"] == 1.5
    assert config["data"]["facts"]["normalise"] == {"torso": [["neck"], ["left_hip"]]}
    assert config["monitor"]["name"] == "val/nme" and not config["data"].keys() & set(MOVED)
    assert composed("experiment=mine", **files)["transform"]["train"]["padding"] == 1.25
    config = composed("data=mine", "data.facts.padding=2.5", **files)  # the command line has the last word
    assert config["data"]["facts"]["padding"] == config["transform"]["eval"]["padding"] == 2.5


@pytest.mark.parametrize("plus", ["", "+"])
def test_the_command_line_names_the_new_place(plus: str, composed: Composed) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.mean: unknown key\. It is called data\.facts\.mean now\.$"
    ):
        composed(f"{plus}data.mean=[0.5,0.5,0.5]")
