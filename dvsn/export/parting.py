"""Where an exported file parts ways with the network: the first module whose own result differs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.export.graph import Graph

SCOPE = "pkg.torch.onnx.name_scopes"
"""Where the exporter says of an operation in which modules it stands."""

LIMITS = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2, "int8": 0.5}
"""By precision: the difference, as a share of the largest magnitude, from which a result counts as another."""


def scopes_of(node: Any) -> list[str]:
    """The paths of the modules that an ONNX operation stands in, outermost first."""
    text = next((each.value for each in node.metadata_props if each.key == SCOPE), "[]")
    return [str(path) for path in ast.literal_eval(text)][:-1]  # the last is the operation itself


def results_of(model: Any) -> dict[str, str]:
    """{path of a module: the name of the value that its last operation makes}."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        for path in scopes_of(node):
            if path:
                found[path] = node.output[0]
    return found


@torch.no_grad()
def first_parting(graph: Graph, model: Any, image: Tensor, precision: str) -> str:
    """A sentence that names the first module, in the order of the forward pass, whose result in the ONNX `model` is not
    that of the network; empty where no single one can be told."""
    import onnx
    import onnxruntime

    wanted = results_of(model)
    seen: dict[str, np.ndarray] = {}

    def hook(path: str) -> Any:
        def keep(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.pop(path, None)
                seen[path] = np.array(output.detach().float().cpu())  # a copy: what follows may work in place

        return keep

    modules = dict(graph.named_modules())
    handles = [modules[path].register_forward_hook(hook(path)) for path in wanted if path in modules]
    try:
        graph(image)
    finally:
        for handle in handles:
            handle.remove()
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    there = {output.name for output in opened.graph.output}
    for name in sorted({wanted[path] for path in seen} - there):
        opened.graph.output.add().name = name
    session = onnxruntime.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, session.run(names, {session.get_inputs()[0].name: image.numpy()}), strict=True))
    return told([(path, seen[path], made[wanted[path]]) for path in seen], precision)


def told(pairs: Sequence[tuple[str, np.ndarray, np.ndarray]], precision: str) -> str:
    """The sentence about the first of (path, expected, found) that differs."""
    for path, expected, found in pairs:
        if expected.shape != found.shape:  # the exporter has merged the last operation with another
            continue
        size = float(np.abs(expected).max(initial=0)) or 1.0
        gap = float(np.abs(expected - found.astype(np.float32)).max(initial=0)) / size
        if not gap <= LIMITS[precision]:
            name = path.removeprefix("task.")
            return f" The first module that answers otherwise: {name}, by {gap:.1%} of its largest value."
    return ""
