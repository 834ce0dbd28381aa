"""Knowledge distillation: the teacher's softened probabilities as labels."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

ONE = "a softmax is always 1: there is nothing to learn"
STANDARDISED = "two standardised logits are always the same pair, without a gradient. Choose distill=kd, not standardised"


class KnowledgeDistillation(Method):
    """T^2 times the Kullback-Leibler divergence of the softened classes, its mean over the batch: the term `kd`.

    Hinton, Vinyals and Dean, 2015, arXiv:1503.02531: softmax of z / T in both; T^2 keeps the gradient's size as T grows.

    `standardise` first gives each item's logits mean 0 and standard deviation 1, so that the student need not copy the
    teacher's scale: logit standardisation (Sun et al., 2024, arXiv:2403.01427, with T 2 and weight 9).
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)

    def __init__(
        self, *, student: Side, teacher: Side, temperature: float = 4.0, standardise: bool = False
    ) -> None:
        super().__init__()
        same_output(
            "kd", student, teacher, least=3 if standardise else 2, why=STANDARDISED if standardise else ONE
        )
        self.temperature, self.standardise = positive("kd.method.temperature", temperature), standardise

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = student.output, teacher.output
        if self.standardise:
            mine, theirs = standardised(mine), standardised(theirs)
        guess, truth = (
            F.log_softmax(mine / self.temperature, dim=1),
            F.softmax(theirs / self.temperature, dim=1),
        )
        return {"kd": F.kl_div(guess, truth, reduction="sum") * (self.temperature**2 / len(guess))}


def divergence(student: Tensor, teacher: Tensor, temperature: float, *, dim: int = 1) -> Tensor:
    """T^2 KL(teacher || student) of the softmax of logits over T along `dim`, which is summed away."""
    guess = F.log_softmax(student / temperature, dim=dim)
    truth = F.softmax(teacher / temperature, dim=dim)
    return F.kl_div(guess, truth, reduction="none").sum(dim) * temperature**2


def standardised(logits: Tensor) -> Tensor:
    """(N, K) less their mean, over their standard deviation (of K - 1 degrees of freedom) plus 1e-7."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


def positive(where: str, value: float) -> float:
    if not value > 0:
        raise ConfigError(f"distill.{where}: found {value!r}, expected a number above 0.")
    return value
