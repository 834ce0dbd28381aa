"""Hostile configs of Hydra's own node: nothing is run, nothing is written elsewhere, and the answer is one message."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from hydra.conf import HydraConf
from omegaconf import OmegaConf, open_dict

from dvsn import command_line
from dvsn.config import compose, hydra_node, menu, outputs, rules
from dvsn.data.street_module import StreetModule
from dvsn.errors import ConfigError
from dvsn.sweep import launcher
from tests.support.tiny_command import environment, write_tree

OUTSIDE = "OUTSIDE"  # stands for a folder beside the working directory
SHELL = f"touch {OUTSIDE}/canary"
EVIL = {"_target_": "os.system", "command": SHELL}


# The keys of Hydra's node ---------------------------------------------------------------------------------


def keys(kind: Any = HydraConf, path: str = "hydra") -> Iterator[tuple[str, Any]]:
    """Each key of Hydra's schema with its type: a key that a new version brings is tested by being there."""
    for name, hint in get_type_hints(kind).items():
        yield f"{path}.{name}", hint
        if dataclasses.is_dataclass(hint):
            yield from keys(hint, f"{path}.{name}")


KEYS = dict(keys())


def typical(key: str, hint: Any) -> Any:
    """A value of the right type that does harm, or at least is none of a config's business."""
    special: dict[str, Any] = {
        "hydra.mode": "MULTIRUN",
        "hydra.searchpath": ["pkg://canary_package"],
        "hydra.sweep.subdir": "../../outside",
        "hydra.job.name": "../../outside/name",
        "hydra.verbose": {"a": "b"},
        "hydra.job.env_copy": ["HOME"],
    }
    if key in special:
        return special[key]
    kinds = (hint, get_origin(hint), *get_args(hint))
    if bool in kinds:
        return True
    if int in kinds:
        return 7
    if list in kinds:
        return [f"{OUTSIDE}/x"]
    if dict in kinds:
        return {"evil": {"()": "os.system", "command": SHELL}} if Any in get_args(hint) else {"PATH": OUTSIDE}
    return f"{OUTSIDE}/x" if str in kinds else EVIL


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def spelt(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{spelt(k)}:{spelt(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelt, value)) + "]"
    return str(value).lower() if isinstance(value, bool | int) else '"' + str(value) + '"'


# The watch ------------------------------------------------------------------------------------------------

_seen: list[str] = []
_watching: list[Path] = []  # the folder in which may be written
STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.startfile",
    "os.putenv",
)
WRITES = (
    "os.mkdir",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in STARTS or (event == "import" and str(arguments[0]).startswith("canary")):
        _seen.append(f"{event} {arguments}")
    writes = event in WRITES
    if event == "open" and isinstance(arguments[2], int):
        writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if writes and isinstance(arguments[0], str | bytes | os.PathLike):
        place = os.path.realpath(os.fsdecode(arguments[0]))
        if place != os.devnull and not Path(place).is_relative_to(_watching[0]):
            _seen.append(f"{event} {place}")


sys.addaudithook(_audit)
Attack = Callable[..., str]


@pytest.fixture
def attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Attack]:
    """Runs the command with arguments; gives its message when it ended as it should, else fails."""
    root, outside = tmp_path / "work", tmp_path / "outside"
    launcher.register()
    write_tree(root)
    outside.mkdir()
    for package in (root / "canary_package", root / "canary_module"):
        package.mkdir()
        (package / "__init__.py").write_text(f"open({str(outside / 'canary')!r}, 'w').close()\n")
    (root / "link").symlink_to(outside)
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVSN_ALLOW", "")
    monkeypatch.delenv("DVSN_DATA", raising=False)
    variables = {**os.environ, "PYTEST_CURRENT_TEST": ""}

    def call(*arguments: str) -> str:
        given = [each.replace(OUTSIDE, str(outside)) for each in [*arguments, "root=x"]]
        ran: list[Any] = []
        _watching.append(root)
        try:
            with pytest.raises(SystemExit) as stop:
                command_line.run(
                    lambda: compose.hydra_main("tiny", ran.append, argv=given, keeps=True), debug=False
                )
        finally:
            _watching.clear()
        message = capsys.readouterr().err
        assert (stop.value.code, ran) == (2, []), message
        assert message.startswith("error: ") and message.count("\n") == 1, message
        assert "internal error" not in message
        return message

    yield call
    seen, _seen[:] = list(_seen), []
    assert seen == []
    assert list(outside.iterdir()) == [], "something was written outside"
    assert not (root / "runs").exists() and not (root / "sweeps").exists(), "a folder was left behind"
    assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == variables


