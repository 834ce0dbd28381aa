"""Whether a teacher sees the pictures of a run as those that it was trained on: their bands and the range of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dvsn.data.module import DataModule
from dvsn.distill.teacher import Teacher
from dvsn.errors import ConfigError
from dvsn.portable.bands import Bands, bands_of


def require_shown_alike(data: DataModule, teachers: Sequence[Teacher]) -> None:
    """Raise `ConfigError` for a teacher that was trained on other bands, or on another range of 16 bits or floats, than the
    pictures of this run are read with, whose ranges are measured. Of a network of the user's own nothing is known."""
    for teacher in teachers:
        theirs: Mapping[str, Any] = getattr(teacher.holder, "data_recipe", {})
        if theirs and not teacher.moves and not (data.label_classes or theirs.get("label_classes")):
            _require(data, teacher, theirs)


def _require(data: DataModule, teacher: Teacher, theirs: Mapping[str, Any]) -> None:
    trained, mine = bands_of(theirs), data.rule.bands
    before, now = theirs.get("input_channels", 3), data.input_channels
    if before != now:
        raise ConfigError(
            f"teacher: {teacher.name} sees {before} channels, and data.input_channels is {now}. Teacher and student are "
            f"shown the same pictures: set data.input_channels={before}, or choose another teacher."
        )
    known, shown = taken(trained, before), taken(mine, now)
    if known != shown:
        raise ConfigError(
            f"teacher: {teacher.name} was trained on {in_words(known)}, and this run reads {in_words(shown)}. Set "
            f"{options_of(trained, now)}, or choose another teacher."
        )
    wanted, found, option = theirs.get("deep_range"), data.rule.deep_range, "data.deep_range"
    if trained is not None and mine is not None:
        wanted, found, option = trained.ranges, mine.ranges, "data.bands.range"  # type: ignore[assignment]
    if wanted is not None and found is not None and listed(wanted) != listed(found):
        raise ConfigError(
            f"teacher: {teacher.name} was trained on pictures whose range {listed(wanted)} becomes 0 to 255; in this run it "
            f"is {listed(found)}, so that it would see them darker or brighter. Set {option}={listed(wanted)}"
        )


def taken(bands: Bands | None, channels: int) -> Sequence[int] | None:
    """The numbers of the bands of a file that are seen; None: the brightness of RGB."""
    if bands is None and channels == 1:
        return None
    if bands is None or bands.take is None:
        return tuple(range(1, channels + 1))
    return bands.take


def options_of(bands: Bands | None, channels: int) -> str:
    """The options with which a run reads the same bands."""
    if bands is not None and bands.take is not None:
        return f"data.bands.take={listed(bands.take)}"
    if channels != 1:
        return "data.bands.take=null"
    if bands is None:  # any of them makes bands of the picture, in the place of its brightness
        return "data.bands.take=null data.bands.range=null data.bands.beside=null"
    return f"data.bands.take=null data.bands.range={listed(bands.ranges)}"


def in_words(bands: Sequence[int] | None) -> str:
    return "the brightness of pictures" if bands is None else f"the bands {listed(bands)}"


def listed(value: Any) -> str:
    """As a command line has it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(listed, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
