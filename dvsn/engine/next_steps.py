"""Command lines to use after a run has ended: evaluate, predict, continue."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from dvsn.errors import UserError

Config = dict[str, Any]
PLAIN = re.compile(r"[\w./+@-]+")
"""What neither a shell nor Hydra reads otherwise than it stands."""
REPLACED = ("resume", "resume.force", "resume_force", "hydra.run.dir", "run_dir")
"""Options of the command line that a line which continues has in its own way."""


def word(key: str, value: str) -> str:
    """`key=value` for a shell and for Hydra behind it."""
    return f"{key}={value}" if PLAIN.fullmatch(value) else shlex.quote(f"{key}={json.dumps(value)}")


def short(path: Path) -> str:
    """A path relative to the working directory if it lies in it, else as it is."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def command_of(folder: Path) -> list[str] | None:
    """The arguments of `python -m dvsn.train` that the run in a folder was last started with; None where it
    was not."""
    file = folder / "command.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    words = shlex.split(lines[-1]) if lines else []
    return words[3:] if words[:3] == ["python", "-m", "dvsn.train"] else None


def allowed(arguments: list[str]) -> list[str]:
    """`--allow NAME` of a command line: the classes of a checkpoint may come from there."""
    found = []
    for index, each in enumerate(arguments):
        if each.startswith("--allow="):
            found.append(each)
        elif each == "--allow":
            found += arguments[index : index + 2]
    return found


def line_to_evaluate(checkpoint: Path, split: str, arguments: list[str]) -> str:
    options = [word("checkpoint", short(checkpoint)), f"split={split}"]
    return " ".join(["python -m dvsn.evaluate", *map(shlex.quote, allowed(arguments)), *options])


def line_to_predict(checkpoint: Path, picture: Path, arguments: list[str]) -> str:
    words = [short(checkpoint), short(picture)]
    return " ".join(["python -m dvsn.predict", *map(shlex.quote, [*allowed(arguments), *words])])


def line_to_continue(folder: Path, arguments: list[str], *, changed: dict[str, Any], forced: bool) -> str:
    """The line that goes on with the run of a folder. `changed` are options with which it goes on; with `forced` its
    learning depends on them."""
    gone = (*REPLACED, *changed)
    kept = [each for each in arguments if each.lstrip("+").partition("=")[0] not in gone]
    parts = [*map(shlex.quote, kept), *(f"{key}={value}" for key, value in changed.items())]
    if forced and changed:
        parts.append(shlex.quote(f"resume.force=[{','.join(changed)}]"))
    return " ".join(["python -m dvsn.train", *parts, word("hydra.run.dir", short(folder)), "resume=auto"])


def longer(trainer: Any) -> dict[str, Any]:
    """The option by which a run that has come to its end gets twice as long; empty where it was ended before."""
    if trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps:
        return {"trainer.max_steps": 2 * trainer.max_steps}
    if trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch:
        return {"trainer.max_epochs": 2 * trainer.max_epochs}
    return {}


def split_to_measure(data: Any) -> str:
    """`test` where the data set has one of its own on the disk, else `val`."""
    splits = data.splits
    if "test" in splits and splits["test"] not in (splits["val"], splits["train"]):
        try:
            return "test" if len(data.read(splits["test"])) else "val"
        except (UserError, OSError):
            pass
    return "val"


def picture_to_predict(data: Any, config: Config) -> Path | None:
    """A picture of the validation set, of the side that the network sees. None where it is no file of its own."""
    pair = config["data"].get("pair") or {}
    dataset = data.datasets.get("val")
    if dataset is None:
        return None
    if not config["task"]["_target_"].endswith(".Pix2Pix"):
        return next((photo for photo in dataset.photos(0) if photo.is_file()), None)
    paths = [Path(each) for each in dataset.describe(0).split(" + ")]
    if len(paths) == 1 and pair.get("source") in ("a", "b"):
        return None  # the other half of the file is the answer
    labels = pair.get("source") in ("label", "b")
    path = paths[1 if labels and len(paths) > 1 else 0]
    if labels and not config["data"].get(
        "label_classes"
    ):  # of Cityscapes the file of ids is read, and then painted
        path = path.with_name(path.name.replace("_labelIds", "_color"))
    return path if path.is_file() else None


def next_lines(config: Config, task: Any, trainer: Any, folder: Path) -> dict[str, str]:
    """`evaluate`, `predict` and `continue`, as far as they can be said."""
    checkpoints, arguments = folder / "checkpoints", command_of(folder)
    best = next((file for name in ("best", "last") if (file := checkpoints / f"{name}.ckpt").exists()), None)
    lines: dict[str, str] = {}
    if best is not None:
        lines["evaluate"] = line_to_evaluate(best, split_to_measure(trainer.datamodule), arguments or [])
        picture = picture_to_predict(trainer.datamodule, config)
        if picture is not None:
            lines["predict"] = line_to_predict(best, picture, arguments or [])
    if arguments is not None and (checkpoints / "last.ckpt").exists():
        forced = task.schedule.needs_end
        lines["continue"] = line_to_continue(folder, arguments, changed=longer(trainer), forced=forced)
    return lines
