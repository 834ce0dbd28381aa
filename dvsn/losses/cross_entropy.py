"""Cross entropy on class logits: of all pixels, of the hard ones only, or focal."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError, nearest
from dvsn.losses.segmentation import Scores, Term, WeightedTerm, weigh
from dvsn.types import IGNORE

Average = Literal["all", "valid", "weights"]


class CrossEntropy(WeightedTerm):
    """Cross entropy, summed over the pixels that are not ignored, divided by what `average` says:

        all       every pixel of the batch, ignored ones too (the P head of PIDNet; there class weights are
                  not normalised)
        valid     the pixels that are not ignored
        weights   the sum of the class weights of these pixels, as torch does it; without weights: `valid`

    With p ignored of n pixels, `all` is (n - p) / n of `valid`. `weighted: false` leaves the objective's class
    weights out. `label_smoothing` e mixes the target with the uniform distribution, e of it (Szegedy et al.,
    2016, arXiv:1512.00567, section 7). No valid pixel: zero, with a gradient of zero.
    """

    def __init__(self, *, average: Average = "weights", label_smoothing: float = 0.0, **shared: Any) -> None:
        super().__init__(**shared)
        if average not in get_args(Average):
            raise ConfigError(
                f"CrossEntropy: unknown average={average!r}. {nearest(str(average), get_args(Average))}"
            )
        if not 0.0 <= label_smoothing < 1.0:
            raise ConfigError(f"CrossEntropy: label_smoothing must be in [0, 1), found {label_smoothing!r}.")
        self.average, self.label_smoothing = average, label_smoothing

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        valid = target != IGNORE
        class_weights = self.weights(class_weights)
        if self.label_smoothing:
            values = F.cross_entropy(
                scores.logits,
                target.long(),
                None if class_weights is None else class_weights.to(scores.logits),
                ignore_index=IGNORE,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
        else:
            values = scores.weighted(class_weights)
        if self.average == "all":
            return keep(values, valid).sum() / target.numel()
        counted = weigh(valid.to(values), target, class_weights) if self.average == "weights" else valid
        total = keep(counted, valid).sum()
        return keep(values, valid).sum() / torch.where(total > 0, total, 1)


class OhemCrossEntropy(WeightedTerm):
    """Cross entropy of the hard pixels: those whose true class is given a probability q below T.

    T is `threshold`, or more if fewer pixels would be left: the q that stands at position `min_kept`, counted
    from 0, among the valid pixels of this device's batch in rising order (the last one, if there are fewer).
    Pixels strictly below T are kept and their class-weighted cross entropy is averaged plainly, weights not
    normalised. So with at most `min_kept` valid pixels of which the easiest reaches the threshold, that
    one is left out, as in the authors' code. Shrivastava et al., 2016, arXiv:1604.03540; this form is HRNet's
    and PIDNet's.

    Known differences: no pixel left gives zero with a gradient of zero (an index error or NaN there); logarithms of
    q and T are compared, which may differ from a softmax in the last bit; and nothing is sorted. On
    the CPU an order statistic is taken only when at most `min_kept` pixels lie below the threshold, on a GPU
    always, since asking would wait for the device.
    """

    def __init__(self, *, threshold: float = 0.9, min_kept: int = 131072, **shared: Any) -> None:
        super().__init__(**shared)
        check_threshold(self, threshold)
        if min_kept < 0:
            raise ConfigError(f"OhemCrossEntropy: min_kept must be at least 0, found {min_kept!r}.")
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        values = scores.cross_entropy()
        valid = target != IGNORE
        hard, count = choose_hard(values.detach(), valid, threshold=self.threshold, min_kept=self.min_kept)
        values = scores.weighted(self.weights(class_weights))
        return keep(values, hard).sum() / count.clamp(min=1)


def choose_hard(values: Tensor, valid: Tensor, *, threshold: float, min_kept: int) -> tuple[Tensor, Tensor]:
    """The pixels whose cross entropy lies above -log T, and their number. NaN counts, so that it shows in the loss."""
    limit = -math.log(threshold)
    if values.device.type == "cpu":
        hard = ~(values <= limit) & valid
        count = hard.count_nonzero()
        if int(count) > min_kept:  # then the one at that position lies above the limit too
            return hard, count
    hard = ~(values <= -at_position(-values, valid, min_kept).clamp(min=-limit)) & valid
    return hard, hard.count_nonzero()


def at_position(values: Tensor, valid: Tensor, position: int) -> Tensor:
    """The valid entry at this position, or at the last one, if they were sorted rising from position 0.

    By torch.topk, which does not sort all of them; on a CPU it is left out where there are too few valid entries, on a GPU
    their number would have to be waited for. Without valid entries the answer is -inf.
    """
    largest = values.masked_fill(~valid, -math.inf).max()
    if position >= values.numel() or (values.device.type == "cpu" and valid.count_nonzero() <= position):
        return largest
    candidates = values.masked_fill(~valid, math.inf).flatten()
    return torch.minimum(candidates.topk(position + 1, largest=False, sorted=False).values.max(), largest)


class HardestCrossEntropy(WeightedTerm):
    """Cross entropy of the pixels whose true class gets a probability below `threshold`, or of the worst
    `min_share` of the valid pixels, if fewer lie below. The mean over them.

    The OHEM of the widely used re-implementation of BiSeNet, there with 0.7 and 1/16. It takes the class
    weights into its choice; with none the two agree. Known difference: no valid pixel gives zero.
    """

    def __init__(self, *, threshold: float = 0.7, min_share: float = 0.0625, **shared: Any) -> None:
        super().__init__(**shared)
        check_threshold(self, threshold)
        if not 0.0 <= min_share <= 1.0:
            raise ConfigError(f"HardestCrossEntropy: min_share must be in [0, 1], found {min_share!r}.")
        self.threshold, self.min_share = threshold, min_share

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        valid = target != IGNORE
        values = scores.weighted(self.weights(class_weights))
        values = keep(values, valid)  # (N, H, W), zero where ignored
        hard = ~(values <= -math.log(self.threshold))
        enough = (valid.sum() * self.min_share).long()  # this many pixels, at least
        mean = keep(values, hard).sum() / hard.sum().clamp(min=1)
        if target.device.type == "cpu" and bool(hard.sum() >= enough):
            return mean
        worst = mean_of_largest(values, enough, most=int(target.numel() * self.min_share))
        return torch.where(hard.sum() >= enough, mean, worst)


def mean_of_largest(values: Tensor, count: Tensor, *, most: int) -> Tensor:
    """The mean of the `count` (a scalar tensor, at most `most`) largest values; 0 for a count of 0."""
    if most == 0:
        return values.sum() * 0.0
    ranked = values.flatten().topk(most).values
    first = torch.arange(most, device=values.device) < count
    return keep(ranked, first).sum() / count.clamp(1, most)


class Focal(WeightedTerm):
    """(1 - q)^gamma times the cross entropy, q the probability of the true class: easy pixels count less.

    Lin et al., 2017, arXiv:1708.02002, eq. 5; the objective's class weights stand for its alpha. Divided by the
    number of valid pixels (the paper, on detection, divides by the anchors with an object).
    `gamma` 0 is the cross entropy with `average: valid`.
    """

    def __init__(self, *, gamma: float = 2.0, **shared: Any) -> None:
        super().__init__(**shared)
        if not 0.0 <= gamma < math.inf:
            raise ConfigError(f"Focal: gamma must be finite and at least 0, found {gamma!r}.")
        self.gamma = gamma

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        values = scores.cross_entropy()
        valid = target != IGNORE
        # 1 - q without cancellation; the bound keeps the slope of a gamma below 1 finite at q = 1.
        doubt = -torch.expm1(-values).clamp(max=-1e-7)
        values = weigh(doubt.pow(self.gamma) * values, target, self.weights(class_weights))
        return keep(values, valid).sum() / valid.sum().clamp(min=1)


def check_threshold(term: Term, threshold: float) -> None:
    """A threshold on the probability of the true class."""
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"{type(term).__name__}: threshold must be in (0, 1], found {threshold!r}.")


def keep(values: Tensor, where: Tensor) -> Tensor:
    """The values at these places, zero elsewhere, infinite ones included."""
    return torch.where(where, values, 0)
