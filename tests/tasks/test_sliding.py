"""Windows that are joined while they come, against sums over the whole picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.portable.tiling import centres, spread
from dvsn.tasks.inference import Inference, answers, checked_window, pieces, read_options
from dvsn.tasks.sliding import Blend, spans, total_weights

WEIGHTS = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3))


def near(image: Tensor) -> Tensor:
    """Logits of a network that sees one pixel around each."""
    return F.conv2d(image, WEIGHTS, padding=1)


def placed(image: Tensor) -> Tensor:
    """Logits that also depend on the place in the window."""
    ramp = torch.linspace(0, 1, image.shape[-1])
    return F.conv2d(image, WEIGHTS, padding=1) * (1 + ramp)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 41, 53, generator=torch.Generator().manual_seed(0))


def streamed(image: Tensor, options: Inference, *, together: int = 1) -> Tensor:
    """The picture's logits, of its pieces; what no piece covers is nan, what two cover is refused."""

    def read(top: int, left: int, height: int, width: int) -> Tensor:
        part = image[..., top : top + height, left : left + width]
        assert part.shape[-2:] == (height, width), "read outside of the picture"
        return part

    size = (image.shape[-2], image.shape[-1])
    found = torch.full((1, 4, *size), torch.nan)
    for top, left, part in pieces(placed, read, size, options, align_corners=False, together=together):
        spot = found[..., top : top + part.shape[-2], left : left + part.shape[-1]]
        assert spot.shape == part.shape and spot.isnan().all()
        spot[:] = part
    assert not found.isnan().any()
    return found


