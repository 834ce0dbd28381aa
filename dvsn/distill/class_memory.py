"""A memory of the teacher's features of pixels and regions, by class, from earlier batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.gather import gather
from dvsn.distill.memory import reserve
from dvsn.distill.shapes import unit


class ClassMemory(nn.Module):
    """Two rings for each of K classes, `pixels` and `regions`, (K, size, C) of unit vectors, random at the start.

    The rings are in the state dict. All processes write what all have seen, so their rings stay equal.
    """

    pixels: Tensor
    regions: Tensor
    places: Tensor

    def __init__(self, classes: int, size: int, channels: int, *, written: int) -> None:
        super().__init__()
        self.written = written
        reserve((classes, size, channels), (classes, size, channels))
        for name in ("pixels", "regions"):
            self.register_buffer(name, F.normalize(torch.randn(classes, size, channels), dim=2))
        self.register_buffer("places", torch.zeros(2, classes, dtype=torch.long))

    def sample(self, ring: Tensor, count: int) -> Tensor:
        """About `count` vectors, as many of each class, none twice: (S, C)."""
        classes, size, channels = ring.shape
        each = min(size, max(1, count // classes))
        chosen = torch.rand(classes, size, device=ring.device).topk(each, dim=1).indices
        return ring.gather(1, chosen[..., None].expand(-1, -1, channels)).flatten(0, 1)

    @torch.no_grad()
    def write(self, features: Tensor, labels: Tensor) -> None:
        """Unit pixels (N, P, C) and their classes (N, P), K and above for none: of each class in a picture its mean, and up
        to `written` pixels chosen at random."""
        classes = len(self.pixels)
        hot = (labels[..., None] == torch.arange(classes, device=labels.device)).to(
            features.dtype
        )  # (N, P, K)
        counts = hot.sum(1)  # (N, K)
        means = unit(hot.mT @ features)  # (N, K, C)
        some = min(self.written, features.shape[1])
        keys = torch.rand(labels.shape, device=labels.device)[:, None] + hot.mT  # above 1 in the class
        chosen = keys.topk(some, dim=2).indices  # (N, K, some)
        rows = torch.arange(len(features), device=labels.device)[:, None, None]
        drawn = features[rows, chosen]  # (N, K, some, C)
        real = torch.arange(some, device=labels.device) < counts[..., None]
        self.turn(0, self.pixels, gather(drawn), gather(real))
        self.turn(1, self.regions, gather(means[:, :, None]), gather((counts > 0)[..., None]))

    def turn(self, which: int, ring: Tensor, vectors: Tensor, real: Tensor) -> None:
        """Write vectors (N, K, s, C), those that are real (N, K, s), at the places where the rings stand.

        Picking out the real ones would wait for a GPU: the others repeat the last real one of their class, or write what is
        there where the class has none.
        """
        classes, size, channels = ring.shape
        real = real.transpose(0, 1).flatten(1)  # (K, N s)
        vectors = vectors.transpose(0, 1).reshape(classes, -1, channels)
        count = real.sum(1, keepdim=True)
        number = real.cumsum(1) - 1
        real = real & (number >= count - size)  # no place is written twice
        place = (self.places[which][:, None] + number) % size
        order = torch.arange(place.shape[1], device=ring.device)
        source = torch.where(real, order, (real * order).argmax(1, keepdim=True))  # (K, N s)
        place = place.gather(1, source)[..., None].expand(-1, -1, channels)
        written = vectors.gather(1, source[..., None].expand(-1, -1, channels)).to(ring.dtype)
        ring.scatter_(1, place, torch.where(real.any(1)[:, None, None], written, ring.gather(1, place)))
        self.places[which] = (self.places[which] + count[:, 0]) % size
