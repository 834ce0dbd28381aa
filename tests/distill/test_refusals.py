"""What could teach nothing is refused: maps of one position, and two classes; each with the zero that it would have been."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dvsn.distill.at import AttentionTransfer
from dvsn.distill.cirkd import CrossImageRelations
from dvsn.distill.cwd import ChannelWise, ChannelWiseFeatures
from dvsn.distill.dist import Correlated
from dvsn.distill.dkd import DecoupledDistillation
from dvsn.distill.ifvd import IntraClassVariation
from dvsn.distill.kd import KnowledgeDistillation
from dvsn.distill.method import Method
from dvsn.distill.mlkd import MultiLevel
from dvsn.distill.norm import ManyToOne
from dvsn.distill.nst import NeuronSelectivity
from dvsn.distill.pixel_kd import PixelDistillation
from dvsn.distill.skd import StructuredDistillation
from dvsn.distill.wttm import TransformedTeacher
from dvsn.errors import ConfigError
from tests.support.distilling import gradients, sides, total, views

PIXELS: dict[str, Any] = {"kind": "pixels", "outputs": ((5, 6, 8), (5, 6, 8))}
POSITIONS: list[tuple[type[Method], dict[str, Any], tuple[int, int]]] = [
    (AttentionTransfer, {}, (1, 1)),
    (NeuronSelectivity, {}, (1, 1)),
    (ChannelWiseFeatures, {}, (1, 1)),
    (IntraClassVariation, {}, (1, 1)),
    (StructuredDistillation, {"pixel_weight": 0.0}, (1, 1)),
    (StructuredDistillation, {"pixel_weight": 0.0, "scale": 1.0}, (6, 8)),
    (StructuredDistillation, {"pixel_weight": 0.0, "kernel": 8}, (6, 8)),
    (CrossImageRelations, {"memory_weight": 0.0}, (1, 1)),
    (CrossImageRelations, {"memory_weight": 0.0}, (2, 2)),  # pooled 2 x 2
    (CrossImageRelations, {"memory_weight": 0.0, "pool": 8}, (6, 8)),
]
LABELS = {"target": torch.randint(0, 5, (3, 1, 6, 8), generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize(("kind", "options", "size"), POSITIONS)
def test_a_map_of_one_position(
    kind: type[Method], options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, because it is 0 whatever the two networks answer."""
    given = sides([(3, *size)], [(4, *size)], **PIXELS)
    with pytest.raises(ConfigError, match=r"distill\.\w+\.taps: .*one here: it would teach nothing"):
        kind(**given, **options)
    monkeypatch.setattr(f"{kind.__module__}.require_positions", lambda *_: None)
    method = kind(**given, **options).double()
    student, teacher = views(given, 3)
    value = total(method(student, teacher, LABELS))
    assert float(value.abs()) < 1e-12
    assert all(float(each.abs().max()) < 1e-7 for each in gradients(value, student)[1:])


@pytest.mark.parametrize(("kind", "options", "_"), POSITIONS)
def test_two_positions_are_enough(kind: type[Method], options: dict[str, Any], _: Any) -> None:
    """And one map of several positions among others."""
    options = {key: value for key, value in options.items() if key not in ("scale", "kernel", "pool")}
    for shapes in ([(3, 1, 4)], [(3, 1, 1), (3, 4, 4)]):
        given = sides(shapes, shapes, **PIXELS)
        assert float(total(kind(**given, **options).double()(*views(given, 3), LABELS))) > 0


def test_the_logits_of_one_pixel_have_no_channels_to_compare() -> None:
    with pytest.raises(ConfigError, match="cwd compares the positions of a map"):
        ChannelWise(**sides([], [], kind="pixels", outputs=((5, 1, 1), (5, 1, 1))))


# Classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "way_out"),
    [
        (KnowledgeDistillation, {"standardise": True}, {}),
        (MultiLevel, {"standardise": True}, {"standardise": False}),
        (Correlated, {}, {"beta": 0.0}),
        (DecoupledDistillation, {}, None),
    ],
)
def test_two_classes(kind: type[Method], options: dict[str, Any], way_out: dict[str, Any] | None) -> None:
    two: dict[str, Any] = {"outputs": ((2,), (2,))}
    with pytest.raises(ConfigError, match=r"distill\.\w+: with 2 classes .*distill="):
        kind(**sides([], [], **two), **options)
    if way_out:
        kind(**sides([], [], **two), **options | way_out)
    kind(**sides([], [], outputs=((3,), (3,))), **options)


def test_what_two_classes_would_teach() -> None:
    """Standardised pairs are +-0.707 and correlations +-1, so that no logit has a gradient: by hand."""
    x = torch.tensor([[3.0, -1.0], [0.2, 0.3], [-5.0, 4.0]], dtype=torch.float64, requires_grad=True)
    apart = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    root = 0.5**0.5
    torch.testing.assert_close(
        apart.detach(), torch.tensor([[root, -root], [-root, root], [-root, root]]).double()
    )
    p = x.softmax(1) - 0.5
    correlation = (p[:, 0] * p[:, 1]).div(p.square().sum(1) / 2)
    for value in (apart.square().sum(dim=1).pow(2).sum(), correlation.sum()):
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        assert float(gradient.abs().max()) < 1e-9


def test_norm_needs_three_classes_for_its_answers() -> None:
    with pytest.raises(
        ConfigError, match=r"distill\.norm: with 2 classes .*distill\.norm\.method\.answer_weight=0"
    ):
        ManyToOne(**sides([(3, 4, 4)], [(3, 4, 4)], outputs=((2,), (2,))))


@pytest.mark.parametrize("kind", [KnowledgeDistillation, TransformedTeacher, PixelDistillation])
def test_one_class_is_always_certain(kind: type[Method]) -> None:
    shape = (1, 6, 8) if kind is PixelDistillation else (1,)
    with pytest.raises(ConfigError, match="with 1 classes a softmax is always 1"):
        kind(**sides([], [], outputs=(shape, shape)))
