"""The methods beyond the fourteen against their formulas, written out naively in float64, and what relates them."""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dvsn.config.menu import conf_dir
from dvsn.distill.bounded_regression import BoundedRegression
from dvsn.distill.cirkd import CrossImageRelations
from dvsn.distill.class_memory import ClassMemory
from dvsn.distill.cwd import ChannelWise, ChannelWiseFeatures
from dvsn.distill.dist import Correlated
from dvsn.distill.dkd import DecoupledDistillation
from dvsn.distill.dwpose import PoseFeaturesAndAnswers
from dvsn.distill.fpd import FastPose
from dvsn.distill.gan_compression import GeneratorCompression
from dvsn.distill.gram import gram_distance
from dvsn.distill.holistic import HolisticDistillation
from dvsn.distill.ifvd import IntraClassVariation
from dvsn.distill.kd import KnowledgeDistillation
from dvsn.distill.method import Facts, Method, View
from dvsn.distill.mgd import MaskedGeneration
from dvsn.distill.mlkd import MultiLevel, correlation_distance
from dvsn.distill.ofa import OneForAll
from dvsn.distill.omgd import GeneratorToGenerator, similarity
from dvsn.distill.pixel_kd import PixelDistillation
from dvsn.distill.pkd import PearsonFeatures
from dvsn.distill.reviewkd import KnowledgeReview
from dvsn.distill.skd import StructuredDistillation
from dvsn.distill.srrl import SoftmaxRegression
from dvsn.distill.wsld import WeightedSoftLabels
from dvsn.distill.wttm import TransformedTeacher
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

MAPS = [((3, 6, 6), (5, 6, 6)), ((4, 4, 4), (4, 8, 8)), ((2, 6, 4), (7, 3, 2))]
SAME = [((3, 6, 6), (3, 6, 6)), ((4, 4, 4), (4, 4, 4))]
PIXELS = {"kind": "pixels", "outputs": ((5, 6, 8), (5, 6, 8))}
HEATMAPS = {"kind": "heatmaps", "outputs": ((5, 6, 8), (5, 6, 8))}


def zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def divergence(z_s: Tensor, z_t: Tensor, temperature: float, dim: int = 1) -> Tensor:
    p_s, p_t = ((z / temperature).exp() / (z / temperature).exp().sum(dim, keepdim=True) for z in (z_s, z_t))
    return temperature**2 * (p_t * (p_t / p_s).log()).sum(dim)


LABELS = {"target": torch.tensor([0, 4, 2, 2, 1, 3])}

# Classes -------------------------------------------------------------------------------------------------------


def dkd_formula(alpha: float, beta: float, temperature: float) -> Any:
    def formula(_: Any, student: View, teacher: View, batch: Any) -> Tensor:
        target = F.one_hot(batch["target"], student.output.shape[1]).bool()
        p_s, p_t = ((view.output / temperature).softmax(1) for view in (student, teacher))
        binary = [torch.stack([p[target], p.masked_fill(target, 0).sum(1)], dim=1) for p in (p_s, p_t)]
        tckd = (binary[1] * (binary[1] / binary[0]).log()).sum(1)
        rest = [p[~target].reshape(len(p), -1) for p in (p_s, p_t)]
        rest = [r / r.sum(1, keepdim=True) for r in rest]
        nckd = (rest[1] * (rest[1] / rest[0]).log()).sum(1)
        return temperature**2 * (alpha * tckd + beta * nckd).mean()

    return formula


@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0)])
def test_dkd(alpha: float, beta: float, temperature: float) -> None:
    method, given = build(DecoupledDistillation, alpha=alpha, beta=beta, temperature=temperature)
    assert_equals(method, dkd_formula(alpha, beta, temperature), *views(given, 6), LABELS)


def test_dkd_takes_a_sure_student_and_refuses_two_classes() -> None:
    method, given = build(DecoupledDistillation, temperature=1.0)
    _, teacher = (cast(view, torch.float32) for view in views(given, 6))
    sure = (300 * F.one_hot(torch.tensor([0, 4, 2, 2, 1, 0]), 5)).float().requires_grad_()
    student = View(sure, ())
    value = total(method(student, teacher, LABELS))
    assert value.isfinite() and gradients(value, student)[0].isfinite().all()
    with pytest.raises(ConfigError, match="distill=kd"):
        build(DecoupledDistillation, more={"outputs": ((2,), (2,))})
    with pytest.raises(DataError, match="target"):
        method(student, teacher, {})


