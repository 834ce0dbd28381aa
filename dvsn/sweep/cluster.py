"""Jobs of a sweep on a cluster: submitit (SLURM, or processes of this machine) and Ray, behind the interface of `Pool`."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from dvsn.engine.starving import cores
from dvsn.errors import ConfigError
from dvsn.sweep.job import Job, filtered, read_result
from dvsn.sweep.remote import RemoteJob, call, plain

TICK = 0.5  # seconds between looks at the jobs
OWN = ("timeout_min", "gpus_per_node", "cpus_per_task", "tasks_per_node", "mem_gb", "nodes", "name")
"""Options that submitit has for every executor; others are of SLURM."""
ADDED = ("reservation",)
"""Options of SLURM that submitit does not name."""


class Handle(Protocol):
    """A job that was handed over."""

    def done(self) -> bool: ...

    def outcome(self) -> dict[str, Any]:
        """What `RemoteJob` returned, or the same words where it never came to that."""

    def cancel(self) -> None: ...


class Backend(Protocol):
    """Who runs the jobs."""

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]: ...


class Submitted:
    """A job that was handed over, as `Process` is one that was started."""

    def __init__(self, remote: RemoteJob) -> None:
        self.remote, self.number, self.folder = remote, remote.number, Path(remote.folder)
        self.handle: Handle | None = None

    def job(self) -> Job:
        assert self.handle is not None
        said = self.handle.outcome()
        result = read_result(self.folder / "result.json")
        overrides = filtered(self.remote.overrides)
        return Job(self.number, overrides, self.folder, said["code"], said["seconds"], result, said["error"])


class ClusterPool:
    """The jobs of a sweep that a scheduler runs: handed over as one, then watched. `most` at a time here; None: on
    others, as many as it likes.

    A context: what has not ended when it is left is cancelled.
    """

    def __init__(self, backend: Backend, *, group: str, most: int | None = None) -> None:
        self.backend, self.group, self.most = backend, group, most
        self.running: list[Submitted] = []
        self.waiting: list[Submitted] = []

    def __enter__(self) -> Self:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        for each in self.running:
            if each.handle is not None:
                with suppress(Exception):  # the scheduler may be what has failed
                    each.handle.cancel()

    @property
    def full(self) -> bool:
        return self.most is not None and len(self.running) >= self.most

    def start(self, number: int, overrides: Sequence[str], folder: Path, command: Sequence[str]) -> Submitted:
        """Prepare a job, which is handed over with the others at the next `wait`."""
        sys.stdout.write(f"[sweep] job {number}: {' '.join(filtered(overrides))}\n")
        sys.stdout.flush()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        remote = RemoteJob(
            number,
            list(overrides),
            str(folder),
            list(command[1:]),
            self.group,
            str(Path.cwd()),
            uuid.uuid4().hex,
        )
        if self.most is not None:  # on this machine
            remote.devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            remote.threads = max(1, cores() // self.most) if self.most > 1 else None
        made = Submitted(remote)
        self.running.append(made)
        self.waiting.append(made)
        return made

    def wait(self) -> list[Submitted]:
        """The jobs that have ended, as soon as there are any."""
        if self.waiting:
            handles = self.backend.submit([each.remote for each in self.waiting])
            for each, handle in zip(self.waiting, handles, strict=True):
                each.handle = handle
            self.waiting = []
        while True:
            ended = [each for each in self.running if each.handle is not None and each.handle.done()]
            if ended or not self.running:
                break
            time.sleep(TICK)
        self.running = [each for each in self.running if each not in ended]
        for each in ended:
            job = each.job()
            if job.code:
                sys.stderr.write(f"[sweep] job {job.number} failed with exit code {job.code}: {job.error}\n")
        return ended


def _leave(number: int, _: Any) -> None:
    sys.stderr.write("stopped by SIGTERM: the jobs of the sweep are cancelled\n")
    raise SystemExit(128 + number)


def failed(error: str) -> dict[str, Any]:
    return {"code": 1, "seconds": 0.0, "error": error}


def last_line(error: Exception) -> str:
    """What an error from elsewhere says below its traceback; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def backend(name: str, options: Mapping[str, Any], folder: Path) -> Backend:
    """Who runs the jobs of `hydra/launcher=NAME`, with the options of its node. Raises `ConfigError`."""
    return RayCluster(options) if name == "ray" else Submitit(name.removeprefix("submitit_"), options, folder)


