"""Hydra: the overrides of a command line become one checked config, and one job of it is run."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvsn.config import (
    allow,
    board,
    flags,
    folders,
    hydra_node,
    indexed,
    launched,
    logs,
    meeting,
    menu,
    rules,
    sources,
)
from dvsn.config.build import inspect_tree
from dvsn.config.messages import composition_message, leaves
from dvsn.config.outputs import check_outputs
from dvsn.config.partners import check_partners
from dvsn.config.types import found
from dvsn.errors import ConfigError
from dvsn.reading import unpacking

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

Config = dict[str, Any]
Job = Callable[[Config], Any]

MULTIRUN = re.compile(r"(\+\+)?hydra\.mode=(['\"]?)MULTIRUN\2")  # another way to write -m
OPTIONAL = ("codec", "discriminator", "experiment")
"""Groups that a config may have no choice of."""

FORMS = (("landmarks", "joints", "landmarks_heatmaps"),)
"""Tasks with a second form: the task, the option of a network by which that form is recognised, and its name."""


class Session(NamedTuple):
    """Hydra over our configs, for one command line."""

    loader: ConfigLoader
    name: str
    """Of the config that is composed, such as train."""
    overrides: list[str]
    arguments: argparse.Namespace
    """The flags of the command line."""


class Composed(NamedTuple):
    """A composed config, its defaults before values were set, and the values of the command line."""

    cfg: DictConfig
    """With its `hydra` node, not resolved."""
    defaults: Config
    """The config before values were set, as plain data, not resolved, without its `hydra` node."""
    line: Config
    """What the command line sets, by key; of Hydra's node what it may set."""


Sweep = Callable[[Session, Composed, Job], Any]
Check = Callable[[Config], None]


def hydra_main(
    name: str,
    job: Job,
    *,
    argv: Sequence[str] | None = None,
    sweep: Sweep | None = None,
    check: Check | None = None,
    keeps: bool = False,
) -> Any:
    """Composes the config from the command line and calls `job` with it, once or for every job of a sweep.

    `job` gets the resolved config as plain data, without its `hydra` node: the same tree that was validated. `argv`
    defaults to the command line. `sweep` runs the jobs of `-m`, as `dvsn.sweep.launcher.sweep` does; a command without
    it refuses `-m`. `check` may refuse a validated config. A command that `keeps` what it does has a folder for each
    run, made for it alone, with its messages in NAME.log. Returns what `job` returns; raises `ConfigError` for all that
    is wrong with the config, SystemExit(1) for failed sweep jobs.
    """
    job = bounded(job)
    with opened(name, argv) as session:
        several = session.arguments.multirun or any(map(MULTIRUN.fullmatch, session.overrides))
        if several and sweep is None:
            command = name.replace("_", " ")
            raise ConfigError(
                f"-m: {command} does one thing at a time. Leave out -m, and call it once for each value."
            )
        composed = compose(session.loader, session.name, session.overrides, sweep=several)
        fitting = in_form(composed.cfg, session.overrides)
        if fitting != session.overrides:
            session = session._replace(overrides=fitting)
            composed = compose(session.loader, session.name, session.overrides, sweep=several)
        if session.arguments.cfg or session.arguments.info:
            return _show(session, composed)
        if several:
            assert sweep is not None
            return sweep(session, composed, job)
        return _run(job, composed, check, keeps=keeps, trains=name in ("train", "tune"))


def bounded(job: Job) -> Job:
    """Wrap a job so that checkpoints are read within `max_unpacked` of its config."""

    @functools.wraps(job)
    def within(tree: Config) -> Any:
        with unpacking(tree):
            return job(tree)

    return within


def _show(session: Session, composed: Composed) -> None:
    """The answer to `--cfg`, the config that has been composed, or to `--info`."""
    from hydra.core.global_hydra import GlobalHydra

    hydra, asked = GlobalHydra.instance().hydra, session.arguments
    assert hydra is not None
    if asked.cfg:
        hydra.compose_config = lambda **_: composed.cfg  # type: ignore[method-assign]  # else it composes again
        hydra.show_cfg(session.name, session.overrides, asked.cfg, asked.package, resolve=asked.resolve)
    else:
        hydra.show_info(asked.info, config_name=session.name, overrides=session.overrides)


