"""Hostile configs: each is refused, runs nothing, and imports nothing that is not allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dvsn.config import allow, build
from dvsn.errors import ConfigError

CANARY = "CANARY"  # stands for the path of a file that must never appear
SHELL = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w').close()"

# Each: the group, then the node. All of them would touch the canary, hand out a callable, or walk to one.
HOSTILE: dict[str, tuple[str, Any]] = {
    "os.system": ("network", {"_target_": "os.system", "command": SHELL}),
    "posix.system": ("network", {"_target_": "posix.system", "command": SHELL}),
    "subprocess.run": ("loss", {"_target_": "subprocess.run", "args": SHELL, "shell": True}),
    "subprocess.Popen": ("data", {"_target_": "subprocess.Popen", "args": SHELL, "shell": True}),
    "eval": ("network", {"_target_": "builtins.eval", "source": PYTHON}),
    "exec": ("network", {"_target_": "builtins.exec", "source": PYTHON}),
    "open": ("callbacks", {"file": {"_target_": "builtins.open", "file": CANARY, "mode": "w"}}),
    "pathlib": ("data", {"_target_": "pathlib.Path.touch", "self": CANARY}),
    "pickle.loads": ("data", {"_target_": "pickle.loads", "data": "cos\nsystem\n(S'x'\ntR."}),
    "torch.load": ("network", {"_target_": "torch.load", "f": "x.pt", "weights_only": False}),
    "numpy.load": ("data", {"_target_": "numpy.load", "file": "x.npy", "allow_pickle": True}),
    "collect_env": ("network", {"_target_": "torch.utils.collect_env.run", "command": SHELL}),
    "hub": (
        "network",
        {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "m", "trust_repo": True},
    ),
    "run_script": ("task", {"_target_": "torch.distributed.run.run_script_path", "training_script": "x.py"}),
    "import_module": ("network", {"_target_": "importlib.import_module", "name": "canary_package.module"}),
    "runpy": ("task", {"_target_": "runpy.run_path", "path_name": "x.py"}),
    "shutil": ("data", {"_target_": "shutil.copy", "src": "/etc/hostname", "dst": CANARY}),
    "f2py": ("loss", {"_target_": "numpy.f2py.crackfortran.myeval", "e": PYTHON}),
    "side effect": ("network", {"_target_": "canary_package.module.Innocent"}),
    "side effect in a group of classes": ("optim", {"_target_": "canary_package.module.Innocent"}),
    "prefix that only begins alike": ("network", {"_target_": "dvsn_networks.Innocent"}),
    "module beside the allowed one": ("network", {"_target_": "dvsn.networksx.Innocent"}),
    "our own loader": ("network", {"_target_": "dvsn.config.build", "node": {}}),
    "re-exported module": ("network", {"_target_": "dvsn.config.importlib"}),
    "function of an allowed package": (
        "schedule",
        {"_target_": "torch.optim.lr_scheduler.wraps", "wrapped": "x"},
    ),
    "module of an allowed package": ("optim", {"_target_": "torch.optim.optimizer.functools"}),
    "class re-exported by an allowed package": ("optim", {"_target_": "torch.optim.optimizer.OrderedDict"}),
    "re-exported partial": ("optim", {"_target_": "torch.optim.lr_scheduler.partial", "func": "x"}),
    "through a re-exported module": ("optim", {"_target_": "torch.optim.optimizer.functools.partial"}),
    "wrong base class": ("optim", {"_target_": "torch.optim.swa_utils.AveragedModel", "model": "x"}),
    "a base class of another group": ("schedule", {"_target_": "torch.optim.Adam", "params": []}),
    "method of an allowed class": (
        "optim",
        {"_target_": "torch.optim.Adam.load_state_dict", "state_dict": {}},
    ),
    "globals": ("network", {"_target_": "dvsn.networks.unet.UNet.__init__.__globals__"}),
    "dunder class": ("network", {"_target_": "dvsn.networks.__class__"}),
    "dunder module": ("network", {"_target_": "dvsn.networks.unet.__builtins__.eval", "source": PYTHON}),
    "no dot": ("network", {"_target_": "eval", "source": PYTHON}),
    "empty": ("network", {"_target_": ""}),
    "only dots": ("network", {"_target_": "dvsn.networks..unet.UNet"}),
    "leading dot": ("network", {"_target_": ".dvsn.networks.unet.UNet"}),
    "newline": ("network", {"_target_": "dvsn.networks.unet.UNet\n"}),
    "spaces": ("network", {"_target_": " os.system", "command": SHELL}),
    "letters that look alike": ("network", {"_target_": "dvsn.nеtworks.unet.UNet"}),  # a Cyrillic e
    "full-width letters": ("network", {"_target_": "ｏｓ.system", "command": SHELL}),
    "list as target": ("network", {"_target_": ["os", "system"]}),
    "dict as target": ("network", {"_target_": {"_target_": "os.system", "command": SHELL}}),
    "number as target": ("network", {"_target_": 7}),
    "null as target": ("network", {"_target_": None}),
    "a class as target": ("network", {"_target_": Path}),
    "an object in the tree": ("network", {"_target_": "dvsn.networks.unet.UNet", "width": Path}),
    "partial": ("optim", {"_target_": "os.system", "_partial_": True, "command": SHELL}),
    "partial that is a target": (
        "optim",
        {"_target_": "torch.optim.Adam", "_partial_": {"_target_": "os.system"}},
    ),
    "partial alone": ("optim", {"_partial_": True}),
    "_args_": ("optim", {"_target_": "torch.optim.Adam", "_args_": [[]]}),
    "_convert_": ("optim", {"_target_": "torch.optim.Adam", "_convert_": "all"}),
    "_recursive_": ("optim", {"_target_": "torch.optim.Adam", "_recursive_": False}),
    "_method_": ("optim", {"_target_": "torch.optim.Adam", "_method_": "step"}),
    "_call_": ("network", {"_call_": "os.system"}),
    "deep in lists": ("transform", {"train": [[{"a": [{"_target_": "os.system", "command": SHELL}]}]]}),
    "inside an allowed node": (
        "optim",
        {"_target_": "torch.optim.Adam", "lr": {"_target_": "os.system", "command": SHELL}},
    ),
    "inside a group of its own": ("network", {"optim": {"_target_": "os.system", "command": SHELL}}),
    "outside of every group": ("name", {"_target_": "dvsn.networks.unet.UNet"}),
    "another group's class": ("optim", {"_target_": "dvsn.networks.unet.UNet"}),
    "interpolation left over": ("network", {"_target_": "${oc.env:EVIL}"}),
    "class that is not there": ("optim", {"_target_": "torch.optim.Nothing"}),
    "module that is not there": ("optim", {"_target_": "torch.optim.nothing.Nothing"}),
}
FORBIDDEN = (
    "canary_package",
    "subprocess.",
    "torch.utils.collect_env",
    "numpy.f2py",
    "torch.distributed.run",
)


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that touches the canary when it is imported; afterwards neither has happened."""
    path = tmp_path / "canary"
    package = tmp_path / "canary_package"
    package.mkdir()
    touch = f"from pathlib import Path\nPath({str(path)!r}).touch()\nclass Innocent: pass\n"
    (package / "__init__.py").write_text(touch)
    (package / "module.py").write_text(touch)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DVSN_ALLOW", raising=False)
    before = set(sys.modules)
    yield path
    imported = {name for name in set(sys.modules) - before if name.startswith(FORBIDDEN)}
    for name in [name for name in sys.modules if name.startswith("canary_package")]:
        del sys.modules[name]
    assert not path.exists(), "the canary was touched"
    assert not imported


