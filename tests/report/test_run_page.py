"""The report of one run, in a browser and in words; and what is left of it when a part of the run is damaged."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from PIL import Image

from dvsn.errors import DataError
from dvsn.report import run_folder, run_page
from dvsn.report.command import report
from tests.support.browser import open_page
from tests.support.run_folders import write_analysis, write_grids, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("page") / "run")
    write_grids(folder)
    write_analysis(folder)
    report(folder)
    return folder


SCRIPT = """
const text = selector => Array.from(page.querySelectorAll(selector), each => each.textContent.trim());
const film = page.querySelector(".film"), slider = film.querySelector("input");
slider.value = 0; slider.dispatchEvent(new view.Event("input"));
const classes = page.querySelector("#classes table");
const column = () => Array.from(classes.tBodies[0].rows, row => row.cells[0].textContent);
const before = column();
classes.tHead.rows[0].cells[1].querySelector("button").click();
const losses = page.querySelector("#losses"), smoothing = losses.querySelector(".smoothing");
smoothing.value = 0.5; smoothing.dispatchEvent(new view.Event("input"));
losses.querySelector(".logarithm").click();
const curve = losses.querySelector("[data-figure]"), matrix = page.querySelector("[data-matrix] [data-figure]");
const order = page.querySelector(".order"), labels = () => Array.from(matrix.layout.yaxis.ticktext);
const first = labels();
order.value = "given"; order.dispatchEvent(new view.Event("change"));
const wide = Array.from(page.querySelectorAll("main *")).filter(each => !each.closest(".scroll") &&
  each.getBoundingClientRect().right > view.innerWidth + 1).map(each => each.tagName + "." + each.className);
