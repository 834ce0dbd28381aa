"""What a compressed network may cost, and how good it has to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dvsn.errors import ConfigError

UNITS = {
    "latency": {"": 1.0, "ms": 1.0, "us": 1e-3, "s": 1e3},
    "size": {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
}  # fmt: skip
UNITS["memory"] = UNITS["size"]
"""By the cost: what its units are worth in milliseconds, bytes, or multiply-accumulates."""
EXAMPLES = {"latency": "25ms", "size": "4MB", "macs": "1.2G", "memory": "300MB"}


@dataclass(frozen=True)
class Budget:
    """Upper bounds; None: free."""

    latency: float | None = None
    """Milliseconds of an answer, by `percentile`."""
    size: float | None = None
    """Bytes of the exported file."""
    macs: float | None = None
    """Multiply-accumulates of a picture."""
    memory: float | None = None
    """Bytes that an answer needs at its peak."""
    percentile: int = 50
    """Of the latency: 50 or 95."""

    @property
    def asked(self) -> dict[str, float]:
        """The bounds that there are, by cost."""
        found = {name: getattr(self, name) for name in UNITS}
        return {name: value for name, value in found.items() if value is not None}

    def beyond(self, costs: Mapping[str, float | None]) -> dict[str, float]:
        """The costs that are over their bound, by how many times; one that is not known is within it."""
        found = {}
        for name, bound in self.asked.items():
            value = costs.get(name)
            if value is not None and value > bound:
                found[name] = value / bound
        return found


@dataclass(frozen=True)
class Floor:
    """How good a network has to be. Scores lie in [0, 1]; `sign` is 1 where more is better, else -1."""

    sign: float
    drop: float | None = None
    """How much worse than the teacher, in points of a hundred; None: free."""
    least: float | None = None
    """The score itself; None: free."""

    def lost(self, teacher: float, score: float) -> float:
        """By how many points of a hundred a score is worse than the teacher's; below 0: better."""
        return 100 * self.sign * (teacher - score)

    def holds(self, teacher: float, score: float | None) -> bool:
        if score is None:
            return False
        enough = self.least is None or self.sign * (score - self.least) >= 0
        return enough and (self.drop is None or self.lost(teacher, score) <= self.drop)


def read(options: Mapping[str, Any]) -> Budget:
    """The budget of the options of the command. Raises `ConfigError` for a bound that cannot be understood."""
    if options["percentile"] not in (50, 95):
        raise ConfigError(f"percentile: found {options['percentile']}, expected 50 or 95.")
    bounds = {name: amount(name, options[name]) for name in UNITS}
    return Budget(**bounds, percentile=int(options["percentile"]))


def amount(name: str, given: Any) -> float | None:
    """A number with its unit, such as 25ms, in the unit that `Budget` has."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+))?\s*([A-Za-z]*)", str(given).strip())
    scale = UNITS[name].get(found[3]) if found else None
    value = float(found[1]) * 10.0 ** int(found[2] or 0) * scale if found and scale is not None else 0.0
    if not value > 0:
        units = ", ".join(unit for unit in UNITS[name] if unit)
        raise ConfigError(
            f"{name}: found {given}, expected a number above 0 and one of {units}, such as {name}={EXAMPLES[name]}."
        )
    return value


def spoken(name: str, value: float) -> str:
    """A cost in words, such as `25.0 ms` or `4.1 MB`."""
    if name == "latency":
        return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
    unit = " macs" if name == "macs" else "B"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {letter}{unit}"
    return f"{value:.0f} {unit.strip()}"
