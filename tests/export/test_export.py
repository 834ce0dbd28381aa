"""Exported files answer as the network does: every task by every format, at two sides and two batches."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from old_runs import ALLOWED, unpack
from PIL import Image

from dvsn.engine.evaluation import default_output
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.export.__main__ import COMMAND, export
from dvsn.export.graph import example, example_inputs, graph_of
from dvsn.export.runtimes import open_runtime
from dvsn.export.samples import Samples
from dvsn.portable.engine import open_engine
from dvsn.tasks.exported import answer_by, open_task
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint

TASKS = ("segmentation", "pix2pix", "classification", "pose", "landmarks", "landmarks_heatmaps", "detection")
FORMATS = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "pt2": "torch",
    "executorch": "executorch",
    "safetensors": "torch",
}
SIDES = {"segmentation": (192, 256), "pix2pix": (64, 96), "classification": (16, 16), "detection": (128, 256)}
NEAR = {
    "points": 0.05,
    "confidence": 1e-3,
    "picture": 1 / 255,
    "probabilities": 1e-4,
    "boxes": 0.1,
    "scores": 1e-3,
}


def asked(checkpoint: Path, output: Path, *options: str) -> Path:
    """Export as the command line does."""
    return export(COMMAND.parse([str(checkpoint), f"output={output}", *options]))


def need(kind: str) -> None:
    if importlib.util.find_spec(FORMATS[kind]) is None or (
        kind in ("onnx", "openvino") and importlib.util.find_spec("onnxscript") is None
    ):
        pytest.skip(f"{FORMATS[kind]} is not installed: pip install 'dvsn[onnx,openvino,executorch]'")


def detector(folder: Path) -> Path:
    """The old detector for larger pictures: as it is, a square one becomes maps of one pixel, which cannot be normalised."""
    checkpoint = unpack("detection", folder)
    content = torch.load(checkpoint, weights_only=False)
    content["dvsn"]["recipe"]["network"] |= {"min_size": 160, "max_size": 320}
    torch.save(content, checkpoint)
    return checkpoint


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_a_file_answers_as_the_network(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes on 99.9 % of pixels, points within 0.05 pixels, boxes within 0.1 with equal labels, probabilities within 1e-4,
    pictures within 1/255; at two sides, batches of 1 and of 4."""
    need(kind)
    monkeypatch.setenv("DVSN_ALLOW", ALLOWED)
    monkeypatch.chdir(tmp_path)
    checkpoint = unpack(name, tmp_path) if name != "detection" else detector(tmp_path)
    fixed = kind == "executorch"
    sides = SIDES.get(name)
    free = sides is not None and name != "classification" and not fixed
    options = [
        f"format={kind}",
        f"size={'dynamic' if free else 'x'.join(map(str, sides)) if sides else 'recipe'}",
    ]
    options += ["batch=1"] if fixed or name == "detection" else []
    suffix = {
        "onnx": ".onnx",
        "openvino": ".xml",
        "pt2": ".pt2",
        "executorch": ".pte",
        "safetensors": ".safetensors",
    }[kind]
    if name == "detection" and kind in ("pt2", "executorch"):
        with pytest.raises(ConfigError, match="format=onnx"):
            asked(checkpoint, tmp_path / f"m{suffix}", *options)
        assert not list(tmp_path.glob("m.*"))
        return
    file = asked(checkpoint, tmp_path / f"m{suffix}", *options)
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["task"] == load(checkpoint).kind
    assert len(about["checksum"]) == 64
    task: Any = load(checkpoint)
    graph = graph_of(task, fold=False)
    ask = open_runtime(file, graph)
    own = tuple(about["input"]["shape"][2:]) if None not in about["input"]["shape"][2:] else sides
    assert own is not None
    shapes = [(1, own), *([(4, own)] if not fixed and name != "detection" else [])]
    shapes += [(2 if name != "detection" else 1, (own[0] + 64, own[1] - 32))] if free else []
    assert len({size for _, size in shapes}) == 1 + free
    for number, (batch, size) in enumerate(shapes):
        given = example_inputs(graph, example(task, batch, size, seed=number))
        with torch.no_grad():
            expected, found = graph(*given), ask(*given)
        for output, want, have in zip(graph.outputs, expected, found, strict=True):
            assert want.shape == have.shape
            assert want.dtype == have.dtype
            if output.name == "ids":
                assert float((want == have).float().mean()) >= 0.999
            elif not want.is_floating_point():
                assert torch.equal(want, have)
            else:
                assert torch.allclose(want, have, rtol=0, atol=NEAR[output.name])


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter as an ONNX file; its checkpoint lies beside it."""
    need("onnx")
    folder = tmp_path_factory.mktemp("exported")
    return asked(unpack("segmentation", folder), folder / "segmentation.onnx")


def test_a_file_of_onnx_says_what_it_is(pixels: Path) -> None:
    engine = open_engine(pixels)
    about = engine.manifest
    assert about == json.loads(pixels.with_suffix(".json").read_text()) | {"check": None}
    assert about["task"] == "segmentation"
    assert about["input"]["shape"] == [None, 3, None, None]
    assert about["input"]["colours"] == "RGB"
    assert about["outputs"][0]["name"] == "ids"
    assert len(about["classes"]) == len(about["palette"])
    content = pixels.read_bytes()
    for leak in (b"site-packages", str(Path.cwd()).encode(), b"dvsn/networks/"):
        assert leak not in content


def test_the_task_of_a_file_answers_as_the_checkpoint(pixels: Path) -> None:
    image = example(load(pixels.with_suffix(".ckpt")), 2, (96, 192))
    assert torch.equal(open_task(pixels)(image), load(pixels.with_suffix(".ckpt"))(image))


def test_a_recipe_that_resizes_is_exported_with_it(tmp_path: Path) -> None:
    """Pictures of any size to a fixed one; by their shorter side only where both sides are known."""
    need("onnx")
    content = read_checkpoint(unpack("segmentation", tmp_path))
    content["dvsn"]["recipe"]["inference"] = {"resize": [64, 128]}
    torch.save(content, tmp_path / "resized.ckpt")
    task: Any = load(tmp_path / "resized.ckpt")
    image = example(task, 2, (96, 160))
    graph = torch.export.export(graph_of(task), (image,)).module()
    assert torch.equal(graph(image)[0], task(image))
    assert not torch.equal(task(image), load(tmp_path / "segmentation.ckpt")(image))
    content["dvsn"]["recipe"]["inference"] = {"resize": 64}
    torch.save(content, tmp_path / "shorter.ckpt")
    with pytest.raises(
        ConfigError, match=r"a shorter side of 64 .* Give size=HEIGHTxWIDTH, such as size=64x64"
    ):
        asked(tmp_path / "shorter.ckpt", tmp_path / "shorter.onnx")


def test_landmarks_averaged_with_the_mirror_take_the_offset_of_their_crop(tmp_path: Path) -> None:
    """Points of the mirror lie width - 1 + 2 offset to the right of their own x, as in evaluation."""
    need("onnx")
    checkpoint = unpack("landmarks", tmp_path)
    file = asked(checkpoint, tmp_path / "m.onnx", "mirror=true")
    task: Any = load(checkpoint)
    task.flip_test = True
    image, offset = example(task, 3, (32, 32)), torch.tensor([0.0, 0.25, 0.4])
    expected, _ = task.estimate(image, offset)
    found, _ = open_task(file).estimate(image, offset)  # type: ignore[attr-defined]
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(found, task.estimate(image, offset + 0.1)[0], rtol=0, atol=1e-2)


def test_a_file_of_landmarks_is_measured_by_its_points_alone(tmp_path: Path) -> None:
    """Not by the network of the rebuilt task, which would tell the head's angles too, but has no trained weights."""
    task: Any = load(unpack("landmarks", tmp_path))
    task.network.auxiliary = torch.nn.Identity()
    answer = {"points": np.full((2, 68, 2), 3, np.float32), "confidence": np.ones((2, 68), np.float32)}
    engine: Any = SimpleNamespace(path="m.onnx", names=list(answer), ask_all=lambda image, offset: answer)
    task.use_metrics()
    assert set(task.metrics) == {"score", "angles"}
    answer_by(task, engine)
    assert set(task.metrics) == {"score"}
    task.use_metrics()
    assert set(task.metrics) == {"score"}
    image = example(task, 2, (32, 32))
    assert (task(image)[..., :2] == 3).all()
    with pytest.raises(CheckpointError, match=r"m\.onnx: the task 'landmarks' asks its network"):
        task.respond(image, heads=True)


