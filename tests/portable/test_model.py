"""Exported files asked without torch: the answers of every task are those of the checkpoint's own `predict`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from old_runs import ALLOWED, unpack
from PIL import Image

import dvsn
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.export.__main__ import COMMAND, export
from dvsn.portable.contract import read_contract
from dvsn.portable.model import Model
from dvsn.portable.result import Result

ROOT = Path(__file__).parents[2]
TASKS = ("segmentation", "pix2pix", "classification", "pose", "landmarks", "landmarks_heatmaps", "detection")
QUICK = ("segmentation", "landmarks", "detection")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
PEOPLE = ("pose", "landmarks", "landmarks_heatmaps")
DETECTED = {
    "detection": ("size=128x256",)
}  # the old detector normalises maps, which must not be a single pixel
BOXES = np.array([[10.0, 5, 90, 120], [60, 20.5, 140, 101], [-20, 30, 40, 90]])

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="pip install 'dvsn[onnx]'",
)
pytestmark = needs_onnx


def write_pictures(folder: Path) -> list[Path]:
    """A JPEG, a PNG and a JPEG that is to be turned; a PNG whose sides are no multiples."""
    random, paths = np.random.default_rng(3), []
    for number, (height, width) in enumerate(((128, 256), (128, 256), (256, 128), (150, 133))):
        coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        name = f"photo_{number + 7:03}.{'png' if number == 1 else 'jpg'}" if number < 3 else "odd_sides.png"
        path = folder / name
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 2 else 1
        Image.fromarray(picture).save(path, exif=exif)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("portable")
    write_pictures(found)
    return found


def written(name: str, folder: Path, *options: str) -> Path:
    """The checkpoint's file, exported once."""
    file = folder / f"{name}{'.' if options else ''}{'_'.join(options).replace('=', '')}.onnx"
    if not file.is_file():
        checkpoint = folder / f"{name}.ckpt"
        if not checkpoint.is_file():
            unpack(name, folder)
        export(COMMAND.parse([str(checkpoint), f"output={file}", *options]))
    return file


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file and the checkpoint of a task."""
    monkeypatch.setenv("DVSN_ALLOW", ALLOWED)
    monkeypatch.chdir(folder)

    def give(name: str, *options: str) -> tuple[Model, Any]:
        file = written(name, folder, *options)
        return Model(file, threads=1), dvsn.load(folder / f"{name}.ckpt")

    return give


def require_equal(ours: Result, theirs: Result) -> None:
    """Ids equal, points within 1e-3 pixels, boxes within 1e-2, pictures within 1; everything else the same.

    One point of a hundred may move by 0.05: where an untrained network's map is flat, float noise moves its peak.
    """
    for key in ("kind", "names", "palette", "image_id", "shown_from"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert (ours.frame.name, ours.frame.index) == (theirs.frame.name, theirs.frame.index)
    np.testing.assert_array_equal(ours.frame.picture, theirs.frame.picture)
    assert dict(ours.file_ids) == dict(theirs.file_ids)
    assert ours.skeleton == theirs.skeleton
    for key, near in {"boxes": 1e-2, "scores": 1e-4, "labels": 0, "keypoints": 1e-3, "points": 1e-3,
                      "angles_degrees": 0.1, "seen": 0}.items():  # fmt: skip
        one, other = getattr(ours, key), getattr(theirs, key)
        assert (one is None) == (other is None), key
        if one is not None:
            assert (one.shape, one.dtype) == (other.shape, other.dtype), key
            if key in ("keypoints", "points"):
                assert (np.abs(one - other) > near).mean() < 0.02, key
                near = 0.05
            np.testing.assert_allclose(one, other, rtol=0, atol=near, err_msg=key)
    for key in ("ids", "picture"):
        one, other = getattr(ours, key), getattr(theirs, key)
        assert (one is None) == (other is None), key
        if one is not None:
            assert one.shape == other.shape and one.dtype == np.uint8
            differences = np.abs(one.astype(int) - other)
            assert (differences > (key == "picture")).mean() <= (0 if key == "picture" else 1e-4)
    if ours.classes is not None:
        assert theirs.classes is not None
        assert [each[:2] for each in ours.classes] == [each[:2] for each in theirs.classes]
        np.testing.assert_allclose(
            [each.score for each in ours.classes], [each.score for each in theirs.classes], atol=1e-5
        )
    assert (ours.mask_codes is None) == (theirs.mask_codes is None)
    assert ours.to_json().keys() == theirs.to_json().keys()
    drawn = np.abs(np.asarray(ours.plot(), int) - np.asarray(theirs.plot(), int))
    assert (drawn > 1).mean() < 0.002


@pytest.mark.parametrize("name", EACH)
def test_a_file_answers_as_its_checkpoint(name: str, both: Any, folder: Path) -> None:
    model, checkpoint = both(name, *DETECTED.get(name, ()))
    paths = sorted(folder.glob("photo_*"))
    for options in [{}, *([{"boxes": BOXES}] if name in PEOPLE else [])]:
        given = [str(path) for path in paths]
        theirs = checkpoint.predict(given, **options)
        ours = model(given, **options)
        assert [each.image_id for each in theirs] == ([None] * 3 if theirs[0].image_id is None else [7, 8, 9])
        for one, other in zip(ours, theirs, strict=True):
            require_equal(one, other)
    if name in PEOPLE:
        assert len(ours[0]) >= 1


@pytest.mark.parametrize("name", ["segmentation", pytest.param("pix2pix", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", ["keep", "64x96"])
def test_other_sizes(name: str, size: str, both: Any, folder: Path) -> None:
    model, checkpoint = both(name, *(["size=dynamic"] if name != "segmentation" else []))
    path = folder / "odd_sides.png"
    require_equal(model(path, size=size), checkpoint.predict(path, size=size))
    ours = model(path, size=(64, 96), original_size=False)
    require_equal(ours, checkpoint.predict(path, size=(64, 96), original_size=False))
    assert ours.size == (64, 96)


def test_pictures_of_memory(both: Any, folder: Path) -> None:
    model, checkpoint = both("segmentation")
    random = np.random.default_rng(0)
    with Image.open(folder / "photo_007.jpg") as opened:
        opened.load()
        require_equal(model(opened), checkpoint.predict(opened))
    array = random.integers(0, 256, (64, 64, 3), np.uint8)
    for given in (array, array[..., 0], array.astype(np.float32) / 255, array.astype(np.uint16) * 257):
        require_equal(model(given), checkpoint.predict(given))
    require_equal(model(array, bgr=True), checkpoint.predict(array, bgr=True))
    for one, other in zip(model([array, array[:32]]), checkpoint.predict([array, array[:32]]), strict=True):
        require_equal(one, other)
    assert len(model(np.stack([array, array]))) == 2
    stream = model(each for each in (array, array))
    assert [each.frame.name for each in stream] == ["picture_1", "picture_2"]
    assert next(model(array, stream=True)).ids is not None


def test_boxes_of_another_result(both: Any, folder: Path) -> None:
    model, checkpoint = both("landmarks")
    first = model(folder / "photo_008.png", boxes=BOXES)
    require_equal(
        model(folder / "photo_008.png", boxes=first, score=0.0, padding=1.1),
        checkpoint.predict(folder / "photo_008.png", boxes=first, score=0.0, padding=1.1),
    )
    assert len(model(folder / "photo_008.png", boxes=np.zeros((0, 4)))) == 0


def test_a_fixed_batch_is_filled_up(both: Any, folder: Path) -> None:
    model, checkpoint = both("landmarks", "batch=2")
    path = folder / "photo_007.jpg"
    require_equal(model(path, boxes=BOXES), checkpoint.predict(path, boxes=BOXES))


def test_objects_of_a_score_and_of_the_file_by_torch(both: Any, folder: Path) -> None:
    """All objects come through, not only the first one."""
    model, checkpoint = both("detection", *DETECTED["detection"])
    path = folder / "photo_007.jpg"
    wanted = checkpoint.predict(path, score=0.0)
    assert len(wanted) > 1
    require_equal(model(path, score=0.0), wanted)
    require_equal(dvsn.load(model.engine.path).predict(path, score=0.0), wanted)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"top": 3}, "top: the task 'segmentation' has no such option"),
        ({"sise": "keep"}, "Did you mean 'size'"),
        ({"size": "big"}, "size: found 'big'"),
        ({"max_pixels": 0}, "max_pixels"),
    ],
)
def test_wrong_options(given: dict[str, Any], said: str, both: Any, folder: Path) -> None:
    model, _ = both("segmentation")
    with pytest.raises(ConfigError, match=said):
        model(folder / "photo_007.jpg", **given)


def test_wrong_pictures_and_files(both: Any, folder: Path, tmp_path: Path) -> None:
    model, _ = both("segmentation")
    with pytest.raises(DataError, match=r"nowhere.jpg: cannot be read"):
        model("nowhere.jpg")
    with pytest.raises(DataError, match="found dict"):
        model({})
    with pytest.raises(DataError, match="found int"):
        model([3])
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="not a readable picture"):
        model(tmp_path / "text.png")
    with pytest.raises(DataError, match="max_pixels"):
        model(folder / "photo_007.jpg", max_pixels=100)
    with pytest.raises(CheckpointError, match="no such file"):
        Model(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="threads"):
        Model(model.engine.path, threads=0)
    with pytest.raises(CheckpointError, match="raw=true"):
        read_contract({**model.engine.manifest, "raw": True}, tmp_path)
    with pytest.raises(CheckpointError, match="'depth'"):
        read_contract({**model.engine.manifest, "answer": "depth"}, tmp_path)
    with pytest.raises(CheckpointError, match="not one of dvsn"):
        read_contract({**model.engine.manifest, "palette": [3]}, tmp_path)
    with pytest.raises(CheckpointError, match="of another task: it answers with ids"):
        read_contract({**model.engine.manifest, "answer": "classes", "task": "classification"}, tmp_path)
    with pytest.raises(ConfigError, match="providers: found 'AbacusExecutionProvider'"):
        Model(model.engine.path, providers=["AbacusExecutionProvider"])


def test_a_picture_of_other_sides_than_a_file_takes(both: Any, folder: Path) -> None:
    model, _ = both("segmentation", "size=128x256")
    with pytest.raises(ConfigError, match=r"takes uint8 anyx3x128x256 .* found uint8 1x3x64x64"):
        model(folder / "photo_007.jpg", size="64x64")


def test_bound_inputs_and_outputs(both: Any, folder: Path) -> None:
    """The same answers, and each its own memory: a second question leaves the first answer as it was."""
    for name, options in (("segmentation", []), ("landmarks", ["batch=2"])):
        model, _ = both(name, *options)
        bound = Model(model.engine.path, threads=1, providers=["CPUExecutionProvider"], binding=True)
        first, second = (
            bound(folder / f"photo_00{number}.{end}") for number, end in ((7, "jpg"), (8, "png"))
        )
        require_equal(first, model(folder / "photo_007.jpg"))
        require_equal(second, model(folder / "photo_008.png"))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="pip install 'dvsn[openvino]'")
def test_openvino_with_bound_outputs(folder: Path) -> None:
    file = folder / "landmarks.xml"
    export(COMMAND.parse([str(unpack("landmarks", folder)), f"output={file}", "format=openvino", "batch=1"]))
    plain, bound = Model(file, threads=1), Model(file, threads=1, binding=True)
    paths = [str(folder / "photo_007.jpg"), str(folder / "photo_008.png")]
    for one, other in zip(bound(paths), plain(paths), strict=True):
        require_equal(one, other)
    for option in ({"small": True}, {"providers": ["CPUExecutionProvider"]}):
        with pytest.raises(ConfigError, match=r"is an option of ONNX Runtime"):
            Model(file, **option)


@pytest.mark.parametrize("name", EACH)
def test_no_torch_is_in_the_process(name: str, both: Any, folder: Path) -> None:
    model, _ = both(name, *DETECTED.get(name, ()))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in ('torch', 'torchvision', 'pytorch_lightning', 'albumentations', 'scipy', 'hydra', 'omegaconf',\n"
        "             'pycocotools'):\n"
        "    sys.modules[name] = None\n"
        "from dvsn.portable import Model\n"
        "result = Model(sys.argv[2], threads=1)(sys.argv[3])\n"
        "result.plot(); result.to_json(); print(result)"
    )
    arguments = [sys.executable, "-c", code, str(ROOT), str(model.engine.path), str(folder / "photo_007.jpg")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout.startswith(f"Result({model.contract.kind}, 'photo_007'"), done.stderr
