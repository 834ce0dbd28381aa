"""What the processes of a run tell each other beside their collectives: who lives, and who has failed with which message.

A collective knows nothing of why a partner is missing, and NCCL's waits for ever or ends the process without a word. The
board is kept in the store of the launcher (torchrun's agent, else the first process), over a connection of its own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from dvsn.config.launched import Place, host, named
from dvsn.errors import ConfigError, UserError

T = TypeVar("T")
A = TypeVar("A")
GRACE = 5.0
"""Seconds that a process has to end by itself after another one has failed, before the board ends it."""
ENDED = "ended"
"""What stands in the place of a sign of life of a process that has done its work."""


class Store(Protocol):
    """The part of `torch.distributed.Store` that is used."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class Failed(UserError):
    """Another process of the run has failed, or does not answer; the message names it."""


class Board:
    """The notes of one process and its view of the others'.

    `store` answers within seconds; `hosts`: it ends with this process. `timeout`: seconds without a sign of life after which
    a process counts as lost. `number`: how many boards this process has had over the store, one a training; the notes of
    one say nothing of the next.
    """

    def __init__(
        self, store: Store, place: Place, *, timeout: float, hosts: bool = False, number: int = 0
    ) -> None:
        self.store, self.place, self.timeout, self.hosts, self.number = store, place, timeout, hosts, number
        self.beat = max(0.2, min(2.0, timeout / 10))
        self.prefix = f"dvsn/{place.attempt}/{number}"
        self._seen: dict[int, tuple[str, float]] = {}  # by rank: its last sign of life, and when it was new
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._asked: float | None = None
        """Since when the store has owed an answer."""
        self._closed = threading.Event()
        self._rounds = 0  # of `agree`
        self._thread: threading.Thread | None = None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """One question to the store at a time, whose answer is waited for without end: see `_guard`."""
        with self._lock:
            self._asked = time.monotonic()
            try:
                yield
            finally:
                self._asked = None

    # Notes ------------------------------------------------------------------------------------------

    def write(self, key: str, value: Any) -> None:
        """Put a plain value where all can read it."""
        with self._asking():
            self.store.set(f"{self.prefix}/{key}", json.dumps(value))

    def read(self, key: str) -> Any:
        """What was written; None where nothing was."""
        with self._asking():
            found = self.store.check([f"{self.prefix}/{key}"])
            return json.loads(self.store.get(f"{self.prefix}/{key}")) if found else None

    def wait(self, key: str, *, of: int) -> Any:
        """What the process `of` writes here, as soon as it does. Raises `Failed` where any process has failed, or that one
        does not write within the time-out."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                found, fault = self.read(key), self.fault()
            except RuntimeError as error:
                raise Failed(self.reason(0)) from error
            if found is not None:
                break
            if fault:
                raise Failed(fault)
            if time.monotonic() > deadline:
                raise Failed(not_come(self.place, of=of, timeout=self.timeout))
            time.sleep(min(0.1, self.beat / 2))
        return found

    def remember(self, key: str, value: Any) -> None:
        """Write for all attempts of torchrun, which keeps the store while it starts the processes again."""
        with self._asking():
            self.store.set(f"dvsn/{key}", json.dumps(value))

    def remembered(self, key: str) -> Any:
        """What an earlier attempt has written; None where there is nothing."""
        with self._asking():
            return json.loads(self.store.get(f"dvsn/{key}")) if self.store.check([f"dvsn/{key}"]) else None

    def next_round(self, topic: str) -> str:
        """A name for what is compared now, the same in all processes, which compare in the same order."""
        self._rounds += 1
        return f"{self._rounds}_{topic}"

    # Faults -----------------------------------------------------------------------------------------

    def fail(self, message: str) -> None:
        """Tell the others why this process ends. The first message of all counts."""
        with suppress(Exception):  # a store that is gone has nobody to tell
            own = f"{named(self.place.rank, self.place.world, host())}: {message.removeprefix('error: ')}"
            self.write(f"failed/{self.place.rank}", message)
            if self.read("failed") is None:
                self.write("failed", {"rank": self.place.rank, "message": own})

    def fault(self) -> str | None:
        """The first fault of another process, in words; None where there is none."""
        found = self.read("failed")
        return None if found is None or found["rank"] == self.place.rank else str(found["message"])

    def told_by_first(self, message: str, within: float = 2.0) -> bool:
        """Whether process 0 ends with the same message, which need not be said twice."""
        deadline = time.monotonic() + within
        with suppress(Exception):
            while self.place.rank and time.monotonic() < deadline:
                found = self.read("failed/0")
                if found is not None:
                    return bool(found == message)
                time.sleep(0.05)
        return False

    def reason(self, within: float) -> str:
        """Why a collective of this process has failed: the fault of another one, or who gives no sign of life; waits
        `within` seconds for either."""
        deadline = time.monotonic() + within
        while True:
            try:
                if fault := self.fault():
                    return fault
                silent = self.silent(3 * self.beat)
            except Exception:  # noqa: BLE001 - whatever a store raises that is not there any more
                keeper = "the agent of torchrun" if self.place.launcher == "torchrun" else "process 0"
                return f"the store of the run, which {keeper} keeps, does not answer any more: its machine is lost."
            if silent or time.monotonic() > deadline:
                break
            time.sleep(self.beat / 2)
        if not silent:
            return ""
        which = " and ".join(map(str, silent))
        return (
            f"process {which} of {self.place.world} gives no sign of life any more: it was killed, such as by the system "
            "when memory runs out, its machine is lost, or it is stopped."
        )

    # Signs of life ----------------------------------------------------------------------------------

    def silent(self, seconds: float) -> list[int]:
        """The ranks that have given no sign of life for so long, as far as this process has looked."""
        now, found = time.monotonic(), []
        for rank in range(self.place.world):
            if rank == self.place.rank:
                continue
            sign = self.read(f"alive/{rank}")
            last, since = self._seen.get(rank, (None, now))
            if sign != last:
                self._seen[rank] = (sign, now)
            elif sign != ENDED and sign is not None and now - since > seconds:
                found.append(rank)
        return found

    def watch(self) -> None:
        """From now on give signs of life and look at the others, in a thread, until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="board", daemon=True)
            self._thread.start()
            threading.Thread(target=self._guard, name="guard of the board", daemon=True).start()

    def _guard(self) -> None:
        """End this process where the store does not answer: a launcher that is stopped, or whose machine is lost, leaves
        whoever asks it waiting, for good."""
        while not self._closed.wait(self.beat):
            asked = self._asked
            if asked is not None and time.monotonic() - asked > self.timeout:
                end(
                    f"error: the store of the run has not answered for {self.timeout:g} s (trainer.process_timeout): the "
                    "launcher that keeps it, or process 0, is stopped, or its machine is lost. This process ends with it. "
                    "Continue with resume=auto.",
                    self.place.rank,
                )

    def _look(self) -> None:
        number, lost = 0, ""
        while not self._stop.wait(self.beat):
            number += 1
            try:
                self.write(f"alive/{self.place.rank}", number)
                lost = self.fault() or self._lost()
            except Exception:  # noqa: BLE001 - see `reason`
                lost = self.reason(0)
            if lost:
                break
        if not lost or self._stop.wait(GRACE):
            return
        end(f"error: {lost} This process ends with it.", self.place.rank)

    def _lost(self) -> str:
        """Process 0 looks at all, the others at it, so that the store is asked by each once a beat. In words; or empty."""
        if self.place.rank:
            sign, now = self.read("alive/0"), time.monotonic()
            last, since = self._seen.get(0, (None, now))
            self._seen[0] = (sign, now if sign != last else since)
            silent = [0] if sign not in (None, ENDED) and now - self._seen[0][1] > self.timeout else []
        else:
            silent = self.silent(self.timeout)
        if not silent:
            return ""
        return (
            f"process {' and '.join(map(str, silent))} of {self.place.world} has given no sign of life for "
            f"{self.timeout:g} s (trainer.process_timeout): it is stopped, killed, or its machine is lost. Continue with "
            "resume=auto."
        )

    @property
    def closed(self) -> bool:
        """Whether it looks at the others no longer."""
        return self._stop.is_set()

    def close(self) -> None:
        """From here on this process does not need the others, nor they it: its training has ended, or it has failed."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self.beat + 1)
            self._thread = None
        with suppress(Exception):
            self.write(f"alive/{self.place.rank}", ENDED)
            others, deadline = [each for each in range(self.place.world) if each], time.monotonic() + GRACE
            while self.hosts and time.monotonic() < deadline:
                if all(self.read(f"alive/{rank}") == ENDED for rank in others):
                    break
                time.sleep(0.05)
        self._closed.set()


def end(message: str, rank: int) -> None:
    """Say it and end this process at once, whatever it waits for. Its checkpoints are whole files."""
    tell_launcher(message)
    sys.stderr.write(f"[process {rank}] {message}\n")
    sys.stderr.flush()
    os._exit(1)


def tell_launcher(message: str) -> None:
    """Give torchrun the message, for its own last lines, where it asks for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        said = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError), open(file, "w", encoding="utf-8") as opened:  # noqa: PTH123
            json.dump({"message": said}, opened)


