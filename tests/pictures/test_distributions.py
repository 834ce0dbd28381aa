"""The cumulative distribution of errors as a picture: its steps by hand, and where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest

from dvsn.pictures import distributions


def test_steps_by_hand() -> None:
    """Of four faces one has 1 %, two have 5 %, and one is beyond the axis."""
    errors = np.array([0.05, 0.01, 9.0, 0.05])
    (axes,) = distributions.draw({"<all>": errors, "none": np.zeros(0)}, limit=0.15).axes
    line, empty = axes.lines
    assert line.get_xdata() == pytest.approx([0, 1, 5, 5, 15]) and line.get_drawstyle() == "steps-post"
    assert line.get_ydata() == pytest.approx([0, 0.25, 0.75, 0.75, 0.75])
    assert np.isnan(empty.get_ydata()).all()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["<all> (4)", "none (0)"]
    assert axes.get_xlabel() == "NME in %" and axes.get_xlim() == (0, 15)


def test_pixels() -> None:
    found = distributions.picture({"all": np.array([np.nan, np.inf])})
    assert found.shape == (480, 640, 3) and found.dtype == np.uint8
