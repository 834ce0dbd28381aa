"""Objectives of networks that regress landmarks: distances on pixels of the crop, and PFLD's weighted loss.

All take `output` with `points` (N, L, 2) and, in training, `angles` (N, 3); the true `points` (N, L, 2), fractions of
the crop's sides; `weight` (N, L), 0 for a point that is not labelled; `angles` (N, 3) pitch, yaw and roll in radians, a
row of NaN for a face whose angles are not known, or None; `attributes` (N, A), 0 or 1, or None. Terms are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest
from dvsn.types import LandmarkOutput, Terms

Mode = Literal["robust", "paper", "published", "seed", "seed_as_coded"]
SIZE = 112.0


class LandmarkLoss(nn.Module):
    """A penalty of each number's error d in pixels of a crop of `size`, summed over a face's numbers: the term `points`,
    its mean over the faces.

    The sum over the numbers is that of Feng et al., 2018, arXiv:1711.06753, eq. 5; mmpose takes the mean, so its
    weights of terms do not carry over, nor do those of losses on fractions.

    `angle_weight` weighs the second term, `angles`: the squared errors of the three angles in radians, summed, their
    mean over the faces whose angles are known. There is none where the network or the data have no angles.
    """

    reads: ClassVar[tuple[str, ...]] = ("points",)

    def __init__(self, *, size: float = SIZE, angle_weight: float = 1.0) -> None:
        super().__init__()
        require_positive(self, "size", size)
        require_positive(self, "angle_weight", angle_weight, zero=True)
        self.size, self.angle_weight = size, angle_weight

    def penalty(self, error: Tensor) -> Tensor:
        """The penalty of |d| in pixels, element by element; the shape stays."""
        raise NotImplementedError

    def each(self, output: LandmarkOutput, points: Tensor, weight: Tensor) -> Tensor:
        """The loss of each face, (N,) float32."""
        return (self.penalty(self.size * distances(output.points, points)) * weight.unsqueeze(-1)).sum((1, 2))

    def forward(
        self,
        output: LandmarkOutput,
        points: Tensor,
        weight: Tensor,
        *,
        angles: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> Terms:
        terms = {"points": self.each(output, points, weight).mean()}
        return terms | angle_term(output, angles, self.angle_weight)


class L1(LandmarkLoss):
    """The absolute error |d|."""

    def penalty(self, error: Tensor) -> Tensor:
        return error


class L2(LandmarkLoss):
    """The squared error d^2, without a half."""

    def penalty(self, error: Tensor) -> Tensor:
        return error.square()


class SmoothL1(LandmarkLoss):
    """d^2 / (2 beta) below beta, |d| - beta / 2 above (Girshick, 2015, arXiv:1504.08083, with beta 1)."""

    def __init__(self, *, beta: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        require_positive(self, "beta", beta)
        self.beta = beta

    def penalty(self, error: Tensor) -> Tensor:
        return torch.where(error < self.beta, error.square() / (2 * self.beta), error - self.beta / 2)


class Wing(LandmarkLoss):
    """w ln(1 + |d| / epsilon) below w, |d| - C above, with C = w - w ln(1 + w / epsilon).

    Feng et al., 2018, arXiv:1711.06753, eq. 5, with their w and epsilon. Small errors have a larger
    gradient than under L1. Errors are in pixels, since fractions of the crop would all lie in the logarithmic part.
    """

    def __init__(self, *, w: float = 10.0, epsilon: float = 2.0, **shared: Any) -> None:
        super().__init__(**shared)
        require_positive(self, "w", w)
        require_positive(self, "epsilon", epsilon)
        self.w, self.epsilon = w, epsilon

    def penalty(self, error: Tensor) -> Tensor:
        beyond = self.w - self.w * math.log1p(self.w / self.epsilon)
        return torch.where(error < self.w, self.w * torch.log1p(error / self.epsilon), error - beyond)


class SoftWing(LandmarkLoss):
    """|d| below `linear`, w ln(1 + |d| / epsilon) + B above, with B that makes it continuous.

    Lin et al., 2021, "Structure-coherent deep feature learning for robust face alignment"; 2, 20 and 0.5 are mmpose's
    values. Unlike under Wing, the smallest errors have the gradient of L1; those just above `linear` have the largest.
    """

    def __init__(self, *, linear: float = 2.0, w: float = 20.0, epsilon: float = 0.5, **shared: Any) -> None:
        super().__init__(**shared)
        for name, value in (("linear", linear), ("w", w), ("epsilon", epsilon)):
            require_positive(self, name, value)
        self.linear, self.w, self.epsilon = linear, w, epsilon

    def penalty(self, error: Tensor) -> Tensor:
        shift = self.linear - self.w * math.log1p(self.linear / self.epsilon)
        return torch.where(error < self.linear, error, self.w * torch.log1p(error / self.epsilon) + shift)


class PFLDLoss(nn.Module):
    """PFLD's loss: the error of a face, times how rare its attributes are, times how wrong the angles are.

    Guo et al., 2019, arXiv:1902.10859, eq. 2. The authors published no code. With e the sum of a face's squared errors
    in fractions of the crop (a sum, not a mean), a = sum over three angles of 1 - cos(predicted - true), and g the sum
    over the face's attributes of 1 / share, `mode` says what the term `points` is:

    - `paper`: mean of a g e. Shares are those of the data set (`shares`: numbers, or `data`, which counts the training
      split when the run starts), or of the batch where none are given.
    - `seed`: the source document's code as it was meant: likewise, always with the shares of the batch.
    - `seed_as_coded`: its code as it is. Shapes (N, 1) and (N,) make an N x N table of products, so that the mean is
      mean(a) mean(g e): the angles are one number for the whole batch. `misplaced_flags` adds its second slip: it looks
      for the flags where its documented preparation has the last two of them and four constants, so that
      g = those of attributes 4 and 5, plus 4.
    - `published`: the popular PyTorch re-implementation, for parity. The true angles are degrees, in a cosine that takes
      radians, and attribute 0 (pose) does not count.
    - `robust` (ours): mean of (1 + a) g e, and a second term `angles`: the squared errors of the angles in radians, summed,
      their mean over the faces whose angles are known, times `angle_weight`. Faces without any attribute are a class
      of their own, and g has a mean of 1 in the batch. Without attributes g is 1, without angles a is 0. `distance`
      replaces e by another penalty, such as `Wing`. Given `shares` have a last number, for faces without attributes.

    In all modes but `robust` a face without a counted attribute weighs 0, so faces without one are not learned
    from; and where the angles are right, a being 0, the landmarks have no gradient. A class that is absent (share 0) adds
    nothing.

    `detach`: whether the gradient of `points` stops at a. Published code lets it pass: there it is
    this product alone that trains the branch of the angles. null: only `robust` detaches.
    """

    reads: ClassVar[tuple[str, ...]] = ("points",)
    shares: Tensor | None

    def __init__(
        self,
        *,
        mode: Mode = "robust",
        distance: LandmarkLoss | None = None,
        shares: Sequence[float] | Literal["data"] | None = None,
        angle_weight: float = 1.0,
        detach: bool | None = None,
        misplaced_flags: bool = False,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ConfigError(f"loss.mode: unknown mode {mode!r}. {nearest(str(mode), get_args(Mode))}")
        require_positive(self, "angle_weight", angle_weight, zero=True)
        only = {
            "distance": (distance is not None, ("robust",)),
            "shares": (shares is not None, ("robust", "paper")),
            "misplaced_flags": (misplaced_flags, ("seed_as_coded",)),
        }
        for name, (given, modes) in only.items():
            if given and mode not in modes:
                raise ConfigError(f"loss.{name}: belongs to mode {' and '.join(modes)}, found mode={mode}.")
        self.counts_data = shares == "data"
        numbers = None if shares is None or isinstance(shares, str) else list(shares)
        if isinstance(shares, str) and not self.counts_data:
            raise ConfigError(f"loss.shares: found {shares!r}, expected numbers, data or null.")
        if numbers is not None and not all(0 <= share <= 1 for share in numbers):
            raise ConfigError(f"loss.shares: expected shares from 0 to 1, found {numbers}.")
        self.mode, self.distance, self.angle_weight = mode, distance, angle_weight
        self.detach = mode == "robust" if detach is None else detach
        self.misplaced_flags = misplaced_flags
        fixed = None if numbers is None else torch.tensor(numbers, dtype=torch.float32)
        self.register_buffer("shares", fixed, persistent=False)

    def count(self, attributes: Tensor) -> None:
        """With `shares=data`: take the shares of all faces of the training split, (faces, A) of 0 and 1."""
        flags = attributes.float()
        if self.mode == "robust":
            flags = with_none(flags)
        self.shares = flags.mean(dim=0)

    def forward(
        self,
        output: LandmarkOutput,
        points: Tensor,
        weight: Tensor,
        *,
        angles: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> Terms:
        if self.distance is None:
            errors = (distances(output.points, points).square() * weight.unsqueeze(-1)).sum((1, 2))  # (N,)
        else:
            errors = self.distance.each(output, points, weight)
        if self.mode == "robust":
            factor = 1 + self.angle_factor(output, angles) if has_angles(output, angles) else 1.0
            terms = {"points": (factor * self.rarity(attributes, errors) * errors).mean()}
            return terms | angle_term(output, angles, self.angle_weight)
        if output.angles is None or angles is None:
            raise ConfigError(
                f"loss.mode={self.mode}: needs the angles of the head, from the network (network.auxiliary=true, in "
                "training) and from the data. loss.mode=robust does without."
            )
        factor, rarity = self.angle_factor(output, angles), self.rarity(attributes, errors)
        if self.mode == "seed_as_coded":
            return {"points": factor.mean() * (rarity * errors).mean()}
        return {"points": (factor * rarity * errors).mean()}

    def angle_factor(self, output: LandmarkOutput, angles: Tensor | None) -> Tensor:
        """The factor a of each face, (N,): 0 where its angles are not known."""
        assert output.angles is not None and angles is not None
        known, truth = known_angles(angles)
        truth = torch.rad2deg(truth) if self.mode == "published" else truth
        predicted = output.angles.detach() if self.detach else output.angles
        return (1 - (predicted.float() - truth).cos()).sum(dim=1) * known

    def rarity(self, attributes: Tensor | None, like: Tensor) -> Tensor:
        """The factor g of each face, (N,). `like` (N,) has its dtype and device."""
        if attributes is None:
            if self.mode == "robust":
                return torch.ones_like(like)
            raise ConfigError(
                f"loss.mode={self.mode}: weighs faces by attributes, which this data set does not have: every weight would "
                "be 0. loss.mode=robust does without."
            )
        flags = attributes.float()
        if self.mode == "published":
            flags = flags[:, 1:]
        elif self.misplaced_flags:  # -1 over a mean of -1 is 1, as of a flag that every face has
            flags = torch.cat([flags[:, 4:], torch.ones_like(flags[:, :4])], dim=1)
        elif self.mode == "robust":
            flags = with_none(flags)
        shares = flags.mean(dim=0) if self.shares is None else self.shares
        if len(shares) != flags.shape[1]:
            rest = " and one of faces without any" if self.mode == "robust" else ""
            raise ConfigError(
                f"loss.shares: found {len(shares)} numbers, expected {flags.shape[1]}: one an attribute{rest}."
            )
        rarity = (flags * torch.where(shares > 0, 1 / shares.clamp(min=1e-12), 0)).sum(dim=1)
        if self.mode != "robust":
            return rarity
        mean = rarity.mean()
        return torch.where(mean > 0, rarity / mean.clamp(min=1e-12), torch.ones_like(rarity))


def with_none(flags: Tensor) -> Tensor:
    """(N, A) -> (N, A + 1): the last flag is 1 for a face without any other."""
    return torch.cat([flags, 1 - flags.amax(dim=1, keepdim=True)], dim=1)


def distances(found: Tensor, points: Tensor) -> Tensor:
    """|d| of each number, (N, L, 2) float32."""
    if found.shape != points.shape:
        raise ConfigError(
            f"network: answers {tuple(found.shape)}, but the data's points are {tuple(points.shape)} (N, L, 2). Set "
            "network.landmarks to their number."
        )
    return (found.float() - points.float()).abs()


def has_angles(output: LandmarkOutput, angles: Tensor | None) -> bool:
    return output.angles is not None and angles is not None


def known_angles(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Which faces' angles are known (N,), and the angles (N, 3) with 0 for the others."""
    known = angles.isfinite().all(dim=1)
    return known, torch.where(known.unsqueeze(1), angles.float(), 0)


def angle_term(output: LandmarkOutput, angles: Tensor | None, weight: float) -> Terms:
    """The term `angles`, where there is something to compare. No face with known angles: zero."""
    if output.angles is None or angles is None:
        return {}
    known, truth = known_angles(angles)
    errors = (output.angles.float() - truth).square().sum(dim=1) * known
    return {"angles": weight * errors.sum() / known.sum().clamp(min=1)}


def require_positive(owner: nn.Module, name: str, value: float, *, zero: bool = False) -> None:
    if not (value > 0 or (zero and value == 0)) or not math.isfinite(value):
        at_least = "at least 0" if zero else "above 0"
        raise ConfigError(f"{type(owner).__name__}: {name} must be finite and {at_least}, found {value!r}.")
