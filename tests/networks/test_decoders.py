"""Decoders against the same sums written out, and their sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError
from dvsn.networks.decoders import FPNDecoder, UNetDecoder, UPerDecoder
from tests.support.networks import distance, parameters_of

WIDTHS = (4, 6, 8, 10)


def maps(height: int = 24, width: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = [(-(-height // 2**level), -(-width // 2**level)) for level in range(len(WIDTHS))]
    return [
        torch.randn(2, channels, *side, generator=generator)
        for channels, side in zip(WIDTHS, sides, strict=True)
    ]


def drawn(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            each.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return module.eval()


def block(x: Tensor, layers: nn.Sequential) -> Tensor:
    """Convolution, norm in evaluation, ReLU."""
    convolution, norm = layers[0], layers[1]
    x = F.conv2d(x, convolution.weight, convolution.bias, padding=convolution.kernel_size[0] // 2)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return ((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp(
        min=0
    )


def nearest(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def bilinear(x: Tensor, like: Tensor) -> Tensor:
    """By hand: corners not aligned, the border repeated; one axis after the other."""

    def along(x: Tensor, count: int) -> Tensor:
        place = ((torch.arange(count) + 0.5) * x.shape[-1] / count - 0.5).clamp(0, x.shape[-1] - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=x.shape[-1] - 1)
        share = place - low
        return x[..., low] * (1 - share) + x[..., high] * share

    return along(along(x, like.shape[-1]).transpose(-1, -2), like.shape[-2]).transpose(-1, -2)


@torch.no_grad()
def test_a_feature_pyramid_by_hand() -> None:
    decoder, given = drawn(FPNDecoder(WIDTHS, 5)), maps()
    sides = [F.conv2d(x, layer.weight, layer.bias) for x, layer in zip(given, decoder.laterals, strict=True)]
    for level in (2, 1, 0):
        sides[level] = sides[level] + nearest(sides[level + 1])
    total = block(sides[0], decoder.branches[0][0])
    for level in (1, 2, 3):
        x = sides[level]
        for step in range(level):
            x = bilinear(block(x, decoder.branches[level][step]), sides[level - 1 - step])
        total = total + x
    assert distance(decoder(given), total) < 1e-5
    assert [len(branch) for branch in decoder.branches] == [1, 1, 2, 3]
    own = 9 * 5 * 5 + 2 * 5
    assert parameters_of(decoder) == sum(5 * width + 5 for width in WIDTHS) + 7 * own


@torch.no_grad()
def test_a_u_net_by_hand() -> None:
    decoder, given = drawn(UNetDecoder(WIDTHS, 32)), maps()
    x = given[3]
    for step, skip in zip(decoder.steps, reversed(given[:3]), strict=True):
        x = torch.cat([nearest(x), skip], dim=1)
        x = block(block(x, step[:3]), step[3:])
    assert distance(decoder(given), x) < 1e-5
    assert decoder.width == 16 == x.shape[1]  # 32, 16, and not below 16
    assert [step[0].in_channels for step in decoder.steps] == [18, 38, 20]


@torch.no_grad()
def test_upernet_by_hand() -> None:
    decoder, given = (
        drawn(UPerDecoder(WIDTHS, 5)),
        maps(48, 96),
    )  # the coarsest map is 6 x 12: all grids divide it
    x = given[3]
    cells = []
    for bins, mix in zip((1, 2, 3, 6), decoder.pools, strict=True):
        means = x.unfold(2, 6 // bins, 6 // bins).unfold(3, 12 // bins, 12 // bins).mean(dim=(4, 5))
        cells.append(bilinear(block(means, mix), x))
    levels = [block(each, layer) for each, layer in zip(given[:3], decoder.laterals, strict=True)]
    levels.append(block(torch.cat([x, *cells], dim=1), decoder.bottleneck))
    for level in (2, 1, 0):
        levels[level] = levels[level] + bilinear(levels[level + 1], levels[level])
    smooth = [block(each, layer) for each, layer in zip(levels[:3], decoder.smooth, strict=True)]
    joined = torch.cat([bilinear(each, levels[0]) for each in (*smooth, levels[3])], dim=1)
    assert distance(decoder(given), block(joined, decoder.fuse)) < 1e-5


@pytest.mark.parametrize("kind", [FPNDecoder, UNetDecoder, UPerDecoder])
def test_maps_that_do_not_double_are_met_at_their_size(kind: type[nn.Module]) -> None:
    given = maps(23, 15)
    assert drawn(kind(WIDTHS, 16))(given).shape == (2, 16, 23, 15)


def test_what_decoders_refuse() -> None:
    with pytest.raises(ConfigError, match="channels must be at least 1, found 0"):
        FPNDecoder(WIDTHS, 0)
    decoder = UPerDecoder(WIDTHS, 4)
    with pytest.raises(UserError, match=r"batch of one picture in training.*data\.batch_size=2"):
        decoder([each[:1] for each in maps()])
    assert decoder.eval()([each[:1] for each in maps()]).shape == (1, 4, 24, 16)


def test_dropout_acts_in_the_innermost_steps() -> None:
    decoder = UNetDecoder(WIDTHS, 8, norm="none", dropout=0.5, dropped=2)
    assert [isinstance(step[-1], nn.Dropout) for step in decoder.steps] == [True, True, False]
    assert decoder.steps[0][0].bias is not None and UNetDecoder(WIDTHS, 8).steps[0][0].bias is None
