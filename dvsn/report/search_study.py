"""Optuna's parts of a search: storage in a file, samplers and pruners."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.atomic import replacing
from dvsn.errors import DataError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage

FILE = "study.log"
UNSEEN = "unseen"
"""Attribute of a failed trial that counts as none: it was given back, and its values have a trial of their own."""


class NoLock:
    """In place of a lock of Optuna's."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def storage(folder: Path) -> JournalStorage:
    """Optuna's journal, to be written: a line a change, each on the disk before the next. What is there survives a kill.

    A last line that was cut off, by a full disk for example, is removed, so that the next one does not go on in it.
    """
    file = folder / FILE
    if file.is_file() and not (content := file.read_bytes()).endswith(b"\n"):
        with file.open("r+b") as torn:
            torn.truncate(content.rfind(b"\n") + 1)
    return journal(file)


def journal(file: Path) -> JournalStorage:
    """Optuna's storage in a file. A last line that was cut off is not read.

    Optuna's own lock is left out: it outlives a killed process and then holds up the next one for half a minute, and the
    folder of a search is locked as a whole.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file), lock_obj=NoLock()))  # type: ignore[arg-type]


def load(folder: Path) -> Study:
    """The study of a folder, to be read, also while its search runs. Raises `DataError` where Optuna is missing."""
    try:
        import optuna
    except ImportError:
        raise DataError(f"{folder / FILE}: reading it needs Optuna. pip install 'dvsn[hpo]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.load_study(study_name="search", storage=journal(folder / FILE))
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / FILE}: is not the file of a search: {error}") from error


def keep_copy(study: Study, folder: Path) -> None:
    """Write what a shared study holds now to the folder of a search, from where a report reads it without the storage."""
    from optuna import create_study

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FILE) as temporary:
        temporary.unlink(missing_ok=True)  # of a process of this number that was killed
        copy = create_study(study_name="search", storage=journal(temporary), direction=study.direction)
        for key, value in study.user_attrs.items():
            copy.set_user_attr(key, value)
        copy.add_trials(study.get_trials(deepcopy=False))


def sampler(options: dict[str, Any], *, number: int) -> BaseSampler:
    """Draws trial `number`: TPE (Bergstra, Bardenet, Bengio and Kegl, 2011; Optuna's, ten random trials first) or random.

    With several trials at a time, TPE counts running ones as bad, so that it does not propose nearly the same twice.
    """
    import numpy as np
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([int(options["seed"]), number]).generate_state(1)[0])
    if options["sampler"] == "random":
        return RandomSampler(seed=seed)
    several = options["jobs"] > 1 or options.get("storage") is not None
    return TPESampler(seed=seed, constant_liar=several)


def pruner(options: dict[str, Any]) -> BasePruner:
    """The median rule (Golovin et al., 2017, "Google Vizier", section 3.2.2): after its n-th validation the best score of
    a trial so far is compared with the n-th scores of the trials that finished."""
    from optuna.pruners import MedianPruner, NopPruner

    if options["pruner"] != "median":
        return NopPruner()
    return MedianPruner(n_startup_trials=options["startup_trials"], n_warmup_steps=options["warmup"] + 1)
