"""The fourteen methods against their formulas, written out naively in float64, for random shapes."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.ab import ActivationBoundaries
from dvsn.distill.at import AttentionTransfer
from dvsn.distill.cc import CorrelationCongruence
from dvsn.distill.crd import ContrastiveRepresentation
from dvsn.distill.fitnet import FitNet
from dvsn.distill.fsp import SolutionFlow
from dvsn.distill.ft import FactorTransfer
from dvsn.distill.kd import KnowledgeDistillation
from dvsn.distill.memory import reserve
from dvsn.distill.method import Facts, Method, Side, View
from dvsn.distill.nst import NeuronSelectivity
from dvsn.distill.ofd import FeatureOverhaul, norm_margin
from dvsn.distill.pkt import ProbabilisticTransfer
from dvsn.distill.rkd import RelationalDistillation
from dvsn.distill.sp import SimilarityPreserving
from dvsn.distill.vid import VariationalInformation
from dvsn.errors import ConfigError, DataError
from tests.support.distilling import (
    assert_equals,
    build,
    cast,
    features,
    gradients,
    sides,
    smaller,
    total,
    views,
)

MAPS = [((3, 6, 6), (5, 6, 6)), ((4, 4, 4), (4, 8, 8)), ((6, 3, 5), (2, 3, 5)), ((2, 6, 4), (7, 3, 2))]
SAME = [((3, 6, 6), (3, 6, 6)), ((4, 4, 4), (4, 4, 4))]
VECTORS = [((7,), (12,)), ((9,), (9,))]


# The outputs ---------------------------------------------------------------------------------------------------


def kd(temperature: float, standardise: bool = False) -> Any:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        z_s, z_t = student.output, teacher.output
        if standardise:
            z_s, z_t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (z_s, z_t))
        p_s = (z_s / temperature).exp() / (z_s / temperature).exp().sum(1, keepdim=True)
        p_t = (z_t / temperature).exp() / (z_t / temperature).exp().sum(1, keepdim=True)
        return temperature**2 * (p_t * (p_t / p_s).log()).sum() / len(z_s)

    return formula


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(("temperature", "standardise"), [(4.0, False), (1.0, False), (2.0, True)])
def test_kd(batch: int, temperature: float, standardise: bool) -> None:
    given = sides([], [])
    method = KnowledgeDistillation(**given, temperature=temperature, standardise=standardise)
    assert_equals(method, kd(temperature, standardise), *views(given, batch))


def test_kd_has_its_known_gradient_and_takes_impossible_classes() -> None:
    """(T / N) (p_s - p_t); and a probability of exactly 0 in the teacher adds 0, not NaN."""
    given = sides([], [])
    student, teacher = views(given, 6)
    method = KnowledgeDistillation(**given)
    found = gradients(total(method(student, teacher, {})), student)[0]
    expected = 4 / 6 * ((student.output / 4).softmax(1) - (teacher.output / 4).softmax(1))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)
    sure = teacher._replace(output=torch.tensor([[1e5, 0, 0, 0, -math.inf]]).double())
    one = View(student.output[:1], ())
    assert total(method(one, sure, {})).isfinite()


def test_standardised_logits_do_not_see_the_scale() -> None:
    given = sides([], [])
    student, teacher = views(given, 6)
    method = KnowledgeDistillation(**given, temperature=2.0, standardise=True)
    value = total(method(student, teacher, {}))
    scaled = teacher._replace(output=7 * teacher.output + 3)
    torch.testing.assert_close(total(method(student, scaled, {})), value, rtol=1e-6, atol=0)
    flat = View(torch.zeros(2, 5, dtype=torch.float64, requires_grad=True), ())
    assert gradients(total(method(flat, View(teacher.output[:2], ()), {})), flat)[0].isfinite().all()


# Maps, one by one ----------------------------------------------------------------------------------------------


def attention(power: float, absolute: bool, norm: bool) -> Any:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for mine, theirs in features(student, teacher):
            mine, theirs = smaller(mine, theirs)
            q = []
            for f in (mine, theirs):
                energy = ((f.abs() if absolute else f) ** power).mean(1).reshape(len(f), -1)
                q.append(energy / energy.pow(2).sum(1, keepdim=True).sqrt())
            error = (q[0] - q[1]) ** 2
            value = value + (error.sum(1).sqrt().mean() if norm else error.mean())
        return value

    return formula


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("power", "absolute", "distance"),
    [(2.0, True, "squared"), (1.0, True, "squared"), (3.0, False, "squared"), (2.0, True, "norm")],
)
def test_at(batch: int, power: float, absolute: bool, distance: Any) -> None:
    method, given = build(AttentionTransfer, MAPS, power=power, absolute=absolute, distance=distance)
    assert_equals(method, attention(power, absolute, distance == "norm"), *views(given, batch))


def test_at_by_hand() -> None:
    method, _ = build(AttentionTransfer, [((2, 1, 2), (2, 1, 2))])
    feature = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])  # mean squares 4.5 and 8
    torch.testing.assert_close(
        method.attention(feature), torch.tensor([[4.5, 8.0]]) / (4.5**2 + 8.0**2) ** 0.5
    )


def test_fitnet() -> None:
    """The connector halves, doubles, shrinks or keeps the sides; in train mode its norm is of the batch."""
    pairs = [
        ((3, 8, 8), (5, 4, 4)),
        ((3, 4, 4), (5, 8, 8)),
        ((3, 7, 6), (5, 5, 5)),
        ((3, 4, 4), (5, 4, 4)),
        ((6,), (4,)),
    ]

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for regressor, (mine, theirs) in zip(method.regressors, features(student, teacher), strict=True):
            mine, theirs = (f.reshape(len(f), f.shape[1], *(f.shape[2:] or (1, 1))) for f in (mine, theirs))
            weight, bias = regressor.conv.weight, regressor.conv.bias
            if mine.shape[-1] == 2 * theirs.shape[-1]:
                x = F.conv2d(mine, weight, bias, stride=2, padding=1)
            elif 2 * mine.shape[-1] == theirs.shape[-1]:
                x = F.conv_transpose2d(mine, weight, bias, stride=2, padding=1)
            else:
                x = F.conv2d(mine, weight, bias)
            x = (x - x.mean((0, 2, 3), keepdim=True)) / (
                x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
            ).sqrt()
            value = value + (x.clamp_min(0) - theirs).pow(2).mean()
        return value

    method, given = build(FitNet, pairs, hint="all")
    assert_equals(method, formula, *views(given, 6))


@pytest.mark.parametrize(("hint", "expected"), [("middle", [1]), ("all", [0, 1, 2]), (2, [2]), (-1, [2])])
def test_fitnet_chooses_its_taps(hint: Any, expected: list[int]) -> None:
    method, _ = build(FitNet, [((3, 4, 4), (5, 4, 4))] * 3, hint=hint)
    assert method.taps == expected and len(method.regressors) == len(expected)


def test_fitnet_without_a_connector() -> None:
    """Maps of equal channels themselves: the mean of (s - t)^2, the larger map averaged."""
    pairs = [((5, 4, 4), (5, 4, 4)), ((3, 8, 8), (3, 4, 4)), ((6,), (6,))]
    method, given = build(FitNet, pairs, hint="all", connector=False)
    assert not list(method.parameters())

    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        (a, b, c), (x, y, z) = student.features, teacher.features
        errors = [a - x, b.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) - y, c - z]
        return torch.stack([error.square().mean() for error in errors]).sum()

    assert_equals(method, formula, *views(given, 3))
    with pytest.raises(ConfigError, match=r"pair 0 is \(3, 4, 4\) .*equal channels.*connector=true"):
        build(FitNet, [((3, 4, 4), (5, 4, 4))], connector=False)


def test_fitnet_in_two_stages() -> None:
    method, given = build(FitNet, [((3, 4, 4), (5, 4, 4))], initial_epochs=5, rectify=False)
    student, teacher = views(given, 4)
    method.double()
    assert method.stage == (5, True) and method(student, teacher, {}) == {}
    assert method.initial(student, teacher, {})["fitnet"] > 0
    method.finish_stage()
    assert not any(parameter.requires_grad for parameter in method.parameters())


def nst_formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for mine, theirs in features(student, teacher):
        mine, theirs = (F.normalize(f.flatten(2), dim=2) for f in smaller(mine, theirs))

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return (a[:, :, None] * b[:, None]).sum(-1).pow(2).mean()

        value = value + kernel(theirs, theirs) + kernel(mine, mine) - 2 * kernel(mine, theirs)
    return value


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_nst(batch: int) -> None:
    """More pixels than channels and fewer."""
    method, given = build(NeuronSelectivity, [*MAPS, ((30, 3, 3), (20, 3, 3)), ((4, 6, 6), (50, 6, 6))])
    assert_equals(method, nst_formula, *views(given, batch))


def fsp_formula(pool: Any) -> Any:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        def flow(a: Tensor, b: Tensor) -> Tensor:
            size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
            a, b = (f if f.shape[2:] == size else pool(f, size) for f in (a, b))
            return (b.flatten(2)[:, :, None] * a.flatten(2)[:, None]).mean(-1)

        value = torch.zeros((), dtype=torch.float64)
        for (a, b), (c, d) in zip(
            itertools.pairwise(student.features), itertools.pairwise(teacher.features), strict=True
        ):
            value = value + (flow(a, b) - flow(c, d)).pow(2).mean()
        return value

    return formula


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(("pool", "by"), [("max", F.adaptive_max_pool2d), ("average", F.adaptive_avg_pool2d)])
def test_fsp(batch: int, pool: Any, by: Any) -> None:
    pairs = [((3, 8, 8), (3, 8, 8)), ((4, 4, 4), (4, 8, 8)), ((2, 4, 4), (2, 2, 2))]
    method, given = build(SolutionFlow, pairs, pool=pool)
    assert_equals(method, fsp_formula(by), *views(given, batch), step="initial")


def test_fsp_and_ab_are_initial_stages() -> None:
    """Dropped afterwards, unless they are asked to stay or to be a term from the start."""
    for kind in (SolutionFlow, ActivationBoundaries):
        for options, stage, stays in (
            ({}, (30, True), False),
            ({"initial_epochs": 4, "afterwards": True}, (4, True), True),
            ({"initial_epochs": 0}, None, True),
        ):
            method, given = build(kind, SAME, **options)
            student, teacher = views(given, 3)
            assert method.stage == stage
            assert method.initial(student, teacher, {}) and bool(method(student, teacher, {})) is stays


def test_ab() -> None:
    """Two masks, as the paper writes it; the connector has no ReLU and stands only where shapes differ."""
    pairs = [((3, 8, 8), (5, 4, 4)), ((4, 4, 4), (4, 4, 4)), ((6, 4, 4), (5, 4, 4))]

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for number, (connector, (s, t)) in enumerate(
            zip(method.connectors, features(student, teacher), strict=True)
        ):
            s = connector(s)
            wrong = (s + 1).pow(2) * ((t <= 0) & (s > -1)) + (s - 1).pow(2) * ((t > 0) & (s <= 1))
            value = value + wrong.sum() * 2.0 ** (number - 2) / len(s)
        return 3 / 1000 * value

    method, given = build(ActivationBoundaries, pairs)
    assert [len(list(connector.parameters())) for connector in method.connectors] == [4, 0, 4]
    assert_equals(method, formula, *views(given, 4), step="initial")


def test_frozen_connectors_keep_their_norms() -> None:
    """ab after its stage: what `train` is called on, as a trainer does in each epoch, answers the same as before."""
    given = sides([(3, 4, 4)], [(5, 4, 4)])
    method = ActivationBoundaries(**given, initial_epochs=1, afterwards=True)
    student, teacher = (View(v.output.float(), tuple(f.float() for f in v.features)) for v in views(given, 4))
    method.train()(student, teacher, {})
    before = [each.clone() for each in method.connectors.buffers()]
    method.finish_stage()
    torch.nn.ModuleDict({"ab": method}).train()
    method(student, teacher, {})
    assert all(torch.equal(a, b) for a, b in zip(before, method.connectors.buffers(), strict=True))
    assert method.training and not any(each.training for each in method.connectors.modules())
    mean, variance = method.connectors[0].bn.running_mean, method.connectors[0].bn.running_var
    mapped: Tensor = method.connectors[0].conv(student.features[0])
    expected = (mapped - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(method.connectors[0](student.features[0]), expected)


@pytest.mark.parametrize("factor", ["whole", "attention"])
def test_ft(factor: Any) -> None:
    pairs = [((3, 8, 8), (6, 4, 4)), ((5, 4, 4), (4, 4, 4))]

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for number, (s, t) in enumerate(features(student, teacher)):
            s, t = method.translators[number].encoder(s), method.paraphrasers[number].encoder(t).detach()
            s, t = smaller(s, t)
            if factor == "attention":
                s, t = s.pow(2).mean(1), t.pow(2).mean(1)
            s, t = (f.flatten(1) / f.flatten(1).norm(dim=1, keepdim=True) for f in (s, t))
            value = value + (s - t).abs().sum() / s.numel()
        return value

    method, given = build(FactorTransfer, pairs, factor=factor)
    student, teacher = views(given, 4)
    assert_equals(method, formula, student, teacher, single=1e-4)  # three norms of few numbers
    assert [layers.encoder[3].out_channels for layers in method.translators] == [3, 2]


@pytest.mark.parametrize("reconstruction", ["squared", "absolute"])
def test_ft_first_learns_to_rebuild_the_teacher(reconstruction: Any) -> None:
    method, given = build(
        FactorTransfer, [((3, 4, 4), (6, 4, 4))], reconstruction=reconstruction, initial_epochs=2
    )
    method.double()
    student, teacher = views(given, 4)
    assert method.stage == (2, False)
    layers = method.paraphrasers[0]
    error = layers.decoder(layers.encoder(teacher.features[0])) - teacher.features[0]
    expected = error.pow(2).mean() if reconstruction == "squared" else error.abs().mean()
    value = total(method.initial(student, teacher, {}))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert student.features[0].grad is None
    assert all(parameter.grad is None for parameter in method.translators.parameters())
    method.finish_stage()
    assert not any(parameter.requires_grad for parameter in method.paraphrasers.parameters())
    assert all(parameter.requires_grad for parameter in method.translators.parameters())


def test_vid() -> None:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for tap, (s, t) in zip(method.taps, features(student, teacher), strict=True):
            s, t = smaller(s, t)
            mu = tap.regressor(s)
            var = (1 + tap.log_scale.exp()).log() + 1e-5
            value = value + (0.5 * ((mu - t) ** 2 / var[:, None, None] + var.log()[:, None, None])).mean()
        return value

    method, given = build(VariationalInformation, MAPS)
    assert_equals(method, formula, *views(given, 3))


def test_vid_starts_at_its_variance_and_takes_large_ones() -> None:
    method, given = build(VariationalInformation, MAPS[:1])
    tap = method.taps[0]
    torch.testing.assert_close(F.softplus(tap.log_scale) + 1e-5, torch.full((5,), 5.0))
    nn.init.constant_(tap.log_scale, 200.0)
    student, teacher = (cast(view, torch.float32) for view in views(given, 2))
    value = total(method(student, teacher, {}))
    assert value.isfinite() and all(each.isfinite().all() for each in gradients(value, student))


def ofd_formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for number, (s, t) in enumerate(features(student, teacher)):
        s, t = smaller(method.connectors[number](s), t)
        margin = getattr(method, f"margin_{number}")
        if margin is None:
            margin = torch.stack(
                [t[:, c][t[:, c] < 0].sum() / ((t[:, c] < 0).sum() + 1e-6) for c in range(t.shape[1])]
            )
        t = torch.max(t, margin[:, None, None])
        loss = (s - t).pow(2)
        loss = loss * ((s > t) | (t > 0))
        value = value + loss.sum() / len(s) / 2 ** (len(teacher.features) - number - 1)
    return value / 1000


def norm(weight: list[float], bias: list[float]) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def test_ofd() -> None:
    pairs = [((3, 6, 6), (2, 6, 6)), ((5, 4, 4), (3, 4, 4))]
    norms = (norm([1.0, -0.5], [0.1, 0.3]), norm([1.0, 2.0, 0.5], [-0.3, 0.0, 0.2]))
    for chosen, options in ((norms, {}), ((), {}), (norms, {"margin": "batch"}), ((norms[0], None), {})):
        method, given = build(FeatureOverhaul, pairs, {"norms": chosen}, **options)
        known = [getattr(method, f"margin_{number}") is not None for number in (0, 1)]
        assert known == [
            bool(chosen) and not options,
            len(chosen) == 2 and chosen[1] is not None and not options,
        ]
        assert_equals(method, ofd_formula, *views(given, 4))


def test_ofd_margin_is_the_mean_below_zero() -> None:
    """Against a mean over many draws; -3 deviations where hardly anything lies below; a weight of 0 is a constant."""
    margin = norm_margin(norm([1.0, -0.5, 2.0, 0.1, 0.0, 0.0], [0.0, 0.4, -1.0, 5.0, -0.7, 0.7]))
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for channel, (weight, bias) in enumerate([(1.0, 0.0), (0.5, 0.4), (2.0, -1.0)]):
        values = weight * draws + bias
        assert float(margin[channel]) == pytest.approx(float(values[values < 0].mean()), abs=0.01)
    assert margin[3:].tolist() == pytest.approx([-0.3, -0.7, 0.0], abs=1e-7)
    assert float(margin[0]) == pytest.approx(-math.sqrt(2 / math.pi), rel=1e-12)


def test_ofd_in_the_form_of_a_mean() -> None:
    """A thousandth of the sum over an item's numbers is their mean times their count over 1000."""
    pairs = [((3, 6, 6), (2, 6, 6))]
    official, given = build(FeatureOverhaul, pairs)
    mean, _ = build(FeatureOverhaul, pairs, reduction="mean", scale=1.0)
    views_ = views(given, 4)
    found = [total(method.double()(*views_, {})) for method in (official, mean)]
    torch.testing.assert_close(found[0], found[1] * 2 * 6 * 6 / 1000)


