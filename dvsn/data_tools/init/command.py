"""`python -m dvsn.data init`: looks at a folder, says what it found, and writes the YAML files that train on it."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from dvsn.atomic import replacing
from dvsn.config.folders import require_writable
from dvsn.config.menu import choices
from dvsn.data_tools.init import choose, published, splits, write
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.machine import this_machine
from dvsn.data_tools.init.verify import verify
from dvsn.errors import ConfigError, DataError

log = logging.getLogger("dvsn")


def init(options: dict[str, Any]) -> list[Path]:
    """Writes the files; returns them. Raises `ConfigError` and `DataError` before anything is written."""
    name = checked_name(str(options["name"]))
    into = require_writable(str(options["into"]), option="into")
    options = options | {"into": str(into)}
    files = [into / "data" / f"{name}.yaml", into / "experiment" / f"{name}.yaml"]
    write.refuse_existing(files, bool(options["overwrite"]))
    ratio = splits.shares(str(options["ratio"]))
    listing = Listing.of(Path(options["folder"]))
    found, recogniser, others = understand(listing, options["task"])
    plan = splits.plan(
        found.counts, ratio=ratio, seed=options["seed"], group=options["group"],
        items=found.items, shows=found.shows, targets=found.targets,
    )  # fmt: skip
    found.facts["train"] = plan.counts["train"]
    if options["minutes"] < 1:
        raise ConfigError(f"minutes: found {options['minutes']}, expected 1 or more.")
    machine = this_machine(minutes=options["minutes"])
    recipe = recogniser.propose(found, machine)
    command = f"python -m dvsn.train --config-dir {shlex.quote(str(into))} experiment={name}"
    note = f"Written by `python -m dvsn.data init {shlex.quote(str(options['folder']))}`."
    texts = [
        write.data_yaml(found, plan, listing.root, note=note),
        write.recipe_yaml(
            found, recipe, name, command=command,
            note=f"The recipe for data={name}, proposed for this machine ({machine.words()}). {note}",
        ),
    ]  # fmt: skip
    verify({"data/" + files[0].name: texts[0], "experiment/" + files[1].name: texts[1]}, name, listing.root)
    with replacing(files[0]) as data, replacing(files[1]) as experiment:
        data.write_text(texts[0], encoding="utf-8")
        experiment.write_text(texts[1], encoding="utf-8")
    report(listing.root, found, plan.says, others)
    words = found.facts.get("predict") or ["PICTURE"]
    advise(files, name, into, [str(each) for each in words], command)
    return files


def understand(listing: Listing, task: str | None) -> choose.Choice:
    """What lies there. Raises `DataError` with the line that trains on it for a data set that dvsn reads as published,
    unless `task` asks for one that its files are understood for without that."""
    shipped = published.published(listing)
    if shipped is None:
        return choose.choose(listing, task)
    if task in (None, *shipped.tasks):
        raise DataError(published.sentence(shipped, listing, task))
    return choose.choose(listing, task)


def checked_name(name: str) -> str:
    """Raise `ConfigError` for a name that cannot be one of a YAML file, or that dvsn's own data sets have."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ConfigError(f"name: found '{name}', expected letters, digits, _ and -, such as my_scans.")
    for group in ("data", "experiment"):
        if name in choices()[group]:
            raise ConfigError(
                f"name: '{name}' is a choice of {group} that dvsn has already. Choose another, such as my_{name}."
            )
    return name


def report(root: Path, found: Any, parting: list[str], others: Any) -> None:
    """What was found, on the screen."""
    log.info("%s: %s, for task=%s", root, found.kind, found.task)
    for line in (*found.says, *parting):
        log.info("  %s", line)
    for line in found.odd:
        log.info("  left out: %s", line)
    for other in others:
        if other.task != found.task:
            log.info("  it could also be %s: task=%s", other.kind, other.task)


def advise(files: list[Path], name: str, into: Path, words: list[str], command: str) -> None:
    """The lines that come next; `words` are what a prediction is of, and its options."""
    conf = f"--config-dir {shlex.quote(str(into))}"
    log.info("\nwritten  %s", "\nwritten  ".join(map(str, files)))
    log.info("check    python -m dvsn.data check %s data=%s", conf, name)
    log.info("show     python -m dvsn.data show %s experiment=%s", conf, name)
    log.info("train    %s", command)
    log.info("predict  python -m dvsn.predict %s %s", shlex.quote(f"runs/{name}"), shlex.join(words))


def train(options: dict[str, Any]) -> None:
    """The training line. Ends with its exit code."""
    line = ["-m", "dvsn.train", "--config-dir", str(options["into"]), f"experiment={options['name']}"]
    code = subprocess.run([sys.executable, *line]).returncode
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def job(options: dict[str, Any]) -> None:
    init(options)
    if options["train"]:
        train(options)
