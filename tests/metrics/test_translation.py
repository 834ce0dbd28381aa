"""Metrics of image translation against formulas written out in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.metrics.fcn_score import FcnScore
from dvsn.metrics.translation import BACKBONE_FILES, Lpips, distribution_metrics, translation_metrics


def pictures(count: int, *, size: int = 24, seed: int = 0) -> Tensor:
    """Smooth random pictures (N, 3, H, W) in [0, 1]."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size // 4, size // 4, generator=random)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").clamp(0, 1)


def ssim(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Wang et al., 2004: 11 x 11 windows of a Gaussian with sigma 1.5, one channel, borders reflected."""
    a, b = np.pad(a, 5, mode="reflect"), np.pad(b, 5, mode="reflect")
    ticks = np.arange(11) - 5
    line = np.exp(-(ticks**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (image[top : top + 11, left : left + 11] for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * x * x).sum() - mean_x**2, (window * y * y).sum() - mean_y**2
            both = (window * x * y).sum() - mean_x * mean_y
            c1, c2 = 0.01**2, 0.03**2
            above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
            values.append(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return float(np.mean(values))


def test_l1_psnr_and_ssim_are_means_over_pictures() -> None:
    real = pictures(3)
    generated = (
        real + 0.2 * (pictures(3, seed=1) - 0.5) * torch.tensor([0.1, 1.0, 3.0])[:, None, None, None]
    ).clamp(0, 1)
    metrics = translation_metrics()
    for first, last in ((0, 2), (2, 3)):  # batches of unequal size
        metrics.update(generated[first:last], real[first:last])
    found = {name: float(value) for name, value in metrics.compute().items()}
    a, b = generated.double().numpy(), real.double().numpy()
    squares = ((a - b) ** 2).mean(axis=(1, 2, 3))
    assert found["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert found["psnr"] == pytest.approx((-10 * np.log10(squares)).mean(), rel=1e-5)  # not of the mean error
    expected = np.mean([ssim(a[i, c], b[i, c]) for i in range(3) for c in range(3)])
    assert found["ssim"] == pytest.approx(expected, abs=2e-4)
    assert set(found) == {"l1", "psnr", "ssim"}


def test_equal_pictures_are_perfect() -> None:
    metrics = translation_metrics()
    metrics.update(pictures(2), pictures(2))
    found = metrics.compute()
    assert float(found["l1"]) == 0 and float(found["ssim"]) == pytest.approx(1) and float(found["psnr"]) > 100


def test_metrics_start_anew_after_reset() -> None:
    metrics = translation_metrics()
    metrics.update(pictures(1), pictures(1, seed=3))
    metrics.compute()
    metrics.reset()
    metrics.update(pictures(1), pictures(1))
    assert float(metrics.compute()["l1"]) == 0


# Distances between distributions ---------------------------------------------------------------------


class Features(nn.Module):
    """Mean and spread of every channel of uint8 pictures: (N, 6)."""

    num_features = 6

    def forward(self, image: Tensor) -> Tensor:
        assert image.dtype == torch.uint8
        image = image.double() / 64
        return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)


def by_hand(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """FID (Heusel et al., 2017) and the unbiased squared MMD of KID with the kernel (x.y / D + 1) ** 3."""
    a, b = (Features()((x * 255).round().to(torch.uint8)).numpy() for x in (generated, real))
    roots = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).astype(complex) ** 0.5
    fid = (
        ((a.mean(0) - b.mean(0)) ** 2).sum()
        + np.trace(np.cov(a.T))
        + np.trace(np.cov(b.T))
        - 2 * roots.real.sum()
    )

    def kernel(x: Any, y: Any) -> Any:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    inside = [(k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b))]
    return float(fid), float(inside[0] + inside[1] - 2 * kernel(a, b).mean())


def test_fid_and_kid_by_hand() -> None:
    real, generated = pictures(9), (pictures(9, seed=5) * 0.7).clamp(0, 1)
    fid, kid = distribution_metrics(Features(), subset_size=50)  # more than there are: all of them
    for metric in (fid, kid):
        metric.update(generated[:4], real[:4])
        metric.update(generated[4:], real[4:])
    expected = by_hand(generated, real)
    assert float(fid.compute()) == pytest.approx(expected[0], rel=1e-3)
    assert float(kid.compute()) == pytest.approx(expected[1], rel=1e-3)


def test_fid_of_one_picture_is_refused_in_words() -> None:
    for metric in distribution_metrics(Features()):
        metric.update(pictures(1), pictures(1))
        with pytest.raises(ConfigError, match=r"metrics.inception_weights: .*at least 2 pictures"):
            metric.compute()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inception_weights": "no/inception.pth"}, ["metrics.inception_weights", "no/inception.pth", "pt_inception"]),
        ({"lpips_weights": "no/alex.pth"}, ["metrics.lpips_weights", "no/alex.pth", "alexnet-owt-7be5be79.pth"]),
        ({"lpips_weights": "x", "lpips_network": "vgg"}, ["metrics.lpips_weights", "vgg16-397923af.pth"]),
        ({"lpips_weights": "x", "lpips_network": "resnet"}, ["metrics.lpips_network", "alex", "vgg", "squeeze"]),
    ],
)  # fmt: skip
def test_missing_weights_name_the_option_and_the_file(
    options: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something is downloaded")

    monkeypatch.setattr("torch.hub.download_url_to_file", never)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", never)
    with pytest.raises(ConfigError) as caught:
        translation_metrics(**options)
    assert all(part in str(caught.value) for part in expected), caught.value


def test_a_file_that_is_no_inception_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "inception.pth"
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(ConfigError, match=r"metrics.inception_weights"):
        translation_metrics(inception_weights=str(file))


# LPIPS -----------------------------------------------------------------------------------------------


def random_features(network: str) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of torchvision's own, the classifier left out."""
    import torchvision

    name = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[network]
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(weights=None).state_dict()
    random = torch.Generator().manual_seed(0)
    return {
        key: 0.05 * torch.randn(value.shape, generator=random)
        for key, value in shapes.items()
        if key.startswith("features.")
    }


@pytest.mark.parametrize(
    "network",
    [pytest.param(each, marks=pytest.mark.slow if each == "vgg" else ()) for each in sorted(BACKBONE_FILES)],
)
def test_lpips_takes_every_backbone_weight(network: str, tmp_path: Path) -> None:
    state = random_features(network)
    torch.save({**state, "classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "backbone.pth")
    metric = Lpips(network=network, weights=str(tmp_path / "backbone.pth"))
    own = metric.net.net.state_dict()
    assert len(own) == len(state)
    for value, expected in zip(own.values(), state.values(), strict=True):  # both in the order of the layers
        assert torch.equal(value, expected)
    image = pictures(2, size=64)
    metric.update(image, image)
    assert float(metric.compute()) == 0
    metric.update(image, pictures(2, size=64, seed=1))
    assert float(metric.compute()) > 0


def test_lpips_is_the_mean_over_pictures(tmp_path: Path) -> None:
    torch.save(random_features("squeeze"), tmp_path / "squeeze.pth")
    metrics = translation_metrics(lpips_weights=str(tmp_path / "squeeze.pth"), lpips_network="squeeze")
    a, b = pictures(3, size=48), pictures(3, size=48, seed=1)
    metrics.update(a[:1], b[:1])
    metrics.update(a[1:], b[1:])
    with torch.no_grad():
        expected = metrics["lpips"].net(a, b, normalize=True).mean()
    assert float(metrics.compute()["lpips"]) == pytest.approx(float(expected), rel=1e-5)


def test_lpips_refuses_another_networks_file(tmp_path: Path) -> None:
    torch.save(random_features("squeeze"), tmp_path / "squeeze.pth")
    with pytest.raises(ConfigError, match=r"metrics.lpips_weights: .*squeeze.pth"):
        Lpips(network="alex", weights=str(tmp_path / "squeeze.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigError, match=r"metrics.lpips_weights: .*text.pth"):
        Lpips(network="alex", weights=str(tmp_path / "text.pth"))


# FCN score -------------------------------------------------------------------------------------------


def first_channel_as_ids(generated: Tensor) -> Tensor:
    """A segmenter that reads the class off the red channel."""
    return (generated[:, 0] * 255).round().long()


def score(predicted: list[list[int]], ids: list[list[int]], **options: Any) -> dict[str, float]:
    metric = FcnScore(segmenter=first_channel_as_ids, classes=3, **options)
    image = torch.tensor([predicted], dtype=torch.float32)[:, None].expand(-1, 3, -1, -1) / 255
    metric.update(image, torch.tensor([ids], dtype=torch.uint8))
    return {name: float(value) for name, value in metric.compute().items()}


def test_fcn_score_by_hand() -> None:
    # truth: class 0 three times (2 right), class 1 twice (1 right), class 2 never; one pixel is not scored
    predicted, ids = [[0, 0, 1], [1, 0, 2]], [[0, 0, 0], [1, 1, 255]]
    found = score(predicted, ids)
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)
    assert found["class_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["class_iou"] == pytest.approx((2 / 4 + 1 / 3 + 0) / 3)
    skipped = score(predicted, ids, absent_as_zero=False)
    assert skipped["pixel_accuracy"] == pytest.approx(3 / 5)
    assert skipped["class_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert skipped["class_iou"] == pytest.approx((2 / 4 + 1 / 3) / 2)


def test_the_ignored_id_may_be_a_class() -> None:
    found = score([[0, 1], [1, 1]], [[0, 0], [1, 1]], ignore_index=0, absent_as_zero=False)
    assert found == pytest.approx({"pixel_accuracy": 1.0, "class_accuracy": 1.0, "class_iou": 1.0})


def test_an_absent_class_that_is_predicted_has_an_iou_of_zero() -> None:
    found = score([[0, 1, 2]], [[0, 1, 1]], absent_as_zero=False)  # IoU 1, 1/2 and 0; recall 1 and 1/2
    assert found == pytest.approx({"pixel_accuracy": 2 / 3, "class_accuracy": 0.75, "class_iou": 0.5})
    found = score([[0, 2], [0, 2]], [[0, 0], [0, 0]], absent_as_zero=False)
    assert found == pytest.approx({"pixel_accuracy": 0.5, "class_accuracy": 0.5, "class_iou": 0.25})


def test_both_conventions_agree_when_every_class_is_there() -> None:
    predicted, ids = [[0, 1, 2], [2, 1, 0]], [[0, 1, 2], [0, 1, 2]]
    assert score(predicted, ids) == pytest.approx(score(predicted, ids, absent_as_zero=False))


def test_fcn_score_adds_up_over_batches_and_sizes() -> None:
    metric = FcnScore(segmenter=first_channel_as_ids, classes=2, ignore_index=9)
    small = torch.tensor([[[[0.0, 1.0]]]]).expand(1, 3, 1, 2) / 255
    metric.update(small, torch.tensor([[[0, 0, 1, 1], [0, 9, 1, 0]]]))  # the answer is made twice as large
    metric.update(small, torch.tensor([[[1, 1]]]))
    assert float(metric.compute()["pixel_accuracy"]) == pytest.approx((6 + 1) / (7 + 2))


def test_the_segmenters_weights_stay_out_of_the_state() -> None:
    segmenter = nn.Conv2d(3, 2, 1)
    metric = FcnScore(segmenter=lambda image: segmenter(image).argmax(dim=1), classes=2)
    assert not metric.state_dict() and not list(metric.parameters())
