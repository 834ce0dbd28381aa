"""Detectors of our own as ONNX files: the tracing exporter keeps their stages and peaks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dvsn.engine import trainer as runtime
from dvsn.export.formats import traced
from dvsn.export.graph import graph_of
from dvsn.export.shape import Shape
from tests.support.tiny import TINY_DETECTION, composed


def widened(model: Any) -> list[Any]:
    """The last layers of a detector's heads."""
    if hasattr(model, "roi_heads"):
        stages = model.roi_heads.stages
        return [layer for stage in stages for layer in stage.box_predictor.children()]
    if hasattr(model.head, "scales"):
        return [model.head.scores, model.head.distances]
    if hasattr(model.head, "heatmaps"):
        return [head[2] for head in model.head.heatmaps]
    return [model.head.heatmap[2], model.head.size[2]]


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["cascade_rcnn", "htc", "centernet", "centernet_triplets", "gfl"])
def test_a_file_answers_as_the_network(detector: str, tmp_path: Path) -> None:
    """At two sides, from a trace of one of them."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        pytest.skip("needs pip install 'dvsn[onnx]'")
    import onnxruntime

    torch.manual_seed(0)
    more = ["network.min_size=96", "network.max_size=160", "network.detections=4", "data=street"]
    more += ["network.semantic_classes=5"] if detector == "htc" else []
    more += ["network.backbone.first_stride=8"] if detector == "gfl" else []
    task: Any = runtime.make_task(
        composed([*TINY_DETECTION, f"network.detector={detector}", *more], tmp_path)
    )
    model = task.network.model
    for layer in widened(model):  # so that no two scores are nearly equal
        nn.init.normal_(layer.weight, std=0.3)
    if detector == "centernet":
        nn.init.constant_(model.head.size[2].bias, 8.0)
    graph = graph_of(task)
    names = [output.name for output in graph.outputs]
    made = traced(graph, torch.zeros(1, 3, 96, 128, dtype=torch.uint8), Shape(1, None, (96, 128)), names)
    session = onnxruntime.InferenceSession(made)
    for sides in ((96, 128), (192, 256)):
        image = torch.randint(0, 255, (1, 3, *sides), dtype=torch.uint8)
        with torch.no_grad():
            expected = graph(image)
        found = session.run(None, {"image": image.numpy()})
        assert len(expected[0]) > 0
        for name, want, have in zip(names, expected, found, strict=True):
            np.testing.assert_allclose(have, want.numpy(), atol={"boxes": 0.1, "labels": 0}.get(name, 1e-3))