def test_ofd_without_negatives_has_a_margin_of_zero() -> None:
    method, given = build(FeatureOverhaul, [((3, 4, 4), (2, 4, 4))])
    student, teacher = views(given, 4)
    value = total(method.double()(student, teacher._replace(features=(teacher.features[0].abs(),)), {}))
    assert value.isfinite()


# Relations within a batch --------------------------------------------------------------------------------------


def sp_formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for pair in features(student, teacher):
        g = []
        for f in pair:
            f = f.reshape(len(f), -1)
            gram = f @ f.T
            g.append(gram / gram.pow(2).sum(1, keepdim=True).sqrt())
        value = value + (g[1] - g[0]).pow(2).sum() / len(f) ** 2
    return value


def pairwise_distance(x: Tensor) -> Tensor:
    square = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    return square.clamp_min(1e-12).sqrt() * (1 - torch.eye(len(x), dtype=x.dtype))


def rkd_formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for pair in features(student, teacher):
        mine, theirs = (f.reshape(len(f), -1) for f in pair)
        d_s, d_t = (d / d[d > 0].mean() for d in map(pairwise_distance, (mine, theirs)))
        angles = []
        for x in (mine, theirs):
            u = F.normalize(x[None] - x[:, None], dim=2)
            angles.append(torch.bmm(u, u.transpose(1, 2)))
        value = value + 25 * F.smooth_l1_loss(d_s, d_t) + 50 * F.smooth_l1_loss(angles[0], angles[1])
    return value


