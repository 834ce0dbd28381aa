"""What a shell is offered: commands, their parts, options, groups and choices; and the script of bash in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dvsn.__main__ import COMMANDS
from dvsn.completion import PARTS, PLACES, SCRIPTS, follow, options_of

ROOT = Path(__file__).parents[1]
SIZES = ("l", "l_classifier", "m", "m_classifier", "s", "s_classifier")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["train", "netw"], ["network="]),
        (["train", "network=pidnet_"], [f"network=pidnet_{e}" for e in SIZES]),
        (["train", "task=seg"], ["task=segmentation"]),
        (["train", "task=segmentation", "distill=cw"], ["distill=cwd", "distill=cwd_features"]),
        (["predict", "side_by_side="], ["side_by_side=true", "side_by_side=false"]),
        (["data", "in"], ["init"]),
        (["data", "init", "gr"], ["group="]),
        (["zoo", "verify", "pidnet_s_ci"], ["pidnet_s_cityscapes"]),
        (["hub", "push", "best.ckpt", "li"], ["license="]),
        (["nothing", ""], []),
        (["train", "nothing=a"], []),
    ],
)  # fmt: skip
def test_what_follows(words: list[str], offered: list[str]) -> None:
    assert follow(words, COMMANDS) == offered


def test_every_command_of_the_package_is_listed() -> None:
    """By the files that `python -m dvsn.NAME` can run."""
    package = ROOT / "dvsn"
    rooms = {each.parent.name for each in package.glob("*/__main__.py")}
    pages = {each.stem for each in package.glob("*.py") if '__name__ == "__main__"' in each.read_text()}
    assert rooms | pages | {"completion"} == set(COMMANDS) | {"__main__"}


def test_every_command_has_its_options() -> None:
    assert {*PLACES, *PARTS, "completion"} == set(COMMANDS)
    for module in [*PLACES.values(), *(each for part in PARTS.values() for each in part.values() if each)]:
        assert options_of(module).options, module


def test_it_imports_little() -> None:
    script = f"import sys; from dvsn.completion import follow; follow(['train', 'network=p'], {list(COMMANDS)!r}); "
    script += "print([name for name in ('torch', 'hydra', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dvsn train network=hrnet_w", ["hrnet_w32", "hrnet_w48"]),
        ("dvsn train task=pose sch", ["schedule="]),
        ("dvsn dat", ["data"]),
        ("dvsn data ", ["init", "check", "show", "weights", "stats", "faces", "shard"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], tmp_path: Path) -> None:
    """By the words that bash itself makes of a line: it parts them at '='."""
    (tmp_path / "dvsn").write_text(f'#!/bin/sh\nexec {sys.executable} -m dvsn "$@"\n')
    (tmp_path / "dvsn").chmod(0o755)
    words = line.replace("=", " = ").split(" ")
    script = (
        SCRIPTS["bash"]
        + f"""
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words) - 1} COMP_WORDBREAKS=$' \\t\\n=:'
        compopt() {{ :; }}
        _dvsn; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == offered, done.stderr
