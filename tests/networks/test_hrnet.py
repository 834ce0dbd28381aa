"""HRNetV2: the published keys, counts and costs, and the answers of the same networks written from the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from dvsn.benchmark.costs import costs
from dvsn.config.build import options_of
from dvsn.convert.release import build_empty
from dvsn.errors import ConfigError, UserError
from dvsn.networks.hrnet import Exchange, HighResolutionTrunk
from dvsn.networks.hrnetv2 import HRNetClassifier, HRNetV2
from dvsn.networks.hrnetv2_ocr import HRNetV2OCR, gather
from dvsn.types import SegmentationOutput
from tests.support.networks import distance, doubles, load, parameters_of, picture, shapes_of
from tests.support.reference_hrnet import (
    VARIANTS,
    Reference,
    classifier_keys,
    conv,
    digest,
    fill,
    ocr_keys,
    segmenter_keys,
    trunk_keys,
)

CONF = Path(__file__).parents[2] / "conf" / "network"
SMALL_OCR: dict[str, Any] = {**VARIANTS["w18_small_v1"], "channels": 24, "key_channels": 12}


# Published keys and counts ------------------------------------------------------------------------------------

GOLDEN = {
    "w18_small_v1": "3f0960ed31e4558e",
    "w18_small_v2": "5c768d9683d95cbf",
    "w18": "f077380184540a0f",
    "w48": "fcaf59ddba950664",
}


class SingleScale(HighResolutionTrunk):
    """The trunk of pose networks."""

    multi_scale = False


@pytest.mark.parametrize("variant", GOLDEN)
def test_the_keys_are_the_published_ones(variant: str) -> None:
    keys = segmenter_keys(variant)
    assert digest(keys) == GOLDEN[variant]
    assert shapes_of(build_empty(HRNetV2, {"classes": 19, **VARIANTS[variant]})) == keys


def test_the_keys_of_ocr_are_the_published_ones() -> None:
    assert digest(ocr_keys()) == "522ef14cb2bb4d26"
    assert shapes_of(build_empty(HRNetV2OCR, {"classes": 19})) == ocr_keys()


@pytest.mark.parametrize(("variant", "golden"), [("w32", "69f38af263f80e5d"), ("w48", "452d3bc1b28e67ea")])
def test_the_trunk_has_the_keys_of_pose_networks(variant: str, golden: str) -> None:
    options = VARIANTS[variant]
    keys = trunk_keys(**options, single=True)
    assert digest(keys | conv("final_layer", 17, options["width"], 1, bias=True)) == golden
    node = {**options, "enlarge": "nearest", "align_corners": False}
    assert shapes_of(build_empty(SingleScale, node)) == keys


@pytest.mark.parametrize(
    ("variant", "parameters", "entries", "giga"),
    [
        ("w18_small_v1", 1_540_819, 435, 8.348),
        ("w18_small_v2", 3_939_579, 873, 19.214),
        ("w18", 9_641_119, 1839, 36.850),
        ("w32", 29_546_515, 1839, 90.307),
        ("w48", 65_859_379, 1839, 186.878),
    ],
)
def test_published_counts(variant: str, parameters: int, entries: int, giga: float) -> None:
    network = from_yaml(f"hrnetv2_{variant}")
    assert (parameters_of(network), len(network.state_dict())) == (parameters, entries)
    if "small" in variant:  # a dry run of the others takes seconds, and that of OCR holds W48's
        assert round(costs(network, (1, 3, 512, 1024)).macs / 1e9, 3) == giga


def test_published_counts_of_ocr() -> None:
    network = from_yaml("hrnetv2_w48_ocr")
    assert (parameters_of(network), len(network.state_dict())) == (70_372_678, 1890)
    assert round(costs(network, (1, 3, 1024, 2048)).macs / 1e9, 2) == 1295.33


@pytest.mark.parametrize(
    ("variant", "parameters", "giga"),
    [  # exact counts of the widely used port; millions and G (of 2^30) as the release prints them
        ("w18_small_v1", 13_187_464, 1.49),
        ("w18_small_v2", 15_597_464, 2.42),
        ("w18", 21_299_004, 3.99),
        ("w32", 41_232_680, 8.31),
        ("w48", 77_469_864, 16.1),
    ],
)
def test_published_counts_of_classifiers(variant: str, parameters: int, giga: float) -> None:
    network = build_empty(HRNetClassifier, {"classes": 1000, **VARIANTS[variant]})
    assert parameters_of(network) == parameters
    assert {k.replace("linear", "classifier"): v for k, v in shapes_of(network).items()} == classifier_keys(
        variant
    )
    if variant == "w18_small_v1":
        assert round(costs(network, (1, 3, 224, 224)).macs / 2**30, 2) == giga


# The answers of the tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2"])
@pytest.mark.parametrize("size", [(64, 96), (45, 83)])
def test_small_segmenters_answer_as_the_tables_say(
    variant: str, align_corners: bool, size: tuple[int, int]
) -> None:
    state = doubles(segmenter_keys(variant, classes=5))
    network = load(HRNetV2, state, classes=5, align_corners=align_corners, **VARIANTS[variant])
    image = picture(2, 3, *size)
    with torch.no_grad():
        output = network(image)
        expected = Reference(state, align_corners).segment(image)
    assert distance(output.logits, expected) < 1e-9
    assert output.logits.shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("variant", ["w18", "w48"])
def test_large_segmenters_answer_as_the_tables_say(variant: str) -> None:
    state = fill(segmenter_keys(variant))
    network = load(HRNetV2, state, classes=19, **VARIANTS[variant])
    image = picture(1, 3, 33, 40, dtype=torch.float32)
    with torch.no_grad():
        assert distance(network(image).logits, Reference(state).segment(image)) < 1e-5


@pytest.mark.parametrize("align_corners", [False, True])
def test_ocr_answers_as_the_tables_say(align_corners: bool) -> None:
    state = doubles(ocr_keys("w18_small_v1", classes=5, channels=24, keys=12))
    network = load(HRNetV2OCR, state, classes=5, align_corners=align_corners, **SMALL_OCR)
    image = picture(2, 3, 50, 70)
    with torch.no_grad():
        output = network(image, heads=True)
        main, auxiliary = Reference(state, align_corners).ocr(image)
    assert distance(output.logits, main) < 1e-9
    assert distance(output.auxiliary[0], auxiliary) < 1e-9


def test_w48_ocr_answers_as_the_tables_say() -> None:
    state = fill(ocr_keys())
    network = load(HRNetV2OCR, state, classes=19)
    image = picture(1, 3, 33, 40, dtype=torch.float32)
    with torch.no_grad():
        assert distance(network(image).logits, Reference(state, align_corners=True).ocr(image)[0]) < 1e-5


@pytest.mark.parametrize("enlarge", ["nearest", "bilinear"])
def test_the_classifier_answers_as_the_tables_say(enlarge: str) -> None:
    state = doubles(classifier_keys("w18_small_v1", classes=7))
    image = picture(2, 3, 64, 96)
    ours = {k.replace("classifier.", "linear."): v for k, v in state.items()}
    network = load(HRNetClassifier, ours, classes=7, enlarge=enlarge, **VARIANTS["w18_small_v1"])
    with torch.no_grad():
        assert distance(network(image), Reference(state, mode=enlarge).classify(image)) < 1e-9


def test_a_single_scale_trunk_is_the_finest_stream_of_pose() -> None:
    options = VARIANTS["w18_small_v1"]
    state = doubles(trunk_keys(**options, single=True))
    node = {**options, "enlarge": "nearest", "align_corners": False}
    network = load(SingleScale, state, **node)
    image = picture(1, 3, 64, 96)
    with torch.no_grad():
        (found,) = network.streams(image)  # type: ignore[operator]
        (expected,) = Reference(state, mode="nearest").streams(image)
    assert distance(found, expected) < 1e-9


# Traps: each of these answers differently, so the parity tests fail for a network that walks into it -----------


@pytest.mark.parametrize(
    "trap",
    [
        {"mode": "nearest"},
        {"align_corners": True},
        {"rectify_inner": False},
        {"rectify_last": True},
        {"mixing_bias": False},
    ],
    ids=lambda trap: next(iter(trap)),
)
def test_a_trap_changes_the_answer(trap: dict[str, Any]) -> None:
    state = doubles(segmenter_keys("w18_small_v1", classes=5))
    network = load(HRNetV2, state, classes=5, **VARIANTS["w18_small_v1"])
    image = picture(1, 3, 64, 96)
    with torch.no_grad():
        logits = network(image).logits
        assert distance(logits, Reference(state).segment(image)) < 1e-9
        assert distance(logits, Reference(state, **trap).segment(image)) > 1e-2


def test_soft_regions_weigh_pixels_not_classes() -> None:
    state = doubles(ocr_keys("w18_small_v1", classes=5, channels=24, keys=12))
    network = load(HRNetV2OCR, state, classes=5, **SMALL_OCR)
    image = picture(1, 3, 64, 64)
    with torch.no_grad():
        right, wrong = (Reference(state, True, soft_over=axis).ocr(image)[0] for axis in (2, 1))
        assert distance(network(image).logits, right) < 1e-9 < 1e-3 < distance(network(image).logits, wrong)
    features = torch.tensor([[[[1.0, 5.0]]]])  # (1, 1, 1, 2)
    regions = torch.tensor([[[[0.0, 0.0]], [[0.0, 200.0]]]])  # class 0 anywhere, class 1 at the second pixel
    torch.testing.assert_close(gather(features, regions), torch.tensor([[[[3.0], [5.0]]]]))


def test_an_exchange_by_hand() -> None:
    """Two streams of one channel whose blocks are identities: sums of a resized and of a halved map."""
    exchange = Exchange((1, 1), 1, 2, "bilinear", True).double().eval()
    for module in exchange.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    up, down = exchange.fuse_layers[0][1], exchange.fuse_layers[1][0][0]  # type: ignore[index]
    with torch.no_grad():
        up[0].weight.fill_(1)
        down[0].weight[0, 0, 1, 1] = -1  # takes every second pixel, negated: no ReLU before the sum
        fine = torch.arange(8.0, dtype=torch.float64).view(1, 1, 2, 4)
        coarse = torch.tensor([[[[10.0, 40.0]]]], dtype=torch.float64)
        new_fine, new_coarse = exchange([fine, coarse])
    eps = (1 + 1e-5) ** -0.5  # of a fresh batch norm
    row = eps * torch.tensor([10.0, 20.0, 30.0, 40.0], dtype=torch.float64)  # corners aligned
    torch.testing.assert_close(new_fine, fine + row)
    torch.testing.assert_close(new_coarse, coarse - eps * fine[:, :, ::2, ::2])


# Interface ------------------------------------------------------------------------------------------------------


def from_yaml(name: str) -> nn.Module:
    """The network of a YAML for 19 classes, without memory for its weights. Every option must be in it."""
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    node = yaml.safe_load(text.replace("${data.classes}", "19"))
    (kind,) = [
        kind
        for kind in (HRNetV2, HRNetV2OCR, HRNetClassifier)
        if node["_target_"] == f"{kind.__module__}.{kind.__qualname__}"
    ]
    assert set(node) - {"_target_"} == set(options_of(kind).named)
    return build_empty(kind, node)


@pytest.mark.parametrize("variant", ["w18", "w48"])
def test_the_trunk_of_a_classifier_is_the_segmenters(variant: str) -> None:
    classifier, segmenter = from_yaml(f"hrnetv2_{variant}_classifier"), from_yaml(f"hrnetv2_{variant}")
    own = shapes_of(classifier)
    shared = {k: v for k, v in shapes_of(segmenter).items() if not k.startswith("last_layer.")}
    assert shared.items() <= own.items()


@pytest.mark.parametrize("name", ["w18_small_v1", "w18_small_v2", "w18", "w32", "w48", "w48_ocr"])
def test_each_yaml_aligns_corners_as_its_checkpoint(name: str) -> None:
    network = from_yaml(f"hrnetv2_{name}")
    assert network.align_corners is (name == "w48_ocr")
    momenta = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1 if name.startswith("w48") else 0.01}
    paths = dict(network.named_modules())
    assert all(path in paths for path in (*network.taps, *network.classifier))  # type: ignore[misc]


def small(**options: Any) -> HRNetV2:
    torch.manual_seed(0)
    return HRNetV2(classes=3, **{**VARIANTS["w18_small_v1"], **options})


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (64, 64)])
def test_any_size_works(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = small().eval()(torch.randn(1, 3, *size)).logits
    assert logits.shape == (1, 3, -(-size[0] // 4), -(-size[1] // 4))
    assert logits.isfinite().all()


def test_taps_are_the_four_streams_untouched() -> None:
    network, seen = small().eval(), []
    modules = dict(network.named_modules())
    for path in network.taps:
        modules[path].register_forward_hook(lambda _, __, output: seen.append((output, output.clone())))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 96))
    assert [tuple(kept.shape) for kept, _ in seen] == [
        (1, 16, 16, 24),
        (1, 32, 8, 12),
        (1, 64, 4, 6),
        (1, 128, 2, 3),
    ]
    assert all(torch.equal(kept, copied) for kept, copied in seen)


def test_ocr_answers_auxiliary_logits_in_training_or_on_demand() -> None:
    torch.manual_seed(0)
    network = HRNetV2OCR(classes=3, **SMALL_OCR)
    image = torch.randn(2, 3, 32, 32)
    assert isinstance(network(image), SegmentationOutput)
    assert len(network(image).auxiliary) == 1
    assert network(image, heads=False).auxiliary == ()
    assert network.eval()(image).auxiliary == ()
    assert network(image, heads=True).auxiliary[0].shape == (2, 3, 8, 8)


def test_a_step_reaches_every_weight() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 64)
    for network in (small(), HRNetV2OCR(classes=3, **SMALL_OCR)):
        output = network(image)
        sum(x.square().sum() for x in (output.logits, *output.auxiliary)).backward()
        idle = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        # a constant that a batch norm takes away again, and what its rounding leaves, do not count
        assert not [key for key in idle if key not in ("last_layer.0.bias", "aux_head.0.bias")]


def test_initial_values_are_the_releases() -> None:
    network = HRNetV2OCR(classes=3, **SMALL_OCR)
    spread = {k: float(v.std()) for k, v in network.state_dict().items() if v.ndim == 4}
    assert spread["stage4.0.branches.3.0.conv1.weight"] == pytest.approx(0.001, rel=0.1)
    assert spread["conv3x3_ocr.0.weight"] > 0.005
    mixing = small().state_dict()["last_layer.0.weight"]
    assert float(mixing.std()) == pytest.approx(0.001, rel=0.1)


def test_bf16_autocast_and_channels_last_stay_near() -> None:
    state = fill(ocr_keys("w18_small_v1", classes=5, channels=24, keys=12))
    network = load(HRNetV2OCR, state, classes=5, **SMALL_OCR)
    image = picture(1, 3, 64, 96, dtype=torch.float32)
    with torch.no_grad():
        expected = network(image).logits
        wide = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert distance(wide(image.contiguous(memory_format=torch.channels_last)).logits, expected) < 1e-4
        with torch.autocast("cpu", torch.bfloat16):
            assert distance(network(image).logits.float(), expected) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": (1, 4)}, "stages 2, 3 and 4"),
        ({"modules": (1, 0, 3)}, "stages 2, 3 and 4"),
        ({"width": 0}, "width must be at least 1"),
        ({"enlarge": "cubic"}, "unknown enlarge='cubic'"),
        ({"bn_momentum": 2.0}, "bn_momentum must be between 0.0 and 1.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_a_picture_of_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="normalise the image first"):
        small()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
