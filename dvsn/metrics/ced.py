"""Cumulative error distribution: the share of faces whose error is at most so much, in numbers."""

from __future__ import annotations

import numpy as np


def cumulative(errors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The share of `errors` (N,) that are at most each of `at` (T,). NaN for N = 0; a NaN error is above every value."""
    if not len(errors):
        return np.full(len(at), np.nan)
    shares: np.ndarray = np.searchsorted(np.sort(errors), at, side="right") / len(errors)
    return shares


def failure_rate(errors: np.ndarray, threshold: float) -> float:
    """The share of errors above the threshold."""
    return float((~(errors <= threshold)).mean()) if len(errors) else float("nan")


def area_under_curve(errors: np.ndarray, threshold: float) -> float:
    """The integral of the distribution from 0 to the threshold, over the threshold; in [0, 1].

    Exact: each error e adds max(0, threshold - e). Published codes sample the curve every 0.0001 and add by Simpson's
    rule, which differs by less than 0.0001.
    """
    if not len(errors):
        return float("nan")
    return float(np.maximum(0, threshold - np.nan_to_num(errors, nan=np.inf)).mean() / threshold)
