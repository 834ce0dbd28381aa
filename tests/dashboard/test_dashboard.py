"""Dashboards as data: what is read, what is refused, and W&B's own objects where wandb-workspaces is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvsn.config.menu import choices, conf_dir
from dvsn.dashboard import command
from dvsn.dashboard.command import COMMAND, dashboard, refusals
from dvsn.dashboard.plan import KINDS, Panel, load, names
from dvsn.errors import ConfigError

TASKS = ("classification", "detection", "landmarks", "pix2pix", "pose", "segmentation")


def asked(*words: str) -> list[str]:
    return dashboard(COMMAND.parse(["team/dvsn", *words]))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_each_task_has_one_and_it_is_no_group() -> None:
    assert tuple(names()) == TASKS and "dashboard" not in choices()
    kinds = {path.stem for path in Path(conf_dir(), "task").glob("*.yaml")} - {"distillation"}
    shown = {run for name in names() for run in load(name).runs}
    assert kinds == shown


@pytest.mark.parametrize("name", TASKS)
def test_it_ranks_by_what_the_task_is_judged_by(name: str) -> None:
    plan = load(name)
    monitor = yaml.safe_load(Path(conf_dir(), "task", f"{name}.yaml").read_text())["monitor"]
    assert plan.better == {"max": "more", "min": "less"}[monitor["mode"]]
    assert monitor["name"] in (plan.score, "val/${data.facts.score}")
    assert [section.name for section in plan.sections][-3:] == ["Training", "Time and memory", "Options"]
    panels = [panel for section in plan.sections for panel in section.panels]
    assert Panel("bars", panels[1].title, {"of": [f"best/{plan.score}"]}) == panels[1] or name == "pose"


def test_a_dry_run_prints_and_makes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "save", lambda *_: pytest.fail("something was sent"))
    assert asked("task=segmentation", "dry_run=true") == []
    text = capsys.readouterr().out
    assert text.startswith(
        "team/dvsn: a workspace and a report for each of\n\nSegmentation: runs tagged segmentation"
    )
    assert (
        "    line        mIoU  (y: val/miou)\n" in text
        and "matrix      What is taken for what  (key: confusion)" in text
    )


def test_without_a_key_it_prints_and_ends_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no key to log in with, so nothing was made\. Run `wandb login`"
    ):
        asked("make=[report]", "task=[pose,detection]")
    text = capsys.readouterr().out
    assert text.startswith("team/dvsn: a report for each of\n\nPose: ") and "\n\nDetection: " in text


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'dvsn\[dashboard\]'"):
        asked("task=pose")


@pytest.mark.parametrize(
    "place", ["dvsn", "a/b/c", "team/", "/dvsn", "team/a b", "te am/dvsn", "https://wandb.ai/team/dvsn"]
)
def test_a_place_that_is_none(place: str) -> None:
    with pytest.raises(ConfigError, match=r"project: found .* expected ENTITY/PROJECT"):
        dashboard(COMMAND.parse([f"project={place}"]))


@pytest.mark.parametrize("word", ["make=[page]", "make=[]", "task=segmentatoin", "task=_shared"])
def test_options_that_are_none(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^(make|task): "):
        asked(word, "dry_run=true")


def test_what_wandb_refuses_is_told() -> None:
    with (
        pytest.raises(ConfigError, match="project: W&B refused team/gone: 404 not found Look at"),
        refusals("team/gone"),
    ):
        raise Exception("404\n not found")


PLAIN: dict[str, Any] = {
    "title": "Mine", "runs": ["mine"], "score": "val/x", "better": "more",
    "sections": [{"name": "One", "panels": [{"kind": "number", "title": "Best", "of": "best"}]}],
}  # fmt: skip


def written(tmp_path: Path, **changes: Any) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return str(file)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    plan = load(written(tmp_path))
    assert plan.title == "Mine" and plan.sections[0].panels == (
        Panel("number", "Best", {"of": "best/val/x"}),
    )


def with_panel(**panel: Any) -> dict[str, Any]:
    return {"sections": [{"name": "One", "panels": [{"title": "T", **panel}]}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tilte": "x"}, r"tilte: unknown key\. Did you mean 'title'\?"),
        ({"title": 3}, "title: found 3, expected text"),
        ({"runs": "mine"}, "runs: found 'mine', expected a list"),
        ({"runs": [1]}, r"runs: found \[1\], expected a list of names"),
        ({"better": "up"}, "better: found 'up', expected more or less"),
        ({"sections": []}, r"sections: found \[\], expected a list"),
        ({"sections": ["x"]}, r"sections\[0\]: found 'x', expected name and panels"),
        (with_panel(kind="lines", y=["a"]), r"sections\[0\]: panels\[0\]: kind: found 'lines'\. Did you mean 'line'\?"),
        (with_panel(kind="line"), "a panel 'line' needs y or pattern"),
        (with_panel(kind="line", y=["a"], pattern="b"), "a panel 'line' needs y or pattern"),
        (with_panel(kind="line", pattern="("), "pattern: not a regular expression"),
        (with_panel(kind="line", y="a"), "y: found 'a', expected a list of names"),
        (with_panel(kind="line", y=[1]), r"y: found \[1\], expected a list of names"),
        (with_panel(kind="line", y=["a"], logy=True), r"logy: unknown option of line\. Did you mean 'log_y'\?"),
        (with_panel(kind="table"), "a panel 'table' needs key"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_its_place(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{said}"):
        load(written(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"a: [", b"- 1", b"\xff\xfe\x00\xd8"])
def test_a_file_that_is_no_description(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml: "):
        load(str(tmp_path / "mine.yaml"))


# W&B's own objects -----------------------------------------------------------------------------------

ONE_OF_EACH = [
    {"kind": "line", "title": "L", "pattern": "val/.*", "log_y": True}, {"kind": "bars", "title": "B", "of": ["best"]},
    {"kind": "number", "title": "N", "of": "best"}, {"kind": "scatter", "title": "S", "x": "config:optim.lr", "y": "best"},
    {"kind": "pictures", "title": "P", "keys": ["val/overlays"]}, {"kind": "table", "title": "T", "key": "val/t"},
    {"kind": "matrix", "title": "M", "key": "confusion"}, {"kind": "parallel", "title": "C", "columns": ["best"]},
    {"kind": "importance", "title": "I", "of": "best"}, {"kind": "compare", "title": "D"},
    {"kind": "text", "title": "X", "text": "words"},
]  # fmt: skip


def test_every_kind_becomes_a_panel(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    from dvsn.dashboard.make import report_of, workspace_of

    assert {each["kind"] for each in ONE_OF_EACH} == set(KINDS)
    plan = load(written(tmp_path, sections=[{"name": "All", "panels": ONE_OF_EACH, "open": False}]))
    made = workspace_of(plan, entity="team", project="dvsn")
    view = json.loads(made._to_model().model_dump_json(by_alias=True))
    text = json.dumps(view)
    section = view["spec"]["section"]["panelBankConfig"]["sections"][0]
    assert section["name"] == "All" and section["isOpen"] is False
    assert [each["viewType"] for each in section["panels"]] == [
        "Run History Line Plot", "Bar Chart", "Scalar Chart", "Scatter Plot", "Media Browser", "Weave", "Vega2",
        "Parallel Coordinates Plot", "Parameter Importance", "Run Comparer", "Markdown Panel",
    ]  # fmt: skip
    assert "wandb/confusion_matrix/v1" in text and "Custom Chart Tables/plots/confusion_table" in text
    assert '"mine"' in text and "trainer/global_step" in text
    report = report_of(plan, entity="team", project="dvsn")
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert report.title == "dvsn Mine" and len(grids[0].panels) == len(KINDS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_becomes_a_workspace_and_a_report(name: str) -> None:
    pytest.importorskip("wandb_workspaces")
    from dvsn.dashboard.make import report_of, workspace_of

    plan = load(name)
    made = workspace_of(plan, entity="team", project="dvsn")
    made._to_model()
    assert [section.name for section in made.sections] == [section.name for section in plan.sections]
    report = report_of(plan, entity="team", project="dvsn")
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert [len(grid.panels) for grid in grids] == [len(section.panels) for section in plan.sections]
    corners = {(panel.layout.x, panel.layout.y) for panel in grids[0].panels}
    assert len(corners) == len(grids[0].panels)  # none lies on another


def test_it_is_saved_and_its_address_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key; `save` of wandb-workspaces, which needs a network, is replaced."""
    pytest.importorskip("wandb_workspaces")
    import wandb_workspaces.workspaces as workspaces

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    saved: list[Any] = []
    monkeypatch.setattr(workspaces.Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(
        workspaces.Workspace, "url", property(lambda self: f"https://wandb.ai/{self.entity}/{self.project}")
    )
    assert asked("task=pose", "make=[workspace]") == ["https://wandb.ai/team/dvsn"]
    assert [each.name for each in saved] == ["dvsn Pose"]
