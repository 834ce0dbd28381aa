"""`python -m dvsn.search`: search over options of a training with Optuna, a run for each trial, bad ones ended early.

Optuna (Akiba, Sano, Yanase, Ohta and Koyama, 2019, arXiv:1907.10902) is used through its ask-and-tell interface: the
release of hydra-optuna-sweeper for this Hydra needs an Optuna below 3.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
import time
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dvsn import command_line
from dvsn.command_line import Command, Option
from dvsn.config import compose
from dvsn.config.folders import check_place
from dvsn.config.rules import check_options
from dvsn.config.types import number, require, whole
from dvsn.errors import ConfigError, UserError
from dvsn.report.search_study import pruner, sampler, storage
from dvsn.sweep import launcher, search_space
from dvsn.sweep.job import own_overrides, read_result
from dvsn.sweep.pool import Pool, Process, locked_folder
from dvsn.sweep.search_space import Range

if TYPE_CHECKING:
    from optuna import Study, Trial

Config = dict[str, Any]
LOOK = 0.5  # seconds between two looks at the scores of running trials

COMMAND = Command(
    name="search",
    summary="Search over options of a training with Optuna. Takes every group and option of dvsn.train, ranges for some.",
    options=(
        Option("KEY", "interval(A,B)", "a range of numbers for an option of dvsn.train"),
        Option("KEY", "tag(log,interval(A,B))", "the same, searched by orders of magnitude"),
        Option("KEY", "int(interval(A,B))", "whole numbers"),
        Option("KEY", "range(START,STOP,STEP)", "numbers in steps, without STOP"),
        Option("KEY", "choice(A,B,C)", "values, or options of a group; A,B,C is the same"),
        Option("search.dir", "runs/NAME/search", "the same line again continues what is there"),
        Option("search.trials", 20, "finished or pruned, in all; a repeated line makes up for those that crashed"),
        Option("search.jobs", 1, "trials at the same time"),
        Option("search.hours", None, "after which no more trials begin"),
        Option("search.sampler", "tpe", "tpe, random"),
        Option("search.seed", "SEED", "of what is drawn"),
        Option("search.pruner", "median", "median: end a trial that is below the median of the others; none"),
        Option("search.startup_trials", 5, "that finish before any is pruned"),
        Option("search.warmup", 1, "validations of a trial before it may be pruned"),
    ),
    examples=(
        "python -m dvsn.search task=classification data=cifar10 network=resnet8 teacher=t.ckpt distill=kd \\\n"
        "      'distill.kd.weight=interval(0.1,10)' 'distill.kd.method.temperature=choice(1,2,4,8)'",
        "python -m dvsn.search task=segmentation data=camvid 'optim.lr=tag(log,interval(1e-4,1e-1))' search.trials=40",
        "python -m dvsn.report runs/NAME/search",
    ),
)  # fmt: skip


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


def plan(session: compose.Session, *, name: str, trial: str, module: str) -> Plan:
    """Reads the command line and checks the corners of the ranges. Raises `ConfigError`, before anything starts."""
    if session.arguments.multirun or session.arguments.config_name:
        flag = "-m" if session.arguments.multirun else "--config-name"
        raise ConfigError(
            f"{flag}: has no meaning for a search, which makes its trials itself. Leave it out."
        )
    loader = session.loader
    shared, ranges = search_space.parse(session.overrides, loader)
    if not ranges:
        raise ConfigError(f"dvsn.search: no range is given. Write one of an option, KEY={search_space.HOW}.")
    corners = search_space.corners(ranges)
    shared = compose.in_form(compose.compose(loader, name, [*shared, *corners[0]]).cfg, shared)
    composed = compose.compose(loader, name, [*shared, *corners[0]])
    whole_config = compose.preflight(composed)
    options, monitor = whole_config["search"], whole_config.get("monitor") or {}
    check_search(options)
    line = [text.partition("=")[2].strip("'\"") for text in shared if text.startswith("search.dir=")]
    options["dir"] = str(check_place("search.dir", options["dir"], spelt=line[-1] if line else None))
    shared = [each for each in shared if not each.startswith("search.")]
    for corner in corners:
        tree = compose.preflight(compose.compose(loader, trial, [*shared, *corner]))
        check_options(tree)
        if (tree.get("monitor") or {}) != monitor:
            raise ConfigError(
                f"monitor: {' '.join(corner)} has another score. Set monitor.name and monitor.mode for all."
            )
    if not monitor.get("name"):
        raise ConfigError("monitor.name: there is no score to search by. Set monitor.name and monitor.mode.")
    loggers = [
        node.get("_target_") for node in (whole_config.get("logger") or {}).values() if isinstance(node, dict)
    ]
    if options["pruner"] == "median" and "dvsn.engine.loggers.CsvLogger" not in loggers:
        raise ConfigError(
            "search.pruner: median reads metrics.csv, which is not written. Use logger=csv, or search.pruner=none."
        )
    command = [sys.executable, "-m", module, *launcher.shared_arguments(composed.cfg, name=trial)]
    return Plan(shared, ranges, options, str(monitor["name"]), monitor.get("mode", "min"), command)


def check_search(options: Config) -> None:
    """Raises `ConfigError` for an option of a search that has no meaning."""
    rules = (
        ("trials", whole(options["trials"], 1), "a whole number, 1 or more"),
        ("jobs", whole(options["jobs"], 1), "a whole number, 1 or more"),
        ("hours", options["hours"] is None or (number(options["hours"]) and options["hours"] > 0), "null, or above 0"),
        ("sampler", options["sampler"] in ("tpe", "random"), "tpe or random"),
        ("seed", whole(options["seed"], 0), "a whole number, 0 or more"),
        ("pruner", options["pruner"] in ("median", "none", None), "median or none"),
        ("startup_trials", whole(options["startup_trials"], 1), "a whole number, 1 or more"),
        ("warmup", whole(options["warmup"], 0), "a whole number, 0 or more"),
    )  # fmt: skip
    require([(key, options[key], right, expected) for key, right, expected in rules], "search.")


# The study --------------------------------------------------------------------------------------------------


def alone_in(folder: Path) -> AbstractContextManager[int]:
    """The folder of a search for this process alone, as `locked_folder` has it."""
    return locked_folder(folder, option="search.dir", what="a search", unit="a trial")


def open_study(plan: Plan) -> Study:
    """Optuna's study in the folder, new or continued. Raises `ConfigError` where an earlier one searched other ranges."""
    from optuna import create_study

    direction: Literal["maximize", "minimize"] = "maximize" if plan.mode == "max" else "minimize"
    study = create_study(
        storage=storage(plan.folder), study_name="search", direction=direction, load_if_exists=True
    )
    attributes, wanted = study.user_attrs, plan.identity()
    for key, value in wanted.items():
        before = attributes.get(key, value)
        if before != value:
            words = "; ".join(before) if isinstance(before, list) else before
            raise ConfigError(
                f"search.dir: {plan.folder} holds a search {key} {words}. Found another one, {key} "
                f"{'; '.join(value) if isinstance(value, list) else value}. Give it a folder of its own, search.dir=..."
            )
    wanted |= {
        "command": plan.shared,
        "flags": plan.flags,
        "keys": {each.key.lstrip("+"): each.key for each in plan.ranges},
    }
    for key, value in wanted.items():
        if attributes.get(key) != value:
            study.set_user_attr(key, value)
    return study


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
    stamp: tuple[int, int] = (0, 0)


