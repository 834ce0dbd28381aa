"""The axes of a run's curves."""

from __future__ import annotations

import pytest
from plotly.graph_objects import Figure

from dvsn.report import run_curves


def figure(x: list[float], y: list[float | None], axis: str = "epoch") -> Figure:
    found = run_curves.chart("learning rate", axis)
    found.add_scatter(x=x, y=y)
    run_curves.settle(found)
    return found


@pytest.mark.parametrize(("value", "ends"), [(0.01, (0.0, 0.02)), (-3.0, (-6.0, 0.0)), (0.0, (0.0, 1.0))])
def test_a_constant_stands_in_the_middle_of_its_axis_and_0_at_the_bottom(
    value: float, ends: tuple[float, float]
) -> None:
    assert figure([1, 2, 3], [value, None, value]).layout.yaxis.range == ends
    assert figure([1, 2], [value, value + 1]).layout.yaxis.range is None


def test_few_epochs_have_whole_numbers() -> None:
    assert figure([0.5, 1, 2], [1, 2, 3]).layout.xaxis.dtick == 1
    assert figure([1, 100], [1, 2]).layout.xaxis.dtick is None
    assert figure([0, 3], [1, 2], axis="step").layout.xaxis.dtick is None
