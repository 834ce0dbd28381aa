"""What is found of image translation, by hand and by torchmetrics."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure as ssim_of

from dvsn.analysis.pix2pix import Found, compare, difference, psnr


def task_of(labels: Any = None) -> Any:
    return SimpleNamespace(
        label_map=lambda image: labels,
        panels=lambda batch, output: {"generated": (output * 255).to(torch.uint8)},
    )


def batch_of(real: torch.Tensor) -> dict[str, Any]:
    return {"image": real, "target": real, "name": [f"p{n}" for n in range(len(real))]}


def test_psnr_by_hand() -> None:
    assert psnr(0.01) == pytest.approx(20) and psnr(0.0) == pytest.approx(100)
    assert psnr(1.0) == 0


def test_a_picture_that_is_off_by_a_tenth_is_at_20_db() -> None:
    real = torch.full((1, 3, 16, 16), 102, dtype=torch.uint8)  # 0.4
    (picture,) = Found(task_of()).look(batch_of(real), torch.full((1, 3, 16, 16), 0.5))
    assert picture.score == pytest.approx(20, abs=1e-3) and picture.values["l1"] == pytest.approx(
        0.1, abs=1e-6
    )
    c1 = 0.01**2  # flat pictures: SSIM is the term of the means alone
    assert picture.values["ssim"] == pytest.approx((2 * 0.4 * 0.5 + c1) / (0.16 + 0.25 + c1), abs=1e-4)


def test_equal_pictures_are_at_100_db() -> None:
    real = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    (picture,) = Found(task_of()).look(batch_of(real), real.float() / 255)
    assert picture.score == pytest.approx(100) and picture.values["ssim"] == pytest.approx(1, abs=1e-6)


def test_the_map_is_torchmetrics_own() -> None:
    torch.manual_seed(0)
    one, other = torch.rand(1, 3, 24, 20), torch.rand(1, 3, 24, 20)
    error, similar = compare(one, other)
    assert error.shape == similar.shape == (24, 20)
    assert float(similar.mean()) == pytest.approx(float(ssim_of(one, other, data_range=1.0)), abs=1e-6)
    assert float(error.mean()) == pytest.approx(float((one - other).pow(2).mean()), abs=1e-7)


def test_by_class_of_the_label_map() -> None:
    """Left half `road`, off by 0.1; right half `car`, exact; the last row is no class; `sky` is nowhere."""
    ids = torch.zeros(1, 16, 16, dtype=torch.long)
    ids[..., 8:], ids[:, -1] = 1, 255
    real = torch.full((1, 3, 16, 16), 102, dtype=torch.uint8)
    generated = real.float() / 255
    generated[..., :8] += 0.1
    found = Found(task_of((ids, ("road", "car", "sky"))))
    found.look(batch_of(real), generated)
    found.close(lambda own: [own, own])  # two processes that saw the same
    rows = found.tables()["classes of the label map"]
    assert [row["class"] for row in rows] == ["road", "car"] and found.classes == ("road", "car", "sky")
    assert [row["pixels"] for row in rows] == [2 * 8 * 15, 2 * 8 * 15]
    assert [row["psnr"] for row in rows] == pytest.approx([20, 100], abs=1e-3)
    _, similar = compare(generated, real.float() / 255)
    assert rows[0]["ssim"] == pytest.approx(float(similar[:15, :8].mean()), abs=1e-6)
    names = [chart.title for chart in found.charts()]
    assert names == ["PSNR by class of the label map", "SSIM by class of the label map"]


def test_without_a_label_map_there_are_no_classes() -> None:
    found = Found(task_of())
    found.look(batch_of(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)), torch.zeros(1, 3, 16, 16))
    found.close(lambda own: [own])
    assert found.tables() == {} and found.charts() == () and found.classes == ()


def test_a_process_that_saw_no_label_map_still_gathers() -> None:
    """Each process must gather as often as the others."""
    found, calls = Found(task_of()), []

    def gather(own: Any) -> list[Any]:
        calls.append(own)
        if isinstance(own, tuple):
            return [(), ("road",)]
        return [own, torch.ones_like(own)]

    found.close(gather)
    assert found.classes == ("road",) and [
        row["pixels"] for row in found.tables()["classes of the label map"]
    ] == [1]


def test_the_difference_is_black_where_there_is_none() -> None:
    real = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    generated = real.float() / 255
    generated[..., 4:] += 0.5
    painted = difference(generated, real)
    assert painted.shape == (1, 3, 8, 8) and painted.dtype == torch.uint8
    assert painted[0, :, 0, 0].max() < 10 and painted[0, :, 0, 7].min() > 150


def test_a_teacher_beside_it_moves_no_random_numbers() -> None:
    real = torch.full((1, 3, 16, 16), 102, dtype=torch.uint8)
    found = Found(task_of(), lambda image: torch.full((1, 3, 16, 16), 0.4) + 0 * torch.rand(()))
    batch = batch_of(real)
    torch.manual_seed(5)
    (picture,) = found.look(batch, torch.full((1, 3, 16, 16), 0.5))
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(()))
    assert picture.values["teacher"] > 90 and picture.values["distance_to_teacher"] == pytest.approx(
        0.1, abs=1e-6
    )
    assert set(found.panels(batch, torch.full((1, 3, 16, 16), 0.5))) == {"generated", "teacher", "difference"}
    found.close(lambda own: [own])
    student, teacher = found.tables()["student and teacher"]
    assert student["psnr"] == pytest.approx(20, abs=1e-3) and not math.isnan(
        float(teacher["ssim"] or math.nan)
    )
