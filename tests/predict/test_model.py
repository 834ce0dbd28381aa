"""What `dvsn.load` gives: the task, with `predict` for every kind of picture; its answers are those of the command."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import dvsn
from dvsn.errors import ConfigError, DataError
from dvsn.portable.frame import Frame
from dvsn.portable.overlay import render
from dvsn.portable.result import Result
from dvsn.predict.command import predict
from dvsn.predict.inputs import open_given
from dvsn.predict.model import Model, as_model
from dvsn.predict.options import COMMAND
from dvsn.tasks.segmentation import Segmentation
from tests.support.six_tasks import TASKS, write_checkpoint

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each task, and five pictures in `photos`."""
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("six")
    for name in TASKS:
        write_checkpoint(name, made)
    (made / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        blocks = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(made / "photos" / f"{number}.png"), cv2.resize(blocks, (WIDTH, HEIGHT)))
    return made


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Model]:
    return {name: dvsn.load(folder / f"{name}.ckpt") for name in TASKS}


def read(path: Path) -> np.ndarray[Any, Any]:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def commanded(folder: Path, name: str, output: Path, *options: str) -> Path:
    words = [str(folder / f"{name}.ckpt"), str(folder / "photos"), f"output={output}", "device=cpu", *options]
    predict(COMMAND.parse(words))
    return output


def same(one: Result, other: Result) -> bool:
    left, right = (each.to_json() for each in (one, other))
    for key in ("name", "path", "index", "image_id", "seconds"):
        left.pop(key), right.pop(key)
    return left == right


