"""One rank of two: works out relation losses of its half of a batch with gathering, and writes value and gradients.

Run by tests/distill/test_gather.py as `gathering.py FOLDER`, with the variables that torchrun sets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dvsn.distill.cc import CorrelationCongruence
from dvsn.distill.cirkd import CrossImageRelations
from dvsn.distill.crd import ContrastiveRepresentation
from dvsn.distill.dist import Correlated
from dvsn.distill.holistic import HolisticDistillation
from dvsn.distill.method import Facts, Method, View
from dvsn.distill.mlkd import MultiLevel
from dvsn.distill.pkt import ProbabilisticTransfer
from dvsn.distill.rkd import RelationalDistillation
from dvsn.distill.sp import SimilarityPreserving
from tests.support.distilling import sides, total

HALVES = [slice(0, 4), slice(4, 8)]
UNEQUAL = [slice(0, 5), slice(5, 8)]


class Repeatable(ContrastiveRepresentation):
    """Draws the same negatives for an item wherever it is."""

    def draw(self, index: Tensor) -> Tensor:
        steps = torch.arange(1, self.negatives + 1)
        return torch.cat([index[:, None], (index[:, None] + steps * 3) % self.samples], dim=1)


CASES: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "sp": (SimilarityPreserving, {"gather": True}),
    "rkd": (RelationalDistillation, {"gather": True}),
    "pkt": (ProbabilisticTransfer, {"gather": True}),
    "cc": (CorrelationCongruence, {"gather": True}),
    "cc adjacent": (CorrelationCongruence, {"gather": True, "form": "adjacent", "dimension": 4}),
    "dist": (Correlated, {"gather": True}),
    "mlkd": (MultiLevel, {"gather": True}),
    "cirkd": (CrossImageRelations, {"gather": True, "memory_weight": 0.0}),
    "crd": (Repeatable, {"facts": Facts(30), "dimension": 4, "negatives": 6}),
}


class Student(nn.Module):
    """A linear network and the method's own modules: what DDP would wrap."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.network, self.method = nn.Linear(5, 6), method

    def forward(self, picture: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
        feature = self.network(picture)
        views = View(feature, (self.shaped(feature),)), View(teacher[:, :6], (self.shaped(teacher),))
        return total(self.method(*views, {"index": index}))

    def shaped(self, vector: Tensor) -> Tensor:
        """As a map of two channels, more for the teacher, where the method compares maps."""
        return vector.view(len(vector), -1, 1, 3) if isinstance(self.method, CrossImageRelations) else vector


def student(name: str) -> Student:
    torch.manual_seed(3)
    kind, options = CASES[name]
    maps = kind is CrossImageRelations
    given = sides(
        [(2, 1, 3) if maps else (6,)], [(3, 1, 3) if maps else (9,)], outputs=((6,), (6,)), kind="pixels"
    )
    return Student(kind(**given, **options)).double()


def whole_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    picture, teacher = (torch.randn(8, width, generator=generator, dtype=torch.float64) for width in (5, 9))
    return picture, teacher, torch.tensor([3, 11, 29, 0, 7, 8, 21, 14])


def found(model: Any, batch: tuple[Tensor, ...]) -> dict[str, Any]:
    """Value, gradients and buffers after two steps, the last of them with the banks of the first."""
    inner = getattr(model, "module", model)
    for _ in range(2):
        model.zero_grad()
        value = model(*batch)
        value.backward()
        inner.method.after_step(View(batch[1], ()), View(batch[1], ()), {})
    return {
        "value": value.detach(),
        "gradients": {name: parameter.grad for name, parameter in inner.named_parameters()},
        "buffers": dict(inner.named_buffers()),
    }


def critic(rank: int) -> tuple[HolisticDistillation, View, View, dict[str, Tensor]]:
    """A critic, the same on every rank, and the rank's own maps and pictures."""
    torch.manual_seed(3)
    shape = (3, 64, 64)
    given = sides([], [], outputs=(shape, shape), kind="pixels")
    method = HolisticDistillation(**given, channels=2, lr=0.1).double()
    generator = torch.Generator().manual_seed(rank)
    mine, theirs = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    image = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return method, View(mine, ()), View(theirs, ()), {"image": image}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    answers = {}
    for name in CASES:
        for kind, parts in (("halves", HALVES), ("unequal", UNEQUAL)):
            model = DistributedDataParallel(student(name), broadcast_buffers=False)
            answers[f"{name} {kind}"] = found(model, tuple(each[parts[rank]] for each in whole_batch()))
    method, *seen = critic(rank)
    for step in range(2):
        torch.manual_seed(2 * step + rank)
        method.after_step(*seen)  # type: ignore[arg-type]
    answers["critic"] = method.state_dict()
    torch.save(answers, Path(sys.argv[1]) / f"gather_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
