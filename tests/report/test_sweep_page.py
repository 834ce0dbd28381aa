"""The page of a sweep, as text and in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dvsn.pictures.figures import words
from dvsn.report import command, curves, sweep_charts, sweep_page
from dvsn.report.curves import Curves
from tests.support.browser import open_page
from tests.support.hand_made_runs import write_metrics, write_run

WICKED = "<i>x</i><img src=x>$x^2$"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seeds of kd and of the student alone, one collapsed, a wicked name, another task, a run cut off, one damaged."""
    root = tmp_path_factory.mktemp("sweep")
    number = 0
    for seed in range(6):
        for method, score in ((None, 0.70), ("kd", 0.75), ("at", 0.71)):
            shown = (
                float("nan")
                if method == "at" and seed == 3
                else score + (seed % 3) / 100 * (1 if method == "at" else 0.5)
            )
            seconds = {"epoch_seconds": {None: 2.0, "kd": 3.0, "at": 4.0}[method]}
            write_run(root, number, method, shown, seed=seed, steps=40, result=seconds)
            number += 1
    write_run(root, number, WICKED, 0.6)
    write_run(root, number + 1, None, 0.1, monitor="val/nme", mode="min", teacher=None, name="faces")
    open_one = root / "open"
    open_one.mkdir()
    (open_one / "config.yaml").write_text("distill: {kd: {}}\n")
    write_metrics(open_one, "val/top1", 0.5, 20)
    text = (open_one / "metrics.csv").read_text()
    (open_one / "metrics.csv").write_text(text[:-4])
    (write_run(root, "damaged", "kd", 0.7) / "result.json").write_text('{"metr')
    command.report(root)
    return root


SCRIPT = """
return {
  table: Array.from(page.querySelector("table").rows, row => Array.from(row.cells, cell => cell.innerText.trim())),
  titles: Array.from(page.querySelectorAll("section h2"), each => each.innerText),
  notes: Array.from(page.querySelectorAll(".notes li"), each => each.innerText),
  charts: Array.from(page.querySelectorAll(".js-plotly-plot"), each => ({
    text: Array.from(each.querySelectorAll("svg text"), part => part.textContent).join("|"),
    points: each.querySelectorAll(".points path").length,
    lines: each.querySelectorAll(".js-line").length, over: each.scrollWidth > each.clientWidth + 1})),
  images: page.images.length, wide: page.documentElement.scrollWidth, width: view.innerWidth,
  sorted: (() => { const table = page.querySelector("table"), heads = Array.from(table.tHead.rows[0].cells);
    heads.find(head => head.innerText.trim() === "s/epoch").querySelector("button").click();
    return Array.from(table.tBodies[0].rows, row => row.cells[1].innerText); })(),
};
"""


@pytest.fixture(scope="module")
def seen(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    page = sweep / "report.html"
    return open_page([(page, "", 1280), (page, "", 400)], SCRIPT, tmp_path_factory.mktemp("browser"))


def test_in_a_browser(sweep: Path, seen: Any) -> None:
    assert not seen.console and (sweep / "report.html").stat().st_size < 6_000_000
    for answer in seen.answers:
        assert (
            answer["images"] == 0 and answer["wide"] <= answer["width"]
        )  # nothing sticks out, no name became markup
        assert not any(chart["over"] for chart in answer["charts"])
        assert answer["titles"] == [
            "val/top1", "val/nme", "Score against cost", "Curves of all runs", "Runs", "How to read it"
        ]  # fmt: skip
        table = [[cell.replace("\xa0", " ") for cell in row] for row in answer["table"]]
        at = {name: place for place, name in enumerate(table[0])}
        by_name = {row[1]: row for row in table[1:]}
        assert [row[1] for row in table[1:]] == ["kd", "at", "student alone", WICKED]
        kd = by_name["kd"]
        assert (
            kd[at["last"]].startswith("0.7550 ± 0.0045")
            and kd[at["gain"]] == "+0.0500"
            and kd[at["p"]] == "0.031"
        )
        assert kd[at["verdict"]] == "better" and by_name["at"][at["collapsed"]] == "1 of 6"
        assert by_name[WICKED][at["verdict"]] == "may be chance"
        assert answer["sorted"][0] == "at" and answer["sorted"][-1].replace("\xa0", " ") in (
            "student alone",
            WICKED,
        )


def test_the_charts_in_a_browser(seen: Any) -> None:
    dots, nme, cost, score, *_ = seen.answers[0]["charts"]
    for word in (
        "kd, 0.5",
        "student alone",
        "alone 0.705",
        "teacher 0.8",
        words(f"{WICKED}, 0.5", 30),
        "val/top1 (share, 0 to 1), last epoch",
    ):
        assert word in dots["text"], dots["text"]
    assert dots["points"] == 4 + 19  # means, seeds; the one without a score at the edge
    assert "training time, seconds an epoch" in cost["text"] and "Pareto front" in cost["text"]
    assert (
        "val/top1" in score["text"] and score["lines"] == 17 + 1 + 4
    )  # finished ones, the open one, the legend
    assert "val/nme" in nme["text"]


def test_what_is_damaged_is_told(sweep: Path, seen: Any) -> None:
    notes = seen.answers[0]["notes"]
    assert any("open (kd)" in note and "without a result" in note for note in notes)
    assert any("damaged/result.json: not a JSON file" in note for note in notes)
    assert any("open/metrics.csv: line 21 was cut off" in note for note in notes)
    text = (sweep / "report.txt").read_text()
    assert "1 run without a result" in text and "damaged/result.json: not a JSON file" in text
    assert WICKED.replace("<", r"\<").replace(">", r"\>") in (sweep / "report.md").read_text()


def test_hundreds_of_runs_stay_small() -> None:
    """500 runs of 100 rows: what is drawn of their curves is a few MB, in a few traces."""
    points = [(float(step), 1.0 / (step + 1) + 0.1234567) for step in range(100)]
    columns = {"val/top1": points, "train/loss": points, "val/other": points}
    rows = [
        (f"method {row}", [Curves(f"method {row}, seed {seed}", columns) for seed in range(5)])
        for row in range(100)
    ]
    parts = sweep_page.charts_of(rows, "val/top1")
    assert 100_000 < sum(map(len, parts)) < 4_000_000
    found = re.findall(r'<script type="application/json">(.*?)</script>', "".join(parts))
    contents = [json.loads(each) for each in found]
    assert len(contents) == 2
    for content in contents:
        names = [trace["name"] for trace in content["data"] if trace.get("showlegend")]
        assert names[-1] == "method 0" and names[0] == "others" and len(names) == sweep_charts.COLOURED + 1
        drawn = sum(len(trace["x"]) for trace in content["data"])
        assert 500 * curves.LEAST <= drawn <= curves.POINTS / 2 + 600


def test_a_kept_table_has_a_page(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "experiments" / "distill_camvid" / "report.csv"
    text = command.report(kept, output=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        "pixel_kd + cirkd" in text and "any gain may be chance" in page and "Curves of all runs" not in page
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "report.html", "report.png", "report.svg", "report_cost.png", "report_cost.svg"
    ]  # fmt: skip
