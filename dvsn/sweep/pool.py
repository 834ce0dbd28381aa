"""Processes of a sweep or a search: started in folders of their own, watched, shown on the console, and stopped together."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from dvsn.atomic import locked_out, replacing
from dvsn.config import parent_death
from dvsn.config.folders import JOB_FOLDER
from dvsn.engine.starving import cores
from dvsn.errors import ConfigError
from dvsn.sweep.job import Job, filtered, own_overrides, read_result, reason

GRACE = 60.0  # seconds in which an interrupted job may write its checkpoint
TICK = 0.05  # seconds between looks at the jobs
QUIET = 10.0  # seconds between two updates of a progress bar that are shown, of each of several jobs
DDP_VARIABLES = {
    "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "HYDRA_MAIN_MODULE",
}  # fmt: skip


@contextmanager
def locked_folder(folder: Path, *, option: str, what: str, unit: str) -> Iterator[int]:
    """Locks a folder of jobs, and gives the file descriptor of the lock, which they inherit.

    The lock ends when the command and all its jobs have ended, also when they are killed. Raises `ConfigError` of the
    `option` where another one, or a job that it left behind when it was killed, still runs; `what` and `unit` name them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        if locked_out(lock):
            raise ConfigError(
                f"{option}: in {folder} {what} runs, or {unit} of one that was killed. Wait for its end, or take another "
                "folder."
            )
        yield lock
    finally:
        os.close(lock)


class Process:
    """A running job. Its output goes to output.log in its folder and to the console, with `prefix` before each line."""

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
        """The record of the job, once it has ended."""
        code = self.popen.returncode
        error = "" if code == 0 else reason(self.tail.decode("utf-8", "replace"), code)
        overrides, result = filtered(self.overrides), read_result(self.folder / "result.json")
        return Job(self.number, overrides, self.folder, code, self.seconds, result, error)


class Pool:
    """Up to `size` jobs at a time, each a process with a folder of its own.

    A context: Ctrl-C and SIGTERM stop all jobs politely and leave it as KeyboardInterrupt and SystemExit(143), a second
    signal kills them; so does any exception inside. `what` and `unit` are the words of the messages, `files` the
    descriptors that the jobs inherit, `without` the values of variables that they do not. With
    `stop_with_parent` the jobs stop when this process is killed, see `dvsn.config.parent_death`.
    """

    def __init__(
        self,
        size: int,
        *,
        what: str = "sweep",
        unit: str = "job",
        group: str | None = None,
        files: Sequence[int] = (),
        without: Collection[str] = (),
        stop_with_parent: bool = False,
    ) -> None:
        self.size, self.what, self.unit, self.group, self.files = size, what, unit, group, tuple(files)
        self.without, self.stop_with_parent = frozenset(without), stop_with_parent
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
        files: Sequence[int] = (),
    ) -> Process:
        """Start `command` with the overrides in `folder`.

        An earlier result.json is deleted, and output.log too unless the job is continued (`again`). `files` are
        descriptors that this job inherits.
        """
        sys.stdout.write(f"[{self.what}] {self.unit} {number}: {' '.join(filtered(overrides))}\n")
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
            stderr=subprocess.STDOUT, process_group=0, pass_fds=(*self.files, *files),
        )  # fmt: skip
        prefix = f"[{number}] " if self.size > 1 else ""
        process = Process(number, overrides, folder, popen, prefix=prefix)
        self.running.append(process)
        return process

    def _environment(self, folder: Path) -> dict[str, str]:
        drop = ("TORCHELASTIC_", "TORCHRUN_")
        kept = {k: v for k, v in os.environ.items() if k not in DDP_VARIABLES and not k.startswith(drop)}
        kept = {k: v for k, v in kept.items() if v not in self.without}
        if self.stop_with_parent:
            kept[parent_death.PARENT] = str(os.getpid())
        kept.setdefault("PYTHONUNBUFFERED", "1")
        kept[JOB_FOLDER] = str(folder)
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
    """The console, for one of several jobs at a time: whole lines after a prefix; a progress bar now and then."""

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