@contextmanager
def initialized(folder: str, name: str = "app") -> Iterator[None]:
    """A context in which Hydra composes configs of `folder`, an absolute path, for the command `name`."""
    from hydra import __version__, initialize_config_dir

    older = {"version_base": "1.3"} if __version__.startswith("1.3.") else {}  # 1.4 warns of it
    with initialize_config_dir(folder, job_name=name, **older), hydra_node.names_start_anew():
        yield


def register_resolver(name: str, function: Callable[..., Any]) -> None:
    """Make `${name:...}` known, with one answer for equal arguments in a config."""
    from omegaconf import OmegaConf, __version__

    old = __version__.startswith("2.3.")  # where the new name is that of a function long deprecated
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register(name, function, use_cache=True, replace=True)


@contextmanager
def opened(name: str, argv: Sequence[str] | None = None) -> Iterator[Session]:
    """Hydra over our configs, with its flags and the overrides of the command line, or of `argv`."""
    arguments = flags.read(sys.argv[1:] if argv is None else argv)
    from hydra.core.global_hydra import GlobalHydra

    sources.bound()
    GlobalHydra.instance().clear()
    with initialized(menu.conf_dir(), name):
        register_resolver("run_stamp", folders.run_stamp)
        if arguments.config_dir is not None:
            _add_folder(Path(arguments.config_dir).absolute())
        loader = GlobalHydra.instance().config_loader()
        overrides = _repair(loader, renamed_options(arguments.overrides))
        yield Session(loader, arguments.config_name or name, overrides, arguments)


def _add_folder(folder: Path) -> None:
    """Add the configs of `--config-dir` to ours, behind them, so that they cannot shadow ours."""
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    if not folder.is_dir():
        raise ConfigError(f"--config-dir: there is no folder {folder}")
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    path = hydra.config_loader.get_search_path()
    behind = SearchPathQuery(provider="schema")  # Hydra's own last entry
    path.prepend(provider="command-line", path=f"file://{folder}", anchor=behind)
    hydra.config_loader = type(hydra.config_loader)(path)  # type: ignore[call-arg]


ALIASES = {"resume.force": "resume_force"}
"""Options that are written as if they lay below another that is a plain value."""


def renamed_options(overrides: Sequence[str]) -> list[str]:
    """The overrides with options by the names that the config has for them; these take lists, or one word."""
    split = [override.partition("=") for override in overrides]
    return [
        f"{ALIASES[key]}{equals}{value if value.startswith('[') or value == 'null' else f'[{value}]'}"
        if key in ALIASES
        else f"{key}{equals}{value}"
        for key, equals, value in split
    ]


