"""mmdetection's detectors on HRNetV2p: keys as its modules name them, and the answer of a forward written from its rules.

The keys and shapes are those of its public code and configs; no published file was at hand.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, nms, roi_align

from dvsn.config.build import build
from dvsn.convert.command import detector_data
from dvsn.convert.rules import convert
from dvsn.errors import CheckpointError
from tests.support.reference_hrnet import VARIANTS, Reference, Shapes, conv, fill, trunk_keys

State = dict[str, Tensor]
CLASSES = 4  # without the background
PROPOSALS, DETECTIONS = 40, 40
SMALL = {**VARIANTS["w18_small_v1"], "width": 4}


def layer(key: str, outputs: int, inputs: int) -> Shapes:
    return {f"{key}.weight": [outputs, inputs], f"{key}.bias": [outputs]}


def box_keys(head: str, boxes: int) -> Shapes:
    shapes = layer(f"{head}.shared_fcs.0", 1024, 256 * 49) | layer(f"{head}.shared_fcs.1", 1024, 1024)
    return shapes | layer(f"{head}.fc_cls", CLASSES + 1, 1024) | layer(f"{head}.fc_reg", boxes, 1024)


def mask_keys(head: str, *, reads: bool = False) -> Shapes:
    shapes = conv(f"{head}.conv_res.conv", 256, 256, 1, bias=True) if reads else {}
    for number in range(4):
        shapes |= conv(f"{head}.convs.{number}.conv", 256, 256, 3, bias=True)
    shapes |= conv(f"{head}.upsample", 256, 256, 2, bias=True)
    return shapes | conv(f"{head}.conv_logits", CLASSES, 256, 1, bias=True)


def semantic_keys(classes: int) -> Shapes:
    head = "roi_head.semantic_head"
    shapes: Shapes = {}
    for number in range(5):
        shapes |= conv(f"{head}.lateral_convs.{number}.conv", 256, 256, 1, bias=True)
    for number in range(4):
        shapes |= conv(f"{head}.convs.{number}.conv", 256, 256, 3, bias=True)
    shapes |= conv(f"{head}.conv_embedding.conv", 256, 256, 1, bias=True)
    return shapes | conv(f"{head}.conv_logits", classes, 256, 1, bias=True)


def published(kind: str, *, seed: int = 0) -> State:
    """A made-up file of mmdetection 2 or 3."""
    shapes = {f"backbone.{key}": shape for key, shape in trunk_keys(**SMALL).items()}
    shapes |= conv("neck.reduction_conv.conv", 256, 15 * SMALL["width"], 1, bias=True)
    for number in range(5):
        shapes |= conv(f"neck.fpn_convs.{number}.conv", 256, 256, 3, bias=True)
    shapes |= conv("rpn_head.rpn_conv", 256, 256, 3, bias=True) | conv(
        "rpn_head.rpn_cls", 3, 256, 1, bias=True
    )
    shapes |= conv("rpn_head.rpn_reg", 12, 256, 1, bias=True)
    if "cascade" not in kind and kind != "htc":
        shapes |= box_keys("roi_head.bbox_head", 4 * CLASSES)
        shapes |= mask_keys("roi_head.mask_head") if kind == "mask_rcnn" else {}
    else:
        for stage in range(3):
            shapes |= box_keys(f"roi_head.bbox_head.{stage}", 4)
            if kind != "cascade_rcnn":
                shapes |= mask_keys(f"roi_head.mask_head.{stage}", reads=kind == "htc" and stage > 0)
        shapes |= semantic_keys(6) if kind == "htc" else {}
    state = fill(shapes, seed=seed)
    for key, value in state.items():  # boxes move a little, and every class is seen
        if "fc_reg" in key or "rpn_reg" in key:
            state[key] = value * 0.3
        if key.endswith("fc_cls.weight"):
            state[key] = value * 0.1
        if key.endswith("fc_cls.bias"):
            state[key] = torch.linspace(0, 0.02, CLASSES + 1)
    return state


# A forward by mmdetection's rules ------------------------------------------------------------------------


class MMDetection:
    """Reads a raw state dict by key: one picture, normalised and padded, of `size` (H, W)."""

    def __init__(self, state: State, size: tuple[int, int]) -> None:
        self.state, self.size = state, size
        trunk = {
            key.removeprefix("backbone."): value
            for key, value in state.items()
            if key.startswith("backbone.")
        }
        self.trunk = Reference(trunk, mode="nearest")

    def conv(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(x, weight, self.state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def linear(self, x: Tensor, key: str) -> Tensor:
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]

    def levels(self, picture: Tensor) -> list[Tensor]:
        streams = self.trunk.streams(picture)
        size = streams[0].shape[-2:]
        joined = [
            F.interpolate(x, size=size, mode="bilinear", align_corners=False) if n else x
            for n, x in enumerate(streams)
        ]
        x = self.conv(torch.cat(joined, dim=1), "neck.reduction_conv.conv")
        return [self.conv(F.avg_pool2d(x, 2**n), f"neck.fpn_convs.{n}.conv") for n in range(5)]

    def moved(self, boxes: Tensor, codes: Tensor, deviations: tuple[float, ...]) -> Tensor:
        codes = codes * torch.tensor(deviations)
        sides = boxes[:, 2:] - boxes[:, :2]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 + codes[:, :2] * sides
        half = sides * codes[:, 2:].clamp(max=4.135166556742356).exp() / 2
        found = torch.cat([middle - half, middle + half], dim=1)
        height, width = self.size
        return torch.stack([found[:, n].clamp(0, (width, height)[n % 2]) for n in range(4)], dim=1)

    def proposals(self, levels: list[Tensor]) -> Tensor:
        boxes, scores, owners = [], [], []
        for n, level in enumerate(levels):
            x = self.conv(level, "rpn_head.rpn_conv").relu()
            share = self.conv(x, "rpn_head.rpn_cls")[0].permute(1, 2, 0).reshape(-1).sigmoid()
            codes = self.conv(x, "rpn_head.rpn_reg")[0].permute(1, 2, 0).reshape(-1, 4)
            stride = 4 * 2**n
            anchors = []
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    for ratio in (0.5, 1.0, 2.0):
                        w, h = 8 * stride / ratio**0.5 / 2, 8 * stride * ratio**0.5 / 2
                        x0, y0 = column * stride, row * stride
                        anchors.append([x0 - w, y0 - h, x0 + w, y0 + h])
            best, place = share.topk(min(1000, len(share)))
            boxes.append(self.moved(torch.tensor(anchors)[place], codes[place], (1, 1, 1, 1)))
            scores.append(best)
            owners.append(torch.full_like(place, n))
        box, score = torch.cat(boxes), torch.cat(scores)
        kept = ((box[:, 2:] - box[:, :2]) >= 1e-3).all(dim=1)
        box, score, owner = box[kept], score[kept], torch.cat(owners)[kept]
        return box[batched_nms(box, score, owner, 0.7)[:PROPOSALS]]

    def squares(self, levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
        found = torch.zeros(len(boxes), 256, side, side)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        which = (area / 56 + 1e-6).log2().floor().clamp(0, 3)
        for n in range(4):
            inside = which == n
            found[inside] = roi_align(levels[n], [boxes[inside]], side, 0.25 / 2**n, 0, True)
        return found

    def heads(self, squares: Tensor, head: str) -> tuple[Tensor, Tensor]:
        """Shares of classes, the background last, and codes."""
        x = self.linear(squares.flatten(1), f"{head}.shared_fcs.0").relu()
        x = self.linear(x, f"{head}.shared_fcs.1").relu()
        return self.linear(x, f"{head}.fc_cls").softmax(dim=1), self.linear(x, f"{head}.fc_reg")

    def told(self, levels: list[Tensor]) -> Tensor:
        """What the semantic branch tells the heads."""
        head, size = "roi_head.semantic_head", levels[1].shape[-2:]
        total = torch.zeros(())
        for n, level in enumerate(levels):
            level = level if n == 1 else F.interpolate(level, size=size, mode="bilinear", align_corners=True)
            total = total + self.conv(level, f"{head}.lateral_convs.{n}.conv").relu()
        for n in range(4):
            total = self.conv(total, f"{head}.convs.{n}.conv").relu()
        return self.conv(total, f"{head}.conv_embedding.conv").relu()

    def detect(self, picture: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Boxes, labels from 0, scores, and masks (n, 28, 28) of their classes."""
        levels = self.levels(picture)
        boxes = self.proposals(levels)
        around = self.told(levels) if kind == "htc" else None
        head, shares = "roi_head.bbox_head", []

        def pooled(boxes: Tensor, side: int) -> Tensor:
            found = self.squares(levels, boxes, side)
            if around is None:
                return found
            return found + F.adaptive_avg_pool2d(roi_align(around, [boxes], 14, 1 / 8, 0, True), side)

        if "cascade" in kind or kind == "htc":
            for stage, d in enumerate((0.1, 0.05, 0.033)):  # as mmdetection has them: 0.1, 0.05, 0.033
                share, codes = self.heads(pooled(boxes, 7), f"{head}.{stage}")
                shares.append(share)
                boxes = self.moved(boxes, codes, (d, d, 2 * d, 2 * d))
            share = torch.stack(shares).mean(dim=0)
            each = boxes[:, None].expand(-1, CLASSES, 4)
        else:
            share, codes = self.heads(pooled(boxes, 7), head)
            moved = [
                self.moved(boxes, codes[:, 4 * k : 4 * k + 4], (0.1, 0.1, 0.2, 0.2)) for k in range(CLASSES)
            ]
            each = torch.stack(moved, dim=1)
        found = []
        for k in range(CLASSES):
            sure = share[:, k] > 0.05
            kept = nms(each[sure, k], share[sure, k], 0.5)
            rows = (
                torch.full_like(kept, k)[:, None].float(),
                share[sure, k][kept][:, None],
                each[sure, k][kept],
            )
            found.append(torch.cat(rows, dim=1))
        best = torch.cat(found)
        best = best[best[:, 1].argsort(descending=True)][:DETECTIONS]
        boxes, labels = best[:, 2:], best[:, 0].long()
        masks = self.masks(pooled(boxes, 14), labels, kind) if kind in MASKED else None
        return boxes, labels, best[:, 1], masks

    def masks(self, squares: Tensor, labels: Tensor, kind: str) -> Tensor:
        heads = (
            [f"roi_head.mask_head.{n}" for n in range(3)] if kind != "mask_rcnn" else ["roi_head.mask_head"]
        )
        shares, last = [], None
        for head in heads:
            x = squares
            if kind == "htc" and last is not None:
                x = x + self.conv(last, f"{head}.conv_res.conv").relu()
            for n in range(4):
                x = self.conv(x, f"{head}.convs.{n}.conv").relu()
            last = x
            up = F.conv_transpose2d(
                x, self.state[f"{head}.upsample.weight"], self.state[f"{head}.upsample.bias"], stride=2
            )
            logits = self.conv(up.relu(), f"{head}.conv_logits")
            shares.append(logits[torch.arange(len(labels)), labels].sigmoid())
        return torch.stack(shares).mean(dim=0)


