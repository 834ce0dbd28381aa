"""The objective of segmentation: named terms, each on one head of the network, at the size of the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, DataError, UserError
from dvsn.losses import class_weights as weighing
from dvsn.losses.resized import resize, resized_cross_entropy
from dvsn.types import IGNORE, SegmentationOutput, Terms

log = logging.getLogger("dvsn")

Head = Literal["main", "auxiliary", "boundary"] | int
"""Which response a term reads: `main`, the sum over every `auxiliary` head, one of these by its index, or
`boundary`."""


class Scores:
    """One head's class logits, and the pixels' cross entropy, worked out once for all terms.

    `small` (N, K, h, w) is what the network answers, `target` (N, H, W) class ids, uint8 or int64, with 255 for ignored
    pixels. The cross entropy does without the logits at label size; they are made only for a term that asks for them.
    """

    def __init__(self, small: Tensor, target: Tensor, *, align_corners: bool = False) -> None:
        self.small, self.target, self.align_corners = as_float(small), target, align_corners
        self._weighted: tuple[Tensor | None, Tensor] | None = None

    @cached_property
    def logits(self) -> Tensor:
        """(N, K, H, W) float32."""
        height, width = self.target.shape[-2:]
        return resize(self.small, (height, width), align_corners=self.align_corners)

    @cached_property
    def _cross_entropy(self) -> Tensor:
        return resized_cross_entropy(self.small, self.target, align_corners=self.align_corners)

    def cross_entropy(self) -> Tensor:
        """(N, H, W): minus the log of the softmax probability of the true class; 0 where ignored."""
        return self._cross_entropy

    def weighted(self, class_weights: Tensor | None) -> Tensor:
        """(N, H, W): the cross entropy times the weight of the pixel's class, (K,); ignored pixels get any weight."""
        if self._weighted is None or self._weighted[0] is not class_weights:
            self._weighted = class_weights, weigh(self.cross_entropy(), self.target, class_weights)
        return self._weighted[1]


