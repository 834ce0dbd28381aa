"""The workers of one study on a shared storage: signs of life, and what becomes of the trials of one that has died.

Optuna's own heartbeats serve `Study.optimize` only, and not its gRPC proxy; its ask-and-tell interface leaves them to the
caller. Here a worker counts up a number in each of its trials, and the others see whether it moves, each by its own
steady clock: clocks of machines are never compared.

A trial has one worker at any time. Its end is told by the first who tells it, which every storage decides as one step; so
a trial that was given back is failed by one of the others alone, and its values get a new trial. Its folder is locked
by the worker, and by the process that trains in it: on one machine who gets the lock goes on in the folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.atomic import locked_out
from dvsn.report.search_study import UNSEEN

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

WORKER, LOST, BEGUN_AS = "worker", "lost", "begun_as"
"""Attributes of a trial: who has it and its sign of life; how often its worker died; the trial whose values it has."""
MISSED = 3
"""Signs of life that are missing when a worker counts as dead."""
TRIES = 3
"""Workers that may die of the same values."""


def kernel() -> str:
    """What tells a running system from all others, also where they have the same name: locks of files hold within it.
    Of a system that does not say so, a name that no other process gets."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text(encoding="ascii").strip() if file.is_file() else uuid.uuid4().hex


class Team:
    """The part that this worker has in a study. `heartbeat` are the seconds between two signs, `keys` what is drawn."""

    def __init__(
        self, study: Study, folder: Path, *, heartbeat: float, keys: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.study, self.folder, self.heartbeat, self.keys = study, folder, heartbeat, set(keys)
        self.clock, self.last = clock, -float("inf")
        self.me = {
            "host": socket.gethostname(),
            "kernel": kernel(),
            "folder": str(folder.resolve()),
            "pid": os.getpid(),
        }
        self.locks: dict[int, int] = {}
        self.seen: dict[int, tuple[Any, float]] = {}
        self.beats = 0
        self.failed_before = {each.number for each in self.trials("FAIL")}

    def trials(self, *states: str) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=tuple(TrialState[each] for each in states))

    def count(self) -> int:
        """Trials that have ended well, run or wait, and those that failed since this worker began."""
        failed = [
            each
            for each in self.trials("FAIL")
            if each.number not in self.failed_before and not each.user_attrs.get(UNSEEN)
        ]
        return len(self.trials("COMPLETE", "PRUNED", "RUNNING", "WAITING")) + len(failed)

    # One trial ----------------------------------------------------------------------------------------------

    def lock(self, number: int) -> int | None:
        """The descriptor of the lock of a trial's folder; None where another process has it."""
        place = self.folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        file = os.open(place / ".worker", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if locked_out(file):
            os.close(file)
            return None
        return file

    def take(self, trial: Trial) -> bool:
        """Make a trial that runs one of ours; False where another process has its folder."""
        number = trial.number
        if number not in self.locks:
            lock = self.lock(number)
            if lock is None:
                return False
            self.locks[number] = lock
        trial.set_user_attr(WORKER, {**self.me, "beat": self.beats})
        return True

    def release(self, number: int) -> None:
        """What was told, or is no longer ours."""
        lock = self.locks.pop(number, None)
        if lock is not None:
            os.close(lock)

    def keep_within(self, trial: Trial, most: int) -> bool:
        """Whether a new trial is within the number of trials; several workers may ask for the last one at once.

        Those of lower numbers come first, so that of all who ask at the same time as many remain as are wanted. One that
        is too many ends.
        """
        first = [
            each
            for each in self.trials("COMPLETE", "PRUNED", "RUNNING", "WAITING")
            if each.number < trial.number
        ]
        if len(first) < most:
            return True
        self.end(trial.number, trial._trial_id)
        return False

    def end(self, number: int, trial_id: int) -> bool:
        """Fail a trial so that it counts as none; False where it has been told by another worker."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self.study._storage.set_trial_user_attr(trial_id, UNSEEN, True)
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def give_back(self, frozen: FrozenTrial) -> None:
        """End a trial and put its values before all that is still to be drawn. After `TRIES` workers that died it fails."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState, create_trial

        lost = int(frozen.user_attrs.get(LOST, 0)) + 1
        whole = set(frozen.params) == self.keys  # else its worker died while it was drawn
        if whole and lost > TRIES:
            with suppress(UpdateFinishedTrialError, ValueError):
                told = f"its worker was lost {lost} times"
                self.study._storage.set_trial_user_attr(frozen._trial_id, "error", told)
                self.study.tell(frozen.number, state=TrialState.FAIL)
        elif self.end(frozen.number, frozen._trial_id) and whole:
            attributes = {LOST: lost, BEGUN_AS: frozen.number}
            again = create_trial(
                state=TrialState.WAITING,
                params=frozen.params,
                distributions=frozen.distributions,
                user_attrs=attributes,
            )
            self.study.add_trial(again)

    # All of them --------------------------------------------------------------------------------------------

    def beat(self, trials: Iterable[Trial]) -> list[Trial]:
        """Give a sign of life in each of these trials; returns those that another worker has ended."""
        from optuna.exceptions import UpdateFinishedTrialError

        self.beats += 1
        lost = []
        for trial in trials:
            try:
                self.take(trial)
            except UpdateFinishedTrialError:
                lost.append(trial)
        return lost

    def watch(self) -> list[FrozenTrial]:
        """The trials of workers that give no signs. A look that comes late, as after an outage, begins to count anew."""
        now = self.clock()
        if now - self.last > 2 * self.heartbeat:
            self.seen.clear()
        others = [each for each in self.trials("RUNNING") if each.number not in self.locks]
        self.last = now
        before, self.seen = self.seen, {}
        silent = []
        for each in others:
            sign = each.user_attrs.get(WORKER)
            known, since = before.get(each.number, (None, now))
            self.seen[each.number] = (sign, since if each.number in before and known == sign else now)
            if now - self.seen[each.number][1] > MISSED * self.heartbeat:
                silent.append(each)
        return silent

    def left_here(self) -> list[Trial]:
        """Trials that a worker of this machine, in this folder, left when it was killed; they are ours from here on."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial, TrialState

        found = []
        for frozen in self.trials("RUNNING"):
            sign, number = frozen.user_attrs.get(WORKER) or {}, frozen.number
            if number in self.locks or any(sign.get(key) != self.me[key] for key in ("kernel", "folder")):
                continue
            lock = self.lock(number)
            if lock is None:
                continue
            self.locks[number] = lock
            fresh = self.study._storage.get_trial(frozen._trial_id)  # its worker may have told it just now
            if fresh.state is not TrialState.RUNNING or set(fresh.params) != self.keys:
                if fresh.state is TrialState.RUNNING:
                    self.give_back(fresh)
                self.release(number)
                continue
            trial = Trial(self.study, frozen._trial_id)
            try:
                self.take(trial)
            except UpdateFinishedTrialError:
                self.release(number)
            else:
                found.append(trial)
        return found

    def bring_along(self, trial: Trial) -> bool:
        """Put what an earlier trial of the same values has reached into the folder of this one, where it lies on a disk
        that is seen here. The earlier folder is only read: somebody may still write there."""
        earlier = trial.user_attrs.get(BEGUN_AS)
        source, target = self.folder / str(earlier), self.folder / str(trial.number)
        saved = sorted((source / "checkpoints").glob("*.ckpt")) if earlier is not None else []
        if not saved:
            return False
        (target / "checkpoints").mkdir(parents=True, exist_ok=True)
        for file in saved:
            place = target / "checkpoints" / file.name
            place.unlink(missing_ok=True)
            try:
                os.link(file, place)  # checkpoints are replaced, never written anew in their place
            except OSError:
                shutil.copyfile(file, place)
        if (source / "metrics.csv").is_file():
            shutil.copyfile(source / "metrics.csv", target / "metrics.csv")
        return True


def tell_of(numbers: Sequence[int]) -> None:
    """Say which trials of others this worker waits for."""
    plural = "s" if len(numbers) > 1 else ""
    sys.stdout.write(
        f"[search] waits for trial{plural} {', '.join(map(str, numbers))} of other workers, to take over what they lose\n"
    )
    sys.stdout.flush()
