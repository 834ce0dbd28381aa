"""Every `key=value` that a message of the source says exists, takes that value, and belongs to a command that is there.

The texts of `dvsn/` are read, so an advice that is new is tried without a line here. What a message fills in is not
known; a key that is partly filled in must have a form that exists.
"""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from omegaconf import OmegaConf

from dvsn.command_line import Command, scalar
from dvsn.config import compose, hydra_node
from dvsn.config.menu import PACKAGE, choices, conf_dir
from dvsn.config.partners import shipped
from dvsn.config.rules import TRAINER_OPTIONS
from dvsn.config.types import fits
from dvsn.portable import measure
from tests.support.advice import HOLE, Advice, advice, commands, keys_of

GROUPS = choices()
WHOLE = ("task", "experiment", "debug")
"""Groups whose files are of the whole config."""
OTHERS = {
    "benchmark/": ("export",),
    "compress/": ("export", "evaluate"),
    "engine/soup": ("average",),
    "portable/": ("predict",),
    "predict/": ("predict",),
    "publish/": ("hub push",),
    "report/": ("evaluate",),
    "data_tools/init/": ("data init", "predict"),
    "shards/": ("data shard",),
    "tasks/exported": ("export",),
    "engine/boards/exported": ("export",),
}
"""Files that name options of a command that is described in another folder, by the start of their path."""
SHELL = ("completion.py", "serve/guard.py", "serve/metrics.py")
"""Files that hold programs of a shell, with its own variables, or headers of HTTP and the text of Prometheus."""
NAMED = {"serve": r"\w+=\w+\.(ckpt|onnx)"}
"""Commands that take NAME=PATH."""


