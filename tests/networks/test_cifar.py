"""The networks for small pictures: counts and keys as published, answers by an independent reference, and every tap."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dvsn.benchmark.costs import costs
from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.convert.release import build_empty
from dvsn.errors import ConfigError, UserError
from dvsn.networks.blocks import class_layers
from dvsn.networks.cifar_mobilenetv2 import CifarMobileNetV2
from dvsn.networks.cifar_resnet import CifarResNet
from dvsn.networks.cifar_resnet_bottleneck import CifarBottleneckResNet
from dvsn.networks.cifar_shufflenet import CifarShuffleNet, CifarShuffleNetV2, shuffle
from dvsn.networks.cifar_vgg import CifarVGG
from dvsn.networks.torchvision_classifier import TorchvisionClassifier
from dvsn.networks.wide_resnet import WideResNet
from tests.support.reference_cifar import (
    GOLDEN,
    digest,
    fill,
    resnet,
    resnet_keys,
    vgg,
    vgg_keys,
    wrn,
    wrn_keys,
)

SMALL = ((16, 32), (16, 32), (32, 16), (64, 8))
WIDE = ((32, 32), (64, 32), (128, 16), (256, 8))
VGG = ((64, 32), (128, 16), (256, 8), (512, 4), (512, 4))
ZOO: dict[str, tuple[int, float, tuple[tuple[int, int], ...], int]] = {
    "resnet8": (83_892, 12.5, SMALL, 64),
    "resnet14": (181_108, 26.7, SMALL, 64),
    "resnet20": (278_324, 40.8, SMALL, 64),
    "resnet32": (472_756, 69.1, SMALL, 64),
    "resnet44": (667_188, 97.4, SMALL, 64),
    "resnet56": (861_620, 125.8, SMALL, 64),
    "resnet110": (1_736_564, 253.2, SMALL, 64),
    "resnet8x4": (1_233_540, 177.1, WIDE, 256),
    "resnet32x4": (7_433_860, 1083.0, WIDE, 256),
    "resnet50_cifar": (23_705_252, 1298.0, ((64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)), 2048),
    "wrn_16_1": (180_916, 26.7, SMALL, 64),
    "wrn_40_1": (569_780, 83.3, SMALL, 64),
    "wrn_16_2": (703_284, 101.1, ((16, 32), (32, 32), (64, 16), (128, 8)), 128),
    "wrn_40_2": (2_255_156, 327.6, ((16, 32), (32, 32), (64, 16), (128, 8)), 128),
    "vgg8": (3_965_028, 96.2, VGG, 512),
    "vgg11": (9_277_284, 209.4, VGG, 512),
    "vgg13": (9_462_180, 284.9, VGG, 512),
    "vgg16": (14_774_436, 398.2, VGG, 512),
    "vgg19": (20_086_692, 511.4, VGG, 512),
    "mobilenetv2_half": (812_836, 6.5, ((16, 16), (12, 16), (16, 8), (48, 4), (160, 2)), 1280),
    "shufflenet_v1": (949_258, 38.7, ((24, 32), (240, 16), (480, 8), (960, 4)), 960),
    "shufflenet_v2": (1_355_528, 44.5, ((24, 32), (116, 16), (232, 8), (464, 4)), 1024),
}
"""Parameters, millions of multiply-accumulates, channels and side of the stem and of each tap, and the pooled width."""
FAMILIES = (
    "resnet14", "resnet50_cifar", "wrn_16_2", "vgg8", "vgg13", "mobilenetv2_half", "shufflenet_v1", "shufflenet_v2",
)  # fmt: skip


def node_of(name: str) -> dict[str, Any]:
    text = Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text) | {"classes": 100}
    assert isinstance(node, dict)
    return node


def ghost(name: str) -> Any:
    """Without memory for its weights."""
    node = node_of(name)
    module, _, kind = node["_target_"].rpartition(".")
    return build_empty(getattr(importlib.import_module(module), kind), node)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = build(node_of(name), path="network")
    assert isinstance(network, nn.Module)
    return network


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tapped(network: nn.Module, image: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The answer; what stood at each declared place; and copies of that, made when it stood there."""
    seen: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}

    def note(path: str, value: Tensor) -> None:
        assert path not in seen, f"{path} runs twice"
        seen[path], copies[path] = value, value.clone()

    def listener(path: str) -> Callable[..., None]:
        if path.endswith(":in"):
            return lambda _, arguments: note(path, arguments[0])
        return lambda _, __, output: note(path, output)

    places: Any = network
    for path in dict.fromkeys(
        (places.stem_tap, *places.taps, *places.pre_activation_taps, places.pooled_tap)
    ):
        module = network.get_submodule(path.removesuffix(":in"))
        hook = module.register_forward_pre_hook if path.endswith(":in") else module.register_forward_hook
        hook(listener(path))
    return network(image), seen, copies


