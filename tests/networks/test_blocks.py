"""Blocks, checks and initial weights that networks share."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from dvsn.config.build import options_of
from dvsn.errors import ConfigError
from dvsn.networks.blocks import conv_bias, conv_bn, conv_bn_relu, heads_wanted, require_counts
from dvsn.networks.hrnet import HighResolutionTrunk
from dvsn.networks.hrnet_pose import PoseHRNet
from dvsn.networks.hrnetv2 import HRNetClassifier, HRNetV2
from dvsn.networks.hrnetv2_face import HRNetV2Face
from dvsn.networks.hrnetv2_ocr import HRNetV2OCR
from dvsn.networks.hrnetv2p import HRNetV2p
from dvsn.networks.initialise import kaiming, small_normal
from dvsn.networks.residual import BasicBlock, Bottleneck, residual_layer


def zero(block: nn.Module) -> nn.Module:
    """The block, in evaluation, with convolutions of zero beside its shortcut."""
    for name, module in block.named_children():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            assert name.startswith("conv")
    return block.eval()


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_of_zeros_is_its_shortcut(kind: type[BasicBlock] | type[Bottleneck]) -> None:
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    options = {"expansion": 1} if kind is Bottleneck else {}
    rectified = zero(kind(2, 2, **options))(x)  # type: ignore[arg-type]
    torch.testing.assert_close(rectified, x.clamp(min=0))
    torch.testing.assert_close(zero(kind(2, 2, rectify=False, **options))(x), x)  # type: ignore[arg-type]
    assert x[0, 0, 0, 0] == -1  # not written to


def test_a_shortcut_has_weights_only_where_the_shape_changes() -> None:
    assert BasicBlock(4, 4).downsample is None and Bottleneck(16, 4).downsample is None
    assert BasicBlock(4, 8).downsample is not None and BasicBlock(4, 4, stride=2).downsample is not None
    assert Bottleneck(4, 4).downsample is not None and Bottleneck(8, 4, expansion=2).downsample is None


def test_only_the_first_block_of_a_layer_strides() -> None:
    x = torch.zeros(1, 4, 9, 8)
    assert residual_layer(4, 6, 3, stride=2)(x).shape == (1, 6, 5, 4)
    assert residual_layer(4, 6, 2, expansion=4, stride=2)(x).shape == (1, 24, 5, 4)


def test_padding_keeps_the_size_unless_it_is_given() -> None:
    x = torch.zeros(1, 2, 9, 9)
    assert conv_bn(2, 4, 5)(x).shape[-1] == 9 and conv_bn(2, 4, 3, 2)(x).shape[-1] == 5
    assert conv_bn_relu(2, 4, 7, padding=0)(x).shape[-1] == 3
    assert conv_bn(2, 4, 3, groups=2)[0].weight.shape == (4, 1, 3, 3)
    assert [type(layer) for layer in conv_bn_relu(2, 4, 1)] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_a_bias_stands_beside_norms_without_a_shift() -> None:
    assert not conv_bias(None, "batch") and conv_bias(None, "instance") and conv_bias(None, "none")
    assert conv_bias(True, "batch") and not conv_bias(False, "none")


def test_heads_answer_in_training_or_when_asked_but_only_if_built() -> None:
    network = nn.Identity()
    network.heads = True  # type: ignore[assignment]
    assert heads_wanted(network, None) and not heads_wanted(network, False)
    network.eval()
    assert not heads_wanted(network, None) and heads_wanted(network, True)
    network.heads = False  # type: ignore[assignment]
    assert not heads_wanted(network, True)


def test_counts_below_one_are_refused_by_name() -> None:
    require_counts(nn.Identity(), width=1, blocks=3)
    with pytest.raises(ConfigError, match=r"^Identity: blocks must be at least 1, found 0"):
        require_counts(nn.Identity(), width=1, blocks=0)


@pytest.mark.parametrize(
    "options, deviation",
    [({}, math.sqrt(2 / (128 * 9))), ({"mode": "fan_in", "slope": 1.0}, math.sqrt(1 / (32 * 9)))],
)
def test_kaiming_has_the_deviation_of_its_fan(options: dict[str, float], deviation: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 128, 3)
    bias = layer.bias.detach().clone()  # type: ignore[union-attr]
    kaiming(layer, **options)  # type: ignore[arg-type]
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert torch.equal(layer.bias, bias)  # type: ignore[arg-type]
    kaiming(layer, zero_biases=True)
    assert not layer.bias.any()  # type: ignore[union-attr]


def test_small_normal_reaches_transposed_convolutions_and_leaves_norms() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(64, 64, 4), nn.BatchNorm2d(64))
    small_normal(network, zero_biases=True)
    assert network[0].weight.std().item() == pytest.approx(0.001, rel=0.02) and not network[0].bias.any()
    assert bool((network[1].weight == 1).all())


PUBLISHED = {
    PoseHRNet: (32, "nearest", False, 0.1),
    HRNetV2: (48, "bilinear", False, 0.1),
    HRNetClassifier: (48, "nearest", False, 0.1),
    HRNetV2OCR: (48, "bilinear", True, 0.1),
    HRNetV2Face: (18, "bilinear", False, 0.01),
    HRNetV2p: (32, "bilinear", False, 0.01),
}


@pytest.mark.parametrize("form", PUBLISHED, ids=lambda form: form.__name__)
def test_each_form_of_hrnet_has_all_options_of_the_trunk(form: type[HighResolutionTrunk]) -> None:
    own = options_of(form).named
    assert set(inspect.signature(HighResolutionTrunk).parameters) <= set(own)
    parameters = inspect.signature(form).parameters.values()
    assert all(each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in parameters)
    found = tuple(own[name].default for name in ("width", "enlarge", "align_corners", "bn_momentum"))
    assert found == PUBLISHED[form]
    assert [own[name].default for name in ("bottlenecks", "bottleneck_width", "modules", "blocks")] == [
        4,
        64,
        (1, 4, 3),
        4,
    ]
