"""A network as an ONNX graph in memory, asked through ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def has_onnxruntime() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))


def open_session(model: Any) -> Any:
    """An ONNX model in memory, in ONNX Runtime on the CPU, on as many threads as PyTorch uses."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnxruntime(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """`model` exported to ONNX for images of this shape, in ONNX Runtime, on as many threads as PyTorch uses.

    `model` is in eval mode and answers with one tensor; the graph computes in float32 on the CPU.
    """
    program = torch.onnx.export(model.eval(), (image,), dynamo=True, verbose=False)
    assert program is not None
    session = open_session(program.model_proto)
    name = session.get_inputs()[0].name

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: image.contiguous().numpy()})[0])

    return run
