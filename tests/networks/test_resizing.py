"""Pictures of detectors are resized to the same sides in training, in use and in an exported file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dvsn.networks.resizing import Resizing

OPTIONS: tuple[Any, ...] = (48, 64, [0.5] * 3, [0.25] * 3, 32)


class Alone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resizing = Resizing(*OPTIONS).eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.resizing([image[0]])[0].tensors


def test_a_traced_picture_has_the_sides_that_the_network_gives_it() -> None:
    """Of 45x123 within 48 and 64 the longer side is 64; in float32 64 / 123 x 123 is a little less. Of 60x100 and others the
    same; and every pixel is the same."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    alone, buffer = Alone(), io.BytesIO()
    theirs = GeneralizedRCNNTransform(*OPTIONS).eval()
    torch.onnx.export(
        alone, (torch.zeros(1, 3, 96, 128),), buffer, dynamo=False, opset_version=17, input_names=["image"],
        dynamic_axes={"image": {2: "height", 3: "width"}},
    )  # fmt: skip
    session = runtime.InferenceSession(buffer.getvalue())
    random = torch.Generator().manual_seed(0)
    assert theirs([torch.rand(3, 45, 123)])[0].image_sizes == [(23, 64)]
    for sides in ((45, 123), (123, 45), (60, 100), (61, 49), (75, 75), (49, 98), (7, 200), *others(40)):
        image = torch.rand(1, 3, *sides, generator=random)
        expected = theirs([image[0]])[0].tensors
        torch.testing.assert_close(alone(image), expected, rtol=0, atol=0)
        (found,) = session.run(None, {"image": image.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)


def others(count: int) -> list[tuple[int, int]]:
    drawn = np.random.default_rng(0).integers(5, 400, (count, 2))
    return [(int(height), int(width)) for height, width in drawn]
