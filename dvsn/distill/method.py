"""What a distillation method is, and what it sees of the two networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dvsn.types import Batch, Terms

Kind = Literal["classes", "pixels", "heatmaps", "points", "image", "objects"]
"""What a network's main response is: logits of classes (N, K); logits of every pixel (N, K, h, w); heatmaps of keypoints
(N, K, h, w); points as fractions of the picture (N, L, 2); a picture in [-1, 1] or [0, 1] (N, C, H, W); objects found by a
detector, which have no tensor: there `output` is empty and features alone can be matched."""

NARROW = (torch.float16, torch.bfloat16)

Shape = tuple[int, ...]
"""Of a tensor, without its batch dimension."""


class View(NamedTuple):
    """What a method sees of one network for one batch."""

    output: Tensor
    """The main response."""
    features: tuple[Tensor, ...]
    """The tapped tensors, in the order of the pairs: (N, C, H, W) maps or (N, D) vectors."""


class Joint(NamedTuple):
    """How the class layer of a network reads its last tap, found by a dry run."""

    at: str
    """The path of the tap."""
    head: str
    """The path of the class layer."""
    layer: nn.Linear
    pooled: bool
    """Whether the class layer reads the average of the tap over its pixels."""
    between: tuple[str, ...]
    """The outermost modules with parameters that run after the tap and before the class layer."""


class Side(NamedTuple):
    """What a method is built for: one of the two networks, as a dry run has found it."""

    kind: Kind
    output: Shape
    features: tuple[Shape, ...]
    norms: tuple[nn.BatchNorm2d | None, ...] = ()
    """Of each tap the batch norm right in front of it, where the network names it (OFD's margins). Not registered."""
    head: nn.Module | None = None
    """The layer that makes the output of the last feature, where there is one (SRRL). Not registered."""
    joint: Joint | None = None
    """For methods that graft; None where the network's class layer is not known or not linear. Not registered."""


class Facts(NamedTuple):
    """What a method may know of the training set."""

    samples: int = 0
    """How many items it has; `batch["index"]` lies below. 0: not known."""
    classes: int = 0
    labels: Tensor | None = None
    """The class of each item (samples,) int64, where a picture has one class."""
    values: tuple[float, float] = (-1.0, 1.0)
    """The smallest and largest value of a response that is a picture."""


class Change(NamedTuple):
    """What a method adds to the student for good."""

    node: dict[str, Any]
    """A class of `dvsn.networks.graft` and its options, as plain data: it becomes `task.graft` of the recipe."""
    tap: str
    """The path inside the graft of what the method is shown of the student; empty: what the graft answers."""
    head: nn.Linear | None = None
    """A class layer whose weights the student takes over."""


class Stage(NamedTuple):
    """An initial stage of the training that a method asks for."""

    epochs: int
    student: bool
    """Whether the student's features are trained in it; its head never is, and what is not trained stays in eval mode.
    False: only the method's own modules."""


def precise(step: Callable[..., Terms]) -> Callable[..., Terms]:
    """A step of a method with autocast off, and its tensors of 16 bits as float32; those of float64 stay."""

    @functools.wraps(step)
    def run(self: Any, student: View, teacher: View, batch: Batch) -> Terms:
        tensor = (
            teacher.features[0] if teacher.features else teacher.output
        )  # the student may have none in a stage
        with torch.autocast(tensor.device.type, enabled=False):
            return step(self, _wide(student), _wide(teacher), batch)

    return run


def _wide(view: View) -> View:
    if not any(each.dtype in NARROW for each in (view.output, *view.features)):
        return view
    output, *features = (
        each.float() if each.dtype in NARROW else each for each in (view.output, *view.features)
    )
    return View(output, tuple(features))


class Method(nn.Module):
    """A distillation loss. Its own modules are trained with the student, saved with the run and never shipped.

    - A subclass takes `student` and `teacher` (`Side`), `facts` if it needs them, and its hyper-parameters, all by keyword,
      with the paper's values as defaults.
    - Its `forward` and `initial` are always `precise`: they run in float32, whatever the precision of the networks.
    - Tensors of the teacher carry no gradient.
    - A constructor raises `ConfigError` where the two sides cannot be matched, with both shapes and what would fit; one
      that makes memory banks asks `reserve` first.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("forward", "initial"):
            if name in vars(cls):
                setattr(cls, name, precise(vars(cls)[name]))

    reads: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of response whose `output` it understands. Empty: it looks at features only, whatever the response is."""

    compares: ClassVar[bool] = True
    """Whether it compares the outputs of both networks, where it `reads` any: the teacher must then answer about the same
    classes, keypoints or channels as the student."""

    needs_classes: ClassVar[bool] = False
    """Whether it reads the class of every picture, so that none may be without."""

    stage: Stage | None = None
    """Its initial stage. `initial` is then the objective of these epochs, and the only one."""

    relates: ClassVar[bool] = False
    """Whether it compares the items of a batch with each other and nothing else, so that a batch of one teaches nothing."""

    leaves_unused: ClassVar[bool] = False
    """Whether a step may leave parameters of the student or of its own without gradient, which DDP must be told."""

    grafts: ClassVar[bool] = False
    """Whether it changes the student: its sides then have a `joint`, and it has a `change`."""

    change: Change | None = None
    """What it adds to the student before the training. Its view of the student is then the graft's tap alone, and the
    graft belongs to the student: trained, averaged, saved, rebuilt and shipped with it. At most one method of a run does
    this; the others are built for the student as it is afterwards, whose own modules keep their paths."""

    only: Sequence[str] | None = None
    """The paths of the student's modules that start anew and alone are trained (empty: its own class layers). Everything
    else is the teacher's, which must be the same network, and stays in eval mode. None: the whole student is trained."""

    share: float = 1.0
    """Of `trainer.max_epochs` that the run takes; the schedule shrinks with it."""

    @property
    def remark(self) -> str:
        """What a run should say of it before it starts, in one line."""
        return ""

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        """The named terms, scalars, not yet weighted. Empty where it adds nothing (after an initial stage, say).

        `batch` has `index` (N,) and the labels of the task: `target`, (N,) classes or (N, 1, H, W) ids with 255 ignored;
        `weight` (N, K) of keypoints; `points` (N, L, 2), landmarks as fractions of the picture; `boxes`, of each picture
        (n, 4), x1, y1, x2, y2 of its objects as fractions of what the networks see. Its `image` is uint8.
        """
        raise NotImplementedError

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        """The terms of the initial stage, already weighted against each other. Where `stage.student` is false the student
        is not run, and its view is empty."""
        raise NotImplementedError

    def finish_stage(self) -> None:
        """Called once between the initial stage and the training: freeze what is trained no more. Called again when a run
        is resumed after it, with the modules as they were saved."""

    _frozen: tuple[nn.Module, ...] = ()

    def freeze(self, modules: nn.Module) -> None:
        """Train these no more: they get no gradient and stay in eval mode, in which batch norms keep their statistics."""
        self._frozen = (
            modules.requires_grad_(False).eval(),
        )  # in a tuple: it is registered where it is made

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def after_step(self, student: View, teacher: View, batch: Batch) -> None:
        """Called after the backward pass of every step, without gradient: update memory banks."""
