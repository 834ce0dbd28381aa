"""Encoders of timm: maps, keys, published files and refusals, on timm's tiny test models with random weights."""

from __future__ import annotations

import builtins
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dvsn import weights
from dvsn.config.build import build
from dvsn.distill.taps import Taps
from dvsn.engine.initial_weights import contents, start_from
from dvsn.errors import CheckpointError, ConfigError, UserError
from dvsn.networks.detectors import Detector, ResNetPyramid
from dvsn.networks.folding import fold_batch_norms, relative_error
from dvsn.networks.simple_baseline import SimpleBaseline
from dvsn.networks.timm_classifier import TimmClassifier
from dvsn.networks.timm_detector import TimmDetector, TimmPyramid
from dvsn.networks.timm_encoder import TimmEncoder
from dvsn.networks.timm_generator import TimmGenerator
from dvsn.networks.timm_keypoints import TimmLandmarks, TimmPose
from dvsn.networks.timm_segmenter import TimmSegmenter
from tests.support.fake_hub import Hub, hub_fixture  # noqa: F401
from tests.support.networks import distance, parameters_of

timm: Any = pytest.importorskip("timm", reason="timm is not installed: pip install 'dvsn[timm]'")

FIVE = (2, 4, 8, 16, 32)
MODELS = {
    "test_resnet": (FIVE, (32, 32, 48, 192, 96)),
    "test_efficientnet": (FIVE, (16, 24, 32, 48, 64)),
    "test_convnext": (FIVE[1:], (24, 32, 48, 64)),
    "test_vit": (FIVE[1:], (16, 32, 64, 64)),
    "mobilenetv3_small_050": (FIVE, (16, 8, 16, 24, 288)),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# Maps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_maps_are_those_of_timm(name: str) -> None:
    encoder = TimmEncoder(name=name).eval()
    strides, widths = MODELS[name]
    assert (encoder.strides, encoder.widths, encoder.multiple, encoder.fixed) == (strides, widths, 32, None)
    image = torch.randn(1, 3, 64, 96)
    maps = encoder(image)
    assert [tuple(each.shape) for each in maps] == [
        (1, width, 64 // stride, 96 // stride) for stride, width in zip(strides, widths, strict=True)
    ]
    own = timm.create_model(name, pretrained=False, features_only=True).eval()
    assert {key.removeprefix("model.") for key in encoder.model.state_dict()} == {
        key.removeprefix("model.") for key in own.state_dict()
    }
    extra = 0 if encoder.pyramid is None else parameters_of(encoder.pyramid)
    more = {"dynamic_img_size": True} if name == "test_vit" else {}
    own = timm.create_model(name, pretrained=False, features_only=True, **more).eval()
    assert parameters_of(encoder) - extra == parameters_of(own)
    own.load_state_dict(encoder.model.state_dict())
    found = own(image)
    if encoder.pyramid is None:
        assert all(distance(a, b) == 0 for a, b in zip(maps, found, strict=True))
    else:
        assert distance(maps[2], found[-1]) == 0  # of stride 16, the transformer's own
        assert torch.equal(maps[3], nn.functional.max_pool2d(found[-1], 2))


@pytest.mark.slow
@torch.no_grad()
def test_maps_of_channels_last_are_turned() -> None:
    encoder = TimmEncoder(name="swin_tiny_patch4_window7_224", size=[64, 64]).eval()
    assert encoder.channels_last and encoder.fixed == (64, 64)
    maps = encoder(torch.randn(1, 3, 64, 64))
    assert [each.shape[1:] for each in maps] == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)]
    raw = encoder.model.eval()(torch.ones(1, 3, 64, 64))
    assert torch.equal(encoder(torch.ones(1, 3, 64, 64))[1][0, :, 3, 5], raw[1][0, 3, 5])


