"""Which pictures of a split are kept, under which names, and what becomes of those of an earlier evaluation."""

from __future__ import annotations

import math
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dvsn.analysis import kept as module
from dvsn.analysis.kept import SIDE, Kept, Seen, by_score, clear, draw, file_name, write_drawings
from dvsn.analysis.record import Cell, Picture


def offered(scores: list[float], count: int, better: str = "more", *, order: list[int] | None = None) -> Kept:
    kept = Kept(count, better)
    for index in order or range(len(scores)):
        kept.offer(index, scores[index], lambda index=index: str(index).encode())
    return kept


def seen_of(scores: list[float], names: list[str] | None = None) -> list[Seen]:
    names = names or [f"p{n}" for n in range(len(scores))]
    return [Seen(n, Picture(name, score)) for n, (name, score) in enumerate(zip(names, scores, strict=True))]


@pytest.mark.parametrize("better", ["more", "less"])
def test_it_keeps_what_sorting_everything_would(better: str) -> None:
    """Drawn scores with many ties, in many orders: what is kept is what a sorted list has at its ends, and no more."""
    generator = random.Random(3)
    for _ in range(60):
        scores = [float(generator.randint(0, 6)) for _ in range(generator.randint(1, 25))]
        count, order = generator.randint(1, 8), list(range(len(scores)))
        generator.shuffle(order)
        kept = offered(scores, count, better, order=order)
        ranked = sorted(order, key=lambda n: (scores[n] if better == "more" else -scores[n], n))
        assert set(kept.drawn) == {*ranked[:count], *ranked[-count:]}
        seen = by_score(seen_of(scores), kept)
        assert [each.index for each in seen] == ranked
        files = kept.choose(seen)
        assert set(files) <= set(kept.drawn), "what is chosen was drawn"
        assert len(files) == min(2 * count, len(scores))
        worst = [n for n, file in files.items() if file.startswith("worst/")]
        assert worst == ranked[: len(worst)] and len(worst) == min(count, math.ceil(len(scores) / 2))


def test_memory_stays_flat_and_little_is_drawn() -> None:
    drawn = 0

    def paint() -> bytes:
        nonlocal drawn
        drawn += 1
        return b""

    kept, generator, most = Kept(5, "more"), random.Random(0), 0
    for index in range(20_000):
        kept.offer(index, generator.random(), paint)
        most = max(most, len(kept.drawn))
    assert most <= 10 and drawn < 200  # about 2 * 5 * (1 + ln(20,000 / 5)) = 93


def test_pictures_without_a_score_come_last_and_are_not_kept() -> None:
    scores = [0.5, math.nan, 0.1]
    kept = offered(scores, 2)
    seen = by_score(seen_of(scores), kept)
    assert [each.index for each in seen] == [2, 0, 1] and set(kept.drawn) == {0, 2}
    assert kept.choose(seen) == {2: "worst/0001_p2.jpg", 0: "best/0001_p0.jpg"}


def test_one_picture_is_the_worst() -> None:
    kept = offered([0.5], 50)
    assert kept.choose(seen_of([0.5])) == {0: "worst/0001_p0.jpg"}


def test_two_processes_keep_what_one_does() -> None:
    scores = [0.3, 0.1, 0.9, 0.1, 0.5, 0.7, 0.2]
    alone = offered(scores, 2)
    ranks = [offered(scores, 2, order=list(range(rank, 7, 2))) for rank in range(2)]
    seen = by_score(seen_of(scores), alone)
    wanted = alone.choose(seen)
    parts: list[dict[str, bytes]] = []
    for rank in ranks:
        rank.collect(wanted, lambda own: parts.append(own) or [own])
    together = ranks[0].collect(wanted, lambda _: parts)
    assert together == alone.collect(wanted, lambda own: [own]) and len(together) == 4


CONFUSED = (
    (0.5, ()), (0.1, (Cell(0, 1, 5), Cell(1, 0, 1))), (0.6, (Cell(0, 1, 9),)), (0.7, (Cell(1, 0, 4), Cell(2, 0, 1))),
    (0.65, (Cell(0, 1, 9),)), (0.9, ()), (math.nan, (Cell(0, 1, 99),)),
)  # fmt: skip
"""Scores and confusions by hand: 0 for 1 in three pictures, most in 2, the worse, and 4; 1 for 0 most in 3."""


