"""Sweeps: a Hydra launcher that starts one fresh process per job.

With Hydra's own launcher the jobs share one process, and Lightning's DDP then replays the whole sweep in
every rank (lightning #11300). Here a job is an ordinary run: DDP works in it, and a crash ends it alone.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf

from dvsn import commands, config
from dvsn.atomic import replacing
from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

TARGET = "hydra_plugins.dvsn.ProcessLauncher"  # Hydra takes launchers from this package only
GRACE = 60.0  # seconds in which an interrupted job may write its checkpoint
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
    """Runs the jobs of a sweep one after another, each as `python -m <this command> <overrides>`.

    A job writes into `<hydra.sweep.dir>/<number>`: its output to `output.log`, and its result, which
    the sweeper gets, is read from `result.json`, key "objective" (or "score").

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
        shared = _shared_arguments(self.config)
        enumerates = str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        returns: list[JobReturn] = []
        self._refuse_if_all_are_wrong(job_overrides)
        repeated = bool(OmegaConf.select(self.config, "sweep.skip_finished", default=False))
        for number, overrides in enumerate(map(list, job_overrides), initial_job_idx):
            place = find_place(folder, number, overrides) if repeated else folder / str(number)
            done = repeated and (place / "result.json").is_file()
            job = (
                finished_before(place, overrides)
                if done
                else self._run(int(place.name), overrides, place, shared)
            )
            self.finished.append(job)
            answer = JobReturn(
                overrides=filter_overrides(overrides), working_dir=str(Path.cwd()), task_name="process"
            )
            # A sweeper that only enumerates has no use for a failure; one that searches must hear of it.
            failed = job.code != 0 and not enumerates
            answer.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            answer.return_value = RuntimeError(f"job {number}: {job.error}") if failed else job.result
            returns.append(answer)
        return returns

    def _refuse_if_all_are_wrong(self, job_overrides: Sequence[Sequence[str]]) -> None:
        """A mistake that every job shares ends the sweep at once; one that fits is enough to start it."""
        shared = [str(o) for o in self.config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
        faults = []
        for overrides in job_overrides:
            try:
                commands.preflight(*commands.compose(
                    self.context.config_loader, self.config.hydra.job.config_name, [*shared, *overrides]
                ))  # fmt: skip
                return
            except ConfigError as error:
                faults.append(error)
        if faults:
            raise faults[0]

    def _run(self, number: int, overrides: list[str], folder: Path, shared: list[str]) -> Job:
        sys.stdout.write(f"[sweep] job {number}: {' '.join(filter_overrides(overrides))}\n")
        sys.stdout.flush()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)  # of an earlier sweep into the same folder
        with replacing(folder / "job.json") as temporary:
            temporary.write_text(json.dumps({"overrides": own_overrides(overrides)}), encoding="utf-8")
        place = f"hydra.run.dir={json.dumps(str(folder), ensure_ascii=False)}"
        begin = time.monotonic()
        code, tail = _stream([*_command(), *shared, *overrides, place], folder / "output.log", number)
        job = Job(number, list(filter_overrides(overrides)), folder, code, time.monotonic() - begin,
                  read_result(folder / "result.json"), "" if code == 0 else _reason(tail, code))  # fmt: skip
        if code != 0:
            sys.stderr.write(f"[sweep] job {number} failed with exit code {code}: {job.error}\n")
        return job


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
    if not separate:
        refuse_devices(cfg)
    with commands.translated(name, hydra.config_loader):
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


class SharedTask:
    """A task whose jobs share a process (or are pickled by a launcher): several devices are refused."""

    def __init__(self, task: Callable[[DictConfig], Any]) -> None:
        self.task = task
        self.__module__ = getattr(task, "__module__", __name__)

    def __call__(self, cfg: DictConfig) -> Any:
        refuse_devices(cfg)
        config.validate(commands.plain(cfg))
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


def _command() -> list[str]:
    """How this program was started, as Lightning does it for its ranks."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    return (
        [sys.executable, "-m", spec.name]
        if spec is not None
        else [sys.executable, str(Path(sys.argv[0]).absolute())]
    )


def _shared_arguments(config: DictConfig) -> list[str]:
    """Flags and Hydra overrides of the sweep's own command line that its jobs need too."""
    arguments = [str(o) for o in config.hydra.overrides.hydra if not str(o).startswith(PARENT_ONLY)]
    arguments.append(f"--config-name={config.hydra.job.config_name}")
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            arguments.append(f"--config-dir={source.path}")
    return arguments


def _stream(command: Sequence[str], logfile: Path, number: int) -> tuple[int, str]:
    """Runs a command; its output goes to the console and `logfile`. Returns the exit code and last text."""
    environment = {key: value for key, value in os.environ.items() if key not in DDP_VARIABLES}
    environment = {k: v for k, v in environment.items() if not k.startswith(("TORCHELASTIC_", "TORCHRUN_"))}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("WANDB_RUN_GROUP", logfile.parent.parent.name)  # the jobs of a sweep are one group
    tail = bytearray()
    with logfile.open("wb") as output:
        # A process group of its own: Ctrl-C reaches the job through us, once.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, process_group=0)  # fmt: skip
        assert process.stdout is not None
        reader = threading.Thread(target=_copy, args=(process.stdout, output, tail), daemon=True)
        reader.start()
        try:
            with _terminate_as_exit():
                process.wait()
        except (KeyboardInterrupt, SystemExit) as stop:
            _stop(process, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            reader.join(timeout=2)
            if isinstance(stop, SystemExit):
                sys.stderr.write(f"stopped by SIGTERM: job {number} was stopped, and the sweep with it\n")
                raise
            raise KeyboardInterrupt(f"job {number} was stopped, and the sweep with it") from None
        if process.returncode != 0:
            _signal(process, signal.SIGKILL)  # what a crash left behind, such as other ranks
        reader.join(timeout=5)
    return process.returncode, tail.decode("utf-8", "replace")


def _copy(source: BinaryIO, output: BinaryIO, tail: bytearray) -> None:
    while chunk := os.read(source.fileno(), 65536):
        if not output.closed:
            output.write(chunk)
            output.flush()
        tail += chunk
        del tail[:-8192]
        sys.stdout.write(chunk.decode("utf-8", "replace"))
        sys.stdout.flush()


@contextmanager
def _terminate_as_exit() -> Iterator[None]:
    """SIGTERM becomes SystemExit(143) inside, so that the job can be told."""

    def leave(*_: Any) -> None:
        raise SystemExit(143)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _stop(process: subprocess.Popen[bytes], number: int) -> None:
    """Asks the job to stop, and ends it after a while or at a second Ctrl-C."""
    _signal(process, number)
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(timeout=GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


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
    from dvsn.report import report

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
