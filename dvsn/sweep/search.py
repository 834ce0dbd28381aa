"""`python -m dvsn.search`: search over options of a training with Optuna, a run for each trial, bad ones ended early.

Optuna (Akiba, Sano, Yanase, Ohta and Koyama, 2019, arXiv:1907.10902) is used through its ask-and-tell interface: the
release of hydra-optuna-sweeper for this Hydra needs an Optuna below 3.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from dvsn import command_line
from dvsn.command_line import Command, Option
from dvsn.config import compose
from dvsn.config.folders import check_place
from dvsn.config.rules import check_options
from dvsn.config.types import number, require, whole
from dvsn.errors import ConfigError
from dvsn.report import search_study
from dvsn.sweep import launcher, search_space, storage
from dvsn.sweep.search_loop import Config, Plan, Search, alone_in, open_study
from dvsn.sweep.workers import Team

if TYPE_CHECKING:
    from optuna import Study

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
        Option("search.storage", None, "postgresql://, mysql://, sqlite:/// or grpc://: machines with the same line share a "
               "study; null: a file in search.dir"),
        Option("search.study", "NAME", "the name of the study on that storage"),
        Option("search.heartbeat", 60, "seconds between two signs of life of a worker on it; after three without one its "
               "trials go to others"),
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


def plan(session: compose.Session, *, name: str, trial: str, module: str) -> Plan:
    """Reads the command line and checks the corners of the ranges. Raises `ConfigError`, before anything starts."""
    if session.arguments.multirun or session.arguments.config_name:
        flag = "-m" if session.arguments.multirun else "--config-name"
        raise ConfigError(
            f"{flag}: has no meaning for a search, which makes its trials itself. Leave it out."
        )
    loader = session.loader
    storage.refuse_written_password(session.overrides)
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
    address = storage.read_address(options["storage"], line=composed.line.get("search.storage"))
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
    return Plan(shared, ranges, options, str(monitor["name"]), monitor.get("mode", "min"), command, address)


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
        ("study", isinstance(options["study"], str) and 0 < len(options["study"]) <= 200, "a name"),
        ("heartbeat", number(options["heartbeat"]) and 1 <= options["heartbeat"] <= 3600, "seconds, from 1 to 3600"),
        ("warmup", whole(options["warmup"], 0), "a whole number, 0 or more"),
    )  # fmt: skip
    require([(key, options[key], right, expected) for key, right, expected in rules], "search.")


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
    shared = chosen.address is not None
    with nullcontext(None) if shared else alone_in(chosen.folder) as lock:
        study = open_study(chosen)
        keys = [each.key.lstrip("+") for each in chosen.ranges]
        team = (
            Team(study, chosen.folder, heartbeat=chosen.options["heartbeat"], keys=keys) if shared else None
        )
        try:
            Search(chosen, study, team).run(lock)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}. The same line goes on from there") from None
        finally:
            study = newest_copy(study, chosen) if shared else study
            table = report.write(study, chosen.folder, chosen.folder)
    sys.stdout.write(f"{table}results: {chosen.folder}\n")
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        raise SystemExit(1)


def newest_copy(study: Study, plan: Plan) -> Study:
    """What the folder of a shared search knows of its study: all, or what it was when the storage last answered."""
    with suppress(*storage.troubles()):
        search_study.keep_copy(study, plan.folder)
    return search_study.load(plan.folder)


def main() -> None:
    command_line.run(search, command=COMMAND)


if __name__ == "__main__":
    main()
