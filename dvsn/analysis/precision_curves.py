"""Curves of detections: precision by recall for each class, and average precision by overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dvsn.analysis.record import Chart, Curve
from dvsn.metrics.detection_errors import RECALLS

MOST = 12  # classes in a chart, beside their mean
OVERLAPS = np.linspace(0.5, 0.95, 10)  # COCO's, of IoU and of OKS
TITLES = {"": "boxes", "mask_": "masks"}


def precision_charts(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Chart]:
    """Of `DetectionScore.curves`, the precision (T, R, K) of boxes and masks; `names` of the K classes."""
    charts = []
    for prefix, precision in curves.items():
        for key, what, values in (
            ("precision_recall_50", "IoU 0.5", precision[0]),
            ("precision_recall", "mean over IoU 0.5 to 0.95", precision.mean(axis=0)),
        ):
            drawn, note = by_class(values, names)
            title = f"Precision and recall of {TITLES[prefix]}, {what}"
            charts.append(Chart(f"{prefix}{key}", title, "recall", "precision", drawn, note=note))
    return [*charts, by_overlap(curves)]


def by_class(curves: np.ndarray, names: Sequence[str]) -> tuple[tuple[Curve, ...], str]:
    """(R, K) precision by recall, -1 of a class without objects -> the mean of the classes and the classes, those of the
    least average precision first; and how the chart is to be read."""
    known = np.flatnonzero((curves > -1).all(axis=0))
    if not len(known):
        return (), "No object of any class."
    recalls = tuple(RECALLS.round(2).tolist())
    order = known[np.argsort(curves[:, known].mean(axis=0), kind="stable")]
    chosen = order if len(order) <= MOST else np.concatenate([order[: MOST // 2], order[-MOST // 2 :]])
    lines = [
        ("all", curves[:, known].mean(axis=1)),
        *((names[number], curves[:, number]) for number in chosen),
    ]
    drawn = tuple(
        Curve(f"{name}, AP {line.mean():.3f}", recalls, tuple(line.tolist())) for name, line in lines
    )
    note = "The area below a curve is its average precision. The classes with the least come first."
    if len(order) > len(chosen):
        note += f" Of {len(order)} classes the {MOST // 2} worst and the {MOST // 2} best; the table has all."
    return drawn, note


def by_overlap(curves: Mapping[str, np.ndarray]) -> Chart:
    """The mean of the classes at each of COCO's overlaps."""
    drawn = []
    for prefix, precision in curves.items():
        known = (precision > -1).all(axis=(0, 1))
        values = precision[:, :, known].mean(axis=(1, 2)).tolist() if known.any() else [None] * len(OVERLAPS)
        drawn.append(Curve(TITLES[prefix], tuple(OVERLAPS.round(2).tolist()), tuple(values)))
    return Chart(
        "ap_by_overlap", "Average precision by overlap", "IoU from which a detection is right", "AP", tuple(drawn),
        note="COCO's AP is the mean of the ten. A steep fall: objects are found, and badly placed.",
    )  # fmt: skip
