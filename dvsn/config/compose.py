"""Hydra: the overrides of a command line become one checked config, and one job of it is run."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dvsn.config import allow, menu, rules
from dvsn.config.build import inspect_tree
from dvsn.config.folders import run_stamp
from dvsn.config.messages import composition_message, leaves
from dvsn.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

MAX_FILE = 1 << 20  # bytes of a YAML file


FORMS = (("landmarks", "joints", "landmarks_heatmaps"),)
"""Of a task: the option by which networks of another kind of answer are known, and the task's form for these."""


def hydra_main(
    config_name: str,
    task: Callable[[DictConfig], Any],
    *,
    argv: Sequence[str] | None = None,
    sweep: Callable[[Hydra, str, Callable[[DictConfig], Any], list[str], DictConfig], Any] | None = None,
) -> Any:
    """Composes the config from the command line and calls `task` with it, once or for every job of a sweep.

    `task` gets the composed `DictConfig` without its `hydra` node. Before that the config is resolved and
    validated. `argv` defaults to the command line. `sweep` runs the jobs of
    `-m`, as `dvsn.sweep.launcher.sweep` does; a command without it refuses `-m`. Returns what `task`
    returns; raises `ConfigError` for all that is wrong with the config, SystemExit(1) for failed sweep jobs.
    """
    with opened(config_name, argv) as (hydra, arguments):
        name, overrides = arguments.config_name or config_name, arguments.overrides
        several = arguments.multirun or "hydra.mode=MULTIRUN" in overrides
        if several and sweep is None:
            command = config_name.replace("_", " ")
            raise ConfigError(
                f"-m: {command} does one thing at a time. Leave out -m, and call it once for each value."
            )
        cfg, defaults = compose(hydra.config_loader, name, overrides, sweep=several)
        fitting = in_form(cfg, overrides)
        if fitting != overrides:
            overrides = fitting
            cfg, defaults = compose(hydra.config_loader, name, overrides, sweep=several)
        if arguments.cfg:
            with _before_values():  # it composes once more
                return hydra.show_cfg(
                    name, overrides, arguments.cfg, arguments.package, resolve=arguments.resolve
                )
        if arguments.info:
            return hydra.show_info(arguments.info, config_name=name, overrides=overrides)
        if several:
            assert sweep is not None
            return sweep(hydra, name, task, [*overrides, "hydra.mode=MULTIRUN"], cfg)
        preflight(cfg, defaults)
        return _run(hydra, task, cfg)


@contextmanager
def opened(task_name: str, argv: Sequence[str] | None = None) -> Iterator[tuple[Hydra, argparse.Namespace]]:
    """Hydra over our configs, with its flags and the overrides of the command line, or of `argv`."""
    arguments = _arguments(take_allowed(sys.argv[1:] if argv is None else argv))
    from hydra import version
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        hydra = _open(arguments, task_name)
        OmegaConf.register_new_resolver("run_stamp", run_stamp, use_cache=True, replace=True)
        arguments.overrides = _repair(hydra.config_loader, renamed_options(arguments.overrides))
        yield hydra, arguments
    finally:
        GlobalHydra.instance().clear()


def take_allowed(argv: Sequence[str]) -> list[str]:
    """The arguments without `--allow NAME`, which goes to the environment, where child processes find it."""
    rest, names, tokens = [], [], list(argv)
    while tokens:
        token = tokens.pop(0)
        if token == "--allow":
            if not tokens:
                raise ConfigError("--allow: no name of a package follows")
            names.append(tokens.pop(0))
        elif token.startswith("--allow="):
            names.append(token.partition("=")[2])
        else:
            rest.append(token)
    known = os.environ.get("DVSN_ALLOW", "")
    allow.allowed(joined := ",".join(filter(None, [known, *names])))
    if names:
        os.environ["DVSN_ALLOW"] = joined
    return rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags, less those that are not ours; everything else is an override."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    information = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=information)
    for flag in ("--multirun", "--run", "--resolve"):
        parser.add_argument(flag, f"-{flag[2]}" if flag != "--resolve" else flag, action="store_true")
    for flags in (("--package", "-p"), ("--config-name", "-cn"), ("--config-dir", "-cd")):
        parser.add_argument(*flags)
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    if unknown:
        valid = [option for action in parser._actions for option in action.option_strings] + [
            "--help",
            "--allow",
        ]
        raise ConfigError(
            f"{unknown[0]}: unknown flag. Options are written key=value. {nearest(unknown[0], valid)}"
        )
    return arguments