@dataclass
class Search:
    """The loop of a search: asks for trials, runs them, tells how they ended."""

    plan: Plan
    study: Study
    running: dict[Process, Running] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def run(self, lock: int) -> None:
        options, folder = self.plan.options, self.plan.folder
        left = self.left_behind()
        hours = options["hours"]
        end = math.inf if hours is None else time.monotonic() + 3600 * hours
        group = f"{folder.parent.name}_{folder.name}"
        with Pool(options["jobs"], what="search", unit="trial", group=group, files=[lock]) as pool:
            while True:
                while not pool.full:
                    if left:
                        self.start(pool, left.pop(0), again=True)
                    elif self.count() < options["trials"] and time.monotonic() < end:
                        self.start(pool, self.ask())
                    else:
                        break
                if not pool.running:
                    return
                for process in pool.wait(LOOK):
                    self.tell(process)
                for process in pool.running:
                    self.watch(process)

    def count(self) -> int:
        """Trials that are finished, pruned or running, and those that failed in this call."""
        from optuna.trial import TrialState as State

        counted = (State.COMPLETE, State.PRUNED, State.RUNNING)
        return len(self.study.get_trials(deepcopy=False, states=counted)) + len(self.faults)

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

    def ask(self) -> Trial:
        """The next trial. Its values depend on seed, number and earlier trials alone, so a resumed search draws the same."""
        self.study.sampler = sampler(self.plan.options, number=len(self.study.get_trials(deepcopy=False)))
        self.study.pruner = pruner(self.plan.options)
        return self.study.ask({each.key.lstrip("+"): each.distribution() for each in self.plan.ranges})

    def start(self, pool: Pool, trial: Trial, *, again: bool = False) -> None:
        values = [each.override(trial.params[each.key.lstrip("+")]) for each in self.plan.ranges]
        folder, command = self.plan.folder / str(trial.number), self.plan.command
        if again and any((folder / "checkpoints").glob("*.ckpt")):
            command = [*command, "resume=auto"]
        else:
            (folder / "metrics.csv").unlink(missing_ok=True)
        process = pool.start(trial.number, [*self.plan.shared, *values], folder, command, again=again)
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.running[process] = Running(trial, reported=len(known))

    def watch(self, process: Process) -> None:
        """Report new scores of a trial to Optuna, and stop it where the pruner says so."""
        state = self.running[process]
        try:
            found = (process.folder / "metrics.csv").stat()
        except OSError:
            return
        stamp = found.st_mtime_ns, found.st_size
        if stamp == state.stamp:
            return
        state.stamp = stamp
        scores = validations(process.folder / "metrics.csv", self.plan.monitor)
        if len(scores) <= state.reported:
            return
        for step in range(state.reported, len(scores)):
            state.trial.report(scores[step], step + 1)
        state.reported = len(scores)
        if not state.pruned and process.popen.poll() is None and state.trial.should_prune():
            state.pruned = True
            process.stop()

    def tell(self, process: Process) -> None:
        """Record how a trial ended. Raises `UserError` when two have failed with the same error and none has succeeded."""
        from optuna.trial import TrialState as State

        self.watch(process)
        state, job = self.running.pop(process), process.job()
        trial, before = (
            state.trial,
            self.study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED)),
        )
        if job.code == 0 and job.result is not None and math.isfinite(job.result):
            self.study.tell(trial.number, job.result)
            text = f"{self.plan.monitor} {job.result:.6g}"
        elif state.pruned:
            self.study.tell(trial.number, state=State.PRUNED)
            text = f"pruned after {state.reported} validations"
        else:
            error = job.error or f"it left no finite score of {self.plan.monitor}"
            trial.set_user_attr("error", error)
            self.study.tell(trial.number, state=State.FAIL)
            if error in self.faults and not before:
                raise UserError(f"trials fail alike, and none has finished: {error.removeprefix('error: ')}")
            self.faults.append(error)
            text = f"failed: {error}"
        sys.stdout.write(f"[search] trial {trial.number}: {text}\n")
        sys.stdout.flush()


def search(*, name: str = "search", trial: str = "train", module: str = "dvsn.train") -> None:
    """Runs the search of the command line.

    `name` is the config of the search, `trial` that of a trial, which runs as `python -m module`.

    SystemExit(1) when no trial has finished.
    """
    with compose.opened(name) as session:
        if session.arguments.cfg or session.arguments.info:
            raise ConfigError(
                "--cfg, --info: ask dvsn.train; a search adds the node `search` of conf/search.yaml."
            )
        try:
            import optuna
        except ImportError:
            raise ConfigError("dvsn.search: Optuna is not installed. pip install 'dvsn[hpo]'.") from None
        chosen = plan(session, name=name, trial=trial, module=module)
    from dvsn.report import search as report  # optuna's parts and plotly, which `--help` does without

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with alone_in(chosen.folder) as lock:
        study = open_study(chosen)
        try:
            Search(chosen, study).run(lock)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}. The same line goes on from there") from None
        finally:
            table = report.write(study, chosen.folder, chosen.folder)
    sys.stdout.write(f"{table}results: {chosen.folder}\n")
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        raise SystemExit(1)


def main() -> None:
    command_line.run(search, command=COMMAND)


if __name__ == "__main__":
    main()