# One board a process ----------------------------------------------------------------------------------

_current: list[Board] = []


def current() -> Board | None:
    """The board of this process; None of a run of one."""
    return _current[-1] if _current else None


def of_several() -> Board | None:
    """The board of a run of several processes that goes on; None elsewhere."""
    board = current()
    return None if board is None or board.closed or board.place.world == 1 else board


def connect(place: Place, *, timeout: float) -> Board:
    """The board over the store that the launcher names by MASTER_ADDR and MASTER_PORT: torchrun's, else one that process 0
    keeps, and lends to torch.distributed. Raises `Failed` where nobody answers within the time-out."""
    from torch.distributed import TCPStore

    if place.launcher == "srun":
        from lightning_fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment()  # sets both variables, by the list of machines and the number of the job
        _ = slurm.main_address, slurm.main_port
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    first = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = TCPStore(
            address, port, None, first, timedelta(seconds=timeout), wait_for_workers=False, multi_tenant=True
        )
    except (RuntimeError, ValueError) as error:
        raise Failed(
            f"process {place.rank} of {place.world} ({host()}) cannot reach the first one at {address}:{port} "
            f"(trainer.process_timeout={timeout:g} s): {' '.join(str(error).split())[:160]}"
        ) from error
    if place.launcher == "torchrun":
        place = place._replace(attempt=agreed_attempt(store, place, timeout=timeout))
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(place.attempt)
    return Board(store, place, timeout=timeout, hosts=first)


