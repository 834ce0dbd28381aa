"""The loop of a search: opens its study, asks Optuna for trials, runs them and tells how they ended."""

from __future__ import annotations

import csv
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dvsn.errors import ConfigError, UserError
from dvsn.report import search_study
from dvsn.report.search_study import pruner, sampler
from dvsn.sweep import storage
from dvsn.sweep.job import own_overrides, read_result
from dvsn.sweep.pool import Pool, Process, locked_folder
from dvsn.sweep.search_space import Range
from dvsn.sweep.storage import Address
from dvsn.sweep.workers import Team, tell_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import TrialState

Config = dict[str, Any]
LOOK = 0.5  # seconds between two looks at the scores of running trials
COPY = 60.0  # seconds between two copies of a shared study
PATIENCE = 300.0  # seconds for which a shared storage may be gone


@dataclass
class Plan:
    """A search as the command line asks for it."""

    shared: list[str]
    """The overrides of every trial."""
    ranges: list[Range]
    options: Config
    """The node `search` of the config."""
    monitor: str
    mode: str
    command: list[str]
    """That starts a trial, without its overrides."""
    address: Address | None = None
    """Of the storage that several machines share; None for a file in the folder."""

    @property
    def folder(self) -> Path:
        return Path(self.options["dir"])

    @property
    def flags(self) -> list[str]:
        """Those of the command line that a trial needs to be run again by hand: folders of options, packages."""
        allowed = os.environ.get("DVSN_ALLOW")
        flags = [each for each in self.command if re.match(r"--(?!config-name=)", each)]
        return [*flags, *([f"--allow={allowed}"] if allowed else [])]

    def identity(self) -> Config:
        """What must be equal for trials to be comparable."""
        return {
            "over": [str(each) for each in sorted(self.ranges, key=lambda each: each.key)],
            "with": own_overrides(self.shared),
            "score": f"{self.monitor}, {'more' if self.mode == 'max' else 'less'} is better",
        }


# The study --------------------------------------------------------------------------------------------------


def alone_in(folder: Path) -> AbstractContextManager[int]:
    """The folder of a search for this process alone, as `locked_folder` has it."""
    return locked_folder(folder, option="search.dir", what="a search", unit="a trial")


def open_study(plan: Plan) -> Study:
    """Optuna's study, new or continued. Raises `ConfigError` where an earlier one searched other ranges."""
    from optuna import create_study

    if plan.address is not None:
        return open_shared(plan, plan.address)
    study = create_study(
        storage=search_study.storage(plan.folder), study_name="search", direction=direction(plan),
        load_if_exists=True,
    )  # fmt: skip
    if "shared" in study.user_attrs:
        raise ConfigError(
            f"search.dir: {plan.folder} holds trials of the study {study.user_attrs['shared']}. Give search.storage "
            "again, or a folder of its own, search.dir=..."
        )
    where = f"search.dir: {plan.folder} holds a search"
    compare(plan, study.user_attrs, where, "Give it a folder of its own, search.dir=...")
    for key, value in attributes(plan).items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    return study


def direction(plan: Plan) -> Literal["maximize", "minimize"]:
    return "maximize" if plan.mode == "max" else "minimize"


def attributes(plan: Plan) -> Config:
    """What a study knows of its search."""
    keys = {each.key.lstrip("+"): each.key for each in plan.ranges}
    return {**plan.identity(), "command": plan.shared, "flags": plan.flags, "keys": keys}


def compare(plan: Plan, found: Config, where: str, advice: str) -> None:
    """Raise `ConfigError` where a study searched something else."""
    for key, value in plan.identity().items():
        before = found.get(key, value)
        if before != value:
            words = "; ".join(before) if isinstance(before, list) else before
            ours = "; ".join(value) if isinstance(value, list) else value
            raise ConfigError(f"{where} {key} {words}. Found another one, {key} {ours}. {advice}")


