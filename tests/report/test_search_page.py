"""The picture and the page of a search, as text and in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dvsn.pictures.figures import words
from dvsn.report import search, search_charts, search_page, search_plot, search_table
from tests.support.browser import open_page
from tests.support.hand_made_runs import write_metrics

optuna = pytest.importorskip("optuna")
WICKED = "<img src=x onerror=alert(1)>"


def study_of(scores: list[float], *, direction: str = "maximize") -> Any:
    """A study whose trials have these scores; trial 1 is pruned, the last one has failed with a wicked error."""
    made = optuna.create_study(direction=direction)
    for key, value in {
        "score": "val/miou, more is better",
        "command": ["task=segmentation"],
        "keys": {"lr": "optim.lr"},
    }.items():
        made.set_user_attr(key, value)
    spread = {
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "net": optuna.distributions.CategoricalDistribution(["a", WICKED, "c"]),
    }
    for number, score in enumerate(scores):
        params = {"lr": 1e-4 * 10 ** (number % 4), "net": ("a", WICKED, "c")[number % 3]}
        made.enqueue_trial(params)
        trial = made.ask(spread)
        trial.report(score, 1)
        if number == 1:
            made.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number == len(scores) - 1:
            trial.set_user_attr("error", WICKED)
            made.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            made.tell(trial, score)
    return made


def test_options_and_their_places() -> None:
    found = search_plot.options(study_of([0.1, 0.2, 0.3, 0.4, 0.5]))
    lr, net = found
    assert (lr.key, lr.log, lr.ends) == ("lr", True, (1e-4, 1e-1)) and net.choices == ("a", WICKED, "c")
    assert [lr.values[number] for number in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1e-4])
    assert [net.values[number] for number in range(5)] == [0, 1, 2, 0, 1]
    assert [search_charts.height(lr, value) for value in (1e-4, 1e-2, 1e-1)] == pytest.approx([0, 2 / 3, 1])
    assert [search_charts.height(net, value) for value in (0, 1, 2)] == [0, 0.5, 1]
    assert [text for _, text in search_charts.ticks(lr)] == ["0.0001", "0.003162", "0.1"]
    one = search_plot.Option("x", False, (), {0: 2.0}, (2.0, 2.0))
    assert search_charts.height(one, 2.0) == 0.5 and len(search_charts.ticks(one)) == 1


def test_the_best_so_far_and_groups() -> None:
    table = search_table.rows(study_of([0.3, 0.9, 0.2, 0.5, 0.4, 0.6, 0.0]))
    assert search_plot.running_best(table, more=True) == ([0, 2, 3, 4, 5], [0.3, 0.3, 0.5, 0.5, 0.6])
    assert search_plot.running_best(table, more=False)[1] == [0.3, 0.2, 0.2, 0.2, 0.2]
    groups = search_charts.grouped([row for row in table if row.state in ("finished", "pruned")])
    assert {name: [row.number for row in rows] for name, rows in groups.items()} == {
        "best tenth": [5], "best half": [3, 4], "the rest": [0, 2], "pruned": [1]
    }  # fmt: skip


def test_the_axis_of_few_trials_has_whole_numbers() -> None:
    for count, step in ((6, 1), (14, None)):
        table = [row for row in search_table.rows(study_of([0.1] * count)) if row.state == "finished"]
        assert search_charts.history(table, more=True, score="x").layout.xaxis.dtick == step


def test_the_still_picture_has_its_axes() -> None:
    found = search_plot.pictures(study_of([0.3, 0.9, 0.2, 0.5, 0.4]))
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", found["search.svg"].decode())
    assert {"val/miou", "lr", "net", "a", "c", "trial; green: the best so far", "0.001"} <= set(shown)
    assert found["search.png"].startswith(b"\x89PNG") and search_plot.pictures(optuna.create_study()) == {}


def test_a_search_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    text = search_page.page(optuna.create_study(), tmp_path).render()
    assert "No trial has begun yet." in text and "Parallel coordinates" not in text
    assert "No trial has finished yet" in search_page.page(study_of([0.5]), tmp_path).render()


SCRIPT = """
const parallel = page.querySelector("[data-brush]"), area = parallel.querySelector(".nsewdrag").getBoundingClientRect();
const point = (kind, axis, height) => parallel.dispatchEvent(new view.PointerEvent(kind, {bubbles: true,
  pointerType: "mouse", clientX: area.left + area.width * (axis + 0.35) / 2.7,
  clientY: area.bottom - area.height * (height + 0.06) / 1.12}));
