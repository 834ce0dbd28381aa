"""The folder of a run: its name, the places where it may lie, and a lock that keeps other runs out."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dvsn.atomic import locked_out
from dvsn.config import flags, parent_death
from dvsn.config.launched import restarted
from dvsn.config.newest import newest_run
from dvsn.config.types import found
from dvsn.errors import ConfigError, UserError

JOB_FOLDER = "DVSN_JOB_FOLDER"
"""The variable by which a sweep or a search tells a job the folder that it has made for it."""
RECORDS = ("config.yaml", "result.json", "metrics.csv", "checkpoints")
"""What a run leaves in its folder."""
BEGUN = ("config.yaml", "command.txt", "environment.json", ".lock", "train.log", "multirun.yaml")
"""What lies in the folder of a run or a sweep that has not done anything yet."""
PARTS = ("checkpoints", "pictures")


def at_home(path: str | Path, *, option: str) -> Path:
    """A path with `~` and `~USER` replaced. Raises `ConfigError` where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{option}: {path} names a user who is not there. Write the whole path.") from error


def require_writable(folder: str | Path, *, option: str) -> Path:
    """A folder that can be written to, `~` replaced; it need not be there, and is not made. Raises `ConfigError`, before any
    work is done for it, where a file or a broken link is in the way or the system refuses."""
    path = at_home(folder, option=option)
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # a name may be too long
        near = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
        if not near.is_dir():
            state = "is a file" if near.exists() else "is a link to what is not there"
            raise NotADirectoryError(0, f"{near} {state}, expected a folder")
        Path(tempfile.mkdtemp(prefix=".dvsn.", suffix=".tmp", dir=near)).rmdir()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{option}: {path} cannot be written: {reason_of(error)}. Give another folder."
        ) from error
    return path


def reason_of(error: Exception) -> str:
    """What the system says, such as `File name too long`."""
    return getattr(error, "strerror", None) or str(error)


def run_stamp(name: str, resume: str | None) -> str:
    """The folder of a run below its name: new, unless it is to be continued.

    A SLURM job keeps its folder when it is requeued, and further steps of a job have folders of their own. `resume=auto`
    takes up the folder with the newest checkpoint that is whole, over all of the name; a SLURM job its own, if it has one.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "0")
    later = (
        step.isdecimal() and 0 < int(step) < 1_000_000
    )  # larger numbers are those of batch scripts and shells
    own = f"slurm_{job}_step{step}" if later else f"slurm_{job}"
    found = newest_run(Path("runs", name), first=own) if resume == "auto" else None
    if found is not None:
        return found
    if job:
        return own
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def check_place(key: str, folder: Any, *, spelt: Any = None, inside: Sequence[str | Path] = ()) -> Path:
    """The absolute path of a folder that lies in the working directory, links followed, or where the command line says.

    `key` is the option that names it; `spelt` what the command line has for it, None where a YAML file names it. Of
    a text with interpolations, such as /data/runs/${name}, the part before them counts. `runs` may be a link of the
    user's own; `inside` are further folders that will do. Raises `ConfigError`.
    """
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise ConfigError(f"{key}: {found(folder)}, expected the path of a folder")
    allowed = [Path.cwd(), Path.cwd() / "runs", *map(Path, inside)]
    if isinstance(spelt, str):
        start, interpolation, _ = spelt.partition("${")
        start = start.rpartition("/")[0] + "/" * start.startswith("/") if interpolation else start
        allowed += [Path(start)] if start else []
    path = Path(os.path.normpath(Path(folder).absolute()))
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(each)) for each in allowed):
        raise ConfigError(
            f"{key}: {path} is outside of the working directory. Folders elsewhere are given on the command line: "
            f"{key}={path}"
        )
    return path


def holds_run(folder: Path) -> bool:
    """Whether a run has left something in a folder."""
    return any((folder / name).exists() for name in RECORDS)


def refuse_links(folder: Path) -> None:
    """Raises `ConfigError` where a link in a folder, at any depth, leads out of it.

    W&B keeps links of its own below `wandb`, in folders whose names are made anew for each run.
    """
    real = Path(os.path.realpath(folder))
    for place, folders, files in os.walk(folder):
        for item in (Path(place, name) for name in (*folders, *files)):
            if item.is_symlink() and not Path(os.path.realpath(item)).is_relative_to(real):
                raise ConfigError(
                    f"{item}: is a link that leads out of the folder of the run. Remove it, or take another folder."
                )
        folders[:] = [name for name in folders if Path(place, name) != folder / "wandb"]


def next_free(folder: Path) -> Iterator[Path]:
    """The folder, then its name with _2, _3 and so on."""
    yield folder
    number = 2
    while True:
        yield folder.with_name(f"{folder.name}_{number}")
        number += 1


@contextmanager
def claimed(folder: Path, *, given: bool, resume: bool) -> Iterator[Path]:
    """Makes the folder of a run and keeps it from other runs until the end: gives `folder`, or the next free one.

    One that is `given` by name is refused where a run goes on or has left something in it, unless that is continued
    (`resume`). One whose name was made up is never shared: the next free name is taken. Further processes of a run
    enter the folder of the first. Raises `ConfigError`.
    """
    if any(int(os.environ.get(name) or 0) > 0 for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID")):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    require_writable(folder, option="hydra.run.dir")
    if made_by_pool(folder):
        parent_death.stop_with_parent()
    for place in next_free(folder):
        missing = not_there(place)
        made = _make(place)
        if not made:
            refuse_links(place)
        with cleared(place, missing if made else ()), _locked(place) as free:
            again = resume or made_by_pool(place) or (restarted() and same_command(place))
            if free and (made or again or (given and not holds_run(place))):
                yield place
                return
        if given or (resume and not made):
            state = "holds a run" if free else "is the one of a run that goes on"
            raise ConfigError(
                f"hydra.run.dir: {place} {state}. Take another folder, or continue a run that has ended with resume=auto."
            )


def not_there(folder: Path) -> list[Path]:
    """Those of a folder and its parents that do not exist, the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