const picture = page.querySelector(".enlarge:not([hidden])"); picture.click();
const large = page.getElementById("large").open;
return {
  title: page.title, drawn: Number(page.documentElement.dataset.drawn),
  figures: page.querySelectorAll("[data-figure]").length,
  charts: page.querySelectorAll("svg.main-svg").length, sections: text("section > h2"), notes: text("#notes li"),
  broken: Array.from(page.images).filter(image => !image.complete || !image.naturalWidth).length,
  frame: film.querySelector("output").textContent, shown: film.querySelectorAll(".enlarge:not([hidden])").length,
  before, after: column(), traces: curve.data.length, smooth: Array.from(curve.data[curve.data.length - 1].y),
  axis: curve.layout.yaxis.type, sorted: first, given: labels(),
  cell: text(".behind .cell"), behind: text(".behind .gallery figcaption"), rest: text(".behind p.quiet"),
  turns: view.performance.getEntriesByName("chart").map(each => each.detail),
  wide, scrolls: page.documentElement.scrollWidth > view.innerWidth + 1, large,
};
"""


def test_the_page_in_a_browser(run: Path, tmp_path: Path) -> None:
    """At 1280 and at 400 pixels: drawn, sorted, smoothed, played, its cells opened by their link, and nothing wider."""
    page = run / "report.html"
    seen = open_page([(page, "#confusion-1-2", 1280), (page, "", 400)], SCRIPT, tmp_path)
    assert not seen.console, seen.console
    for found in seen.answers:
        assert found["title"] == "tiny" and not found["notes"] and found["broken"] == 0
        assert found["drawn"] == found["figures"] > 6 and found["charts"] >= found["figures"]
        assert not found["scrolls"] and not found["wide"] and found["large"]
        assert found["frame"] == "epoch 1" and found["shown"] == 1
        assert found["before"] == ["road", "<b>person</b>", "rider & horse"]
        assert found["after"] == ["rider & horse", "<b>person</b>", "road"]
        assert found["axis"] == "log" and found["traces"] == 2
        assert found["sorted"][0] == "rider &amp; horse" and found["given"][0] == "road"
    first, second = seen.answers
    assert first["sections"] == [
        "Run", "Scores", "Losses", "Speed and memory", "Pictures through the epochs", "Evaluation", "Classes", "Confusion",
        "Charts", "Worst pictures", "Best pictures", "All pictures", "Config",
    ]  # fmt: skip
    assert first["smooth"][:3] == pytest.approx(
        [3, 8 / 3, 16 / 7]
    )  # of 3, 2.5, 2: 1.5, 2 and 2, of 1/2, 3/4 and 7/8
    assert first["cell"] == ["<b>person</b>, taken for rider & horse: 40 pixels (40 % of <b>person</b>)"]
    assert first["behind"] == ["town_3 (40 pixels)", "town_1 (20 pixels)", "town_0 (10 pixels)"]
    assert first["rest"] == [
        "3 of 4 pictures with it are shown. Not kept by the evaluation: town_2 (30 pixels)."
    ]
    assert first["turns"][0] == "Confusion", "what is on the screen is drawn first"
    assert second["turns"][0] == "val/miou by epoch" and len(second["turns"]) == second["figures"]
    assert second["rest"] == ["A click on a cell shows the pictures behind it."]


def test_beside_the_page_lie_text_table_and_strip(run: Path) -> None:
    text = (run / "report.txt").read_text()
    assert (
        "DDRNet, 12,345 parameters" in text and "Cityscapes in data/street" in text and "1 min 15 s" in text
    )
    rows = list(csv.DictReader((run / "report.csv").open()))
    assert [row["score"] for row in rows] == ["miou", "dice"]
    assert [float(rows[0][key]) for key in ("first", "best", "last")] == pytest.approx([0.1, 0.3, 0.3])
    assert "**Classes**" in (run / "report.md").read_text() and "0.3" in text
    strip, moving = Image.open(run / "strip.png"), Image.open(run / "strip.webp")
    assert strip.width > 5 * 48 and moving.n_frames == 3  # type: ignore[attr-defined]
    assert (run / "report.html").stat().st_size < 6_000_000


def test_texts_of_files_are_no_markup(run: Path) -> None:
    page = re.sub(r"<script\b.*?</script>", "", (run / "report.html").read_text(), flags=re.DOTALL)
    assert "name=&lt;tiny&gt;" in page and "<i>person" not in page and "<b>person" not in page


def test_without_an_evaluation_its_command_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run")
    assert "dvsn.evaluate" not in report(run), "without a checkpoint nothing can be measured"
    assert "It has no checkpoint that could be." in page_of(run)
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "best.ckpt").touch()
    text = report(run)
    line = f"python -m dvsn.evaluate checkpoint='{run}/checkpoints/best.ckpt' worst=50"
    assert line in text and line.replace("'", "&#39;") in (run / "report.html").read_text()


def page_of(run: Path) -> str:
    report(run)
    return re.sub(r"<script\b.*?</script>", "", (run / "report.html").read_text(), flags=re.DOTALL)


def test_a_run_killed_in_its_first_epoch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("result.json", "metrics.csv", "command.txt"):
        (run / name).unlink()
    page = page_of(run)
    assert "the run has not ended, or was stopped" in page and "metrics.csv holds no logged value" in page
    assert "DDRNet" in page and "3 planned" in page


@pytest.mark.parametrize(
    ("name", "content", "said", "kept"),
    [
        (
            "metrics.csv",
            "step,train/main,epoch,val/miou\n1,2.5,0,0.25\n3,2,1,0.3",
            "line 3 was cut off",
            "0.25",
        ),
        ("config.yaml", "a: [1\n", "not a YAML file", "12,345 parameters"),
        ("config.yaml", "[1, 2]\n", "expected the options of a run by name", "Scores"),
        ("result.json", '{"best": ', "not a JSON file", "DDRNet"),
        ("result.json", "[1]", "expected an object", "DDRNet"),
        (
            "result.json",
            '{"seconds": NaN, "best": 1%s, "times": {"data": Infinity}}' % ("0" * 400),
            "",
            "DDRNet",
        ),
        (
            "evaluation/best_val/analysis.json",
            "{}",
            "version: found null",
            "The analysis of the evaluation cannot be read",
        ),
        ("pictures/epoch_0002.png", "no picture", "epoch_0002.png", "epoch 3"),
        ("pictures/layout.json", "{}", "", "the grid of fixed pictures"),
    ],
)
def test_a_damaged_part_is_said_and_the_rest_is_there(
    name: str, content: str, said: str, kept: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    write_grids(run)
    write_analysis(run)
    (run / name).write_text(content)
    page = page_of(run)
    notes = page.partition("</aside>")[0] if '<aside id="notes"' in page else ""
    assert said in notes and bool(said) == bool(notes) and kept in page


def test_the_newest_evaluation_is_taken_unless_one_is_chosen(tmp_path: Path) -> None:
    import os

    run = write_run(tmp_path / "run")
    first = write_analysis(run)
    second = first.parent.parent / "last_test" / first.name
    second.parent.mkdir()
    second.write_text(first.read_text().replace('"val"', '"test"'))
    os.utime(first, (1, 1))
    assert run_folder.read_folder(run).analysis.split == "test"  # type: ignore[union-attr]
    for chosen in (first.parent, Path("best_val")):
        assert run_folder.read_folder(run, evaluation=chosen).analysis.split == "val"  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"evaluation=none: there is no analysis\.json"):
        run_folder.read_folder(run, evaluation=Path("none"))


def test_times_of_a_result_are_shown() -> None:
    table = run_page.times_table({"data": 30, "validation": 90.0})
    assert "30 s" in table and "1 min 30 s" in table and "width:25.0%" in table
    assert "The device waited 25 % of the time for data" in table
    assert "waited" not in run_page.times_table({"data": 3, "validation": 90.0})