def agreed_attempt(store: Any, place: Place, *, timeout: float) -> int:
    """How often torchrun has started this run again, the same number in all processes.

    Its agents do not count alike: one that starts its processes anew because those of another machine have failed counts
    nothing. And their store keeps what earlier processes wrote. So process 0 draws a number, each answers to the latest one
    with a name of its own and the count of its agent, and process 0 says whom it has heard: who is among them has the number
    of this time. Raises `Failed` where a process does not come within the time-out.
    """
    own, number, said = [secrets.token_hex(8), place.attempt], 0, 0
    deadline = time.monotonic() + timeout
    if place.rank == 0:
        number = store.add("dvsn/starts", 1)
    while True:
        if place.rank and store.check(["dvsn/starts"]):
            number = int(store.get("dvsn/starts"))
        if number != said:
            store.set(f"dvsn/start/{number}/{place.rank}", json.dumps(own))
            said = number
        answers = [f"dvsn/start/{number}/{rank}" for rank in range(place.world)]
        if place.rank == 0 and store.check(answers):
            heard = [json.loads(store.get(each)) for each in answers]
            store.set(f"dvsn/start/{number}", json.dumps(heard))
        if store.check([f"dvsn/start/{number}"]):
            heard = json.loads(store.get(f"dvsn/start/{number}"))
            if own in heard:
                return max(number - 1, *(count for _, count in heard))
        if time.monotonic() > deadline:
            missing = [
                rank for rank, each in enumerate(answers) if place.rank == 0 and not store.check([each])
            ]
            raise Failed(not_come(place, of=(missing or [0])[0], timeout=timeout))
        time.sleep(0.05)


def not_come(place: Place, *, of: int, timeout: float) -> str:
    """What a process says that has waited for another one before the training."""
    return (
        f"process {place.rank} has waited {timeout:g} s (trainer.process_timeout) for process {of} of {place.world}, which "
        "has not come so far: it was not started, or is stopped or busy."
    )


