"""Distillation of detectors against its formulas: FGD, localisation distillation, and boxes as the networks see them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from dvsn.distill.fgd import FocalAndGlobal, GlobalContext, attentions, object_mask
from dvsn.distill.ld import LocalisationDistillation
from dvsn.distill.method import View
from dvsn.distill.taps import role
from dvsn.errors import ConfigError
from dvsn.networks.detectors import Detector, ResNetPyramid
from dvsn.networks.generalised_focal import assign, grid_of
from dvsn.tasks.detection import Detection
from tests.support.distilling import assert_equals, build, smaller, views

MAPS = [((3, 4, 6), (5, 4, 6)), ((4, 2, 3), (4, 4, 6))]
OBJECTS: dict[str, Any] = {"kind": "objects", "outputs": ((), ())}
BOXES = [torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.5, 1.0]]), torch.zeros(0, 4)]


def test_a_box_has_the_positions_it_touches_and_the_smallest_counts() -> None:
    """On 4 rows of 6: columns 0 to 2 of rows 0 and 1 (6 positions), and columns 1 and 2 of rows 1 to 3 (also 6); a third
    of a pixel in the last corner is one position."""
    found = object_mask(
        torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.99, 0.99, 1.0, 1.0]]), (4, 6)
    )
    expected = torch.full((4, 6), 1 / 24)
    expected[:2, :3] = 1 / 6
    expected[3, 5] = 1
    torch.testing.assert_close(found, expected)
    assert object_mask(torch.zeros(0, 4), (4, 6)).sum() == 0
    outside = object_mask(torch.tensor([[-0.5, 0.5, 0.2, 3.0]]), (4, 6))  # cut by the picture: columns 0, 1
    assert outside[2:, :2].sum() == pytest.approx(1) and outside.count_nonzero() == 4


def test_attention_by_hand() -> None:
    """(1, 2, 1, 2): the means over channels are 1 and 2, those over positions 2 and 1."""
    feature = torch.tensor([[[[1.0, -3.0]], [[1.0, 1.0]]]])
    places, channels = attentions(feature, 0.5)
    low, high = 2 / (1 + torch.e**2), 2 * torch.e**2 / (1 + torch.e**2)
    torch.testing.assert_close(places.flatten(), torch.tensor([low, high]))
    torch.testing.assert_close(channels.flatten(), torch.tensor([high, low]))


def context_by_loops(block: nn.Module, feature: Tensor) -> Tensor:
    """A GcBlock position by position; the norm over all channels of one vector."""
    state = dict(block.state_dict())
    out = []
    for each in feature:
        logits = torch.einsum("c,chw->hw", state["place.weight"][0, :, 0, 0], each) + state["place.bias"]
        share = logits.exp() / logits.exp().sum()
        whole = (each * share).sum(dim=(1, 2))
        x = state["read.0.weight"][:, :, 0, 0] @ whole + state["read.0.bias"]
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        x = (x * state["read.1.weight"].flatten() + state["read.1.bias"].flatten()).clamp(min=0)
        out.append(each + (state["read.3.weight"][:, :, 0, 0] @ x + state["read.3.bias"])[:, None, None])
    return torch.stack(out)


def attention_by_hand(f: Tensor, t: float) -> tuple[Tensor, Tensor]:
    place, name = (f.abs().mean(dim=1) / t).exp(), (f.abs().mean(dim=(2, 3)) / t).exp()
    _, channels, h, w = f.shape
    return h * w * place / place.sum(dim=(1, 2), keepdim=True), channels * name / name.sum(
        dim=1, keepdim=True
    )


def fgd_by_loops(method: Any, student: View, teacher: View, batch: dict[str, Any]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    a, b, c, d = method.weights
    t = method.temperature
    for k, (mine, theirs) in enumerate(zip(student.features, teacher.features, strict=True)):
        mine, theirs = smaller(method.connectors[k](mine), theirs)
        count, channels, h, w = mine.shape
        (st, ct), (ss, cs) = attention_by_hand(theirs, t), attention_by_hand(mine, t)
        for n in range(count):
            mask = object_mask(batch["boxes"][n].double(), (h, w))
            free = int((mask == 0).sum())
            for y in range(h):
                for x in range(w):
                    weight = a * mask[y, x] if mask[y, x] > 0 else b / free
                    for z in range(channels):
                        apart = (theirs[n, z, y, x] - mine[n, z, y, x]) ** 2
                        total = total + weight * st[n, y, x] * ct[n, z] * apart / count
        total = total + c * ((ss - st).abs().sum() + (cs - ct).abs().sum()) / count
        related = context_by_loops(method.own[k], mine) - context_by_loops(method.others[k], theirs)
        total = total + d * (related**2).sum() / count
    return total


def test_fgd_is_its_formula() -> None:
    method, given = build(
        FocalAndGlobal, MAPS, OBJECTS, objects=0.5, background=0.25, attention=0.1, relation=0.05
    )
    for block in [*method.own, *method.others]:  # away from its start, which is zero
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
    student, teacher = views(given, 2)
    batch = {"boxes": BOXES}
    assert_equals(method, fgd_by_loops, student, teacher, batch)


def test_fgd_is_zero_for_equal_maps_and_starts_without_context() -> None:
    method, given = build(FocalAndGlobal, [((4, 4, 4), (4, 4, 4))], OBJECTS)
    student, teacher = views(given, 2)
    terms = method.double()(View(student.output, teacher.features), teacher, {"boxes": BOXES})
    assert set(terms) == {"fgd_focal", "fgd_attention", "fgd_global"}
    assert all(term.item() == 0 for term in terms.values())
    block, feature = GlobalContext(4), torch.randn(2, 4, 3, 3)
    assert torch.equal(block(feature), feature)


def test_fgd_refuses_weights_that_teach_nothing() -> None:
    for options in ({"objects": -1.0}, {"objects": 0, "background": 0, "attention": 0, "relation": 0}):
        with pytest.raises(ConfigError, match=r"distill\.fgd\.method: found objects"):
            build(FocalAndGlobal, MAPS, OBJECTS, **options)
    with pytest.raises(ConfigError, match="positions of a map"):
        build(FocalAndGlobal, [((4, 1, 1), (4, 1, 1))], OBJECTS)


def test_methods_get_boxes_in_shares_of_the_padded_picture() -> None:
    """A picture of 50 x 100 resized to 100 x 200 and padded to 128 x 256; its crowd region is left out."""
    task: Any = Detection.__new__(Detection)
    nn.Module.__init__(task)
    task._seen = ImageList(torch.zeros(1, 3, 128, 256), [(100, 200)])
    target = {
        "boxes": torch.tensor([[10.0, 5.0, 100.0, 50.0], [0.0, 0.0, 9.0, 9.0]]),
        "labels": torch.tensor([1, 1]),
        "crowd": torch.tensor([0, 1]),
    }
    found = task.labelled({"image": [torch.zeros(3, 50, 100)], "target": [target]})["boxes"]
    torch.testing.assert_close(found[0], torch.tensor([[20 / 256, 10 / 128, 200 / 256, 100 / 128]]))


# Localisation distillation -----------------------------------------------------------------------------------

LEVELS = [(8, 12), (4, 6)]
SAID = [((20, *size), (20, *size)) for size in LEVELS] + [((3, *size), (2, *size)) for size in LEVELS]


def ld_by_loops(method: Any, student: View, teacher: View, batch: dict[str, Any]) -> Tensor:
    """Position by position and edge by edge; a picture of 64 x 96."""
    t, total = method.temperature, torch.zeros((), dtype=torch.float64)
    for n, boxes in enumerate(batch["boxes"]):
        found = assign(boxes * torch.tensor([96, 64, 96, 64]), grid_of(LEVELS, boxes), share=method.share)
        place = 0
        for level, (h, w) in enumerate(LEVELS):
            for y in range(h):
                for x in range(w):
                    mine = student.features[level][n, :, y, x].view(4, 5) / t
                    theirs = teacher.features[level][n, :, y, x].view(4, 5) / t
                    p, q = theirs.exp(), mine.exp()
                    p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
                    apart = t**2 * (p * (p / q).log()).mean()
                    sure = student.features[2 + level][n, :, y, x].detach().max().sigmoid()
                    if found.objects[place] >= 0:
                        total = total + method.main * sure * apart
                    total = total + method.valuable * float(found.near[place]) / 4 * apart
                    place += 1
    return total * 2 / len(batch["boxes"])


def test_ld_is_its_formula() -> None:
    method, given = build(LocalisationDistillation, SAID, OBJECTS, main=0.7, valuable=0.4, temperature=2.0)
    student, teacher = views(given, 2)
    boxes = [torch.tensor([[0.1, 0.1, 0.6, 0.8], [0.4, 0.3, 0.95, 0.9]]), torch.zeros(0, 4)]
    found = [assign(each * torch.tensor([96, 64, 96, 64]), grid_of(LEVELS, each)) for each in boxes]
    assert (found[0].objects >= 0).any() and (found[0].near > 0).any()
    assert_equals(method, ld_by_loops, student, teacher, {"boxes": boxes})
    empty = method(student, teacher, {"boxes": [boxes[1], boxes[1]]})
    assert [term.item() for term in empty.values()] == [0, 0]


def test_ld_refuses_distributions_of_other_bins_and_detectors_without() -> None:
    with pytest.raises(ConfigError, match=r"the same network\.bins"):
        build(LocalisationDistillation, [((20, 8, 12), (24, 8, 12)), SAID[2]], OBJECTS)
    for options in ({"main": 0.0, "valuable": 0.0}, {"main": -1.0}, {"share": 1.0}):
        with pytest.raises(ConfigError, match=r"distill\.ld\.method"):
            build(LocalisationDistillation, SAID, OBJECTS, **options)
    network = Detector(backbone=ResNetPyramid(channels=8), classes=3)
    with pytest.raises(ConfigError, match=r"where its 'distributions' taps are .*network\.detector=gfl"):
        role(network, "distributions")
