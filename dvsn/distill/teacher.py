"""The teachers: frozen networks beside the task, shown the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dvsn.distill.method import Kind, View
from dvsn.distill.taps import Taps, first_tensor
from dvsn.types import Batch

Average = Literal["probabilities", "logits"]


class Teacher:
    """A frozen network in eval mode and how it is asked.

    Not a module, so that it is in no state dict, checkpoint, optimiser, average, copy or summary: it is moved by hand.
    `holder` is the module that owns the network and whatever prepares its input; `ask` maps the pictures of a batch to
    the network's answer, which `translate`, if given, brings into the coordinates of the student's answer.
    """

    def __init__(
        self,
        holder: nn.Module,
        network: nn.Module,
        ask: Callable[[Tensor], Any],
        *,
        name: str,
        translate: Callable[[Tensor, Batch], Tensor] | None = None,
    ) -> None:
        self.holder, self.network, self.ask, self.name = holder, network, ask, name
        self.translate = translate
        self.alike = (
            True  # whether it answers about the student's classes, so that it can be measured on its data
        )
        self.taps = Taps(network, ())
        holder.eval().requires_grad_(False)

    def __deepcopy__(self, _: Any) -> Teacher:
        return self

    def start(self, device: torch.device | str) -> None:
        """Move to the device of the student, and listen."""
        self.holder.to(device).eval()
        self.taps.install()

    def to_channels_last(self) -> None:
        self.holder.channels_last = True  # type: ignore[assignment]
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, shown: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Its main response, and its taps by path, as float32. Under no_grad rather than in inference mode, since modules
        of a method on the teacher's side are trained on these tensors."""
        with self.taps:
            output = first_tensor(self.ask(shown))
        if output is not None and self.translate is not None:
            output = self.translate(output.float(), batch)
        features = {path: value.float() for path, value in self.taps.take().items()}
        return (shown.new_empty(0) if output is None else output).float(), features


def answer(
    teachers: Sequence[Teacher], shown: Tensor, batch: Batch, *, kind: Kind, average: Average
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the teachers say together: each is run once, outputs are averaged.

    Classes (dim 1) are averaged as `probabilities`, given back as their logarithms, which every softmax of temperature 1
    undoes; or as `logits`. Maps, points and pictures are averaged as they are. Several teachers have no common features.
    """
    answers = [teacher(shown, batch) for teacher in teachers]
    if len(answers) == 1:
        return answers[0]
    outputs = torch.stack([output for output, _ in answers])
    if kind in ("classes", "pixels") and average == "probabilities":
        logs = outputs.log_softmax(dim=2)
        return torch.logsumexp(logs, dim=0) - torch.tensor(float(len(answers))).log().item(), {}
    return outputs.mean(dim=0), {}


def view(output: Tensor, features: dict[str, Tensor], paths: Sequence[str]) -> View:
    return View(output, tuple(features[path] for path in paths))