def begin(place: Place, *, timeout: float) -> None:
    """Connect and watch until `close`; again, where the training is not the first one of this process."""
    older = current()
    if older is not None and not older.closed:
        return
    board = (
        connect(place, timeout=timeout)
        if older is None
        else Board(older.store, place, timeout=timeout, hosts=older.hosts, number=older.number + 1)
    )
    _current.append(board)
    board.watch()


def tell(error: BaseException) -> None:
    """Tell the others the fault of this process, if it is its own: not what another one's has led to."""
    board = current()
    own = isinstance(error, Exception) and not isinstance(error, Failed) and not of_collective(error)
    if board is not None and own:
        board.fail(words(error))


@contextmanager
def watched(place: Place | None = None, *, timeout: float = 300.0) -> Iterator[None]:
    """Around the work of a process: its fault is told to the others, and theirs end it, from `begin` on; with a `place` at
    once. Where process 0 ends with the same message, this one ends without a word (exit code 2)."""
    before = len(_current)
    try:
        if place is not None:
            begin(place, timeout=timeout)
        yield
    except Exception as error:
        board = current()
        if board is None or isinstance(error, Failed):
            raise
        if of_collective(error) and (reason := board.reason(4 * board.beat + 1)):
            raise Failed(f"{reason} This process, {board.place.rank}, ends with it.") from error
        tell(error)
        if isinstance(error, UserError) and board.told_by_first(words(error)):
            raise SystemExit(2) from None
        raise
    finally:
        while len(_current) > before:
            _current.pop().close()


def words(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory. {text[:200]}".strip()
    return f"{type(error).__name__}: {text[:300]}"


def of_collective(error: BaseException) -> bool:
    """Whether an error is what torch.distributed says where a partner is missing, of gloo, NCCL or the store."""
    said = r"(?i)connection (was )?(closed|reset|refused)|timed out|timeout|broken pipe|gloo|nccl|(recv|send)\w* failed"
    return isinstance(error, RuntimeError) and re.search(said, str(error)) is not None


def agree(topic: str, own: Mapping[str, Any], *, advice: str) -> None:
    """Refuse to go on where the processes of a run do not have the same values here; does nothing in a run of one.

    Process 0 compares and decides; all raise the same `ConfigError`, which names processes, machines and values. The
    values are plain.
    """
    told = {"host": host(), "values": dict(own)}
    wrong = decided(topic, told, lambda all_told: verdict(dict(enumerate(all_told)), advice))
    if wrong:
        raise ConfigError(wrong)


def decided(topic: str, own: T, by: Callable[[list[T]], A]) -> A:
    """What process 0 makes, with `by`, of what each process says here, in the order of their ranks; all have its answer.
    A single process decides alone. Both are plain values, and not None."""
    board = of_several()
    if board is None:
        return by([own])
    place, topic = board.place, board.next_round(topic)
    board.write(f"{topic}/{place.rank}", own)
    if place.rank == 0:
        board.write(
            f"{topic}/verdict", by([board.wait(f"{topic}/{rank}", of=rank) for rank in range(place.world)])
        )
    answer: A = board.wait(f"{topic}/verdict", of=0)
    return answer


LISTED = 6
"""Values that a message lists."""
MISSING = "nothing"


def verdict(told: Mapping[int, Mapping[str, Any]], advice: str) -> str:
    """What is wrong in words; empty where all have told the same as process 0."""
    first = json.loads(json.dumps(told[0]["values"]))
    for rank, each in told.items():
        values = each["values"]
        keys = [key for key in (*first, *values) if first.get(key, MISSING) != values.get(key, MISSING)]
        if keys:
            lines = [
                f"{key}: {values.get(key, MISSING)} there, {first.get(key, MISSING)} in process 0"
                for key in list(dict.fromkeys(keys))[:LISTED]
            ]
            more = f" (and {len(set(keys)) - LISTED} more)" if len(set(keys)) > LISTED else ""
            who = named(rank, len(told), each["host"])
            return f"{who} differs from process 0 ({told[0]['host']}): {'; '.join(lines)}{more}. {advice}"
    return ""