SIZES = {"min_size": 64, "max_size": 128, "proposals": PROPOSALS, "detections": DETECTIONS}
KINDS = ("faster_rcnn", "mask_rcnn", "cascade_rcnn", "cascade_mask_rcnn", "htc")
MASKED = ("mask_rcnn", "cascade_mask_rcnn", "htc")


def answer(converted: Any, picture: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """What the converted network finds in a picture (3, 64, 128), and its masks before they are laid onto it."""
    network: Any = build(converted.network | SIZES, path="network")
    network.load_state_dict(converted.state, strict=True)
    network.eval()
    seen: dict[str, Tensor] = {}

    def keep(_: Any, given: Any, found: Any) -> None:
        seen["masks"] = (
            torch.cat([each["masks"] for each in found[0]]) if "masks" in found[0][0] else torch.zeros(0)
        )

    network.model.roi_heads.register_forward_hook(keep)
    with torch.no_grad():
        return network([picture])[0], seen


@pytest.mark.parametrize(
    "kind",
    [
        each if each in ("faster_rcnn", "htc") else pytest.param(each, marks=pytest.mark.slow)
        for each in KINDS
    ],
)
def test_a_file_answers_as_by_mmdetections_rules(kind: str) -> None:
    state = published(kind)
    converted = convert(state)
    assert (converted.kind, converted.network["detector"]) == ("detector", kind)
    assert converted.network["classes"] == CLASSES + 1 and not converted.dropped and not converted.notes
    picture = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        boxes, labels, scores, masks = MMDetection(state, (64, 128)).detect(
            ((picture - mean) / std)[None], kind
        )
    found, seen = answer(converted, picture)
    assert len(scores) > 12 and len(set(labels.tolist())) > 1
    torch.testing.assert_close(found["scores"], scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["boxes"], boxes, atol=0.02, rtol=0)
    assert (found["labels"] - 1).tolist() == labels.tolist()
    if masks is not None:
        torch.testing.assert_close(seen["masks"][:, 0], masks, atol=1e-3, rtol=0)


def first_version(state: State) -> State:
    """As the authors' files have it: the background first, with a box and a mask, and other names."""
    made = {}
    for key, value in state.items():
        key = key.removeprefix("roi_head.").replace("neck.fpn_convs.", "neck.fpn_conv.")
        key = key.replace(".conv.", ".") if key.startswith("neck.fpn_conv.") else key
        key = key.replace("neck.reduction_conv.conv.", "neck.reduction_conv.0.")
        if "fc_cls" in key:
            value = torch.cat([value[-1:], value[:-1]])
        if "fc_reg" in key or "conv_logits" in key:
            value = torch.cat([torch.ones_like(value[: len(value) // CLASSES]), value])
        made[key] = value
    return made


def test_a_file_of_the_first_version_has_the_background_first() -> None:
    state = published("faster_rcnn")
    now, then = convert(state), convert(first_version(state))
    assert then.network == now.network and "mmdetection 1" in then.notes[0]
    picture = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(1))
    found, expected = answer(then, picture)[0], answer(now, picture)[0]
    for key in ("boxes", "labels", "scores"):
        torch.testing.assert_close(found[key], expected[key])


def test_every_key_is_used_or_refused() -> None:
    state = published("htc")
    extra = {"roi_head.mask_head.0.conv_res.conv.weight": torch.zeros(256, 256, 1, 1)}
    assert list(convert(state | extra).dropped) == list(extra)
    with pytest.raises(CheckpointError, match=r"1 unknown: roi_head\.mask_head\.1\.extra"):
        convert(state | {"roi_head.mask_head.1.extra": torch.zeros(1)})
    del state["rpn_head.rpn_reg.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: rpn_head\.rpn_reg\.bias"):
        convert(state)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("bbox_head.conv_centerness.weight", "FCOS of mmdetection has a scale"),
        ("bbox_head.heatmap_head.0.weight", "CenterNet stands on transposed convolutions"),
        ("neck.lateral_convs.0.conv.weight", "its neck is a feature pyramid"),
    ],
)
def test_detectors_without_a_counterpart_are_refused_by_name(key: str, words: str) -> None:
    state = {"backbone.conv1.weight": torch.zeros(1), "neck.x": torch.zeros(1), key: torch.zeros(1)}
    with pytest.raises(CheckpointError, match=words):
        convert(state)


def test_eighty_classes_are_those_of_coco() -> None:
    def of(classes: int) -> Any:
        return SimpleNamespace(network=SimpleNamespace(classes=classes))

    objects = detector_data(of(81))["objects"]
    assert [objects["names"][label] for label in (1, 12, 80)] == ["person", "stop sign", "toothbrush"]
    assert [objects["ids"][label] for label in (1, 11, 12, 80)] == [1, 11, 13, 90] and objects[
        "classes"
    ] == 81
    assert detector_data(of(5)) == {}