const drag = (axis, from, to) => {
  point("pointerdown", axis, from); point("pointermove", axis, to); point("pointerup", axis, to);
};
const shown = trace => Array.from(trace.y).filter((y, place) => place % 4 === 2 && y !== null).length;
const left = () => [parallel.data.reduce((sum, trace) => sum + shown(trace), 0), parallel.layout.title.text];
const brushed = [];
drag(2, 0.7, 1.05); brushed.push(left());
drag(0, -0.05, 0.5); brushed.push(left());
drag(2, 0.5, 0.5); brushed.push(left());
drag(0, 0.5, 0.5); brushed.push(left());
return {
  brushed,
  titles: Array.from(page.querySelectorAll("section h2"), each => each.innerText), images: page.images.length,
  lines: Array.from(page.querySelectorAll("pre"), each => each.innerText),
  trials: Array.from(page.querySelector("section:last-of-type table").rows, row => row.cells[1].innerText.trim()),
  charts: Array.from(page.querySelectorAll(".js-plotly-plot"), each =>
    Array.from(each.querySelectorAll("svg text"), part => part.textContent).join("|")),
  shares: page.querySelector("#options table") ? page.querySelector("#options table").innerText : "",
  wide: page.documentElement.scrollWidth, width: view.innerWidth,
};
"""


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    scores = [0.3, 0.9, 0.2, 0.5, 0.4, 0.7, 0.6, 0.65, 0.31, 0.52, 0.43, 0.74, 0.0]
    study = study_of(scores)
    (tmp_path / "search" / "5").mkdir(parents=True)
    write_metrics(tmp_path / "search" / "5", "val/miou", 0.7, 20)
    text = search.write(study, tmp_path / "search", tmp_path)
    assert "best again: python -m dvsn.train task=segmentation optim.lr=0.1 net=" in text
    page = tmp_path / "search.html"
    seen = open_page([(page, "", 1280), (page, "", 400)], SCRIPT, tmp_path)
    assert not seen.console
    good = [number for number, score in enumerate(scores) if score >= 0.7 * 0.9]  # the axis is from 0 to 0.9
    low = [number for number in range(len(scores)) if number % 4 < 2]  # lr = 1e-4 * 10 ** (number % 4)
    counts = [len(good), len(set(good) & set(low)), len(low), len(scores)]
    expected = [[count, f"{count} of 13 trials" if count < 13 else ""] for count in counts]
    for answer in seen.answers:
        assert answer["brushed"] == expected
        assert answer["titles"] == [
            "The best trials", "History", "Parallel coordinates", "Options", "Curves", "All trials"
        ]  # fmt: skip
        assert answer["images"] == 0 and answer["wide"] <= answer["width"]
        assert len(answer["lines"]) == 5 and answer["lines"][0].startswith(
            "python -m dvsn.train task=segmentation optim.lr=0.1"
        )
        assert answer["trials"][:3] == ["trial", "11", "5"] and len(answer["trials"]) == 1 + len(scores)
        parallel = answer["charts"][1]
        for word in ("lr", "net", "0.003162", words(WICKED, 16), "best tenth", "pruned", "val/miou"):
            assert word in parallel, parallel
        assert "lr" in answer["shares"] and "%" in answer["shares"]
