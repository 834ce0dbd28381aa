"""Cross-image relational distillation: similarities between the pixels of different pictures."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.class_memory import ClassMemory
from dvsn.distill.gather import gather
from dvsn.distill.kd import divergence, positive
from dvsn.distill.labels import labels_of, labels_on_grid
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import match_size, require_positions, summed, tapped, unit
from dvsn.types import Batch, Terms


class CrossImageRelations(Method):
    """The terms `cirkd_batch` and `cirkd_memory`, with the latter's weight inside.

    Yang et al., 2022, arXiv:2204.06986, beside `pixel_kd` with weight 1. Within the batch: pixels averaged `pool` x
    `pool`, KL of each pixel's softmax of cosines over `temperature` with the pixels of one picture, its own included,
    the mean over all pixels and pictures. With the memory: KL of the softmax over sampled pixels, and over sampled
    regions (means of a class in a picture), of what the teacher has seen in earlier batches, as many of each class; the
    student's pixels go through a projection to the teacher's width first; `memory_weight` times the sum. All pixels are
    anchors.

    `memory` entries a class and kind are held, float32, in the state dict; of each picture and class its mean and
    `written` pixels enter. `memory_weight: 0` leaves it out, and labels are not looked at. Widths may differ; of two
    sizes the larger is average-pooled; several taps are summed, each with a memory.

    Similarities in the batch take the square of (pictures x pixels) numbers. `gather` relates the pictures of all
    processes; else each process relates its own, and the first term changes with their number. The memory sees all.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels",)
    compares: ClassVar[bool] = False

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        temperature: float = 0.1,
        pool: int = 2,
        memory_weight: float = 0.1,
        memory: int = 2000,
        pixel_samples: int = 4096,
        region_samples: int = 1024,
        written: int = 16,
        gather: bool = False,
    ) -> None:
        super().__init__()
        pairs = tapped("cirkd", student, teacher, maps=True)
        self.temperature = positive("cirkd.method.temperature", temperature)
        self.pool, self.gather = int(positive("cirkd.method.pool", pool)), gather
        self.memory_weight = memory_weight
        require_positions("cirkd", pairs, lambda side: -(-side // self.pool))
        self.pixel_samples, self.region_samples = pixel_samples, region_samples
        held = pairs if memory_weight else []
        self.projections = nn.ModuleList(projection(mine[0], theirs[0]) for mine, theirs in held)
        self.memories = nn.ModuleList(
            ClassMemory(student.output[0], memory, theirs[0], written=written) for _, theirs in held
        )
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        within, remembered = [], []
        self._seen = []
        for number, (mine, theirs) in enumerate(zip(student.features, teacher.features, strict=True)):
            mine, theirs = match_size(mine, theirs)
            pair = self.pooled(mine), self.pooled(theirs)
            within.append(self.relations(*(gather(each) for each in pair) if self.gather else pair))
            if self.memory_weight:
                labels = labels_on_grid(labels_of("cirkd", batch), theirs).flatten(1)
                remembered.append(self.recall(number, mine, theirs, labels))
        terms = {"cirkd_batch": summed(within)}
        if remembered:
            terms["cirkd_memory"] = self.memory_weight * summed(remembered)
        return terms

    def pooled(self, feature: Tensor) -> Tensor:
        return pixels(F.avg_pool2d(feature, self.pool, ceil_mode=True) if self.pool > 1 else feature)

    def relations(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Of unit pixels (N, P, C_s) and (N, P, C_t), one picture at a time against all."""
        count, size, _ = mine.shape
        total = mine.new_zeros(())
        for a, b in zip(mine, theirs, strict=True):
            guess = (mine @ a.T / self.temperature).log_softmax(
                1
            )  # (N, P', P): over the pixels P' of each picture
            truth = (theirs @ b.T / self.temperature).softmax(1)
            total = total + F.kl_div(guess, truth, reduction="sum")
        return total / (count * count * size)

    def recall(self, number: int, mine: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
        memory = self.memories[number]
        assert isinstance(memory, ClassMemory)
        mine, theirs = pixels(self.projections[number](mine)), pixels(theirs)
        if self.training:
            self._seen.append((theirs, labels))
        total = mine.new_zeros(())
        for ring, count in ((memory.pixels, self.pixel_samples), (memory.regions, self.region_samples)):
            sampled = memory.sample(ring, count).T.to(mine.dtype) / self.temperature  # (C, S)
            total = total + divergence(mine @ sampled, theirs @ sampled, 1.0, dim=2).mean()
        return total

    def after_step(self, student: View, teacher: View, batch: Batch) -> None:
        seen, self._seen = self._seen, []
        if not seen:  # no memory is kept, or the step was none of training
            return
        for memory, (features, labels) in zip(self.memories, seen, strict=True):
            assert isinstance(memory, ClassMemory)
            memory.write(features, labels)


def pixels(feature: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, P, C), a unit vector a pixel."""
    return unit(feature.flatten(2).mT)


def projection(student: int, teacher: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.BatchNorm2d(teacher),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1),
    )
