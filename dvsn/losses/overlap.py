"""Losses on the overlap of classes, for imbalanced data: a rare class counts as much as a frequent one."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dvsn.errors import ConfigError, nearest
from dvsn.losses.segmentation import Scores, Term
from dvsn.types import IGNORE

Classes = Literal["present", "all"]


class Dice(Term):
    """One minus the soft Dice coefficient, (2 sum(p t) + s) / (sum(p) + sum(t) + s), averaged over classes.

    p is the softmax probability of the class, t is 1 where the class is true; the sums run over the valid pixels
    of the batch and s is `smooth`. `squared` sums p^2 instead of p, as Milletari, Navab and Ahmadi, 2016,
    arXiv:1606.04797, section 3. `classes: present` averages over the classes that occur in the batch, `all` over
    every class: an absent one then says that its probability should be low. No valid pixel: zero.
    """

    def __init__(
        self, *, smooth: float = 1.0, squared: bool = False, classes: Classes = "present", **shared: Any
    ) -> None:
        super().__init__(**shared)
        check_classes(self, classes)
        if not 0.0 <= smooth < float("inf"):
            raise ConfigError(f"Dice: smooth must be finite and at least 0, found {smooth!r}.")
        self.smooth, self.squared, self.classes = smooth, squared, classes

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        probability, truth, valid = against_truth(scores.logits.softmax(dim=1), target)
        over = (0, 2, 3)
        shared = (probability * truth).sum(over)  # (K,)
        predicted = (probability.square() if self.squared else probability).sum(over)
        occurring = truth.sum(over)
        whole = predicted + occurring + self.smooth
        dice = (2 * shared + self.smooth) / torch.where(whole > 0, whole, 1)
        counted = occurring > 0 if self.classes == "present" else valid.any().expand_as(occurring)
        return average(1 - dice, counted)


class Tversky(Term):
    """One minus the Tversky index, (TP + s) / (TP + alpha FP + beta FN + s), to the power `gamma`, averaged over classes.

    Salehi, Erdogmus and Gholipour, 2017, arXiv:1706.05721, eq. 3, with softmax probabilities: TP = sum(p t), FP =
    sum(p (1 - t)), FN = sum((1 - p) t) over the valid pixels of the batch; s is `smooth`. alpha = beta = 0.5 is Dice; a
    larger beta asks for recall. `gamma` other than 1 is the focal form (Abraham and Khan, 2018, arXiv:1810.07842, eq. 4,
    where it is 1 / gamma). `classes` as of `Dice`. No valid pixel: zero.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1.0,
        classes: Classes = "present",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_classes(self, classes)
        for name, value in {"alpha": alpha, "beta": beta, "smooth": smooth}.items():
            if not 0.0 <= value < float("inf"):
                raise ConfigError(f"Tversky: {name} must be finite and at least 0, found {value!r}.")
        if alpha + beta == 0:
            raise ConfigError("Tversky: alpha and beta are both 0, expected one above it.")
        if not 0.0 < gamma < float("inf"):
            raise ConfigError(f"Tversky: gamma must be finite and above 0, found {gamma!r}.")
        self.alpha, self.beta, self.gamma, self.smooth, self.classes = alpha, beta, gamma, smooth, classes

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        probability, truth, valid = against_truth(scores.logits.softmax(dim=1), target)
        over = (0, 2, 3)
        shared, occurring = (probability * truth).sum(over), truth.sum(over)  # (K,)
        wrong, missed = probability.sum(over) - shared, occurring - shared
        whole = shared + self.alpha * wrong + self.beta * missed + self.smooth
        index = (shared + self.smooth) / torch.where(whole > 0, whole, 1)
        counted = occurring > 0 if self.classes == "present" else valid.any().expand_as(occurring)
        lost = (1 - index).clamp(min=0)
        if self.gamma != 1.0:  # the power has no gradient at 0
            lost = torch.where(lost == 0, 0, torch.where(lost == 0, 1, lost).pow(self.gamma))
        return average(lost, counted)


def against_truth(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (N, K, H, W) that are 0 at ignored pixels, the truth in the same form, and the valid pixels
    (N, 1, H, W)."""
    valid = (target != IGNORE).unsqueeze(1)
    probability = torch.where(valid, probability, 0)
    index = target.clamp(max=probability.shape[1] - 1).long().unsqueeze(1)
    truth = torch.zeros_like(probability).scatter_(1, index, valid.to(probability))
    return probability, truth, valid


class LovaszSoftmax(Term):
    """The convex extension of the Jaccard loss (1 - IoU) to softmax probabilities, averaged over classes.

    Berman, Rannen Triki and Blaschko, 2018, arXiv:1705.08790, eq. 8 to 11. `classes: present` averages over the
    classes that occur, as the paper recommends. `per_image` works it out for each image and averages over
    the images that have a valid pixel; otherwise the batch is one big image.

    It must sort the pixels once a class; expect it to cost several times a cross entropy.
    """

    def __init__(self, *, classes: Classes = "present", per_image: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        check_classes(self, classes)
        self.classes, self.per_image = classes, per_image

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        probability = scores.logits.softmax(dim=1)
        if not self.per_image:
            return self._value(probability, target)[0]
        pairs = [self._value(p[None], t[None]) for p, t in zip(probability, target, strict=True)]
        values, counted = zip(*pairs, strict=True)
        return average(torch.stack(values), torch.stack(counted))

    def _value(self, probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss over (N, K, H, W) as one image, and whether it has a valid pixel.

        An ignored pixel has no error; it is sorted behind all others and adds nothing.
        """
        valid = target != IGNORE
        values, occurring = [], []
        for k in range(probability.shape[1]):
            truth = (target == k).flatten()
            error = torch.where(valid, probability[:, k], 0).flatten()
            error = torch.where(truth, 1 - error, error)
            error, order = error.sort(descending=True)
            values.append(error @ jaccard_steps(truth[order]).to(error))
            occurring.append(truth.any())
        counted = torch.stack(occurring)
        if self.classes == "all":
            counted = valid.any().expand_as(counted)
        return average(torch.stack(values), counted), valid.any()


def jaccard_steps(truth: Tensor) -> Tensor:
    """By how much 1 - IoU grows when the pixel at each place is wrong too, all before it being wrong (P,).

    `truth` (P,) bool, the pixels with the largest error first. Double precision: with millions of pixels the
    differences of neighbours would drown in float32.
    """
    total = truth.sum()
    missed = truth.cumsum(0)
    union = total + torch.arange(1, len(truth) + 1, device=truth.device) - missed
    loss = 1 - (total - missed).double() / union.double().clamp(min=1)
    return torch.cat((loss[:1], loss.diff()))


def average(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count; zero, with a gradient of zero, if none does."""
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)


def check_classes(term: Term, classes: str) -> None:
    """Which classes are averaged over."""
    if classes not in get_args(Classes):
        hint = nearest(str(classes), get_args(Classes))
        raise ConfigError(f"{type(term).__name__}: unknown classes={classes!r}. {hint}")
