"""The teachers: frozen networks beside the task, shown the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dvsn.distill.deployed import Deployed
from dvsn.distill.method import Kind, View
from dvsn.distill.taps import Taps, first_tensor
from dvsn.networks.compiling import compile_in_place
from dvsn.types import Batch

Average = Literal["probabilities", "logits"]


class Teacher:
    """A frozen network in eval mode and how it is asked.

    Not a module, so that it is in no state dict, checkpoint, optimiser, average, copy or summary: it is moved by hand.
    `holder` is the module that owns the network and whatever prepares its input; `ask` maps the pictures of a batch to
    the network's answer, which `translate`, if given, brings into the coordinates of the student's answer. The network
    stays as it is, for those who read its weights or measure it; what is `deployed` stands in for it when it teaches.
    """

    moves: ClassVar[bool] = False
    """Whether its weights change in training."""

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
        self.deployed: Deployed | None = None
        self.taps = Taps(network, ())
        holder.eval().requires_grad_(False)

    def __deepcopy__(self, _: Any) -> Teacher:
        return self

    @property
    def engine(self) -> str:
        """The form in which it teaches, one of `dvsn.distill.deployed.ENGINES`."""
        return "eager" if self.deployed is None else self.deployed.engine

    @property
    def taught_by(self) -> nn.Module:
        """What runs when it is asked, and holds the taps: the network, or the copy that stands in for it."""
        return self.network if self.deployed is None else self.deployed.network

    def listen(self, paths: Iterable[str]) -> None:
        """Record these taps from the next `start` on."""
        self.taps.remove()
        self.taps = Taps(self.taught_by, paths)

    def deploy(self, deployed: Deployed | None) -> None:
        """Be asked through this from now on; None: through the network itself."""
        self.deployed = deployed
        self.listen(self.taps.paths)

    def start(self, device: torch.device | str) -> None:
        """Move to the device of the student, and listen."""
        self.holder.to(device).eval()
        if self.deployed is not None:  # else it is the holder's own
            self.deployed.network.to(device)
        self.taps.install()

    def to_channels_last(self) -> None:
        self.holder.channels_last = True  # type: ignore[assignment]
        for network in (self.network, self.taught_by):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compile(self) -> None:
        """Compile what runs, unless it runs elsewhere or is compiled."""
        if self.engine not in ("compiled", "onnx"):
            compile_in_place(self.taught_by)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Whoever calls the network gets the answer of what is deployed."""
        if self.deployed is None:
            yield
            return
        own = vars(self.network).get("forward")
        self.network.forward = self.deployed.__call__
        try:
            yield
        finally:
            del self.network.forward
            if own is not None:
                self.network.forward = own

    @torch.no_grad()
    def __call__(self, shown: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Its main response, and its taps by path, as float32. Under no_grad rather than in inference mode, since modules
        of a method on the teacher's side are trained on these tensors."""
        with self.taps, self.standing_in():
            output = first_tensor(self.ask(shown))
        if output is not None and self.translate is not None:
            output = self.translate(output.float(), batch)
        features = {path: value.float() for path, value in self.taps.take().items()}
        return (shown.new_empty(0) if output is None else output).float(), features


class MeanTeacher(Teacher):
    """The moving average of the student's own weights (Tarvainen and Valpola, 2017, arXiv:1703.01780).

    Until `follow` it is a copy of the student at its start. Unlike there the decay is that of the whole run (`ema`), and
    the teacher is in eval mode, with the averages of the batch norms' statistics.
    """

    moves: ClassVar[bool] = True

    def follow(self, average: Any, see: Callable[[Tensor], Tensor]) -> None:
        """Be this task from now on, whose weights somebody else keeps as the average.

        `see` is the student's own preparation of pictures: the average has the mean and deviation of colours averaged too,
        with themselves, which moves their last bit, and they are in no checkpoint.
        """
        average.eval().requires_grad_(False)
        self.holder, self.network = average, average.student
        self.ask = lambda shown: average.student(see(shown))
        self.listen(self.taps.paths)


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