def confused_of(indices: range, count: int = 1) -> Kept:
    kept = Kept(count, "more")
    for index in indices:
        kept.offer(index, CONFUSED[index][0], lambda index=index: str(index).encode(), CONFUSED[index][1])
    return kept


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture of each confusion."""
    monkeypatch.setattr(module, "EACH", 1)


@pytest.mark.usefixtures("alone")
def test_the_picture_with_most_of_a_confusion_is_kept() -> None:
    every = [Seen(n, Picture(f"p{n}", score, cells=cells)) for n, (score, cells) in enumerate(CONFUSED)]
    seen = by_score(every, Kept(1, "more"))
    kept = confused_of(range(7))
    assert set(kept.drawn) == {1, 5, 2, 3}
    files = kept.choose(seen)
    assert files == {1: "worst/0001_p1.jpg", 5: "best/0001_p5.jpg", 2: "confused/0001_p2.jpg"}, (
        "of the largest kind alone"
    )
    kept.count = 2
    assert (
        list(kept.choose(seen).values())[-1] == "confused/0001_p2.jpg"
        and kept.choose(seen)[3] == "best/0002_p3.jpg"
    )
    parts: list[dict[str, bytes]] = []
    for ranks in (range(0, 7, 2), range(1, 7, 2)):
        confused_of(ranks).collect(files, lambda own: parts.append(own) or [own])
    assert kept.collect(files, lambda own: [own]) == {
        file: content for part in parts for file, content in part.items()
    }


def test_several_of_a_confusion_the_second_ones_after_the_first_of_all() -> None:
    every = [Seen(n, Picture(f"p{n}", score, cells=cells)) for n, (score, cells) in enumerate(CONFUSED)]
    kept = confused_of(range(7))
    assert set(kept.drawn) == {1, 5, 2, 3, 4}
    scored = [each for each in by_score(every, kept) if each.index != 6]
    assert [each.index for each in module.most_confused(scored, 2)] == [2, 3, 4, 1]
    assert list(kept.choose(by_score(every, kept)).values())[2:] == [
        "confused/0001_p2.jpg",
        "confused/0002_p4.jpg",
    ]


@pytest.mark.usefixtures("alone")
def test_kinds_of_confusions_are_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", 1)
    assert set(confused_of(range(7)).drawn) == {1, 5, 2}


NAMES = {
    "a/b\\c": "a_b_c",
    "../../etc/passwd": "_.._etc_passwd",
    "<img src=x onerror=alert(1)>": "_img_src_x_onerror_alert_1_",
    "Größe 1": "Gr_e_1",
    "...": "picture",
    "": "picture",
    "\0x": "_x",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_safe(name: str) -> None:
    assert file_name(name) == NAMES[name]
    assert len(file_name("x" * 500)) == 80


def test_names_that_collide_have_files_of_their_own() -> None:
    kept = offered([0.1, 0.2, 0.3, 0.4], 2)
    files = kept.choose(by_score(seen_of([0.1, 0.2, 0.3, 0.4], ["a/x", "a_x", "a x", "a/x"]), kept))
    assert len(set(files.values())) == 4


def decoded(content: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_a_sheet_shows_all_panels_in_rows() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    panels = {f"panel {n}": torch.tensor(each, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 120, 220)
              for n, each in enumerate(colours)}  # fmt: skip
    sheet = decoded(draw(panels))
    assert sheet.shape[1] < 3 * 220, "two by two is nearest to twice as wide as high"
    middle = [(26 + 60, 6 + 110), (26 + 60, 12 + 330), (158 + 60, 116), (158 + 60, 342)]
    for (row, column), colour in zip(middle, colours, strict=True):
        assert np.abs(sheet[row, column].astype(int) - colour).max() < 12


def test_large_panels_shrink_and_tiny_ones_grow() -> None:
    large = decoded(draw({"a": torch.zeros(1, 3, 1000, 2000, dtype=torch.uint8)}))
    assert large.shape[1] == SIDE + 12
    tiny = decoded(draw({"a": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}))
    assert tiny.shape[1] == 192 + 12


def test_only_its_own_files_are_cleared(tmp_path: Path) -> None:
    write_drawings(tmp_path, {"worst/0001_a.jpg": b"x", "best/0001_b.jpg": b"x"})
    for name in ("analysis.json", "mine.txt", "worst/mine.jpg"):
        (tmp_path / name).write_text("x")
    clear(tmp_path, ("analysis.json", "pictures.csv"))
    left = sorted(each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file())
    assert left == ["mine.txt", "worst/mine.jpg"] and not (tmp_path / "best").exists()