def test_an_exported_file_is_measured_beside_its_checkpoint() -> None:
    """The two have one stem, and neither evaluation replaces the other."""
    names = [
        default_output(Path(f"runs/a/checkpoints/best{ending}"), "val").name for ending in (".ckpt", ".onnx")
    ]
    assert names == ["best_val", "best_onnx_val"]


def test_a_manifest_of_another_task(pixels: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(pixels)
    about = json.loads(model.metadata_props[0].value)
    other = asked(unpack("classification", tmp_path), tmp_path / "classes.onnx")
    recipe = json.loads(other.with_suffix(".json").read_text())
    model.metadata_props[0].value = json.dumps(about | {"recipe": recipe["recipe"], "data": recipe["data"]})
    onnx.save(model, tmp_path / "mixed.onnx")
    with pytest.raises(CheckpointError, match="of another task: it answers with ids"):
        open_task(tmp_path / "mixed.onnx")


def test_norms_are_folded_for_real(pixels: Path) -> None:
    import onnx

    model = onnx.load(pixels)
    networks = load(pixels.with_suffix(".ckpt")).network
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in networks.modules())
    left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    assert left <= norms // 4  # those before an activation, with no convolution in front


def test_maps_leave_their_blocks_before_they_are_enlarged(pixels: Path) -> None:
    """See `dvsn.export.formats.end_blocks`; tests/portable/test_alone.py measures the memory."""
    import onnx

    graph = onnx.load(pixels).graph
    *_, last = (node for node in graph.node if node.op_type == "Resize")
    (maker,) = (node for node in graph.node if last.input[0] in node.output)
    assert maker.op_type == "Max"
    assert maker.input[0] == maker.input[1]


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight is changed between export and check: the module that holds it is named, and nothing is left but what was
    there before."""
    need("onnx")
    (tmp_path / "broken.onnx").write_bytes(b"an older one")
    from onnx import numpy_helper

    from dvsn.export import formats

    made = formats.onnx_model

    def broken(graph: Any, shape: Any) -> Any:
        model = made(graph, shape)
        for weight in model.graph.initializer:
            if weight.name.endswith("final_layer.conv1.weight"):
                weight.CopyFrom(numpy_helper.from_array(-3 * numpy_helper.to_array(weight), weight.name))
                return model
        raise AssertionError("no such weight")

    monkeypatch.setattr(formats, "onnx_model", broken)
    with pytest.raises(CheckpointError, match=r"final_layer\.conv1"):
        asked(unpack("segmentation", tmp_path), tmp_path / "broken.onnx", "overwrite=true")
    assert {file.name for file in tmp_path.iterdir()} == {"segmentation.ckpt", "broken.onnx"}
    assert (tmp_path / "broken.onnx").read_bytes() == b"an older one"


def test_wrong_inputs_are_refused_in_words(pixels: Path) -> None:
    engine = open_engine(pixels)
    for image, word in (
        (np.zeros((1, 3, 64, 64), np.float32), "uint8"),
        (np.zeros((1, 1, 64, 64), np.uint8), "channels"),
    ):
        with pytest.raises(ConfigError, match=word):
            engine(image)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an ONNX file"),
        (b"PK\x03\x04", "not an ONNX file"),
        (b"\x08garbage", "cannot open"),
        (None, "no such file"),
    ],
)
def test_files_of_another_origin(content: bytes | None, word: str, tmp_path: Path) -> None:
    need("onnx")
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        open_engine(path)


def test_an_opset_that_the_runtime_does_not_know(pixels: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(pixels)
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match=r"of opset 99, which ONNX Runtime [\d.]+ does not know"):
        open_engine(tmp_path / "new.onnx")


def test_an_onnx_file_without_a_manifest(tmp_path: Path) -> None:
    need("onnx")
    import onnx
    from onnx import helper

    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", info[:1], info[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        tmp_path / "a.onnx",
    )
    with pytest.raises(CheckpointError, match="no manifest"):
        open_engine(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["format=tflite"], "format"),
        (["format=pt2", "precision=int8"], "precision"),
        (["size=0x64"], "size"),
        (["size=big"], "size"),
        (["batch=0"], "batch"),
        (["pictures=nowhere"], "pictures"),
        (["output=m.txt"], "output"),
        (["test_dropout=false"], "test_dropout"),
        (["output=segmentation.ckpt/m.onnx"], "output: .* cannot be written: Not a directory"),
        (["output=/proc/dvsn/m.onnx"], "output: .* cannot be written"),
    ],
)
def test_wrong_options_are_refused_in_words(
    options: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnx")
    monkeypatch.chdir(tmp_path)
    checkpoint = unpack("segmentation", tmp_path)
    with pytest.raises(ConfigError, match=word):
        export(COMMAND.parse([str(checkpoint), *options]))
    assert {file.name for file in tmp_path.iterdir()} == {"segmentation.ckpt"}


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    checkpoint = unpack("segmentation", tmp_path)
    for missing, options, line in (
        ("onnxscript", [], r"pip install 'dvsn\[onnx\]'"),
        ("openvino", ["format=openvino"], r"pip install 'dvsn\[openvino\]'"),
        ("executorch", ["format=executorch"], r"pip install 'dvsn\[executorch\]'"),
        ("nncf", ["precision=int8"], r"pip install 'dvsn\[onnx,openvino\]'"),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=missing: None if name == gone else found(name)
        )
        with pytest.raises(ConfigError, match=line):
            export(COMMAND.parse([str(checkpoint), *options]))
    assert {file.name for file in tmp_path.iterdir()} == {"segmentation.ckpt"}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [("notes.txt", b"hello", "holds no picture"), ("notes.png", b"hello", "not a readable picture")],
)
def test_a_folder_that_nothing_can_be_calibrated_on(
    name: str, content: bytes, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, or of another kind; found before anything is exported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / name).write_bytes(content)
    checkpoint = unpack("segmentation", tmp_path)
    with pytest.raises(DataError, match=word):
        export(COMMAND.parse([str(checkpoint), "format=pt2", "pictures=given"]))
    assert {file.name for file in tmp_path.iterdir()} == {"segmentation.ckpt", "given"}


def test_pictures_do_not_calibrate_a_task_that_takes_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "photo.png")
    task = SimpleNamespace(data_recipe={}, input_classes=5)
    with pytest.raises(DataError, match=r"photo.png"):
        Samples(task, pictures=tmp_path).images(3, "train")
