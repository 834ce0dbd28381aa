"""The record of the git checkout: what it says, and that nothing of a hostile repository or environment runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dvsn.engine import checkout

pytestmark = pytest.mark.skipif(not Path("/usr/bin/git").exists(), reason="git is not installed")


def git(root: Path, *arguments: str) -> str:
    words = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.txt").write_text("one\n")
    (root / "b.txt").write_text("two\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_the_commit_and_what_has_changed(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert checkout.git_state(repository) == {"commit": commit, "changed": []}
    (repository / "a.txt").write_text("other\n")
    (repository / "new.txt").write_text("")
    assert checkout.git_state(repository) == {"commit": commit, "changed": [" M a.txt", "?? new.txt"]}
    assert checkout.git_state(repository.parent) is None


def hostile(path: Path, canary: Path) -> str:
    path.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "option",
    ["core.fsmonitor", "core.pager", "filter.evil.clean", "filter.evil.process", "filter.evil.smudge",
     "filter.e=v.il.clean", "diff.external", "core.sshCommand", "core.editor", "pager.status",
     "credential.helper", "include.path"],
)  # fmt: skip
def test_no_option_of_the_repository_runs_a_program(repository: Path, tmp_path: Path, option: str) -> None:
    canary, program = tmp_path / "canary", hostile(tmp_path / "program", tmp_path / "canary")
    driver = option.removeprefix("filter.").rpartition(".")[0] if option.startswith("filter.") else "evil"
    (repository / ".gitattributes").write_text(f"*.txt filter={driver}\n")
    if option == "include.path":
        (tmp_path / "included").write_text(f'[filter "evil"]\nclean = {program}\nrequired = true\n')
        program = str(tmp_path / "included")
    git(repository, "config", option, program)
    os.utime(repository / "a.txt", (1, 1))  # so that git reads the content
    state = checkout.git_state(repository)
    assert state is not None and "?? .gitattributes" in state["changed"]
    assert not canary.exists()


def test_no_hook_and_no_variable_runs_a_program(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout"):
        hostile(repository / ".git" / "hooks" / name, canary)
    folder = tmp_path / "bin"
    folder.mkdir()
    program = hostile(folder / "git", canary)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_EDITOR", "GIT_ASKPASS", "PAGER"):
        monkeypatch.setenv(name, program)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", program)
    monkeypatch.setenv("GIT_EXEC_PATH", str(folder))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    (repository / "a.txt").write_text("other\n")
    assert checkout.git_state(repository) is not None
    assert not canary.exists()