def open_shared(plan: Plan, address: Address) -> Study:
    """The study on a shared storage. Whoever makes it writes down what is searched; the others compare."""
    from optuna import create_study, load_study
    from optuna.exceptions import DuplicatedStudyError

    base, name = storage.opened(address), plan.options["study"]
    advice = "Give it a name of its own, search.study=..."
    try:
        try:
            study = create_study(storage=base, study_name=name, direction=direction(plan))
        except DuplicatedStudyError:
            study = load_study(study_name=name, storage=base)
            where = f"search.study: {name} at {address.shown}"
            known = described(study)
            if [each.name.lower() for each in study.directions] != [direction(plan)]:
                raise ConfigError(
                    f"{where} wants another direction than {direction(plan)}. {advice}"
                ) from None
            if not known and study.get_trials(deepcopy=False):
                raise ConfigError(f"{where} was not made by dvsn.search. {advice}") from None
            compare(plan, study.user_attrs, f"{where} holds a search", advice)
        if "id" not in study.user_attrs:
            whole = {**attributes(plan), "shared": f"{name} at {address.shown}", "id": uuid.uuid4().hex}
            for key, value in whole.items():  # "id" last: it says that all the rest is there
                study.set_user_attr(key, value)
        refuse_other_trials(plan.folder, study)
        search_study.keep_copy(study, plan.folder)
    except storage.troubles() as error:
        raise ConfigError(f"search.storage: {address.shown}: {storage.brief(error)}") from None
    return study


def described(study: Study, *, wait: float = 10.0) -> bool:
    """Whether a study says what is searched, as soon as who has just made it has written that down."""
    end = time.monotonic() + wait
    while "id" not in study.user_attrs:
        if study.get_trials(deepcopy=False) or time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def refuse_other_trials(folder: Path, study: Study) -> None:
    """Raises `ConfigError` where the folder has trials of another study, whose numbers are the same."""
    if not (folder / search_study.FILE).is_file():
        there = any(folder.glob("*/job.json"))
    else:
        there = search_study.load(folder).user_attrs.get("id") != study.user_attrs["id"]
    if there:
        raise ConfigError(
            f"search.dir: {folder} holds trials of another study. Give this one a folder of its own, search.dir=..."
        )


def validations(file: Path, monitor: str) -> list[float]:
    """The scores in metrics.csv so far, one for each validation."""
    try:
        with file.open(newline="", encoding="utf-8") as rows:
            return [float(row[monitor]) for row in csv.DictReader(rows) if row.get(monitor)]
    except OSError:
        return []


@dataclass
class Running:
    """A trial whose process runs."""

    trial: Trial
    reported: int
    """Validations whose scores Optuna has."""
    pruned: bool = False
    lost: bool = False
    """Whether another worker has ended it."""
    stamp: tuple[int, int] = (0, 0)