@contextmanager
def cleared(folder: Path, made: Sequence[Path]) -> Iterator[None]:
    """Around the work in a folder: where that is refused before it has begun, the folders that were `made` for it are
    removed, the innermost first. What has begun loses its empty parts."""
    try:
        yield
    except UserError:
        if folder in made:
            clear_begun(folder)
            _remove_empty(made)
        raise
    _remove_empty([folder / part for part in PARTS])


def clear_begun(folder: Path) -> None:
    """Empty the folder of a run that has done nothing yet; one that has anything else in it stays as it is."""
    _remove_empty([folder / part for part in PARTS])
    there = list(folder.iterdir()) if folder.is_dir() else []
    if all(each.name in BEGUN and not each.is_dir() for each in there):
        for each in there:
            each.unlink(missing_ok=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove the empty ones of these folders, in this order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def made_by_pool(folder: Path) -> bool:
    """Whether this process is a job of a sweep or a search, and the folder is the one that was made for it."""
    given = os.environ.get(JOB_FOLDER)
    return bool(given) and os.path.realpath(str(given)) == os.path.realpath(folder)


def same_command(folder: Path) -> bool:
    """Whether the run in a folder was started by this command line."""
    file, arguments = folder / "command.txt", shlex.join(flags.command_words())
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return not holds_run(folder) or any(line.endswith(arguments) for line in lines)


def _make(folder: Path) -> bool:
    """Make a folder; False where it was there. Raises `ConfigError` where the system refuses."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():
            return False
        raise ConfigError(f"{folder}: a file is in the way, expected a folder. Give another one.") from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {reason_of(error)}. Give another folder.") from error
    return True


_held: set[int] = set()
"""File descriptors of locks. A forked process, such as one that loads data, lets go of them: it may outlive a run that is
killed, whose folder must be free at once."""


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Locks a folder, inside of the context; False where another process has it. Some shared disks know no locks."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    free = not locked_out(lock)
    _held.add(lock)
    try:
        yield free
    finally:
        if lock in _held:
            _held.remove(lock)
            os.close(lock)


def new_sweep(folder: Path, *, given: bool, again: bool) -> Path:
    """Makes the folder of a sweep: `folder`, or the next free one where its name was made up.

    One that is `given` and holds jobs is refused, unless it is completed (`again`). Raises `ConfigError`.
    """
    require_writable(folder, option="hydra.sweep.dir")
    if given or again:
        if not again and any(folder.glob("*/job.json")):
            raise ConfigError(
                f"hydra.sweep.dir: {folder} holds the jobs of a sweep. Take another folder, or run what is missing "
                "there with sweep.skip_finished=true."
            )
        if not _make(folder):
            refuse_links(folder)
        return folder
    return next(place for place in next_free(folder) if _make(place))