def planted(node: Any, canary: Path) -> Any:
    if isinstance(node, dict):
        return {key: planted(value, canary) for key, value in node.items()}
    if isinstance(node, list):
        return [planted(value, canary) for value in node]
    return node.replace(CANARY, str(canary)) if isinstance(node, str) else node


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_config_is_refused(name: str, canary: Path) -> None:
    group, node = HOSTILE[name]
    with pytest.raises(ConfigError, match=group):
        build.build(planted(node, canary), path=group)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_config_is_refused_as_a_recipe(name: str, canary: Path) -> None:
    """As it would stand in a checkpoint: below a task."""
    group, node = HOSTILE[name]
    recipe = {"_target_": "dvsn.tasks.pix2pix.Pix2Pix", group: planted(node, canary)}
    with pytest.raises(ConfigError):
        allow.check({"task": recipe})
        build.build(recipe[group], path=f"task.{group}")


def test_the_whole_tree_is_checked_before_the_first_import(canary: Path) -> None:
    """A good node that comes first is neither built nor imported when a later one is bad."""
    good = {"_target_": "canary_package.module.Innocent"}
    tree = {"first": good, "second": {"_target_": "os.system", "command": f"touch {canary}"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVSN_ALLOW", "canary_package")
        with pytest.raises(ConfigError, match=r"network\.second\._target_"):
            build.build(tree, path="network")


def test_an_allowed_package_still_needs_the_base_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self, *, width: int = 1):\n"
        "        super().__init__()\n        self.width = width\nclass Other: pass\n"
    )
    with pytest.raises(ConfigError, match="not allowed here"):
        build.build({"_target_": "my_package.Net"}, path="network")
    assert "my_package" not in sys.modules
    monkeypatch.setenv("DVSN_ALLOW", "my_package")
    assert build.build({"_target_": "my_package.Net", "width": 3}, path="network").width == 3
    with pytest.raises(ConfigError, match="not a subclass of"):
        build.build({"_target_": "my_package.Other"}, path="network")
    (tmp_path / "my_other.py").write_text("from torch.nn import Linear\n")
    monkeypatch.setenv("DVSN_ALLOW", "my_other")
    with pytest.raises(ConfigError, match="really torch"):
        build.build({"_target_": "my_other.Linear", "in_features": 1, "out_features": 1}, path="network")


