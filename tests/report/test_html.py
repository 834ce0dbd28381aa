"""The page layer of reports: escaping, tables, pictures, figures, and the policy that keeps the page from the network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from markupsafe import Markup
from PIL import Image

from dvsn.errors import DataError
from dvsn.report import html

WICKED = "<img src=x onerror=alert(1)>"


def test_texts_are_escaped_everywhere() -> None:
    page = html.Page(WICKED, WICKED)
    page.note(WICKED)
    chart = go.Figure(go.Scatter(x=[1], y=[2], name="</script><script>alert(1)</script>"))
    page.section(
        WICKED, WICKED, html.table([WICKED], [[WICKED], [html.Cell(WICKED, WICKED)]], caption=WICKED),
        html.picture(np.zeros((2, 2, 3), np.uint8), WICKED), html.code(WICKED), html.heading(WICKED),
        html.folded(WICKED), html.figure(chart, label=WICKED),
    )  # fmt: skip
    text = re.sub(r"<script>.*?</script>", "", page.render(), flags=re.DOTALL)
    assert WICKED not in text and "</script><script>alert" not in text
    assert text.count("&lt;img src=x") == 18  # one a place


def test_the_policy_names_each_script_by_its_hash_and_nothing_is_loaded() -> None:
    page = html.Page("t")
    page.section("plain", "text")
    assert "Plotly.newPlot" not in page.render() and len(page.render()) < 40_000
    page.section("chart", html.figure(go.Figure(go.Scatter(x=[1], y=[2])), label="a chart"))
    text = page.render()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts}
    assert len(scripts) == 2 and hashes == set(re.findall(r"'sha256-([^']*)'", policy[1]))
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", outside) and "url(" not in outside


def test_a_figure_is_data_that_cannot_end_its_element() -> None:
    found = html.figure(
        go.Figure(go.Scatter(x=[1, 2], y=[3.0, float("nan")], name="a</script>b & c")), label="a chart"
    )
    held = re.search(r'<script type="application/json">(.*)</script>', found)
    assert held is not None and "<" not in held[1]
    content = json.loads(held[1])
    assert content["data"][0]["name"] == "a</script>b & c" and "template" not in content["layout"]


def test_anchors_are_words_and_never_twice() -> None:
    page = html.Page("t")
    for title in ("Loss & score", "Loss: score", "Ünï", "notes"):
        page.section(title)
    assert [each.anchor for each in page.sections] == ["loss-score", "loss-score-2", "n", "notes-2"]
    assert 'href="#loss-score-2"' in page.render() and 'id="loss-score-2"' in page.render()


def test_a_table_aligns_numbers_and_keeps_what_it_is_sorted_by() -> None:
    cells = [
        ["car", 0.51234567, html.Cell("51 %", 0.51, bar=0.51)],
        ["bus", None, html.Cell("-", None, bar=7)],
    ]
    text = html.table(["class", "iou", "share"], cells)
    assert text.count('class="right"') == 2 and '<th scope="col"><button type="button">class' in text
    assert 'data-key="0.51234567">0.5123<' in text and f'data-key="">{html.NOTHING}<' in text
    assert (
        'data-key="0.51">51 %<span class="bar"><span style="width:51.0%">' in text and "width:100.0%" in text
    )
    assert "<button" not in html.table(["a"], [[1]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (3, "3"), (12345, "12,345"), (0.123456, "0.1235"), (2.0, "2"), (1e-7, "1e-07"),
     (123456.7, "123,457"), (float("inf"), "–")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert html.number(value) == shown


def test_a_picture_is_embedded_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
    Image.fromarray(random).save(tmp_path / "a.png")
    for source in (random, tmp_path / "a.png"):
        found = html.picture(source, Markup("a <b>word</b>"), max_side=200, anchor="p1")
        data = re.search(r'src="data:image/webp;base64,([^"]*)" width="200" height="100" alt="a word"', found)
        assert data is not None and 'id="p1"' in found and "<figcaption>a <b>word</b>" in found
        opened = Image.open(io.BytesIO(base64.b64decode(data[1])))
        assert opened.size == (200, 100) and opened.format == "WEBP"


def test_a_picture_that_is_gone_or_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png: cannot be read"):
        html.encode(tmp_path / "gone.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a.png: not a readable picture"):
        html.encode(tmp_path / "a.png")
    with pytest.raises(DataError, match="it is a folder"):
        html.encode(tmp_path)


def test_a_long_name_of_an_axis_has_lines_and_no_markup() -> None:
    assert html.axis_title("error <b>relative</b> to the root of the person's area") == (
        "error &lt;b&gt;relative&lt;/b&gt; to the root<br>of the person&#39;s area"
    )
    assert html.axis_title("") == ""