def weigh(values: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Each pixel's value times the weight of its class. Ignored pixels get any weight."""
    if class_weights is None:
        return values
    index = target.clamp(max=len(class_weights) - 1).flatten().int()
    return values * class_weights.to(values).index_select(0, index).view_as(values)


def as_float(logits: Tensor) -> Tensor:
    """Half precision becomes float32."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class Term(nn.Module):
    """A part of the objective, with the `weight` it has there and the `head` it reads.

    A term on class logits answers `forward(scores, target, class_weights)` with a scalar, where `target`
    (N, H, W), uint8 or int64, may ignore more pixels than `scores.target` does, and `class_weights` is (K,) or None.
    With `boundary_threshold` t only pixels count at which the network's boundary head finds an outline: those with
    sigmoid(boundary logit) <= t are ignored. No gradient reaches the boundary head by that.
    A term on the boundary head answers `forward(logits, boundary)`, both (N, 1, H, W).
    """

    boundary_options: dict[str, int] | None = None
    """How the boundary map is to be drawn (`kernel`, `frame`); None for a term that needs no such map."""

    def __init__(
        self, *, weight: float = 1.0, head: Head = "main", boundary_threshold: float | None = None
    ) -> None:
        super().__init__()
        if not 0.0 <= weight < float("inf"):
            raise ConfigError(
                f"{type(self).__name__}: weight must be finite and at least 0, found {weight!r}."
            )
        known = head in ("main", "auxiliary", "boundary") or (type(head) is int and head >= 0)
        if not known:
            raise ConfigError(
                f"{type(self).__name__}: found head={head!r}, expected main, auxiliary, boundary or the index "
                "of an auxiliary head."
            )
        if boundary_threshold is not None and not 0.0 <= boundary_threshold < 1.0:
            raise ConfigError(
                f"{type(self).__name__}: boundary_threshold is a probability, found {boundary_threshold!r}."
            )
        self.weight, self.head, self.boundary_threshold = weight, head, boundary_threshold


class WeightedTerm(Term):
    """A term that may take the objective's class weights; `weighted: false` leaves them out."""

    def __init__(self, *, weighted: bool = True, **shared: Any) -> None:
        super().__init__(**shared)
        self.weighted = weighted

    def weights(self, class_weights: Tensor | None) -> Tensor | None:
        """The class weights (K,) that this term takes."""
        return class_weights if self.weighted else None


class Objective(nn.Module):
    """The weighted `terms` of a segmentation network, by name. A term that is null is left out.

    Each head that a term reads is resized once to the size of the labels, bilinearly in float32, whatever the
    precision of the network. `align_corners` is a property of the network; null means the task says so
    (`network.align_corners`), and False if it does not.

    `class_weights` are for the terms with `weighted: true`: a list of `classes` numbers, a built-in name such
    as `cityscapes`, the path of a file that `python -m dvsn.data weights` wrote, or null.

    Labels outside 0..classes-1 and 255 raise `DataError`: on the CPU in each batch, which costs nothing next to
    the loss; on a GPU in the first batch only, since asking waits for the device. The readers check too.
    """

    reads: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(
        self,
        *,
        classes: int,
        terms: Mapping[str, nn.Module | None],
        class_weights: Sequence[float] | str | None = None,
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        if not 2 <= classes <= IGNORE:
            raise ConfigError(
                f"loss.classes: found {classes}, expected 2 to {IGNORE}. An object on a background is two classes: "
                "a softmax over one has nothing to learn."
            )
        chosen = {name: term for name, term in terms.items() if term is not None}
        for name, term in chosen.items():
            if not isinstance(term, Term):
                raise ConfigError(f"loss.terms.{name}: expected a Term, found {type(term).__name__}.")
        if not chosen:
            raise ConfigError("loss.terms: no term is left, expected at least one.")
        self.classes, self.align_corners = classes, align_corners
        self.terms = nn.ModuleDict(chosen)
        self.boundary_options = self._agreed_boundary_options()
        numbers = weighing.resolve(class_weights, classes=classes)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", None if numbers is None else torch.tensor(numbers), persistent=False
        )
        self._first = True

    @property
    def needs_boundary(self) -> bool:
        """Whether `forward` wants a boundary map."""
        return self.boundary_options is not None

    def _agreed_boundary_options(self) -> dict[str, int] | None:
        """The one way of drawing boundaries that all terms share."""
        wanted = [options for _, term in self._items() if (options := term.boundary_options) is not None]
        if any(options != wanted[0] for options in wanted):
            raise ConfigError(f"loss.terms: one boundary map serves all terms, but they ask for {wanted}.")
        return wanted[0] if wanted else None

    def of_the_answer(self) -> None:
        """From now on leave out the terms that read heads for training, as for a network that is trained without them."""
        kept = {
            name: term
            for name, term in self._items()
            if term.head == "main" and term.boundary_threshold is None
        }
        self.terms = nn.ModuleDict(kept)
        self.boundary_options = self._agreed_boundary_options()

    def _items(self) -> list[tuple[str, Term]]:
        return [(name, term) for name, term in self.terms.items() if isinstance(term, Term)]

    def forward(self, output: SegmentationOutput, target: Tensor, boundary: Tensor | None = None) -> Terms:
        """`target` (N, H, W) class ids, uint8 or int64, 255 ignored; `boundary` (N, H, W) uint8 in {0, 1}."""
        self._check(output, target, boundary)
        heads = _Heads(output, target, align_corners=bool(self.align_corners))
        terms: Terms = {}
        with torch.autocast(target.device.type, enabled=False):
            for name, term in self._items():
                try:
                    terms[name] = term.weight * self._value(term, heads, boundary)
                except _MissingHead as missing:
                    raise ConfigError(f"loss.terms.{name}: {missing}") from None
        return terms

    def _value(self, term: Term, heads: _Heads, boundary: Tensor | None) -> Tensor:
        if term.head == "boundary":
            assert boundary is not None  # `_check`
            value: Tensor = term(heads.boundary(), boundary.unsqueeze(1))
            return value
        target = heads.target
        if term.boundary_threshold is not None:
            limit = float(torch.tensor(term.boundary_threshold, dtype=torch.float64).logit())
            certain = heads.boundary().detach().squeeze(1) > limit  # (N, H, W)
            target = target.masked_fill(~certain, IGNORE)
        values = [term(scores, target, self.class_weights) for scores in heads.scores(term.head)]
        return torch.stack(values).sum()

    def _check(self, output: SegmentationOutput, target: Tensor, boundary: Tensor | None) -> None:
        count, found = output.logits.shape[:2]
        if found != self.classes:
            raise ConfigError(f"loss.classes: found {self.classes}, but the network answers {found} classes.")
        if target.ndim != 3 or target.shape[0] != count:
            raise UserError(f"The labels are {tuple(target.shape)}, expected ({count}, height, width).")
        if self.needs_boundary and (boundary is None or boundary.shape != target.shape):
            shape = None if boundary is None else tuple(boundary.shape)
            raise UserError(f"The boundary map is {shape}, expected {tuple(target.shape)} as the labels.")
        if self._first:
            self._warn_of_idle_heads(output)
        if target.device.type == "cpu" or self._first:
            check_labels(target, classes=self.classes)
        self._first = False

    def _warn_of_idle_heads(self, output: SegmentationOutput) -> None:
        terms = [term for _, term in self._items()]
        read = {term.head for term in terms}
        idle = [
            f"auxiliary head {index}"
            for index in range(len(output.auxiliary))
            if not {"auxiliary", index} & read
        ]
        if output.boundary is not None and not any(
            term.head == "boundary" or term.boundary_threshold is not None for term in terms
        ):
            idle.append("boundary head")
        if idle:
            log.warning("No term of the loss reads the network's %s: it learns nothing.", " and ".join(idle))


def check_labels(target: Tensor, *, classes: int) -> None:
    """Raise `DataError` with the values and their counts if labels lie outside 0..classes-1 and 255."""
    wrong = (target >= classes) & (target != IGNORE)
    if target.dtype.is_signed:
        wrong |= target < 0
    if bool(wrong.any()):
        values, counts = target[wrong].unique(return_counts=True)
        pairs = list(zip(values.tolist(), counts.tolist(), strict=True))
        listed = ", ".join(f"{value} ({count} pixels)" for value, count in pairs[:8])
        raise DataError(
            f"labels: found {listed}{' and more' if len(pairs) > 8 else ''}, expected 0 to {classes - 1}, or "
            f"{IGNORE} for ignored pixels. `python -m dvsn.data check` names the files; the data set's id map "
            "says what such values mean."
        )


class _MissingHead(Exception):
    """A term reads a head that the network did not answer."""


class _Heads:
    """The heads of an output at the size of the labels, each worked out when it is first asked for."""

    def __init__(self, output: SegmentationOutput, target: Tensor, *, align_corners: bool) -> None:
        self.output, self.target, self.align_corners = output, target, align_corners
        self._scores: dict[int, Scores] = {}
        self._boundary: Tensor | None = None

    def scores(self, head: Head) -> list[Scores]:
        """The class logits of one head, or of every auxiliary one. The main head has the index -1."""
        count = len(self.output.auxiliary)
        indices = list(range(count)) if head == "auxiliary" else [-1 if head == "main" else int(head)]
        if not indices or indices[-1] >= count:
            raise _MissingHead(
                f"reads head={head}, but the network answered {count} auxiliary heads. They exist with "
                "network.heads=true and while training; set this term to null for a network without them."
            )
        return [self._score(index) for index in indices]

    def _score(self, index: int) -> Scores:
        if index not in self._scores:
            logits = self.output.logits if index < 0 else self.output.auxiliary[index]
            self._scores[index] = Scores(logits, self.target, align_corners=self.align_corners)
        return self._scores[index]

    def boundary(self) -> Tensor:
        """(N, 1, H, W)."""
        if self._boundary is None:
            if self.output.boundary is None:
                raise _MissingHead(
                    "reads the boundary head, but the network answered none. It exists in PIDNet and in the "
                    "boundary forms of others, with network.heads=true and while training; set this term to "
                    "null for a network without it."
                )
            height, width = self.target.shape[-2:]
            logits = as_float(self.output.boundary)
            self._boundary = resize(logits, (height, width), align_corners=self.align_corners)
        return self._boundary
