"""Errors of keypoints as tables: by keypoint, by distance, and of two networks side by side.

Errors (N, K) are those of `KeypointScore.relative`: relative to a length of each person or face, NaN where they are not
measured, infinity where a prediction is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dvsn.metrics.ced import cumulative

Row = dict[str, Any]
QUANTILE = 0.9


def by_keypoint(errors: np.ndarray, names: Sequence[str]) -> list[Row]:
    """A row a keypoint: how often it is measured, and the mean of its errors, the median (of an even number the lower one)
    and the 0.9 quantile (the next larger one); None where it never is, or where the value is not finite."""
    rows = []
    for name, column in zip(names, errors.T, strict=True):
        known = column[~np.isnan(column)]
        rows.append(
            {
                "keypoint": name,
                "measured": len(known),
                "mean": finite(known.mean()) if len(known) else None,
                "median": finite(np.quantile(known, 0.5, method="lower")) if len(known) else None,
                "90 % below": finite(np.quantile(known, QUANTILE, method="higher")) if len(known) else None,
            }
        )
    return rows


def within(errors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The share of the measured errors, of any shape, that are at most each of `at` (T,); NaN where none is measured."""
    return cumulative(errors[~np.isnan(errors)], at)


def nearer(own: np.ndarray, other: np.ndarray, apart: np.ndarray, names: Sequence[str]) -> list[Row]:
    """Two networks by keypoint, and all keypoints together: the mean errors (N, K) of both, how far they are `apart` (N, K),
    and how often each is the nearer one. Counted is what is measured of both and finite."""
    rows = []
    columns = zip((*names, "all"), *((*each.T, each.ravel()) for each in (own, other, apart)), strict=True)
    for name, mine, theirs, between in columns:
        known = np.isfinite(mine) & np.isfinite(theirs)
        mine, theirs, between = mine[known], theirs[known], between[known]
        rows.append(
            {
                "keypoint": name,
                "measured": len(mine),
                "student": finite(mine.mean()) if len(mine) else None,
                "teacher": finite(theirs.mean()) if len(mine) else None,
                "apart": finite(between.mean()) if len(mine) else None,
                "student nearer": int((mine < theirs).sum()),
                "teacher nearer": int((theirs < mine).sum()),
            }
        )
    return rows


def finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
