"""OMGD's terms of a VGG: against torchvision's own layers, and what the file may be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from dvsn.distill.method import Method, View
from dvsn.distill.omgd import GeneratorToGenerator, gram
from dvsn.distill.vgg import Vgg
from dvsn.engine import teaching
from dvsn.errors import CheckpointError, ConfigError
from tests.support.distill_stubs import fit, prepare, save_teacher
from tests.support.distilling import assert_equals, sides, total, views
from tests.support.tiny import TINY, composed, write_pairs

PICTURES: dict[str, Any] = {"kind": "image", "outputs": ((3, 16, 24), (3, 16, 24))}
RELUS = {"VGG-16": (3, 8, 15, 22), "VGG-19": (3, 8, 17, 26)}  # torchvision's numbers: the last of each block
WHERE = "distill.omgd.method.features"


def layers(name: str) -> nn.Sequential:
    torch.manual_seed(5)
    return make_layers(cfgs["D" if name == "VGG-16" else "E"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Torchvision's networks with random weights, as files; one with the class layers that a published file has."""
    folder = tmp_path_factory.mktemp("vgg")
    result = {}
    for name in RELUS:
        state = {f"features.{key}": value for key, value in layers(name).state_dict().items()}
        state |= {"classifier.6.bias": torch.zeros(1000)} if name == "VGG-16" else {}
        result[name] = folder / f"{name}.pth"
        torch.save(state, result[name])
    return result


def seen(name: str, picture: Tensor) -> list[Tensor]:
    """By torchvision's layers, one after the other."""
    found = []
    for number, layer in enumerate(layers(name)[: RELUS[name][-1] + 1].to(picture.dtype)):
        picture = layer(picture.clone())  # its ReLUs work in place
        if number in RELUS[name]:
            found.append(picture)
    return found


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", RELUS)
def test_style_and_features(name: str, normalise: bool, files: dict[str, Path]) -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        plain = GeneratorToGenerator(**given)
        value = total(plain(student, teacher, {}))
        pictures = [(view.output + 1) / 2 for view in (student, teacher)]
        if normalise:
            pictures = [(picture - mean) / std for picture in pictures]
        mine, theirs = (seen(name, picture) for picture in pictures)
        for a, b in zip(mine, theirs, strict=True):
            n, c, h, w = a.shape
            grams = [torch.einsum("nihw,njhw->nij", x, x) / (c * h * w) for x in (a, b)]
            value = value + 300 * (grams[0] - grams[1]).abs().sum() / (n * c * c)
        return value + 7 * (mine[1] - theirs[1]).abs().mean()

    given = sides([], [], **PICTURES)
    options = {"features": str(files[name]), "normalise": normalise}
    method = GeneratorToGenerator(**given, **options, style_weight=300.0, feature_weight=7.0)
    student, teacher = views(given, 2, scale=0.3)
    # Two ReLUs may fall on either side of 0 in float32, which moves a gradient by more than rounding.
    assert_equals(method, formula, student, teacher, single=1e-3)
    weighted, usual = method(student, teacher, {}), GeneratorToGenerator(**given, **options)
    terms = usual(student, teacher, {})
    assert list(terms) == ["omgd_structure", "omgd_smoothness", "omgd_style", "omgd_feature"]
    torch.testing.assert_close(terms["omgd_style"], weighted["omgd_style"] * 1e4 / 300)
    torch.testing.assert_close(terms["omgd_feature"], weighted["omgd_feature"] * 10 / 7)
    same = usual(teacher, teacher, {})
    assert same["omgd_style"] == same["omgd_feature"] == 0


def test_gram_by_hand() -> None:
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of two pixels
    assert torch.equal(gram(feature), torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4)


def test_it_is_no_part_of_the_method(files: dict[str, Path]) -> None:
    given = sides([(4, 2, 2)], [(6, 2, 2)], **PICTURES)
    plain, method = (GeneratorToGenerator(**given, features=f) for f in (None, str(files["VGG-16"])))
    assert method.state_dict().keys() == plain.state_dict().keys()
    assert [p.shape for p in method.parameters()] == [p.shape for p in plain.parameters()]
    assert not list(method.buffers()) and method.vgg is not None
    assert copy.deepcopy(method).vgg is method.vgg
    student, teacher = views(given, 1)
    weights = [w for block in method.vgg.blocks for pair in block for w in pair]
    assert len(weights) == 20 and {w.dtype for w in weights} == {torch.float32}
    total(method.double()(student, teacher, {})).backward()
    assert not any(w.requires_grad for block in method.vgg.blocks for pair in block for w in pair)