def pkt_formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for pair in features(student, teacher):
        p = []
        for x in pair:
            x = x.reshape(len(x), -1)
            x = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-7)
            close = (x @ x.T + 1) / 2
            p.append(close / close.sum(1, keepdim=True))
        value = value + (p[1] * ((p[1] + 1e-7) / (p[0] + 1e-7)).log()).mean()
    return value


def cc_formula(form: str) -> Any:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for number, (mine, theirs) in enumerate(features(student, teacher)):
            if form == "adjacent":
                mine, theirs = (f if f.ndim == 2 else f.mean((2, 3)) for f in (mine, theirs))
                e_s, e_t = method.embed_s[number].linear(mine), method.embed_t[number].linear(theirs)
                d = (e_s - e_t).abs()
                value = value + torch.stack([(d[i] * d[i + 1]).sum() for i in range(len(d) - 1)]).mean()
                continue
            matrices = []
            for x in (mine, theirs):
                x = x.reshape(len(x), -1)
                if form == "frobenius":
                    matrices.append((x @ x.T) / (x @ x.T).norm())
                    continue
                x = x / x.norm(dim=1, keepdim=True)
                inner, g = x @ x.T, 0.4
                series = [math.exp(-2 * g) * (2 * g) ** p / math.factorial(p) * inner**p for p in range(3)]
                matrices.append(sum(series, torch.zeros_like(inner)))
            value = value + (matrices[0] - matrices[1]).pow(2).sum() / len(x) ** 2
        return value

    return formula


