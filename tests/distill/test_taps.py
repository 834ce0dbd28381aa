"""Taps: what is recorded, what is refused, and that looking changes nothing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.config.partners import shipped
from dvsn.distill import taps
from dvsn.distill.taps import Taps
from dvsn.errors import ConfigError
from dvsn.networks.cifar_resnet import CifarResNet
from dvsn.networks.resnet_generator import ResNetGenerator
from dvsn.networks.unet import UNet
from dvsn.types import SegmentationOutput


class Small(nn.Module):
    """Two layers; the second ReLU is in place where asked for."""

    taps = ("first", "second")
    stem_tap = "norm"
    pooled_tap = "head:in"
    pre_activation_taps = ("act:in",)
    tap_norms = ("norm",)
    classifier = ("head",)

    def __init__(self, *, inplace: bool = False, plus: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=inplace)
        self.second = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)
        self.unused = nn.Linear(2, 2)
        self.plus = plus

    def forward(self, image: Tensor) -> SegmentationOutput:
        x = self.first(image)
        y = self.act(self.norm(x))
        if self.plus:
            x += 1
        return SegmentationOutput(self.head(self.second(y).mean((2, 3))))


def test_outputs_and_inputs_are_recorded_as_they_are() -> None:
    network, image = Small().eval(), torch.randn(2, 3, 8, 8)
    recorder = Taps(network, ["first", "act:in", "head:in", "", "first"][:3])
    recorder.install()
    network(image)
    assert not recorder._seen  # outside of the `with`
    with recorder:
        network(image)
    found = recorder.take()
    assert list(found) == ["first", "act:in", "head:in"] and not recorder._seen
    torch.testing.assert_close(found["first"], network.first(image))
    torch.testing.assert_close(found["act:in"], network.norm(found["first"]))
    assert found["first"].requires_grad and float(found["act:in"].detach().min()) < 0
    recorder.remove()
    with recorder:
        network(image)
    assert not recorder._seen and not any(m._forward_hooks for m in network.modules())


def test_a_copy_has_no_hooks_and_pickles() -> None:
    network = Small()
    recorder = Taps(network, ["first"])
    assert not pickle.loads(pickle.dumps(recorder))._handles
    recorder.install()
    with recorder:
        network(torch.randn(1, 3, 8, 8))
    twin = copy.deepcopy(recorder)
    assert twin.network[0] is not network and not twin._handles and not twin._seen


@pytest.mark.parametrize(
    ("options", "path"),
    [({"inplace": True}, "norm"), ({"inplace": True}, "act:in"), ({"plus": True}, "first")],
)
def test_an_overwritten_tap_is_refused_with_what_is_intact(options: dict[str, bool], path: str) -> None:
    network = Small(**options)
    with pytest.raises(ConfigError, match="in place") as error:
        taps.probe(network, Taps(network, [path]), lambda: network(torch.randn(1, 3, 8, 8)))
    assert f"'{path}'" in str(error.value) and "Intact" in str(error.value)
    assert ("act" in str(error.value).partition("Intact")[2]) == (path != "act:in" or not options.get("plus"))
    safe = Small()
    assert taps.probe(safe, Taps(safe, [path]), lambda: safe(torch.randn(1, 3, 8, 8))).features[path] == (
        4,
        8,
        8,
    )


def test_relu_inplace_by_function_is_seen() -> None:
    class Functional(Small):
        def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
            return F.relu(self.first(image), inplace=True)

    network = Functional()
    with pytest.raises(ConfigError, match="overwritten"):
        taps.probe(network, Taps(network, ["first"]), lambda: network(torch.randn(1, 3, 8, 8)))


def test_a_dry_run_leaves_no_trace() -> None:
    network = Small().train()
    network.second.eval()
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()

    def forward() -> SegmentationOutput:
        torch.rand(3)
        return network(torch.randn(1, 3, 8, 8))

    found = taps.probe(network, Taps(network, ["second", "head:in"]), forward)
    assert found == taps.Probe((5,), {"second": (6, 3, 3), "head:in": (6,)})
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert network.training and network.norm.training and not network.second.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_misspelt_path_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'second'"):
        Taps(Small(), ["secnd:in"])


def test_a_module_that_is_not_called_is_refused() -> None:
    network = Small()
    with pytest.raises(ConfigError, match="not reached"):
        taps.probe(network, Taps(network, ["unused"]), lambda: network(torch.randn(1, 3, 8, 8)))


def test_roles_are_what_the_class_declares() -> None:
    assert taps.roles(Small()) == {
        "stages": ("first", "second"), "pre_activation": ("act:in",), "last": ("second",), "last_map": ("second",),
        "dense": ("second",), "pooled": ("head:in",),
        "stem_and_stages": ("norm", "first", "second"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'stages'"):
        taps.role(Small(), "stage")
    with pytest.raises(ConfigError, match="does not say where its 'pooled' taps are"):
        taps.role(nn.Conv2d(1, 1, 1), "pooled")


def test_pairs_are_explicit() -> None:
    student, teacher = CifarResNet(classes=3, depth=8), CifarResNet(classes=3, depth=14)
    assert taps.pairs(student, teacher, "last") == (("layer3",), ("layer3",))
    assert taps.pairs(student, teacher, [["layer1", "layer2"], ["conv1:in", "fc"]]) == (
        ("layer1", "conv1:in"),
        ("layer2", "fc"),
    )
    assert taps.pairs(student, teacher, None) == ((), ())
    with pytest.raises(
        ConfigError, match=r"3 of CifarResNet \(layer1, layer2, layer3\) and 2 of Small \(first, second\)"
    ):
        taps.pairs(student, Small(), "stages")
    with pytest.raises(ConfigError, match="expected pairs"):
        taps.pairs(student, teacher, [["layer1"]])
    with pytest.raises(ConfigError, match="CifarResNet has no module 'layer4'"):
        taps.pairs(student, teacher, [["layer1", "layer4"]])


def test_norms_and_head_are_found_where_the_network_names_them() -> None:
    network = CifarResNet(classes=3, depth=8)
    found = taps.norms(network, taps.role(network, "pre_activation"))
    assert found == tuple(network.get_submodule(f"layer{i}.0.bn2") for i in (1, 2, 3))
    assert taps.norms(network, ["conv1"]) == (None,)
    assert taps.head(network) is network.fc and taps.head(nn.Conv2d(1, 1, 1)) is None


def test_points_tell_shape_and_whether_they_can_be_tapped() -> None:
    network = Small(inplace=True)
    found = {point.path: point for point in taps.points(network, lambda: network(torch.randn(1, 3, 8, 8)))}
    assert found["first"] == taps.Point("first", "Conv2d", (4, 8, 8), True)
    assert not found["norm"].intact and found["act"].intact and "unused" not in found


def test_the_command_lists_places_with_shapes() -> None:
    from dvsn.engine.tap_table import rows

    table = {
        row[0]: row[1:]
        for row in rows(CifarResNet(classes=10, depth=8, widths=(32, 64, 128, 256)), [32, 32], depth=1)
    }
    assert table["layer1"] == ("Sequential", "64 x 32 x 32", "stages[0], stem_and_stages[1]")
    assert table["layer3"] == (
        "Sequential",
        "256 x 8 x 8",
        "stages[2], last, last_map, dense, stem_and_stages[3]",
    )
    assert table["fc:in"] == ("", "256", "pooled") and table["fc"] == ("Linear", "10", "")
    assert table["layer2.0.relu:in"] == ("", "128 x 16 x 16", "pre_activation[1]")
    assert "layer1.0" not in table


HEADS = {
    "pidnet_s": "final_layer", "ddrnet_23_slim": "final_layer", "ddrnet_23_adb_bag": "final_layer", "bisenetv1": "conv_out",
    "bisenetv1_adb_bag": "conv_out", "bisenetv2": "head", "hrnetv2_w18_small_v1": "last_layer.3",
    "hrnetv2_w48_ocr": "cls_head", "hrnet_small": "final_layer", "simplebaseline_18": "final_layer",
    "hrnetv2_w18_face": "head.3",
}  # fmt: skip
"""Of networks that answer with maps the head, which turns the dense tap into the answer."""


@pytest.mark.parametrize("name", HEADS)
def test_the_dense_tap_is_the_map_that_the_head_reads(name: str) -> None:
    """At the network's own stride, 1/8 of real-time segmenters and not 1/32 or 1/64."""
    text = Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text.replace("${data.classes}", "3").replace("${data.joints}", "3"))
    torch.manual_seed(0)
    network = build(node, path="network").eval()
    recorder = Taps(network, taps.role(network, "dense"))
    recorder.install()
    image = torch.randn(1, 3, 64, 128)
    with torch.no_grad(), recorder:
        answer = network(image)
    (feature,) = recorder.take().values()
    logits = answer if isinstance(answer, Tensor) else answer[0]
    with torch.no_grad():
        again = network.get_submodule(HEADS[name])(feature)
    stride = 4 if name.startswith(("hrnet", "simple")) else 8
    assert feature.shape[-2:] == (64 // stride, 128 // stride)
    if name.startswith("bisenet"):  # enlarged to the picture at the end
        again, logits = (each.mean(dim=(2, 3)) for each in (again, logits))
        torch.testing.assert_close(again, logits, rtol=0.05, atol=1e-2)
    else:
        torch.testing.assert_close(again, logits)


def test_methods_of_pixels_tap_the_dense_map() -> None:
    for name in ("cirkd", "skd", "ifvd", "cwd_features", "sp", "ft"):
        node = yaml.safe_load(Path(conf_dir(), "distill", f"{name}.yaml").read_text(encoding="utf-8"))
        assert node[name]["taps"] == "dense"
    from dvsn.networks.pidnet import PIDNet

    assert taps.role(PIDNet(classes=3), "dense") == ("dfm",)


@pytest.mark.parametrize(
    ("name", "head", "channels", "stride"),
    [
        ("hrnet_small", ["final_layer"], None, 4),
        ("simplebaseline_18", ["deconv_layers", "final_layer"], 512, 32),
        ("hrnetv2_w18_face", ["head"], 18 * (1 + 2 + 4 + 8), 4),
    ],
)
def test_dwpose_taps_what_the_head_is_given(
    name: str, head: list[str], channels: int | None, stride: int
) -> None:
    """As the paper's backbone hands it on: for faces all four streams, of which `last` is the coarsest alone, at 1/32."""
    tapped = shipped("distill")["dwpose"]["dwpose"]["taps"]
    text = Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8")
    torch.manual_seed(0)
    network = build(yaml.safe_load(text.replace("${data.joints}", "3")), path="network").eval()
    recorder = Taps(network, taps.role(network, tapped))
    recorder.install()
    with torch.no_grad(), recorder:
        answer = network(torch.randn(1, 3, 64, 96))
    (feature,) = recorder.take().values()
    assert feature.shape[-2:] == (64 // stride, 96 // stride)
    assert channels is None or feature.shape[1] == channels
    with torch.no_grad():
        for part in head:
            feature = network.get_submodule(part)(feature)
    torch.testing.assert_close(feature, answer)


def test_omgd_taps_the_maps_of_the_published_code() -> None:
    """Layers 9, 12, 15 and 18 of its ResNet generator: behind the second halving and every third block."""
    tapped = shipped("distill")["omgd"]["omgd"]["taps"]
    generator = ResNetGenerator(width=4, blocks=9)
    assert taps.role(generator, tapped) == ("downs.1", "blocks.2", "blocks.5", "blocks.8")
    decoder = taps.role(UNet(width=4, depth=4), tapped)
    assert decoder == ("ups.2", "ups.1", "ups.0")  # `last` is the innermost alone, at 1/8


@pytest.mark.parametrize(
    "name", ["resnet8x4", "vgg8", "wrn_16_1", "mobilenetv2_half", "shufflenet_v1", "shufflenet_v2"]
)
def test_classifiers_have_no_map_but_their_last(name: str) -> None:
    """sp and ft ask for the dense map, and take the last block of a classifier, as published."""
    node = shipped("network")[name]
    network = build({**node, "classes": 3}, path="network")
    assert taps.role(network, "dense") == taps.role(network, "last")


def test_a_network_of_ones_own_may_declare_its_class_layer_alone() -> None:
    class Own(nn.Module):
        classifier = ("head.1",)

        def __init__(self, last: nn.Module) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(3, 4, 3), last)

    assert taps.role(Own(nn.Conv2d(4, 2, 1)), "dense") == ("head.1:in",)
    with pytest.raises(ConfigError, match="does not say where its 'dense' taps are"):
        taps.role(Own(nn.Linear(4, 2)), "dense")
