"""One job of a sweep on another machine: the command line that runs it, as plain data, and what became of it.

Nothing of a config is sent. The words of the command line are, and `python -m dvsn.train` composes and checks them there
as it does for anybody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dvsn.config.folders import JOB_FOLDER
from dvsn.config.launched import place, restarted
from dvsn.sweep.pool import GRACE, Pool, Process

TOKEN = ".started"
"""The file in a job's folder that says which submission has begun in it."""


@dataclass
class RemoteJob:
    """A job that a scheduler calls, once or again after it was preempted, timed out or lost its machine."""

    number: int
    overrides: list[str]
    folder: str
    command: list[str]
    """That runs it, without the Python before it and without its overrides."""
    group: str
    """Of W&B: the name of the sweep."""
    working: str
    """The working directory, for relative paths of the command line."""
    token: str
    """Of this submission: the same job called again goes on from its checkpoint."""
    threads: int | None = None
    devices: str | None = None
    """What `CUDA_VISIBLE_DEVICES` was where the sweep was started, for jobs of the same machine; "" where it was not set.
    None: as the scheduler has it."""

    def __call__(self) -> dict[str, Any]:
        """Run it to its end; returns `code`, `seconds` and `error` of `dvsn.sweep.job.Job`."""
        os.chdir(self.working)
        if self.threads is not None:
            os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
        if self.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.devices
        elif self.devices is not None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        here = place()
        if here is not None and here.rank > 0:
            return self._follow()
        folder, again = Path(self.folder), self._begun()
        with Pool(1, group=self.group) as pool:
            started = pool.start(
                self.number, self.overrides, folder, self._words(folder, again=again), again=again
            )
            _running.append(started)
            try:
                while not pool.wait():
                    pass
            finally:
                _running.remove(started)
        job = started.job()
        return {"code": job.code, "seconds": job.seconds, "error": job.error}

    def checkpoint(self) -> Any:
        """Called by submitit before the time of a SLURM job is over: the run writes its checkpoint, and the job is
        queued again."""
        import submitit

        for each in _running:
            each.send(signal.SIGTERM)
            each.reader.join(
                timeout=GRACE
            )  # its output ends when it ends; its code is for whom this has interrupted
        return submitit.helpers.DelayedSubmission(self)

    def _words(self, folder: Path, *, again: bool) -> list[str]:
        resume = again and "SLURM_JOB_ID" not in os.environ and any((folder / "checkpoints").glob("*.ckpt"))
        return [sys.executable, *self.command, *(["resume=auto"] if resume else [])]

    def _begun(self) -> bool:
        """Whether this submission has begun before. Says so for the next time."""
        if "SLURM_JOB_ID" in os.environ:
            return restarted()  # which a run sees by itself, in all of its processes
        file = Path(self.folder) / TOKEN
        with suppress(OSError):
            if file.read_text(encoding="ascii") == self.token:
                return True
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.token, encoding="ascii")
        return False

    def _follow(self) -> dict[str, Any]:
        """A further process of a job that has several: it joins the first, which has the folder and its files."""
        words = [sys.executable, *self.command, *self.overrides, f"hydra.run.dir={json.dumps(self.folder)}"]
        env = {**os.environ, JOB_FOLDER: self.folder, "WANDB_RUN_GROUP": self.group}
        code = subprocess.run(words, env=env, check=False, process_group=0).returncode
        return {"code": code, "seconds": 0.0, "error": ""}


_running: list[Process] = []


def call(given: Mapping[str, Any]) -> dict[str, Any]:
    """A job from plain data, for schedulers that send a function and its arguments."""
    return RemoteJob(**given)()


def plain(job: RemoteJob) -> dict[str, Any]:
    """A job as plain data."""
    return asdict(job)