@functools.cache
def described() -> dict[str, tuple[str, Command]]:
    """Each command by its name, with the file that describes it."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if re.search(r"^[A-Z]+ = Command\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            path = file.relative_to(PACKAGE).with_suffix("")
            for each in vars(importlib.import_module(".".join(["dvsn", *path.parts]))).values():
                if isinstance(each, Command) and each.name not in found:
                    found[each.name] = (path.as_posix() + ".py", each)
    return found


DESCRIBED = re.compile(rf"{HOLE}|{HOLE}.*|\.\.\.")
"""A value of a message that tells what was found, or that is left to the reader."""


def command(name: str) -> Command:
    return described()[name][1]


@functools.cache
def composed(name: str, *overrides: str) -> Any:
    with compose.initialized(conf_dir()):
        cfg = hydra_compose(
            name, overrides=["name=x", *overrides] if name in ("train", "search", "tune") else list(overrides)
        )
    return OmegaConf.to_container(cfg, resolve=False)


@functools.cache
def known() -> dict[str, list[Any]]:
    """Each key that a config may have, with the types that its values may have."""
    found: dict[str, list[Any]] = {}

    def add(node: Any, path: str = "") -> None:
        for key, hint in keys_of(node, path):
            found.setdefault(key, []).append(hint)

    for name in ("train", "evaluate", "search", "tune"):
        file = Path(conf_dir(), f"{name}.yaml")
        add(
            {
                key: value
                for key, value in yaml.safe_load(file.read_text()).items()
                if key not in ("defaults", "hydra")
            }
        )
    for task in GROUPS["task"]:
        add({key: value for key, value in composed("train", f"task={task}").items() if key != "hydra"})
    for group, names in GROUPS.items():
        found.setdefault(group, []).append(str)
        for name in names if group not in WHOLE else ():
            node = {key: value for key, value in shipped(group)[name].items() if key != "defaults"}
            add(node, group)
    for key, hint in TRAINER_OPTIONS.items():
        found[f"trainer.{key}"] = [hint]
    for key in ("resume.force", "run_dir", "debug", *hydra_node.GROUPS):
        found.setdefault(key, []).append(Any)
    return found


@functools.cache
def own_options(file: str) -> set[str]:
    """Options of the commands that a file, or the folder of a room with one command, describes."""
    own = [name for name, (home, _) in described().items() if home == file]
    folder = Path(file).parent.as_posix()
    near = [name for name, (home, _) in described().items() if Path(home).parent.as_posix() == folder]
    own += near if len(near) == 1 and folder != "." else []
    own += [name for start, names in OTHERS.items() if file.startswith(start) for name in names]
    others = set(measure.OPTIONS) if file == "portable/measure.py" else set()
    return others | {option.name for name in own for option in command(name).options}


@functools.cache
def bare_words() -> set[str]:
    """Last words of options of classes, by which a class tells what it was given."""
    return {key.rpartition(".")[2] for key in known() if "." in key}


def matching(key: str) -> list[str]:
    pattern = re.compile(re.escape(key).replace(HOLE, r"[\w.]+").replace("NAME", r"\w+"))
    return [each for each in known() if pattern.fullmatch(each)]


EXAMPLES = ("key", "option", "group")
"""Words for any option: Write key=value."""
NO_ADVICE = {
    ("config/python.py", "config_dir="),  # an argument of a function
    ("engine/console.py", "find_unused_parameters=True"),  # words of Lightning's warnings
    ("engine/console.py", "sync_dist=True.*"),
    ("data/folders.py", "a={a}"),  # a picture of folders
    ("data/folders.py", "b={b}"),
    ("data/chance.py", f"p={HOLE}"),  # albumentations' options, as it has them
    ("data/transforms.py", f"mask_interpolation={HOLE}"),
    ("data/transforms.py", "mask_interpolation=6"),
    ("data/transforms.py", "area_for_downscale=image_mask"),
    ("compress/candidates.py", "network=teacher"),  # words of candidates alone
    ("compress/candidates.py", "pruned="),
    ("serve/options.py", "street=pidnet.onnx"),  # models by names
    ("serve/options.py", "faces=pfld.ckpt"),
    ("serve/options.py", "pose=hrnet_w32.ckpt"),
    ("convert/faces.py", "mean=[0,0,0]"),  # what published code does
    ("convert/faces.py", "std=[1,1,1]"),
}
"""What looks like an option of dvsn and is none, by file."""


@functools.cache
def given() -> list[Advice]:
    """When a test asks: every worker reads this file, and one needs the package."""
    return sorted({each for each in advice(PACKAGE) if each.file not in SHELL})


def fault(each: Advice) -> str:
    """What is wrong with an advice; empty where nothing is."""
    key = each.key.lstrip("+")
    if set(key) <= {HOLE, "."} or key in EXAMPLES or (each.file, f"{key}={each.value}") in NO_ADVICE:
        return ""
    if hydra_node.inside(key, hydra_node.LINE) or key in own_options(each.file):
        return ""
    if each.command and key in {option.name for option in command(each.command).options}:
        return ""
    if key in GROUPS and HOLE not in each.value and not DESCRIBED.fullmatch(each.value):
        names = re.findall(r"[\w/]+", each.value)
        wrong = [
            name
            for name in names
            if name not in GROUPS[key] and name not in ("null", "NAME") and not name.isdigit()
        ]
        return f"{key} has no choice {wrong}" if wrong else ""
    keys = matching(key)
    if not keys:
        told = key in bare_words() and DESCRIBED.fullmatch(each.value)
        return "" if told else "no such option"
    literal = HOLE not in each.value and not re.search(r"[A-Z]{3}|\.\.\.|[{}]|^$", each.value)
    hints = [hint for found in keys for hint in known()[found]]
    if (
        literal
        and not re.search(r"[,(]", each.value)
        and not any(fits(scalar(each.value), hint) for hint in hints)
    ):
        return f"does not take {each.value}"
    return ""


def test_many_are_found() -> None:
    assert len(given()) > 300 and len(known()) > 1000


def test_what_a_message_says_to_set_exists() -> None:
    wrong = [
        f"{each.file}:{each.line}: {each.key}={each.value}: {text}"
        for each in given()
        if (text := fault(each))
    ]
    assert not wrong, "\n".join(wrong)


def test_what_looks_like_advice_and_is_none_is_there() -> None:
    assert {(each.file, f"{each.key}={each.value}") for each in given()} >= NO_ADVICE


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("trainer.max_epoch", "3", "no such option"),
        ("trainer.max_epochs", "yes", "does not take yes"),
        ("loss", "ohme", "loss has no choice ['ohme']"),
        ("mode", "slide", "no such option"),
        (f"trainer.limit_{HOLE}_batches", "1", ""),
        (f"trainer.limit_{HOLE}_epochs", "1", "no such option"),
        (f"distill.{HOLE}.taps", "last", ""),
        ("data.dataset.nearest", "true", ""),
        ("size", "keep", "no such option"),
    ],
)
def test_a_wrong_advice_is_found(key: str, value: str, found: str) -> None:
    assert fault(Advice("tasks/base.py", 1, key, value)) == found


# Command lines --------------------------------------------------------------------------------------------

GIVE_ON = ("search", "zoo verify", "compress")
"""Commands that hand other options on to one that composes a config."""
PLAIN = {("zoo", "show"), ("zoo", "list")}
"""Commands that take no options."""


def line_fault(name: str, words: tuple[str, ...]) -> str:
    """What is wrong with a command line."""
    rooms = {each.partition(" ")[0] for each in described() if " " in each}
    if name in rooms and (not words or words[0].isupper() or words[0].startswith("[")):
        return ""  # the help of a room: COMMAND stands for one
    if name == "portable.measure":  # without Hydra, and with a reader of options of its own
        keys = [word.partition("=")[0] for word in words if "=" in word and not word.startswith("[")]
        return next((f"{name} has no option {key}" for key in keys if key not in measure.OPTIONS), "")
    if words and f"{name} {words[0]}" in described():
        name, words = f"{name} {words[0]}", words[1:]
    if name in rooms:
        return "" if (name, words[0]) in PLAIN else "no such command"
    if name not in described():
        return "no such command"
    about = command(name)
    options = {option.name for option in about.options}
    for word in words:
        key, equals, _ = word.strip("'").partition("=")
        key = key.lstrip("+")
        named = re.fullmatch(NAMED.get(name, ""), word)
        if not equals or key.startswith(("-", "[")) or key in options or named:
            continue
        if not (about.groups or name in GIVE_ON) or not (key in GROUPS or matching(key)):
            return f"{name} has no option {key}"
    return ""


def test_a_command_line_of_a_message_has_its_options() -> None:
    lines = sorted({(file, name, tuple(words)) for file, _, name, words in commands(PACKAGE)})
    faults = [f"{file}: {name}: {text}" for file, name, words in lines if (text := line_fault(name, words))]
    assert len(lines) > 40 and not faults, "\n".join(faults)


def test_a_wrong_command_line_is_found() -> None:
    assert line_fault("evaluat", ()) and line_fault("data", ("chek",))
    assert line_fault("predict", ("a.ckpt", "photos", "transform=none")) == "predict has no option transform"
    assert (
        line_fault("train", ("task=pose", "trainer.max_epoch=1")) == "train has no option trainer.max_epoch"
    )
    assert not line_fault("data", ("check", "data=camvid", "output=x"))
