"""The README's commands are understood by the commands they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose as compose_config
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from dvsn import evaluate
from dvsn.config import compose
from dvsn.config.menu import conf_dir
from dvsn.config.rules import validate
from dvsn.convert import __main__ as convert
from dvsn.data_tools import faces
from dvsn.predict import __main__ as predict
from dvsn.sweep import report, search

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.strip().split("  ")[0] for line in README.splitlines() if re.match(r"    (python -m )?dvsn", line)
]
LINES += re.findall(
    r"python -m dvsn\.\w+ (?!--help)[^`\n]*",
    " \n".join(p.read_text() for p in (ROOT / "conf").rglob("*.yaml")),
)


def test_the_readme_shows_both_commands_and_the_real_one() -> None:
    assert "make demo" in README
    assert "make test" in README
    assert any("task=pix2pix data=cityscapes" in line for line in LINES)


@pytest.mark.parametrize("line", sorted(set(LINES)))
def test_commands_compose(line: str) -> None:
    words = shlex.split(line.split("#")[0])
    command = next(word for word in words if word.startswith("dvsn."))
    rest = [word for word in words[words.index(command) + 1 :] if word != "-m" and not word.endswith("...")]
    if command == "dvsn.predict":
        assert predict.COMMAND.parse(rest)["checkpoint"]
    elif command == "dvsn.convert":
        assert convert.COMMAND.parse(rest)["source"]
    elif command == "dvsn.report":
        assert report.COMMAND.parse(rest)["runs"]
    elif command == "dvsn.search":
        with compose.opened("search", ["hydra.run.dir=x", *rest]) as (hydra, arguments):
            assert search.plan(hydra, arguments, name="search", trial="train", module="dvsn.train").ranges
    elif rest[0] == "faces" and command == "dvsn.data":
        assert faces.COMMAND.parse(rest[1:])["root"]
    else:
        rest = [re.sub(r"=([^\[\"',]*),.*", r"=\1", word) for word in rest]  # the first job of a sweep
        name = command.removeprefix("dvsn.")
        if name in ("data", "distill"):
            name = f"{name}_{rest.pop(0)}"
        assert name in (
            "train",
            evaluate.COMMAND.name,
            "benchmark",
            "data_check",
            "data_show",
            "data_weights",
            "distill_taps",
        )
        config_dir = rest.index("--config-dir") if "--config-dir" in rest else None
        if config_dir is not None:
            rest = rest[:config_dir] + rest[config_dir + 2 :]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            trains = name == "train" or name.startswith("data_")
            rest = [word for word in rest if not word.endswith("=...")]
            bare = name in ("benchmark", "distill_taps")  # no trainer
            given = [*([] if bare else ["run_dir=x"]), *(["name=x"] if trains else [])]
            config = compose_config(name, overrides=[*given, *rest])
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        if not bare:
            validate(plain)
        HydraConfig.instance().cfg = None
