"""Convolutions that give the student's maps the width, or the whole shape, of the teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from dvsn.distill.method import Shape, View
from dvsn.distill.shapes import as_map, as_map_shape, match_size
from dvsn.errors import ConfigError

LARGEST = 31  # kernel


def width_connectors(pairs: Iterable[tuple[Shape, Shape]]) -> nn.ModuleList:
    """Of each pair of taps a 1x1 convolution from the student's channels to the teacher's, where these differ."""
    return nn.ModuleList(
        nn.Identity() if mine[0] == theirs[0] else nn.Conv2d(mine[0], theirs[0], 1) for mine, theirs in pairs
    )


def connected(connectors: nn.ModuleList, student: View, teacher: View) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each pair of taps the student's map behind its connector and the teacher's, the larger average-pooled."""
    for connector, mine, theirs in zip(connectors, student.features, teacher.features, strict=True):
        yield match_size(connector(mine), theirs)


class Regressor(nn.Module):
    """Convolution with bias, batch norm and, if `rectify`, ReLU: (N, C_s, H_s, W_s) -> (N, C_t, H_t, W_t).

    The rule of the CRD authors' benchmark (Tian et al., 2020): 3x3 with stride 2 where the student's sides are twice the
    teacher's, a transposed 4x4 with stride 2 where they are half of them, else unpadded with kernel 1 + H_s - H_t. A vector
    (N, D) is a map of one pixel.
    """

    def __init__(self, name: str, student: Shape, teacher: Shape, *, rectify: bool = True) -> None:
        super().__init__()
        (wide, *mine), (out, *theirs) = as_map_shape(student), as_map_shape(teacher)
        kernel = tuple(1 + a - b for a, b in zip(mine, theirs, strict=True))
        self.conv: nn.Module
        if all(a == 2 * b for a, b in zip(mine, theirs, strict=True)):
            self.conv = nn.Conv2d(wide, out, kernel_size=3, stride=2, padding=1)
        elif all(2 * a == b for a, b in zip(mine, theirs, strict=True)):
            self.conv = nn.ConvTranspose2d(wide, out, kernel_size=4, stride=2, padding=1)
        elif all(1 <= size <= LARGEST for size in kernel):
            self.conv = nn.Conv2d(wide, out, kernel_size=(kernel[0], kernel[1]))
        else:
            raise ConfigError(
                f"distill.{name}.taps: no connector from {student} of the student to {teacher} of the teacher. It can halve "
                f"or double both sides, or shrink each by up to {LARGEST - 1} pixels. Pair layers of nearer sizes, or take "
                "a method that pools, such as at or vid."
            )
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU() if rectify else nn.Identity()

    def forward(self, feature: Tensor) -> Tensor:
        answer: Tensor = self.relu(self.bn(self.conv(as_map(feature))))
        return answer
