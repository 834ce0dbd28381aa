"""Networks of faces: published keys, counts and costs, and the answers of the same written from tables."""

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
from dvsn.networks.hrnetv2_face import HRNetV2Face
from dvsn.networks.pfld import PFLD, HeadAngles
from tests.support.networks import distance, load
from tests.support.reference_hrnet import VARIANTS, Reference, digest, fill, mixing_keys, trunk_keys
from tests.support.reference_pfld import PFLDReference, auxiliary_keys, backbone_keys, pfld_keys

CONF = Path(__file__).parents[2] / "conf" / "network"
SMALL = VARIANTS["w18_small_v1"]
SEED = {"second": "separable", "residual": "every", "bias": True, "last_norm": True, "auxiliary_padding": 0}


def from_yaml(name: str, landmarks: int = 98) -> nn.Module:
    """The network of a YAML, without memory for its weights. Every option must be in it."""
    text = (CONF / f"{name}.yaml").read_text()
    node = yaml.safe_load(text.replace("${data.joints}", str(landmarks)))
    kind = HRNetV2Face if "face" in name else PFLD
    assert node["_target_"] == f"{kind.__module__}.{kind.__qualname__}"
    assert set(node) - {"_target_"} == set(options_of(kind).named)
    return build_empty(kind, node)