RELATIONS: dict[str, tuple[type[Method], dict[str, Any], Any]] = {
    "sp": (SimilarityPreserving, {}, sp_formula),
    "rkd": (RelationalDistillation, {}, rkd_formula),
    "pkt": (ProbabilisticTransfer, {}, pkt_formula),
    "cc": (CorrelationCongruence, {}, cc_formula("kernel")),
    "cc adjacent": (CorrelationCongruence, {"form": "adjacent"}, cc_formula("adjacent")),
    "cc frobenius": (CorrelationCongruence, {"form": "frobenius"}, cc_formula("frobenius")),
}


@pytest.mark.parametrize("batch", [2, 3, 8])
@pytest.mark.parametrize("name", RELATIONS)
def test_relations(name: str, batch: int) -> None:
    kind, options, formula = RELATIONS[name]
    method, given = build(kind, [*VECTORS, ((3, 4, 4), (5, 2, 2))], **options)
    assert_equals(method, formula, *views(given, batch))


@pytest.mark.parametrize("name", RELATIONS)
def test_a_batch_of_one_has_no_relations(name: str) -> None:
    kind, options, _ = RELATIONS[name]
    method, given = build(kind, VECTORS, **options)
    student, teacher = views(given, 1)
    value = total(method.double()(student, teacher, {}))
    value.backward()
    assert float(value.detach()) == 0 and all(not feature.grad.any() for feature in student.features)


