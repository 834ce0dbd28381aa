"""A trained linear map of one network's vector into a space that both share."""

from __future__ import annotations

from torch import Tensor, nn


class Embed(nn.Module):
    """(N, D) -> (N, dimension)."""

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dimension)

    def forward(self, vector: Tensor) -> Tensor:
        answer: Tensor = self.linear(vector)
        return answer
