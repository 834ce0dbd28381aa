"""Contrastive representation distillation: a contrastive loss between embeddings of student and teacher."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.embed import Embed
from dvsn.distill.gather import gather, processes
from dvsn.distill.kd import positive
from dvsn.distill.memory import reserve
from dvsn.distill.method import Facts, Method, Side, View
from dvsn.distill.shapes import as_vector, tapped, unit
from dvsn.errors import ConfigError, DataError
from dvsn.types import Batch, Terms

Exclude = Literal["class", "self", "nothing"]
EPSILON = 1e-7
DENSE = 12  # all n scores by one matrix product, if n is at most so many times the negatives
CHUNK = 2**22  # numbers gathered from a bank at once


class ContrastiveRepresentation(Method):
    """The term `crd`: noise-contrastive estimation of pairs, from both sides.

    Tian, Krishnan and Isola, 2020, arXiv:1910.10699, with the values of the authors' benchmark. Unit embeddings of both
    networks' vectors; two banks hold one of each for every item of the training set, and follow with `momentum`. For each
    item the student's embedding meets the teacher's bank at the item and at `negatives` others, and the other way
    round: P = exp(score / temperature) / Z, -log(P / (P + K/n + e)) of the item, -log((K/n) / (P + K/n + e)) of the others,
    worked out as logarithms. Z is n times the mean of the first batch, over all processes, and stays.

    The negatives are drawn on the device for the whole batch, uniformly and with replacement. (The published code draws
    without, which at its numbers has 15 % fewer doubles and the same mean.) `exclude`: `class` leaves out the item's own
    class, exactly, and needs a class for every item; without them `self` is meant, which leaves out the item; `nothing`
    draws from all. `positive: relaxed` puts a random item of the same class in the place of the item itself.

    Scores come from the product with the whole bank where that is cheaper than gathering, else from gathered rows that
    are gathered again in the backward pass. Banks, Z and embeddings are in the state dict. All processes write the rows of
    all, so their banks stay equal; where an item comes twice in a step, its last one counts. A method inside of DDP
    should not have its buffers broadcast: they are equal already. `after_step` writes what the last `forward` has seen.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        facts: Facts,
        dimension: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        exclude: Exclude = "class",
        positive: Literal["exact", "relaxed"] = "exact",
    ) -> None:
        super().__init__()
        check(facts, negatives, temperature, momentum, exclude, positive)
        pairs = tapped("crd", student, teacher)
        if len(pairs) != 1:
            raise ConfigError(f"distill.crd.taps: found {len(pairs)} pairs, expected one, such as pooled.")
        ((mine, theirs),) = pairs
        self.samples, self.negatives, self.positive = facts.samples, negatives, positive
        self.embed_s, self.embed_t = Embed(mine[0], dimension), Embed(theirs[0], dimension)
        self.contrast = Banks(facts.samples, dimension, negatives, temperature, momentum)
        self.exclude = "self" if exclude == "class" and facts.labels is None else exclude
        grouped = facts.labels if self.exclude == "class" or positive == "relaxed" else None
        for name, values in by_class(grouped, facts.samples).items():
            self.register_buffer(name, values, persistent=False)
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    order: Tensor | None
    group: Tensor | None
    starts: Tensor | None
    counts: Tensor | None

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        if "index" not in batch:
            raise DataError(
                "distill.crd: the batch has no `index`, its number in the training set. Choose data that has it."
            )
        mine = unit(self.embed_s(as_vector(student.features[-1])))
        theirs = unit(self.embed_t(as_vector(teacher.features[-1])))
        index = batch["index"].to(mine.device).long()
        if self.training:
            self._seen = index, mine.detach(), theirs.detach()
        return {"crd": self.contrast(mine, theirs, self.draw(index))}

    @torch.no_grad()
    def draw(self, index: Tensor) -> Tensor:
        """(N,) items -> (N, 1 + negatives): the positive first."""
        size = (len(index), self.negatives)
        first, others = index, torch.rand(size, device=index.device, dtype=torch.float64)
        if (
            self.group is not None
            and self.starts is not None
            and self.counts is not None
            and self.order is not None
        ):
            start, count = (values[self.group[index]] for values in (self.starts, self.counts))
            if self.positive == "relaxed":
                among = torch.rand(len(index), device=index.device, dtype=torch.float64) * count
                first = self.order[start + among.long().minimum(count - 1)]
        if self.exclude == "class" and self.order is not None:
            left = (self.samples - count)[:, None]
            place = (others * left).long().minimum(left - 1)
            drawn = self.order[place + (place >= start[:, None]) * count[:, None]]
        elif self.exclude == "self":
            drawn = (others * (self.samples - 1)).long()
            drawn = drawn + (drawn >= index[:, None])
        else:
            drawn = (others * self.samples).long()
        return torch.cat([first[:, None], drawn], dim=1)

    @torch.no_grad()
    def after_step(self, student: View, teacher: View, batch: Batch) -> None:
        if self._seen is not None:
            self.contrast.follow(*(gather(each) for each in self._seen))
            self._seen = None


