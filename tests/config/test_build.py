"""Building from a config: names and types of options, and what is said without importing anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from dvsn.config import menu
from dvsn.config.build import build, inspect_tree, options_of
from dvsn.config.rules import validate
from dvsn.config.types import fits
from dvsn.errors import ConfigError, DataError

SOURCE = """
from __future__ import annotations
from collections.abc import Sequence
from typing import Literal
import torch
from torch import Tensor, nn
from dvsn.errors import DataError

Norm = Literal["batch", "none"]

class Net(nn.Module):
    def __init__(self, *, classes: int, width: int = 8, rate: float = 0.5, norm: Norm | None = "batch",
                 flag: bool = False, name: str = "x", steps: Sequence[int] = (1,),
                 size: tuple[int, int] = (1, 2),
                 table: dict[str, int] | None = None, inner: nn.Module | None = None, free=None) -> None:
        super().__init__()
        if width == 13:
            raise ValueError("width 13 is unlucky")
        if width == 14:
            raise DataError("a file is missing")
        self.values = {"steps": steps, "table": table, "inner": inner, "free": free, "rate": rate}

class Child(Net):
    pass

class More(Net):
    def __init__(self, *, depth: int, **options) -> None:
        super().__init__(**options)

class Open(nn.Module):
    def __init__(self, width: int = 1, **others: int) -> None:
        super().__init__()
        self.others = others
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package `my_nets` with networks, allowed and also readable as source."""
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").write_text("")
    (tmp_path / "my_nets" / "nets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DVSN_ALLOW", "my_nets")
    yield
    for name in ("my_nets", "my_nets.nets"):
        sys.modules.pop(name, None)


def net(kind: str = "Net", **options: Any) -> dict[str, Any]:
    return {"_target_": f"my_nets.nets.{kind}", "classes": 2, **options}


def test_conf_dir_exists() -> None:
    folder = Path(menu.conf_dir())
    assert folder.is_absolute() and folder.is_dir()


def test_plain_things_stay_plain() -> None:
    tree = {"a": [1, {"b": None}], "c": "text"}
    assert build(tree, path="network") == tree
    assert build(None, path="discriminator") is None
    built = build(net(steps=[1, 2], table={"a": 1}, free=[{"x": [3]}]), path="network")
    assert built.values["steps"] == [1, 2] and type(built.values["steps"]) is list
    assert built.values["table"] == {"a": 1} and built.values["free"] == [{"x": [3]}]


def test_nested_nodes_lists_and_extra_arguments() -> None:
    inner = net(width=3)
    built = build({"all": [net(inner=inner)]}, path="network")["all"][0]
    assert type(built.values["inner"]).__name__ == "Net"
    given = torch.nn.Identity()
    assert build(net(inner=inner), path="network", inner=given).values["inner"] is given
    with pytest.raises(ConfigError, match="_target_ is missing"):
        build({"a": 1}, path="network", inner=given)


def test_omegaconf_nodes_become_plain() -> None:
    from omegaconf import OmegaConf

    node = OmegaConf.create({"x": 4, "node": net(free=["${x}"])})
    assert build(node.node, path="network").values["free"] == [4]


def test_partial_may_lack_what_is_required() -> None:
    partial = build({"_target_": "my_nets.nets.Net", "_partial_": True, "rate": 1}, path="network")
    assert partial(classes=2).values["rate"] == 1
    with pytest.raises(ConfigError, match=r"network\.widht: unknown option of Net"):
        build({"_target_": "my_nets.nets.Net", "_partial_": True, "widht": 1}, path="network")


WRONG = {
    "typo": (
        net(widht=3),
        r"^network\.widht: unknown option of Net \(found 'widht'\)\. Did you mean 'width'\?",
    ),
    "missing": ({"_target_": "my_nets.nets.Net"}, r"^network\.classes: Net needs this option"),
    "text for int": (net(width="abc"), r"^network\.width: expected a whole number, found 'abc' \(text\)"),
    "float for int": (net(width=1.5), r"^network\.width: .*found 1\.5 \(a number\)"),
    "bool for int": (net(width=True), r"^network\.width: .*found true"),
    "null for int": (net(width=None), r"^network\.width: .*found null"),
    "int for bool": (net(flag=1), r"^network\.flag: expected true or false, found 1"),
    "int for text": (net(name=3), r"^network\.name: expected text"),
    "choice": (net(norm="bach"), r"^network\.norm: expected one of 'batch', 'none' or null, found 'bach'"),
    "text for a list": (net(steps="12"), r"^network\.steps: expected a list \(each a whole number\)"),
    "wrong element": (net(steps=[1, "a"]), r"^network\.steps: "),
    "wrong length": (net(size=[1, 2, 3]), r"^network\.size: expected a list of 2"),
    "wrong value of a dict": (net(table={"a": "b"}), r"^network\.table: "),
    "text for a module": (net(inner="resnet"), r"^network\.inner: "),
    "deep": ({"list": [net(inner=net(widht=3))]}, r"^network\.list\.0\.inner\.widht: unknown option"),
    "inherited": (net("Child", widht=3), r"^network\.widht: unknown option of Child"),
    "open": (net("Open", width="x"), r"^network\.width: expected a whole number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_when_building(case: str) -> None:
    node, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        build(node, path="network")


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_before_anything_is_built(case: str) -> None:
    """The same messages, from a walk over the whole tree that builds nothing."""
    node, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        inspect_tree({"network": node})


def test_checking_a_composed_config_imports_nothing_of_it() -> None:
    validate({"network": net(widht=3)})
    assert "my_nets.nets" not in sys.modules


GOOD = [
    net(),
    net(rate=1),
    net(norm=None),
    net(size=[3, 4], steps=[], table={}),
    net(inner=net()),
    net("Child"),
    net("Open", width=2, anything=3),
]


@pytest.mark.parametrize("node", GOOD)
def test_good_options(node: dict[str, Any]) -> None:
    validate({"network": node})
    inspect_tree({"network": node})
    build(node, path="network")


def test_the_walk_builds_nothing() -> None:
    inspect_tree({"network": net(width=13)})  # whose constructor raises


def test_errors_of_constructors_carry_the_path() -> None:
    with pytest.raises(
        ConfigError, match=r"^network\.a: Net does not take these options: width 13 is unlucky"
    ):
        build({"a": net(width=13)}, path="network")
    with pytest.raises(DataError, match=r"^a file is missing$"):
        build(net(width=14), path="network")


def test_options_that_go_on_to_the_base_are_read_too() -> None:
    inspect_tree({"network": net("More", depth=1, width=3)})
    for wrong, message in (
        ({"widht": 3}, "widht: unknown option of More"),
        ({"width": "x"}, "width: expected"),
    ):
        with pytest.raises(ConfigError, match=rf"^network\.{message}"):
            inspect_tree({"network": net("More", depth=1, **wrong)})
    with pytest.raises(ConfigError, match=r"^network\.depth: More needs this option"):
        inspect_tree({"network": net("More")})


def test_albumentations_typos_and_values_are_refused() -> None:
    good = {"_target_": "albumentations.HorizontalFlip", "p": 0.5}
    assert build([good], path="transform")[0].p == 0.5
    for wrong, where in (
        ({"prob": 1}, r"transform\.0\.prob"),
        ({"p": 2.0}, r"transform\.0"),
        ({"p": "a"}, r"transform\.0\.p"),
    ):
        with pytest.raises(ConfigError, match=where):
            build([good | wrong], path="transform")


def test_fits() -> None:
    cases: list[tuple[Any, Any, bool]] = [
        (1, int, True), (True, int, False), (1, float, True), (True, float, False), (1e400, float, True),
        (1, bool, False), ("a", str, True), (None, int | None, True), (None, int, False), ("1", int, False),
        (1, Literal[1, 2], True), (True, Literal[1, 2], False), (1.0, Literal[1], False),
        ([1], Sequence[int], True),
        ("ab", Sequence[str], False), ([1, 2], tuple[int, ...], True), ([1, "a"], tuple[int, str], True),
        ([1], list, True), ({}, dict[str, int], True), ([], dict, False), ("x", Path, True), (3, Path, False),
        ("relu", Callable, False), ("x", Any, True), ("x", torch.Tensor, False), ("cpu", torch.device, True),
        ({"_target_": "a.b"}, int, True), (torch.zeros(1), int, True),
    ]  # fmt: skip
    for value, hint, expected in cases:
        assert fits(value, hint) is expected, (value, hint)


def test_options_of_torch_optimizers() -> None:
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "betas": [0.5, 0.999]}
    inspect_tree({"optim": adam})
    for wrong, message in (
        ({"lr": "fast"}, r"^optim\.lr: expected a number, found 'fast'"),
        ({"betas": 3}, r"^optim\.betas: expected a list of 2"),
        ({"beta": 3}, r"^optim\.beta: unknown option of Adam .*Did you mean 'betas'\?"),
        (
            {"_target_": "torch.optim.Adamm"},
            r"^optim\._target_: there is no class Adamm in torch.optim\. Did you mean 'Adam'\?",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            inspect_tree({"optim": adam | wrong})


def test_missing_classes_and_modules_are_named() -> None:
    for target, message in (
        ("my_nets.net.Net", r"there is no module my_nets\.net\. Did you mean 'nets'\?"),
        ("my_nets.nets.Nett", r"there is no class Nett in my_nets\.nets\. Did you mean 'Net'\?"),
    ):
        with pytest.raises(ConfigError, match=rf"^network\._target_: {message}"):
            inspect_tree({"network": {"_target_": target}})


def test_a_hint_for_type_checkers_alone_is_not_judged(tmp_path: Path) -> None:
    lines = (
        SOURCE
        + "\nclass Odd(nn.Module):\n    def __init__(self, a: Missing = 1, b: int | Missing = 1, c: int = 1) -> None: ...\n"
    )
    (tmp_path / "my_nets" / "nets.py").write_text(lines)
    from my_nets.nets import Odd  # type: ignore[import-not-found]

    options = options_of(Odd)
    assert options is not None and {key: option.hint for key, option in options.named.items()} == {
        "a": Any, "b": int | Any, "c": int,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("accelerator", ["cpu", "auto"], ["gpuu", None]),
        ("precision", ["auto", 32, "32-true", "bf16-mixed"], ["bf17", 8]),
        ("devices", [1, "auto", [0, 1], "2", -1, "0,1"], [0, "two", [], 1.5, None]),
        ("max_epochs", [3, None, -1], ["x", 1.5, True]),
        ("limit_val_batches", [0, 0.5], ["a"]),
        ("deterministic", [True, "warn"], ["maybe"]),
        ("strategy", ["ddp", {"_target_": "pytorch_lightning.strategies.DDPStrategy"}], []),
    ],
)
def test_trainer_options(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        validate({"trainer": {key: value}})
    for value in bad:
        with pytest.raises(ConfigError, match=rf"^trainer\.{key}: expected"):
            validate({"trainer": {key: value}})


def test_unknown_keys_beside_the_defaults() -> None:
    defaults = {"seed": 0, "trainer": {"max_epochs": 1, "ours": 1}}
    validate({"seed": 1, "trainer": {"max_steps": 3, "ours": 2}}, defaults)
    with pytest.raises(ConfigError, match=r"^trainer\.max_epoch: .*Did you mean 'max_epochs'\?"):
        validate({"seed": 1, "trainer": {"max_epoch": 3}}, defaults)
    with pytest.raises(ConfigError, match=r"^sed: unknown key\. Did you mean 'seed'\?"):
        validate({"seed": 1, "sed": 2}, defaults)


def test_values_keep_the_kind_of_their_default() -> None:
    defaults = {
        "a": 1,
        "b": 0.5,
        "c": "x",
        "d": True,
        "e": None,
        "f": [1, 2],
        "g": ["x"],
        "h": "${a}",
        "i": "???",
    }
    goods: list[dict[str, Any]] = [
        {"a": 0.5}, {"b": 3}, {"a": None}, {"c": 12}, {"c": False}, {"d": False}, {"e": [1]}, {"f": 3},
        {"h": [1]}, {"i": {}}, {"g": []},
    ]  # fmt: skip
    for good in goods:
        validate(defaults | good, defaults)
    for bad in (
        {"a": "x"},
        {"a": True},
        {"b": "abc"},
        {"d": "maybe"},
        {"d": 1},
        {"f": "12"},
        {"g": "x"},
        {"c": [1]},
    ):
        with pytest.raises(ConfigError, match=rf"^{next(iter(bad))}: expected .* like the default"):
            validate(defaults | bad, defaults)


def test_importing_config_is_light() -> None:
    """A typo must be answered before torch is imported."""
    code = "import sys, dvsn.config.compose; print(sorted({'torch', 'hydra', 'numpy', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
