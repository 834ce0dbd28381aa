"""The objectives of image translation: an adversarial term, and the distance to the wanted image."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError, nearest
from dvsn.types import Terms

Mode = Literal["vanilla", "lsgan", "wgangp", "hinge"]


class TranslationLoss(nn.Module):
    """What pix2pix minimises, for the discriminator D and for the generator G. All terms are float32 scalars.

    `mode` is the adversarial loss on D's logits x (means over every score of the batch):

        mode      D, real          D, fake          G, fake      source (arXiv)
        vanilla   -log s(x)        -log(1 - s(x))   -log s(x)    Goodfellow et al., 2014, 1406.2661
        lsgan     (x - 1)^2        x^2              (x - 1)^2    Mao et al., 2017, 1611.04076, without its 1/2
        wgangp    -x               x                -x           Gulrajani et al., 2017, 1704.00028
        hinge     max(0, 1 - x)    max(0, 1 + x)    -x           Lim and Ye, 2017, 1705.02894

    with s the sigmoid, which is part of this loss and not of D. `l1_weight` and `gan_weight` weigh G's terms
    (Isola et al., 2017, arXiv:1611.07004, eq. 4: 100 and 1). `halve_discriminator` divides D's terms by two,
    as the paper says and the authors' PyTorch code does; their Lua code and the `post` recipe do not. Labels
    are not smoothed.

    `ssim_weight` adds a third term for G, `ssim`: that weight times `dissimilarity`, which asks for edges where L1 takes
    blurred ones (Zhao et al., 2017, arXiv:1511.08861, who mix L1 with the multi-scale SSIM; here one scale). No pix2pix
    recipe that was published has it.

    `penalty_weight` is the weight of `gradient_penalty` (10 in WGAN-GP; 0 switches it off). The authors'
    code has such a function but never calls it: set 0 to repeat that, a Wasserstein GAN without penalty.
    """

    reads: ClassVar[tuple[str, ...]] = ("image",)

    def __init__(
        self,
        *,
        mode: Mode = "vanilla",
        l1_weight: float = 100.0,
        gan_weight: float = 1.0,
        halve_discriminator: bool = True,
        penalty_weight: float = 0.0,
        ssim_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ConfigError(f"TranslationLoss: unknown mode={mode!r}. {nearest(str(mode), get_args(Mode))}")
        weights = {
            "l1_weight": l1_weight, "gan_weight": gan_weight, "penalty_weight": penalty_weight, "ssim_weight": ssim_weight
        }  # fmt: skip
        for name, weight in weights.items():
            if not 0.0 <= weight < float("inf"):
                raise ConfigError(f"TranslationLoss: {name} must be finite and at least 0, found {weight!r}.")
        self.mode = mode
        self.l1_weight, self.gan_weight, self.penalty_weight = l1_weight, gan_weight, penalty_weight
        self.ssim_weight = ssim_weight
        self.halve_discriminator = halve_discriminator
        self.discriminator_weight = 0.5 if halve_discriminator else 1.0

    def discriminator_terms(self, real_logits: Tensor, fake_logits: Tensor) -> Terms:
        """D's terms, `discriminator_real` and `discriminator_fake`, from its logits of any shape."""
        return {
            "discriminator_real": self.discriminator_real(real_logits),
            "discriminator_fake": self.discriminator_fake(fake_logits),
        }

    def discriminator_real(self, logits: Tensor) -> Tensor:
        """D's term for real images; for a backward of its own."""
        logits = logits.float()
        values = F.relu(1.0 - logits) if self.mode == "hinge" else self._towards_real(logits)
        return self.discriminator_weight * values.mean()

    def discriminator_fake(self, logits: Tensor) -> Tensor:
        """D's term for generated images (detached by the caller); for a backward of its own."""
        logits = logits.float()
        if self.mode == "vanilla":
            values = F.softplus(logits)  # -log(1 - s(x))
        elif self.mode == "lsgan":
            values = logits.square()
        else:
            values = F.relu(1.0 + logits) if self.mode == "hinge" else logits
        return self.discriminator_weight * values.mean()

    def generator_terms(self, fake_logits: Tensor, fake: Tensor, target: Tensor) -> Terms:
        """G's terms: `gan` from D's logits of the fake; `l1`, and `ssim` if it has a weight, from fake and target, both
        (N, C, H, W)."""
        if fake.shape != target.shape:
            raise UserError(f"The generated image is {tuple(fake.shape)}, the target {tuple(target.shape)}.")
        gan = self._towards_real(fake_logits.float()).mean()
        l1 = (fake.float() - target.float()).abs().mean()
        terms = {"gan": self.gan_weight * gan, "l1": self.l1_weight * l1}
        if self.ssim_weight > 0:
            terms["ssim"] = self.ssim_weight * dissimilarity(fake, target)
        return terms

    def _towards_real(self, logits: Tensor) -> Tensor:
        """The adversarial loss that is small where the logits say real: G's, and but for `hinge` D's on real images."""
        if self.mode == "vanilla":
            return F.softplus(-logits)  # -log s(x)
        return (logits - 1.0).square() if self.mode == "lsgan" else -logits

    def gradient_penalty(
        self,
        discriminator: Callable[[Tensor], Tensor],
        condition: Tensor | None,
        real: Tensor,
        fake: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """penalty_weight times the mean over samples of (|g + 1e-16| - 1)^2, in float32 also under autocast.

        g is the gradient of D's summed logits with respect to its input, at a point between the real and the
        fake pair: u * real + (1 - u) * fake, one uniform u per sample (from `generator`, if given). Both
        pairs hold the same condition, so mixing the pairs as the authors' code does, or the images only, is
        the same; the norm runs over every element of the pair, condition included. `discriminator.join` makes
        the pair; a discriminator without it gets the condition first. `real` and `fake` are detached: the
        penalty is D's alone. It assumes that a sample's score does not depend on the others, so D should have no batch norm.
        Gulrajani et al., 2017, arXiv:1704.00028, eq. 3.
        """
        if self.penalty_weight == 0.0:
            return real.new_zeros((), dtype=torch.float32)
        device = real.device if generator is None else generator.device
        mix = torch.rand(real.shape[0], 1, 1, 1, generator=generator, device=device).to(real.device)
        with torch.autocast(real.device.type, enabled=False):
            image = mix * real.detach().float() + (1.0 - mix) * fake.detach().float()
            condition = None if condition is None else condition.detach().float()
            pair = getattr(discriminator, "join", join)(condition, image).requires_grad_()
            scores = discriminator(pair).float().sum()
            (gradient,) = torch.autograd.grad(scores, pair, create_graph=True)
            norm = (gradient.flatten(1) + 1e-16).norm(dim=1)  # (N,)
            return self.penalty_weight * (norm - 1.0).square().mean()

    def accuracy(self, real_logits: Tensor, fake_logits: Tensor) -> Terms:
        """The shares of `real` and of `fake` patches that D classifies correctly, for the log; no gradient.

        The threshold lies midway between the two labels: 0.5 for `lsgan`, else 0. A Wasserstein critic has no
        labels, so for `wgangp` the shares mean little.
        """
        threshold = 0.5 if self.mode == "lsgan" else 0.0
        real, fake = real_logits.detach() > threshold, fake_logits.detach() <= threshold
        return {"real": real.float().mean(), "fake": fake.float().mean()}


def dissimilarity(image: Tensor, target: Tensor, *, window: int = 7) -> Tensor:
    """1 - SSIM, the mean over channels and windows; float32. Both (N, C, H, W) in [-1, 1], sides of at least `window`.

    Wang et al., 2004, "Image quality assessment", eq. 13, with K1 = 0.01 and K2 = 0.03 for pictures in [0, 1]. Each window
    weighs its pixels equally, where the paper's are 11 wide with Gaussian weights: a mean over windows is much cheaper, and
    its ranking of pictures is nearly the same. Variances are those of all pixels, not of a sample.
    """
    first, second = ((each.float() + 1) / 2 for each in (image, target))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1)

    means = mean(first), mean(second)
    variances = (
        (mean(each.square()) - m.square()).clamp(min=0)
        for each, m in zip((first, second), means, strict=True)
    )
    covariance = mean(first * second) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + 0.01**2) / (means[0].square() + means[1].square() + 0.01**2)
    return 1 - (luminance * (2 * covariance + 0.03**2) / (sum(variances) + 0.03**2)).mean()


def join(condition: Tensor | None, image: Tensor) -> Tensor:
    """(N, condition, H, W) and (N, image, H, W) -> (N, condition + image, H, W)."""
    return image if condition is None else torch.cat((condition, image), dim=1)
