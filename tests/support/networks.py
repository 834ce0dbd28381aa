"""What the tests of networks share: keys and weights of a network, pictures, and the distance of two answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.config.build import build
from dvsn.convert.release import Converted, build_empty
from tests.support.reference_hrnet import Shapes, fill


def shapes_of(network: nn.Module) -> Shapes:
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def load(kind: type[nn.Module], state: dict[str, Tensor], **options: Any) -> nn.Module:
    """A network in evaluation that holds `state`, strictly."""
    network = build_empty(kind, options)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def doubles(shapes: Shapes, *, seed: int = 0) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in fill(shapes, seed=seed).items()}


def picture(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(3), dtype=dtype)


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def rebuilt(converted: Converted) -> nn.Module:
    """The network of a conversion, in evaluation, with its weights."""
    network = build(converted.network, path="network")
    assert isinstance(network, nn.Module)
    network.load_state_dict(converted.state, strict=True)
    return network.eval()


def awake(network: nn.Module) -> nn.Module:
    """The same with random values where a norm starts at zero, which would hide what lies behind it."""
    for parameter in network.parameters():
        if not parameter.any() and parameter.ndim == 1:
            nn.init.uniform_(parameter)
    return network


def require_extra(name: str) -> None:
    """Skip where a network of `conf/network` stands on a package that is not installed."""
    if name.startswith("timm_"):
        pytest.importorskip("timm", reason="timm is not installed: pip install 'dvsn[timm]'")
