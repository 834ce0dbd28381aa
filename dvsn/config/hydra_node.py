"""Hydra's own node of a config: which of its options may be set, and by whom.

Through this node a YAML file of somebody else could start programs: it names classes of plugins, callbacks and log
handlers, sets environment variables and decides where files are written. So a short list of its options may be set,
some of them on the command line only, and everything else must be as Hydra delivers it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from dvsn.config.folders import check_place
from dvsn.config.launchers import check_launcher
from dvsn.config.outputs import check_swept
from dvsn.config.own_sets import OwnSets, of_overrides
from dvsn.config.types import found
from dvsn.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

FILES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper", "hydra.verbose")
"""What a YAML file may set, with what lies below."""
LINE = (*FILES, "hydra.launcher", "hydra.job.name", "hydra.mode", "hydra.output_subdir", "hydra.searchpath")
"""What the command line may set, with what lies below."""
GROUPS = ("hydra/launcher", "hydra/sweeper")
"""Groups of which the command line may choose."""
FIXED = {"hydra.output_subdir": None, "hydra.job.chdir": False}
"""What our own files set; a file may say the same."""
COMPUTED = ("hydra.runtime", "hydra.overrides", "hydra.job.override_dirname", "hydra.job.config_name")
"""What Hydra fills in itself when a config has been composed."""
HINTS = {
    "hydra.callbacks": "The group callbacks is for callbacks of a training.",
    "hydra.hydra_logging": "Messages are dvsn's own; hydra.verbose=true shows more of them.",
    "hydra.job_logging": "Messages are dvsn's own; hydra.verbose=true shows more of them.",
    "hydra.job.env": "Set variables in your shell.",
    "hydra.searchpath": "Give it on the command line: hydra.searchpath=[file:///FOLDER].",
    "hydra.launcher": "Choose it on the command line: hydra/launcher=NAME.",
    "hydra.mode": "Write -m on the command line.",
}
SAMPLER = re.compile(r"optuna\.(samplers|pruners)\.[A-Z][A-Za-z]*")
SUBFOLDER = re.compile(r"([\w-]|\.(?!\.)|\$\{hydra\.job\.(num|id)\})+")
PARAMETER = re.compile(r"(\+\+|\+|~)?[A-Za-z_][\w./@-]*")
ABSENT = object()


@contextmanager
def before_values(look: Callable[[DictConfig], None] | None = None) -> Iterator[dict[str, Any]]:
    """A dict that Hydra's next composition fills, as plain data, before it sets the values of the command line.

    `look` is called with the config just before, and may change it. Hydra has no public way to this state; to compose
    a second time without values would cost 0.3 s of each start.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import OmegaConf

    original = ConfigLoaderImpl._apply_overrides_to_config
    seen: dict[str, Any] = {}

    def record(overrides: Any, cfg: DictConfig) -> None:
        if look is not None:
            look(cfg)
        seen.update(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
        original(overrides, cfg)

    setattr(ConfigLoaderImpl, original.__name__, staticmethod(record))
    try:
        yield seen
    finally:
        setattr(ConfigLoaderImpl, original.__name__, staticmethod(original))


@contextmanager
def names_start_anew() -> Iterator[None]:
    """While the context lasts, names and tables of a data set in a later file or on the command line replace those
    of earlier files, see `dvsn.config.own_sets`. Hydra has no public way to the single files."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    original, load = ConfigLoaderImpl._apply_overrides_to_config, ConfigLoaderImpl._load_single_config
    files = OwnSets()

    def read(self: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
        found = load(self, default, repo)
        files.read(found.config)
        return found

    @functools.wraps(original)  # by whose name others find it
    def settle(overrides: Any, cfg: DictConfig) -> None:
        nonlocal files
        files.settle(cfg)
        files, line = OwnSets(), OwnSets()
        line.take(of_overrides(overrides))
        line.settle(cfg)
        original(overrides, cfg)

    setattr(ConfigLoaderImpl, original.__name__, staticmethod(settle))
    setattr(ConfigLoaderImpl, load.__name__, read)
    try:
        yield
    finally:
        setattr(ConfigLoaderImpl, original.__name__, staticmethod(original))
        setattr(ConfigLoaderImpl, load.__name__, load)


_usual: dict[
    str, Any
] = {}  # what Hydra delivers without choices: it comes from its own package, with any loader


def delivered(loader: ConfigLoader, line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of Hydra's own node by path, as Hydra ships it, with the groups that the command line chooses."""
    from hydra.types import RunMode

    groups = [f"{key}={line[key]}" for key in GROUPS if key in line]
    if _usual and not groups:
        return _usual
    with before_values() as seen:
        loader.load_configuration(None, groups, run_mode=RunMode.RUN)
    found = dict(flat(seen.get("hydra"), "hydra"))
    if not groups:
        _usual.update(found)
    return found


def flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each value below a node with its path; an empty dict or list is a value too."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    if not node or not isinstance(node, dict | list):
        yield path, node
    for key, value in pairs:
        yield from flat(value, f"{path}.{key}")


def inside(path: str, keys: Sequence[str]) -> bool:
    """Whether a path is one of the keys or lies below one."""
    return any(path == key or path.startswith(f"{key}.") for key in keys)


def refuse(path: str, where: str, valid: Sequence[str]) -> NoReturn:
    hint = next((text for key, text in HINTS.items() if path.startswith(key)), None)
    more = (
        nearest(path, valid)
        if hint is None
        else f"{hint} Of Hydra's own options may be set: {', '.join(valid)}."
    )
    raise ConfigError(f"{path}: not allowed {where}. {more}")


def check_line(overrides: Sequence[str]) -> dict[str, Any]:
    """Refuses overrides of Hydra's node that are not in the list; returns the values of all others by their keys.

    Raises `ConfigError`, and Hydra's own error for an override that cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values: dict[str, Any] = {}
    for each in OverridesParser.create().parse_overrides(list(overrides)):
        key, package = each.key_or_group, (each.package or "").removeprefix("_global_.")
        ours = not re.match(r"hydra(\W|$)", key) and not re.match(r"hydra(\W|$)", package)
        if ours:
            if not each.is_delete() and not each.is_sweep_override():
                values[key] = each.value()
            continue
        if package or each.is_delete() or not (key in GROUPS or inside(key, LINE)):
            refuse(each.get_key_element().lstrip("+~"), "on the command line", [*LINE, *GROUPS])
        values[key] = each.value()
        if key == "hydra.searchpath":
            _check_folders(values[key], added=each.is_add() or each.is_force_add())
    return values


def _check_folders(folders: Any, *, added: bool) -> None:
    """Refuses values of hydra.searchpath that are not folders; and +hydra.searchpath, which Hydra ignores."""
    good = isinstance(folders, list) and all(
        isinstance(each, str) and ("://" not in each or each.startswith("file://")) for each in folders
    )
    if added or not good:
        raise ConfigError(
            f"hydra.searchpath: {found(folders)}, expected folders: hydra.searchpath=[file:///home/me/conf]"
        )


def check_files(files: Any, usual: Mapping[str, Any]) -> None:
    """Refuses changes of Hydra's node by YAML files, except of the options in `FILES`.

    `files` is the node as the files make it, `usual` the one that Hydra delivers. Raises `ConfigError`.
    """
    given = dict(flat(files, "hydra"))
    for path in sorted({*given, *usual}, key=lambda path: (path not in given, path)):
        value = given.get(path, ABSENT)
        same = value == usual.get(path, ABSENT) or (path in FIXED and value == FIXED[path])
        if not same and not inside(path, FILES):
            refuse(path, "in a config", FILES)


def check_composed(cfg: DictConfig, files: Any) -> None:
    """Refuses changes of Hydra's node by the command line, except of the options in `LINE`.

    `files` is the node as the YAML files make it. `check_line` has refused most changes by their names; this finds the
    rest, such as a group that is put into the node. Raises `ConfigError`.
    """
    from omegaconf import OmegaConf

    given = dict(flat(files, "hydra"))
    node = OmegaConf.to_container(cfg.hydra, resolve=False, enum_to_str=True)
    after = dict(flat(node, "hydra"))
    for path in sorted({*after, *given}, key=lambda path: (path not in after, path)):
        if after.get(path, ABSENT) != given.get(path, ABSENT) and not inside(path, (*LINE, *COMPUTED)):
            refuse(path, "on the command line", LINE)
    subfolder = after.get("hydra.sweep.subdir")
    if not isinstance(subfolder, str) or not SUBFOLDER.fullmatch(subfolder):
        expected = "expected a name, such as ${hydra.job.num} or job_${hydra.job.num}"
        raise ConfigError(f"hydra.sweep.subdir: {found(subfolder)}, {expected}")


def settle(cfg: DictConfig, line: Mapping[str, Any], *, sweep: bool = False) -> None:
    """Resolves what is used of Hydra's node, checks it, and puts the plain values in place of the interpolations.

    The folders of runs and sweeps lie in the working directory, or where the command line puts them. The config of a
    `sweep` as a whole has no run folder. Raises
    `ConfigError`, and OmegaConf's own error for an interpolation that cannot be resolved.
    """
    from omegaconf import OmegaConf, open_dict, read_write

    def value(name: str) -> Any:
        node = OmegaConf.select(cfg, name)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

    keys = ["hydra.sweep.dir"] if sweep else ["hydra.run.dir", "hydra.sweep.dir"]
    places = {key: check_place(key, value(key), spelt=line.get(key)) for key in keys}
    launcher, sweeper, verbose = value("hydra.launcher"), value("hydra.sweeper"), value("hydra.verbose")
    _check_launcher(launcher)
    _check_sweeper(sweeper)
    check_swept(sweeper.get("params") or {}, line)
    if not isinstance(verbose, bool | str) and not (
        isinstance(verbose, list) and all(isinstance(name, str) for name in verbose)
    ):
        raise ConfigError(f"hydra.verbose: expected true, false, or names of loggers, {found(verbose)}")
    if "hydra.job.name" in line and not re.fullmatch(r"\w[\w.-]*", str(value("hydra.job.name"))):
        raise ConfigError(
            f"hydra.job.name: expected letters, digits, '.', '_' and '-', {found(value('hydra.job.name'))}"
        )
    if line.get("hydra.output_subdir") is not None:
        raise ConfigError("hydra.output_subdir: expected null, since the run folder has config.yaml")
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        for key, place in places.items():
            OmegaConf.update(cfg, key, str(place))
        cfg.hydra.launcher, cfg.hydra.sweeper, cfg.hydra.verbose = launcher, sweeper, verbose


def _check_launcher(node: Any) -> None:
    """Refuses a launcher that is no plugin of Hydra, and classes among its options."""
    from hydra.plugins.launcher import Launcher

    _check_plugin(node, "hydra.launcher", Launcher)
    check_launcher(node)
    for path, value in flat(node, "hydra.launcher"):
        if path != "hydra.launcher._target_" and re.search(r"\._", path):
            raise ConfigError(f"{path}: not allowed, {found(value)}")


def _check_sweeper(node: Any) -> None:
    """Refuses a sweeper that is no plugin of Hydra, functions among its options, and keys that are no overrides."""
    from hydra.plugins.sweeper import Sweeper

    _check_plugin(node, "hydra.sweeper", Sweeper)
    for key in node.get("params") or {}:
        if not isinstance(key, str) or not PARAMETER.fullmatch(key) or re.match(r"[+~]*hydra(\W|$)", key):
            raise ConfigError(
                f"hydra.sweeper.params.{key}: not allowed. Its keys are those of the config, such as optim.lr."
            )
    for path, value in flat(node, "hydra.sweeper"):
        if path == "hydra.sweeper._target_":
            continue
        sampler = path.endswith("._target_") and SAMPLER.fullmatch(str(value))
        function = path == "hydra.sweeper.custom_search_space" and value is not None  # imported and called
        if function or (re.search(r"\._", path.replace("hydra.sweeper.params.", "")) and not sampler):
            raise ConfigError(f"{path}: not allowed, {found(value)}")


def _check_plugin(node: Any, path: str, kind: type) -> None:
    from hydra.core.plugins import Plugins

    names = [f"{each.__module__}.{each.__name__}" for each in Plugins.instance().discover(kind)]
    target = node.get("_target_") if isinstance(node, dict) else node
    if target not in names:
        raise ConfigError(f"{path}._target_: {found(target)}, expected one of {', '.join(sorted(names))}")
