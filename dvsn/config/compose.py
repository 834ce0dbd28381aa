"""What the commands share: help, options, composing configs, and one place where errors become messages.

Only the standard library is imported at the top: `--help` and typos are answered before Hydra or torch load.

Exit codes: 0 done; 1 a fault of the program or the machine, or a failed job of a sweep; 2 the input is wrong;
130 interrupted; 143 asked to stop by SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dvsn.config import build as config
from dvsn.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

REQUIRED = "???"
MAX_FILE = 1 << 20  # bytes of a YAML file
FORMS = (("landmarks", "joints", "landmarks_heatmaps"),)
"""Of a task: the option by which networks of another kind of answer are known, and the task's form for these."""
FLAGS = {
    "-m, --multirun": "a sweep: every value may be a list a,b,c; one process per job",
    "--cfg job": "show the config and stop",
    "--config-dir DIR": "a folder of your own options, laid out like conf/",
    "--allow NAME": "a package of yours whose classes configs may build",
    "debug=true": "show the traceback of an error",
}


# ---- help and options ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option of a command, written `name=value`. The default "???" makes it required."""

    name: str
    default: Any
    help: str


@dataclass(frozen=True)
class Command:
    """A command `python -m dvsn.<name>`: what `--help` says, and options where Hydra does not read them."""

    name: str
    summary: str
    options: Sequence[Option]
    groups: bool = False  # whether the command composes the config groups
    examples: Sequence[str] = ()

    def help_text(self) -> str:
        """The answer to `--help`. Reads file names only."""
        required = [option.name for option in self.options if option.default == REQUIRED]
        usage = " ".join(
            [f"python -m dvsn.{self.name}", *(f"{name}=..." for name in required)]
            + (["[group=choice ...]"] if self.groups else [])
            + ["[option=value ...]"]
        )
        parts = [f"dvsn {self.name}: {self.summary}", f"usage: {usage}"]
        if self.groups:
            parts.append(
                "groups and their choices:\n" + _table({k: ", ".join(v) for k, v in choices().items()})
            )
        rows = {_usual(option): option.help for option in self.options}
        parts.append(
            "options:\n" + _table(rows | FLAGS if self.groups else rows | {"debug=true": FLAGS["debug=true"]})
        )
        parts.append("examples:\n" + "\n".join(f"  {example}" for example in self.examples))
        return "\n\n".join(parts) + "\n"

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options from `key=value`, `--key value` or `--key=value`; required ones also by position.

        An option takes the type of its default: text stays text, and a default of null takes any value.
        Raises `ConfigError` for an unknown key, a value of another type or a missing required option.
        """
        known = {option.name: option for option in self.options}
        values: dict[str, Any] = {}
        tokens, free = list(argv), [option.name for option in self.options if option.default == REQUIRED]
        while tokens:
            token = tokens.pop(0)
            key, equals, text = token.removeprefix("--").partition("=")
            if token.startswith("--") and not equals:
                if key.replace("-", "_") in known and not tokens:
                    raise ConfigError(f"--{key}: no value follows")
                text = tokens.pop(0) if tokens else ""
            elif not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", key):  # a path may hold '='
                free = [name for name in free if name not in values]
                if not free:
                    raise ConfigError(f"{token}: not understood. Write key=value. {nearest(token, known)}")
                key, text = free[0], token
            key = key.replace("-", "_")
            if key == "debug" and key not in known:
                continue
            if key not in known:
                raise ConfigError(f"{key}: unknown option of dvsn {self.name}. {nearest(key, known)}")
            if key in values:
                raise ConfigError(f"{key}: given twice")
            values[key] = _typed(known[key], text)
        for name, option in known.items():
            if name not in values and option.default == REQUIRED:
                raise ConfigError(f"{name}: required and not given. Write {name}=... ({option.help})")
        return {option.name: values.get(option.name, option.default) for option in self.options}


def choices() -> dict[str, list[str]]:
    """Each config group with its options, from the names of the YAML files."""
    root = Path(config.conf_dir())
    found: dict[str, list[str]] = {}
    for file in sorted(root.glob("*/**/*.yaml")):
        if not file.stem.startswith("_"):
            found.setdefault(file.parent.relative_to(root).as_posix(), []).append(file.stem)
    return found


def _table(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows), default=0)
    width = min(width, 30)
    lines = []
    for name, text in rows.items():
        body = textwrap.wrap(text, 76 - width + 24, break_on_hyphens=False) or [""]
        lines.append(f"  {name:<{width}}  {body[0]}".rstrip())
        lines += [" " * (width + 4) + line for line in body[1:]]
    return "\n".join(lines)


def _usual(option: Option) -> str:
    if option.default == REQUIRED:
        return f"{option.name}=..."
    shown = option.default if isinstance(option.default, str) else json.dumps(option.default)
    return f"{option.name}={shown}"


def scalar(text: str) -> Any:
    """A value as YAML would read it: null, true, 3, 1e-3, [1, a], quoted or bare text."""
    text = text.strip()
    words = {"null": None, "none": None, "~": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    if text[:1] in "'\"" and len(text) > 1 and text[-1] == text[0]:
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [scalar(part) for part in inner.split(",")] if inner else []
    return text


def _typed(option: Option, text: str) -> Any:
    if isinstance(option.default, str):
        return str(scalar(text)) if text[:1] in "'\"" and text else text
    value, default = scalar(text), option.default
    if default is None or value is None:
        return value
    kind: Any = list if isinstance(default, list | tuple) else type(default)
    if kind is list and not isinstance(value, list):
        value = [value]
    if not config.fits(value, kind):
        raise ConfigError(f"{option.name}: expected {config.spell(kind)}, found {text!r}")
    return value


# ---- the error boundary ----------------------------------------------------------------------------------


def run(main: Callable[[], Any], *, command: Command | None = None, debug: bool | None = None) -> Any:
    """Calls `main` and returns its result; a fault becomes one message on stderr and an exit code.

    With `command`, `--help` and `-h` are answered first. `debug` shows tracebacks; by default it follows
    `debug=...` among the arguments and DVSN_DEBUG=1.
    """
    if command is not None and {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(command.help_text())
        return None
    if debug is None:
        debug = wants_debug(sys.argv[1:])
    try:
        return main()
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            _leave(130, _interrupted(stop.__context__), stop, debug)
        raise
    except KeyboardInterrupt as error:
        _leave(130, _interrupted(error), error, debug)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        raise SystemExit(1) from error
    except Exception as error:  # noqa: BLE001 - the one place where every fault ends
        _leave(*_explain(error, debug), error, debug)


def wants_debug(argv: Sequence[str]) -> bool:
    """Whether `debug=<anything but none, null, false, 0>` is given, or DVSN_DEBUG=1."""
    given = [
        token.partition("=")[2].strip("'\"").lower() for token in argv if re.match(r"(--)?\+?debug=", token)
    ]
    return os.environ.get("DVSN_DEBUG", "") not in ("", "0") or bool(
        given and given[-1] not in ("none", "null", "false", "0", "")
    )


def _leave(code: int, message: str, error: BaseException, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    rank = os.environ.get("LOCAL_RANK", "0")
    sys.stderr.write(f"{'' if rank == '0' else f'[process {rank}] '}{message}\n")
    sys.stderr.flush()
    raise SystemExit(code) from None


def _interrupted(error: BaseException) -> str:
    return f"interrupted{f': {error}' if str(error) else ''}"


def _explain(error: Exception, debug: bool) -> tuple[int, str]:
    """(exit code, message) of a fault."""
    kind, text, module = type(error).__name__, str(error).strip(), type(error).__module__ or ""
    if isinstance(error, UserError):
        return 2, f"error: {_without_worker(text, kind)}"
    if module.startswith(("hydra.", "omegaconf.", "yaml.")):
        return 2, f"error: {_composition_message(error)}"
    if kind == "MisconfigurationException":
        return 2, f"error: {text}"
    if kind == "SIGTERMException":
        return 143, "stopped by SIGTERM"
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        hint = "Lower data.batch_size or the size of the pictures."
        return 1, f"error: out of memory. {hint} {_first_line(text)}".rstrip()
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        hint = (
            "It ran out of memory or of /dev/shm: lower data.workers or data.batch_size, or enlarge /dev/shm."
        )
        return 1, f"error: {_first_line(text)} {hint}"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in text:
        return 1, f"error: the disk is full: {_first_line(text)}. Free some space, or write elsewhere."
    if isinstance(error, OSError) and error.strerror and error.filename:
        return 1, f"error: {error.filename}: {error.strerror}"
    again = "" if debug else " - run again with debug=true to see the traceback"
    return 1, f"internal error: {kind}: {_first_line(text)}{again}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _without_worker(text: str, kind: str) -> str:
    """The message of an error raised in a DataLoader worker, without the trace that torch puts around it."""
    if not re.match(r"Caught \w+ in ", text):
        return text
    starts = list(re.finditer(rf"^(?:[\w.]*\.)?{kind}: ", text, re.MULTILINE))
    return text[starts[-1].end() :].strip() if starts else text


# ---- composing -------------------------------------------------------------------------------------------


def hydra_main(
    config_name: str, task: Callable[[DictConfig], Any], *, argv: Sequence[str] | None = None
) -> Any:
    """Composes the config from the command line and calls `task` with it, once or for every job of a sweep.

    `task` gets the composed `DictConfig` without its `hydra` node. Before that the config is resolved and
    validated without importing what it builds. `argv` defaults to the command line. Returns what `task`
    returns; raises `ConfigError` for all that is wrong with the config, SystemExit(1) for failed sweep jobs.
    """
    with opened(config_name, argv) as (hydra, arguments):
        name, overrides = arguments.config_name or config_name, arguments.overrides
        sweep = arguments.multirun or "hydra.mode=MULTIRUN" in overrides
        cfg, defaults = compose(hydra.config_loader, name, overrides, sweep=sweep)
        fitting = in_form(cfg, overrides)
        if fitting != overrides:
            overrides = fitting
            cfg, defaults = compose(hydra.config_loader, name, overrides, sweep=sweep)
        if arguments.cfg:
            return hydra.show_cfg(
                name, overrides, arguments.cfg, arguments.package, resolve=arguments.resolve
            )
        if arguments.info:
            return hydra.show_info(arguments.info, config_name=name, overrides=overrides)
        if sweep:
            from dvsn.sweep import launcher

            return launcher.sweep(hydra, name, task, [*overrides, "hydra.mode=MULTIRUN"], cfg)
        preflight(cfg, defaults)
        return _run(hydra, task, cfg)


@contextmanager
def opened(task_name: str, argv: Sequence[str] | None = None) -> Iterator[tuple[Hydra, argparse.Namespace]]:
    """Hydra over our configs, with its flags and the overrides of the command line, or of `argv`."""
    arguments = _arguments(take_allowed(sys.argv[1:] if argv is None else argv))
    from hydra import version
    from hydra.core.global_hydra import GlobalHydra

    from dvsn.sweep import launcher

    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        hydra = _open(arguments, task_name)
        launcher.register()
        arguments.overrides = _repair(hydra.config_loader, arguments.overrides)
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
    config.allowed(joined := ",".join(filter(None, [known, *names])))
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
    search = create_config_search_path(config.conf_dir())
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
        raise ConfigError(_composition_message(error, name, loader, defaults)) from error


@contextmanager
def _before_values() -> Iterator[dict[str, Any]]:
    """A dict that Hydra's next composition fills before it sets the values of the command line."""
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


