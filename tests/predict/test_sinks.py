"""What is written: whole or not at all, in the customary format, and never twice for nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.result import RankedClass, Result
from dvsn.predict.progress import Progress, clock
from dvsn.predict.sinks import Journal, Look, Table, Window, entries

KEY = {"checkpoint": "a.ckpt", "options": {"size": "keep"}}


def frame(name: str = "x", seconds: float | None = None, index: int = 0) -> Frame:
    picture = np.random.default_rng(0).integers(0, 256, (100, 160, 3), dtype=np.uint8)
    return Frame(picture, name, Path(f"{name}.png"), index, seconds)


def objects(**values: Any) -> Result:
    given: dict[str, Any] = {
        "boxes": np.array([[10.0, 20, 40, 60], [1, 2, 3, 4]]), "scores": np.array([0.9, 0.3]),
        "labels": np.array([0, 1]), "names": ("car", "dog"), "palette": ((250, 0, 0), (0, 250, 0)),
    }  # fmt: skip
    return Result(kind="detection", frame=frame(seconds=0.5, index=15), **(given | values))


def test_entries_of_a_frame_say_when_it_is_and_who_it_is() -> None:
    first, second = entries(objects(track_ids=np.array([7, 0])))
    expected = {
        "category_id": 0,
        "bbox": [10, 20, 30, 40],
        "score": 0.9,
        "track": 7,
        "frame": 15,
        "seconds": 0.5,
    }
    assert first == expected | {"image_id": 16}
    assert "track" not in second  # nobody yet
    picture = Result(kind="segmentation", frame=frame(), ids=np.zeros((100, 160), np.uint8), names=("a",))
    assert entries(picture) == []


def test_classes_are_a_table_too(tmp_path: Path) -> None:
    ranked = [RankedClass("cat", 3, 0.75), RankedClass("dog", 1, 0.25)]
    results = [Result(kind="classification", frame=frame(name), classes=ranked) for name in "ab"]
    table = Table(tmp_path / "classes.json")
    with table.opened():
        for result in results:
            table.add(entries(result))
        assert not table.path.exists()
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert rows[1] == {
        "file": "b.png",
        "class_1": "cat",
        "score_1": "0.75",
        "class_2": "dog",
        "score_2": "0.25",
    }
    content = json.loads(table.path.read_text())
    assert [each["file"] for each in content] == ["a.png", "b.png"] and content[0]["classes"][1][
        "number"
    ] == 1


def test_an_empty_table_and_one_that_failed(tmp_path: Path) -> None:
    with Table(tmp_path / "detections.json").opened():
        pass
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    table = Table(tmp_path / "keypoints.json")
    with pytest.raises(KeyError), table.opened():
        table.add([{"a": 1}])
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["detections.json"]


def done(folder: Path, name: str) -> tuple[Path, Path]:
    """A picture and its result."""
    source, target = folder / name, folder / "out" / name
    target.parent.mkdir(exist_ok=True)
    source.write_text(name)
    target.write_text("result")
    return source, target


def test_a_journal_knows_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairs = [done(tmp_path, name) for name in ("a", "b", "c", "d")]
    with Journal(out, KEY) as journal:
        for number, (source, target) in enumerate(pairs):
            journal.add(source, target, [{"n": number}])
    with journal.path.open("ab") as file:
        file.write(b'{"source": "half')  # as of a run that was killed
    pairs[1][1].unlink()  # its result is gone
    pairs[2][0].write_text("another picture")  # its source has changed
    again = Journal(out, KEY)
    assert [again.done(source) for source, _ in pairs] == [True, False, False, True]
    with again:
        again.add(*done(tmp_path, "b"), [{"n": 11}])
        found = [each["n"] for each in again.found(source for source, _ in pairs)]
    assert found == [0, 11, 3]
    third = Journal(out, KEY)
    assert [third.done(source) for source, _ in pairs] == [True, True, False, True]


def test_a_journal_of_another_run_is_begun_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = done(tmp_path, "a")
    with Journal(tmp_path / "out", KEY) as journal:
        journal.add(source, target, [])
    with caplog.at_level("INFO", logger="dvsn"):
        assert not Journal(tmp_path / "out", KEY | {"checkpoint": "b.ckpt"}).done(source)
        assert not Journal(tmp_path / "out", KEY, resume=False).done(source)
    assert "another checkpoint or other options" in caplog.text and "resume=false" in caplog.text
    journal.path.write_bytes(b"\xff\x00 no journal")
    assert not Journal(tmp_path / "out", KEY).done(source)


def test_two_runs_never_write_to_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        Journal(tmp_path, KEY),
        pytest.raises(ConfigError, match="another prediction writes to"),
        Journal(tmp_path, KEY),
    ):
        pass
    with Journal(tmp_path, KEY):
        pass


def test_drawings_of_a_video_are_as_large_as_its_frames() -> None:
    card = Result(kind="classification", frame=frame(), classes=[RankedClass("cat", 0, 1.0)])
    assert Look("cards")(card).shape[:2] != (100, 160)
    drawn = Look("cards", keep_size=True)(card)
    assert drawn.shape == (100, 160, 3) and (drawn != card.frame.picture).any()
    ids = np.zeros((50, 80), np.uint8)
    ids[:, 40:] = 1
    small = Result(
        kind="segmentation", frame=frame(), ids=ids, names=("a", "b"), palette=((9, 9, 9), (200, 0, 0))
    )
    assert Look("color")(small).shape == (50, 80, 3)
    large = Look("color", keep_size=True)(small)
    assert large.shape == (100, 160, 3) and large[0, 159].tolist() == [200, 0, 0]
    assert Look("ids", keep_size=True)(small).tolist() == np.repeat(np.repeat(ids, 2, 0), 2, 1).tolist()


def test_who_is_nobody_yet_has_no_number() -> None:
    one, other = (Look(None)(objects(track_ids=np.array([number, 0]))) for number in (0, 7))
    assert np.array_equal(one, Look(None)(objects())) and not np.array_equal(one, other)


def test_a_headless_opencv_says_how_to_get_windows() -> None:
    with pytest.raises(
        ConfigError, match="pip uninstall -y opencv-python-headless && pip install opencv-python"
    ):
        Window()


def test_progress_says_how_fast_and_how_long() -> None:
    progress = Progress("clip.mp4", 300)
    progress.done, progress.recent = 60, (0.0, 0)
    assert progress.line(2.0) == "clip.mp4: 60 of 300 frames, 30.0 frames/s, 0:08 left"
    assert Progress("camera 0", None).line(1e12).startswith("camera 0: 0 frames, 0.0 frames/s")
    assert [clock(seconds) for seconds in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]
