"""Networks of pose and HRNetV2p: published keys, counts and costs, and the answers of the same written from tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dvsn.benchmark.costs import costs
from dvsn.config.build import options_of
from dvsn.convert.release import build_empty
from dvsn.errors import ConfigError, UserError
from dvsn.networks.hrnet_pose import PoseHRNet
from dvsn.networks.hrnetv2p import HRNetV2p
from dvsn.networks.resnet import ResNetClassifier
from dvsn.networks.simple_baseline import SimpleBaseline
from tests.support.networks import distance, doubles, load, parameters_of, picture, shapes_of
from tests.support.reference_hrnet import VARIANTS, conv, digest, fill, trunk_keys
from tests.support.reference_pose import BLOCKS, PoseReference, baseline_keys, pose_keys, resnet_keys

CONF = Path(__file__).parents[2] / "conf" / "network"
SMALL = VARIANTS["w18_small_v1"]


def from_yaml(name: str) -> nn.Module:
    """The network of a YAML for 17 keypoints, without memory for its weights. Every option must be in it."""
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ") and "joints: ${data.joints}\n" in text
    node = yaml.safe_load(text.replace("${data.joints}", "17"))
    (kind,) = (
        kind
        for kind in (PoseHRNet, SimpleBaseline)
        if node["_target_"] == f"{kind.__module__}.{kind.__qualname__}"
    )
    assert set(node) - {"_target_"} == set(options_of(kind).named)
    return build_empty(kind, node)


# Published keys and counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "golden"), [("w32", "69f38af263f80e5d"), ("w48", "452d3bc1b28e67ea")])
def test_the_keys_of_pose_hrnet_are_the_published_ones(variant: str, golden: str) -> None:
    keys = shapes_of(from_yaml(f"hrnet_{variant}"))
    assert (digest(keys), len(keys)) == (golden, 1754)
    assert keys == pose_keys(**VARIANTS[variant])


def test_the_keys_of_simple_baseline_are_the_published_ones() -> None:
    keys = shapes_of(from_yaml("simplebaseline_50"))
    assert (digest(keys), len(keys)) == ("4de560b0e45ef0aa", 338)
    for depth in BLOCKS:
        assert shapes_of(build_empty(SimpleBaseline, {"joints": 17, "depth": depth})) == baseline_keys(depth)


@pytest.mark.parametrize(
    ("variant", "stage2", "stage3", "stage4", "transitions", "final"),
    [
        ("w32", 390_848, 6_821_632, 20_407_232, (221_376, 73_984, 295_424), 561),
        ("w48", 878_112, 15_335_040, 45_894_048, (332_064, 166_272, 664_320), 833),
    ],
)
def test_published_counts_by_part(
    variant: str, stage2: int, stage3: int, stage4: int, transitions: tuple[int, ...], final: int
) -> None:
    network = from_yaml(f"hrnet_{variant}")
    found = {name: parameters_of(module) for name, module in network.named_children()}
    stem = sum(found.pop(name) for name in ("conv1", "bn1", "conv2", "bn2"))
    assert (stem, found.pop("layer1")) == (38_848, 286_208)
    assert tuple(found.pop(f"transition{n}") for n in (1, 2, 3)) == transitions
    assert found == {"stage2": stage2, "stage3": stage3, "stage4": stage4, "final_layer": final}


@pytest.mark.parametrize(
    ("name", "parameters", "small", "large"),
    [
        ("hrnet_w32", 28_536_113, 7.645, 17.201),
        ("hrnet_w48", 63_595_745, 15.692, 35.307),
        ("simplebaseline_50", 33_999_697, 5.426, 12.209),
        ("simplebaseline_101", 52_991_825, 9.063, 20.391),
        ("simplebaseline_152", 68_635_473, 12.699, 28.573),
    ],
)
def test_published_totals_and_costs(name: str, parameters: int, small: float, large: float) -> None:
    """The multiply-accumulates also tell that convolutions come before enlargements, where they cost less."""
    found = costs(from_yaml(name), (1, 3, 256, 192))
    assert (found.parameters, round(found.macs / 1e9, 3)) == (parameters, small)
    assert round(found.macs * 9 / 4 / 1e9, 3) == large  # every map of 384 x 288 has 9/4 as many pixels


@pytest.mark.parametrize(
    ("width", "parameters"), [(18, 12_582_036), (32, 32_379_072), (48, 68_460_096)]
)  # 12.582, 32.379 and 68.460 M
def test_published_counts_of_the_pyramid(width: int, parameters: int) -> None:
    for first_stride in (4, 8):
        network = build_empty(HRNetV2p, {"width": width, "first_stride": first_stride})
        assert parameters_of(network) == parameters


# The answers of the tables -------------------------------------------------------------------------------------


def test_w32_answers_as_the_tables_say() -> None:
    state = fill(pose_keys(**VARIANTS["w32"]))
    network = load(PoseHRNet, state, joints=17)
    image = picture(1, 3, 64, 32, dtype=torch.float32)
    with torch.no_grad():
        assert distance(network(image), PoseReference(state, mode="nearest").pose(image)) < 1e-5


@pytest.mark.parametrize("enlarge", ["nearest", "bilinear"])
def test_a_small_hrnet_answers_as_the_tables_say(enlarge: str) -> None:
    state = doubles(pose_keys(5, **SMALL))
    network = load(PoseHRNet, state, joints=5, enlarge=enlarge, **SMALL)
    image = picture(2, 3, 64, 96)
    with torch.no_grad():
        found = network(image)
        assert distance(found, PoseReference(state, mode=enlarge).pose(image)) < 1e-9
    assert found.shape == (2, 5, 16, 24)


@pytest.mark.parametrize("trap", [{"mode": "bilinear"}, {"rectify_inner": False}, {"rectify_last": True}])
def test_a_trap_changes_the_answer(trap: dict[str, Any]) -> None:
    """Bilinear weights load all the same, which is why the default is checked here."""
    state = doubles(pose_keys(5, **SMALL))
    network = load(PoseHRNet, state, joints=5, **SMALL)
    image = picture(1, 3, 64, 96)
    with torch.no_grad():
        assert (
            distance(network(image), PoseReference(state, **{"mode": "nearest", **trap}).pose(image)) > 1e-2
        )


def test_only_the_finest_stream_of_the_last_exchange_is_made() -> None:
    network = PoseHRNet(joints=5, **SMALL)
    (last,) = network.stage4
    parts = {name: len(list(part.children())) for name, part in last.named_children()}
    assert parts == {"branches": 4, "fuse_layers": 1, "outputs": 1}
    assert network.taps == ("stage4.0.outputs.0",)


@pytest.mark.parametrize(("depth", "kernel", "count"), [(18, 4, 3), (34, 3, 2), (18, 2, 1), (18, 4, 0)])
def test_a_basic_baseline_answers_as_the_tables_say(depth: int, kernel: int, count: int) -> None:
    state = doubles(baseline_keys(depth, 5, count, 8, kernel))
    network = load(
        SimpleBaseline,
        state,
        joints=5,
        depth=depth,
        deconvolutions=count,
        deconvolution_width=8,
        deconvolution_kernel=kernel,
    )
    image = picture(1, 3, 64, 96)
    with torch.no_grad():
        found = network(image)
        assert distance(found, PoseReference(state).baseline(image)) < 1e-9
    assert network.stride == 2 ** (5 - count)
    assert found.shape == (1, 5, 64 // network.stride, 96 // network.stride)  # type: ignore[operator]


def test_baseline_50_answers_as_the_tables_say() -> None:
    state = fill(baseline_keys(50))
    network = load(SimpleBaseline, state, joints=17, depth=50)
    image = picture(1, 3, 64, 32, dtype=torch.float32)
    with torch.no_grad():
        assert distance(network(image), PoseReference(state).baseline(image)) < 1e-5


@pytest.mark.parametrize("depth", [18, 50])
def test_the_trunk_of_the_baseline_is_torchvisions(depth: int) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = getattr(models, f"resnet{depth}")().double().eval()
    classifier = ResNetClassifier(classes=1000, depth=depth).double().eval()
    classifier.load_state_dict(theirs.state_dict(), strict=True)
    image = picture(1, 3, 45, 64)
    with torch.no_grad():
        assert distance(classifier(image), theirs(image)) < 1e-12
    own = shapes_of(build_empty(SimpleBaseline, {"joints": 2, "depth": depth}))
    assert {k: v for k, v in shapes_of(theirs).items() if not k.startswith("fc.")} == resnet_keys(depth)
    assert resnet_keys(depth).items() <= own.items()


@pytest.mark.parametrize(("first_stride", "size"), [(4, (64, 128)), (8, (128, 192)), (4, (100, 90))])
def test_the_pyramid_answers_as_the_tables_say(first_stride: int, size: tuple[int, int]) -> None:
    state = doubles(
        trunk_keys(**SMALL)
        | conv("reduction_conv", 256, 15 * SMALL["width"], 1, bias=True)
        | {k: v for n in range(5) for k, v in conv(f"fpn_convs.{n}", 256, 256, 3, bias=True).items()}
    )
    network = load(HRNetV2p, state, first_stride=first_stride, **SMALL)
    image = picture(1, 3, *size)
    with torch.no_grad():
        found = network(image)
        expected = PoseReference(state).pyramid(image, first_stride // 4)
    assert list(found) == ["0", "1", "2", "3", "4"]
    for ours, theirs in zip(found.values(), expected, strict=True):
        assert distance(ours, theirs) < 1e-9
    if all(side % network.multiple == 0 for side in size):  # type: ignore[operator]
        sides = [tuple(side // (first_stride * 2**level) for side in size) for level in range(5)]
        assert [tuple(each.shape[2:]) for each in found.values()] == sides
    assert network.out_channels == 256


# Starts, options and refusals ----------------------------------------------------------------------------------


def test_pose_networks_start_as_published() -> None:
    torch.manual_seed(0)
    hrnet, baseline = PoseHRNet(joints=5, **SMALL), SimpleBaseline(joints=5, depth=18)
    weights = {**dict(hrnet.named_parameters()), **dict(baseline.named_parameters())}
    for name in ("stage4.0.branches.3.0.conv1", "final_layer", "deconv_layers.0"):
        assert float(weights[f"{name}.weight"].detach().std()) == pytest.approx(0.001, rel=0.2)
    assert not any(weight.any() for name, weight in weights.items() if name == "final_layer.bias")
    he = 2 / (9 * 512)  # of fan out
    assert float(weights["layer4.1.conv1.weight"].detach().var()) == pytest.approx(he, rel=0.02)
    assert {m.momentum for m in hrnet.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert {m.momentum for m in HRNetV2p(**SMALL).modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


@pytest.mark.parametrize("name", [path.stem for path in CONF.glob("hrnet_w*.yaml")] + ["simplebaseline_18"])
def test_a_yaml_names_modules_that_exist(name: str) -> None:
    network = from_yaml(name)
    paths = dict(network.named_modules())
    assert all(path in paths for path in (*network.taps, *network.classifier))  # type: ignore[misc]
    assert (network.multiple, network.stride) == (32, 4)


@pytest.mark.parametrize("kind", [PoseHRNet, SimpleBaseline])
def test_taps_are_left_untouched(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(joints=5, **(SMALL if kind is PoseHRNet else {"depth": 18})).eval()
    modules: dict[str, Any] = dict(network.named_modules())
    seen: list[tuple[Tensor, Tensor]] = []
    for path in (*network.taps, "layer1"):  # type: ignore[misc]
        modules[path].register_forward_hook(lambda _, __, output: seen.append((output, output.clone())))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64))
    assert seen and all(torch.equal(kept, copy) for kept, copy in seen)


@pytest.mark.parametrize("kind", [PoseHRNet, SimpleBaseline])
def test_a_side_that_is_no_multiple_of_32_is_refused(kind: type[nn.Module]) -> None:
    options = SMALL if kind is PoseHRNet else {"depth": 18}
    with pytest.raises(UserError, match="divisible by 32"):
        kind(joints=2, **options)(torch.zeros(1, 3, 64, 80))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PoseHRNet, {"joints": 0}, "joints must be at least 1"),
        (PoseHRNet, {"joints": 2, "enlarge": "cubic"}, "unknown enlarge='cubic'"),
        (
            SimpleBaseline,
            {"joints": 2, "depth": 20},
            r"depth must be one of \[18, 34, 50, 101, 152\], found 20",
        ),
        (SimpleBaseline, {"joints": 2, "deconvolution_kernel": 5}, "deconvolution_kernel must be one of"),
        (SimpleBaseline, {"joints": 2, "deconvolutions": 6}, "deconvolutions must be between 0 and 5"),
        (HRNetV2p, {"first_stride": 2}, "first_stride must be 4 or 8, found 2"),
    ],
)
def test_wrong_options_are_refused(kind: type[nn.Module], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_empty(kind, options)


def test_a_picture_too_small_for_the_pyramid_is_refused() -> None:
    with pytest.raises(UserError, match="at least 64"):
        HRNetV2p(**SMALL)(torch.zeros(1, 3, 32, 64))
