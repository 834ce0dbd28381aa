"""Runs side by side: what differs, by hand; and runs that do not fit together."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from dvsn.errors import DataError
from dvsn.report import compare_page
from dvsn.report.command import report
from dvsn.report.run_folder import Folder, read_folder
from tests.support.browser import open_page
from tests.support.run_folders import write_analysis, write_run


def pair(folder: Path, **changes: object) -> tuple[Path, Path]:
    first = write_run(folder / "a" / "run", name="narrow")
    network = {"_target_": "dvsn.networks.ddrnet.DDRNet", "width": 32}
    second = write_run(
        folder / "b" / "run", name="<wide>", **{"shift": 0.05, "network": network, "seed": 1, **changes}
    )
    return first, second


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first, second = pair(tmp_path)
    write_analysis(first)
    write_analysis(second, shift=-0.02)
    report(first, second)
    return first, second


def page_of(folder: Path) -> str:
    text = (folder / "compare.html").read_text()
    return re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)


def test_only_what_differs_is_listed_and_once(two: tuple[Path, Path]) -> None:
    found = compare_page.differing([read_folder(each) for each in two])
    assert found == {"seed": [0, 1], "network.width": [24, 32]}  # not task.network.width, name and run_dir
    text = (two[0] / "compare.txt").read_text()
    assert re.search(r"network.width +24 +32", text) and "optim.lr" not in text
    rows = list(csv.DictReader((two[0] / "compare.csv").open()))
    assert [row["network.width"] for row in rows] == ["24", "32"] and [row["run"] for row in rows] == [
        "narrow",
        "<wide>",
    ]
    assert [float(row["miou"]) for row in rows] == pytest.approx([0.3, 0.35])


def test_scores_classes_and_pictures_side_by_side(two: tuple[Path, Path]) -> None:
    page = page_of(two[0])
    assert re.search(
        r'<td class="right good short" data-key="0.04999[^"]*">\+0.05<', page
    )  # miou 0.3 and 0.35
    assert '<td class="right short" data-key="-0.02' in page  # iou of each class
    changes = compare_page.changes([read_folder(each) for each in two])
    assert [each.name for each in changes] == ["town_3", "town_2", "town_1", "town_0"]
    assert changes[0].size == pytest.approx(0.06)
    assert "&lt;wide&gt; is better in 0, worse in 3 and equal in 1; miou differs by -0.03 on average" in page
    shown = page.partition('id="changed"')[2]
    assert re.findall(r"<h3>(town_\d)</h3>", shown) == [
        "town_3",
        "town_1",
        "town_0",
    ]  # of town_2 no picture was kept


def test_the_page_in_a_browser(two: tuple[Path, Path], tmp_path: Path) -> None:
    script = """
    const chart = page.querySelector("#curves-of-scores [data-figure]");
    return {names: chart.data.map(curve => curve.name), y: chart.data.map(curve => Array.from(curve.y)), legend:
      Array.from(page.querySelectorAll("#curves-of-scores .legendtext"), each => each.textContent).slice(0, 2),
      scrolls: page.documentElement.scrollWidth > view.innerWidth + 1};
    """
    seen = open_page([(two[0] / "compare.html", "", 400)], script, tmp_path)
    (found,) = seen.answers
    assert not seen.console and not found["scrolls"] and found["legend"] == ["narrow", "<wide>"]
    assert found["y"][0] == pytest.approx([0.1, 0.2, 0.3]) and found["y"][1] == pytest.approx(
        [0.15, 0.25, 0.35]
    )


def test_runs_that_do_not_fit_together_are_said(tmp_path: Path) -> None:
    first, second = pair(tmp_path, monitor={"name": "val/ap", "mode": "max"})
    write_analysis(first)
    write_analysis(second, score="ap", task="pose")
    report(first, second)
    page = page_of(first)
    assert "The runs have different scores to judge by: narrow: val/miou, &lt;wide&gt;: val/ap" in page
    assert "The pictures were scored differently (ap of pose on val; miou of segmentation on val)" in page
    assert "network.width" in page


def test_a_column_of_one_run_alone_is_left_out(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    write_analysis(first)
    rows = [{"class": "road", "ap": 0.5, "pixels": 7}]
    write_analysis(second, tables={"Classes": rows})
    report(first, second)
    page = page_of(first)
    assert "<h3>pixels</h3>" in page and "<h3>iou</h3>" not in page and "<h3>ap</h3>" not in page
    assert "pixels: &lt;wide&gt; minus narrow" in page
    write_analysis(second, tables={"Classes": [{"class": "road", "ap": 0.5}]})
    report(first, second)
    assert 'id="classes"' not in page_of(first)


def test_without_evaluations_their_commands_are_said(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    (second / "metrics.csv").write_text("step,train/main,epoch\n1,2.0,0\n3,1")
    (second / "result.json").unlink()
    for run in (first, second):
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / "last.ckpt").touch()
    text = report(first, second, output=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "note: <wide>: " in text and "line 3 was cut off" in page and "the run has not ended" in page
    assert page.count("python -m dvsn.evaluate checkpoint=") == 2


def test_equal_names_are_told_apart_by_their_folders() -> None:
    runs = [Folder(Path("/r") / name, {"name": "same"}) for name in ("a/1", "b/1", "c/2")]
    assert compare_page.labels(runs) == ["a/1", "b/1", "c/2"]
    assert compare_page.labels(runs[1:]) == ["1", "2"]


def test_what_cannot_be_set_side_by_side_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "sweep" / "0")
    with pytest.raises(DataError, match="the same run is given twice"):
        report(run, run)
    with pytest.raises(DataError, match="11 runs are given, expected 2 to 10"):
        compare_page.report([tmp_path / str(number) for number in range(11)])
    write_run(tmp_path / "sweep" / "1")
    with pytest.raises(DataError, match="expected the folder of one run"):
        report(tmp_path / "sweep", run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected the folder of one run"):
        report(run, tmp_path / "empty")
    assert "narrow" in report(
        write_run(tmp_path / "x" / "date", name="narrow").parent, run
    )  # the only run below it