def hand_starts(blend: Blend, size: int, window: int, step: int) -> list[int]:
    """Every `step`, the last one shifted back; of ramps as many, in equal steps."""
    count = -(-max(0, size - window) // step) + 1
    if blend == "ramp":
        return [math.floor(Fraction(place * (size - window), max(1, count - 1))) for place in range(count)]
    return [min(place * step, size - window) for place in range(count)]


def hand_weights(blend: Blend, window: int, starts: list[int]) -> Tensor:
    """(window,) the weight of each place, counted in steps from the nearer border."""
    if blend == "even" or len(starts) == 1:
        return torch.ones(window)
    overlap = window - starts[1]
    values = [min(place + 1, window - place, overlap + 1) / (overlap + 1) for place in range(window)]
    return torch.tensor(values)


def summed(image: Tensor, options: Inference) -> Tensor:
    """The same by sums over the whole picture."""
    assert options.window is not None
    (tall, wide), (down, across) = options.window, options.steps
    tops = hand_starts(options.blend, image.shape[-2], tall, down)
    lefts = hand_starts(options.blend, image.shape[-1], wide, across)
    weight = hand_weights(options.blend, tall, tops)[:, None] * hand_weights(options.blend, wide, lefts)
    total, count = torch.zeros(1, 4, *image.shape[-2:]), torch.zeros(image.shape[-2:])
    for top in tops:
        for left in lefts:
            spot = (..., slice(top, top + tall), slice(left, left + wide))
            total[spot] += placed(image[spot]) * weight
            count[spot] += weight
    return total / count


SHAPES = [
    ((16, 24), (12, 18)),
    ((16, 16), (5, 7)),
    ((16, 24), (16, 24)),
    ((41, 53), (10, 10)),
    ((16, 20), None),
]


@pytest.mark.parametrize(("window", "stride"), SHAPES)
def test_even_windows_are_their_plain_mean_to_the_bit(
    window: tuple[int, int], stride: tuple[int, int] | None, image: Tensor
) -> None:
    options = Inference("slide", window, stride)
    assert torch.equal(streamed(image, options), summed(image, options))
    (whole,) = answers(placed, image, options, align_corners=False)
    assert torch.equal(whole, streamed(image, options))
    torch.testing.assert_close(streamed(image, options, together=3), whole)


@pytest.mark.parametrize(("window", "stride"), SHAPES)
def test_ramps_weigh_each_window_by_the_distance_to_its_border(
    window: tuple[int, int], stride: tuple[int, int] | None, image: Tensor
) -> None:
    options = Inference("slide", window, stride, blend="ramp")
    torch.testing.assert_close(streamed(image, options), summed(image, options))


def test_a_ramp_by_hand() -> None:
    (first, second) = spans(10, 6, 4, "ramp")
    torch.testing.assert_close(first.weights, torch.tensor([1, 2, 3, 3, 2, 1]) / 3)
    torch.testing.assert_close(
        total_weights([first, second]), torch.tensor([1, 2, 3, 3, 3, 3, 3, 3, 2, 1]) / 3
    )


@pytest.mark.parametrize("blend", ["even", "ramp", "centre"])
def test_a_network_that_sees_little_answers_as_on_the_whole_picture(blend: Blend, image: Tensor) -> None:
    """It differs only where a window that counts ends within the picture; of centres that is nowhere."""
    options = Inference("slide", (16, 20), (12, 14), blend=blend)
    (found,) = answers(near, image, options, align_corners=False)
    apart = torch.zeros(image.shape[-2:], dtype=torch.bool)
    for top in hand_starts(blend, 41, 16, 12):
        for left in hand_starts(blend, 53, 20, 14):
            inside = torch.ones_like(apart)
            bottom, right = top + 16, left + 20
            edges = [top] * (top > 0) + [bottom - 1] * (bottom < 41)
            inside[edges, left:right] = False
            edges = [left] * (left > 0) + [right - 1] * (right < 53)
            inside[top:bottom, edges] = False
            apart |= ~inside
    off = (found - near(image)).abs().amax(dim=(0, 1)) > 1e-4
    assert not (off & ~apart).any()
    assert off.any() == (blend != "centre")


def test_ramps_are_spread_evenly_so_that_no_row_overlaps_more_than_another() -> None:
    assert spread(20_000, 1024, 896)[:3] == [0, 862, 1725] and spread(20_000, 1024, 896)[-1] == 18_976
    assert len(spread(20_000, 1024, 896)) == 23 and spread(8, 8, 6) == [0] and spread(5, 8, 6) == [0]
    rows = spans(20_000, 1024, 896, "ramp")
    assert max(one.last - other.first for one, other in itertools.pairwise(rows)) <= 163
    assert [each.start for each in spans(20_000, 1024, 896, "even")][-2:] == [18_816, 18_976]


def test_centres_share_a_side_out() -> None:
    assert centres([0, 12, 25], 16, 41) == [(0, 14), (14, 26), (26, 41)]
    assert centres([0], 16, 9) == [(0, 9)]


def test_a_mirror_is_averaged_window_by_window(image: Tensor) -> None:
    options = Inference("slide", (16, 24), (12, 18), flip=True)
    (found,) = answers(placed, image, options, align_corners=False, swaps=[(0, 2)])

    def both(part: Tensor) -> Tensor:
        return (placed(part) + placed(part.flip(-1)).flip(-1)[:, [2, 1, 0, 3]]) / 2

    (expected,) = answers(both, image, options._replace(flip=False), align_corners=False)
    torch.testing.assert_close(found, expected)


def test_nothing_of_the_size_of_the_picture_is_kept() -> None:
    """The sums that are kept are those of the overlap, whatever the height."""
    seen: list[int] = []

    def look(top: int, lefts: Sequence[int]) -> Iterator[Tensor]:
        yield from (torch.zeros(1, 2, 8, 8) for _ in lefts)

    from dvsn.tasks import sliding

    rows, columns = spans(800, 8, 6, "ramp"), spans(20, 8, 6, "ramp")
    for piece in sliding.slide(look, rows, columns):
        seen.append(piece.scores.numel())
    assert max(seen) <= 2 * 8 * 8 and len(seen) == len(rows) * len(columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": "mean"}, "task.inference.blend: found 'mean'"),
        ({"stride": [9, 4]}, r"task.inference.stride: found \[9, 4\] with windows of \[8, 8\]"),
    ],
)
def test_wrong_windows_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options({"mode": "slide", "window": 8, **options})


def test_a_window_that_the_network_cannot_take_is_refused() -> None:
    assert checked_window(Inference("slide", (64, 96)), 32, "UNet") == (64, 96)
    with pytest.raises(
        ConfigError, match=r"UNet needs sides that 32 divides. Set inference.window=\[64, 96\]"
    ):
        checked_window(Inference("slide", (50, 96)), 32, "UNet")