@torch.no_grad()
def test_maps_that_a_model_makes_too_small_are_enlarged() -> None:
    with torch.device("meta"):
        encoder = TimmEncoder(name="inception_v4").eval()
        maps = encoder(torch.empty(1, 3, 96, 160))
    assert [tuple(each.shape[2:]) for each in maps] == [(48, 80), (24, 40), (12, 20), (6, 10), (3, 5)]


def test_nothing_is_in_place_and_every_stage_is_tapped() -> None:
    network = TimmSegmenter(classes=3, name="test_efficientnet", channels=8).eval()
    assert not any(getattr(module, "inplace", False) for module in network.encoder.modules())
    assert network.taps == tuple(f"encoder.stages.{number}" for number in (1, 2, 3, 4))
    taps = Taps(network, network.taps)
    taps.install()
    with torch.no_grad(), taps:
        network(torch.randn(1, 3, 64, 64))
    assert [tuple(each.shape[1:]) for each in taps.take().values()] == [
        (24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2),
    ]  # fmt: skip


@torch.no_grad()
def test_norms_with_an_activation_keep_it_when_they_are_folded() -> None:
    network = TimmClassifier(classes=4, name="test_efficientnet").eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    image = torch.randn(2, 3, 64, 64)
    folded = fold_batch_norms(network, image.shape)
    assert len(folded.folded) > 10 and not folded.kept
    assert relative_error(folded.network(image), network(image)) < 1e-5


# Networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decoder", "stride"), [("fpn", 4), ("unet", 2), ("upernet", 4)])
@torch.no_grad()
def test_segmenters_take_any_size(decoder: Any, stride: int) -> None:
    network = TimmSegmenter(classes=5, name="test_resnet", decoder=decoder, channels=16).eval()
    assert network.stride == stride
    for height, width in ((64, 96), (75, 101), (33, 31)):
        logits = network(torch.randn(1, 3, height, width)).logits
        assert logits.shape == (1, 5, -(-height // stride), -(-width // stride))
    image = torch.randn(1, 3, 50, 64)
    padded = nn.functional.pad(image, (0, 0, 0, 14))
    assert torch.equal(network(image).logits, network(padded).logits[..., : -(-50 // stride), :])


@torch.no_grad()
def test_a_transformer_segments_pictures_of_any_size_or_of_its_own() -> None:
    free = TimmSegmenter(classes=5, name="test_vit", channels=8).eval()
    assert free(torch.randn(1, 3, 70, 90)).logits.shape == (1, 5, 18, 23)
    own = TimmSegmenter(classes=5, name="test_vit", channels=8, size=[64, 96]).eval()
    assert own(torch.randn(1, 3, 64, 96)).logits.shape == (1, 5, 16, 24) and own.multiple == 1
    with pytest.raises(
        UserError, match=r"found pictures of 64 x 64.*test_vit takes 64 x 96 only.*network.size"
    ):
        own(torch.randn(1, 3, 64, 64))


def test_heatmaps_and_points() -> None:
    pose = TimmPose(joints=5, name="test_resnet", deconvolution_width=8, deconvolutions=2)
    assert pose(torch.randn(2, 3, 64, 96)).shape == (2, 5, 8, 12) and pose.stride == 8
    faces = TimmLandmarks(landmarks=6, name="test_resnet")
    output = faces(torch.randn(2, 3, 64, 64))
    assert output.points.shape == (2, 6, 2) and output.angles is not None and output.angles.shape == (2, 3)
    assert float((output.points.detach() - 0.5).abs().max()) < 0.2  # all start in the middle
    assert faces.fc.in_features == 48 + 192 + 96
    faces.eval()
    with torch.no_grad():  # a crop of 112, as PFLD's, is padded to 128, and what is padded is not averaged
        crop = torch.randn(1, 3, 112, 112)
        maps = faces.encoder(nn.functional.pad(crop, (0, 16, 0, 16)))
        averages = [maps[2][..., :14, :14], maps[3][..., :7, :7], maps[4]]
        joined = torch.cat([each.mean(dim=(2, 3)) for each in averages], dim=1)
        assert distance(faces(crop).points, faces.fc(joined).view(1, 6, 2)) < 1e-6
    assert (
        TimmLandmarks(landmarks=6, name="test_resnet", auxiliary=False)(torch.randn(2, 3, 64, 64)).angles
        is None
    )


@torch.no_grad()
def test_on_a_resnet_it_is_simple_baseline() -> None:
    """timm names a ResNet's modules as torchvision does, and so does SimpleBaseline."""
    known = SimpleBaseline(joints=17, depth=18).eval()
    network = TimmPose(joints=17, name="resnet18").eval()
    state = {
        key if key.startswith(("deconv_layers", "final_layer")) else f"encoder.model.{key}": value
        for key, value in known.state_dict().items()
    }
    network.load_state_dict(state, strict=True)
    image = torch.randn(1, 3, 64, 96)
    assert distance(network(image), known(image)) < 1e-5 and parameters_of(network) == 15_376_721


@torch.no_grad()
def test_on_a_resnet_the_levels_are_those_of_torchvision() -> None:
    known = ResNetPyramid(depth=18, channels=16).eval()
    backbone = TimmPyramid(name="resnet18", channels=16).eval()
    state = {key.replace("body.", "body.model."): value for key, value in known.state_dict().items()}
    backbone.load_state_dict(state, strict=True)
    image = torch.randn(1, 3, 64, 96)
    for level, expected in known(image).items():
        assert distance(backbone(image)[level], expected) < 1e-5


def test_a_generator_of_one_hot_maps() -> None:
    network = TimmGenerator(input_channels=7, output_channels=3, name="test_convnext", channels=16)
    output = network(torch.randn(2, 7, 64, 32))
    assert (
        output.shape == (2, 3, 64, 32)
        and output.dtype == torch.float32
        and float(output.detach().abs().max()) <= 1
    )
    assert network.taps == ("decoder.steps.2", "decoder.steps.1", "decoder.steps.0")
    with pytest.raises(UserError, match="sides divisible by 32"):
        network(torch.randn(2, 7, 48, 32))


@pytest.mark.parametrize(("detector", "stride"), [("faster_rcnn", 4), ("fcos", 8)])
def test_levels_of_a_detector(detector: Any, stride: int) -> None:
    backbone = TimmPyramid(name="test_resnet", channels=32, first_stride=stride)  # type: ignore[arg-type]
    levels = backbone(torch.randn(2, 3, 128, 128))
    assert [(key, tuple(each.shape[1:])) for key, each in levels.items()] == [
        (str(place), (32, *(2 * [128 // (stride * 2**place)]))) for place in range(5)
    ]
    network = TimmDetector(backbone=backbone, classes=3, detector=detector, min_size=64, max_size=96)
    assert isinstance(network, Detector) and network.taps[0].startswith("model.backbone.fpn.layer_blocks.")
    assert network.expects is not None and network.expects.mean == (0.5, 0.5, 0.5)


def test_taps_of_classifiers() -> None:
    network = TimmClassifier(classes=4, name="test_resnet")
    assert network.taps == tuple(f"model.layer{number}" for number in (1, 2, 3, 4))
    assert (network.classifier, network.pooled_tap) == (("model.fc",), "model.fc:in")
    tokens = TimmClassifier(classes=4, name="test_vit").eval()
    assert tokens.taps == tuple(f"stages.{number}" for number in range(4))
    taps = Taps(tokens, tokens.taps)
    taps.install()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad(), taps:
        logits = tokens(image)
    assert {tuple(each.shape) for each in taps.take().values()} == {(2, 64, 4, 6)}
    with torch.no_grad():
        torch.testing.assert_close(logits, tokens.model(image))
    with pytest.raises(UserError, match="sides divisible by 16"):
        tokens(torch.randn(2, 3, 64, 70))


# Published files -------------------------------------------------------------------------------------


class Holder:
    """A task, as far as initial weights are concerned."""

    kind = "segmentation"

    def __init__(self, network: nn.Module, mean: float = 0.5) -> None:
        from dvsn.tasks.normalise import Normalise

        self.networks = {"network": network}
        self.normalise = Normalise(mean=[mean] * 3, std=[0.5] * 3)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm publishes them."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), str(path))
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_an_encoder_starts_from_a_published_file(
    suffix: str, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = contents(file)
    path = file
    if suffix == "pth":
        path = tmp_path / "published.pth"
        torch.save({"state_dict": state}, path)
    network = TimmSegmenter(classes=3, name="test_resnet", channels=8)
    with caplog.at_level(logging.INFO):
        start_from(Holder(network), path)  # type: ignore[arg-type]
    for key, value in network.encoder.model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert "2 of the file not used" in caplog.text and "was trained on" not in caplog.text


def test_another_normalisation_is_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    start_from(Holder(TimmClassifier(classes=3, name="test_resnet"), mean=0.4), file)  # type: ignore[arg-type]
    assert "task.mean=[0.5,0.5,0.5] task.std=[0.5,0.5,0.5]" in caplog.text


def test_a_published_file_comes_by_its_name(file: Path, hub: Hub) -> None:
    hub.folders["timm/test_resnet.r160_in1k"] = file.parent
    network = TimmSegmenter(classes=3, name="test_resnet", channels=8)
    assert not hub.asked  # nothing is downloaded by itself
    start_from(Holder(network), "hf://timm/test_resnet.r160_in1k/model.safetensors")  # type: ignore[arg-type]
    state = contents(file)
    key = "layer1.0.conv1.weight"
    assert torch.equal(network.encoder.model.state_dict()[key], state[key]) and hub.asked


def test_names_of_flattened_and_of_kept_models_meet() -> None:
    """timm writes stages.0 as stages_0 in convolutional encoders, and puts model. before transformers."""
    for name in ("test_convnext", "test_vit"):
        own = timm.create_model(name, pretrained=False).state_dict()
        network = TimmSegmenter(classes=3, name=name, channels=8)
        found, mine = network.adopt_published(own), network.state_dict()
        encoder = [key for key in mine if key.startswith("encoder.model.")]
        assert encoder and all(torch.equal(found[key], own_of(own, key)) for key in encoder)


def own_of(own: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    wanted = key.removeprefix("encoder.model.").removeprefix("model.").replace("_", ".")
    return next(value for name, value in own.items() if name.replace("_", ".") == wanted)


def test_positions_are_resampled_for_another_size() -> None:
    own = timm.create_model("test_vit", pretrained=False).state_dict()
    network = TimmSegmenter(classes=3, name="test_vit", channels=8, size=[64, 96])
    found = network.adopt_published(own)["encoder.model.model.pos_embed"]
    assert (
        found.shape == network.state_dict()["encoder.model.model.pos_embed"].shape != own["pos_embed"].shape
    )


def test_the_first_convolution_takes_other_channels() -> None:
    own = timm.create_model("test_resnet", pretrained=False).state_dict()
    one = TimmGenerator(input_channels=1, name="test_resnet", channels=8).adopt_published(own)
    key = next(key for key, value in own.items() if value.ndim == 4)
    torch.testing.assert_close(one[f"encoder.model.{key}"], own[key].sum(dim=1, keepdim=True))
    six = TimmGenerator(input_channels=6, name="test_resnet", channels=8).adopt_published(own)
    torch.testing.assert_close(six[f"encoder.model.{key}"], own[key].repeat(1, 2, 1, 1) / 2)


def test_a_classifier_of_dvsn_becomes_an_encoder() -> None:
    state = TimmClassifier(classes=3, name="test_resnet").state_dict()
    for network, prefix in (
        (TimmPose(joints=2, name="test_resnet", deconvolution_width=8), "encoder.model."),
        (
            TimmDetector(backbone=TimmPyramid(name="test_resnet", channels=8), classes=3),
            "model.backbone.body.model.",
        ),
    ):
        found = network.adopt(state)
        assert sum(key.startswith(prefix) for key in found) == len(state) - 2  # all but fc


def test_a_file_of_another_model_is_refused(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensors \d+ have a place in TimmSegmenter"):
        start_from(Holder(TimmSegmenter(classes=3, name="test_efficientnet", channels=8)), file)  # type: ignore[arg-type]


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    network = TimmSegmenter(classes=3, name="test_resnet", channels=8)
    with pytest.raises(CheckpointError, match="of its 0 tensors 0 have a place"):
        start_from(Holder(network), tmp_path / "empty.pth")  # type: ignore[arg-type]


def test_a_checkpoint_of_dvsn_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, reads = TimmClassifier(classes=3, name="test_resnet"), []
    monkeypatch.setattr("dvsn.engine.initial_weights.read_recipe", lambda *_: {"task": "classification"})
    usual = weights.read_checkpoint

    def counted(path: Path) -> dict[str, Any]:
        reads.append(path)
        return usual(path)

    monkeypatch.setattr(weights, "read_checkpoint", counted)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"dvsn": {}, "state_dict": state}, tmp_path / "last.ckpt")
    start_from(Holder(TimmClassifier(classes=3, name="test_resnet")), tmp_path / "last.ckpt")  # type: ignore[arg-type]
    assert reads == [tmp_path / "last.ckpt"]


# Refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet1"}, r"network.name: timm has no model 'resnet1'. Did you mean 'resnet18'\?"),
        ({"name": "hf-hub:timm/resnet18"}, "timm has no model 'hf-hub:timm/resnet18'"),
        ({"name": "local-dir:/tmp"}, "timm has no model"),
        ({"name": "resnet18.nosuch"}, "has no weights 'nosuch'"),
        ({"name": "crossvit_9_240"}, "12, 17 times smaller.*powers of two"),
        ({"name": "test_resnet", "size": [64, 64]}, "network.size: 'test_resnet' is not built for a size"),
        ({"name": "test_vit", "size": [64]}, r"network.size: found \[64\], expected \[HEIGHT, WIDTH\]"),
        (
            {"name": "test_vit", "size": [60, 64]},
            r"found \[60, 64\].* divide by 32 for test_vit.*\[64,64\]",
        ),
    ],
)
def test_names_and_sizes_are_refused_in_words(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        TimmEncoder(**options)


def test_a_model_without_features_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the error that timm has for them; a classifier needs no features."""
    usual = timm.create_model

    def without(name: str, *, features_only: bool = False, **options: Any) -> Any:
        if features_only:
            raise RuntimeError("features_only not implemented for this model.")
        return usual(name, **options)

    monkeypatch.setattr(timm, "create_model", without)
    with torch.device("meta"):
        with pytest.raises(
            ConfigError, match=r"network.name: timm's 'test_resnet' has no features .*not impl"
        ):
            TimmEncoder(name="test_resnet")
        TimmClassifier(classes=3, name="test_resnet")


def test_detectors_refuse_encoders_without_their_levels() -> None:
    with torch.device("meta"):
        with pytest.raises(ConfigError, match=r"levit_128s has maps of strides 16, 32, 64.*needs 4, 8 too"):
            TimmPyramid(name="levit_128s")
        with pytest.raises(ConfigError, match="takes pictures of 224 x 224 only"):
            TimmPyramid(name="beit_base_patch16_224")


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return usual(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    node = {"_target_": "dvsn.networks.timm_segmenter.TimmSegmenter", "classes": 3}
    with pytest.raises(ConfigError, match=r"network: .*timm.* pip install 'dvsn\[timm\]'"):
        build(node, path="network")