def preflight(cfg: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Resolves and validates a composed config without importing what it builds. Raises `ConfigError`."""
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
    config.validate(plain(cfg), defaults)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed config, less its `hydra` node, as resolved plain data. Raises `ConfigError`."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(cfg, resolve=False)
    missing = [path for path, value in _leaves(raw, "") if value == "???" and not path.startswith("hydra.")]
    if missing:
        more = f" Also missing: {', '.join(missing[1:])}." if missing[1:] else ""
        raise ConfigError(f"{missing[0]}: no value is given. Set {missing[0]}=...{more}")
    tree: dict[str, Any] = {}
    with translated():
        for key in (str(key) for key in cfg if key != "hydra"):
            value = cfg[key]
            tree[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return tree


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
    for path, value in _leaves(node, "hydra"):
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


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if pairs is None:
        yield path, node
    else:
        for key, value in pairs:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


# ---- messages of Hydra and OmegaConf, in our words ---------------------------------------------------------


def _composition_message(
    error: BaseException,
    name: str = "",
    loader: ConfigLoader | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> str:
    """One message: path, what was found, the nearest valid name."""
    kind, text = type(error).__name__, str(error)
    if kind == "OverrideParseException":
        override = getattr(error, "override", "")
        return f"{override}: not understood. Write key=value; quote special characters: key='a b'"
    if kind == "MissingConfigException":
        return _missing_option(error, name)
    if isinstance(error, RecursionError):
        return "a config is nested too deeply"
    if kind in ("ScannerError", "ParserError", "ComposerError", "ConstructorError", "ReaderError"):
        return f"a YAML file cannot be read: {' '.join(text.split())}"
    quoted = re.search(r"'([^'\n]+)'", text)
    if text.startswith(("Could not override", "Could not delete")) and quoted and loader is not None:
        return _unknown_key(quoted.group(1).partition("=")[0], loader.list_groups(""), defaults or {})
    if text.startswith("Ambiguous value") and quoted:
        key, _, value = quoted.group(1).partition("=")
        return f"{key}: found several values, {value}. For a list write {key}=[{value}]; for a sweep add -m."
    if error.__cause__ is not None and kind == "ConfigCompositionException":
        override = text.removeprefix("Error merging override ").strip()
        cause = _composition_message(error.__cause__)
        return f"{override}: {cause}" if override else cause
    full_key = getattr(error, "full_key", None)
    message = " ".join(str(getattr(error, "msg", None) or text).split("\n    full_key")[0].split())
    return f"{full_key}: {message}" if full_key and not message.startswith(str(full_key)) else message or kind


def _missing_option(error: BaseException, name: str) -> str:
    """A group has no such option, chosen on the command line or in a YAML file."""
    group, _, option = str(getattr(error, "missing_cfg_file", "") or "").rpartition("/")
    options = getattr(error, "options", None) or []
    if not group:
        return f"--config-name: there is no config named {option or name!r}"
    where = re.match(r"In '([^']+)'", str(error))
    ours = where is not None and where.group(1) != name and not where.group(1).startswith("hydra/")
    source = f" (asked for by {where.group(1)}.yaml)" if where and ours else ""
    return f"{group}={option}: no such option of the group {group!r}{source}. {nearest(option, options)}"


def _unknown_key(key: str, groups: Sequence[str], tree: Mapping[str, Any]) -> str:
    """A key that the chosen groups do not have, with the nearest that there is in `tree`."""
    if key.partition("@")[0] in groups:
        return f"{key}: this group is not part of the config. Write +{key}=..."
    if not key.startswith("hydra"):
        tree = {name: value for name, value in tree.items() if name != "hydra"}
    parent, _, last = key.rpartition(".")
    if not parent:
        return f"{key}: unknown group or key. {nearest(key, {*tree, *groups} - {'hydra'})}"
    node: Any = tree
    for part in parent.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return f"{key}: unknown key. {nearest(key, {path for path, _ in _leaves(tree, '')})}"
    near = nearest(last, node).replace("Did you mean '", f"Did you mean '{parent}.")
    message = f"{key}: unknown key. {near}"
    target = str(node.get("_target_", ""))
    if (target and not target.startswith("dvsn.")) or (
        parent == "trainer" and last in config.TRAINER_OPTIONS
    ):
        message += f" To give an option that the config does not name, write +{key}=..."
    return message