def test_dkd_with_the_rest_weighed_by_its_probability_is_kd() -> None:
    """KD at T = 1 is the target part plus (1 - p_t of the right class) times the rest part, item by item."""
    dkd, given = build(DecoupledDistillation, beta=1.0, temperature=1.0)
    kd, _ = build(KnowledgeDistillation, temperature=1.0)
    student, teacher = views(given, 6)
    together = zero()
    for item in range(6):
        one = [View(view.output[item : item + 1], ()) for view in (student, teacher)]
        label = LABELS["target"][item : item + 1]
        terms = dkd(*one, {"target": label})
        together = together + terms["dkd_target"]
        together = together + (1 - one[1].output.softmax(1)[0, label[0]]) * terms["dkd_rest"]
    torch.testing.assert_close(together / 6, total(kd(student, teacher, {})), rtol=1e-10, atol=0)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt() + 1e-8)


def dist_formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
    p = [(view.output / 4).softmax(1) for view in (student, teacher)]
    p = [each if each.ndim == 2 else each.permute(0, 2, 3, 1).reshape(-1, each.shape[1]) for each in p]
    inter = torch.stack([pearson(a, b) for a, b in zip(*p, strict=True)]).mean()
    intra = torch.stack([pearson(a, b) for a, b in zip(p[0].T, p[1].T, strict=True)]).mean()
    return 2 * 16 * (1 - inter) + 3 * 16 * (1 - intra)


@pytest.mark.parametrize(
    ("batch", "more"), [(2, {}), (6, {}), (1, {**PIXELS, "outputs": ((5, 3, 2), (5, 3, 2))})]
)
def test_dist(batch: int, more: dict[str, Any]) -> None:
    method, given = build(Correlated, more=more, beta=2.0, gamma=3.0)
    assert_equals(method, dist_formula, *views(given, batch))


def test_dist_of_one_item_has_no_columns() -> None:
    method, given = build(Correlated)
    terms = method(*views(given, 1), {})
    assert terms["dist_intra"] == 0 and terms["dist_inter"] > 0


@pytest.mark.parametrize("weighted", [True, False])
def test_wttm(weighted: bool) -> None:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        powers = teacher.output.softmax(1) ** 0.3
        q = powers / powers.sum(1, keepdim=True)
        each = (q * (q / student.output.softmax(1)).log()).sum(1)
        return (each * powers.sum(1)).mean() if weighted else each.mean()

    method, given = build(TransformedTeacher, exponent=0.3, weighted=weighted)
    assert_equals(method, formula, *views(given, 6))


def test_ofa() -> None:
    def formula(method: Any, student: View, teacher: View, batch: Any) -> Tensor:
        right = F.one_hot(batch["target"], 5).double()
        target = (teacher.output.softmax(1) + right) ** 1.5 - right
        logits = [student.output]
        for projector, feature in zip(method.projectors, student.features, strict=True):
            logits.append(projector(feature.mean((2, 3)) if feature.ndim == 4 else feature))
        return -sum(((target * each.softmax(1).log()).sum(1).mean() for each in logits), zero())

    method, given = build(OneForAll, [((3, 4, 4), (9, 2, 2)), ((6,), (4,))], exponent=1.5)
    assert_equals(method, formula, *views(given, 6), LABELS)


def test_ofa_with_exponent_one_has_the_gradient_of_kd() -> None:
    ofa, given = build(OneForAll)
    kd, _ = build(KnowledgeDistillation, temperature=1.0)
    student, teacher = views(given, 6)
    found = [gradients(total(method(student, teacher, LABELS)), student)[0] for method in (ofa, kd)]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_wsld() -> None:
    def formula(_: Any, student: View, teacher: View, batch: Any) -> Tensor:
        right = batch["target"][:, None]
        ce_s, ce_t = (
            -view.output.detach().softmax(1).gather(1, right).log()[:, 0] for view in (student, teacher)
        )
        return ((1 - (-ce_s / (ce_t + 1e-7)).exp()) * divergence(student.output, teacher.output, 2.0)).mean()

    method, given = build(WeightedSoftLabels)
    assert_equals(method, formula, *views(given, 6), LABELS)
    sure = View(1e4 * F.one_hot(LABELS["target"], 5).float(), ())  # the teacher's cross entropy is 0
    assert total(method(cast(views(given, 6)[0], torch.float32), sure, LABELS)).isfinite()


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_mlkd(batch: int) -> None:
    """More items than classes and fewer."""

    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        value = zero()
        for t in (2.0, 5.0):
            p_s, p_t = ((view.output / t).softmax(1) for view in (student, teacher))
            value = value + divergence(student.output, teacher.output, t).mean()
            value = value + (p_s.T @ p_s - p_t.T @ p_t).pow(2).sum() / 5
            value = value + (p_s @ p_s.T - p_t @ p_t.T).pow(2).sum() / len(p_s)
        return value

    method, given = build(MultiLevel, temperatures=[2.0, 5.0])
    assert_equals(method, formula, *views(given, batch))


def test_correlation_distance_loses_nothing_to_cancellation() -> None:
    a = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    b = a + 1e-5 * torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    wide_a, wide_b = a.double(), b.double()
    expected = float((wide_a.T @ wide_a - wide_b.T @ wide_b).pow(2).sum())
    assert float(correlation_distance(a, b)) == pytest.approx(expected, rel=1e-4)
    assert float(correlation_distance(a, a)) == 0