# The same as the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("segmentation", "ids"), ("pix2pix", "picture")])
def test_pictures_are_those_of_the_command(
    name: str, kind: str, folder: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    commanded(folder, name, tmp_path, f"write={kind}", "batch_size=2", "original_size=true")
    results = models[name].predict(folder / "photos", batch_size=2)
    assert [result.frame.name for result in results] == ["0", "1", "2", "3", "4"]
    for result in results:
        written = cv2.imread(str(tmp_path / f"{result.frame.name}.png"), cv2.IMREAD_UNCHANGED)
        if kind == "picture":
            written = cv2.cvtColor(written, cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(render(result, kind), written)
    if kind == "ids":
        assert len(np.unique(results[0].ids)) > 1  # the test sees something


@pytest.mark.parametrize(
    ("name", "file"),
    [("detection", "detections.json"), ("pose", "keypoints.json"), ("landmarks", "landmarks.json")],
)
def test_entries_are_those_of_the_command(
    name: str, file: str, folder: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    commanded(folder, name, tmp_path, "batch_size=2")
    results = models[name].predict(folder / "photos", batch_size=2)
    expected = json.loads((tmp_path / file).read_text())
    assert expected and [entry for result in results for entry in result.to_coco()] == expected
    for result in results:
        np.testing.assert_array_equal(np.array(result.plot()), read(tmp_path / f"{result.frame.name}.png"))


def test_classes_are_those_of_the_command(folder: Path, models: dict[str, Model], tmp_path: Path) -> None:
    commanded(folder, "classification", tmp_path, "batch_size=2", "top=2")
    results = models["classification"].predict(folder / "photos", batch_size=2, top=2)
    entries = json.loads((tmp_path / "classes.json").read_text())
    for result, entry in zip(results, entries, strict=True):
        found = [
            {"class": each.name, "number": each.number, "score": round(each.score, 6)}
            for each in result.classes
        ]
        assert found == entry["classes"] and len(found) == 2
    with (tmp_path / "classes.csv").open(newline="") as table:
        assert [row["class_1"] for row in csv.DictReader(table)] == [
            result.classes[0].name for result in results
        ]


def test_inference_is_chosen_for_one_call(folder: Path, models: dict[str, Model]) -> None:
    model: Any = models["segmentation"]
    usual = model.inference
    picture = folder / "photos" / "0.png"
    plain, slid = (
        model.predict(picture),
        model.predict(picture, mode="slide", window=[32, 48], scales=[1.0, 0.5], flip=True),
    )
    assert model.inference == usual and (plain.ids != slid.ids).any()
    model.inference = usual._replace(mode="slide", window=(32, 48), scales=(1.0, 0.5), flip=True)
    try:
        assert same(model.predict(picture), slid)
    finally:
        model.inference = usual
    turned = models["pose"].predict(picture, flip=True), models["pose"].predict(picture, flip=False)
    assert not same(*turned)


def test_who_is_who_over_frames(models: dict[str, Model], tmp_path: Path) -> None:
    """Numbers over the pictures of a folder, of which 10 comes after 9; of a video they are the command's."""
    for number in range(8, 12):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[20:40, 3 * number : 3 * number + 20] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    for name in ("pose", "landmarks", "detection"):
        results = models[name].predict(tmp_path, track=True, smooth=True)
        assert [result.frame.name for result in results] == ["8", "9", "10", "11"]
        assert all(len(result.track_ids) == len(result) for result in results)
    ids = [result.track_ids.tolist() for result in models["pose"].predict(tmp_path, smooth=True, fps=5)]
    assert ids == [[1], [1], [1], [1]]
    plain, calm = (models["pose"].predict(tmp_path, smooth=smooth) for smooth in (False, True))
    assert plain[0].track_ids is None and (plain[3].keypoints != calm[3].keypoints).any()
    with pytest.raises(ConfigError, match="beta: only frames are smoothed"):
        models["pose"].predict(tmp_path, beta=3.0)
    with pytest.raises(ConfigError, match="track: predict of the task 'segmentation' has no such option"):
        models["segmentation"].predict(tmp_path, track=True)


# Every kind of picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_form_of_a_picture_is_the_same(name: str, folder: Path, models: dict[str, Model]) -> None:
    """Path, text, Pillow, arrays, tensors, alpha, blue first: for every task, bit for bit."""
    model, path = models[name], folder / "photos" / "1.png"
    rgb = read(path)
    expected = model.predict(path)
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    forms = {
        "text": str(path), "Pillow": Image.open(path), "array": rgb, "alpha": alpha, "tensor": tensor,
        "unit": tensor.double() / 255, "unit array": rgb.astype(np.float32) / 255, "strided": rgb[:, ::-1][:, ::-1],
        "sixteen": rgb.astype(np.uint16) << 8, "frame": Frame(rgb, "1"),
    }  # fmt: skip
    for form, picture in forms.items():
        assert same(model.predict(picture), expected), form
    assert same(model.predict(rgb[..., ::-1], bgr=True), expected)
    assert isinstance(expected, Result) and expected.size == (HEIGHT, WIDTH)


def test_grey_is_rgb_of_three_equal_channels(models: dict[str, Model]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    expected = models["segmentation"].predict(np.stack([grey] * 3, axis=-1))
    for form in (grey, grey[..., None], torch.from_numpy(grey)[None], Image.fromarray(grey), grey / 255.0):
        assert same(models["segmentation"].predict(form), expected)


def test_several_are_a_list_in_their_order(folder: Path, models: dict[str, Model]) -> None:
    model, paths = models["segmentation"], sorted((folder / "photos").iterdir())
    pictures = [read(path) for path in paths]
    expected = [model.predict(path) for path in paths]
    tensor = torch.from_numpy(pictures[4]).permute(2, 0, 1)
    sources: dict[str, Any] = {
        "paths": paths, "glob": f"{folder}/photos/*.png", "folder": str(folder / "photos"),
        "mixed": [paths[0], pictures[1], Image.open(paths[2]), str(paths[3]), tensor],
        "batch": np.stack(pictures), "tensors": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
    }  # fmt: skip
    for name, source in sources.items():
        found = model.predict(source)
        assert isinstance(found, list) and all(map(same, found, expected)), name
        assert [result.frame.index for result in found] == [0, 1, 2, 3, 4], name
    assert [result.frame.name for result in model.predict(sources["mixed"])] == [
        "0",
        "picture_2",
        "picture_3",
        "3",
        "picture_5",
    ]
    assert model.predict([]) == []


def test_streams_are_read_as_they_are_asked(folder: Path, models: dict[str, Model]) -> None:
    """Of an endless generator no more is read than two batches ahead."""
    taken = []

    def endless() -> Iterator[np.ndarray[Any, Any]]:
        for number in itertools.count():
            taken.append(number)
            yield np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8)

    for name in TASKS:
        taken.clear()
        results = models[name].predict(endless(), batch_size=2)
        assert not taken
        indices = [result.frame.index for result in itertools.islice(results, 5)]
        assert indices == [0, 1, 2, 3, 4] and len(taken) <= 9, name
    listed = models["pose"].predict(folder / "photos", stream=True)
    assert next(iter(listed)).frame.name == "0" and len(list(listed)) == 4


def test_frames_without_anybody_do_not_pile_up(models: dict[str, Model]) -> None:
    """One person, whose batch is not full, and then frames with nobody: results come all the same."""
    taken = []

    def frames() -> Iterator[np.ndarray[Any, Any]]:
        for number in range(100):
            taken.append(number)
            yield np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    detector = models["detection"]
    found = detector.predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    results = models["pose"].predict(frames(), boxes=np.array([[0.0, 0, 50, 50]]), batch_size=64)
    first = next(results)
    assert len(first) == 1 and len(taken) == 64
    assert isinstance(found, Result)
    results = models["pose"].predict(frames(), boxes=np.zeros((0, 4)), batch_size=64)
    taken.clear()
    assert len(next(results)) == 0 and len(taken) == 1


def test_a_video_is_a_stream(models: dict[str, Model], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(6):
            picture = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    results = models["segmentation"].predict(tmp_path / "clip.mp4", batch_size=4)
    assert not isinstance(results, list)
    found = list(results)
    assert [result.frame.index for result in found] == list(range(6))
    assert [result.frame.seconds for result in found] == pytest.approx([number / 25 for number in range(6)])


def test_ids_are_painted(tmp_path: Path) -> None:
    """A task that paints from class ids takes maps of them, and says so of photos."""
    from tests.support.six_tasks import OPTIONS

    more = ["data.label_classes=5", "data.input_channels=5", "task.test_dropout=false"]
    OPTIONS["ids"] = [*OPTIONS["pix2pix"], *more]
    try:
        model = dvsn.load(write_checkpoint("ids", tmp_path))
    finally:
        del OPTIONS["ids"]
    ids = np.random.default_rng(0).integers(0, 5, (32, 48), dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "ids.png")
    expected = model.predict(tmp_path / "ids.png")
    assert expected.picture.shape == (32, 48, 3)
    for form in (ids, ids.astype(np.int64), torch.from_numpy(ids), Image.fromarray(ids)):
        assert same(model.predict(form), expected)
    with pytest.raises(DataError, match=r"this task paints from class ids: expected whole numbers \(H, W\)"):
        model.predict(np.zeros((32, 48, 3), np.uint8))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.png", "nothing found at 'gone.png'"),
        ("https://example.com/a.png", "is an address, and nothing is downloaded"),
        (np.zeros((3, 64, 96), np.uint8), r"Channels come last in an array: use picture.transpose\(1, 2, 0\)"),
        (np.zeros((64, 96, 2), np.uint8), r"expected RGB \(H, W, 3\), RGBA or grey"),
        (np.zeros((0, 96, 3), np.uint8), r"expected RGB \(H, W, 3\)"),
        (np.full((64, 96, 3), 200.0), r"found floats from 200 to 200, expected \[0, 1\]. Divide by 255"),
        (np.full((64, 96, 3), np.nan), "found floats that are not finite"),
        (np.zeros((64, 96, 3), bool), "found numbers of bool"),
        (np.zeros((64, 96, 3), np.int64), "found numbers of int64"),
        (np.zeros((64, 96, 3), np.int64), r"use picture.astype\('uint8'\)"),
        (torch.zeros(64, 96, 3), r"tensor of the shape \(64, 96, 3\).*use picture.permute\(2, 0, 1\)"),
        (io.BytesIO(b"x"), "found BytesIO, .* Open the file by PIL.Image.open"),
        (b"x", "found bytes, .* Open the bytes of a picture by PIL.Image.open"),
        ({"image": 1}, "found dict, expected a path"),
        (None, "found NoneType, expected a path"),
        (3.5, "found float, expected a path"),
        (True, "found bool, expected a path"),
        ([[1.5]], "found float, expected a path"),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else each[:30],
)  # fmt: skip
def test_what_is_no_picture_is_refused(source: Any, message: str, models: dict[str, Model]) -> None:
    with pytest.raises(DataError, match=message):
        models["segmentation"].predict(source)


def test_a_tilde_is_the_home_and_the_nearest_name_is_said(
    models: dict[str, Model], folder: Path, monkeypatch: Any
) -> None:
    model = models["segmentation"]
    monkeypatch.setenv("HOME", str(folder))
    expected = model.predict(folder / "photos" / "0.png")
    for form in ("~/photos/0.png", Path("~/photos/0.png")):
        assert same(model.predict(form), expected)
    assert len(model.predict("~/photos/*.png")) == len(model.predict(["~/photos/0.png"] * 5)) == 5
    assert isinstance(dvsn.load("~/segmentation.ckpt"), Model)
    with pytest.raises(DataError, match=r"0.pgn' \(Did you mean '0.png'\?\)"):
        model.predict("~/photos/0.pgn")
    with pytest.raises(ConfigError, match="device: 'gpu' cannot be used here"):
        dvsn.load("~/segmentation.ckpt", device="gpu")
    with pytest.raises(ConfigError, match=r"alpha: plot has no such option.*tint"):
        expected.plot(alpha=0.5)


# Options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segmentation", {"boxes": "x.json"}, "boxes: .* 'segmentation' has no such option.*Valid: batch_size"),
        ("segmentation", {"scale": [1]}, "scale: .*Did you mean 'scales'"),
        ("segmentation", {"mode": "slide"}, "inference.window: .*mode=slide needs it"),
        ("segmentation", {"size": (0, 4)}, "size: found '0x4'"),
        ("segmentation", {"size": 64}, r"size: found 64, expected recipe, keep or \(height, width\)"),
        ("segmentation", {"stride": 2}, r"stride: is of the windows of the mode 'slide'.*itertools.islice"),
        ("pose", {"mode": "slide"}, "mode: predict of the task 'pose' has no such option"),
        ("pose", {"batch_size": 0}, "batch_size: found 0"),
        ("pose", {"batch_size": "two"}, "batch_size: found 'two', expected a whole number"),
        ("pose", {"boxes": [[1, 2]]}, r"boxes: found list of the shape \(1, 2\), expected a file"),
        ("pose", {"boxes": object()}, "boxes: found object"),
        ("landmarks", {"nms": 0.5}, "nms: predict of the task 'landmarks' has no such option"),
        ("detection", {"score": "high"}, "score: found 'high'"),
        ("classification", {"top": 0}, "top: found 0"),
        ("pix2pix", {"flip": True}, "flip: predict of the task 'pix2pix' has no such option"),
    ],
)  # fmt: skip
def test_options_are_refused_by_name(
    name: str, options: dict[str, Any], message: str, models: dict[str, Model]
) -> None:
    with pytest.raises(ConfigError, match=message):
        models[name].predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8), **options)


