"""`python -m dvsn.dashboard ENTITY/PROJECT`: what is made, and what is said."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.dashboard.plan import Dashboard, load, names
from dvsn.engine.boards.keys import has_wandb_key
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
PLACE = re.compile(r"([\w.-]+)/([^/\\#?%:\s]{1,128})")
KINDS = ("workspace", "report")

COMMAND = Command(
    name="dashboard",
    summary="Make a workspace and a report of W&B for each task, in which the runs of logger=wandb are shown.",
    options=(
        Option("project", REQUIRED, "ENTITY/PROJECT of W&B, such as my_team/dvsn"),
        Option("task", None, "one or a list of those in conf/dashboard, or YAML files of your own; null: all"),
        Option("make", ["workspace", "report"], "one of them, or both"),
        Option("dry_run", False, "print what would be made, and make nothing"),
    ),
    examples=(
        "python -m dvsn.dashboard my_team/dvsn",
        "python -m dvsn.dashboard my_team/dvsn task=segmentation dry_run=true",
        "python -m dvsn.dashboard my_team/dvsn task=[mine.yaml] make=[report]",
    ),
)  # fmt: skip


def dashboard(options: dict[str, Any]) -> list[str]:
    """Make what the options ask for and return the addresses. A dry run prints it and makes nothing.

    Raises `ConfigError` without a key of W&B, without wandb-workspaces, and where W&B refuses.
    """
    place = PLACE.fullmatch(str(options["project"]))
    if place is None:
        raise ConfigError(
            f"project: found '{options['project']}', expected ENTITY/PROJECT, such as my_team/dvsn."
        )
    kinds = listed(options["make"])
    wrong = next((each for each in kinds if each not in KINDS), None)
    if wrong is not None or not kinds:
        raise ConfigError(f"make: found {wrong!r}, expected workspace, report or both.")
    plans = [load(name) for name in (listed(options["task"]) if options["task"] is not None else names())]
    installed, key = importlib.util.find_spec("wandb_workspaces") is not None, has_wandb_key()
    made = build(plans, kinds, *place.groups()) if installed else []
    if options["dry_run"] or not key:
        sys.stdout.write(told(plans, kinds, place[0]))
    if options["dry_run"]:
        checked = (
            "its parts are those of wandb-workspaces" if installed else "wandb-workspaces is not installed"
        )
        log.info("dry_run=true: nothing was made; %s", checked)
        return []
    if not key:
        raise ConfigError(
            "W&B: there is no key to log in with, so nothing was made. Run `wandb login`, or set WANDB_API_KEY"
        )
    if not installed:
        raise ConfigError(
            "dvsn.dashboard: the package wandb-workspaces is missing. Run: pip install 'dvsn[dashboard]'"
        )
    return [save(each, place[0]) for each in made]


def listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def told(plans: Sequence[Dashboard], kinds: Sequence[str], place: str) -> str:
    """What would be made, for the screen."""
    lines = [f"{place}: a {' and a '.join(kinds)} for each of"]
    return "\n\n".join([*lines, *map(str, plans)]) + "\n"


def build(plans: Sequence[Dashboard], kinds: Sequence[str], entity: str, project: str) -> list[Any]:
    """The objects of wandb-workspaces, of which nothing is sent."""
    from dvsn.dashboard.make import report_of, workspace_of

    makers = {"workspace": workspace_of, "report": report_of}
    return [makers[kind](plan, entity=entity, project=project) for plan in plans for kind in kinds]


def save(made: Any, place: str) -> str:
    """Send a workspace or a report, and return its address."""
    with refusals(place):
        made.save()
    address = str(made.url)
    log.info("%s", address)
    return address


@contextmanager
def refusals(place: str) -> Iterator[None]:
    """What W&B says of a project that is not there, or not yours, as a `ConfigError`."""
    try:
        yield
    except Exception as error:  # the library raises Exception itself
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"project: W&B refused {place}: {said} Look at the names of entity and project, and at `wandb login`."
        ) from error


def main() -> None:
    def command() -> None:
        options = COMMAND.parse(sys.argv[1:])
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        dashboard(options)

    command_line.run(command, command=COMMAND)
