"""The FCN score of photos painted from colour label maps, by any segmentation checkpoint of dvsn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import CheckpointError, ConfigError
from dvsn.metrics.fcn_score import FcnScore, ids_of_colors
from dvsn.tasks.recipe import load
from dvsn.tasks.segmentation import Segmentation


class PaintedScore(FcnScore):
    """`FcnScore` whose labels are read off the colours of the map that was painted.

    `update` takes generated RGB (N, 3, H, W), float in [0, 1], and the label map, uint8 RGB of the same size. A
    colour that is none of the segmenter's classes, by the palette of the data set that it was trained on, is not
    scored. `size` (H, W) is what photos are enlarged to before they are segmented.

    Known differences from Isola et al., 2017: their segmenter is an FCN-8s in Caffe, and labels are taken at the size
    of the picture here, at their original size there. So the numbers compare with each other, not with
    the paper's.
    """

    def __init__(self, checkpoint: str, *, size: Sequence[int] | None = None) -> None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ConfigError(f"metrics.segmenter_size: found {list(size)}, expected [HEIGHT, WIDTH].")
        task = load(checkpoint)
        if not isinstance(task, Segmentation):
            raise CheckpointError(
                f"{checkpoint}: is a checkpoint of the task '{task.kind}', expected one of segmentation "
                "(metrics.segmenter)."
            )
        self.size = None if size is None else (int(size[0]), int(size[1]))
        super().__init__(segmenter=self.segment, classes=task.classes)
        self._task = (task,)  # its weights stay out of the state
        self._palette = torch.tensor(task.vocabulary.palette, dtype=torch.uint8)

    @property
    def task(self) -> Segmentation:
        return self._task[0]

    def move(self, device: torch.device) -> None:
        """Its counts and its segmenter to a device."""
        self.to(device)
        self.task.to(device)

    def segment(self, photo: Tensor) -> Tensor:
        """RGB (N, 3, H, W), float in [0, 1] -> class ids (N, h, w)."""
        if self.size is not None:
            photo = F.interpolate(photo, size=self.size, mode="bilinear", align_corners=False)
        return self.task.predict_ids((photo.clamp(0, 1) * 255).round().to(torch.uint8))

    def update(self, generated: Tensor, colors: Tensor) -> None:
        super().update(generated, ids_of_colors(colors, self._palette))
