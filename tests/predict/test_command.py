"""`python -m dvsn.predict` from end to end: several sources, a video, what is broken, what is resumed, flat memory."""

from __future__ import annotations

import json
import lzma
import resource
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import dvsn
from dvsn.data.street.scene import draw_scene
from dvsn.errors import ConfigError, DataError
from dvsn.predict import __main__ as program
from dvsn.predict import command
from dvsn.predict.options import COMMAND
from dvsn.predict.running import Run
from dvsn.predict.video import Video, VideoWriter
from dvsn.tasks.inference import Inference

OLD = Path(__file__).parents[1] / "old_checkpoints"
RATE = Fraction(30_000, 1001)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of three tasks, and a video of 24 frames."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("predict")
    for name in ("segmentation", "pose", "classification"):
        (place / f"{name}.ckpt").write_bytes(lzma.decompress((OLD / f"{name}.ckpt.xz").read_bytes()))
    with VideoWriter(place / "clip.mp4", rate=RATE).opened() as writer:
        for number in range(24):
            writer(scene(number), None)
    return place


def scene(number: int, height: int = 72, width: int = 96) -> np.ndarray[Any, Any]:
    picture = np.full((height, width, 3), 90, np.uint8)
    cv2.rectangle(picture, (number, 20), (number + 20, 60), (200, 60, 40), -1)
    return picture


def run(*argv: Any) -> command.Outcome:
    return command.run(COMMAND.parse([*map(str, argv), "device=cpu"]))


@pytest.mark.parametrize("name", ["seen.mp4", "seen.PNG", "all.json"])
def test_an_output_that_is_called_as_a_file_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"output: found .*, expected a folder, such as output=.*(seen|all)\. Results"
    ):
        run(folder / "segmentation.ckpt", folder / "clip.mp4", f"output={tmp_path / name}")
    assert not (tmp_path / name).exists()


def paint(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), scene(number))
    return path


def frames_of(path: Path) -> tuple[list[Any], Video]:
    with Video(path, name=path.name) as video:
        return list(video), video


@pytest.mark.parametrize("name", ["segmentation", "pose", "classification"])
def test_a_video_becomes_one_of_the_same_frames_rate_and_size(
    name: str, folder: Path, tmp_path: Path
) -> None:
    outcome = run(folder / f"{name}.ckpt", folder / "clip.mp4", f"output={tmp_path}", "batch_size=5")
    frames, video = frames_of(tmp_path / "clip.mp4")
    assert len(frames) == 24 and video.facts.rate == RATE and frames[0].picture.shape == (72, 96, 3)
    assert [frame.seconds for frame in frames] == pytest.approx([float(n / RATE) for n in range(24)])
    assert outcome.frames == 24 and not outcome.skipped.messages
    if name == "pose":
        entries = json.loads((tmp_path / "clip_keypoints.json").read_text())
        assert [each["frame"] for each in entries] == list(range(24))
        assert [each["image_id"] for each in entries] == list(range(1, 25))
    assert not list(tmp_path.glob("unfinished*")) and not list(tmp_path.glob(".*"))


def test_a_frame_is_answered_as_a_picture(folder: Path, tmp_path: Path) -> None:
    frames, _ = frames_of(folder / "clip.mp4")
    for frame in frames[:3]:
        cv2.imwrite(str(paint(tmp_path / "in" / f"{frame.index}.png")), frame.picture[..., ::-1])
    ckpt = folder / "segmentation.ckpt"
    run(ckpt, tmp_path / "in", f"output={tmp_path}/pictures", "write=ids")
    outcome = run(
        ckpt, folder / "clip.mp4", f"output={tmp_path}/film", "write=ids", "limit=3", "batch_size=2"
    )
    assert outcome.frames == 3
    for index in range(3):
        one, other = (
            cv2.imread(str(tmp_path / place), cv2.IMREAD_UNCHANGED)
            for place in (f"pictures/{index}.png", f"film/clip/{index:06d}.png")
        )
        assert one is not None and np.array_equal(one, other)