@dataclass
class Search:
    """The loop of a search: asks for trials, runs them, tells how they ended."""

    plan: Plan
    study: Study
    team: Team | None = None
    """Of a shared study: the other workers."""
    running: dict[Process, Running] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    left: list[Trial] = field(default_factory=list)
    """Trials that are to be gone on with."""
    ended: list[Process] = field(default_factory=list)
    """Processes of which nothing has been told yet."""
    end: float = math.inf
    gone: float | None = None
    """Since when the storage does not answer."""
    copied: float = -math.inf
    named: list[int] = field(default_factory=list)

    def run(self, lock: int | None = None) -> None:
        options, folder = self.plan.options, self.plan.folder
        if self.team is None:
            self.left = self.left_behind()
        if options["hours"] is not None:
            self.end = time.monotonic() + 3600 * options["hours"]
        group = f"{folder.parent.name}_{folder.name}"
        pool = Pool(
            options["jobs"], what="search", unit="trial", group=group, files=[] if lock is None else [lock],
            without=storage.secrets(self.plan.address), stop_with_parent=self.team is not None,
        )  # fmt: skip
        try:
            with pool:
                while True:
                    with self.patient(pool):
                        if self.round(pool):
                            return
        finally:
            self.hand_over()

    @contextmanager
    def patient(self, pool: Pool) -> Iterator[None]:
        """A shared storage may be gone for some minutes. Raises `UserError` after that; Ctrl-C and SIGTERM end the wait."""
        if self.team is None:
            yield
            return
        try:
            yield
            self.gone = None
        except storage.troubles() as error:
            now = time.monotonic()
            if self.gone is None:
                self.gone = now
                sys.stderr.write(
                    f"[search] search.storage does not answer, trying again: {storage.brief(error)}\n"
                )
            if now - self.gone > PATIENCE:
                raise UserError(
                    f"search.storage: no answer for {PATIENCE:g} seconds: {storage.brief(error)}. The same line goes on"
                ) from None
            self.release_unstarted(self.team)
            self.ended += pool.wait(LOOK)

    def round(self, pool: Pool) -> bool:
        """One look at everything. True when nothing is left to do."""
        if self.team is not None:
            self.meet(self.team, pool)
        while not pool.full and self.begin(pool):
            pass
        if not pool.running and not self.ended and not self.waits():
            return True
        self.ended += pool.wait(LOOK)
        while self.ended:
            self.tell(self.ended[0])
            self.ended.pop(0)
        for process in pool.running:
            self.watch(process)
        return False

    def begin(self, pool: Pool) -> bool:
        """Start one trial more, if there is one to start and time for it."""
        if self.left:
            self.start(pool, self.left.pop(0), again=True)
            return True
        waiting = self.team is not None and bool(self.team.trials("WAITING"))
        if time.monotonic() >= self.end or not (waiting or self.count() < self.plan.options["trials"]):
            return False
        trial = self.ask()
        if trial is None:
            return False
        again = self.team is not None and self.team.bring_along(trial)
        self.start(pool, trial, again=again)
        return True

    def count(self) -> int:
        """Trials that are finished, pruned or running, and those that failed in this call."""
        from optuna.trial import TrialState as State

        if self.team is not None:
            return self.team.count()
        counted = (State.COMPLETE, State.PRUNED, State.RUNNING)
        return len(self.study.get_trials(deepcopy=False, states=counted)) + len(self.faults)

    # Other workers ------------------------------------------------------------------------------------------

    def meet(self, team: Team, pool: Pool) -> None:
        """Once in a heartbeat: give signs of life, give back the trials of those who give none, and go on with what was
        left on this machine."""
        now = team.clock()
        if now - team.last < team.heartbeat:
            return
        ours = {state.trial.number: process for process, state in self.running.items()}
        for trial in team.beat(state.trial for state in self.running.values()):
            self.lose(ours[trial.number])
        for frozen in team.watch():
            team.give_back(frozen)
        for trial in team.left_here():
            self.settle(trial)
        if time.monotonic() - self.copied > COPY:
            self.copied = time.monotonic()
            search_study.keep_copy(self.study, self.plan.folder)

    def settle(self, trial: Trial) -> None:
        """What a worker that was killed has left here: its result, or a trial to go on with."""
        result = read_result(self.plan.folder / str(trial.number) / "result.json")
        if result is None:
            self.left.append(trial)
        else:
            self.study.tell(trial.number, result, skip_if_finished=True)
            self.say(trial.number, f"{self.plan.monitor} {result:.6g}")
            self.release(trial.number)

    def waits(self) -> bool:
        """Whether this worker stays, with nothing to run itself: others may lose what they run."""
        if self.team is None or time.monotonic() >= self.end:
            return False
        others = [each.number for each in self.team.trials("RUNNING", "WAITING")]
        if others and others != self.named:
            tell_of(others)
            self.named = others
        return bool(others) or self.count() < self.plan.options["trials"]

    def lose(self, process: Process) -> None:
        """Another worker has ended a trial of ours, since it saw no sign of life."""
        state = self.running[process]
        if not state.lost:
            state.lost = True
            process.stop()

    def hand_over(self) -> None:
        """Give back what this worker ran when it was stopped, so that others need not wait for signs of life."""
        if self.team is None:
            return
        with suppress(*storage.troubles()):
            for process, state in list(self.running.items()):
                result = read_result(process.folder / "result.json")
                if state.lost:
                    continue
                if result is not None:
                    self.study.tell(state.trial.number, result, skip_if_finished=True)
                else:
                    self.team.give_back(self.study._storage.get_trial(state.trial._trial_id))
        for number in list(self.team.locks):
            self.release(number)

    def release(self, number: int) -> None:
        if self.team is not None:
            self.team.release(number)

    def release_unstarted(self, team: Team) -> None:
        """Unlock trials that the storage failed before they could start, so that the next look finds them as left here."""
        kept = {state.trial.number for state in self.running.values()} | {trial.number for trial in self.left}
        for number in team.locks.keys() - kept:
            team.release(number)

    # Trials -------------------------------------------------------------------------------------------------

    def left_behind(self) -> list[Trial]:
        """Unfinished trials of a search that was stopped or killed. Those that have a result are recorded as finished."""
        from optuna.trial import Trial, TrialState

        found = []
        for frozen in self.study.get_trials(states=(TrialState.RUNNING,)):
            result = read_result(self.plan.folder / str(frozen.number) / "result.json")
            if frozen.params.keys() != {
                each.key.lstrip("+") for each in self.plan.ranges
            }:  # killed while it was drawn
                self.study.tell(frozen.number, state=TrialState.FAIL)
            elif result is not None:
                self.study.tell(frozen.number, result)
            else:
                found.append(Trial(self.study, frozen._trial_id))
        return found

    def ask(self) -> Trial | None:
        """The next trial; None where other workers have asked for the last one.

        Its values depend on seed, number and earlier trials alone, so a resumed search draws the same, and two workers
        never do.
        """
        from optuna.trial import Trial

        self.study.pruner = pruner(self.plan.options)
        trial = self.study.ask()
        number, team = trial.number, self.team
        if team is not None:
            if not team.take(trial):
                team.end(number, trial._trial_id)
                return None
            if not team.keep_within(trial, self.plan.options["trials"]):
                team.release(number)
                return None
        self.study.sampler = sampler(self.plan.options, number=number)
        trial = Trial(self.study, trial._trial_id)
        try:
            for each in self.plan.ranges:
                trial._suggest(each.key.lstrip("+"), each.distribution())
        except BaseException:
            self.release(number)  # half drawn: it is ended as the trial of a worker that died
            raise
        return trial

    def start(self, pool: Pool, trial: Trial, *, again: bool = False) -> None:
        values = [each.override(trial.params[each.key.lstrip("+")]) for each in self.plan.ranges]
        folder, command = self.plan.folder / str(trial.number), self.plan.command
        if again and any((folder / "checkpoints").glob("*.ckpt")):
            command = [*command, "resume=auto"]
        else:
            (folder / "metrics.csv").unlink(missing_ok=True)
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        lock = self.team.locks.get(trial.number) if self.team is not None else None
        process = pool.start(
            trial.number, [*self.plan.shared, *values], folder, command, again=again,
            files=() if lock is None else (lock,),
        )  # fmt: skip
        self.running[process] = Running(trial, reported=len(known))

    def watch(self, process: Process) -> None:
        """Report new scores of a trial to Optuna, and stop it where the pruner says so."""
        from optuna.exceptions import UpdateFinishedTrialError

        state = self.running[process]
        try:
            found = (process.folder / "metrics.csv").stat()
        except OSError:
            return
        stamp = found.st_mtime_ns, found.st_size
        if stamp == state.stamp or state.lost:
            return
        scores = validations(process.folder / "metrics.csv", self.plan.monitor)
        try:
            for step in range(state.reported, len(scores)):
                state.trial.report(scores[step], step + 1)
                state.reported = step + 1
        except UpdateFinishedTrialError:
            self.lose(process)
            return
        new, state.stamp = len(scores) > 0 and stamp != state.stamp, stamp
        if new and not state.pruned and process.popen.poll() is None and state.trial.should_prune():
            state.pruned = True
            process.stop()

    def tell(self, process: Process) -> None:
        """Record how a trial ended. Raises `UserError` when two have failed with the same error and none has succeeded."""
        from optuna.trial import TrialState as State

        self.watch(process)
        state, job = self.running[process], process.job()
        trial = state.trial
        before = self.study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED))
        error = ""
        if job.code == 0 and job.result is not None and math.isfinite(job.result):
            told = self.finish(state, State.COMPLETE, job.result)
            text = f"{self.plan.monitor} {job.result:.6g}"
        elif state.pruned:
            told = self.finish(state, State.PRUNED)
            text = f"pruned after {state.reported} validations"
        else:
            error = job.error or f"it left no finite score of {self.plan.monitor}"
            told = self.finish(state, State.FAIL, error=error)
            text = f"failed: {error}"
        del self.running[process]
        self.release(trial.number)
        if not told:
            text, error = "was given to another worker, since this one gave no sign of life", ""
        self.say(trial.number, text)
        if error in self.faults and error and not before:
            raise UserError(f"trials fail alike, and none has finished: {error.removeprefix('error: ')}")
        self.faults += [error] if error else []

    def finish(self, state: Running, how: TrialState, value: float | None = None, *, error: str = "") -> bool:
        """Tell how a trial of ours ended; False where another worker has ended it."""
        from optuna.exceptions import UpdateFinishedTrialError

        trial = state.trial
        if self.team is not None and self.study._storage.get_trial(trial._trial_id).state.is_finished():
            return False
        try:
            if error:
                trial.set_user_attr("error", error)
            if value is None:
                self.study.tell(trial.number, state=how)
            else:
                self.study.tell(trial.number, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def say(self, number: int, text: str) -> None:
        sys.stdout.write(f"[search] trial {number}: {text}\n")
        sys.stdout.flush()
