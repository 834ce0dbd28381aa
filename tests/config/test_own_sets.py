"""A YAML of one's own has nothing of the keypoints, classes and tables of the file that it builds on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dvsn.config import compose as composing
from dvsn.config.own_sets import OwnSets

SET = {"_target_": "dvsn.geometry.keypoints.KeypointSet", "pairs": None, "skeleton": [], "sigmas": None,
       "upper_body": [], "joint_weights": None, "head": []}  # fmt: skip


def data(folder: Path, text: str, *line: str, task: str = "pose", name: str = "mine") -> dict[str, Any]:
    """The data node of a YAML of one's own, as the command composes it."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / f"{name}.yaml").write_text(text)
    argv = [f"--config-dir={folder}", f"task={task}", f"data={name}", "data.root=nowhere", *line]
    with composing.opened("train", argv) as session:
        found = composing.compose(session.loader, session.name, session.overrides)
        node: Any = OmegaConf.to_container(found.cfg.data, resolve=True)
    return dict(node)


@pytest.mark.parametrize("parent", ["keypoints", "lspet", "faces68", "coco", "crowdpose", "keypoint_table"])
def test_other_names_start_anew(tmp_path: Path, parent: str) -> None:
    found = data(tmp_path, f"defaults: [{parent}, _self_]\nkeypoints: {{names: [a, b, c, d, e]}}\n")
    assert found["keypoints"] == SET | {"names": ["a", "b", "c", "d", "e"]}
    assert found["joints"] == 5 and found["facts"]["normalise"] is None
    assert found["facts"]["score"] == ("nme" if parent == "faces68" else "pck")


def test_what_the_file_says_itself_stays(tmp_path: Path) -> None:
    text = (
        "defaults: [crowdpose, _self_]\n"
        "keypoints: {names: [left, right, top], sigmas: [0.1, 0.1, 0.2], skeleton: [[left, top]]}\n"
        "facts: {normalise: {own: [[left], [right]]}}\n"
    )
    found = data(tmp_path, text)
    assert found["keypoints"]["sigmas"] == [0.1, 0.1, 0.2] and found["keypoints"]["skeleton"] == [
        ["left", "top"]
    ]
    assert found["facts"]["score"] == "ap" and found["facts"]["normalise"] == {"own": [["left"], ["right"]]}
    assert found["people"]["area_share"] == 0.53  # an option of the reader, not of the names


def test_a_table_is_replaced_and_not_merged(tmp_path: Path) -> None:
    text = "defaults: [faces68, _self_]\nfacts: {normalise: {own: [[p1], [p2]]}}\n"
    found = data(tmp_path, text, task="landmarks")
    assert found["facts"]["normalise"] == {"own": [["p1"], ["p2"]]}
    assert (
        found["joints"] == 68 and len(found["keypoints"]["head"]) == 14
    )  # the names are those of the parent
    found = data(tmp_path, text, "data.facts.normalise={other: diagonal}", task="landmarks")
    assert found["facts"]["normalise"] == {"other": "diagonal"}


def test_a_table_as_earlier_versions_wrote_it(tmp_path: Path) -> None:
    text = "defaults: [faces68, _self_]\nkeypoints: {names: [p1, p2]}\nnormalise: {own: [[p1], [p2]]}\n"
    found = data(tmp_path, text, task="landmarks")
    assert found["facts"]["normalise"] == {"own": [["p1"], ["p2"]]} and "normalise" not in found


def test_a_file_between_gives_what_it_gives(tmp_path: Path) -> None:
    """A third file changes one thing of the second one's keypoints, which stay."""
    data(
        tmp_path, "defaults: [coco, _self_]\nkeypoints: {names: [a, b], skeleton: [[a, b]]}\n", name="second"
    )
    found = data(tmp_path, "defaults: [second, _self_]\nkeypoints: {pairs: [[a, b]]}\n")
    wanted = {"names": ["a", "b"], "skeleton": [["a", "b"]], "pairs": [["a", "b"]]}
    assert found["keypoints"] == SET | wanted and found["joints"] == 2


def test_names_on_the_command_line_start_anew_too(tmp_path: Path) -> None:
    line = ("data.keypoints.names=[a,b,c]", "data.keypoints.skeleton=[[a,b]]")
    found = data(tmp_path, "defaults: [coco, _self_]\n", *line)
    assert found["keypoints"] == SET | {"names": ["a", "b", "c"], "skeleton": [["a", "b"]]}
    assert (found["joints"], found["facts"]["score"]) == (3, "pck")
    found = data(tmp_path, "defaults: [coco, _self_]\n", *line, "data.keypoints.sigmas=[0.1,0.1,0.1]")
    assert found["facts"]["score"] == "ap"


def test_classes_are_counted_and_their_tables_start_anew(tmp_path: Path) -> None:
    text = (
        "defaults: [segmentation, _self_]\ndataset: {names: [road, tree, sky], id_map: {7: 0, 9: 1, 30: 2}}\n"
    )
    found = data(tmp_path, text, task="segmentation")
    assert (found["classes"], found["dataset"]["palette"]) == (3, None)
    assert found["dataset"]["ignore_ids"] == [255]
    (tmp_path / "data" / "first.yaml").write_text(text)
    found = data(
        tmp_path, "defaults: [first, _self_]\ndataset: {id_map: {1: 0, 2: 1}}\n", task="segmentation"
    )
    assert found["dataset"]["id_map"] == {1: 0, 2: 1} and len(found["dataset"]["names"]) == 3
    found = data(tmp_path, "defaults: [first, _self_]\ndataset: {names: [x, y]}\n", task="segmentation")
    assert found["dataset"]["id_map"] is None and found["classes"] == 2


def test_objects_are_counted_with_the_background(tmp_path: Path) -> None:
    text = "defaults: [coco, _self_]\nobjects: {names: {1: bolt, 2: nut}, ids: {1: 0, 2: 7}}\n"
    found = data(tmp_path, text, task="detection")
    assert found["object_classes"] == 3 and found["objects"]["names"] == {1: "bolt", 2: "nut"}


def test_only_what_a_reader_has_is_set() -> None:
    """cifar10 has names and no palette."""
    sets, cfg = OwnSets(), OmegaConf.create({"data": {"dataset": {"names": ["a"]}, "classes": 10}})
    sets.read(OmegaConf.create({"data": {"dataset": {"names": ["a"]}}}))
    sets.settle(cfg)
    assert cfg == {"data": {"dataset": {"names": ["a"]}, "classes": 1}}


def test_the_options_of_another_reader_go_with_it(tmp_path: Path) -> None:
    text = "defaults: [lspet, _self_]\npeople:\n  _target_: dvsn.data.yolo.YoloPeople\n  _partial_: true\n  labels: texts\n"
    assert data(tmp_path, text, name="first")["people"] == {
        "_target_": "dvsn.data.yolo.YoloPeople", "_partial_": True, "labels": "texts"
    }  # fmt: skip
    found = data(tmp_path, "defaults: [first, _self_]\npeople: {visibility: false}\n")["people"]
    assert found["labels"] == "texts" and found["visibility"] is False and "table" not in found
    found = data(tmp_path, "defaults: [lspet, _self_]\npeople: {box: keypoints}\n")["people"]
    assert found["table"] == "{split}.csv" and found["box"] == "keypoints"