# Counts and keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_parameters_and_multiply_accumulates(name: str) -> None:
    network = ghost(name)
    found = costs(network, (1, 3, 32, 32))
    assert found.parameters == found.all_parameters == ZOO[name][0]
    digits = 1 if ZOO[name][1] < 1000 else 0
    assert round(found.macs / 1e6, digits) == ZOO[name][1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet8x4", resnet_keys(8, (32, 64, 128, 256))),
        ("resnet32x4", resnet_keys(32, (32, 64, 128, 256))),
        ("resnet20", resnet_keys(20, (16, 16, 32, 64))),
        ("wrn_40_2", wrn_keys(40, 2)),
        ("wrn_16_1", wrn_keys(16, 1)),
        ("vgg8", vgg_keys((1, 1, 1, 1, 1))),
        ("vgg19", vgg_keys((2, 2, 4, 4, 4))),
    ],
)
def test_keys_are_the_published_ones(name: str, expected: dict[str, tuple[int, ...]]) -> None:
    network = ghost(name)
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == expected and list(found) == list(expected)
    assert GOLDEN.get(name, digest(found)) == digest(found)


# Answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shapes", "reference"),
    [
        (CifarResNet(classes=7, depth=8, widths=(4, 4, 8, 16)), resnet_keys(8, (4, 4, 8, 16), 7), resnet),
        (CifarResNet(classes=7, depth=14, widths=(4, 6, 8, 16)), resnet_keys(14, (4, 6, 8, 16), 7), resnet),
        (WideResNet(classes=7, depth=16, widen=1), wrn_keys(16, 1, 7), wrn),
        (WideResNet(classes=7, depth=10, widen=2), wrn_keys(10, 2, 7), wrn),
        (CifarVGG(classes=7, depth=8), vgg_keys((1, 1, 1, 1, 1), 7), vgg),
        (CifarVGG(classes=7, depth=11), vgg_keys((1, 1, 2, 2, 2), 7), vgg),
    ],
)
def test_answers_are_those_of_the_reference(
    network: nn.Module, shapes: dict[str, tuple[int, ...]], reference: Callable[..., Tensor]
) -> None:
    state = fill(shapes)
    network.load_state_dict(state, strict=True)
    network.eval()
    with torch.no_grad():
        found, expected = network(images()), reference(state, images())
    assert float(expected.std()) > 0.05
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_shuffling_goes_around_the_groups() -> None:
    channels = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_vgg_pools_once_more_from_64_pixels_on() -> None:
    network = CifarVGG(classes=2, depth=8).eval()
    for side, last in ((32, 4), (56, 7), (64, 4), (96, 6)):
        _, seen, _ = tapped(network.to("meta"), torch.empty(1, 3, side, side, device="meta"))
        assert seen["relu4"].shape[-1] == last
        for module in network.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()