def write_option(folder: Path, text: str, *, name: str = "experiment/attack.yaml") -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace(OUTSIDE, str(folder.parent.parent / "outside")))


def ways(tree: dict[str, Any], folder: Path) -> Iterator[list[str]]:
    """The arguments that bring a tree in as an option of --config-dir, of hydra.searchpath, or as a config of its own."""
    text = yaml.safe_dump(tree, sort_keys=False)
    write_option(folder, f"# @package _global_\n{text}")
    write_option(folder, f"defaults: [tiny, _self_]\n{text}", name="whole.yaml")
    yield [f"--config-dir={folder}", "experiment=attack"]
    yield [f"hydra.searchpath=[file://{folder}]", "experiment=attack"]
    yield [f"--config-dir={folder}", "--config-name=whole"]


# Every key, by every way ------------------------------------------------------------------------------------


def trees(key: str) -> list[dict[str, Any]]:
    """A class to build and a value of the key's own type, as they are and behind an interpolation."""
    values = (EVIL, typical(key, KEYS[key]))
    plain = [nested(key, value) for value in values]
    return [*plain, *({**nested(key, "${unseen}"), "unseen": value} for value in values)]


@pytest.mark.parametrize("key", KEYS)
def test_a_file_cannot_set(key: str, attack: Attack, tmp_path: Path) -> None:
    """One value as it is and the other behind an interpolation, in turns from key to key."""
    number = list(KEYS).index(key)
    for tree in (trees(key)[number % 2], trees(key)[3 - number % 2]):
        attack(*list(ways(tree, tmp_path / "work" / "mine"))[number % 3])


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_no_file_can_set(key: str, attack: Attack, tmp_path: Path) -> None:
    for tree in trees(key):
        for arguments in ways(tree, tmp_path / "work" / "mine"):
            attack(*arguments)


def overrides(key: str) -> list[str]:
    folder = key in ("hydra.run.dir", "hydra.sweep.dir")  # the command line may say where
    values = (EVIL, *([] if folder else [typical(key, KEYS[key])]))
    return [f"{plus}{key}={spelt(value)}" for value in values for plus in ("", "++")]


@pytest.mark.parametrize("key", KEYS)
def test_the_command_line_cannot_set(key: str, attack: Attack) -> None:
    """One value with ++ and the other without it, in turns from key to key."""
    turn = list(KEYS).index(key) % 2
    for number, override in enumerate(overrides(key)):
        if number in (turn, 3 - turn):
            attack(override)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_no_command_line_can_set(key: str, attack: Attack) -> None:
    for override in overrides(key):
        attack(override)


def test_there_are_enough() -> None:
    assert len(KEYS) >= 40 and len(KEYS) * 2 + len(SPECIAL) + len(LINES) >= 120


# Further ones ---------------------------------------------------------------------------------------------