def test_nothing_in_a_config_widens_the_list() -> None:
    tree = {"DVSN_ALLOW": "os", "allow": ["os"], "network": {"_target_": "os.system", "allow": "os"}}
    with pytest.raises(ConfigError, match=r"network\._target_"):
        allow.check(tree)


@pytest.mark.parametrize("names", ["os;system", "../x", "a b", "a..b", "*"])
def test_bad_names_of_packages(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSN_ALLOW", names)
    with pytest.raises(ConfigError, match="DVSN_ALLOW"):
        allow.check({})


def test_bombs_are_refused() -> None:
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(ConfigError, match="nested deeper"):
        allow.check({"a": nested})
    shared: Any = [0] * 10
    for _ in range(9):
        shared = [shared] * 10  # 10^10 values when walked
    with pytest.raises(ConfigError, match="values in all"):
        allow.check({"a": shared})
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ConfigError, match="nested deeper"):
        allow.check({"a": cycle})
    with pytest.raises(ConfigError, match="characters"):
        allow.check({"a": "x" * 100_000})
    with pytest.raises(ConfigError, match="key of type"):
        allow.check({(1, 2): 3})


def test_good_nodes_are_built() -> None:
    """The list refuses what is bad, not everything."""
    import functools

    import torch

    node = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1, "betas": [0.5, 0.9]}
    for group in ("optim", "optim_discriminator"):
        built = build.build(node, path=f"task.{group}")
        assert isinstance(built, functools.partial)
        assert built.func is torch.optim.Adam and built.keywords == {"lr": 0.1, "betas": [0.5, 0.9]}
