"""Sweeps: a Hydra launcher that starts one fresh process per job.

With Hydra's own launcher the jobs share one process, and Lightning's DDP then replays the whole sweep in
every rank (lightning #11300). Here a job is an ordinary run: DDP works in it, and a crash ends it alone.
"""

from __future__ import annotations

import codecs
import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf, read_write

from dvsn.atomic import replacing
from dvsn.config import compose, rules
from dvsn.config.types import whole
from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

TARGET = "hydra_plugins.dvsn.ProcessLauncher"  # Hydra takes launchers from this package only
GRACE = 60.0  # seconds in which an interrupted job may write its checkpoint
LONG = 60  # characters of the options of one group in the name of a sweep
TICK = 0.05  # seconds between looks at the jobs
QUIET = 10.0  # seconds between two updates of a progress bar that are shown, of each of several jobs
DDP_VARIABLES = {
    "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "HYDRA_MAIN_MODULE",
}  # fmt: skip
PARENT_ONLY = ("hydra.mode", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra.run.dir",
               "hydra/launcher", "hydra/sweeper")  # fmt: skip


@dataclass
class Job:
    """A finished job of a sweep."""

    number: int
    overrides: list[str]
    folder: Path
    code: int
    seconds: float
    result: float | None
    error: str


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
        asked: dict[Process, int] = {}  # a job that is repeated has the number of its folder
        with Pool(OmegaConf.select(self.config, "sweep.jobs", default=1)) as pool:

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

    def _answer(self, job: Job, overrides: Sequence[str]) -> JobReturn:
        answer = JobReturn(
            overrides=filter_overrides(list(overrides)), working_dir=str(Path.cwd()), task_name="process"
        )
        # A sweeper that only enumerates has no use for a failure; one that searches must hear of it.
        enumerates = str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        failed = job.code != 0 and not enumerates
        answer.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
        answer.return_value = RuntimeError(f"job {job.number}: {job.error}") if failed else job.result
        return answer

    def _refuse_if_all_are_wrong(self, job_overrides: Sequence[Sequence[str]]) -> None:
        """A mistake that every job shares ends the sweep at once; one that fits is enough to start it."""
        shared = [str(o) for o in self.config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
        faults = []
        for overrides in job_overrides:
            try:
                compose.preflight(*compose.compose(
                    self.context.config_loader, self.config.hydra.job.config_name, [*shared, *overrides]
                ))  # fmt: skip
                return
            except ConfigError as error:
                faults.append(error)
        if faults:
            raise faults[0]


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """What makes a job what it is: its overrides, less those of Hydra and of the sweep itself."""
    own = filter_overrides(list(overrides))
    return sorted(each for each in own if not each.lstrip("+").startswith("sweep."))


def find_place(folder: Path, number: int, overrides: Sequence[str]) -> Path:
    """The folder of a job in a repeated sweep: that of the same overrides, else its number, else the next free one."""
    wanted = own_overrides(overrides)
    for file in sorted(folder.glob("*/job.json")):
        with suppress(OSError, ValueError):
            if json.loads(file.read_text(encoding="utf-8")).get("overrides") == wanted:
                return file.parent
    taken = {item.name for item in folder.glob("*")}
    while str(number) in taken:
        number += 1
    return folder / str(number)


def finished_before(folder: Path, overrides: Sequence[str]) -> Job:
    """A job of an earlier sweep that need not run again."""
    sys.stdout.write(f"[sweep] job {folder.name}: finished before\n")
    result = read_result(folder / "result.json")
    return Job(int(folder.name), list(filter_overrides(list(overrides))), folder, 0, 0.0, result, "")


ProcessLauncher.__module__ = TARGET.rpartition(".")[0]
_active: list[ProcessLauncher] = []


def register() -> None:
    """Makes `hydra/launcher=process` known to Hydra, which looks for launchers in one package only."""
    try:
        package = importlib.import_module("hydra_plugins")
    except ImportError:  # no plugin is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    package.dvsn = sys.modules[ProcessLauncher.__module__] = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(ProcessLauncher)
    ConfigStore.instance().store(
        group="hydra/launcher", name="process", node={"_target_": TARGET}, provider="dvsn"
    )


def sweep(
    hydra: Hydra, name: str, task: Callable[[DictConfig], Any], overrides: list[str], cfg: DictConfig
) -> Any:
    """The jobs of a sweep with the configured launcher; then a table. SystemExit(1) when any has failed.

    `cfg` is the composed config without the swept values. Raises `ConfigError` where the jobs would share a
    process and several devices are asked for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "-m: start a sweep as one process, without torchrun: each job starts its own processes"
        )
    _active.clear()
    chosen = any(override.startswith("hydra/launcher=") for override in overrides)
    if not chosen and str(cfg.hydra.launcher._target_).endswith(".BasicLauncher"):
        overrides = [*overrides, "hydra/launcher=process"]  # ours instead of Hydra's own default
        cfg.hydra.launcher._target_ = TARGET
    separate = cfg.hydra.launcher._target_ == TARGET
    refuse_jobs(cfg, separate=separate)
    if not separate:
        refuse_devices(cfg)
    name_choices(cfg, overrides)
    HydraConfig.instance().set_config(cfg)  # hydra.sweep.dir holds ${name}, which reads ${hydra:...}
    with compose.translated(name, hydra.config_loader):
        result = hydra.multirun(
            config_name=name, task_function=task if separate else SharedTask(task), overrides=overrides
        )
    jobs = [job for launcher in _active for job in launcher.finished]
    if separate:
        sys.stdout.write(summary(jobs))
        sys.stdout.write(distilled(jobs))
        if any(job.code for job in jobs):
            raise SystemExit(1)
    return result


def name_choices(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Put the swept options of a group into the sweep's own choices, so that `${name}` tells what the sweep is about.

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
    """A task whose jobs share a process (or are pickled by a launcher): several devices are refused."""

    def __init__(self, task: Callable[[DictConfig], Any]) -> None:
        self.task = task
        self.__module__ = getattr(task, "__module__", __name__)

    def __call__(self, cfg: DictConfig) -> Any:
        refuse_devices(cfg)
        rules.validate(compose.plain(cfg))
        return self.task(cfg)


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


def refuse_jobs(cfg: DictConfig, *, separate: bool) -> None:
    """Raises `ConfigError` for a `sweep.jobs` that is no number of jobs, or is not for the chosen launcher."""
    jobs = OmegaConf.select(cfg, "sweep.jobs", default=1)
    if not whole(jobs, 1):
        raise ConfigError(f"sweep.jobs: found {jobs!r}, expected a whole number, 1 or more.")
    if jobs > 1 and not separate:
        raise ConfigError(
            f"sweep.jobs: found {jobs} with {cfg.hydra.launcher._target_}, which has options of its own for that. "
            "Leave out sweep.jobs, or use hydra/launcher=process."
        )


def _command() -> list[str]:
    """How this program was started, as Lightning does it for its ranks."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    return (
        [sys.executable, "-m", spec.name]
        if spec is not None
        else [sys.executable, str(Path(sys.argv[0]).absolute())]
    )