def test_several_sources_by_position(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path / "a=1.png")
    paint(tmp_path / "b.png")
    paint(tmp_path / "c" / "d.png")
    monkeypatch.chdir(tmp_path)
    outcome = run(
        folder / "pose.ckpt", "a=1.png", "b.png", folder / "clip.mp4", "c", "output=seen", "limit=2"
    )
    assert {path.as_posix() for path in outcome.written} == {
        "seen/a=1.png", "seen/b.png", "seen/d.png", "seen/clip.mp4", "seen/clip_keypoints.json", "seen/keypoints.json",
    }  # fmt: skip
    entries = json.loads(Path("seen/keypoints.json").read_text())
    assert [each["file_name"] for each in entries] == ["a=1.png", "b.png", "d.png"]


def test_broken_ones_are_skipped_and_the_exit_code_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        paint(tmp_path / "in" / f"{name}.png")
    whole = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[:50])
    (tmp_path / "in" / "film.mp4").write_bytes(b"no film")
    argv = [str(folder / "pose.ckpt"), str(tmp_path / "in"), f"output={tmp_path}/out", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["predict", *argv])
    monkeypatch.setattr(program.logging, "basicConfig", lambda **_: None)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 1
    said = [message for message in caplog.messages if message.startswith("skipped: ")]
    assert len(said) == 2 and "b.png" in said[0] and "film.mp4" in said[1]
    assert "skipped or incomplete: 2" in caplog.text
    table = tmp_path / "out" / "keypoints.json"
    assert [each["file_name"] for each in json.loads(table.read_text())] == ["a.png", "c.png"]
    # repaired, the same line does the rest
    (tmp_path / "in" / "b.png").write_bytes(whole)
    (tmp_path / "in" / "film.mp4").unlink()
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    outcome = run(*argv[:3])
    assert (outcome.frames, outcome.kept) == (1, 2)
    assert [each["file_name"] for each in json.loads(table.read_text())] == ["a.png", "b.png", "c.png"]
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "unfinished.jsonl").exists()


