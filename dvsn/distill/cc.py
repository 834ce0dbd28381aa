"""Correlation congruence: the correlations between the items of a batch, in three forms."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.embed import Embed
from dvsn.distill.gather import rows
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import as_vector, nothing, summed, tapped, unit
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

Form = Literal["kernel", "adjacent", "frobenius"]


class CorrelationCongruence(Method):
    """The term `cc`. Peng et al., 2019, arXiv:1904.01802; three losses go by this name, chosen by `form`:

    - `kernel`, the paper's: rows of unit length, the Taylor form of the Gaussian kernel up to `order`,
      k(x, y) = sum_p exp(-2 gamma) (2 gamma)^p / p! (x.y)^p, and the mean over the N^2 pairs of (K_s - K_t)^2; weight 0.003.
    - `adjacent`, of the CRD authors' benchmark: with embeddings e of both networks into `dimension` numbers and
      d_i = |e_s,i - e_t,i|, the mean over i < N of d_i . d_(i+1); weight 0.02. It depends on the order of the batch, both
      embeddings are trained, and with both at 0 it is 0: it can collapse.
    - `frobenius`, of a tutorial: G = F F^T over its Frobenius norm, ||G_t - G_s||_F^2 / N^2: similarity preserving with
      another scale.

    Maps are averaged to vectors for `adjacent` and flattened for the others. `gather` takes the items of all processes, in
    the order of their ranks; else each takes its own, and the loss changes with their number. A batch of one item has no
    correlations: the term is 0.
    """

    relates = True

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        form: Form = "kernel",
        gamma: float = 0.4,
        order: int = 2,
        dimension: int = 128,
        gather: bool = False,
    ) -> None:
        super().__init__()
        if form not in ("kernel", "adjacent", "frobenius"):
            raise ConfigError(
                f"distill.cc.method.form: found {form!r}, expected kernel, adjacent or frobenius."
            )
        pairs = tapped("cc", student, teacher)
        self.form, self.gamma, self.order, self.gather = form, gamma, order, gather
        wanted = pairs if form == "adjacent" else []
        self.embed_s = nn.ModuleList(Embed(mine[0], dimension) for mine, _ in wanted)
        self.embed_t = nn.ModuleList(Embed(theirs[0], dimension) for _, theirs in wanted)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        if self.form == "adjacent":
            student, teacher = embedded(student, self.embed_s), embedded(teacher, self.embed_t)
        terms = [
            nothing(mine) if len(mine) == 1 else self.term(mine, theirs)
            for mine, theirs in rows(student, teacher, everywhere=self.gather)
        ]
        return {"cc": summed(terms)}

    def term(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Of rows (N, D_s) and (N, D_t)."""
        if self.form == "adjacent":
            apart = (mine - theirs).abs()
            return torch.dot(apart[:-1].flatten(), apart[1:].flatten()) / (len(apart) - 1)
        correlation = self.kernel if self.form == "kernel" else scaled_gram
        return F.mse_loss(correlation(mine), correlation(theirs))

    def kernel(self, items: Tensor) -> Tensor:
        items = unit(items)
        cosine = items @ items.T
        factors = [
            math.exp(-2 * self.gamma) * (2 * self.gamma) ** p / math.factorial(p)
            for p in range(self.order + 1)
        ]
        total = torch.full_like(cosine, factors[-1])
        for factor in reversed(factors[:-1]):  # Horner
            total = total * cosine + factor
        return total


def embedded(view: View, layers: nn.ModuleList) -> View:
    """The view with its features averaged to vectors and embedded."""
    pairs = zip(layers, view.features, strict=True)
    return view._replace(features=tuple(layer(as_vector(feature)) for layer, feature in pairs))


def scaled_gram(items: Tensor) -> Tensor:
    """G = F F^T over its Frobenius norm."""
    gram = items @ items.T
    return unit(gram.flatten()[None]).view_as(gram)
