"""The holistic part of structured distillation: an adversarial critic between the two networks' logits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dvsn.distill.gather import processes
from dvsn.distill.kd import positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, same_output
from dvsn.errors import ConfigError, DataError
from dvsn.types import Batch, Terms

SMALLEST = 64  # side of a map that leaves the last convolution its 4 x 4 pixels
MOMENTUM, DECAY = 0.9, 1e-4  # of the critic's own descent
OWN_WEIGHT = 0.1  # of the critic's own loss


class HolisticDistillation(Method):
    """The term `holistic`: minus the score that a critic gives the student's logits for the picture.

    Liu et al., 2019, arXiv:1903.04197, the third part of their objective, weight 0.1 there (`distill=[skd,holistic]`) and
    0.001 in CIRKD's comparison, there also beside IFVD. The critic is a Wasserstein one with gradient penalty (Gulrajani
    et al., 2017, arXiv:1704.00028): after each backward pass it makes one step of SGD (momentum 0.9, decay 1e-4) on 0.1 *
    (score of the student - score of the teacher + `penalty_weight` * (length of the gradient by the logits between
    both - 1)^2), means over the batch. With gradient accumulation it still makes a step a batch.

    The critic's weights and their momentum are buffers: saved and resumed with the run, but no parameters, so that the
    student's optimiser leaves them alone. Several processes average its gradients and so hold the same critic; its batch
    norm is each process's own.

    Different from the published code: it shows the critic the logits alone, where the paper puts the picture beside them,
    as is done here; the critic's learning rate decays with the student's there, and is constant here. Maps with a side
    under 64 are enlarged for the critic, bilinear. It compares all positions of a map at 1/8 and 1/16 of the logits'
    sides, so logits far larger than 128 x 128 need much memory.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        penalty_weight: float = 10.0,
        lr: float = 4e-4,
        channels: int = 64,
    ) -> None:
        super().__init__()
        classes = same_output("holistic", student, teacher)
        positive("holistic.method.lr", lr)
        if channels < 2:
            raise ConfigError(f"distill.holistic.method.channels: found {channels!r}, expected 2 or more.")
        if penalty_weight < 0:
            raise ConfigError(
                f"distill.holistic.method.penalty_weight: found {penalty_weight!r}, expected 0 or more."
            )
        self.penalty_weight, self.lr = penalty_weight, lr
        self.critic = Critic(classes, channels)
        self.learned = as_buffers(self.critic)
        self.momentum = nn.Module()
        for name in self.learned:
            self.momentum.register_buffer(
                name.replace(".", "_"), torch.zeros_like(self.critic.get_buffer(name))
            )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        logits = enlarged(student.output)
        return {"holistic": -self.critic(logits, picture(batch, logits)).mean()}

    def after_step(self, student: View, teacher: View, batch: Batch) -> None:
        mine = enlarged(student.output)
        theirs = on_grid(teacher.output, mine)
        weights = {
            name: self.critic.get_buffer(name).detach().clone().requires_grad_() for name in self.learned
        }
        with torch.enable_grad():
            score = functools.partial(torch.func.functional_call, self.critic, weights)
            loss = self.critic_loss(score, mine, theirs, picture(batch, mine))
            gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            self.descend(averaged(gradients))

    def critic_loss(
        self,
        score: Callable[[tuple[Tensor, Tensor]], Tensor],
        student: Tensor,
        teacher: Tensor,
        shown: Tensor,
    ) -> Tensor:
        distance = score((student, shown)).mean() - score((teacher, shown)).mean()
        share = torch.rand(len(student), 1, 1, 1, dtype=student.dtype, device=student.device)
        between = (share * teacher + (1 - share) * student).requires_grad_()
        (slope,) = torch.autograd.grad(score((between, shown)).sum(), between, create_graph=True)
        length = (slope.flatten(1).square().sum(dim=1) + 1e-12).sqrt()  # finite slope of a flat critic
        return OWN_WEIGHT * (distance + self.penalty_weight * (length - 1).square().mean())

    def descend(self, gradients: list[Tensor]) -> None:
        for name, gradient in zip(self.learned, gradients, strict=True):
            weight = self.critic.get_buffer(name)
            velocity = self.momentum.get_buffer(name.replace(".", "_"))
            velocity.mul_(MOMENTUM).add_(gradient.add(weight, alpha=DECAY))
            weight.sub_(velocity, alpha=self.lr)


class Critic(nn.Module):
    """Logits (N, K, h, w) and pictures (N, 3, h, w) in [-1, 1], sides of 64 or more -> scores (N, 1, h', w').

    Batch norm of the logits; four 4x4 convolutions of stride 2 with spectral norm; attention over all positions after the
    third and the fourth (Zhang et al., 2019, arXiv:1805.08318); a last 4x4 convolution.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(classes, track_running_stats=False)
        widths = [classes + 3, channels, 2 * channels, 4 * channels, 8 * channels]
        self.convolutions = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
            for before, after in itertools.pairwise(widths)
        )
        self.attentions = nn.ModuleList(Attention(width) for width in widths[3:])
        self.last = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, logits: Tensor, shown: Tensor) -> Tensor:
        feature = torch.cat([self.norm(logits), shown], dim=1)
        for number, convolution in enumerate(self.convolutions):
            feature = F.leaky_relu(convolution(feature), 0.1)
            if number >= 2:
                feature = self.attentions[number - 2](feature)
        score: Tensor = self.last(feature)
        return score


class Attention(nn.Module):
    """(N, C, H, W) plus what each position takes from all others, a share that starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value, self.share = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.zeros(1))

    def forward(self, feature: Tensor) -> Tensor:
        query, key, value = (
            layer(feature).flatten(2) for layer in (self.query, self.key, self.value)
        )  # (N, C, P)
        taken = value @ (query.mT @ key).softmax(dim=-1).mT
        return feature + self.share * taken.view_as(feature)


def as_buffers(module: nn.Module) -> list[str]:
    """Make every parameter a buffer of the same name, and return the names."""
    names = [name for name, _ in module.named_parameters()]
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        value = owner._parameters.pop(last)
        assert value is not None
        owner.register_buffer(last, value.detach())
    return names


def enlarged(logits: Tensor) -> Tensor:
    height, width = (max(side, SMALLEST) for side in logits.shape[-2:])
    return on_grid(logits, logits.new_empty(1, 1, height, width))


def picture(batch: Batch, like: Tensor) -> Tensor:
    """The batch's pictures in [-1, 1] at the height and width of `like`."""
    if "image" not in batch:
        raise DataError("distill.holistic: the batch has no `image`, which the critic looks at.")
    image = batch["image"]
    rgb = image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)
    shown = rgb.to(like) / 127.5 - 1
    return F.interpolate(shown, size=like.shape[-2:], mode="bilinear", align_corners=False, antialias=True)


def averaged(gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """Means over all processes."""
    if processes() == 1:
        return list(gradients)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = (flat / processes()).split([gradient.numel() for gradient in gradients])
    return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
