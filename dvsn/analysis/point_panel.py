"""A person's or face's crop, enlarged: skeletons of truth and prediction, how far they are apart, and heatmaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dvsn.errors import CheckpointError
from dvsn.portable.draw import DARK, Colour
from dvsn.types import Batch

SIDE = 448  # pixels of the longer side of a panel
TRUTH: Colour = (46, 204, 113)
FOUND: Colour = (255, 64, 64)
BETWEEN: Colour = (255, 236, 61)
FAR = 1 << 14  # pixels; what lies farther out is drawn as if it were there


def draw_panels(
    task: Any, batch: Batch, output: Tensor, measured: np.ndarray, others: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Of a batch of one crop by title: uint8 RGB (1, 3, H, W). `measured` (K,) bool: keypoints with a truth; `others`:
    further answers (1, K, 3) by title."""
    factor = SIDE / max(batch["image"].shape[-2:])
    large, answer = enlarged(batch, output, factor)
    panels: dict[str, Tensor] = task.panels(large, answer)
    for title, other in (others or {}).items():
        panels[title] = task.panels(*enlarged(batch, other, factor))["prediction"]
    if "keypoints" in batch:
        panels["green truth, red found"] = as_panel(draw_errors(large, answer, measured))
    maps = heatmaps(task, batch)
    if maps is not None:
        picture = draw_maps(large, maps, task.codec, factor)
        panels[f"heatmaps, largest {float(maps.max()):.2f}"] = as_panel(picture)
    return panels


def enlarged(batch: Batch, output: Tensor, factor: float) -> tuple[Batch, Tensor]:
    """A batch of one crop and its answer (1, K, 3), as of a crop whose sides are `factor` times as long."""
    picture = to_picture(batch["image"])
    height, width = picture.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    way = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    offset = float(batch["offset"][0]) if "offset" in batch else 0.0
    sides = torch.tensor([size[0] / width, size[1] / height])

    def move(points: Tensor) -> Tensor:
        """Coordinates are kept as the batch has them: the pixel in which a point is drawn, plus `offset`."""
        return (points.float().cpu() - offset + 0.5) * sides - 0.5 + offset

    large = {**batch, "image": as_panel(cv2.resize(picture, size, interpolation=way))}
    if "keypoints" in batch:
        large |= {"keypoints": move(batch["keypoints"]), "weight": batch["weight"].cpu()}
    if "offset" in batch:
        large["offset"] = batch["offset"].cpu()
    return large, torch.cat([move(output[..., :2]), output[..., 2:].float().cpu()], dim=-1)


def draw_errors(batch: Batch, answer: Tensor, measured: np.ndarray) -> np.ndarray:
    """The crop (H, W, 3), darker, with lines from each true keypoint to where it was found."""
    picture = (0.6 * to_picture(batch["image"])).astype(np.uint8)
    offset = float(batch["offset"][0]) if "offset" in batch else 0.0
    truth, found = (each[0, :, :2].numpy().astype(float) - offset for each in (batch["keypoints"], answer))
    many = len(truth) > 30
    radius = 2.2 if many else 4.0
    shown = np.flatnonzero(measured & np.isfinite(found).all(axis=1))
    for number in shown:
        stroke(picture, truth[number], found[number], 1 if many else 2)
    for number in np.flatnonzero(measured):
        dot(picture, truth[number], radius, TRUTH)
    for number in shown:
        dot(picture, found[number], radius, FOUND)
    return picture


def heatmaps(task: Any, batch: Batch) -> np.ndarray | None:
    """The largest of the maps (h, w) at each place, as the task decodes them; None of a network without, and of an exported
    file, which answers with points."""
    if not hasattr(task, "maps"):
        return None
    try:
        with torch.no_grad(), torch.autocast(batch["image"].device.type, enabled=False):
            maps: Tensor = task.maps(batch["image"])
    except CheckpointError:
        return None
    found: np.ndarray = maps[0].float().amax(dim=0).cpu().numpy()
    return found


def draw_maps(batch: Batch, maps: np.ndarray, codec: Any, factor: float) -> np.ndarray:
    """Maps (h, w) over a crop that is `factor` times as large, (H, W, 3), from blue (0) to red (their largest value)."""
    picture = to_picture(batch["image"])
    height, width = picture.shape[:2]
    across, down = codec.spacing_of(maps.shape)
    places = [(codec.offset + 0.5) * factor - 0.5] * 2  # of the first pixel of a map
    matrix = np.array([[across * factor, 0, places[0]], [0, down * factor, places[1]]])
    level = np.clip(np.nan_to_num(maps / max(float(maps.max()), 1e-6)), 0, 1).astype(np.float32)
    large = np.asarray(cv2.warpAffine(level, matrix, (width, height), flags=cv2.INTER_LINEAR))
    colours = cv2.applyColorMap((255 * large).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.25 + 0.45 * large[..., None]
    mixed: np.ndarray = ((1 - share) * picture + share * colours).astype(np.uint8)
    return mixed


def to_picture(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W, 3), of its own memory."""
    found: np.ndarray = image[0].permute(1, 2, 0).cpu().numpy().copy()
    return found


def as_panel(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


def stroke(picture: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    one, other = fixed(start), fixed(end)
    cv2.line(picture, one, other, DARK, width + 2, cv2.LINE_AA, 4)
    cv2.line(picture, one, other, BETWEEN, width, cv2.LINE_AA, 4)


def dot(picture: np.ndarray, centre: np.ndarray, radius: float, colour: Colour) -> None:
    cv2.circle(picture, fixed(centre), round(16 * (radius + 1)), DARK, cv2.FILLED, cv2.LINE_AA, 4)
    cv2.circle(picture, fixed(centre), round(16 * radius), colour, cv2.FILLED, cv2.LINE_AA, 4)


def fixed(point: np.ndarray) -> tuple[int, int]:
    """OpenCV's sixteenths of a pixel."""
    x, y = np.clip(point, -FAR, FAR)
    return round(16 * float(x)), round(16 * float(y))