def shared_arguments(config: DictConfig, *, name: str | None = None) -> list[str]:
    """Flags and Hydra overrides of the command line that its jobs need too. `name` is that of their config, if another."""
    arguments = [str(o) for o in config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
    arguments.append(f"--config-name={name or config.hydra.job.config_name}")
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            arguments.append(f"--config-dir={source.path}")
    return arguments


# Processes ---------------------------------------------------------------------------------------------------


class Process:
    """A job that runs: its output goes to `output.log` in its folder and, each line after `prefix`, to the console."""

    def __init__(
        self,
        number: int,
        overrides: Sequence[str],
        folder: Path,
        popen: subprocess.Popen[bytes],
        *,
        prefix: str,
    ) -> None:
        self.number, self.overrides, self.folder, self.popen = number, list(overrides), folder, popen
        self.begin, self.deadline, self.seconds = time.monotonic(), math.inf, 0.0
        self.tail = bytearray()
        console = Lines(prefix) if prefix else Stream()
        self.reader = threading.Thread(target=self._copy, args=(console,), daemon=True)
        self.reader.start()

    def _copy(self, console: Stream) -> None:
        assert self.popen.stdout is not None
        with (self.folder / "output.log").open("ab") as output:
            while chunk := os.read(self.popen.stdout.fileno(), 65536):
                output.write(chunk)
                output.flush()
                self.tail += chunk
                del self.tail[:-8192]
                console.write(chunk)
        console.write(b"", last=True)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the job, once, to stop: it may write its checkpoint, and is killed after `GRACE` seconds."""
        if self.deadline == math.inf:
            self.deadline = time.monotonic() + GRACE
            self.send(number)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)

    def ended(self) -> bool:
        if self.popen.poll() is None:
            if time.monotonic() < self.deadline:
                return False
            self.send(signal.SIGKILL)
            self.popen.wait()
        if self.popen.returncode != 0:
            self.send(signal.SIGKILL)  # what a crash left behind, such as other ranks
        self.seconds = self.seconds or time.monotonic() - self.begin
        self.reader.join(timeout=5)
        return True

    def job(self) -> Job:
        """What became of it, once it has ended."""
        code = self.popen.returncode
        error = "" if code == 0 else _reason(self.tail.decode("utf-8", "replace"), code)
        overrides, result = filter_overrides(self.overrides), read_result(self.folder / "result.json")
        return Job(self.number, list(overrides), self.folder, code, self.seconds, result, error)


class Pool:
    """Up to `size` jobs at a time, each a process with a folder of its own.

    A context: Ctrl-C and SIGTERM stop all jobs politely and leave it as KeyboardInterrupt and SystemExit(143), a second
    signal kills them; so does any exception inside. `what` and `unit` are the words of the messages, `files` the
    descriptors that the jobs inherit.
    """

    def __init__(
        self,
        size: int,
        *,
        what: str = "sweep",
        unit: str = "job",
        group: str | None = None,
        files: Sequence[int] = (),
    ) -> None:
        self.size, self.what, self.unit, self.group, self.files = size, what, unit, group, tuple(files)
        self.running: list[Process] = []
        self._signals: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only noted, so that none is lost between the start of a job and its place in the list. What was ignored stays so.
        for number in (signal.SIGINT, signal.SIGTERM):
            main = threading.current_thread() is threading.main_thread()
            if main and signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, lambda got, _: self._signals.append(got))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(signal.SIGTERM)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def full(self) -> bool:
        return len(self.running) >= self.size

    def start(
        self,
        number: int,
        overrides: Sequence[str],
        folder: Path,
        command: Sequence[str],
        *,
        again: bool = False,
    ) -> Process:
        """Start `command` with the overrides, in `folder`, emptied of an earlier result unless the job goes on `again`."""
        sys.stdout.write(
            f"[{self.what}] {self.unit} {number}: {' '.join(filter_overrides(list(overrides)))}\n"
        )
        sys.stdout.flush()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json",) if again else ("result.json", "output.log"):
            (folder / name).unlink(missing_ok=True)
        with replacing(folder / "job.json") as temporary:
            temporary.write_text(json.dumps({"overrides": own_overrides(overrides)}), encoding="utf-8")
        place = f"hydra.run.dir={json.dumps(str(folder), ensure_ascii=False)}"
        # A process group of its own: Ctrl-C reaches the job through us, once.
        popen = subprocess.Popen(
            [*command, *overrides, place], env=self._environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, process_group=0, pass_fds=self.files,
        )  # fmt: skip
        prefix = f"[{number}] " if self.size > 1 else ""
        process = Process(number, overrides, folder, popen, prefix=prefix)
        self.running.append(process)
        return process

    def _environment(self, folder: Path) -> dict[str, str]:
        drop = ("TORCHELASTIC_", "TORCHRUN_")
        kept = {k: v for k, v in os.environ.items() if k not in DDP_VARIABLES and not k.startswith(drop)}
        kept.setdefault("PYTHONUNBUFFERED", "1")
        kept.setdefault(
            "WANDB_RUN_GROUP", self.group or folder.parent.name
        )  # the jobs of a sweep are one group
        if self.size > 1:
            kept.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.size)))
        return kept

    def wait(self, seconds: float = math.inf) -> list[Process]:
        """The jobs that have ended, as soon as there are any; after `seconds` also none."""
        end = time.monotonic() + seconds
        while True:
            if self._signals:
                self._interrupt(self._signals[0])
            ended = [process for process in self.running if process.ended()]
            if ended or time.monotonic() >= end:
                break
            time.sleep(TICK)
        self.running = [process for process in self.running if process not in ended]
        for process in ended:
            code = process.popen.returncode
            if code != 0 and process.deadline == math.inf:
                reason = process.job().error
                sys.stderr.write(
                    f"[{self.what}] {self.unit} {process.number} failed with exit code {code}: {reason}\n"
                )
        return ended

    def _interrupt(self, number: int) -> None:
        names = [str(process.number) for process in self.running]
        self._stop(number)
        text = f"the {self.what} was stopped"
        if names:
            plural, was, it = ("s", "were", "them") if len(names) > 1 else ("", "was", "it")
            text = f"{self.unit}{plural} {', '.join(names)} {was} stopped, and the {self.what} with {it}"
        if number == signal.SIGTERM:
            sys.stderr.write(f"stopped by SIGTERM: {text}\n")
            raise SystemExit(143)
        raise KeyboardInterrupt(text)

    def _stop(self, number: int) -> None:
        """Stops all jobs: asks them, waits, and kills those that are left or, at one more signal, at once."""
        seen = len(self._signals)
        for process in self.running:
            process.stop(number)
        while self.running:
            if len(self._signals) > seen:
                for process in self.running:
                    process.deadline = 0.0
            self.running = [process for process in self.running if not process.ended()]
            time.sleep(TICK if self.running else 0.0)


class Stream:
    """The console, for the output of one job."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, chunk: bytes, *, last: bool = False) -> None:
        sys.stdout.write(self.decoder.decode(chunk, last))
        sys.stdout.flush()


class Lines(Stream):
    """The console, for one of several jobs: whole lines after a prefix, and of a progress bar an update now and then."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix, self.rest, self.shown = prefix, "", -math.inf

    def write(self, chunk: bytes, *, last: bool = False) -> None:
        *lines, self.rest = re.split(
            r"(?<=[\r\n])", self.rest + self.decoder.decode(chunk, last) + "\n" * last
        )
        now = time.monotonic()
        for line in lines:
            if line.strip() and (line.endswith("\n") or now - self.shown > QUIET):
                sys.stdout.write(
                    f"{self.prefix}{line.rstrip()}\n"
                )  # one call, so that lines of two jobs do not mix
                self.shown = now
        sys.stdout.flush()


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_result(file: Path) -> float | None:
    """The number a job left for the sweeper: "objective", or else "score". None where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key in ("objective", "score"):
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _reason(tail: str, code: int) -> str:
    """Why a job failed: its last message, else its last lines."""
    lines = [line.strip() for line in tail.replace("\r", "\n").splitlines() if line.strip()]
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith(("error: ", "internal error: ", "interrupted", "stopped by")):
            return lines[i]
    ended = f"ended by signal {signal.Signals(-code).name}" if code < 0 else ""
    return " | ".join(filter(None, [ended, *lines[-3:]])) or f"no output, exit code {code}"


def distilled(jobs: Sequence[Job]) -> str:
    """The report of a sweep in which jobs learned from a teacher; nothing where none did, or none has finished."""
    from dvsn.errors import DataError

    if not any(_distils(job.folder / "config.yaml") for job in jobs if job.code == 0):
        return ""
    from dvsn.sweep.report import report

    try:
        return "\n" + report(jobs[0].folder.parent)
    except DataError as error:
        return f"[sweep] no report: {error}\n"


def _distils(file: Path) -> bool:
    import yaml

    if not file.is_file():
        return False
    return bool((yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("distill"))


def summary(jobs: Sequence[Job]) -> str:
    """A line per job: number, state, seconds, result, overrides, and the error of a failed one."""
    good = sum(job.code == 0 for job in jobs)
    lines = [f"[sweep] {good} of {len(jobs)} jobs finished"]
    for job in jobs:
        state = "finished" if job.code == 0 else f"FAILED ({job.code})"
        result = "-" if job.result is None or math.isnan(job.result) else f"{job.result:.6g}"
        words = [*job.overrides, job.error[:160]]
        lines.append(
            f"  {job.number:>3}  {state:<12} {job.seconds:7.1f} s  {result:>10}  {' '.join(words).rstrip()}"
        )
    if jobs:
        lines.append(f"  results: {jobs[0].folder.parent}")
    return "\n".join(lines) + "\n"