# Taps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_taps_have_the_shapes_of_the_table(name: str) -> None:
    _, _, maps, pooled = ZOO[name]
    network = ghost(name).eval()
    _, seen, _ = tapped(network, torch.empty(1, 3, 32, 32, device="meta"))
    for paths in (network.taps, network.pre_activation_taps):
        shapes = [tuple(seen[path].shape) for path in (network.stem_tap, *paths)]
        assert shapes == [(1, channels, side, side) for channels, side in maps]
    assert tuple(seen[network.pooled_tap].shape) == (1, pooled)
    norms = [network.get_submodule(path) for path in network.tap_norms if path is not None]
    assert [norm.num_features for norm in norms] == ([channels for channels, _ in maps[1:]] if norms else [])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_taps_stand_where_the_table_says(name: str, training: bool) -> None:
    """The sign tells a value before a ReLU from one behind it, and the one follows from the other."""
    network: Any = made(name).train(training)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.5)  # so that no ReLU is idle
    output, seen, copies = tapped(network, images())
    output.sum().backward()  # autograd too would say if something had been overwritten
    assert all(torch.equal(seen[path], copies[path]) for path in seen)
    rectified = not name.startswith(("wrn", "mobilenet"))
    assert (float(seen[network.stem_tap].detach().min()) >= 0) is not name.startswith("wrn")
    assert float(seen[network.pooled_tap].detach().min()) >= 0
    for path, before in zip(network.taps, network.pre_activation_taps, strict=True):
        tap, raw = seen[path].detach(), seen[before].detach()
        assert (float(tap.min()) >= 0) is rectified and float(raw.min()) < 0
        if name == "shufflenet_v2":  # shuffled behind the ReLU
            tap = tap.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
        if rectified:
            torch.testing.assert_close(tap, F.relu(raw))
        elif name.startswith("mobilenet"):
            assert path == before
        else:  # the next stage's norm
            norm = network.get_submodule(before)
            mean, var = (norm.running_mean, norm.running_var)
            if training:
                mean, var = tap.mean((0, 2, 3)), tap.var((0, 2, 3), unbiased=False)
            expected = F.batch_norm(tap, mean, var, norm.weight, norm.bias)
            torch.testing.assert_close(raw, expected.detach(), atol=1e-5, rtol=1e-4)
    last = seen[network.pre_activation_taps[-1]]
    if not name.startswith(("mobilenet", "shufflenet_v2")):  # they have one more convolution
        torch.testing.assert_close(seen[network.pooled_tap], F.relu(last).mean((2, 3)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_norms_of_the_taps_stand_right_before(name: str) -> None:
    """Of a network that ends in a residual sum the norm of its branch; else the value before the ReLU is the norm's own."""
    network: Any = made(name).eval()
    found: dict[str, Tensor] = {}
    for path in filter(None, network.tap_norms):
        network.get_submodule(path).register_forward_hook(
            lambda _, __, out, path=path: found.update({path: out})
        )
    _, seen, _ = tapped(network, images())
    for path, before in zip(network.tap_norms, network.pre_activation_taps, strict=True):
        if path is None:
            assert name.startswith("shufflenet")
        elif name.startswith(("vgg", "wrn")):
            assert torch.equal(found[path], seen[before])
        else:  # what else is in the sum does not depend on the norm's shift
            with torch.no_grad():
                network.get_submodule(path).bias += 1
            moved = tapped(fresh_hooks(network), images())[1][before]
            torch.testing.assert_close(moved, seen[before] + 1, atol=1e-4, rtol=1e-4)
            with torch.no_grad():
                network.get_submodule(path).bias -= 1


def fresh_hooks(network: nn.Module) -> nn.Module:
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return network


# How they start -----------------------------------------------------------------------------------------


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    stds = {
        "resnet": (CifarResNet(classes=5, depth=8, widths=(32, 64, 128, 256)).layer3[0].conv2, 256 * 9),  # type: ignore[union-attr]
        "bottleneck": (CifarBottleneckResNet(classes=5).layer3[1].conv2, 256 * 9),  # type: ignore[union-attr]
        "wrn": (WideResNet(classes=5, depth=16, widen=2).block3.layer[1].conv2, 128 * 9),  # type: ignore[union-attr]
        "vgg": (CifarVGG(classes=5, depth=8).block3[0], 512 * 9),
        "mobilenet": (CifarMobileNetV2(classes=5).conv2[0], 1280),
    }
    for name, (layer, fan_out) in stds.items():
        weight = layer.weight  # type: ignore[union-attr]
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.03), name
        assert abs(float(weight.detach().mean())) < 0.1 * math.sqrt(2 / fan_out), name
    vgg8, mobile = CifarVGG(classes=50, depth=8), CifarMobileNetV2(classes=50)
    assert float(vgg8.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(mobile.classifier[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)  # type: ignore[union-attr, operator]
    assert not vgg8.classifier.bias.any() and not vgg8.block2[0].bias.any()  # type: ignore[union-attr, operator]
    assert not WideResNet(classes=5, depth=10, widen=1).fc.bias.any()
    plain = nn.Conv2d(464, 1024, 1)
    of_v2 = CifarShuffleNetV2(classes=5).conv2.weight.detach()
    assert float(of_v2.abs().max()) <= 464**-0.5 and float(of_v2.std()) == pytest.approx(
        float(plain.weight.detach().std()), rel=0.03
    )
    for module in CifarShuffleNet(classes=5).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all()) and not module.bias.any()


# Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CifarResNet(classes=5, depth=18), "6n \\+ 2"),
        (lambda: CifarResNet(classes=5, widths=(16, 32, 64)), "four numbers"),
        (lambda: CifarResNet(classes=0), "classes"),
        (lambda: CifarBottleneckResNet(classes=5, depth=18), "one of"),
        (lambda: WideResNet(classes=5, depth=38), "6n \\+ 4"),
        (lambda: WideResNet(classes=5, dropout=2), "dropout"),
        (lambda: CifarVGG(classes=5, depth=9), "one of"),
        (lambda: CifarMobileNetV2(classes=5, width=0), "width"),
        (lambda: CifarShuffleNet(classes=5, groups=5), "four times"),
        (lambda: CifarShuffleNetV2(classes=5, widths=(1, 2, 4, 8)), "even"),
        (lambda: CifarShuffleNetV2(classes=5, blocks=(3, 7)), "three stages"),
        (lambda: TorchvisionClassifier(classes=5, name="resnet19"), "resnet18"),
    ],
)
def test_options_that_do_not_fit_are_refused(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_picture_that_is_not_normalised_is_refused() -> None:
    with pytest.raises(UserError, match="normalise"):
        CifarVGG(classes=5, depth=8)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


# Torchvision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classifier", "taps"),
    [
        ("mobilenet_v3_small", "model.classifier.3", [16, 24, 48, 576]),
        ("shufflenet_v2_x0_5", "model.fc", [24, 48, 96, 1024]),
        ("squeezenet1_1", "model.classifier.1", [128, 256, 512]),
    ],
)
def test_torchvision_by_name(name: str, classifier: str, taps: list[int]) -> None:
    torch.manual_seed(0)
    network = TorchvisionClassifier(classes=5, name=name).eval()
    assert class_layers(network) == (classifier,) and network.pooled_tap == f"{classifier}:in"
    found: list[Tensor] = []
    for path in network.taps:
        network.get_submodule(path).register_forward_hook(lambda _, __, out: found.append(out))
    assert tuple(network(torch.randn(1, 3, 64, 64)).shape) == (1, 5)
    assert [each.shape[1] for each in found] == taps
    assert network.get_submodule(network.stem_tap) is not None
    assert all(a.shape[-1] > b.shape[-1] for a, b in itertools.pairwise(found))


def test_a_class_layer_may_be_named_or_be_the_module_of_that_name() -> None:
    assert class_layers(CifarVGG(classes=5, depth=8)) == ("classifier",)
    assert class_layers(CifarResNet(classes=5, depth=8)) == ("fc",)
    assert class_layers(nn.Linear(2, 2)) == ()
