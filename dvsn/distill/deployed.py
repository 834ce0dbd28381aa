"""A teacher's network as it is deployed: the same function in a faster form, which stands in for it while it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dvsn.distill.taps import first_tensor
from dvsn.networks.compiling import compile_in_place
from dvsn.networks.folding import fold_batch_norms
from dvsn.networks.onnx_form import onnxruntime

ENGINES = {
    "eager": "as it was built",
    "folded": "batch norms folded into the convolutions before them",
    "channels_last": "folded, and channels innermost in memory",
    "compiled": "folded, channels innermost, by torch.compile",
    "onnx": "folded, in ONNX Runtime on the CPU",
}
"""The forms of a teacher's network, the simplest first."""


class Deployed:
    """A copy of `network` in the form of one of `ENGINES`, in eval mode and without gradient, for images like `image`
    (N, C, H, W) float32.

    At the paths `watched` it makes the same tensors as the network itself. ONNX Runtime takes batches of this shape on the
    CPU; any other, such as the last one of an epoch, goes through the folded copy.
    """

    def __init__(self, network: nn.Module, engine: str, image: Tensor, watched: Sequence[str] = ()) -> None:
        found = fold_batch_norms(network, image.shape, watched)
        self.network = found.network.requires_grad_(False)
        self.engine, self.norms, self.kept = engine, len(found.folded), len(found.kept)
        self.wide = engine in ("channels_last", "compiled")
        self.shape = image.shape
        self.graph = onnxruntime(FirstTensor(self.network), image) if engine == "onnx" else None
        if self.wide:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if engine == "compiled":
            compile_in_place(self.network, dynamic=False)

    def __call__(self, image: Tensor) -> Any:
        if self.graph is not None and image.shape == self.shape and image.device.type == "cpu":
            return self.graph(image.float())
        return self.network(image.contiguous(memory_format=torch.channels_last) if self.wide else image)


class FirstTensor(nn.Module):
    """A network that gives the first tensor of its answer alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        answer = first_tensor(self.network(image))
        assert answer is not None
        return answer