HANDLER = {"()": "os.system", "command": SHELL}
SPECIAL: dict[str, dict[str, Any]] = {
    "the node itself": {"hydra": "${evil}", "evil": {"callbacks": {"a": EVIL}}},
    "the node as a list": {"hydra": [EVIL]},
    "the node as nothing": {"hydra": None},
    "handlers behind a name": {"hydra": {"hydra_logging": {"handlers": "${evil}"}}, "evil": {"a": HANDLER}},
    "handlers of jobs behind a name": {"hydra": {"job_logging": {"handlers": "${evil}"}}, "evil": {"a": HANDLER}},
    "one handler behind a name": {"hydra": {"job_logging": {"handlers": {"a": "${evil}"}}}, "evil": HANDLER},
    "a factory behind two names": {
        "hydra": {"job_logging": {"handlers": {"a": {"()": "${evil}"}}}}, "evil": "${worse}", "worse": "os.system",
    },
    "a queue": {"hydra": {"job_logging": {"handlers": {"a": {
        "class": "logging.handlers.QueueHandler", "queue": HANDLER}}}}},
    "a listener": {"hydra": {"job_logging": {"handlers": {"a": {
        "class": "logging.handlers.QueueHandler", "listener": "os.system", "handlers": ["console"]}}}}},
    "a stream": {"hydra": {"job_logging": {"handlers": {"console": {"stream": "ext://os.system"}}}}},
    "a stream of a module": {"hydra": {"job_logging": {"handlers": {"console": {"stream": "ext://canary_module"}}}}},
    "a file elsewhere": {"hydra": {"job_logging": {"handlers": {"file": {"filename": f"{OUTSIDE}/log"}}}}},
    "a file through a link": {"hydra": {"job_logging": {"handlers": {"file": {"filename": "link/log"}}}}},
    "a socket": {"hydra": {"job_logging": {"handlers": {"a": {
        "class": "logging.handlers.SocketHandler", "host": "localhost", "port": 9}}}}},
    "mail": {"hydra": {"job_logging": {"handlers": {"a": {
        "class": "logging.handlers.SMTPHandler", "mailhost": "localhost"}}}}},
    "a formatter": {"hydra": {"job_logging": {"formatters": {"simple": {"()": "os.system"}}}}},
    "a filter": {"hydra": {"job_logging": {"filters": {"a": {"()": "canary_module.x"}}}}},
    "no handlers": {"hydra": {"job_logging": {"root": {"handlers": []}}}},
    "PATH": {"hydra": {"job": {"env_set": {"PATH": OUTSIDE}}}},
    "git's variables": {"hydra": {"job": {"env_set": {"GIT_DIR": OUTSIDE, "GIT_EXTERNAL_DIFF": SHELL}}}},
    "the allow-list": {"hydra": {"job": {"env_set": {"DVSN_ALLOW": "os"}}}},
    "a preloaded library": {"hydra": {"job": {"env_set": {"LD_PRELOAD": f"{OUTSIDE}/x.so"}}}},
    "variables behind a name": {"hydra": {"job": {"env_set": "${evil}"}}, "evil": {"DVSN_ALLOW": "os"}},
    "a copied variable": {"hydra": {"job": {"env_copy": ["PATH"]}}},
    "callbacks behind a name": {"hydra": {"callbacks": "${evil}"}, "evil": {"a": EVIL}},
    "a package as source": {"hydra": {"searchpath": ["pkg://canary_package"]}},
    "a module as source": {"hydra": {"searchpath": ["structured://canary_module"]}},
    "a folder as source": {"hydra": {"searchpath": [f"file://{OUTSIDE}"]}},
    "a launcher of a module": {"hydra": {"launcher": {"_target_": "canary_package.Launcher"}}},
    "a launcher that only begins as Hydra's": {
        "hydra": {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.run_job"}}},
    "a launcher of ours": {"hydra": {"launcher": {"_target_": "hydra_plugins.dvsn.SubmititSlurmLauncher"}}},
    "a launcher that pickles": {"hydra": {"launcher": {
        "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", "setup": [SHELL]}}},
    "an option of the launcher": {"hydra": {"launcher": {"setup": [SHELL]}}},
    "a sweeper that is a function": {
        "hydra": {"sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.log.handlers"}}},
    "a sweeper behind a name": {"hydra": {"sweeper": "${evil}"}, "evil": EVIL},
    "a sampler": {"hydra": {"sweeper": {"sampler": EVIL}}},
    "a sampler's neighbour": {"hydra": {"sweeper": {"sampler": {"_target_": "optuna.samplers.os.system"}}}},
    "a module of Hydra": {"hydra": {"sweeper": {"sampler": {
        "_target_": "hydra._internal.core_plugins.file_config_source.os.system", "command": SHELL}}}},
    "a function as space": {"hydra": {"sweeper": {"custom_search_space": "canary_module.x"}}},
    "swept variables": {"hydra": {"sweeper": {"params": {"hydra.job.env_set.PATH": "a,b"}}}},
    "swept callbacks": {"hydra": {"sweeper": {"params": {"+hydra.callbacks.a._target_": "os.system"}}}},
    "swept flags": {"hydra": {"sweeper": {"params": {"--allow": "canary_package"}}}},
    "swept names behind a name": {"hydra": {"sweeper": {"params": "${evil}"}}, "evil": {"hydra.run.dir": OUTSIDE}},
    "a run above": {"hydra": {"run": {"dir": "../outside/x"}}},
    "a run elsewhere": {"hydra": {"run": {"dir": f"{OUTSIDE}/x"}}},
    "a run through a link": {"hydra": {"run": {"dir": "link/x"}}},
    "a run through a link and back": {"hydra": {"run": {"dir": "runs/../link/x"}}},
    "a run behind a name": {"hydra": {"run": {"dir": "${evil}"}}, "evil": f"{OUTSIDE}/x"},
    "a run of a name": {"name": "../../outside/x"},
    "a run at home": {"hydra": {"run": {"dir": "${oc.env:HOME}/x"}}},
    "a run that is a list": {"hydra": {"run": {"dir": [OUTSIDE]}}},
    "a run without a name": {"hydra": {"run": {"dir": ""}}},
    "a sweep elsewhere": {"hydra": {"sweep": {"dir": f"{OUTSIDE}/x"}}},
    "jobs elsewhere": {"hydra": {"sweep": {"subdir": "../../../outside"}}},
    "jobs of a name": {"hydra": {"sweep": {"subdir": "${evil}"}}, "evil": "../../../outside"},
    "a copy of the config elsewhere": {"hydra": {"output_subdir": "../../outside"}},
    "another working directory": {"hydra": {"job": {"chdir": True}}},
    "another record": {"run_dir": f"{OUTSIDE}/x"},
    "a name that is a path": {"hydra": {"job": {"name": "../../outside/x"}}},
    "a shadowed output": {"hydra": {"runtime": {"output_dir": OUTSIDE}}},
    "an interpolation as a key": {"hydra": {"${evil}": EVIL}, "evil": "callbacks"},
    "a key with dots": {"hydra": {"job.env_set": {"PATH": OUTSIDE}}},
    "an alias of overrides": {"hydra": {"aliases": {"seed": "hydra.run.dir"}}},
    "a class outside of the groups": {"evil": EVIL},
    "a class behind a name": {"network": "${evil}", "evil": EVIL},
    "a class's name behind a name": {"network": {"_target_": "${evil}"}, "evil": "os.system"},
    "a class made of a variable": {"network": {"_target_": "${oc.decode:'os.system'}"}},
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_a_hostile_tree(name: str, attack: Attack, tmp_path: Path) -> None:
    """By one of the ways each; `make test-slow` takes every way."""
    attack(*list(ways(SPECIAL[name], tmp_path / "work" / "mine"))[list(SPECIAL).index(name) % 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECIAL)
def test_a_hostile_tree_by_every_way(name: str, attack: Attack, tmp_path: Path) -> None:
    for arguments in ways(SPECIAL[name], tmp_path / "work" / "mine"):
        attack(*arguments)


FILES = {
    "a launcher of ours": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/launcher: submitit_slurm}]\n"),
    "a package of the node": ("experiment/attack.yaml", "# @package hydra.job\nenv_set: {PATH: x}\n"),
    "a package of the whole node": ("experiment/attack.yaml", "# @package hydra\ncallbacks: {a: {_target_: os.system}}\n"),
    "a group put into the node": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{/evil@hydra.callbacks.a: x}]\n"),
    "a group put under a name in the node": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{/evil@_global_.hydra.job_logging.handlers.a: x}]\n"),
    "a launcher of its own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/launcher: evil}]\n"),
    "a sweeper of its own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/sweeper: evil}]\n"),
    "callbacks of its own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/callbacks: evil}]\n"),
    "logging of its own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/job_logging: evil}]\n"),
    "an environment of its own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/env: evil}]\n"),
    "logging of Hydra's own": (
        "experiment/attack.yaml", "# @package _global_\ndefaults: [{override /hydra/job_logging: stdout}]\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_place_for_a_tree(name: str, attack: Attack, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "mine"
    for group in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging", "env"):
        text = yaml.safe_dump({"a": EVIL} if group == "callbacks" else {**EVIL, "handlers": {"a": HANDLER}})
        write_option(folder, text, name=f"hydra/{group}/evil.yaml")
    write_option(folder, yaml.safe_dump(HANDLER | EVIL), name="evil/x.yaml")
    write_option(folder, FILES[name][1], name=FILES[name][0])
    attack(f"--config-dir={folder}", "experiment=attack")
    attack(f"hydra.searchpath=[file://{folder}]", "experiment=attack")


LINES = {
    "a package": ["hydra.searchpath=[pkg://canary_package]"],
    "a package behind a folder": ["hydra.searchpath=[file:///tmp,pkg://canary_package]"],
    "a module": ["hydra.searchpath=[structured://canary_module]"],
    "a module's package": ["hydra.searchpath=[pkg://canary_package.conf]"],
    "another scheme": ["hydra.searchpath=[https://example.com/conf]"],
    "the node": ["hydra={callbacks:{a:{_target_:os.system}}}"],
    "the forced node": ["++hydra={callbacks:{a:{_target_:os.system}}}"],
    "a group in the node": ["+network@hydra.callbacks.a=unet"],
    "a group in the node, from the root": ["+network@_global_.hydra.callbacks.a=unet"],
    "a deletion": ["~hydra.job_logging"],
    "a deleted group": ["~hydra/job_logging"],
    "another logging": ["hydra/job_logging=disabled"],
    "another environment": ["hydra/env=default"],
    "a launcher that is none": ["hydra/launcher=nope"],
    "a class of the launcher": ["hydra.launcher._target_=os.system"],
    "a class in the launcher": ["+hydra.launcher.a._target_=os.system"],
    "a class of the sweeper": ["hydra.sweeper._target_=os.system"],
    "a class in the sweeper": ["+hydra.sweeper.a={_target_:os.system}"],
    "a function of the sweeper": ["+hydra.sweeper.custom_search_space=canary_module.x"],
    "a run of a name from a file": ["hydra.run.dir=runs/${name}", "name=../../outside"],
    "a run of a name": ["hydra.run.dir=${name}", "name=../outside"],
    "a sweep of a name": ["hydra.sweep.dir=${name}", "name=../outside"],
    "jobs elsewhere": ["hydra.sweep.subdir=../../x"],
    "a name with a folder": ["hydra.job.name=../x"],
    "commands before a job of SLURM": ["hydra/launcher=submitit_slurm", f"+hydra.launcher.setup=['{SHELL}']"],
    "another Python for a job": ["hydra/launcher=submitit_local", f"+hydra.launcher.python='{SHELL}'"],
    "arguments of srun": ["hydra/launcher=submitit_slurm", "+hydra.launcher.srun_args=[--task-prolog=x]"],
    "more options of sbatch": [
        "hydra/launcher=submitit_slurm",
        "+hydra.launcher.additional_parameters={wrap:id}",
    ],
    "one stream for both": ["hydra/launcher=submitit_slurm", "+hydra.launcher.stderr_to_stdout=true"],
    "a folder of submitit elsewhere": [
        "hydra/launcher=submitit_local",
        f"+hydra.launcher.submitit_folder={OUTSIDE}/x",
    ],
    "a line in the script": ["hydra/launcher=submitit_slurm", f'hydra.launcher.partition="gpu\n{SHELL}"'],
    "a command in a name": ["hydra/launcher=submitit_slurm", f'hydra.launcher.name="$({SHELL})"'],
    "an environment of Ray": ["hydra/launcher=ray", "+hydra.launcher.runtime_env={py_executable:sh}"],
    "a command as an address": ["hydra/launcher=ray", f'hydra.launcher.address="{SHELL}"'],
    "a class of a launcher of ours": [
        "hydra/launcher=ray",
        "hydra.launcher._target_=hydra_plugins.dvsn.call",
    ],
    "brackets": ["hydra[job][env_set]={PATH:x}"],
    "an alias": ["++hydra.aliases={a:b}"],
}


@pytest.mark.parametrize("name", LINES)
def test_a_hostile_line(name: str, attack: Attack) -> None:
    attack(*LINES[name])


# Where loggers, callbacks and data sets write ----------------------------------------------------------------

CSV = "pytorch_lightning.loggers.CSVLogger"
BOARD = "pytorch_lightning.loggers.TensorBoardLogger"
SAVER = "pytorch_lightning.callbacks.ModelCheckpoint"
PLACES: dict[str, dict[str, Any]] = {
    "a table": {"logger": {"csv": {"_target_": "dvsn.engine.loggers.CsvLogger", "folder": OUTSIDE}}},
    "a table above": {"logger": {"csv": {"_target_": "dvsn.engine.loggers.CsvLogger", "folder": "../outside"}}},
    "a table through a link": {"logger": {"csv": {"_target_": "dvsn.engine.loggers.CsvLogger", "folder": "link"}}},
    "a table below a link": {"logger": {"csv": {"_target_": "dvsn.engine.loggers.CsvLogger", "folder": "link/x"}}},
    "a place behind a name": {"logger": {"a": {"_target_": CSV, "save_dir": "${evil}"}}, "evil": OUTSIDE},
    "Lightning's table": {"logger": {"a": {"_target_": CSV, "save_dir": OUTSIDE}}},
    "its name": {"logger": {"a": {"_target_": CSV, "save_dir": ".", "name": "../outside"}}},
    "its name alone": {"logger": {"a": {"_target_": CSV, "save_dir": ".", "name": ".."}}},
    "its version": {"logger": {"a": {"_target_": CSV, "save_dir": "runs", "name": "x", "version": "../../../outside"}}},
    "two that join": {"logger": {"a": {"_target_": CSV, "save_dir": "mine", "name": "hidden/x"}}},
    "TensorBoard": {"logger": {"a": {"_target_": BOARD, "save_dir": OUTSIDE}}},
    "TensorBoard at home": {"logger": {"a": {"_target_": BOARD, "save_dir": "~/x"}}},
    "TensorBoard by a variable": {"logger": {"a": {"_target_": BOARD, "save_dir": "$HOME/x"}}},
    "TensorBoard below": {"logger": {"a": {"_target_": BOARD, "save_dir": ".", "sub_dir": f"{OUTSIDE}/x"}}},
    "a remote disk": {"logger": {"a": {"_target_": BOARD, "save_dir": "s3://bucket/x"}}},
    "a file's address": {"logger": {"a": {"_target_": BOARD, "save_dir": f"file://{OUTSIDE}"}}},
    "a chain of addresses": {"logger": {"a": {"_target_": BOARD, "save_dir": f"simplecache::file://{OUTSIDE}"}}},
    "a local address": {"logger": {"a": {"_target_": BOARD, "save_dir": f"local:{OUTSIDE}"}}},
    "W&B": {"logger": {"a": {"_target_": "pytorch_lightning.loggers.WandbLogger", "save_dir": OUTSIDE}}},
    "W&B's own option": {"logger": {"a": {"_target_": "pytorch_lightning.loggers.WandbLogger", "dir": OUTSIDE}}},
    "W&B's settings": {"logger": {"a": {
        "_target_": "pytorch_lightning.loggers.WandbLogger", "settings": {"root_dir": [OUTSIDE]}}}},
    "MLflow's tracks": {"logger": {"a": {
        "_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": f"file:{OUTSIDE}"}}},
    "MLflow's database": {"logger": {"a": {
        "_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": f"sqlite:///{OUTSIDE}/x"}}},
    "MLflow's folder": {"logger": {"a": {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "save_dir": OUTSIDE}}},
    "pictures": {"callbacks": {"p": {"_target_": "dvsn.engine.callbacks.PictureGrid", "folder": OUTSIDE}}},
    "pictures through a link": {"callbacks": {"p": {"_target_": "dvsn.engine.callbacks.PictureGrid", "folder": "link"}}},
    "checkpoints": {"callbacks": {"c": {"_target_": SAVER, "dirpath": OUTSIDE}}},
    "a checkpoint's name": {"callbacks": {"c": {"_target_": SAVER, "dirpath": ".", "filename": "../outside/x"}}},
    "a checkpoint's name in full": {"callbacks": {"c": {"_target_": SAVER, "filename": f"{OUTSIDE}/x"}}},
    "a checkpoint of an error": {"callbacks": {"c": {
        "_target_": "pytorch_lightning.callbacks.OnExceptionCheckpoint", "dirpath": OUTSIDE}}},
    "batches that are left out": {"callbacks": {"c": {
        "_target_": "pytorch_lightning.callbacks.SpikeDetection", "exclude_batches_path": f"{OUTSIDE}/x.json"}}},
    "a teacher's answers": {"distillation": {"cache": OUTSIDE}},
    "what evaluate writes": {"output": OUTSIDE},
    "a data set that is drawn": {"data": {"_target_": "dvsn.data.street_module.StreetModule", "root": OUTSIDE}},
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_place_elsewhere(
    name: str, attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line may name the same place."""
    monkeypatch.setattr(compose, "inspect_tree", lambda *_, **__: None)  # packages that may be missing
    (tmp_path / "work" / "mine").mkdir()
    (tmp_path / "work" / "mine" / "hidden").symlink_to(tmp_path / "outside")
    (arguments, *_) = ways(PLACES[name], tmp_path / "work" / "mine")
    message = attack(*arguments)
    assert "outside of the working directory" in message or "leads out of the folder" in message
    monkeypatch.setattr(outputs, "class_of", lambda node, _: StreetModule if node else None)
    with compose.opened(
        "tiny", [each.replace(OUTSIDE, str(tmp_path)) for each in (*arguments, "root=x")]
    ) as session:
        composed = compose.compose(session.loader, "tiny", session.overrides)
        tree = compose.plain(composed.cfg)
        line = {**composed.line, **{key: tree[key] for key in PLACES[name]}}
        outputs.check_outputs(tree, line, run="runs/x")


SWEPT = {
    "logger.csv.folder": OUTSIDE,
    "+callbacks.c": "{_target_: a.B, dirpath: " + OUTSIDE + "}",
    "data.root": f"data/street,{OUTSIDE}",
    "distillation.cache": "link",
    "++logger.a.name": "../x,y",
}


@pytest.mark.parametrize("key", SWEPT)
def test_a_place_elsewhere_that_is_swept(key: str, attack: Attack, tmp_path: Path) -> None:
    for arguments in ways({"hydra": {"sweeper": {"params": {key: SWEPT[key]}}}}, tmp_path / "work" / "mine"):
        message = attack(*arguments)
        assert "outside of the working directory" in message or "leads out of the folder" in message


def test_what_is_no_place_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people write: folders of the run, names with slashes, addresses of servers, and what the line says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVSN_DATA", str(tmp_path.parent / "data"))
    street = {"_target_": "dvsn.data.street_module.StreetModule", "root": f"{tmp_path.parent}/data/street"}
    run = str(tmp_path.parent / "scratch" / "run")
    tree = {
        "logger": {
            "csv": {"folder": run},
            "w": {
                "name": "pose_w32 ... a/b",
                "tags": ["a/b", "see ../x, 50%"],
                "save_dir": f"{run}/w",
                "project": "x",
            },
            "m": {"tracking_uri": "https://example.com/mlflow", "save_dir": "/scratch/m"},
            "c": {"save_dir": f"{tmp_path}/logs", "version": "", "name": "${now}: 3"},
        },
        "callbacks": {
            "stop": {"monitor": "../val/miou"},
            "c": {"filename": "{epoch}-{val/miou:.2f}"},
            "none": None,
        },
        "data": street,
        "distillation": {"cache": "/scratch/answers/kd"},
    }
    line = {"logger.m.save_dir": "/scratch/m", "distillation.cache": "/scratch/answers/${name}"}
    outputs.check_outputs(tree, line, run=run)
    for key in line:
        with pytest.raises(ConfigError, match=key):
            outputs.check_outputs(tree, {each: line[each] for each in line if each != key}, run=run)
    (tmp_path.parent / "drawn").mkdir()
    there = {"data": street | {"root": str(tmp_path.parent / "drawn")}}
    with pytest.raises(ConfigError, match=r"data\.root"):
        outputs.check_outputs(there, {}, run=run)
    (tmp_path.parent / "drawn" / "street.json").touch()  # is there, and only read
    outputs.check_outputs(there, {}, run=run)


@pytest.mark.parametrize(
    "path", ["hydra.job.chdir", "hydra.callbacks.a", "hydra.job.env_set.PATH", "hydra.new"]
)
def test_the_composed_node_is_compared_as_a_whole(path: str) -> None:
    """Whatever way a change may have taken past the checks of names."""
    with compose.opened("train", []) as session:
        composed = compose.compose(session.loader, "train", [])
    files = OmegaConf.to_container(composed.cfg.hydra, resolve=False, enum_to_str=True)
    hydra_node.check_composed(composed.cfg, files)
    with open_dict(composed.cfg):
        OmegaConf.update(composed.cfg, path, "true", force_add=True)
    with pytest.raises(ConfigError, match=path.replace(".", r"\.") + ": not allowed"):
        hydra_node.check_composed(composed.cfg, files)


def test_links_in_a_folder_that_is_there(attack: Attack, tmp_path: Path) -> None:
    """A folder of the working directory that holds links, such as one of a cloned repository."""
    for number, link in enumerate(
        (
            "tiny.log",
            "config.yaml",
            "checkpoints",
            ".lock",
            "checkpoints/last.ckpt",
            "board/version_0/x",
            "wandb",
        )
    ):
        folder = tmp_path / "work" / f"prepared_{number}"
        (folder / link).parent.mkdir(parents=True)
        (folder / link).symlink_to(tmp_path / "outside" / "target")
        assert "a link that leads out of the folder" in attack(f"hydra.run.dir={folder.name}")


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The exit code, and the one line on the console."""
    root = write_tree(tmp_path / "work", built=False)
    (tmp_path / "outside").mkdir()
    call = [sys.executable, "-m", "tiny_command", "root=x"]
    (arguments, *_) = ways(SPECIAL["handlers behind a name"], root / "mine")
    for more in ([], ["-m", "seed=1,2"], ["-m", "seed=1,2", "hydra/launcher=basic"]):
        done = subprocess.run(
            [*call, *arguments, *more], cwd=root, env=environment(root), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith(
            "error: hydra.hydra_logging.handlers: not allowed in a config. Messages are"
        )
    assert list((tmp_path / "outside").iterdir()) == [] and not (root / "sweeps").exists()


@pytest.mark.parametrize("launcher", ["process", "basic"])
def test_a_swept_option_cannot_bring_one_in(launcher: str, tmp_path: Path) -> None:
    """The first job of the sweep is good, so that it starts."""
    root = write_tree(tmp_path / "work", built=False)
    (tmp_path / "outside").mkdir()
    (arguments, *_) = ways(nested("hydra.job.env_set", {"DVSN_ALLOW": "os"}), root / "mine")
    call = [sys.executable, "-m", "tiny_command", "root=x", arguments[0], "-m", "experiment=small,attack"]
    done = subprocess.run(
        [*call, f"hydra/launcher={launcher}"], cwd=root, env=environment(root), capture_output=True, text=True
    )
    assert (
        done.returncode == 2 and "error: hydra.job.env_set.DVSN_ALLOW: not allowed in a config" in done.stderr
    )
    assert "job 7" not in done.stdout


# What stays allowed -----------------------------------------------------------------------------------------


def test_documented_uses_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "work")
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVSN_ALLOW", "")
    write_option(root / "mine", "# @package _global_\nhydra: {run: {dir: 'mine/${name}'}, verbose: [a]}\n")
    found = []

    def run(*arguments: str) -> str:
        ran: list[Any] = []
        compose.hydra_main("tiny", ran.append, argv=[*arguments, "root=x"], keeps=True)
        return str(ran[0]["out"])

    for arguments in (
        ["hydra.run.dir=here"],
        [f"hydra.run.dir={tmp_path}/elsewhere"],
        [f"hydra.run.dir={tmp_path}/spelt/${{name}}", "name=a"],
        [f"--config-dir={root / 'mine'}", "experiment=attack"],
        ["hydra.verbose=true"],
    ):
        found.append(run(*arguments))
    assert found == [
        f"{root}/here", f"{tmp_path}/elsewhere", f"{tmp_path}/spelt/a", f"{root}/mine/run", f"{root}/runs/run",
    ]  # fmt: skip
    (root / "scratch").mkdir()
    (root / "runs" / "run" / ".lock").unlink()
    for item in sorted((root / "runs").rglob("*"), reverse=True):
        item.rmdir() if item.is_dir() else item.unlink()
    (root / "runs").rmdir()
    (tmp_path / "disk").mkdir()
    (root / "runs").symlink_to(tmp_path / "disk")  # a user's own link to a larger disk
    assert run() == f"{root}/runs/run" and (tmp_path / "disk" / "run" / "tiny.log").is_file()


def test_what_was_validated_is_what_the_job_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is resolved once, so nothing that changes in between, such as a variable, can change it."""
    root = write_tree(tmp_path)
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    monkeypatch.chdir(root)
    monkeypatch.setenv("WIDTH", "8")
    validated: list[Any] = []
    original = rules.validate

    def validate(tree: Any, defaults: Any = None) -> None:
        original(tree, defaults)
        validated.append(tree)
        os.environ["WIDTH"] = "9"

    monkeypatch.setattr(rules, "validate", validate)
    ran: list[Any] = []
    write_option(root / "mine", "# @package _global_\nnetwork: {width: '${oc.decode:${oc.env:WIDTH}}'}\n")
    given = [f"--config-dir={root / 'mine'}", "experiment=attack", "root=x"]
    compose.hydra_main("tiny", ran.append, argv=given, keeps=True)
    assert ran[0] is validated[0] and ran[0]["network"]["width"] == 8 == ran[0]["copy"]
    monkeypatch.setenv("WIDTH", "wide")
    with pytest.raises(ConfigError, match=r"^network\.width: expected a whole number, found 'wide'"):
        compose.hydra_main("tiny", ran.append, argv=given, keeps=True)
