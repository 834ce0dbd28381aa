"""Windows, scales and mirrors, against the same done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.tasks.inference import Inference, answers, read_options, resize, windows


def ask(image: Tensor) -> Tensor:
    """Logits that depend on the place in the window and on the neighbourhood, at half the size."""
    height, width = image.shape[-2:]
    ramp = torch.linspace(0, 1, width).expand(1, 1, height, width)
    features = torch.cat([image, ramp.expand(len(image), -1, -1, -1)], dim=1)
    kernel = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    return F.avg_pool2d(F.conv2d(features, kernel, padding=1), 2, ceil_mode=True)


def scores(image: Tensor, options: Inference, **more: Any) -> Tensor:
    return torch.cat(list(answers(ask, image, options, align_corners=False, **more)))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))


def test_whole_pictures(image: Tensor) -> None:
    expected = F.interpolate(ask(image), size=(20, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores(image, Inference()), expected)


def test_windows_cover_the_side_and_the_last_one_stays_inside() -> None:
    assert windows(20, 8, 6) == [0, 6, 12]
    assert windows(21, 8, 6) == [0, 6, 12, 13]
    assert windows(8, 8, 6) == [0] and windows(5, 8, 6) == [0]
    for size in range(8, 40):
        starts = windows(size, 8, 6)
        assert {p for start in starts for p in range(start, start + 8)} == set(range(size))
        assert starts == sorted(set(starts))


def test_sliding_averages_the_windows(image: Tensor) -> None:
    total, count = torch.zeros(2, 3, 20, 28), torch.zeros(20, 28)
    for top in (0, 8):
        for left in (0, 10, 12):
            part = image[..., top : top + 12, left : left + 16]
            total[..., top : top + 12, left : left + 16] += F.interpolate(
                ask(part), size=(12, 16), mode="bilinear", align_corners=False
            )
            count[top : top + 12, left : left + 16] += 1
    options = Inference("slide", (12, 16), (8, 10))
    torch.testing.assert_close(scores(image, options), total / count)


def test_a_window_larger_than_the_picture_is_padded_and_cut(image: Tensor) -> None:
    padded = F.pad(image, (0, 4, 0, 12))
    expected = F.interpolate(ask(padded), size=(32, 32), mode="bilinear", align_corners=False)[..., :20, :28]
    torch.testing.assert_close(scores(image, Inference("slide", (32, 32))), expected)


def test_the_mirror_is_averaged_with_left_and_right_exchanged(image: Tensor) -> None:
    straight = F.interpolate(ask(image), size=(20, 28), mode="bilinear", align_corners=False)
    turned = F.interpolate(ask(image.flip(-1)), size=(20, 28), mode="bilinear", align_corners=False).flip(-1)
    torch.testing.assert_close(scores(image, Inference(flip=True)), (straight + turned) / 2)
    swapped = scores(image, Inference(flip=True), swaps=[(0, 1)])
    torch.testing.assert_close(swapped, (straight + turned[:, [1, 0, 2]]) / 2)


def test_scales_are_averaged_as_probabilities(image: Tensor) -> None:
    expected = torch.zeros(2, 3, 20, 28)
    for scale, size in ((0.5, (10, 14)), (1.0, (20, 28)), (1.5, (30, 42))):
        scaled = (
            image if scale == 1 else F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        )
        logits = F.interpolate(ask(scaled), size=size, mode="bilinear", align_corners=False)
        logits = F.interpolate(logits, size=(20, 28), mode="bilinear", align_corners=False)
        expected += logits.softmax(dim=1) / 3
    torch.testing.assert_close(scores(image, Inference(scales=(0.5, 1.0, 1.5))), expected)


@pytest.mark.parametrize(("to", "seen"), [((15, 15), (15, 15)), (30, (30, 42)), (10, (10, 14))])
def test_a_resized_picture_is_asked_at_that_size_and_answered_at_its_own(
    to: Any, seen: tuple[int, int], image: Tensor
) -> None:
    options = Inference(resize=to)
    assert options.seen(20, 28) == seen and Inference(resize=7).seen(20, 10) == (14, 7)
    small = F.interpolate(image, size=seen, mode="bilinear", align_corners=False)
    expected = F.interpolate(ask(small), size=(20, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores(image, options), expected)
    mirrored = F.interpolate(ask(small.flip(-1)), size=seen, mode="bilinear", align_corners=False).flip(-1)
    both = (F.interpolate(ask(small), size=seen, mode="bilinear", align_corners=False) + mirrored) / 2
    both = F.interpolate(both, size=(20, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores(image, options._replace(flip=True)), both)


def test_scales_and_windows_are_of_the_resized_picture(image: Tensor) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(given: Tensor) -> Tensor:
        seen.append(tuple(given.shape[-2:]))
        return ask(given)

    options = Inference("slide", (30, 30), (30, 12), (1.0, 2.0), resize=30)
    found = torch.cat(list(answers(watched, image[:1], options, align_corners=False)))
    assert found.shape == (1, 3, 20, 28)
    assert seen == [(30, 30)] * (2 + 2 * 6)  # 30x42: starts 0, 12; 60x84: two rows of 0, 12, 24, 36, 48, 54


def test_resize_keeps_what_fits_and_works_in_float32() -> None:
    logits = torch.randn(1, 2, 3, 3)
    assert resize(logits, (3, 3), align_corners=True) is logits
    assert resize(logits.bfloat16(), (6, 6), align_corners=True).dtype == torch.float32
    corner = resize(logits, (5, 5), align_corners=True)
    torch.testing.assert_close(corner[..., ::2, ::2], logits)  # corners meet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "window"}, "task.inference.mode: found 'window'"),
        ({"mode": "slide"}, "task.inference.window: task.inference.mode=slide needs it"),
        ({"mode": "slide", "window": [3]}, r"task.inference.window: found \[3\]"),
        ({"scales": [0]}, "task.inference.scales"),
        ({"flip": "yes"}, "task.inference.flip"),
        ({"resize": 0}, r"task.inference.resize: found 0, expected .* or one for the shorter side"),
        ({"resize": True}, "task.inference.resize: found True"),
        ({"resize": [473]}, r"task.inference.resize: found \[473\]"),
        ({"scale": [1]}, "task.inference.scale: unknown option. Did you mean 'scales'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(options)


def test_options_from_yaml() -> None:
    found = read_options({"mode": "slide", "window": 8, "stride": [4, 6], "scales": 1, "flip": True})
    assert found == Inference("slide", (8, 8), (4, 6), (1.0,), True) and found.views == 2
    assert read_options(None) == Inference()
