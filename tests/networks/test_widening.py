"""First convolutions for other than three channels: which they are, how they start, and what RGB weights become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.networks.widening import fitted, readers_of, widen, widened
from tests.support.tiny import composed

NETWORKS = ("resnet8",)
SLOW = (
    "pidnet_s", "bisenetv1", "bisenetv2", "ddrnet_23_slim", "hrnetv2_w18_small_v1", "hrnetv2_w48_ocr",
    "torchvision_segmentation",
    "timm_segmenter", "timm_classifier", "resnet18_classifier", "resnet50_cifar", "torchvision", "pidnet_s_classifier",
    "wrn_16_1", "vgg8", "mobilenetv2_half", "shufflenet_v1", "shufflenet_v2",
)  # fmt: skip


def network_of(name: str, tmp_path: Any) -> nn.Module:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    segments = (
        "pidnet_s",
        "bisenet",
        "ddrnet_23_slim",
        "hrnetv2",
        "torchvision_segmentation",
        "timm_segmenter",
    )
    task = (
        "segmentation" if name.startswith(segments) and not name.endswith("classifier") else "classification"
    )
    config = composed([f"task={task}", f"network={name}", "data.classes=3"], tmp_path)
    return build(config["network"], path="network")  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_network_reads_four_channels(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    network = network_of(name, tmp_path)
    rgb = {key: value.shape for key, value in network.state_dict().items()}
    four = widen(
        network, 4
    ).train()  # in evaluation the norms of a fresh network leave nothing of the picture
    changed = {key for key, value in four.state_dict().items() if value.shape != rgb[key]}
    layers: Any = four.image_layers
    assert changed == {f"{path}.weight" for path in layers} and changed
    with torch.no_grad():
        image = torch.rand(2, 4, 64, 64)
        torch.manual_seed(1)
        first = answer_of(four(image))
        torch.manual_seed(1)
        other = answer_of(four(torch.cat([image[:, :3], 1 - image[:, 3:]], dim=1)))
        assert torch.isfinite(first).all() and not torch.allclose(first, other)  # the fourth channel is seen
        with pytest.raises(Exception, match=r"4|channels"):
            four(torch.rand(2, 3, 64, 64))


def answer_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def test_rgb_weights_by_hand() -> None:
    kernels = torch.tensor([[[[1.0]], [[2.0]], [[6.0]]]])  # one filter, three channels: the mean is 3
    assert widened(kernels, 4).flatten().tolist() == [2.25] * 4  # 3 * 3 / 4
    assert widened(kernels, 1).flatten().tolist() == [9.0]
    assert widened(kernels, 3) is kernels
    image = torch.full((1, 3, 2, 2), 0.7)
    for channels in (1, 4, 7):
        made = nn.functional.conv2d(image[:, :1].expand(-1, channels, -1, -1), widened(kernels, channels))
        torch.testing.assert_close(made, nn.functional.conv2d(image, kernels))


def test_weights_of_rgb_are_made_to_fit() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 1, 1))
    rgb = {key: value.clone() for key, value in network.state_dict().items()}
    assert readers_of(network)[0] == [
        "0",
        "2",
    ]  # as large as the picture and of three channels: told by shape alone
    strided = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1))
    assert readers_of(strided)[0] == ["0"]
    own = widen(strided, 4).state_dict()
    found = fitted(rgb, strided, own)
    torch.testing.assert_close(
        found["0.weight"], rgb["0.weight"].mean(1, keepdim=True).repeat(1, 4, 1, 1) * 0.75
    )
    assert found["2.weight"] is rgb["2.weight"]


def test_a_network_that_reads_no_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match="no convolution of Identity was found"):
        widen(nn.Identity(), 4)
    network = nn.Conv2d(3, 2, 3)
    assert widen(network, 3) is network and network.in_channels == 3