def test_rkd_gives_no_gradient_to_items_at_one_place() -> None:
    """Two equal items, in float32, far from the origin too; the others' pairs go on."""
    for offset in (0.0, 100.0):
        method, given = build(RelationalDistillation, [((16,), (16,))])
        student, teacher = views(given, 6)
        rows = (student.features[0].detach() + offset).float()
        rows[1] = rows[0]
        rows.requires_grad_()
        value = total(method(View(student.output, (rows,)), cast(teacher, torch.float32), {}))
        (found,) = torch.autograd.grad(value, rows)
        assert value.isfinite() and found.isfinite().all() and 0 < float(found.abs().max()) < 100
    same = View(student.output, (torch.ones(4, 16, requires_grad=True),))
    value = total(method(same, View(teacher.output, (torch.randn(4, 16),)), {}))
    assert value.isfinite() and not gradients(value, same)[1].any()


@pytest.mark.parametrize("name", ["pkt", "sp", "cc", "cc frobenius", "at", "nst"])
def test_an_item_of_zeros_gets_no_wild_gradient(name: str) -> None:
    kind, options, _ = {
        **RELATIONS,
        "at": (AttentionTransfer, {}, None),
        "nst": (NeuronSelectivity, {}, None),
    }[name]
    method, given = build(kind, [((3, 4, 4), (3, 4, 4))], **options)
    student, teacher = (cast(view, torch.float32) for view in views(given, 5))
    dead = student.features[0].detach().clone()
    dead[2] = 0
    dead.requires_grad_()
    value = total(method(View(student.output, (dead,)), teacher, {}))
    (found,) = torch.autograd.grad(value, dead)
    assert value.isfinite() and float(found.abs().max()) < 1 and found[0].any()
    assert found[2].any() == (name in ("sp", "cc frobenius"))  # there the others' rows see it
    whole = torch.zeros_like(dead, requires_grad=True)
    (found,) = torch.autograd.grad(total(method(View(student.output, (whole,)), teacher, {})), whole)
    assert not found.any()


# Invariants of several -----------------------------------------------------------------------------------------

