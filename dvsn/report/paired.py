"""Whether a difference between two methods may be chance: the exact paired permutation test of few seeds."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.05
CHANCE = "may be chance"
EXACT = 16
"""Up to so many pairs all 2 ** n signs are tried; of more, 50,000 random ones."""


Turn = Hashable
"""What two runs have in common that are compared: their seed, or seed and fold; all of one kind, which can be sorted."""


@dataclass(frozen=True)
class Comparison:
    """Two methods by the seeds that both were run with."""

    difference: float
    """The mean of the differences, positive where the first is better."""
    pairs: int
    p: float | None
    """Two-sided; None for less than two pairs."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `may be chance`."""
        if self.p is None or self.p > LEVEL:
            return CHANCE
        return "better" if self.difference > 0 else "worse"

    @property
    def reason(self) -> str:
        """The verdict with what it stands on, as a part of a sentence."""
        if self.pairs == 0:
            return f"no seed in common: {CHANCE}"
        if self.p is None:
            return f"one pair of seeds: {CHANCE}"
        text = f"{self.pairs} pairs of seeds, p = {self.p:.2g}"
        lowest = lowest_p(self.pairs)
        if lowest > LEVEL:
            return f"{text}, which cannot be below {lowest:.2g} with so few: {CHANCE}"
        return text if self.verdict != CHANCE else f"{text}: {CHANCE}"


def lowest_p(pairs: int) -> float:
    """The least that p can be: all differences have the same sign."""
    return min(1.0, 2.0 / 2**pairs)


def compare(
    first: Sequence[tuple[Turn, float]], second: Sequence[tuple[Turn, float]], *, sign: float
) -> Comparison:
    """Compares (turn, score) of two methods. Of several runs with the same seed and fold their mean counts."""
    ours, theirs = by_seed(first), by_seed(second)
    differences = [sign * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]  # type: ignore[type-var]
    if not differences:
        return Comparison(0.0, 0, None)
    p = sign_flips(differences) if len(differences) > 1 else None
    return Comparison(statistics.fmean(differences), len(differences), p)


def by_seed(scores: Sequence[tuple[Turn, float]]) -> Mapping[Turn, float]:
    seeds = dict.fromkeys(seed for seed, _ in scores)
    return {seed: statistics.fmean(score for each, score in scores if each == seed) for seed in seeds}


def sign_flips(differences: Sequence[float]) -> float:
    """Two-sided p of the mean under all 2 ** n signs of the differences (Fisher, 1935, "The Design of Experiments", 21).

    Without an effect each difference might as well have had the other sign. No distribution is assumed.
    """
    import numpy as np
    from scipy.stats import permutation_test

    found = permutation_test(
        (np.asarray(differences),), np.mean, permutation_type="samples", alternative="two-sided",
        n_resamples=2 ** min(len(differences), EXACT) if len(differences) <= EXACT else 50_000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return min(1.0, float(found.pvalue))