class Banks(nn.Module):
    """The two memories, `memory_v1` of the student and `memory_v2` of the teacher, (n, D) each, and their loss.

    `params`: negatives, temperature, Z of the student's and of the teacher's scores (-1: not yet known), momentum; the names
    and numbers of the authors' module.
    """

    memory_v1: Tensor
    memory_v2: Tensor
    params: Tensor

    def __init__(
        self, samples: int, dimension: int, negatives: int, temperature: float, momentum: float
    ) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        reserve((samples, dimension), (samples, dimension))
        bound = 1 / math.sqrt(dimension / 3)
        self.register_buffer("params", torch.tensor([negatives, temperature, -1.0, -1.0, momentum]))
        self.register_buffer("memory_v1", torch.empty(samples, dimension).uniform_(-bound, bound))
        self.register_buffer("memory_v2", torch.empty(samples, dimension).uniform_(-bound, bound))
        self._known = False
        self.register_load_state_dict_post_hook(Banks._forget)

    def _forget(self, _: Any) -> None:
        self._known = False

    def forward(self, student: Tensor, teacher: Tensor, items: Tensor) -> Tensor:
        """Unit embeddings (N, D), items (N, 1 + K)."""
        of_student = scores(student, self.memory_v2, items) / self.temperature
        of_teacher = scores(teacher, self.memory_v1, items) / self.temperature
        self.settle(of_student, of_teacher)
        constants = self.params[2:4].log()
        return self.loss(of_student - constants[0]) + self.loss(of_teacher - constants[1])

    def loss(self, logarithms: Tensor) -> Tensor:
        """Of log P, (N, 1 + K)."""
        share = (logarithms.shape[1] - 1) / len(self.memory_v1)
        noise = math.log(share + EPSILON)
        # log(P + K/n + e) is softplus(log P - noise) + noise
        joint = F.softplus(logarithms - noise, threshold=40) + noise
        total = joint.sum() - logarithms[:, 0].sum() - math.log(share) * logarithms[:, 1:].numel()
        return total / len(logarithms)

    @torch.no_grad()
    def settle(self, *scaled: Tensor) -> None:
        """Fix Z, once, from the mean of exp(score / temperature) over the first batch of all processes, which may have
        unequal numbers of items."""
        if not self._known and not bool((self.params[2:4] > 0).all()):
            sums = torch.stack([each.flatten().logsumexp(0) for each in scaled]).exp()
            found = torch.cat([sums, sums.new_tensor([scaled[0].numel()])])
            if processes() > 1:
                dist.all_reduce(found)
            self.params[2:4] = found[:2] / found[2] * len(self.memory_v1)
        self._known = True

    @torch.no_grad()
    def follow(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Move the rows of these items towards their embeddings."""
        same = index[:, None] == index
        last = (same * torch.arange(len(index), device=index.device)).argmax(1)  # of an item that comes twice
        for memory, embedding in ((self.memory_v1, student), (self.memory_v2, teacher)):
            moved = self.momentum * memory[index] + (1 - self.momentum) * embedding.to(memory.dtype)
            memory[index] = unit(moved)[last]


def scores(embedding: Tensor, memory: Tensor, items: Tensor) -> Tensor:
    """(N, D), (n, D) and (N, J) items -> their products, (N, J)."""
    if len(memory) <= DENSE * items.shape[1]:
        return (embedding @ memory.T).gather(1, items)
    products: Tensor = GatheredScores.apply(embedding, memory, items)
    return products


class GatheredScores(torch.autograd.Function):
    """The same by gathered rows, a few items at a time, in both passes."""

    @staticmethod
    def forward(context: Any, embedding: Tensor, memory: Tensor, items: Tensor) -> Tensor:
        context.save_for_backward(memory, items)
        some = chunk(items, memory)
        parts = zip(items.split(some), embedding.split(some), strict=True)
        return torch.cat([(memory[rows] @ each[:, :, None]).squeeze(2) for rows, each in parts])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        memory, items = context.saved_tensors
        some = chunk(items, memory)
        parts = zip(items.split(some), gradients[0].split(some), strict=True)
        return torch.cat([(each[:, None] @ memory[rows]).squeeze(1) for rows, each in parts]), None, None


def chunk(items: Tensor, memory: Tensor) -> int:
    return max(1, CHUNK // (items.shape[1] * memory.shape[1]))


def by_class(labels: Tensor | None, samples: int) -> dict[str, Tensor | None]:
    """Items sorted by class, the class of each item, and where each class starts and how many it has."""
    if labels is None:
        return {"order": None, "group": None, "starts": None, "counts": None}
    _, group = labels.cpu().long().unique(return_inverse=True)
    counts = torch.bincount(group)
    if len(labels) != samples or len(counts) < 2:
        raise ConfigError(
            f"distill.crd: {samples} items with {len(labels)} labels of {len(counts)} classes, expected a label each and "
            "two classes or more. Set method.exclude to self."
        )
    order = group.argsort(stable=True)
    return {"order": order, "group": group, "starts": counts.cumsum(0) - counts, "counts": counts}


def check(
    facts: Facts, negatives: int, temperature: float, momentum: float, exclude: str, which: str
) -> None:
    if facts.samples < 2:
        raise ConfigError(
            "distill.crd: needs to know how many items the training set has, and a steady `index` of each, to hold a bank "
            "of them; this data set tells neither. Choose another data set or method."
        )
    if exclude not in ("class", "self", "nothing") or which not in ("exact", "relaxed"):
        raise ConfigError(
            "distill.crd.method: expected exclude class, self or nothing and positive exact or relaxed, found "
            f"{exclude!r}, {which!r}."
        )
    if which == "relaxed" and facts.labels is None:
        raise ConfigError(
            "distill.crd.method.positive: relaxed needs the class of every item, and this data set has none. Set exact."
        )
    positive("crd.method.negatives", negatives)
    positive("crd.method.temperature", temperature)
    if not 0 <= momentum < 1:
        raise ConfigError(f"distill.crd.method.momentum: found {momentum!r}, expected 0 or more and below 1.")
