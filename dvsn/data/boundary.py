"""Outlines of a label map, the target of a boundary head."""

from __future__ import annotations

import cv2
import numpy as np

from dvsn.errors import ConfigError, DataError


def boundary_map(ids: np.ndarray, *, kernel: int = 4, frame: int = 0) -> np.ndarray:
    """Class ids (H, W) uint8 -> outlines (H, W) uint8, 1 on an outline and 0 elsewhere.

    As PIDNet draws them (Xu, Xiong and Bhattacharyya, 2023, arXiv:2206.02066), before scaling and cropping: Canny with
    thresholds so low that every local maximum of the gradient counts; `frame` pixels along each side cleared (Cityscapes:
    6, because of the ego car); then one dilation by a square of `kernel` pixels. Therefore

    - ignored regions (255) have outlines too;
    - with the published kernel of 4 an outline grows 1 pixel up and left and 2 down and right;
    - where two outlines are close the numbers of the classes decide: Canny keeps the steeper;
    - an object two pixels wide gets an outline on one side only.
    """
    if kernel < 1 or frame < 0:
        raise ConfigError(
            f"boundary map: found kernel={kernel} and frame={frame}, expected a kernel of at least 1 "
            "and a frame of at least 0 pixels."
        )
    if ids.dtype != np.uint8 or ids.ndim != 2:
        raise DataError(
            f"labels: found {ids.dtype} of shape {ids.shape}, expected class ids, (height, width) uint8."
        )
    edges = cv2.Canny(np.ascontiguousarray(ids), 0.1, 0.2)
    if frame:
        inside = np.zeros_like(edges)
        inside[frame:-frame, frame:-frame] = edges[frame:-frame, frame:-frame]
        edges = inside
    outlines = cv2.dilate(edges, np.ones((kernel, kernel), np.uint8))
    return (outlines > 0).astype(np.uint8)
