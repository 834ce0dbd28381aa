"""The objectives of image translation, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from dvsn.errors import ConfigError, UserError
from dvsn.losses.translation import TranslationLoss, dissimilarity
from dvsn.networks.patchgan import PatchGan

REAL = torch.tensor([[2.0, -1.0]])
FAKE = torch.tensor([[0.5, -3.0, 0.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("mode", "real", "fake", "gan"),
    [
        ("vanilla", (softplus(-2) + softplus(1)) / 2, (softplus(0.5) + softplus(-3) + math.log(2)) / 3,
         (softplus(-0.5) + softplus(3) + math.log(2)) / 3),
        ("lsgan", (1 + 4) / 2, (0.25 + 9) / 3, (0.25 + 16 + 1) / 3),
        ("wgangp", -0.5, -2.5 / 3, 2.5 / 3),
        ("hinge", (0 + 2) / 2, (1.5 + 0 + 1) / 3, 2.5 / 3),
    ],
)  # fmt: skip
def test_by_hand(mode: str, real: float, fake: float, gan: float) -> None:
    image, target = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.25)
    loss = TranslationLoss(mode=mode, halve_discriminator=False)
    terms = loss.discriminator_terms(REAL, FAKE)
    assert list(terms) == ["discriminator_real", "discriminator_fake"]
    assert terms["discriminator_real"].item() == pytest.approx(real)
    assert terms["discriminator_fake"].item() == pytest.approx(fake)
    assert loss.discriminator_real(REAL) == terms["discriminator_real"]
    assert loss.discriminator_fake(FAKE) == terms["discriminator_fake"]
    terms = loss.generator_terms(FAKE, image, target)
    assert list(terms) == ["gan", "l1"]
    assert terms["gan"].item() == pytest.approx(gan)
    assert terms["l1"].item() == pytest.approx(25.0)

    halved = TranslationLoss(mode=mode, l1_weight=10.0, gan_weight=3.0)
    terms = halved.discriminator_terms(REAL, FAKE) | halved.generator_terms(FAKE, image, target)
    assert [term.item() for term in terms.values()] == pytest.approx([real / 2, fake / 2, 3 * gan, 2.5])
    assert all(term.shape == () for term in terms.values())


def test_vanilla_is_cross_entropy_and_does_not_saturate() -> None:
    loss = TranslationLoss(halve_discriminator=False)
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.discriminator_real(x), nn.BCELoss()(x.sigmoid(), torch.ones_like(x)))
    torch.testing.assert_close(loss.discriminator_fake(x), nn.BCELoss()(x.sigmoid(), torch.zeros_like(x)))
    assert loss.discriminator_real(torch.tensor([-150.0])) == 150.0
    assert loss.discriminator_fake(torch.tensor([150.0])) == 150.0
    x = torch.tensor([-150.0], requires_grad=True)
    loss.discriminator_real(x).backward()
    assert x.grad == -1.0


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "wgangp", "hinge"])
def test_gradients_point_the_right_way(mode: str) -> None:
    loss = TranslationLoss(mode=mode)
    x = torch.zeros(4, requires_grad=True)
    (real,) = torch.autograd.grad(loss.discriminator_real(x), x)
    (fake,) = torch.autograd.grad(loss.discriminator_fake(x + 0.1), x)
    (gan,) = torch.autograd.grad(loss.generator_terms(x, x, x)["gan"], x)
    assert (real < 0).all()
    assert (fake > 0).all()
    assert (gan < 0).all()


def test_float32_in_half_precision() -> None:
    """In bfloat16 neither 257 nor the mean of 1 and 1 + 2**-8 exists."""
    loss = TranslationLoss(mode="wgangp", l1_weight=1.0, halve_discriminator=False)
    logits = torch.tensor([1.0, 258.0]).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss.discriminator_terms(logits, logits)
        terms |= loss.generator_terms(logits, torch.zeros(2), torch.tensor([1.0, 1.0 + 2**-8]))
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert terms["discriminator_fake"] == 129.5
    assert terms["l1"] == 1.0 + 2**-9


def test_shapes_must_agree() -> None:
    with pytest.raises(UserError, match=r"\(2, 3, 4, 4\).*\(2, 1, 4, 4\)"):
        TranslationLoss().generator_terms(FAKE, torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "wgan"}, r"mode='wgan'. Did you mean 'wgangp'"),
        ({"l1_weight": -1.0}, r"l1_weight must be finite and at least 0, found -1.0"),
        ({"gan_weight": float("nan")}, r"gan_weight"),
        ({"penalty_weight": float("inf")}, r"penalty_weight"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TranslationLoss(**options)


def test_accuracy() -> None:
    terms = TranslationLoss().accuracy(REAL, FAKE)
    assert terms["real"] == 0.5
    assert terms["fake"].item() == pytest.approx(2 / 3)
    terms = TranslationLoss(mode="lsgan").accuracy(torch.tensor([0.4, 0.6]), torch.tensor([0.4, 0.6]))
    assert (terms["real"], terms["fake"]) == (0.5, 0.5)


# The gradient penalty ----------------------------------------------------------------------


class Half(nn.Module):
    """D(x) = |x|^2 / 2, so that the gradient is x itself."""

    def forward(self, pair: Tensor) -> Tensor:
        assert pair.dtype == torch.float32
        return 0.5 * pair.square().sum(dim=(1, 2, 3))


def test_penalty_by_hand() -> None:
    condition, real, fake = torch.full((2, 1, 1, 2), 2.0), torch.ones(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    fake[1] = 3.0
    loss = TranslationLoss(mode="wgangp", penalty_weight=10.0)
    penalty = loss.gradient_penalty(Half(), condition, real, fake, generator=torch.Generator().manual_seed(3))
    u, v = torch.rand(2, generator=torch.Generator().manual_seed(3)).tolist()
    norms = [math.sqrt(8 + 2 * u**2), math.sqrt(8 + 2 * (v + 3 * (1 - v)) ** 2)]
    assert penalty.item() == pytest.approx(10 * sum((norm - 1) ** 2 for norm in norms) / 2, rel=1e-5)
    alone = loss.gradient_penalty(Half(), None, real, real)  # every point between is real itself
    assert alone.item() == pytest.approx(10 * (math.sqrt(2) - 1) ** 2, rel=1e-5)


def test_penalty_is_the_discriminators_alone() -> None:
    torch.manual_seed(0)
    network = PatchGan(width=4, layers=1, norm="instance", image_first=True, init="kaiming")
    condition, real = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    fake = torch.randn(2, 3, 8, 8, requires_grad=True)
    orders = []
    network.register_forward_pre_hook(lambda _, pairs: orders.append(torch.equal(pairs[0][:, 3:], condition)))
    loss = TranslationLoss(mode="wgangp", penalty_weight=10.0)
    types = []
    network.head.register_forward_hook(lambda _, __, output: types.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        penalty = loss.gradient_penalty(network, condition, real, fake)
    assert types == [penalty.dtype] == [torch.float32]
    penalty.backward()
    assert orders == [True]
    assert fake.grad is None
    for key in ("stages.0.conv", "stages.1.conv", "head"):
        assert network.get_submodule(key).weight.grad.abs().max() > 0


def test_penalty_of_flat_and_of_unit_critics() -> None:
    real, fake = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    loss = TranslationLoss(mode="wgangp", penalty_weight=10.0)
    scale = torch.zeros((), requires_grad=True)
    flat = loss.gradient_penalty(lambda pair: (scale * pair).sum(dim=(1, 2, 3)), None, real, fake)
    assert flat.item() == pytest.approx(10.0)
    flat.backward()
    assert scale.grad.item() == pytest.approx(-40.0)  # 1e-16 gives the norm a slope at zero: 10 * 2 * -1 * 2
    unit = loss.gradient_penalty(lambda pair: 0.5 * pair.sum(dim=(1, 2, 3)), None, real, fake)
    assert unit.item() == pytest.approx(0.0, abs=1e-10)


def test_no_weight_no_penalty() -> None:
    def refuse(pair: Tensor) -> Tensor:
        raise AssertionError("the discriminator was run")

    penalty = TranslationLoss().gradient_penalty(
        refuse, None, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    )
    assert penalty == 0.0
    assert penalty.dtype == torch.float32


def test_dissimilarity_by_hand() -> None:
    """Of one window, whose sums are written out."""
    image = torch.linspace(-1, 1, 49, dtype=torch.float64).reshape(1, 1, 7, 7)
    target = (image * 0.5).flip(-1)
    x, y = ((image + 1) / 2).flatten().tolist(), ((target + 1) / 2).flatten().tolist()
    mx, my = sum(x) / 49, sum(y) / 49
    vx, vy = sum((v - mx) ** 2 for v in x) / 49, sum((v - my) ** 2 for v in y) / 49
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / 49
    ssim = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert dissimilarity(image, target).item() == pytest.approx(1 - ssim, abs=1e-5)


def test_dissimilarity_is_that_of_torchmetrics_with_equal_weights() -> None:
    random = torch.Generator().manual_seed(0)
    image, other = (torch.rand(2, 3, 24, 32, generator=random) for _ in range(2))
    other = 0.7 * image + 0.3 * other
    wanted = structural_similarity_index_measure(
        other, image, data_range=1.0, gaussian_kernel=False, kernel_size=7
    )
    found = 1 - dissimilarity(2 * other - 1, 2 * image - 1)
    assert isinstance(wanted, Tensor) and found.item() == pytest.approx(
        wanted.item(), abs=4e-3
    )  # it leaves out windows at the border


def test_a_weight_of_similarity_is_a_third_term() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    moved = image.flip(-1).requires_grad_()
    assert set(TranslationLoss().generator_terms(FAKE, moved, image)) == {"gan", "l1"}
    terms = TranslationLoss(ssim_weight=3.0).generator_terms(FAKE, moved, image)
    assert (
        terms["ssim"].item() == pytest.approx(3 * dissimilarity(moved, image).item()) and terms["ssim"] > 0.5
    )
    terms["ssim"].backward()
    assert moved.grad is not None and bool(moved.grad.isfinite().all()) and moved.grad.abs().sum() > 0
    flat = torch.zeros(1, 3, 16, 16)
    assert TranslationLoss(ssim_weight=3.0).generator_terms(FAKE, flat, flat)["ssim"].item() == pytest.approx(
        0
    )