def test_a_run_that_was_broken_off_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        paint(tmp_path / "in" / f"{number}.png", number)
    argv = (folder / "pose.ckpt", tmp_path / "in", f"output={tmp_path}/out")
    run(*argv[:2], f"output={tmp_path}/whole")
    plain = Run.results

    def broken(self: Run, *arguments: Any) -> Any:
        for number, each in enumerate(plain(self, *arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(Run, "results", broken)
    with pytest.raises(KeyboardInterrupt):
        run(*argv)
    monkeypatch.setattr(Run, "results", plain)
    with caplog.at_level("INFO"):
        outcome = run(*argv)
    assert (outcome.frames, outcome.kept) == (2, 2) and "2 of 4 pictures are there" in caplog.text
    for name in ("keypoints.json", *(f"{number}.png" for number in range(4))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert run(*argv).frames == 4  # of a whole folder nothing is kept back


def test_nothing_that_can_be_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "half.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:300])
    with pytest.raises(DataError, match=r"half.mp4: not a readable video"):
        run(folder / "pose.ckpt", tmp_path / "half.mp4", f"output={tmp_path}/out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "broken.png").write_bytes(paint(tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken.png: "):
        run(folder / "pose.ckpt", tmp_path / "broken.png", f"output={tmp_path}/out")
    assert not (tmp_path / "out").exists()  # nor a keypoints.json of nobody


def test_a_truncated_video_is_answered_as_far_as_it_goes(folder: Path, tmp_path: Path) -> None:
    content = (folder / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 8 // 10])
    outcome = run(folder / "segmentation.ckpt", tmp_path / "cut.mp4", f"output={tmp_path}/out")
    frames, _ = frames_of(tmp_path / "out" / "cut.mp4")
    assert 0 < len(frames) == outcome.frames < 24
    assert len(outcome.skipped.messages) == 1 and "cut.mp4: " in outcome.skipped.messages[0]
    again = run(folder / "segmentation.ckpt", tmp_path / "cut.mp4", f"output={tmp_path}/out")
    assert again.skipped.messages == outcome.skipped.messages and again.frames == outcome.frames


def test_who_is_followed_has_a_number(folder: Path, tmp_path: Path) -> None:
    outcome = run(
        folder / "pose.ckpt", folder / "clip.mp4", f"output={tmp_path}", "track=true", "smooth=true", "joint_score=0.01",
        "limit=6",
    )  # fmt: skip
    plain = run(folder / "pose.ckpt", folder / "clip.mp4", f"output={tmp_path}/plain", "limit=6")
    entries, rough = (
        json.loads((path / "clip_keypoints.json").read_text()) for path in (tmp_path, tmp_path / "plain")
    )
    assert outcome.frames == plain.frames == 6 and all("track" not in each for each in rough)
    assert {each.get("track") for each in entries} <= {1, None} and any(each.get("track") for each in entries)


def test_inference_may_be_another_than_the_recipes(folder: Path, tmp_path: Path) -> None:
    photo = draw_scene(seed=3, index=0, height=128, width=256).photo
    cv2.imwrite(str(tmp_path / "x.png"), photo[..., ::-1])
    ckpt = folder / "segmentation.ckpt"
    sliding = ("mode=slide", "window=[64,64]", "scales=[0.5,1.0]", "flip=true")
    given = [f"inference.{each}" for each in sliding]
    run(ckpt, tmp_path / "x.png", f"output={tmp_path}/whole", "write=ids")
    run(ckpt, tmp_path / "x.png", f"output={tmp_path}/slide", "write=ids", *given)
    one, other = (cv2.imread(str(tmp_path / name / "x.png"), -1) for name in ("whole", "slide"))
    task: Any = dvsn.load(ckpt)
    task.inference = Inference("slide", (64, 64), None, (0.5, 1.0), True)
    with torch.inference_mode():
        expected = task(torch.from_numpy(photo.transpose(2, 0, 1).copy())[None])[0].numpy()
    assert other is not None and np.array_equal(other, expected) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pose", ["inference.flip=true"], r"inference.flip: the task 'pose' has no such option"),
        ("segmentation", ["track=true"], "track: the task 'segmentation' has no such option"),
        ("segmentation", ["flip=true"], "flip: the task 'segmentation' has no such option"),
        ("pose", ["raw=640"], "raw: found '?640'?, expected WIDTHxHEIGHT"),
        ("pose", ["limit=0"], "limit: found 0, expected 1 or more"),
        ("pose", ["fps=0.0"], "fps: found 0.0"),
        ("pose", ["frames=gif"], "frames: found 'gif', expected video or pictures"),
        ("pose", ["show=true"], "show: this OpenCV has no windows"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    name: str, options: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(folder / f"{name}.ckpt", folder / "clip.mp4", f"output={tmp_path}/out", *options)
    assert not (tmp_path / "out").exists()


def test_memory_stays_flat_over_a_long_video(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 frames of 360 KB each: 144 MB if they were kept."""
    with VideoWriter(tmp_path / "long.mp4", rate=Fraction(30)).opened() as writer:
        for number in range(400):
            writer(scene(number % 200, 300, 400), None)
    seen: list[int] = []
    plain = Run.results

    def watched(self: Run, *arguments: Any) -> Any:
        for number, each in enumerate(plain(self, *arguments)):
            if number in (100, 399):
                seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            yield each

    monkeypatch.setattr(Run, "results", watched)
    run(folder / "classification.ckpt", tmp_path / "long.mp4", f"output={tmp_path}/out", "batch_size=8")
    assert len(seen) == 2 and seen[1] - seen[0] < 30_000  # KB
