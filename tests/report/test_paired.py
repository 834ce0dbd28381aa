"""The paired permutation test, against all signs by hand."""

from __future__ import annotations

import itertools
import statistics

import pytest

from dvsn.report.paired import compare, lowest_p, sign_flips


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.2],
        [0.1, 0.2, 0.3],
        [0.1, -0.2, 0.3, 0.4],
        [0.0, 0.0],
        [0.01] * 6,
        [0.1, 0.2, -0.05, 0.3, 0.2, 0.1, 0.4],
    ],
)
def test_p_is_the_share_of_signs_with_so_large_a_mean(differences: list[float]) -> None:
    found = abs(statistics.fmean(differences))
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    means = [abs(statistics.fmean(s * d for s, d in zip(each, differences, strict=True))) for each in signs]
    expected = sum(mean >= found - 1e-12 for mean in means) / len(signs)
    assert sign_flips(differences) == pytest.approx(expected)


def test_many_pairs_are_sampled_alike_each_time() -> None:
    differences = [0.1 if number % 3 else -0.1 for number in range(40)]
    assert sign_flips(differences) == sign_flips(differences)
    assert 0.0 < sign_flips(differences) < 0.2  # 26 of 40; a binomial test has 0.08


def test_seeds_are_paired_by_number() -> None:
    """Seeds 1 and 2 are in both; the two runs of seed 1 count as their mean."""
    found = compare([(0, 0.1), (1, 0.5), (1, 0.7), (2, 0.9)], [(2, 0.5), (1, 0.4), (3, 0.0)], sign=1.0)
    assert found.pairs == 2 and found.difference == pytest.approx((0.2 + 0.4) / 2) and found.p == 0.5
    less = compare([(0, 0.1), (1, 0.1)], [(0, 0.2), (1, 0.4)], sign=-1.0)
    assert less.difference == pytest.approx(0.2)


def test_the_words() -> None:
    seeds = range(6)
    better = compare([(s, 0.6 + s / 100) for s in seeds], [(s, 0.5) for s in seeds], sign=1.0)
    assert better.verdict == "better" and better.reason == "6 pairs of seeds, p = 0.031"
    worse = compare([(s, 0.5) for s in seeds], [(s, 0.6 + s / 100) for s in seeds], sign=1.0)
    assert worse.verdict == "worse"
    three = compare([(s, 0.6) for s in range(3)], [(s, 0.5) for s in range(3)], sign=1.0)
    assert three.verdict == "may be chance" and lowest_p(3) == 0.25
    assert three.reason == "3 pairs of seeds, p = 0.25, which cannot be below 0.25 with so few: may be chance"
    one = compare([(0, 0.6)], [(0, 0.5)], sign=1.0)
    assert one.p is None and one.reason == "one pair of seeds: may be chance"
    none = compare([(0, 0.6)], [(1, 0.5)], sign=1.0)
    assert none.pairs == 0 and none.verdict == "may be chance" and "no seed in common" in none.reason
    mixed = compare([(s, 0.6 * (-1) ** s) for s in seeds], [(s, 0.0) for s in seeds], sign=1.0)
    assert mixed.reason == "6 pairs of seeds, p = 1: may be chance"
