"""The mean shape of many sets of points, and which points of it a mirror exchanges."""

from __future__ import annotations

import numpy as np

CLOSE = 0.12  # of the shape's own size, that a point and its mirrored partner may lie apart
FEWEST = 8  # shapes that a mean is made of


def mean_shape(points: np.ndarray) -> np.ndarray:
    """Shapes (N, K, 2) -> their mean (K, 2), about the origin, of unit size: each is moved, scaled and turned to fit it
    (generalised Procrustes analysis: Gower, 1975, doi:10.1007/BF02291478), whose own turn is that of the average shape."""
    centred = points - points.mean(axis=1, keepdims=True)
    sizes = np.sqrt((centred**2).sum(axis=(1, 2)))
    shapes = centred[sizes > 0] / sizes[sizes > 0][:, None, None]
    complex_shapes = shapes[..., 0] + 1j * shapes[..., 1]
    mean = complex_shapes.mean(axis=0)
    for _ in range(3):
        turns = (complex_shapes.conj() * mean).sum(axis=1)
        turned = complex_shapes * (turns / np.maximum(np.abs(turns), 1e-12))[:, None]
        mean = turned.mean(axis=0)
        mean = mean / max(1e-12, float(np.linalg.norm(mean)))
    return np.stack([mean.real, mean.imag], axis=1)


def mirror_pairs(points: np.ndarray) -> list[tuple[int, int]] | None:
    """Of shapes (N, K, 2) the pairs of points that a mirror exchanges, the one on the right of the picture first; None
    where the mean shape is not its own mirror image, or where too few shapes tell.

    Each point of the mirrored mean is matched with one of the mean, at the least distance in all (the Hungarian method).
    """
    if len(points) < FEWEST or points.shape[1] < 2:
        return None
    from scipy.optimize import linear_sum_assignment

    mean = mean_shape(points)
    mirrored = mean * [-1, 1]
    distance = np.linalg.norm(mean[:, None] - mirrored[None], axis=-1)  # (K, K)
    _, partner = linear_sum_assignment(distance)
    scale = float(np.sqrt((mean**2).sum(axis=1).mean()))  # the size of the shape, whatever K is
    if (partner[partner] != np.arange(len(mean))).any():
        return None
    if distance[np.arange(len(mean)), partner].mean() > CLOSE * scale:
        return None
    found = [(one, int(other)) for one, other in enumerate(partner) if one < other]
    return [pair if mean[pair[0], 0] > mean[pair[1], 0] else (pair[1], pair[0]) for pair in found]
