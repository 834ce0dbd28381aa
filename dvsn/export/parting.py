"""Where an exported file parts ways with the network: the first module whose own result differs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.export.graph import Graph, example_inputs

SCOPE = "pkg.torch.onnx.name_scopes"
"""Where the exporter says of an operation in which modules it stands."""

LIMITS = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2, "int8": 0.5}
"""By precision: the difference, as a share of the largest magnitude, from which a result counts as another."""


def scopes_of(node: Any) -> list[str]:
    """The paths of the modules that an ONNX operation stands in, outermost first."""
    text = next((each.value for each in node.metadata_props if each.key == SCOPE), None)
    if text is not None:
        return [str(path) for path in ast.literal_eval(text)][:-1]  # the last is the operation itself
    names = node.name.strip("/").split("/")[:-1]  # of a traced model: /task/network/.../Conv
    return [".".join(names[: length + 1]) for length in range(len(names))]


def results_of(model: Any) -> dict[str, list[str]]:
    """{path of a module: names of the values that may be its result}: that of its last operation, and what reads this one
    alone, because the exporter joins an operation with the one behind it, such as two ReLUs."""
    last: dict[str, str] = {}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for path in scopes_of(node):
            if path:
                last[path] = node.output[0]
        for name in node.input:
            readers.setdefault(name, []).append(node.output[0])
    return {path: [name, *readers.get(name, [])[:2]] for path, name in last.items()}


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
        given = example_inputs(graph, image)
        graph(*given)
    finally:
        for handle in handles:
            handle.remove()
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    there = {output.name for output in opened.graph.output}
    for name in sorted({name for path in seen for name in wanted[path]} - there):
        opened.graph.output.add().name = name
    session = onnxruntime.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {entry.name: each.numpy() for entry, each in zip(session.get_inputs(), given, strict=True)}
    made = dict(zip(names, session.run(names, feeds), strict=True))
    return told([(path, seen[path], [made[name] for name in wanted[path]]) for path in seen], precision)


def told(pairs: Sequence[tuple[str, np.ndarray, Sequence[np.ndarray]]], precision: str) -> str:
    """The sentence about the first of (path, expected, what may be it) of which none is near."""
    for path, expected, candidates in pairs:
        size = float(np.abs(expected).max(initial=0)) or 1.0
        gaps = [
            float(np.abs(expected - found.astype(np.float32)).max(initial=0)) / size
            for found in candidates
            if found.shape == expected.shape
        ]
        gap = min(gaps, default=0.0)
        if not gap <= LIMITS[precision]:
            name = path.removeprefix("task.")
            return f" The first module that answers otherwise: {name}, by {gap:.1%} of its largest value."
    return ""