PLAIN: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "kd": (KnowledgeDistillation, {}),
    "at": (AttentionTransfer, {}),
    "sp": (SimilarityPreserving, {}),
    "cc": (CorrelationCongruence, {}),
    "rkd": (RelationalDistillation, {}),
    "pkt": (ProbabilisticTransfer, {}),
    "nst": (NeuronSelectivity, {}),
    "fsp": (SolutionFlow, {"initial_epochs": 0}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_zero_when_the_student_is_the_teacher(name: str) -> None:
    kind, options = PLAIN[name]
    method, given = build(kind, SAME, **options)
    _, teacher = views(given, 5)
    student = cast(teacher, torch.float64)
    assert abs(float(total(method(student, teacher, {})))) < 1e-15
    teacher = cast(teacher, torch.float32)
    assert abs(float(total(method(cast(teacher, torch.float32), teacher, {})))) < 1e-6


def test_zero_with_a_connector_that_changes_nothing() -> None:
    method, given = build(FeatureOverhaul, SAME)
    method.eval()
    for connector, (shape, _) in zip(method.connectors, SAME, strict=True):
        nn.init.dirac_(connector[0].weight)
        connector[1].eps = 0.0
        assert connector[0].weight.shape[0] == shape[0]
    teacher = cast(views(given, 3)[1], torch.float32)
    assert total(method(teacher, teacher, {})) == 0
    method, given = build(FactorTransfer, SAME)
    for translator, paraphraser in zip(method.translators, method.paraphrasers, strict=True):
        translator.encoder = paraphraser.encoder
    assert total(method(teacher, teacher, {})) == 0


EVERY: dict[str, tuple[type[Method], dict[str, Any]]] = {
    **PLAIN,
    "fitnet": (FitNet, {"hint": "all"}),
    "vid": (VariationalInformation, {}),
    "ab": (ActivationBoundaries, {"initial_epochs": 0}),
    "ft": (FactorTransfer, {}),
    "ofd": (FeatureOverhaul, {}),
    "cc adjacent": (CorrelationCongruence, {"form": "adjacent"}),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_finite_for_large_features_of_16_bits(name: str, dtype: torch.dtype) -> None:
    """Features of scale 10 under autocast; sums of squares pass the largest float16, 65504."""
    kind, options = EVERY[name]
    method, given = build(kind, [((32, 16, 16), (32, 16, 16)), ((48, 8, 8), (48, 8, 8))], **options)
    student, teacher = (cast(view, dtype) for view in views(given, 4, scale=10.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = total(method(student, teacher, {}))
    assert value.dtype == torch.float32 and value.isfinite()
    assert all(each.isfinite().all() for each in gradients(value, student))


@pytest.mark.parametrize("name", EVERY)
def test_channels_last_makes_no_difference(name: str) -> None:
    kind, options = EVERY[name]
    method, given = build(kind, [((3, 4, 4), (3, 4, 4)), ((4, 4, 4), (4, 4, 4))], **options)
    student, teacher = (cast(view, torch.float32) for view in views(given, 3))
    plain = total(method(student, teacher, {}))
    laid = [
        view._replace(features=tuple(f.contiguous(memory_format=torch.channels_last) for f in view.features))
        for view in (student, teacher)
    ]
    torch.testing.assert_close(total(method(*laid, {})), plain, rtol=1e-5, atol=1e-8)


# Side modules --------------------------------------------------------------------------------------------------

R32X4 = [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
SIDE_FILE = Path(__file__).parents[1] / "support" / "distillation_side_modules.json"


def shapes_of(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def test_side_modules_have_the_published_keys() -> None:
    modules = json.loads(SIDE_FILE.read_text())["modules"]
    stages = [(shape, shape) for shape in R32X4]
    pooled = [((256,), (256,))]
    facts = Facts(samples=50000)
    fitnet, vid = build(FitNet, stages)[0], build(VariationalInformation, stages)[0]
    cc, crd = (
        build(CorrelationCongruence, pooled, form="adjacent")[0],
        build(ContrastiveRepresentation, pooled, facts=facts)[0],
    )
    ab, ft, ofd = (build(kind, stages)[0] for kind in (ActivationBoundaries, FactorTransfer, FeatureOverhaul))
    found = {
        "hint.regress_s (tap 2)": fitnet.regressors[0],
        "correlation.embed_s": cc.embed_s[0],
        "correlation.embed_t": cc.embed_t[0],
        "vid.criterion (ModuleList over taps 1..3)": vid.taps,
        "crd.embed_s": crd.embed_s,
        "crd.embed_t": crd.embed_t,
        "crd.contrast buffers": crd.contrast,
        "abound.connector (same shapes give an empty Sequential)": ab.connectors,
        "factor.paraphraser": ft.paraphrasers[-1],
        "factor.translator": ft.translators[-1],
        "ofd.connectors (1x1 conv + BN per tap)": ofd,
    }
    assert {name: shapes_of(module) for name, module in found.items()} == modules


def test_banks_too_large_are_refused_before_they_are_made() -> None:
    assert reserve((50_000, 128), (50_000, 128)) == 51_200_000  # CRD's on CIFAR-100
    with pytest.raises(ConfigError, match="need 10,240,000,000,000,000 bytes"):
        build(ContrastiveRepresentation, VECTORS[:1], facts=Facts(10**13))


PAIRS = {  # student stages, teacher stages, at 32x32
    "resnet32x4 -> resnet8x4": (R32X4, R32X4),
    "wrn_40_2 -> wrn_40_1": (
        [(16, 32, 32), (32, 16, 16), (64, 8, 8)],
        [(32, 32, 32), (64, 16, 16), (128, 8, 8)],
    ),
    "vgg13 -> MobileNetV2": (
        [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)],
        [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)],
    ),
    "resnet32x4 -> ShuffleV1": ([(240, 16, 16), (480, 8, 8), (960, 4, 4)], R32X4),
    "ResNet50 -> vgg8": (
        [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)],
        [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)],
    ),
}
COUNTS = {  # fitnet, cc and crd, vid, ab, ft paraphraser, ft translator, ofd
    "resnet32x4 -> resnet8x4": (16_768, 65_792, 258_496, 0, 2_065_536, 1_033_728, 86_912),
    "wrn_40_2 -> wrn_40_1": (2_240, 24_832, 53_984, 11_424, 516_672, 111_168, 11_200),
    "vgg13 -> MobileNetV2": (4_864, 229_632, 1_325_952, None, 8_259_840, 1_190_880, 114_944),
    "resnet32x4 -> ShuffleV1": (983_424, 155_904, 495_040, 5_162_304, 2_065_536, 9_551_424, 323_456),
    "ResNet50 -> vgg8": (2_098_688, 327_936, 12_881_664, 12_070_144, 132_129_792, 16_522_752, 1_744_384),
}
WIDTHS = {"vgg13 -> MobileNetV2": (1280, 512)}  # of the pooled vectors, where they are not the last stage's


@pytest.mark.parametrize("name", PAIRS)
def test_side_modules_have_the_published_sizes(name: str) -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    mine, theirs = PAIRS[name]
    stages = list(zip(mine, theirs, strict=True))
    vectors = WIDTHS.get(name, (mine[-1][0], theirs[-1][0]))
    with torch.device("meta"):
        cc, _ = build(CorrelationCongruence, [((vectors[0],), (vectors[1],))], form="adjacent")
        ft, _ = build(FactorTransfer, stages[-1:])
        fitnet, vid, ofd = (
            build(kind, stages)[0] for kind in (FitNet, VariationalInformation, FeatureOverhaul)
        )
        ab = None if COUNTS[name][3] is None else build(ActivationBoundaries, stages)[0]
    found = (
        count(fitnet), count(cc), count(vid), None if ab is None else count(ab),
        count(ft.paraphrasers), count(ft.translators), count(ofd),
    )  # fmt: skip
    assert found == COUNTS[name]


# Contrast ------------------------------------------------------------------------------------------------------


def contrast(samples: int = 40, negatives: int = 12, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    labels = torch.arange(samples) % 4
    facts = options.pop("facts", Facts(samples, 4, labels))
    method, given = build(
        ContrastiveRepresentation, [((6,), (9,))], facts=facts, negatives=negatives, dimension=8, **options
    )
    return method, given, {"index": torch.tensor([3, 17, 4, 30])}


def crd_formula(items: Tensor) -> Any:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        v1 = method.embed_s.linear(student.features[0])
        v2 = method.embed_t.linear(teacher.features[0])
        v1, v2 = v1 / v1.norm(dim=1, keepdim=True), v2 / v2.norm(dim=1, keepdim=True)
        n, k = len(method.contrast.memory_v1), items.shape[1] - 1
        value = torch.zeros((), dtype=torch.float64)
        for v, bank in ((v1, method.contrast.memory_v2), (v2, method.contrast.memory_v1)):
            raw = ((bank[items] * v[:, None]).sum(2) / method.contrast.temperature).exp()
            p = raw / (raw.mean().detach() * n)
            value = value - (p[:, 0] / (p[:, 0] + k / n + 1e-7)).log().sum() / len(v)
            value = value - ((k / n) / (p[:, 1:] + k / n + 1e-7)).log().sum() / len(v)
        return value

    return formula


@pytest.mark.parametrize(("samples", "negatives"), [(40, 12), (200, 5)])
def test_crd(samples: int, negatives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by the whole bank, and by gathered rows."""
    method, given, batch = contrast(samples, negatives)
    items = method.draw(batch["index"])
    monkeypatch.setattr(ContrastiveRepresentation, "draw", lambda *_: items)
    assert_equals(method, crd_formula(items), *views(given, 4), batch)


def test_crd_trains_both_embeddings() -> None:
    for samples in (40, 400):
        method, given, batch = contrast(samples)
        student, teacher = (cast(view, torch.float32) for view in views(given, 4))
        total(method(student, teacher, batch)).backward()
        assert all(p.grad is not None and p.grad.any() for p in method.parameters())


def test_crd_fixes_its_constants_in_the_first_step_and_moves_only_the_rows_of_the_batch() -> None:
    method, given, batch = contrast()
    student, teacher = (cast(view, torch.float32) for view in views(given, 4))
    before = {name: value.clone() for name, value in method.contrast.state_dict().items()}
    assert before["params"][2:4].tolist() == [-1, -1]
    method(student, teacher, batch)
    constants = method.contrast.params.clone()
    assert (constants[2:4] > 0).all() and torch.equal(method.contrast.memory_v1, before["memory_v1"])
    method.after_step(student, teacher, batch)
    embeddings = {
        "memory_v1": F.normalize(method.embed_s(student.features[0])),
        "memory_v2": F.normalize(method.embed_t(teacher.features[0])),
    }
    others = torch.ones(40, dtype=torch.bool).index_fill_(0, batch["index"], False)
    for name, embedding in embeddings.items():
        bank = getattr(method.contrast, name)
        assert torch.equal(bank[others], before[name][others])
        torch.testing.assert_close(bank[~others].norm(dim=1), torch.ones(4))
        rows = 0.5 * before[name][batch["index"]] + 0.5 * embedding
        torch.testing.assert_close(bank[batch["index"]], F.normalize(rows))
    method(student, teacher, batch)
    assert torch.equal(method.contrast.params, constants)
    method.after_step(student, teacher, batch)
    once = method.contrast.memory_v1.clone()
    method.after_step(student, teacher, batch)  # nothing was seen since
    assert torch.equal(method.contrast.memory_v1, once)


def test_crd_resumes_where_it_was() -> None:
    found = []
    for broken in (False, True):
        method, given, batch = contrast()
        student, teacher = (cast(view, torch.float32) for view in views(given, 4))
        for step in range(3):
            torch.manual_seed(step)
            value = total(method(student, teacher, batch))
            method.after_step(student, teacher, batch)
            if broken:
                state = method.state_dict()
                method, _, _ = contrast()
                method.load_state_dict(state)
        found.append((float(value.detach()), method.state_dict()))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name


@pytest.mark.parametrize("positive", ["exact", "relaxed"])
@pytest.mark.parametrize("exclude", ["class", "self", "nothing"])
def test_crd_draws_every_item_it_may_and_no_other(exclude: Any, positive: Any) -> None:
    labels = torch.tensor([7, 7, 2, 9, 2, 7, 9, 9, 9, 2])
    method, _, _ = contrast(facts=Facts(10, 10, labels), negatives=600, exclude=exclude, positive=positive)
    index = torch.tensor([0, 3, 9, 2, 0, 5, 7, 8])
    items = method.draw(index)
    assert items.shape == (8, 601)
    for row, item in zip(items, index.tolist(), strict=True):
        allowed = {
            "class": {i for i in range(10) if labels[i] != labels[item]},
            "self": set(range(10)) - {item},
            "nothing": set(range(10)),
        }[exclude]
        assert set(row[1:].tolist()) == allowed
        counts = torch.bincount(row[1:], minlength=10)[sorted(allowed)].float()
        assert float((counts / counts.mean() - 1).abs().max()) < 0.6
        assert labels[row[0]] == labels[item] if positive == "relaxed" else row[0] == item
    method, _, _ = contrast(facts=Facts(10))
    assert method.exclude == "self"


def test_crd_writes_the_last_of_an_item_that_comes_twice() -> None:
    method, given, _ = contrast()
    student, teacher = (cast(view, torch.float32) for view in views(given, 4))
    start = method.contrast.memory_v1.clone()
    batch = {"index": torch.tensor([5, 9, 5, 5])}
    method(student, teacher, batch)
    method.after_step(student, teacher, batch)
    last = F.normalize(method.embed_s(student.features[0]))[3]
    torch.testing.assert_close(method.contrast.memory_v1[5], F.normalize(0.5 * start[5] + 0.5 * last, dim=0))


def test_crd_takes_a_vector_of_zeros_and_sharp_scores() -> None:
    method, given, batch = contrast(temperature=0.01)
    student, teacher = (cast(view, torch.float32) for view in views(given, 4))
    for layer in (method.embed_s.linear, method.embed_t.linear):
        nn.init.zeros_(layer.bias)
    dead = View(student.output, (torch.zeros(4, 6, requires_grad=True),))
    value = total(method(dead, teacher, batch))
    assert value.isfinite() and all(each.isfinite().all() for each in gradients(value, dead))
    method.contrast.memory_v2[batch["index"]] = F.normalize(method.embed_s(student.features[0])).detach()
    value = total(method(student, teacher, batch))
    assert value.isfinite() and all(each.isfinite().all() for each in gradients(value, student))


def test_crd_says_what_it_lacks() -> None:
    given = sides([(6,)], [(9,)])
    with pytest.raises(ConfigError, match="how many items"):
        ContrastiveRepresentation(**given, facts=Facts())
    with pytest.raises(ConfigError, match="relaxed needs the class"):
        ContrastiveRepresentation(**given, facts=Facts(10), positive="relaxed")
    with pytest.raises(ConfigError, match="two classes"):
        ContrastiveRepresentation(**given, facts=Facts(10, 1, torch.zeros(10).long()))
    method, given, _ = contrast()
    with pytest.raises(DataError, match="index"):
        method(*(cast(view, torch.float32) for view in views(given, 4)), {})


# Refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "pairs", "says"),
    [
        (AttentionTransfer, [((8,), (8,))], "compares maps"),
        (AttentionTransfer, [], "found 0 of the student"),
        (
            SolutionFlow,
            [((3, 4, 4), (5, 4, 4))] * 2,
            r"\(3, 4, 4\) of the student and \(5, 4, 4\).*equal channels",
        ),
        (SolutionFlow, [((3, 4, 4), (3, 4, 4))], "2 or more pairs"),
        (
            FitNet,
            [((3, 4, 4), (5, 12, 12))],
            r"no connector from \(3, 4, 4\) of the student to \(5, 12, 12\)",
        ),
        (ActivationBoundaries, [((3, 90, 90), (5, 12, 12))], "no connector"),
        (NeuronSelectivity, [((3, 4), (3, 4))], "expected maps"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(kind: Any, pairs: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(kind, pairs)


def test_unequal_classes_and_taps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"student answers \(5,\), the teacher \(7,\)"):
        KnowledgeDistillation(**sides([], [], outputs=((5,), (7,))))
    with pytest.raises(ConfigError, match="found 1 of the student and 0 of the teacher"):
        SimilarityPreserving(**sides([(4,)], []))
    with pytest.raises(ConfigError, match="norm, but the batch norm"):
        FeatureOverhaul(**sides([(4, 2, 2)], [(4, 2, 2)]), margin="norm")
    with pytest.raises(ConfigError, match="has 3 channels"):
        teacher = Side("classes", (5,), ((4, 2, 2),), (nn.BatchNorm2d(3),))
        FeatureOverhaul(student=Side("classes", (5,), ((4, 2, 2),)), teacher=teacher)
