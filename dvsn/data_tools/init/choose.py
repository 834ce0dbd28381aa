"""Asks every recogniser of this folder, and settles on one understanding."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import NamedTuple

from dvsn.data_tools import init
from dvsn.data_tools.init.found import COULD, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.naming import is_part
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.reading import read_table

EXPECTED = """\
Expected one of these:
    photos beside masks      images/1.jpg + masks/1.png, or 1.jpg + 1_mask.png; also below train/, val/, test/
    a folder a class         cat/1.jpg, dog/1.jpg; also below train/ and val/
    pairs of pictures        a/1.png + b/1.jpg, or two side by side in one file
    objects, keypoints       a COCO JSON, YOLO text or VOC XML beside the pictures
    points of faces          a table, .pts files or WFLW's lines beside the pictures"""


class Choice(NamedTuple):
    """What was settled on, the recogniser that found it, and the other understandings of the same files."""

    found: Found
    recogniser: ModuleType
    others: tuple[Found, ...] = ()


def recognisers() -> list[ModuleType]:
    """The files of this folder that have a `look`."""
    names = sorted(each.name for each in pkgutil.iter_modules(init.__path__))
    modules = [importlib.import_module(f"{init.__name__}.{name}") for name in names]
    return [module for module in modules if hasattr(module, "look")]


def choose(listing: Listing, task: str | None = None) -> Choice:
    """The surest understanding of the folder, for `task` where one is asked for.

    Raises `DataError` where there is none, or where two kinds lie side by side: each explains files that the other does
    not, or a folder apart is surely of another kind. What `look` raises is raised where nothing surer than `COULD` is
    understood of the folder.
    """
    candidates: list[tuple[Found, ModuleType]] = []
    complaints: list[DataError] = []
    for module in recognisers():
        try:
            found = module.look(listing)
        except DataError as error:
            complaints.append(error)
            continue
        if found is not None:
            candidates.append((found, module))
    there = sorted({found.task for found, _ in candidates})
    if task is not None and candidates and task not in there:
        raise ConfigError(
            f"task: found '{task}', but {listing.root} has what {', '.join(there)} needs. {nearest(task, there)}"
        )
    candidates = [each for each in candidates if task in (None, each[0].task)]
    if not candidates:
        if complaints:
            raise complaints[0]
        packed = listing.ending(".zip", ".gz", ".tar", ".tgz", ".7z", ".rar", ".xz", ".bz2")
        advice = f" Unpack {few(packed)} first." if packed else ""
        raise DataError(
            f"{listing.root}: nothing recognised. Found {listing.tree()}.{advice}{strange_table(listing)}\n{EXPECTED}"
        )
    if complaints and task is None and all(found.sure == COULD for found, _ in candidates):
        raise complaints[0]
    candidates.sort(key=lambda each: (-each[0].sure, -len(each[0].claimed)))
    best, module = candidates[0]
    apart = [found for found, _ in candidates[1:] if stands_apart(found, best)]
    if apart:
        listed = " and ".join(f"{found.kind} (task={found.task})" for found in (best, *apart))
        raise DataError(
            f"{listing.root}: two kinds of data at once: {listed}. Say which is meant with task={best.task} or "
            f"task={apart[0].task}, or give the folder of one kind alone."
        )
    if task is None:
        refuse_another_set(listing, best)
    return Choice(best, module, tuple(found for found, _ in candidates[1:]))


def strange_table(listing: Listing) -> str:
    """A sentence on the first table, whose columns were not taken for points; "" where there is none."""
    for name in listing.ending(".csv"):
        rows = read_table(listing.path(name))
        if rows:
            columns = ", ".join(each.strip() for each in rows[0].columns[:6])
            return f" The columns of {name} are no points: {columns}. A class for each picture is read from folders alone."
    return ""


def refuse_another_set(listing: Listing, best: Found) -> None:
    """Raise `DataError` for a folder of which the understanding explains nothing, and which alone is surely another kind."""
    tops = {name.partition("/")[0] for name in listing.pictures if "/" in name}
    for top in sorted(tops - {name.partition("/")[0] for name in best.claimed}):
        if role_of(top) or is_part(top):
            continue
        inside = listing.within(top)
        for module in recognisers():
            try:
                found = module.look(inside)
            except DataError:
                continue
            if found is not None and found.sure > COULD and found.task != best.task:
                raise DataError(
                    f"{listing.root}: two kinds of data at once: {best.kind}, and in {top}/ {found.kind}. Give "
                    f"{listing.root / top} for the second; task={best.task} takes the first and leaves {top}/ out."
                )


def stands_apart(other: Found, best: Found) -> bool:
    """Whether another understanding is not merely a second reading of the same files: it is as sure of other ones."""
    beyond = other.claimed - best.claimed
    if other.task == best.task or not beyond:
        return False
    shared = len(other.claimed & best.claimed)
    return other.sure >= best.sure or (shared == 0 and other.sure > 1)