def test_memory_of_a_picture_is_its_own(files: dict[str, Path]) -> None:
    """The backward pass needs the student's activations, once, and of the teacher only what it is compared with."""
    vgg = Vgg(str(files["VGG-16"]), where=WHERE, normalise=False)
    method: Method = GeneratorToGenerator(**sides([], [], **PICTURES), features=str(files["VGG-16"]))
    method.vgg = vgg  # type: ignore[assignment]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    mine, theirs = (torch.rand(2, 3, 64, 64) for _ in range(2))
    weights = {w.untyped_storage().data_ptr() for block in vgg.blocks for pair in block for w in pair}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total(method.perceived(vgg, mine.requires_grad_(), theirs))  # type: ignore[operator]
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    unit = 2 * 64 * 64 * 4 * 64  # of 64 channels as large as the pictures, in bytes
    convolutions = 2 + 2 / 2 + 3 / 4 + 3 / 8
    poolings = (1 + 2) * (1 / 4 + 1 / 8 + 1 / 16)  # and their places, of 8 bytes each
    grams = 2 * 2 * 4 * sum(c * c for c in (64, 128, 256, 512)) / unit
    assert 2 * unit < activations < unit * (convolutions + poolings + grams + 1 / 2)


def save(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_files_that_do_not_fit(files: dict[str, Path], tmp_path: Path) -> None:
    given = sides([], [], **PICTURES)

    def refused(path: str, error: type[Exception], *, given: Any = given) -> str:
        with pytest.raises(error) as found:
            GeneratorToGenerator(**given, features=path)
        text = str(found.value)
        assert text.startswith(WHERE) and "\n" not in text
        return text

    text = refused(str(tmp_path / "none.pth"), ConfigError)
    assert "no file at" in text and "vgg16-397923af.pth" in text
    state = torch.load(files["VGG-16"], weights_only=True)
    text = refused(
        save({k: v for k, v in state.items() if k != "features.5.bias"}, tmp_path / "a.pth"), CheckpointError
    )
    assert "missing: features.5.bias (128,)" in text
    other = state | {"features.7.weight": torch.zeros(64, 128, 3, 3)}
    text = refused(save(other, tmp_path / "b.pth"), CheckpointError)
    assert "features.7.weight is (64, 128, 3, 3), expected (128, 128, 3, 3)" in text
    normed = {f"features.{key}": value for key, value in make_layers(cfgs["A"], True).state_dict().items()}
    assert "without batch norm" in refused(save(normed, tmp_path / "c.pth"), CheckpointError)
    assert "without batch norm" in refused(
        save({"weight": torch.zeros(1)}, tmp_path / "d.pth"), CheckpointError
    )
    assert "could run code" in refused(save({"features.0.weight": Path}, tmp_path / "e.pth"), CheckpointError)
    whole = files["VGG-16"].read_bytes()
    (tmp_path / "f.pth").write_bytes(whole[: len(whole) // 2])
    assert "not a readable checkpoint" in refused(str(tmp_path / "f.pth"), CheckpointError)
    small = sides([], [], kind="image", outputs=((3, 4, 16), (3, 4, 16)))
    assert "sides of 8 or more" in refused(str(files["VGG-16"]), ConfigError, given=small)
    grey = sides([], [], kind="image", outputs=((1, 16, 16), (1, 16, 16)))
    assert "RGB" in refused(str(files["VGG-16"]), ConfigError, given=grey)


def test_a_run_says_what_it_has(files: dict[str, Path], tmp_path: Path) -> None:
    """Trains a generator; the file's weights are neither in the optimiser nor in what is saved."""
    root = write_pairs(tmp_path / "pairs")
    options = [*TINY, "network.norm=batch", "data.batch_size=2", "trainer.max_epochs=1", f"data.root={root}"]
    options += ["trainer.limit_train_batches=2", "trainer.limit_val_batches=0", "distill=omgd"]
    teacher = save_teacher(composed([*options[:-1], "network.width=6"], tmp_path), tmp_path / "teacher.ckpt")
    options.append(f"teacher={teacher}")
    said = {}
    for name, path in (("with", files["VGG-16"]), ("without", "null")):
        config = composed([*options, f"distill.omgd.method.features={path}"], tmp_path / name)
        task, _ = prepare(config)
        said[name] = [text for title, text in teaching.describe(task.distiller) if text.startswith("omgd: ")]
    assert said == {
        "with": ["omgd: style and feature terms by VGG-16"],
        "without": [
            "omgd: without its style and feature terms, which want a VGG: distill.omgd.method.features=FILE"
        ],
    }
    config = composed([*options, f"distill.omgd.method.features={files['VGG-16']}"], tmp_path / "with")
    task, trainer, saved = fit(config)
    logged = {name.removeprefix("train/") for name in trainer.callback_metrics}
    assert {"omgd_style", "omgd_feature"} <= logged
    ours = sum(p.numel() for p in [*task.network.parameters(), *task.distiller.parameters()])
    assert sum(p.numel() for group in trainer.optimizers[1].param_groups for p in group["params"]) == ours
    assert not any(tuple(value.shape) == (512, 256, 3, 3) for value in saved["state_dict"].values())
    assert F.l1_loss(task.distiller.method("omgd").vgg.blocks[0][0][0], layers("VGG-16")[0].weight) == 0
