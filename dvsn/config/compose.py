"""Hydra: the overrides of a command line become one checked config, and one job of it is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvsn.config import allow, flags, logs, menu, rules, sources
from dvsn.config.folders import run_stamp
from dvsn.config.messages import composition_message, leaves
from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

Config = dict[str, Any]
Job = Callable[[Config], Any]

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


Sweep = Callable[[Session, "DictConfig", Job], Any]


def hydra_main(
    name: str,
    job: Job,
    *,
    argv: Sequence[str] | None = None,
    sweep: Sweep | None = None,
    log_file: bool = False,
) -> Any:
    """Composes the config from the command line and calls `job` with it, once or for every job of a sweep.

    `job` gets the resolved config as plain data, without its `hydra` node: the same tree that was validated, before
    anything of it is imported or built. `argv` defaults to the command line. `sweep` runs the jobs of
    `-m`, as `dvsn.sweep.launcher.sweep` does; a command without it refuses `-m`. With `log_file` messages also
    go to NAME.log in the folder of the run. Returns what `job` returns; raises `ConfigError` for all that is
    wrong with the config, SystemExit(1) for failed sweep jobs.
    """
    with opened(name, argv) as session:
        several = session.arguments.multirun or "hydra.mode=MULTIRUN" in session.overrides
        if several and sweep is None:
            command = name.replace("_", " ")
            raise ConfigError(
                f"-m: {command} does one thing at a time. Leave out -m, and call it once for each value."
            )
        cfg, defaults = compose(session.loader, session.name, session.overrides, sweep=several)
        fitting = in_form(cfg, session.overrides)
        if fitting != session.overrides:
            session = session._replace(overrides=fitting)
            cfg, defaults = compose(session.loader, session.name, session.overrides, sweep=several)
        if session.arguments.cfg or session.arguments.info:
            return _show(session)
        if several:
            assert sweep is not None
            return sweep(session, cfg, job)
        tree = preflight(cfg, defaults)
        return _run(job, tree, cfg, log_file=log_file)


def _show(session: Session) -> None:
    """The answer to `--cfg` or `--info`."""
    from hydra.core.global_hydra import GlobalHydra

    hydra, asked = GlobalHydra.instance().hydra, session.arguments
    assert hydra is not None
    if asked.cfg:
        hydra.show_cfg(session.name, session.overrides, asked.cfg, asked.package, resolve=asked.resolve)
    else:
        hydra.show_info(asked.info, config_name=session.name, overrides=session.overrides)


def initialized(folder: str, name: str = "app") -> AbstractContextManager[None]:
    """A context in which Hydra composes configs of `folder`, an absolute path, for the command `name`."""
    from hydra import __version__, initialize_config_dir

    older = {"version_base": "1.3"} if __version__.startswith("1.3.") else {}  # 1.4 warns of it
    return initialize_config_dir(folder, job_name=name, **older)


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
        register_resolver("run_stamp", run_stamp)
        if arguments.config_dir is not None:
            _add_folder(Path(arguments.config_dir).absolute())
        loader = GlobalHydra.instance().config_loader()
        overrides = _repair(loader, arguments.overrides)
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


def _repair(loader: ConfigLoader, overrides: Sequence[str]) -> list[str]:
    """`debug=true` is the name of a file, which Hydra would read as a boolean: it is quoted."""
    repaired = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and value.lower() in ("true", "false", "1", "0") and loader.list_groups(key) == []:
            options = loader.get_group_options(key)
            word = {"1": "true", "0": "false"}.get(value, value.lower())
            if options:
                word = "none" if word == "false" and word not in options and "none" in options else word
                override = f"{key}='{value if value in options else word}'"
        repaired.append(override)
    return repaired


def compose(
    loader: ConfigLoader, name: str, overrides: Sequence[str], *, sweep: bool = False
) -> tuple[DictConfig, dict[str, Any]]:
    """The composed config with its `hydra` node; and, as plain data, what it was before values were set.

    Raises `ConfigError` with the path and the nearest name.
    """
    from hydra.types import RunMode

    mode = RunMode.MULTIRUN if sweep else RunMode.RUN
    with _before_values() as defaults, translated(name, loader, defaults):
        cfg = loader.load_configuration(name, list(overrides), run_mode=mode)
    _check_hydra(cfg)
    return cfg, {key: value for key, value in defaults.items() if key != "hydra"}


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


@contextmanager
def _before_values() -> Iterator[dict[str, Any]]:
    """A dict that Hydra's next composition fills before it sets the values of the command line.

    Hydra has no public way to this state. To compose a second time without values would cost 0.3 s of each start.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import OmegaConf

    original = ConfigLoaderImpl._apply_overrides_to_config
    seen: dict[str, Any] = {}

    def record(overrides: Any, cfg: DictConfig) -> None:
        seen.update(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
        original(overrides, cfg)

    setattr(ConfigLoaderImpl, original.__name__, staticmethod(record))
    try:
        yield seen
    finally:
        setattr(ConfigLoaderImpl, original.__name__, staticmethod(original))


def preflight(cfg: DictConfig, defaults: Mapping[str, Any]) -> Config:
    """The composed config as `plain` data, validated without importing what it builds. Raises `ConfigError`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    HydraConfig.instance().set_config(cfg)  # ${hydra:...} resolves from here on
    try:
        with translated(), read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = str(Path(str(cfg.hydra.run.dir)).absolute())
    except ConfigError:
        plain(cfg)  # names the value that the folder is made of, if that is what is wrong
        raise
    HydraConfig.instance().set_config(cfg)
    tree = plain(cfg)
    rules.validate(tree, defaults)
    return tree


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed config, less its `hydra` node, as resolved plain data. Raises `ConfigError`."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(cfg, resolve=False)
    missing = [path for path, value in leaves(raw, "") if value == "???" and not path.startswith("hydra.")]
    if missing:
        more = f" Also missing: {', '.join(missing[1:])}." if missing[1:] else ""
        raise ConfigError(f"{missing[0]}: no value is given. Set {missing[0]}=...{more}")
    tree: dict[str, Any] = {}
    with translated():
        for key in (str(key) for key in cfg if key != "hydra"):
            value = cfg[key]
            tree[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return {key: allow.renamed(value) for key, value in tree.items()}


def _run(job: Job, tree: Config, cfg: DictConfig, *, log_file: bool) -> Any:
    """One run, in the folder `hydra.runtime.output_dir`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    folder = Path(str(cfg.hydra.runtime.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    logs.start(folder / f"{cfg.hydra.job.name}.log" if log_file else None, verbose=cfg.hydra.verbose)
    with read_write(cfg.hydra):
        cfg.hydra.run.dir = str(folder)
    HydraConfig.instance().set_config(cfg)  # by which Lightning starts its further processes
    return job(tree)


PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")


FORBIDDEN_ENVIRONMENT = ("DVSN_", "HYDRA_", "PYTHON", "LD_", "DYLD_", "TORCH_FORCE_")


def _check_hydra(cfg: DictConfig) -> None:
    """Hydra's own node can build objects and set variables too: callbacks, plugins, log handlers.

    Allowed are Hydra's plugins as launcher and sweeper, optuna's samplers, and the standard log handlers.
    """
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(cfg.hydra, resolve=False)
    if not isinstance(node, dict):
        raise ConfigError("hydra: expected a mapping")
    if node.get("callbacks"):
        raise ConfigError(
            "hydra.callbacks: not allowed, since they run code from a config. Use callbacks instead."
        )
    for key in (node.get("job") or {}).get("env_set") or {}:
        if str(key).startswith(FORBIDDEN_ENVIRONMENT):
            raise ConfigError(f"hydra.job.env_set.{key}: not allowed in a config. Set it in your shell.")
    for path, value in leaves(node, "hydra"):
        key = path.rpartition(".")[2]
        plugin = path.startswith(("hydra.launcher.", "hydra.sweeper."))
        logs = path.startswith(("hydra.job_logging.", "hydra.hydra_logging."))
        good = {
            "_target_": plugin and str(value).startswith((*PLUGINS, "optuna.samplers.", "optuna.pruners.")),
            "class": not logs or str(value).startswith("logging."),
            "()": logs and value == "colorlog.ColoredFormatter",
        }
        external = "ext://" in str(value) and value not in ("ext://sys.stdout", "ext://sys.stderr")
        if not good.get(key, True) or (logs and external):
            raise ConfigError(f"{path}: {value!r} is not allowed in a config")