def _repair(loader: ConfigLoader, overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra understands them.

    `debug=true` is the name of a file, which Hydra would read as a boolean: it is quoted. `discriminator=null` leaves a
    group out, which Hydra writes `~discriminator`, or is the group's choice `none`. `run_dir=FOLDER` is the folder of the
    run by its shorter name, in which `~` is the home folder also where the shell has left it.
    """
    repaired = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key in ("run_dir", "hydra.run.dir", "hydra.sweep.dir") and equals:
            key = "hydra.run.dir" if key == "run_dir" else key
            quote = value[:1] if value[:1] in ("'", '"') else ""
            if value.startswith(f"{quote}~"):
                value = quote + str(folders.at_home(value[len(quote) :], option=key))
            override = f"{key}={value}"
        if equals and value == "null":
            override = _without(key, loader.get_group_options(key)) or override
        number = (
            equals and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value.lower()) and value not in ("0", "1")
        )
        if number and loader.list_groups(key) == [] and loader.get_group_options(key):
            override = (
                f"{key}='{value}'"  # a choice that there is not; as a number Hydra would not name the group
            )
        elif equals and value.lower() in ("true", "false", "1", "0") and loader.list_groups(key) == []:
            options = loader.get_group_options(key)
            word = {"1": "true", "0": "false"}.get(value, value.lower())
            if options:
                word = "none" if word == "false" and word not in options and "none" in options else word
                override = f"{key}='{word if word in options and value not in options else value}'"
        repaired.append(override)
    return repaired


def _without(key: str, options: Sequence[str]) -> str:
    """The override that leaves out a group, which has these options; empty for another key. Raises `ConfigError`."""
    if "none" in options:
        return f"{key}=none"
    if key in OPTIONAL:
        return f"~{key}"
    names = [name for name in options if not name.startswith("_")]
    if names:
        raise ConfigError(f"{key}: found null, and there has to be one. {menu.listed(key, names)}")
    return ""


def compose(loader: ConfigLoader, name: str, overrides: Sequence[str], *, sweep: bool = False) -> Composed:
    """Composes the config `name`. Raises `ConfigError` with the path and the nearest name."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    mode = RunMode.MULTIRUN if sweep else RunMode.RUN
    with translated(name, loader):
        line = hydra_node.check_line(overrides)
        usual = hydra_node.delivered(loader, line)

    def look(files: DictConfig) -> None:
        hydra_node.check_files(OmegaConf.to_container(files.hydra, resolve=False), usual)
        modernise(files)

    with hydra_node.before_values(look) as defaults, translated(name, loader, defaults):
        cfg = loader.load_configuration(name, list(overrides), run_mode=mode)
    hydra_node.check_composed(cfg, defaults["hydra"])
    indexed.fill(cfg)
    return Composed(cfg, {key: value for key, value in defaults.items() if key != "hydra"}, line)


def in_form(cfg: DictConfig, overrides: list[str]) -> list[str]:
    """The overrides with the form of the task that the chosen network needs.

    A network that answers with heatmaps has other losses, crops and settings than one that answers with points, and
    `task=landmarks network=hrnetv2_w18_face` shall be enough to ask for it.
    """
    chosen, network = cfg.hydra.runtime.choices.get("task"), cfg.get("network")
    for task, key, form in FORMS:
        if chosen == task and network is not None and key in network:
            return [*(each for each in overrides if not each.startswith("task=")), f"task={form}"]
    return overrides


@contextmanager
def translated(
    name: str = "", loader: ConfigLoader | None = None, defaults: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Hydra's and OmegaConf's errors inside become `ConfigError`."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, RecursionError) as error:
        raise ConfigError(composition_message(error, name, loader, defaults)) from error
    except ValueError as error:
        if str(error).startswith("Invalid defaults list"):
            raise ConfigError(f"{error}") from error
        if "Config group override must be" not in str(error):
            raise
        raise ConfigError(
            "a group of options is null on the command line, which has no choice of that kind. Name one of its choices; "
            "--help lists them."
        ) from error


def preflight(composed: Composed, *, folder: Path | None = None, trains: bool = True) -> Config:
    """The composed config as `plain` data, validated before a folder is made or anything built. Raises `ConfigError`.

    What can be said from the YAML alone is said first; then the classes are imported: whether the parts fit each other,
    where the command `trains`, and whether the options fit their signatures. Hydra's node is resolved before all of that,
    see `hydra_node.settle`. `folder` is that of the run, where it is another one than `hydra.run.dir`.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    cfg = composed.cfg
    HydraConfig.instance().set_config(cfg)  # ${hydra:...} resolves from here on
    try:
        with translated():
            hydra_node.settle(cfg, composed.line)
    except ConfigError as error:
        if error.__cause__ is not None:  # an interpolation: `plain` names the value that it is made of
            checked(cfg, composed.defaults, trains=trains)
        raise
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.run.dir = str(folder or cfg.hydra.run.dir)
        cfg.hydra.runtime.output_dir = cfg.hydra.run.dir
    HydraConfig.instance().set_config(cfg)  # which makes a copy
    tree = checked(cfg, composed.defaults, trains=trains)
    usual = cfg.hydra.run.dir if trains else "."  # an evaluation gives its loggers a folder of its own
    if tree.get("run_dir") not in (None, cfg.hydra.run.dir, usual):
        raise ConfigError(
            f"run_dir: {found(tree['run_dir'])}. Folders of runs are given as hydra.run.dir=..."
        )
    check_outputs(tree, composed.line, run=cfg.hydra.run.dir)
    return tree


def checked(cfg: DictConfig, defaults: Mapping[str, Any] | None = None, *, trains: bool = True) -> Config:
    """The resolved and validated tree of a composed config, less its `hydra` node. Raises `ConfigError`.

    Where the command `trains`, also whether the parts fit each other. Where a part refers to what its partner does not
    have, the message is about the partner.
    """
    from omegaconf import OmegaConf

    try:
        tree = plain(cfg)
    except ConfigError:
        if trains:
            check_partners(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
        raise
    if isinstance(tree.get("trainer"), dict):
        tree["trainer"] = launched.of_launcher(tree["trainer"])
    rules.validate(tree, defaults)
    inspect_tree(tree, between=check_partners if trains else None)
    return tree


def modernise(cfg: DictConfig) -> None:
    """Move the facts of a data set (mean, std, names ...) to `data.facts` in configs whose YAML files were
    written for an earlier version."""
    from omegaconf import OmegaConf, open_dict

    data = OmegaConf.to_container(cfg.data, resolve=False) if OmegaConf.is_config(cfg.get("data")) else None
    if not isinstance(data, dict) or "facts" not in data:
        return
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    wanted = allow.refers_to_facts(raw) | {"data": allow.refers_to_facts(allow.with_facts(data))}
    with open_dict(cfg):
        for key, value in wanted.items():
            if key != "hydra" and value != raw[key]:
                cfg[key] = value


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed config, less its `hydra` node, as resolved plain data. Raises `ConfigError`."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(cfg, resolve=False)
    missing = [path for path, value in leaves(raw, "") if value == "???" and not path.startswith("hydra.")]
    if missing:
        more = f" Also missing: {', '.join(missing[1:])}." if missing[1:] else ""
        raise ConfigError(f"{missing[0]}: no value is given. Set {missing[0]}=...{more}")
    data = raw.get("data") if isinstance(raw, dict) else None
    late = [key for key in allow.MOVED if isinstance(data, dict) and "facts" in data and key in data]
    if late:
        raise ConfigError(f"data.{late[0]}: unknown key. It is called data.facts.{late[0]} now.")
    tree: dict[str, Any] = {}
    with translated(defaults=raw):  # type: ignore[arg-type]
        for key in (str(key) for key in cfg if key != "hydra"):
            value = cfg[key]
            tree[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return {key: allow.renamed(value) for key, value in tree.items()}


def _run(job: Job, composed: Composed, check: Check | None, *, keeps: bool, trains: bool) -> Any:
    """One run: the config is validated, then its folder is made, then `job` is called.

    Of several processes that a launcher has started, each validates the config; the first makes the folder, and all
    compare what they have before they go on.
    """
    here = launched.place() if keeps else None
    here = here if here is not None and here.world > 1 else None
    timeout = composed.cfg.get("trainer", {}).get("process_timeout", PROCESS_TIMEOUT)
    usable = isinstance(timeout, int | float) and timeout > 0
    with board.watched(here, timeout=float(timeout) if usable else PROCESS_TIMEOUT):
        return _run_here(job, composed, check, keeps=keeps, trains=trains)


PROCESS_TIMEOUT = 300.0
"""Seconds that processes wait for each other where the config does not say."""


def _run_here(job: Job, composed: Composed, check: Check | None, *, keeps: bool, trains: bool) -> Any:
    from omegaconf import OmegaConf

    cfg = composed.cfg
    made_up = "${run_stamp:" in str(OmegaConf.to_container(cfg.hydra.run, resolve=False))
    tree = preflight(composed, trains=trains)
    if check is not None:
        check(tree)
    wanted = Path(cfg.hydra.run.dir)
    if not keeps:
        logs.start(verbose=cfg.hydra.verbose)
        return job(tree)
    resume = tree.get("resume") == "auto" or (not made_up and tree.get("resume") is not None)
    with meeting.entered(wanted, given=not made_up, resume=resume) as folder:
        if folder != wanted:
            tree = preflight(composed, folder=folder, trains=trains)
        meeting.compare(tree)
        logs.start(folder / f"{cfg.hydra.job.name}.log", verbose=cfg.hydra.verbose)
        return job(tree)
