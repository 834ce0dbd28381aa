"""What is said where the device waits for data, by numbers that are computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dvsn.engine.starving import Pipeline, enough, left_by_others, quota, sentence, spoken
from tests.support.tiny import TINY, composed


def pipeline(**changes: Any) -> Pipeline:
    """100 batches of 1 s, 0.4 of it waiting: two workers take 2 s for each, the device 0.6 s; 16 cores with little to do."""
    usual: dict[str, Any] = {
        "batches": 100, "seconds": 100.0, "waited": 40.0, "first": 0.0, "workers": 2, "cores": 16,
        "made": 2.0, "made_processor": 1.9, "own_processor": 0.5,
    }  # fmt: skip
    return Pipeline(**{**usual, **changes})


def test_more_workers_by_hand() -> None:
    seen = pipeline()
    assert (seen.share, seen.step) == (0.4, pytest.approx(0.6))
    assert seen.expected(2) == pytest.approx(100), "two workers: a batch a second, as it was"
    assert seen.expected(3) == pytest.approx(200 / 3) and seen.expected(4) == pytest.approx(60)
    assert seen.best() == 4, "a fifth would not shorten the 0.6 s of the device"
    assert sentence(seen) == (
        "The device waited 40% of the time for data (40 s of 100 s an epoch): data.workers=4 would shorten an epoch's "
        "training to about 60 s. A worker needs 2.0 s to make a batch, the device 0.6 s to train on it."
    )


def test_the_advice_works_when_pasted(tmp_path: Path) -> None:
    text = sentence(pipeline())
    assert text is not None
    (option,) = (word for word in text.split() if word.startswith("data.workers="))
    assert composed([*TINY, option], tmp_path)["data"]["workers"] == 4


def test_without_workers_the_batch_and_the_step_take_turns() -> None:
    seen = pipeline(workers=0, made=0.4, made_processor=0.4)
    assert seen.expected(0) == pytest.approx(100) and seen.best() == 1
    text = sentence(seen)
    assert text is not None and "data.workers=1 would shorten an epoch's training to about 60 s" in text
    assert "The process itself (data.workers=0) needs 0.4 s" in text


def test_nothing_is_said_where_the_device_hardly_waits() -> None:
    assert sentence(pipeline(waited=9.0)) is None
    assert sentence(pipeline(waited=9.0), said_from=0.05) is not None
    assert sentence(pipeline(batches=0, seconds=0.0, waited=0.0)) is None
    assert not enough([pipeline(seconds=4.0)]) and enough([pipeline(seconds=4.0), pipeline(seconds=7.0)])


@pytest.mark.parametrize("cores", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("made", [0.1, 2.0, 50.0])
def test_never_more_workers_than_cores(cores: int, made: float) -> None:
    for workers in (0, 1, 2, 8):
        seen = pipeline(cores=cores, made=made, made_processor=made, workers=workers)
        assert 1 <= seen.best() <= cores
        text = sentence(seen) or ""
        if "data.workers=" in text and " would shorten" in text:
            assert int(text.split("data.workers=")[1].split()[0]) <= cores


def test_cores_that_are_busy_are_said() -> None:
    """Two cores: (1.4 + 0.5) / 2 = 0.95 s a batch at least, of the 1 s that it takes."""
    text = sentence(pipeline(cores=2, made=1.6, made_processor=1.4))
    assert text is not None and " would shorten" not in text
    assert (
        "more workers will not help: 2 cores are busy all the while, 1.4 s of a batch to make it and 0.5 s"
        in text
    )
    assert "Smaller pictures (transform=...)" in text


def test_free_workers_do_not_help_busy_cores() -> None:
    """Four cores, two workers: (2 + 2) / 4 = 1 s a batch at least, as long as it takes."""
    text = sentence(pipeline(cores=4, made=2.0, made_processor=2.0, own_processor=2.0))
    assert text is not None and "more workers will not help: 4 cores are busy" in text


def test_nothing_is_promised_on_a_crowded_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers would keep (1.9 + 0.5) / 0.6 = 4 cores busy; others leave 3."""
    assert pipeline().needed(4) == pytest.approx(4.0)
    text = sentence(pipeline(free=3.0))
    assert text is not None and "Other programs keep the cores busy" in text and "data.workers=" not in text
    assert "data.workers=4 would" in (sentence(pipeline(free=4.0)) or "")
    monkeypatch.setattr("os.getloadavg", lambda: (13.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert left_by_others(3) == 6.0 and left_by_others(20) == 16.0


def test_a_slow_disk_is_said() -> None:
    """As many workers as cores, each of which waits for files most of the time."""
    text = sentence(pipeline(workers=4, cores=4, made=4.0, made_processor=0.2))
    assert (
        text is not None
        and "3.8 s of a batch because its maker waits for files" in text
        and " would shorten" not in text
    )


def test_the_first_batch_of_short_epochs_is_said() -> None:
    seen = pipeline(batches=5, seconds=10.0, waited=6.0, first=5.0, made=1.0, workers=4)
    text = sentence(seen)
    assert (
        text is not None and ", 5.0 s of it for the first batch, which more workers do not shorten." in text
    )


def test_workers_that_would_do_are_not_blamed() -> None:
    """By the numbers the device need not wait; then nothing is promised."""
    text = sentence(pipeline(workers=8, made=1.0, made_processor=0.9))
    assert (
        text is not None and " would" not in text and "with data.workers=8 where 16 cores are there" in text
    )


def test_the_mean_of_epochs_counts_batches() -> None:
    mean = Pipeline.mean([pipeline(batches=100, made=1.0), pipeline(batches=300, made=2.0, seconds=300.0)])
    assert mean is not None
    assert (mean.batches, mean.seconds, mean.made, mean.cores) == (200, 200.0, 1.75, 16)
    assert Pipeline.mean([]) is None


def test_a_container_has_the_cores_of_its_quota(tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    for content, expected in (
        ("400000 100000\n", 4),
        ("max 100000\n", None),
        ("50000 100000", 1),
        ("none", None),
    ):
        path.write_text(content)
        assert quota(path) == expected
    assert quota(tmp_path / "absent") is None


def test_seconds_are_spoken() -> None:
    assert [spoken(value) for value in (0.0123, 1.26, 38.4, 599.0, 720.0)] == [
        "12 ms",
        "1.3 s",
        "38 s",
        "599 s",
        "12 min",
    ]
