"""Bounds with units, and what is over them."""

from __future__ import annotations

from typing import Any

import pytest

from dvsn.compress.budget import Budget, Floor, amount, read, spoken
from dvsn.errors import ConfigError

FREE: dict[str, Any] = {"latency": None, "size": None, "macs": None, "memory": None, "percentile": 50}


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("latency", "25ms", 25.0), ("latency", 25, 25.0), ("latency", "0.5 s", 500.0), ("latency", "800us", 0.8),
        ("size", "4MB", 4e6), ("size", "4MiB", 4 * 2**20), ("size", "1e3kB", 1e6), ("macs", "1.2G", 1.2e9),
        ("memory", "300MB", 3e8), ("size", None, None),
    ],
)  # fmt: skip
def test_an_amount_has_a_unit(name: str, given: Any, value: float | None) -> None:
    assert amount(name, given) == (None if value is None else pytest.approx(value, rel=1e-12))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("latency", "fast"),
        ("latency", "0ms"),
        ("latency", "-3ms"),
        ("latency", "4MB"),
        ("size", "25ms"),
        ("macs", True),
    ],
)
def test_another_amount_is_refused_with_an_example(name: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: found {given}, expected .*such as {name}="):
        amount(name, given)


def test_what_is_over_a_bound() -> None:
    budget = read(FREE | {"latency": "10ms", "size": "2MB"})
    assert budget.asked == {"latency": 10.0, "size": 2e6}
    assert budget.beyond({"latency": 10.0, "size": 2e6, "macs": 1e12, "memory": None}) == {}
    assert budget.beyond({"latency": 25.0, "size": 1e6}) == {"latency": 2.5}
    assert Budget().beyond({"latency": 1e9}) == {}
    with pytest.raises(ConfigError, match="percentile: found 90, expected 50 or 95"):
        read(FREE | {"percentile": 90})


def test_a_floor_goes_by_the_sign_of_the_score() -> None:
    more, less = Floor(1.0, drop=1.0), Floor(-1.0, drop=1.0, least=0.06)
    assert more.lost(0.80, 0.79) == pytest.approx(1.0) and more.lost(0.80, 0.81) == pytest.approx(-1.0)
    assert more.holds(0.80, 0.7901) and not more.holds(0.80, 0.78) and not more.holds(0.8, None)
    assert less.lost(0.05, 0.055) == pytest.approx(0.5)  # an error of which less is better
    assert (
        less.holds(0.05, 0.055)
        and not less.holds(0.05, 0.061)
        and not Floor(-1.0, least=0.04).holds(0.05, 0.041)
    )


def test_costs_in_words() -> None:
    assert [spoken("latency", 4.1234), spoken("latency", 250.4)] == ["4.12 ms", "250 ms"]
    assert [spoken("size", 4.1e6), spoken("macs", 1.25e9), spoken("size", 900)] == [
        "4.1 MB",
        "1.25 G macs",
        "900 B",
    ]