def test_boxes_of_a_model_and_of_its_result(folder: Path, models: dict[str, Model], monkeypatch: Any) -> None:
    detector: Any = models["detection"]
    names = tuple("person" if number == 2 else f"class {number}" for number in range(4))
    monkeypatch.setitem(vars(detector), "vocabulary", detector.vocabulary._replace(names=names))
    path = folder / "photos" / "0.png"
    objects = detector.predict(path)
    assert 2 in objects.labels
    people = models["pose"].predict(path, boxes=detector, score=0.0)
    again = models["pose"].predict(path, boxes=objects, score=0.0)
    assert 0 < len(people) <= len(objects) and same(people, again)
    corners = models["pose"].predict(path, boxes=objects.boxes[objects.labels == 2].tolist())
    np.testing.assert_allclose(np.sort(corners.boxes, axis=0), np.sort(people.boxes, axis=0), atol=1e-4)
    with pytest.raises(ConfigError, match="is a checkpoint of the task 'segmentation', expected detection"):
        models["pose"].predict(path, boxes=models["segmentation"])


def test_random_numbers_of_the_caller_go_on(models: dict[str, Model]) -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    first = models["pix2pix"].predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8))  # with dropout
    assert torch.equal(torch.rand(3), expected[0]) and (np.random.rand(3) == expected[1]).all()  # noqa: NPY002
    again = models["pix2pix"].predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert same(first, again)
    assert not same(first, models["pix2pix"].predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8), seed=1))


