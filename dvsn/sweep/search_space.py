"""The ranges of a search: read in Hydra's sweep syntax, given to Optuna as distributions, written as overrides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dvsn.config import compose
from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution

HOW = "interval(LOW,HIGH), tag(log,interval(LOW,HIGH)), int(interval(LOW,HIGH)), range(START,STOP,STEP) or choice(A,B,C)"


@dataclass(frozen=True)
class Range:
    """The values that one key may have: one of `choices`, as text of the command line, or a number from `low` to `high`.

    Both ends are included. `step` is None for a continuous number; `whole` numbers have a step, 1 unless given.
    """

    key: str
    """With its + or ++ and its @package, as in an override."""
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def corners(self) -> tuple[Any, ...]:
        """The values that are checked before anything starts: every choice, or both ends."""
        return self.choices or tuple(dict.fromkeys((self.low, self.high)))

    def override(self, value: Any) -> str:
        """`key=value`: a float with all its digits, one of a range in steps with twelve."""
        if self.choices or self.whole:
            return f"{self.key}={value}"
        return f"{self.key}={float(value)!r}" if self.step is None else f"{self.key}={float(value):.12g}"

    def distribution(self) -> BaseDistribution:
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return distributions.IntDistribution(low, high, log=self.log, step=step)
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key}: one of {', '.join(self.choices)}"
        step = (
            f" in steps of {self.step:g}"
            if self.step is not None and (self.step != 1 or not self.whole)
            else ""
        )
        kind = f"{', logarithmic' * self.log}{', whole' * self.whole}"
        return f"{self.key}: {self.low:g} to {self.high:g}{step}{kind}"


def parse(overrides: Sequence[str], loader: ConfigLoader) -> tuple[list[str], list[Range]]:
    """The overrides that all trials share, and the ranges. Raises `ConfigError` for a range that is none, or a key twice."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    parser, parsed = OverridesParser.create(config_loader=loader), []
    for text in overrides:
        with compose.translated():
            try:
                parsed += parser.parse_overrides([text])
            except OverrideParseException as error:
                if "(" in text:
                    raise ConfigError(f"{text}: not understood, expected {HOW}.") from error
                raise
    shared = [text for text, each in zip(overrides, parsed, strict=True) if not each.is_sweep_override()]
    ranges = [read(each) for each in parsed if each.is_sweep_override()]
    keys = [each.get_key_element().lstrip("+") for each in parsed]
    for each in ranges:
        key = each.key.lstrip("+")
        if keys.count(key) > 1:
            raise ConfigError(f"{key}: is given twice, with a range. Give it once.")
        if key.startswith(("search.", "hydra.", "hydra/")):
            raise ConfigError(f"{key}: is the same for all trials, found a range.")
    return shared, ranges


def read(override: Override) -> Range:
    """A parsed override with a range. Raises `ConfigError`."""
    key, text = override.get_key_element(), override.input_line
    value: Any = override.value()
    tags = set(getattr(value, "tags", ()))
    if tags - {"log"}:
        raise ConfigError(
            f"{text}: the tag {', '.join(sorted(tags - {'log'}))} means nothing here, expected log."
        )
    log = "log" in tags
    if override.is_choice_sweep():
        found = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if log or not found:
            raise ConfigError(f"{text}: found {'log with choices' if log else 'no choice'}, expected {HOW}.")
        return Range(key, choices=found)
    if override.is_interval_sweep():
        low, high = value.start, value.end
        whole = isinstance(low, int) and isinstance(high, int)
        result = Range(key, low=low, high=high, log=log, whole=whole, step=1 if whole else None)
        empty = not low < high
    else:
        start, stop, step = (Decimal(str(part)) for part in (value.start, value.stop, value.step))
        count = math.ceil((stop - start) / step) if step else 0
        ends = sorted((start, start + step * (count - 1)))
        whole = all(each == each.to_integral_value() for each in (start, step)) and isinstance(
            value.start, int
        )
        number = int if whole else float
        result = Range(
            key, low=number(ends[0]), high=number(ends[1]), step=number(abs(step)), log=log, whole=whole
        )
        empty = count < 1
    if empty or not (math.isfinite(result.low) and math.isfinite(result.high)):
        raise ConfigError(f"{text}: the range is empty, expected {HOW}.")
    if log and (result.low <= 0 or result.step not in (None, 1)):
        raise ConfigError(
            f"{text}: a logarithmic range is above 0 and has no step. Expected tag(log,interval(LOW,HIGH))."
        )
    return result


def corners(ranges: Sequence[Range]) -> list[list[str]]:
    """Lists of overrides, as few as are needed for every end and choice of every range to occur: they are checked first."""
    count = max(len(each.corners) for each in ranges)
    return [[each.override(each.corners[i % len(each.corners)]) for each in ranges] for i in range(count)]