@pytest.mark.parametrize(("p", "q", "n"), [(3, 5, 20), (5, 3, 4), (3, 3, 3), (1, 1, 9), (20, 4, 7)])
def test_gram_distance_in_both_forms(p: int, q: int, n: int) -> None:
    generator = torch.Generator().manual_seed(p * q * n)
    a, b = (torch.randn(2, rows, n, generator=generator, dtype=torch.float64) for rows in (p, q))
    expected = (a.mT @ a - b.mT @ b).pow(2).sum((1, 2))
    torch.testing.assert_close(gram_distance(a, b), expected, rtol=1e-10, atol=1e-12)


# Maps ----------------------------------------------------------------------------------------------------------


def test_reviewkd() -> None:
    """Fusion from deep to shallow, with norms of the batch, and the error at four sizes."""
    pairs = [((3, 12, 12), (4, 12, 12)), ((5, 6, 6), (7, 6, 6)), ((6, 3, 3), (5, 3, 3)), ((8,), (9,))]

    def level(mine: Tensor, theirs: Tensor) -> Tensor:
        value, weight, weights = (mine - theirs).pow(2).mean(), 1.0, 1.0
        for side in (4, 2, 1):
            if side >= mine.shape[2]:
                continue
            weight = weight / 2
            pooled = [F.adaptive_avg_pool2d(each, (side, side)) for each in (mine, theirs)]
            value = value + weight * (pooled[0] - pooled[1]).pow(2).mean()
            weights += weight
        return value / weights

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value, below = zero(), None
        for number in (3, 2, 1, 0):
            mine, theirs = student.features[number], teacher.features[number]
            if number == 3:
                mine, theirs = mine[:, :, None, None], theirs[:, :, None, None]
            fusion = method.fusions[number]
            own = fusion.narrow(mine)
            if below is not None:
                up = F.interpolate(below, mine.shape[2:], mode="nearest")
                share = fusion.attention(torch.cat([own, up], 1))
                own = own * share[:, 0:1] + up * share[:, 1:2]
            below = own
            value = value + level(fusion.widen(own), theirs)
        return value

    method, given = build(KnowledgeReview, pairs, mid=6)
    assert [fusion.narrow[0].out_channels for fusion in method.fusions] == [6] * 4
    assert_equals(method, formula, *views(given, 5), single=1e-4)
    wide, _ = build(KnowledgeReview, pairs)
    assert wide.fusions[0].narrow[0].out_channels == 8


@pytest.mark.parametrize("bias", [True, False])
def test_srrl(bias: bool) -> None:
    head = nn.Linear(4, 5, bias=bias)

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        mine, theirs = method.connector(student.features[0]).mean((2, 3)), teacher.features[0].mean((2, 3))
        wide = head.double()
        answers = (wide(mine) - wide(theirs)).pow(2).mean()
        return (mine - theirs).pow(2).mean() + answers

    method, given = build(SoftmaxRegression, [((3, 4, 4), (4, 4, 4))], {"head": head})
    assert_equals(method, formula, *views(given, 5))
    head.float()
    assert not any("head" in name for name in method.state_dict()) and len(list(method.parameters())) == 3


def test_srrl_leaves_the_teachers_head_alone_and_needs_one() -> None:
    head = nn.Linear(4, 5)
    method, given = build(SoftmaxRegression, [((6,), (4,))], {"head": head})
    student, teacher = (cast(view, torch.float32) for view in views(given, 5))
    total(method(student, teacher, {})).backward()
    assert head.weight.grad is None and method.connector[0].weight.grad is not None
    for other in (None, nn.Linear(7, 5), nn.ReLU()):
        with pytest.raises(ConfigError, match="head is"):
            build(SoftmaxRegression, [((6,), (4,))], {"head": other})


