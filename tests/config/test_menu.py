"""What --help lists without importing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dvsn.config import build, menu, partners


def test_networks_stand_under_the_tasks_that_take_them() -> None:
    """As the imported classes say it, of every network and every task."""
    listed = menu.networks_by_task()
    tasks = {
        name: partners.class_of(node["task"], "task")
        for name, node in partners.shipped("task").items()
        if "task" in node
    }
    for name, node in partners.shipped("network").items():
        answer = partners.said(build.locate(node["_target_"], "network"), "response")
        wanted = {task for task, kind in tasks.items() if partners.said(kind, "response") == answer}
        (title,) = [title for title, names in listed.items() if name in names]
        assert set(title.split(", ")) == wanted, name
    assert sum(map(len, listed.values())) == len(menu.choices()["network"])


def test_a_class_that_says_nothing_is_for_any_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvsn" / "networks").mkdir(parents=True)
    (tmp_path / "dvsn" / "networks" / "mine.py").write_text("class Mine(nn.Module):\n    pass\n")
    monkeypatch.setattr(menu, "PACKAGE", tmp_path / "dvsn")
    menu.answer_of.cache_clear()
    assert menu.answer_of("dvsn.networks.mine.Mine") is None
    assert menu.answer_of("dvsn.networks.mine.Other") is None and menu.answer_of("own.Net") is None
    menu.answer_of.cache_clear()


def test_torch_is_not_imported() -> None:
    code = "import sys; from dvsn.config import menu; menu.networks_by_task(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