def test_pictures_keep_their_size_and_may_be_asked_otherwise(models: dict[str, Model]) -> None:
    picture = np.zeros((50, 70, 3), np.uint8)
    model = models["segmentation"]
    assert model.predict(picture, size=(64, 128)).size == (50, 70)
    assert model.predict(picture, size="64x128", original_size=False).size == (64, 128)
    assert model.predict(picture, size="keep").size == (50, 70)


# The task --------------------------------------------------------------------------------------------------


def test_a_model_is_the_task(models: dict[str, Model], folder: Path) -> None:
    model: Any = models["segmentation"]
    assert isinstance(model, Segmentation) and isinstance(model, torch.nn.Module) and isinstance(model, Model)
    assert not model.training and model.kind == "segmentation" and len(model.vocabulary.names) == 3
    image = torch.from_numpy(read(folder / "photos" / "0.png")).permute(2, 0, 1)[None]
    with torch.no_grad():
        np.testing.assert_array_equal(model(image)[0].numpy(), model.predict(image[0]).ids)
    assert type(dvsn.load(folder / "segmentation.ckpt")) is type(model) and as_model(model) is model
    assert model.to("cpu") is model and model.eval() is model
    model.train()
    assert (
        same(model.predict(image[0]), dvsn.load(folder / "segmentation.ckpt").predict(image[0]))
        and not model.training
    )


