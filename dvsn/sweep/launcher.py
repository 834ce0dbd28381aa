"""Sweeps: a Hydra launcher that starts one fresh process per job.

With Hydra's own launcher the jobs share one process, and Lightning's DDP then replays the whole sweep in
every rank (lightning #11300). Here a job is an ordinary run: DDP works in it, and a crash ends it alone.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import OmegaConf, read_write

from dvsn.config import compose, hydra_node, launchers, rules
from dvsn.config.folders import cleared, new_sweep, not_there
from dvsn.config.types import whole
from dvsn.errors import ConfigError, DataError
from dvsn.sweep import cluster
from dvsn.sweep.job import Job, filtered, find_place, read_result, summary
from dvsn.sweep.pool import Pool

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

TARGET = "hydra_plugins.dvsn.ProcessLauncher"  # Hydra takes launchers from this package only
LONG = 60  # characters of the options of one group in the name of a sweep
PARENT_ONLY = ("hydra.mode", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra.run.dir",
               "hydra/launcher", "hydra/sweeper")  # fmt: skip


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep, `sweep.jobs` at a time, each as `python -m <this command> <overrides>`.

    Jobs that run at the same time share the devices that the config names. A job writes into `<hydra.sweep.dir>/<number>`:
    its output to `output.log`, and its result, which the sweeper gets, is read from `result.json`, key "objective" (or
    "score").

    With `sweep.skip_finished=true` and the `hydra.sweep.dir` of an earlier sweep, a job of the same overrides that has a
    result there is not run again; one that failed runs in its old folder, and new ones take the next free numbers.
    """

    finished: list[Job]

    def __init__(self) -> None:
        super().__init__()
        self.finished = []
        _active.append(self)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        command = [*_command(), *shared_arguments(self.config)]
        self._refuse_if_all_are_wrong(job_overrides)
        repeated = bool(OmegaConf.select(self.config, "sweep.skip_finished", default=False))
        jobs: dict[int, Job] = {}
        asked: dict[Any, int] = {}  # a job that is repeated has the number of its folder
        with self.pool(folder) as pool:

            def collect() -> None:
                jobs.update((asked[process], process.job()) for process in pool.wait())

            for number, overrides in enumerate(map(list, job_overrides), initial_job_idx):
                while pool.full:
                    collect()
                place = find_place(folder, number, overrides) if repeated else folder / str(number)
                while any(process.folder == place for process in pool.running):  # the same job twice
                    collect()
                if repeated and (place / "result.json").is_file():
                    jobs[number] = finished_before(place, overrides)
                else:
                    asked[pool.start(int(place.name), overrides, place, command)] = number
            while pool.running:
                collect()
        ordered = [jobs[number] for number in sorted(jobs)]
        self.finished += ordered
        return [self._answer(job, overrides) for job, overrides in zip(ordered, job_overrides, strict=True)]

    def pool(self, folder: Path) -> Any:
        """Who runs the jobs of a sweep in this folder."""
        return Pool(OmegaConf.select(self.config, "sweep.jobs", default=1))

    def _answer(self, job: Job, overrides: Sequence[str]) -> JobReturn:
        answer = JobReturn(overrides=filtered(overrides), working_dir=str(Path.cwd()), task_name="process")
        # A sweeper that only enumerates has no use for a failure; one that searches must hear of it.
        enumerates = str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        failed = job.code != 0 and not enumerates
        answer.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
        answer.return_value = RuntimeError(f"job {job.number}: {job.error}") if failed else job.result
        return answer

    def _refuse_if_all_are_wrong(self, job_overrides: Sequence[Sequence[str]]) -> None:
        """Raises the `ConfigError` of the first job when the configs of all jobs are wrong; one that is right is enough."""
        shared = [str(o) for o in self.config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
        faults = []
        for overrides in job_overrides:
            try:
                loader, name = self.context.config_loader, self.config.hydra.job.config_name
                composed = compose.compose(loader, name, [*shared, *overrides])
                compose.preflight(composed, trains=name != "evaluate")
                return
            except ConfigError as error:
                faults.append(error)
        if faults:
            raise faults[0]


def finished_before(folder: Path, overrides: Sequence[str]) -> Job:
    """A job of an earlier sweep that need not run again."""
    sys.stdout.write(f"[sweep] job {folder.name}: finished before\n")
    result = read_result(folder / "result.json")
    return Job(int(folder.name), filtered(overrides), folder, 0, 0.0, result, "")


class ClusterLauncher(ProcessLauncher):
    """The same jobs, handed to a scheduler: what it is sent are words of the command line. Options: `launchers.OPTIONS`."""

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def pool(self, folder: Path) -> Any:
        most = (
            OmegaConf.select(self.config, "sweep.jobs", default=1) if self.name == "submitit_local" else None
        )
        made = cluster.backend(self.name, self.options, folder)
        return cluster.ClusterPool(made, group=os.environ.get("WANDB_RUN_GROUP", folder.name), most=most)


class SubmititLocalLauncher(ClusterLauncher):
    """Processes of this machine, by submitit: the same way as SLURM, to try a sweep before it is sent there."""

    name = "submitit_local"


class SubmititSlurmLauncher(ClusterLauncher):
    """Jobs of SLURM, as one array."""

    name = "submitit_slurm"


class RayLauncher(ClusterLauncher):
    """Tasks of a Ray cluster."""

    name = "ray"


CLUSTERS = (SubmititLocalLauncher, SubmititSlurmLauncher, RayLauncher)
for _each in (ProcessLauncher, *CLUSTERS):
    _each.__module__ = TARGET.rpartition(".")[0]
_active: list[ProcessLauncher] = []


@functools.cache
def register() -> None:
    """Makes `hydra/launcher=process` known to Hydra, which looks for launchers in one package only."""
    try:
        package = importlib.import_module("hydra_plugins")
    except ImportError:  # no plugin is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    package.dvsn = sys.modules[ProcessLauncher.__module__] = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(ProcessLauncher)
    for each in CLUSTERS:
        Plugins.instance().register(each)
        ConfigStore.instance().store(
            group="hydra/launcher", name=each.name, node=launchers.node(each.name), provider="dvsn"
        )
    ConfigStore.instance().store(
        group="hydra/launcher", name="process", node={"_target_": TARGET}, provider="dvsn"
    )


def run(name: str, job: compose.Job, **options: Any) -> Any:
    """The command line of the config `name`, once or for every job of a sweep; `options` are those of `hydra_main`."""
    register()
    return compose.hydra_main(name, job, sweep=sweep, **options)


def sweep(session: compose.Session, composed: compose.Composed, job: compose.Job) -> Any:
    """The jobs of a sweep with the configured launcher; then a table. SystemExit(1) when any has failed.

    `composed` is the config without the swept values. Raises `ConfigError` where the jobs would share a process and
    several devices are asked for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "-m: start a sweep as one process, without torchrun: each job starts its own processes"
        )
    _active.clear()
    cfg = composed.cfg
    separate = choose_launcher(cfg, composed.line)
    refuse_jobs(cfg)
    if not separate:
        refuse_devices(cfg)
    name_choices(cfg, session.overrides)
    context = HydraContext(config_loader=JobLoader(session.loader), callbacks=NoCallbacks())  # type: ignore[arg-type]
    with made_folder(session, composed), compose.translated(session.name, session.loader):
        sweeper = Plugins.instance().instantiate_sweeper(
            hydra_context=context, task_function=job if separate else SharedTask(job), config=cfg
        )
        result = sweeper.sweep(arguments=list(cfg.hydra.overrides.task))
    jobs = [each for launcher in _active for each in launcher.finished]
    if separate:
        sys.stdout.write(summary(jobs))
        sys.stdout.write(distilled(jobs))
        if any(each.code for each in jobs):
            raise SystemExit(1)
    return result


def choose_launcher(cfg: DictConfig, line: Mapping[str, Any]) -> bool:
    """Put ours in the place of Hydra's default launcher, unless the command line asks for that. True for ours."""
    with read_write(cfg.hydra):
        cfg.hydra.mode = RunMode.MULTIRUN
        if "hydra/launcher" not in line and str(cfg.hydra.launcher._target_).endswith(".BasicLauncher"):
            cfg.hydra.launcher._target_ = TARGET
    return str(cfg.hydra.launcher._target_) in (TARGET, *launchers.TARGETS.values())


@contextmanager
def made_folder(session: compose.Session, composed: compose.Composed) -> Iterator[None]:
    """Resolve and check Hydra's node, and make the folder of the sweep for it alone; a refused sweep leaves none.
    Raises `ConfigError`."""
    cfg = composed.cfg
    named = str(OmegaConf.to_container(cfg.hydra.sweep, resolve=False))
    HydraConfig.instance().set_config(cfg)  # hydra.sweep.dir holds ${name}, which reads ${hydra:...}
    with compose.translated(session.name, session.loader):
        hydra_node.settle(cfg, composed.line, sweep=True)
    again = bool(OmegaConf.select(cfg, "sweep.skip_finished", default=False))
    wanted, given = Path(cfg.hydra.sweep.dir), "${now:" not in named
    missing = not_there(wanted)
    folder = new_sweep(wanted, given=given, again=again)
    with read_write(cfg.hydra):
        cfg.hydra.sweep.dir = str(folder)
    made = [folder, *missing[1:]] if not given or missing else []
    with cleared(folder, made):
        yield


class JobLoader:
    """Hydra's loader of configs, with which sweepers and launchers compose jobs: each is checked as a single run is."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not there yet, while it is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """The config of one job, which writes into the folder of the sweep. Raises `ConfigError`."""
        overrides = [*master_config.hydra.overrides.hydra, *sweep_overrides]
        cfg = compose.compose(self.loader, master_config.hydra.job.config_name, overrides).cfg
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the same ${now:...} for all
        cfg.hydra.sweep.dir = master_config.hydra.sweep.dir
        return cfg


class NoCallbacks:
    """In place of Hydra's callbacks, which a config must not have: nothing happens at any event."""

    def __getattr__(self, event: str) -> Callable[..., None]:
        if not event.startswith("on_"):
            raise AttributeError(event)
        return lambda **_: None


def name_choices(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Put the swept options of a group into the config of the sweep, so that `${name}`, which names its folder, has them.

    `network=unet_128,resnet_6blocks` gives `unet_128+resnet_6blocks`; more than `LONG` characters give `2_network`.
    """
    choices = cfg.hydra.runtime.choices
    for each in OverridesParser.create().parse_overrides(list(overrides)):
        if each.is_sweep_override() and each.key_or_group in choices:
            swept = list(each.sweep_string_iterator())
            joined = "+".join(swept)
            with read_write(choices):
                choices[each.key_or_group] = (
                    joined if len(joined) <= LONG else f"{len(swept)}_{each.key_or_group}"
                )


class SharedTask:
    """The function that Hydra's other launchers call for each job. They share a process, so several devices are refused."""

    def __init__(self, job: compose.Job) -> None:
        self.job = job
        self.__module__ = getattr(job, "__module__", __name__)

    def __call__(self, cfg: DictConfig) -> Any:
        refuse_devices(cfg)
        tree = compose.plain(cfg)
        rules.validate(tree)
        return self.job(tree)


def refuse_devices(cfg: DictConfig) -> None:
    """Raises `ConfigError` for a job that would start DDP processes, which would replay the sweep."""
    devices = OmegaConf.select(cfg, "trainer.devices", throw_on_missing=False)
    strategy = str(OmegaConf.select(cfg, "trainer.strategy", throw_on_missing=False))
    several = devices in (-1, "-1") or (isinstance(devices, int) and devices > 1)
    if isinstance(devices, str):
        several |= "," in devices.strip(",") or (devices.isdecimal() and int(devices) > 1)
    elif OmegaConf.is_list(devices):
        several |= len(devices) > 1
    if "spawn" in strategy or "fork" in strategy:
        return
    if several or strategy.startswith(("ddp", "fsdp", "deepspeed")):
        found = f"trainer.devices={devices}" if several else f"trainer.strategy={strategy}"
        raise ConfigError(
            f"{found}: a sweep over several devices needs a process per job: use hydra/launcher=process, "
            "or trainer.strategy=ddp_spawn"
        )


def refuse_jobs(cfg: DictConfig) -> None:
    """Raises `ConfigError` for a `sweep.jobs` that is no number of jobs, or is not for the chosen launcher."""
    jobs = OmegaConf.select(cfg, "sweep.jobs", default=1)
    if not whole(jobs, 1):
        raise ConfigError(f"sweep.jobs: found {jobs!r}, expected a whole number, 1 or more.")
    target = str(cfg.hydra.launcher._target_)
    if jobs > 1 and target not in (TARGET, launchers.TARGETS["submitit_local"]):
        raise ConfigError(
            f"sweep.jobs: found {jobs} with {target}, which has options of its own for that. "
            "Leave out sweep.jobs, or use hydra/launcher=process."
        )


def _command() -> list[str]:
    """The command by which this program was started: `python -m MODULE`, or `python FILE`."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    return (
        [sys.executable, "-m", spec.name]
        if spec is not None
        else [sys.executable, str(Path(sys.argv[0]).absolute())]
    )


def shared_arguments(config: DictConfig, *, name: str | None = None) -> list[str]:
    """Flags and Hydra overrides of the command line that jobs need too. `name` is the jobs' config, by default the same."""
    arguments = [str(o) for o in config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
    arguments.append(f"--config-name={name or config.hydra.job.config_name}")
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            arguments.append(f"--config-dir={source.path}")
    return arguments


def distilled(jobs: Sequence[Job]) -> str:
    """The text of the report of a distillation sweep; empty for another sweep, and where no job has finished."""
    if not any(_distils(job.folder / "config.yaml") for job in jobs if job.code == 0):
        return ""
    from dvsn.report.command import report  # the tables, which most sweeps do without

    try:
        return "\n" + report(jobs[0].folder.parent)
    except DataError as error:
        return f"[sweep] no report: {error}\n"


def _distils(file: Path) -> bool:
    import yaml

    if not file.is_file():
        return False
    return bool((yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("distill"))