@pytest.mark.parametrize("mask", ["spatial", "channel"])
def test_mgd(mask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method, given = build(MaskedGeneration, MAPS[:2], mask=mask)
    student, teacher = views(given, 4)
    kept = [method.kept(torch.zeros(4, 5, 6, 6)), method.kept(torch.zeros(4, 4, 4, 4))]
    assert kept[0].shape == ((4, 1, 6, 6) if mask == "spatial" else (4, 5, 1, 1))
    assert set(kept[0].unique().tolist()) <= {0.0, 1.0}
    large = method.kept(torch.zeros(40, 60, 20, 20))
    assert float(large.mean()) == pytest.approx(0.35, abs=0.03)

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = zero()
        for number, (mine, theirs) in enumerate(features(student, teacher)):
            mine, theirs = smaller(method.aligns[number](mine), theirs)
            first, _, second = method.generations[number]
            value = value + (second(first(mine * kept[number]).clamp_min(0)) - theirs).pow(2).sum() / len(
                mine
            )
        return value

    monkeypatch.setattr(
        MaskedGeneration, "kept", lambda _, f: (kept[0] if f.shape[1] == 5 else kept[1]).to(f.dtype)
    )
    assert_equals(method, formula, student, teacher)
    assert isinstance(method.aligns[1], nn.Identity)


def test_pkd() -> None:
    """Half the squared difference of standardised maps is 1 less Pearson's correlation, but for one degree of freedom."""

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = zero()
        for connector, (mine, theirs) in zip(method.connectors, features(student, teacher), strict=True):
            mine, theirs = smaller(connector(mine), theirs)
            rows = [each.transpose(0, 1).flatten(1) for each in (mine, theirs)]
            rows = [(r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-6) for r in rows]
            value = value + (rows[0] - rows[1]).pow(2).mean() / 2
        return value

    method, given = build(PearsonFeatures, MAPS)
    student, teacher = views(given, 4)
    assert_equals(method, formula, student, teacher)
    method, given = build(PearsonFeatures, SAME[:1])
    student, teacher = views(given, 4)
    rows = [view.features[0].transpose(0, 1).flatten(1) for view in (student, teacher)]
    correlations = torch.stack([pearson(a, b) for a, b in zip(*rows, strict=True)])
    count = rows[0].shape[1]
    expected = (1 - correlations.mean()) * (count - 1) / count
    torch.testing.assert_close(total(method(student, teacher, {})), expected, rtol=1e-5, atol=0)


# Pixels --------------------------------------------------------------------------------------------------------


def test_pixel_kd_and_cwd() -> None:
    def pixel(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        return divergence(student.output, teacher.output, 2.0).mean()

    def channel(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        return divergence(student.output.flatten(2), teacher.output.flatten(2), 4.0, dim=2).sum() / (3 * 5)

    method, given = build(PixelDistillation, more=PIXELS, temperature=2.0)
    assert_equals(method, pixel, *views(given, 3))
    for more in (PIXELS, HEATMAPS):
        method, given = build(ChannelWise, more=more)
        assert_equals(method, channel, *views(given, 3))


def test_cwd_of_features() -> None:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = zero()
        for connector, (mine, theirs) in zip(method.connectors, features(student, teacher), strict=True):
            mine, theirs = smaller(connector(mine), theirs)
            value = value + divergence(mine.flatten(2), theirs.flatten(2), 4.0, dim=2).mean()
        return value

    method, given = build(ChannelWiseFeatures, MAPS)
    assert ChannelWiseFeatures.reads == () and isinstance(method.connectors[1], nn.Identity)
    assert_equals(method, formula, *views(given, 3))


def test_cwd_takes_sharp_maps() -> None:
    method, given = build(ChannelWise, more=PIXELS, temperature=0.1)
    student, teacher = (cast(view, torch.float32) for view in views(given, 2, scale=30.0))
    value = total(method(student, teacher, {}))
    assert value.isfinite() and gradients(value, student)[0].isfinite().all()


@pytest.mark.parametrize("name", ["pixel", "channel", "pose", "dist"])
def test_a_teacher_of_another_size_is_brought_to_the_students_grid(name: str) -> None:
    kind = {"pixel": PixelDistillation, "channel": ChannelWise, "pose": FastPose, "dist": Correlated}[name]
    more = {"kind": "heatmaps" if name == "pose" else "pixels", "outputs": ((5, 6, 8), (5, 12, 16))}
    method, given = build(kind, more=more, **({"weighted": False} if name == "pose" else {}))
    student, teacher = views(given, 2)
    resized = F.interpolate(teacher.output, size=(6, 8), mode="bilinear", align_corners=False)
    found, expected = (total(method(student, each, {})) for each in (teacher, View(resized, ())))
    torch.testing.assert_close(found, expected)


def skd_formula(scale: float, window: int | None = None) -> Any:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        value = 10 * divergence(student.output, teacher.output, 1.0).mean()
        for pair in features(student, teacher):
            matrices = []
            for f in smaller(*pair):
                kernel = (max(1, int(f.shape[2] * scale)), max(1, int(f.shape[3] * scale)))
                kernel = (window, window) if window else kernel
                x = F.max_pool2d(f, kernel, kernel, ceil_mode=True).flatten(2)
                x = x / x.norm(dim=1, keepdim=True)
                matrices.append(torch.einsum("ncp,ncq->npq", x, x))
            value = value + (matrices[1] - matrices[0]).pow(2).sum() / matrices[0].shape[1] ** 2 / len(f)
        return value

    return formula


@pytest.mark.parametrize("scale", [0.5, 0.1])
def test_skd(scale: float) -> None:
    """Four regions, or every pixel, which are then more than channels."""
    method, given = build(StructuredDistillation, MAPS, PIXELS, scale=scale)
    assert_equals(method, skd_formula(scale), *views(given, 3))


def test_skd_by_windows_of_pixels() -> None:
    """CIRKD's comparison: 2 x 2 with stride 2, the last window cut off: 8 x 8 makes 16 regions, 3 x 5 six."""
    method, given = build(StructuredDistillation, MAPS, PIXELS, kernel=2)
    assert_equals(method, skd_formula(0.5, window=2), *views(given, 3))
    assert [-(-side // method.window(side)) for side in (8, 3, 5, 128)] == [4, 2, 3, 64]


def ifvd_formula(_: Any, student: View, teacher: View, batch: Any) -> Tensor:
    value = zero()
    for pair in features(student, teacher):
        maps = []
        pair = smaller(*pair)
        labels = F.interpolate(batch["target"][:, None].double(), pair[0].shape[2:], mode="nearest")[:, 0]
        for f in pair:
            centre = f.clone()
            for item, k in itertools.product(range(len(f)), range(5)):
                mask = (labels[item] == k).double()
                mean = (f[item] * mask).sum((1, 2)) / (mask.sum() + 1e-6)
                centre[item] = centre[item] * (1 - mask) + mean[:, None, None] * mask
            maps.append(F.cosine_similarity(f, centre, dim=1))
        value = value + (maps[0] - maps[1]).pow(2).mean()
    return value


def test_ifvd() -> None:
    """A loop over classes and pictures, with void, absent classes and labels of another size."""
    method, given = build(IntraClassVariation, MAPS, PIXELS)
    target = torch.randint(0, 4, (3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    target[0, :6], target[2, :, 8:] = 255, 255
    value = assert_equals(method, ifvd_formula, *views(given, 3), {"target": target})
    assert torch.equal(value, total(method.double()(*views(given, 3), {"target": target[:, None]})))


def cirkd_formula(pool: int) -> Any:
    def formula(_: Any, student: View, teacher: View, __: Any) -> Tensor:
        value = zero()
        for pair in features(student, teacher):
            s, t = (F.avg_pool2d(f, pool, ceil_mode=True) for f in smaller(*pair))
            s, t = (f.flatten(2).transpose(1, 2) / f.flatten(2).norm(dim=1)[..., None] for f in (s, t))
            for i, j in itertools.product(range(len(s)), repeat=2):
                value = value + divergence(s[i] @ s[j].T / 0.1, t[i] @ t[j].T / 0.1, 1.0).mean() / len(s) ** 2
        return value

    return formula


@pytest.mark.parametrize(("batch", "pool"), [(1, 2), (3, 2), (2, 1)])
def test_cirkd(batch: int, pool: int) -> None:
    method, given = build(CrossImageRelations, MAPS, PIXELS, pool=pool, memory_weight=0.0)
    assert not method.state_dict()
    assert_equals(
        method, cirkd_formula(pool), *views(given, batch), single=1e-4
    )  # exponents of ten times a cosine


def test_cirkd_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against rows that are drawn beforehand; the projection is trained, the memory is not."""
    method, given = build(CrossImageRelations, MAPS[:1], PIXELS, memory=7, pixel_samples=10, region_samples=5)
    memory = method.memories[0]
    assert memory.pixels.shape == memory.regions.shape == (5, 7, 5)
    with pytest.raises(
        ConfigError, match="need 400,000,000,000,000 bytes"
    ):  # 5 classes of width 5, two rings
        build(CrossImageRelations, MAPS[:1], PIXELS, memory=2 * 10**12)
    rows = {10: memory.sample(memory.pixels, 10), 5: memory.sample(memory.regions, 5)}
    assert rows[10].shape == (10, 5) and rows[5].shape == (5, 5)
    monkeypatch.setattr(ClassMemory, "sample", lambda _, __, count: rows[count])
    batch = {"target": torch.randint(0, 5, (3, 12, 12), generator=torch.Generator().manual_seed(0))}

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = cirkd_formula(2)(method, student, teacher, {})
        s = F.normalize(method.projections[0](student.features[0]), dim=1).permute(0, 2, 3, 1).reshape(-1, 5)
        t = F.normalize(teacher.features[0], dim=1).permute(0, 2, 3, 1).reshape(-1, 5)
        for sampled in rows.values():
            logits = [each @ sampled.double().T / 0.1 for each in (s, t)]
            value = value + 0.1 * divergence(*logits, 1.0).mean()
        return value

    assert_equals(method, formula, *views(given, 3), batch, single=1e-4)


def test_the_memory_takes_means_and_pixels_of_each_class_in_turn() -> None:
    memory = ClassMemory(3, 4, 2, written=2).double()
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    features = F.normalize(torch.randn(2, 5, 2, dtype=torch.float64), dim=2)
    labels = torch.tensor([[0, 0, 0, 2, 255], [0, 2, 2, 255, 255]])
    memory.write(features, labels)
    assert memory.places.tolist() == [[3, 0, 3], [2, 0, 2]]
    means = [features[0, :3], features[1, :1], features[0, 3:4], features[1, 1:3]]
    means = [F.normalize(each.mean(0), dim=0) for each in means]
    torch.testing.assert_close(memory.regions[[0, 0, 2, 2], [0, 1, 0, 1]], torch.stack(means))
    for name in ("pixels", "regions"):
        assert torch.equal(getattr(memory, name)[1], before[name][1])
        assert torch.equal(getattr(memory, name)[0, 3], before[name][0, 3])
    seen = {tuple(row) for row in features[0, :3].tolist()}
    assert len({tuple(row) for row in memory.pixels[0, :2].tolist()} & seen) == 2
    assert torch.equal(memory.pixels[0, 2], features[1, 0])
    memory.write(features, labels)  # round the ring
    assert memory.places.tolist() == [[2, 0, 2], [0, 0, 0]]
    assert torch.equal(memory.pixels[0, 1], features[1, 0])
    torch.testing.assert_close(memory.regions[0, 2], means[0])


def test_cirkd_remembers_after_the_step() -> None:
    method, given = build(CrossImageRelations, MAPS[:1], PIXELS, memory=6, pixel_samples=10, region_samples=5)
    student, teacher = (cast(view, torch.float32) for view in views(given, 3))
    before = method.memories[0].regions.clone()
    method(student, teacher, {"target": torch.full((3, 6, 6), 2)})
    assert torch.equal(method.memories[0].regions, before)
    method.after_step(student, teacher, {})
    changed = (method.memories[0].regions != before).any(2)
    assert changed[2].tolist() == [True] * 3 + [False] * 3 and not changed[[0, 1, 3, 4]].any()


# Pose, landmarks, generators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [True, False])
def test_fpd(weighted: bool) -> None:
    weight = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.5], [0.0] * 5, [1.0] * 5])

    def formula(_: Any, student: View, teacher: View, batch: Any) -> Tensor:
        w = batch["weight"].double() if weighted else torch.ones(3, 5).double()
        each = [
            0.5 * ((student.output[:, k] - teacher.output[:, k]) * w[:, k, None, None]).pow(2).mean()
            for k in range(5)
        ]
        return torch.stack(each).mean()

    method, given = build(FastPose, more=HEATMAPS, weighted=weighted)
    assert_equals(method, formula, *views(given, 3), {"weight": weight} if weighted else {})


def test_fpd_is_the_loss_of_the_joints_with_the_teacher_as_truth() -> None:
    from dvsn.losses.heatmaps import JointMSE

    method, given = build(FastPose, more=HEATMAPS)
    student, teacher = (cast(view, torch.float32) for view in views(given, 3))
    weight = torch.rand(3, 5)
    found = method(student, teacher, {"weight": weight})["fpd"]
    torch.testing.assert_close(found, JointMSE()(student.output, teacher.output, weight)["heatmaps"])


def test_dwpose() -> None:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = zero()
        for connector, (mine, theirs) in zip(method.connectors, features(student, teacher), strict=True):
            mine, theirs = smaller(connector(mine), theirs)
            value = value + 7e-5 * (mine - theirs).pow(2).sum() / len(mine)
        logits = [10 * view.output.flatten(2) for view in (student, teacher)]
        return value + 0.1 * divergence(*logits, 1.0, dim=2).sum() / (3 * 5)

    method, given = build(PoseFeaturesAndAnswers, MAPS, HEATMAPS)
    assert_equals(method, formula, *views(given, 3))


@pytest.mark.parametrize("toward", ["teacher", "truth"])
@pytest.mark.parametrize("distance", ["l2", "l1"])
@pytest.mark.parametrize(("bounded", "margin"), [(True, 0.0), (True, 3000.0), (False, 0.0)])
def test_bounded_regression(toward: Any, distance: Any, bounded: bool, margin: float) -> None:
    points = {"kind": "points", "outputs": ((4, 2), (4, 2))}
    generator = torch.Generator().manual_seed(5)
    batch = {
        "points": torch.randn(6, 4, 2, generator=generator, dtype=torch.float64),
        "weight": (torch.rand(6, 4, generator=generator) > 0.3).float(),
    }

    def formula(_: Any, student: View, teacher: View, batch: Any) -> Tensor:
        value = zero()
        for n, k in itertools.product(range(6), range(4)):
            s, t, y = (100 * each[n, k] for each in (student.output, teacher.output, batch["points"]))
            if bounded and not (s - y).pow(2).sum() + margin > (t - y).pow(2).sum():
                continue
            error = s - (t if toward == "teacher" else y)
            weight = batch["weight"][n, k] if bounded or toward == "truth" else 1.0
            value = value + weight * (error.pow(2) if distance == "l2" else error.abs()).sum() / 6
        return value

    options: dict[str, Any] = {"toward": toward, "distance": distance, "bounded": bounded, "margin": margin}
    method, given = build(BoundedRegression, more=points, size=100.0, **options)
    assert_equals(method, formula, *views(given, 6), batch)
    if not bounded and toward == "teacher":
        assert total(method(*views(given, 6), {})) > 0  # no labels
    batch["points"][batch["weight"] == 0] = math.nan
    assert total(method(*views(given, 6), batch)).isfinite()


IMAGE = {"kind": "image", "outputs": ((3, 16, 12), (3, 16, 12))}


def test_gan_compression() -> None:
    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        value = 100 * (student.output - teacher.output).abs().mean()
        for adapter, (mine, theirs) in zip(method.adapters, features(student, teacher), strict=True):
            mine, theirs = smaller(adapter(mine), theirs)
            value = value + (mine - theirs).pow(2).mean()
        return value

    method, given = build(GeneratorCompression, MAPS, IMAGE, output_weight=100.0)
    assert_equals(method, formula, *views(given, 3))
    method, given = build(GeneratorCompression, MAPS, IMAGE)
    assert list(method(*(cast(view, torch.float32) for view in views(given, 2)), {})) == [
        "gan_compression_features"
    ]


def test_omgd() -> None:
    def ssim(a: Tensor, b: Tensor) -> Tensor:
        x = torch.arange(11, dtype=torch.float64) - 5
        g = (-(x**2) / 4.5).exp()
        window = torch.outer(g, g)
        window = (window / window.sum())[None, None]
        values = []
        for c in range(a.shape[1]):
            p, q = a[:, c : c + 1], b[:, c : c + 1]
            m1, m2 = F.conv2d(p, window), F.conv2d(q, window)
            v1, v2 = F.conv2d(p * p, window) - m1**2, F.conv2d(q * q, window) - m2**2
            cov = F.conv2d(p * q, window) - m1 * m2
            top = (2 * m1 * m2 + 1e-4) * (2 * cov + 9e-4)
            values.append((top / ((m1**2 + m2**2 + 1e-4) * (v1 + v2 + 9e-4))).mean())
        return torch.stack(values).mean()

    def formula(method: Any, student: View, teacher: View, _: Any) -> Tensor:
        x = student.output
        value = 10 * (1 - ssim((x + 1) / 2, (teacher.output + 1) / 2))
        down, right = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[..., 1:] - x[..., :-1]).abs()
        value = value + 1e-5 * (down.sum() + right.sum()) / len(x)
        for adapter, (mine, theirs) in zip(method.adapters, features(student, teacher), strict=True):
            value = value + 50 * (adapter(mine.mean((2, 3))) - theirs.mean((2, 3))).pow(2).mean()
        return value

    method, given = build(GeneratorToGenerator, MAPS, IMAGE)
    assert_equals(method, formula, *views(given, 2, scale=0.3))
    unit, _ = build(GeneratorToGenerator, MAPS, IMAGE, facts=Facts(values=(0.0, 1.0)))
    unit.load_state_dict(method.state_dict())
    assert (unit.low, unit.high, method.low, method.high) == (0, 1, -1, 1)
    seen = views(given, 2, scale=0.3)
    halved = (View((view.output + 1) / 2, view.features) for view in seen)
    for name, value in unit.double()(*halved, {}).items():  # the same pictures in [0, 1]
        torch.testing.assert_close(value, method.double()(*seen, {})[name])
    stated, _ = build(GeneratorToGenerator, MAPS, IMAGE, facts=Facts(values=(0.0, 1.0)), low=-1.0)
    assert (stated.low, stated.high) == (-1, 1)
    picture = torch.rand(1, 3, 16, 12, dtype=torch.float64)
    assert float(similarity(picture, picture)) == pytest.approx(1.0)


# Invariants ----------------------------------------------------------------------------------------------------

EVERY: dict[str, tuple[type[Method], dict[str, Any], dict[str, Any]]] = {
    "dkd": (DecoupledDistillation, {}, {}),
    "dist": (Correlated, {}, {}),
    "mlkd": (MultiLevel, {}, {}),
    "wsld": (WeightedSoftLabels, {}, {}),
    "wttm": (TransformedTeacher, {"exponent": 1.0}, {}),
    "pkd": (PearsonFeatures, {}, {}),
    "cwd_features": (ChannelWiseFeatures, {}, {}),
    "cirkd": (CrossImageRelations, {"memory_weight": 0.0}, PIXELS),
    "pixel_kd": (PixelDistillation, {}, PIXELS),
    "cwd": (ChannelWise, {}, PIXELS),
    "skd": (StructuredDistillation, {}, PIXELS),
    "ifvd": (IntraClassVariation, {}, PIXELS),
    "dist pixels": (Correlated, {}, PIXELS),
    "fpd": (FastPose, {}, HEATMAPS),
    "dwpose": (PoseFeaturesAndAnswers, {}, HEATMAPS),
    "bounded": (BoundedRegression, {}, {"kind": "points", "outputs": ((4, 2), (4, 2))}),
}
MORE: dict[str, tuple[type[Method], dict[str, Any], dict[str, Any]]] = {
    "ofa": (OneForAll, {}, {}),
    "cirkd with memory": (CrossImageRelations, {"memory": 50}, PIXELS),
    "reviewkd": (KnowledgeReview, {}, {}),
    "srrl": (SoftmaxRegression, {}, {"head": nn.Linear(4, 5)}),
    "mgd": (MaskedGeneration, {}, {}),
    "gan_compression": (GeneratorCompression, {"output_weight": 1.0}, IMAGE),
    "omgd": (GeneratorToGenerator, {}, IMAGE),
    "holistic": (HolisticDistillation, {"channels": 2}, PIXELS),
}


def batch_of(kind: str, size: int) -> dict[str, Any]:
    if kind == "classes":
        return {"target": torch.arange(size) % 5}
    if kind == "pixels":
        image = torch.arange(size * 3 * 96, dtype=torch.uint8).view(size, 3, 12, 8)
        return {"target": torch.arange(size * 96).view(size, 12, 8) % 7, "image": image}
    if kind == "points":
        return {"points": torch.zeros(size, 4, 2), "weight": torch.ones(size, 4)}
    return {"weight": torch.ones(size, 5)}


@pytest.mark.parametrize("name", EVERY)
def test_zero_when_the_student_is_the_teacher(name: str) -> None:
    kind, options, more = EVERY[name]
    method, given = build(kind, SAME, more, **options)
    teacher = cast(views(given, 4)[1], torch.float64)
    value = total(method.double()(teacher, teacher, batch_of(given["student"].kind, 4)))
    assert abs(float(value)) < (1e-3 if "dist" in name else 1e-12)  # DIST adds 1e-8 to the product of lengths


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*EVERY, *MORE])
def test_finite_for_large_numbers_of_16_bits(name: str, dtype: torch.dtype) -> None:
    kind, options, more = {**EVERY, **MORE}[name]
    method, given = build(kind, [((3, 16, 16), (3, 16, 16)), ((4, 8, 8), (4, 8, 8))], more, **options)
    student, teacher = (
        cast(view, dtype) for view in views(given, 3, scale=1.0 if name == "bounded" else 10.0)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = total(method(student, teacher, batch_of(given["student"].kind, 3)))
    assert value.dtype == torch.float32 and value.isfinite()
    assert all(each.isfinite().all() for each in gradients(value, student))


@pytest.mark.parametrize("name", [*EVERY, *MORE])
def test_a_batch_of_one(name: str) -> None:
    """Finite; batch norm of more than one pixel is there."""
    kind, options, more = {**EVERY, **MORE}[name]
    method, given = build(kind, SAME, more, **options)
    student, teacher = (cast(view, torch.float32) for view in views(given, 1))
    value = total(method(student, teacher, batch_of(given["student"].kind, 1)))
    assert value.isfinite() and all(each.isfinite().all() for each in gradients(value, student))


@pytest.mark.parametrize("name", [*EVERY, *MORE])
def test_unequal_outputs_are_refused_where_they_are_read(name: str) -> None:
    kind, options, more = {**EVERY, **MORE}[name]
    given = sides([each[0] for each in SAME], [each[1] for each in SAME], **more)
    other = given["student"]._replace(output=(9, *given["student"].output[1:]))
    if kind.reads and kind not in (SoftmaxRegression, IntraClassVariation, CrossImageRelations):
        with pytest.raises(ConfigError, match="student answers"):
            kind(student=other, teacher=given["teacher"], **options)
    else:
        assert isinstance(kind(student=other, teacher=given["teacher"], **options), Method)


# Configs -------------------------------------------------------------------------------------------------------

FILES = sorted(path for path in Path(conf_dir(), "distill").glob("*.yaml") if path.stem != "none")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_yaml_repeats_every_option_with_its_published_value(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    assert text.startswith("# ") and list(node) == [file.stem]
    part = node[file.stem]
    assert [key for key in part if key != "task_weight"] == [
        "weight",
        "taps",
        "start",
        "end",
        "ramp",
        "method",
    ]
    options = dict(part["method"])
    module, _, name = options.pop("_target_").rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert options.pop("_partial_") is True and issubclass(kind, Method)
    signature = inspect.signature(kind).parameters
    defaults = {
        key: list(each.default) if isinstance(each.default, tuple) else each.default
        for key, each in signature.items()
        if key not in ("student", "teacher", "facts")
    }
    if file.stem == "kd_standardised":
        defaults |= {"temperature": 2.0, "standardise": True}
    assert options == defaults
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in signature.values())