# submitit ---------------------------------------------------------------------------------------------------


class Submitit:
    """SLURM by sbatch, or processes of this machine (`local`), through submitit (MIT). It pickles a `RemoteJob`, which
    is plain data of a class of dvsn, to `.submitit` in the folder of the sweep."""

    def __init__(self, cluster: str, options: Mapping[str, Any], folder: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise ConfigError(
                f"hydra/launcher=submitit_{cluster}: submitit is not installed. pip install 'dvsn[slurm]'"
            ) from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no sbatch here. Start the sweep on a machine of the cluster that "
                "has it."
            )
        logging.getLogger("submitit").setLevel(logging.WARNING)
        given = {key: value for key, value in options.items() if value is not None}
        times = {f"{cluster}_max_num_timeout": given.pop("max_num_timeout", 0)}
        self.executor = submitit.AutoExecutor(folder=folder / ".submitit" / "%j", cluster=cluster, **times)
        added = {key: given.pop(key) for key in ADDED if key in given}
        own = {key if key in OWN else f"slurm_{key}": value for key, value in given.items()}
        if added:
            own["slurm_additional_parameters"] = added
        self.executor.update_parameters(**own)

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        if len(jobs) == 1:
            return [SubmititHandle(self.executor.submit(jobs[0]))]
        with self.executor.batch():  # one array of SLURM
            made = [self.executor.submit(job) for job in jobs]
        return [SubmititHandle(each) for each in made]


class SubmititHandle:
    def __init__(self, job: Any) -> None:
        self.given = job

    def done(self) -> bool:
        return bool(self.given.done())

    def outcome(self) -> dict[str, Any]:
        try:
            results = self.given.results()
        except Exception as error:  # noqa: BLE001 - whatever a job may have raised there, or submitit for one that is lost
            return failed(f"{self.given.state}: {last_line(error)}")
        return next((each for each in results if each["code"]), results[0])

    def cancel(self) -> None:
        self.given.cancel(check=False)


# Ray --------------------------------------------------------------------------------------------------------


class RayCluster:
    """A cluster of Ray (Apache-2.0), or one for this machine alone where no address is given. What it gets is the function
    `dvsn.sweep.remote.call` and plain data."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("hydra/launcher=ray: Ray is not installed. pip install 'dvsn[ray]'") from None
        self.ray = ray
        if not ray.is_initialized():
            self._connect(options["address"])
        wanted = {key: options[key] for key in ("num_cpus", "num_gpus", "max_retries")}
        self.function = ray.remote(**wanted)(call)

    def _connect(self, address: str | None) -> None:
        """Join a cluster, or start one. On a busy machine Ray's own processes may miss the 30 seconds that it gives them."""
        for left in (2, 1, 0):
            try:
                self.ray.init(
                    address=address or "local",
                    logging_level="ERROR",
                    log_to_driver=False,
                    include_dashboard=False if address is None else None,
                )
                return
            except Exception as error:  # noqa: BLE001 - Ray raises a bare one where its processes do not start
                if address is None and "timed out during startup" in str(error) and left:
                    self.ray.shutdown()
                    continue
                text = next(iter(str(error).splitlines()), "")
                where = address or "this machine"
                raise ConfigError(
                    f"hydra.launcher.address: there is no cluster of Ray on {where}: {text}"
                ) from None

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        return [RayHandle(self.ray, self.function.remote(plain(job))) for job in jobs]


class RayHandle:
    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference = ray, reference

    def done(self) -> bool:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        return bool(ready)

    def outcome(self) -> dict[str, Any]:
        try:
            return dict(self.ray.get(self.reference))
        except Exception as error:  # noqa: BLE001 - whatever a job may have raised there, or Ray for one that is lost
            return failed(last_line(error))

    def cancel(self) -> None:
        self.ray.cancel(self.reference, force=False)