def test_the_module_is_one_call(models: dict[str, Model], folder: Path) -> None:
    """`dvsn.predict(...)` is load and predict, by a file or by a model, whatever is returned."""
    import dvsn.predict as module
    from dvsn.predict.options import COMMAND

    photo, file = folder / "photos" / "0.png", folder / "segmentation.ckpt"
    expected = models["segmentation"].predict(photo, size=(64, 128))
    for checkpoint in (file, str(file), models["segmentation"]):
        assert same(dvsn.predict(checkpoint, photo, size=(64, 128)), expected)
    assert [each.frame.name for each in dvsn.predict(file, [photo, photo])] == ["0", "0"]
    stream = dvsn.predict(file, folder / "photos", stream=True)
    assert same(next(stream), models["segmentation"].predict(photo)) and len(list(stream)) == 4
    blue_first = read(photo)[..., ::-1]
    assert same(dvsn.predict(file, blue_first, bgr=True), models["segmentation"].predict(read(photo)))
    assert callable(module) and module.options.COMMAND is COMMAND  # the package is still there


WRONG_CALLS = {
    "expected a path, hf://OWNER/NAME, what dvsn.train gave": lambda folder, model: dvsn.predict(
        np.zeros((8, 8, 3), np.uint8), folder / "segmentation.ckpt"
    ),
    "stays there. Load it there": lambda folder, model: dvsn.predict(model, folder / "photos", device="cpu"),
    "sise: ": lambda folder, model: dvsn.predict(model, folder / "photos", sise=(8, 8)),
    "expected a path": lambda folder, model: dvsn.load(None),
}


@pytest.mark.parametrize("said", WRONG_CALLS)
def test_a_wrong_call_is_told(said: str, models: dict[str, Model], folder: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        WRONG_CALLS[said](folder, models["segmentation"])  # type: ignore[no-untyped-call]


def test_models_are_copied_and_pickled(models: dict[str, Model]) -> None:
    model, picture = models["classification"], np.zeros((32, 32, 3), np.uint8)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (
            isinstance(copied, Model)
            and type(copied) is type(model)
            and same(copied.predict(picture), model.predict(picture))
        )


def test_frames_of_one_source_are_opened_lazily(tmp_path: Path, models: dict[str, Model]) -> None:
    """A damaged picture is named when its turn comes."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    results = models["segmentation"].predict(tmp_path, stream=True)
    assert next(results).frame.name == "a"
    with pytest.raises(DataError, match=r"b\.png: not a readable picture"):
        next(results)
    assert open_given.__module__ == "dvsn.predict.inputs"
