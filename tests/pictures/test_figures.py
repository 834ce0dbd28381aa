"""Still pictures: equal files for equal content, and names that are no formulas."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from dvsn.pictures import figures
from dvsn.pictures.matrices import picture as matrix_picture


def drawn() -> Figure:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1])
    axes.set_title("$x^2$ <b>&")
    return figure


def test_files_are_equal_whatever_the_users_style(monkeypatch: pytest.MonkeyPatch) -> None:
    first = figures.files(drawn)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 30.0}):
        second = figures.files(drawn)
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert first == second and first["png"].startswith(b"\x89PNG")
    text = first["svg"].decode()
    assert "$x^2$ &lt;b&gt;&amp;" in text and "<dc:date>" not in text


def test_pixels_are_those_of_the_figure() -> None:
    found = figures.pixels(drawn, dpi=50)
    assert found.shape == (50, 100, 3) and found.dtype == np.uint8 and tuple(found[0, 0]) == (255, 255, 255)


def test_logarithmic_numbers_are_plain() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1e-4, 1e-1], [0, 1])
    figures.logarithmic(axes)
    figure.draw_without_rendering()
    assert [each.get_text() for each in axes.get_xticklabels() if 1e-4 <= each.get_position()[0] <= 1e-1] == [
        "0.0001", "0.001", "0.01", "0.1"
    ]  # fmt: skip


def test_words_are_one_short_line() -> None:
    assert figures.words("a\n b\t\x00c") == "a b c"
    short = figures.words("x" * 30 + "y" * 30, 20)
    assert len(short) == 20 and short.startswith("x") and short.endswith("y") and "…" in short


@pytest.mark.parametrize("classes", [2, 41])
def test_a_matrix_is_dark_where_shares_are_large(classes: int) -> None:
    """All of the diagonal is 1 but the last row, which is not known: a row of grey cells, and as many dark ones less one."""
    shares = np.eye(classes)
    shares[-1] = np.nan
    picture = matrix_picture(shares, [f"class <{number}> $" for number in range(classes)])
    assert picture.dtype == np.uint8 and picture.ndim == 3
    left = picture[:, : round(picture.shape[1] * 0.8)].astype(int)  # without the bar of colours
    grey = (np.abs(left - 204) < 3).all(axis=2)
    dark = (np.abs(left - (8, 48, 107)) < 12).all(axis=2)
    cells = grey.sum() / classes
    assert 20**2 < cells < 100**2
    assert dark.sum() / cells == pytest.approx(classes - 1, rel=0.15)  # less the percentages in them
