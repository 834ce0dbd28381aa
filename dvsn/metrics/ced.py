"""Cumulative error distribution: the share of faces whose error is at most so much, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

INK, GRID = (40, 40, 40), (222, 222, 222)
COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (23, 190, 207), (127, 127, 127), (188, 189, 34),
)  # fmt: skip


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


def draw_curves(
    curves: Mapping[str, np.ndarray], *, limit: float = 0.15, height: int = 480, width: int = 640
) -> np.ndarray:
    """The distributions of errors (N,) by name, for errors from 0 to `limit`: uint8 RGB (height, width, 3)."""
    picture = np.full((height, width, 3), 255, np.uint8)
    left, right, top, bottom = 64, width - 18, 16, height - 44

    def place(error: float, share: float) -> tuple[int, int]:
        return round(left + error / limit * (right - left)), round(bottom - share * (bottom - top))

    for share in np.linspace(0, 1, 6):
        x, y = place(0, share)
        cv2.line(picture, (x, y), (right, y), GRID)
        _write(picture, f"{100 * share:.0f} %", (10, y + 5))
    for error in np.arange(0, limit + 1e-9, 0.02 if limit <= 0.2 else limit / 8):
        x, y = place(error, 0)
        cv2.line(picture, (x, y), (x, top), GRID)
        _write(picture, f"{100 * error:.0f}", (x - 6, y + 18))
    cv2.rectangle(picture, (left, top), (right, bottom), INK)
    _write(picture, "faces with at most this NME in %", (left + (right - left) // 2 - 110, height - 8))
    at = np.linspace(0, limit, right - left + 1)
    for number, (name, errors) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if len(errors):
            line = np.array([place(e, s) for e, s in zip(at, cumulative(errors, at), strict=True)], np.int32)
            cv2.polylines(picture, [line], False, colour, 2, cv2.LINE_AA)
        row = bottom - 12 - 18 * (len(curves) - 1 - number)
        cv2.line(picture, (right - 190, row - 5), (right - 165, row - 5), colour, 2)
        _write(picture, f"{name} ({len(errors)})", (right - 158, row))
    return picture


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