def _open(arguments: argparse.Namespace, task_name: str) -> Hydra:
    """Hydra over our configs and those of `--config-dir`, which cannot shadow ours."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    _bound_files()
    search = create_config_search_path(menu.conf_dir())
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: there is no folder {folder}")
        search.prepend(
            provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema")
        )
    return Hydra.create_main_hydra2(task_name=task_name, config_search_path=search)


def check_yaml(path: str | Path) -> None:
    """Refuses a YAML file that is huge or holds aliases, which can grow without end."""
    import yaml

    size = Path(path).stat().st_size
    if size > MAX_FILE:
        raise ConfigError(f"{path}: {size} bytes, expected at most {MAX_FILE} for a config")
    text = Path(path).read_text(encoding="utf-8")
    if "*" not in text:
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for token in yaml.scan(text, Loader=loader):
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise ConfigError(
                f"{path}, line {line}: aliases (*{token.value}) are not allowed. Use ${{...}} instead."
            )


@functools.cache
def _bound_files() -> None:
    """Every YAML file that Hydra reads passes `check_yaml`, also those of `hydra.searchpath`."""
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    class BoundedSource(FileConfigSource):
        def load_config(self, config_path: str) -> Any:
            file = Path(self.path) / self._normalize_file_name(config_path)
            if file.is_file():
                check_yaml(file)
            return super().load_config(config_path)

    Plugins.instance()  # registers Hydra's own sources, one of which is replaced here
    SourcesRegistry.instance().types["file"] = BoundedSource


ALIASES = {"resume.force": "resume_force"}
"""Options that are written as if they lay below another that is a plain value."""


def renamed_options(overrides: Sequence[str]) -> list[str]:
    """The overrides with options by the names that the config has for them."""
    split = [override.partition("=") for override in overrides]
    return [f"{ALIASES.get(key, key)}{equals}{value}" for key, equals, value in split]


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
    """The overrides with the form of the task that the chosen network needs: one that answers with heatmaps has other
    losses, crops and settings, and `task=landmarks network=hrnetv2_w18_face` shall be enough to say so."""
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
    """A dict that Hydra's next composition fills before it sets the values of the command line."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import OmegaConf

    original = ConfigLoaderImpl._apply_overrides_to_config
    seen: dict[str, Any] = {}

    def record(overrides: Any, cfg: DictConfig) -> None:
        modernise(cfg)
        seen.update(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
        original(overrides, cfg)

    setattr(ConfigLoaderImpl, original.__name__, staticmethod(record))
    try:
        yield seen
    finally:
        setattr(ConfigLoaderImpl, original.__name__, staticmethod(original))


def modernise(cfg: DictConfig) -> None:
    """Put the facts of a data set where they are today, in a config of YAML files of which some were written before."""
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


def preflight(cfg: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Resolves and validates a composed config, before a folder is made or anything built. Raises `ConfigError`.

    What can be said from the YAML alone is said first; then the classes are imported, and the options compared with
    their signatures.
    """
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
    inspect_tree(tree)


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
    with translated():
        for key in (str(key) for key in cfg if key != "hydra"):
            value = cfg[key]
            tree[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return {key: allow.renamed(value) for key, value in tree.items()}


def _run(hydra: Hydra, task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """One run. The task's exception is carried past Hydra, which would print a report of its own."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext, RunMode
    from omegaconf import read_write

    failure: list[Exception] = []

    @functools.wraps(task)
    def guarded(tree: DictConfig) -> Any:
        try:
            return task(tree)
        except Exception as error:  # noqa: BLE001 - raised again below
            failure.append(error)

    with read_write(cfg.hydra):
        cfg.hydra.mode = RunMode.RUN
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg))
    done = run_job(guarded, cfg, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    if failure:
        raise failure[0]
    return done.return_value


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
