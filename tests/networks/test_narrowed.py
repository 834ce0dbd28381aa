"""Networks with other numbers of channels, and networks that see a smaller picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.networks.cifar_resnet import CifarResNet
from dvsn.networks.folding import fold_batch_norms
from dvsn.networks.narrowed import narrower, widths_of
from dvsn.networks.shrunk import Shrinking

RESNET = {"_target_": "dvsn.networks.cifar_resnet.CifarResNet", "classes": 3, "depth": 8}


def narrowed(layers: Any) -> Any:
    return build(
        {"_target_": "dvsn.networks.narrowed.Narrowed", "network": RESNET, "layers": layers}, path="network"
    )


def shrunk(factor: Any) -> Any:
    return build(
        {"_target_": "dvsn.networks.shrunk.Shrunk", "network": RESNET, "factor": factor}, path="network"
    )


def test_a_narrowed_network_is_one_of_its_own_class() -> None:
    inner = {
        "layer1.0.conv1": [16, 5, 1], "layer1.0.bn1": [5], "layer1.0.conv2": [5, 16, 1],
    }  # fmt: skip
    network = narrowed(inner)
    assert type(network) is CifarResNet and network.taps == CifarResNet.taps
    assert network.layer1[0].conv1.weight.shape == (5, 16, 3, 3)
    assert network.layer1[0].conv2.weight.shape == (16, 5, 3, 3) and network.layer1[0].conv1.bias is None
    assert network.layer1[0].conv1.padding == (1, 1)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"layer9": [3]}, "layers: CifarResNet has no module 'layer9'"),
        ({"bn1": [3, 4]}, r"layers.bn1: found \[3, 4\] for BatchNorm2d, expected"),
        ({"relu": [3]}, "layers.relu: .* for ReLU"),
        ({"conv1": [3, 0, 1]}, "layers.conv1: found"),
        ({"conv1": [3, 16, 2]}, "layers.conv1: 3 and 16 channels do not divide by 2 groups"),
    ],
)
def test_other_widths_are_refused_with_their_place(layers: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        narrowed(layers)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, (3, 1), stride=2, padding=(1, 0), dilation=2, groups=4, bias=False),
        nn.ConvTranspose2d(4, 8, 3, stride=2, padding=1, output_padding=1),
        nn.Linear(4, 8, bias=False),
        nn.BatchNorm2d(4, eps=0.1, momentum=0.2, affine=False),
    ],
)
def test_a_layer_of_the_same_widths_is_the_same_layer(layer: nn.Module) -> None:
    widths = widths_of(layer)
    assert widths is not None
    again = narrower(layer, widths, "x")
    assert repr(again) == repr(layer) and again is not layer
    again.load_state_dict(layer.state_dict(), strict=True)


def test_half_the_input_is_the_mean_of_four_pixels() -> None:
    torch.manual_seed(0)
    network = shrunk(0.5).eval()
    plain = build(RESNET, path="network").eval()
    plain.load_state_dict(network.state_dict(), strict=True)
    image = torch.rand(2, 3, 16, 8)
    small = image.reshape(2, 3, 8, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(network(image), plain(small))
    assert type(network) is CifarResNet and network.multiple == 2 and "multiple" not in vars(CifarResNet)
    folded = fold_batch_norms(network, (1, 3, 16, 8)).network
    torch.testing.assert_close(folded(image), network(image), rtol=1e-4, atol=1e-5)


def test_another_share_of_the_input_is_interpolated() -> None:
    image = torch.rand(1, 3, 8, 12)
    (small,) = Shrinking(0.75)(nn.Identity(), (image,))
    torch.testing.assert_close(small, F.interpolate(image, size=(6, 9), mode="bilinear", align_corners=False))
    assert shrunk(0.75).multiple == 4


@pytest.mark.parametrize("factor", [0.0, 1.0, 0.4, -1.0])
def test_another_factor_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="factor: found"):
        shrunk(factor)


@pytest.mark.slow
def test_half_the_input_is_exported_as_it_answers() -> None:
    pytest.importorskip("onnxruntime")
    from dvsn.networks.onnx_form import onnxruntime

    torch.manual_seed(0)
    network, image = shrunk(0.5).eval(), torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(onnxruntime(network, image)(image), network(image), rtol=1e-3, atol=1e-5)