def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The flat published dict under our names."""
    names = {"pfld_backbone.": "", "auxiliarynet.": "auxiliary."}
    for old, new in names.items():
        state = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in state.items()}
    return {key: value for key, value in state.items() if not key.startswith("bn8.")}


def picture(*size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(3))


# PFLD: published keys, counts and costs ------------------------------------------------------------------------


def test_the_keys_are_the_published_ones() -> None:
    keys = pfld_keys()
    assert (digest(keys), len(keys), len(backbone_keys()), len(auxiliary_keys())) == (
        "4a100d77383dc978",
        289,
        261,
        28,
    )
    network = from_yaml("pfld")
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    renamed = {
        k.replace("pfld_backbone.", "").replace("auxiliarynet.", "auxiliary."): v for k, v in keys.items()
    }
    assert found == {k: v for k, v in renamed.items() if not k.startswith("bn8.")}
    dead = sum(torch.Size(v).numel() for k, v in keys.items() if "bn8.weight" in k or "bn8.bias" in k)
    assert dead + 1_264_548 == 1_264_804


@pytest.mark.parametrize(
    ("options", "parameters", "auxiliary", "macs"),
    [
        ({}, 1_264_548, 463_811, 386.6),
        ({"second": "depthwise"}, 1_228_260, 463_811, 272.8),
        ({"second": "depthwise", "pool": "flatten", "landmarks": 68}, 1_850_856, 463_811, 273.4),
        ({"width": 0.5}, 339_380, 426_947, 100.7),
        ({"width": 0.25}, 96_540, 408_515, 27.2),
        ({"width": 0.25, "pool": "flatten"}, 324_684, 408_515, 27.4),
        (SEED, 1_242_388, 1_706_615 - 1_242_388, 285.6),
    ],
)
def test_published_counts_and_costs(
    options: dict[str, Any], parameters: int, auxiliary: int, macs: float
) -> None:
    found = costs(build_empty(PFLD, {"landmarks": 98, **options}), (1, 3, 112, 112))
    assert (found.parameters, found.all_parameters) == (parameters, parameters + auxiliary)
    assert round(found.macs / 1e6, 1) == macs


def test_the_yamls_are_the_two_published_sizes() -> None:
    for name, parameters in (("pfld", 1_264_548), ("pfld_025", 96_540)):
        assert costs(from_yaml(name), (1, 3, 112, 112)).parameters == parameters


def test_the_cost_of_the_auxiliary_net() -> None:
    net = build_empty(HeadAngles, {"inputs": 64, "kernel": 7, "padding": 1, "bias": False})
    assert round(costs(net, (1, 64, 28, 28)).macs / 1e6, 1) == 47.0


# PFLD: answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "side", "landmarks"), [(1.0, 112, 98), (0.25, 64, 5)])
def test_pfld_answers_as_the_tables_say(width: float, side: int, landmarks: int) -> None:
    state = fill(pfld_keys(landmarks, width, side // 16))
    network = load(PFLD, ours(state), landmarks=landmarks, width=width, size=side)
    image = picture(2, 3, side, side)
    with torch.no_grad():
        expected, angles = PFLDReference(state).pfld(image)
        found = network(image, heads=True)
    assert distance(found.points, expected.reshape(2, landmarks, 2)) < 1e-5
    assert distance(found.angles, angles) < 1e-5
    assert found.points[0, 1].tolist() == pytest.approx(expected[0, 2:4].tolist(), rel=1e-4)  # x1, y1


def test_the_flattened_form_answers_as_the_tables_say() -> None:
    shapes = pfld_keys(7, 0.25, 2) | {
        f"pfld_backbone.{k}": v for k, v in backbone_keys(7, 0.25, 2, flatten=True).items()
    }
    state = fill(shapes)
    network = load(PFLD, ours(state), landmarks=7, width=0.25, size=32, pool="flatten")
    image = picture(1, 3, 32, 32)
    with torch.no_grad():
        expected, _ = PFLDReference(state).pfld(image, flatten=True)
        assert distance(network(image).points, expected.reshape(1, 7, 2)) < 1e-5


def test_the_first_block_of_the_second_group_has_a_shortcut_only_if_every_block_has() -> None:
    state = fill(pfld_keys(5, 0.25, 2))
    image = picture(1, 3, 32, 32)
    published = load(PFLD, ours(state), landmarks=5, width=0.25, size=32)
    every = load(PFLD, ours(state), landmarks=5, width=0.25, size=32, residual="every")
    reference = PFLDReference(state)
    reference.shortcuts = (*reference.shortcuts, "conv5_1")
    with torch.no_grad():
        expected, _ = reference.pfld(image)
        assert distance(every(image).points, expected.reshape(1, 5, 2)) < 1e-5
        assert distance(published(image).points, expected.reshape(1, 5, 2)) > 1e-3


def test_options_of_the_source_document() -> None:
    network = PFLD(landmarks=5, width=0.25, size=32, **SEED)  # type: ignore[arg-type]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is not None for m in convolutions)
    plain = [m for m in PFLD(landmarks=5).modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert len(plain) == 1  # the last convolution's
    separable = [m for n in ("conv2", "mix2.0") for m in (network.get_submodule(n),)]
    assert [(m.groups, m.kernel_size[0]) for m in separable] == [(16, 3), (1, 1)]  # type: ignore[union-attr, operator, index]
    with torch.no_grad():
        network.eval()
        seen = []
        network.bn8.register_forward_hook(lambda module, args, out: seen.append(out.shape))
        network.auxiliary.conv4.register_forward_hook(lambda module, args, out: seen.append(out.shape))  # type: ignore[union-attr]
        network(picture(3, 3, 32, 32), heads=True)
    assert seen == [(3, 32, 1, 1), (3, 128, 1, 1)]


def test_angles_are_answered_in_training_or_when_asked() -> None:
    network = PFLD(landmarks=5, width=0.25, size=32)
    image = picture(2, 3, 32, 32)
    assert network(image).angles.shape == (2, 3) and network(image, heads=False).angles is None
    network.eval()
    assert network(image).angles is None and network(image, heads=True).angles.shape == (2, 3)
    assert PFLD(landmarks=5, width=0.25, size=32, auxiliary=False)(image, heads=True).angles is None


def test_angles_come_from_the_map_after_the_first_group() -> None:
    """Its gradient ends there, so that the landmarks' own layers stay out of it."""
    network = PFLD(landmarks=5, width=0.25, size=32)
    network(picture(2, 3, 32, 32)).angles.sum().backward()
    reached = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    first = {"conv1", "bn1", "conv2", "bn2", "conv3_1", "block3_2", "block3_3", "block3_4", "block3_5"}
    assert reached == first | {"auxiliary"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"landmarks": 0}, "landmarks must be at least 1, found 0"),
        ({"size": 100}, "size must be a multiple of 16 such as 112, found 100"),
        ({"second": "half"}, "unknown second='half'"),
        ({"pool": "pooled"}, "Did you mean 'pool'"),
        ({"residual": "none"}, "unknown residual"),
        ({"width": 0.0}, "width must be at least"),
        ({"auxiliary_padding": 2}, "auxiliary_padding must be between 0 and 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PFLD(**{"landmarks": 5, **options})


def test_crops_of_another_size_are_refused() -> None:
    network = PFLD(landmarks=5, width=0.25, size=32, auxiliary=False)
    with pytest.raises(UserError, match="found a crop of 64 x 64, expected 32 x 32"):
        network(picture(1, 3, 64, 64))
    with pytest.raises(UserError, match="Nearest valid: 32 x 32"):
        network(picture(1, 3, 30, 32))
    with pytest.raises(UserError, match="normalise the image first"):
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


# HRNetV2-W18 for faces -----------------------------------------------------------------------------------------


def test_the_keys_of_the_face_network_are_the_published_ones() -> None:
    found = {k: list(v.shape) for k, v in from_yaml("hrnetv2_w18_face").state_dict().items()}
    assert (digest(found), len(found)) == ("a7686b40cef342c1", 1839)
    assert found == trunk_keys(**VARIANTS["w18"]) | mixing_keys("head", 270, 98)


@pytest.mark.parametrize(
    ("landmarks", "parameters"), [(98, 9_662_528), (68, 9_654_398), (29, 9_643_829), (19, 9_641_119)]
)
def test_published_counts_of_the_face_network(landmarks: int, parameters: int) -> None:
    network = from_yaml("hrnetv2_w18_face", landmarks)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


def test_the_cost_of_the_face_network() -> None:
    assert round(costs(from_yaml("hrnetv2_w18_face"), (1, 3, 256, 256)).macs / 1e9, 3) == 4.694


def test_the_face_network_answers_as_the_tables_say() -> None:
    state = fill(trunk_keys(**SMALL) | mixing_keys("head", 15 * SMALL["width"], 7))
    network = load(HRNetV2Face, state, joints=7, **SMALL)
    image = picture(1, 3, 64, 32)
    reference = Reference(state)
    with torch.no_grad():
        expected = reference.conv(reference.pair(reference.joined(image), "head"), "head.3")
        assert distance(network(image), expected) < 1e-5
        aligned = load(HRNetV2Face, state, joints=7, **SMALL, align_corners=True)
        assert distance(aligned(image), expected) > 1e-4
