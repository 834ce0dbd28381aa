"""Cross entropy in strips against torch's on resized logits: values, gradients, ignored pixels, bad numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.losses import resized
from dvsn.losses.resized import resized_cross_entropy

SIZE = (23, 31)


def case(classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits (2, K, 6, 9) in double precision and labels of 23x31 with ignored ones."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, classes, 6, 9, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (2, *SIZE), generator=generator)
    target[0, :4], target[1, :, 7] = 255, 255
    return logits, target


def plain(logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
    full = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(full, target, ignore_index=255, reduction="none")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("strip", [1, 5 * 31 * 9, 5 * 31 * 17, 2**17])  # one line; 9; 8 of both; all at once
@pytest.mark.parametrize("columns", [4, 128])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_torch_on_resized_logits(
    monkeypatch: pytest.MonkeyPatch,
    align_corners: bool,
    strip: int,
    columns: int,
    memory_format: torch.memory_format,
) -> None:
    monkeypatch.setitem(resized.STRIP, "cpu", strip)
    monkeypatch.setattr(resized, "COLUMNS", columns)
    logits, target = case()
    logits = logits.contiguous(memory_format=memory_format).requires_grad_()
    slope = torch.rand(target.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, wanted = (
        resized_cross_entropy(logits, target, align_corners=align_corners),
        plain(logits, target, align_corners),
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(values, logits, slope)[0] for values in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(23, 31), (6, 31), (23, 9), (4, 5)])  # larger, wider, taller, smaller
def test_resize_is_bilinear(align_corners: bool, size: tuple[int, int]) -> None:
    logits = case()[0].requires_grad_()
    found = resized.resize(logits, size, align_corners=align_corners)
    wanted = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slope = torch.rand(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slopes = [torch.autograd.grad(values, logits, slope)[0] for values in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("direction", [(2, -1), (3, -1), (2, 0), (3, 0)])
def test_neighbours_that_agree_on_no_class_do_not_underflow(direction: tuple[int, int]) -> None:
    """Two pixels sure of different classes by 2000: every class between them is far below either's maximum."""
    dim, corner = direction
    logits = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    logits[:, 0].select(dim - 1, corner).fill_(2000)
    logits[:, 1].select(dim - 1, corner + 1).fill_(2000)
    target = torch.ones(1, 7, 9, dtype=torch.int64)
    logits.requires_grad_()
    found, wanted = (f(logits, target, align_corners=True) for f in (resized_cross_entropy, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-9)
    slopes = [torch.autograd.grad(values.sum(), logits)[0] for values in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("level", [True, False])
def test_with_and_without_a_maximum_of_its_own(monkeypatch: pytest.MonkeyPatch, level: bool) -> None:
    """A GPU always takes it."""
    monkeypatch.setattr(resized, "_is_level", lambda _: level)
    logits, target = case()
    logits.requires_grad_()
    found, wanted = (f(logits, target, align_corners=False) for f in (resized_cross_entropy, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(values.sum(), logits)[0] for values in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_float32_whatever_autocast_and_inference_mode_did() -> None:
    logits, target = (each.to(torch.float32) if each.is_floating_point() else each for each in case())
    with torch.inference_mode():
        resized_cross_entropy(logits, target, align_corners=True)  # its interpolation is kept for later
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = resized_cross_entropy(logits, target, align_corners=True)
        slope = torch.autograd.grad(found.sum(), logits)[0]
    wanted = plain(logits, target, align_corners=True)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slope, torch.autograd.grad(wanted.sum(), logits)[0])


def test_logits_of_label_size_and_smaller_labels() -> None:
    for size in (SIZE, (4, 5)):
        logits, target = case()
        target = target[:, : size[0], : size[1]]
        same = F.interpolate(logits, size=SIZE).requires_grad_() if size == SIZE else logits.requires_grad_()
        found, wanted = resized_cross_entropy(same, target, align_corners=False), plain(same, target, False)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(found.sum(), same)[0], torch.autograd.grad(wanted.sum(), same)[0]
        )


def test_ignored_pixels_have_no_value_and_no_slope_whatever_comes_in() -> None:
    logits, target = case()
    logits.requires_grad_()
    values = resized_cross_entropy(logits, torch.full_like(target, 255), align_corners=True)
    assert values.abs().max() == 0
    (values * torch.inf).nan_to_num().sum().backward()
    assert logits.grad is not None and logits.grad.abs().max() == 0


def test_confident_logits_stay_exact_and_bad_ones_show() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0] = torch.tensor([40.0, 1000.0])
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    assert resized_cross_entropy(logits, target, align_corners=True).tolist() == [[[0.0, 0.0]]]
    assert resized_cross_entropy(logits, 1 - target, align_corners=True).tolist() == [[[40.0, 1000.0]]]
    logits[0, 1, 0, 0] = torch.nan
    assert resized_cross_entropy(logits, target, align_corners=True).isnan().tolist() == [[[True, False]]]


def test_a_label_outside_the_classes_is_refused() -> None:
    logits, target = case(classes=3)
    target[1, 2, 3] = 3
    with pytest.raises(RuntimeError):
        resized_cross_entropy(logits, target, align_corners=False)


@pytest.mark.parametrize("level", [True, False])
def test_labels_as_bytes_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, level: bool) -> None:
    monkeypatch.setattr(resized, "_is_level", lambda _: level)
    logits, target = case()
    logits.requires_grad_()
    for labels in (target, target.to(torch.uint8)):
        before = labels.clone()
        found, wanted = (
            resized_cross_entropy(logits, labels, align_corners=False),
            plain(logits, target, False),
        )
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(values.sum(), logits)[0] for values in (found, wanted)]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
        assert labels.equal(before)
