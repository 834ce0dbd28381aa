"""HRNetV2's published files: each layout converts strictly and answers as the tables say, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.convert.release import build_empty
from dvsn.convert.rules import convert
from dvsn.convert.segmentation import partial_weights
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.hrnetv2 import HRNetV2
from dvsn.networks.hrnetv2_ocr import HRNetV2OCR
from tests.support.networks import distance, rebuilt
from tests.support.reference_hrnet import (
    VARIANTS,
    Reference,
    classifier_keys,
    conv,
    fill,
    norm,
    ocr_keys,
    segmenter_keys,
    trunk_keys,
)

State = dict[str, Tensor]
SMALL = VARIANTS["w18_small_v1"]
OCR: dict[str, Any] = {"variant": "w18_small_v1", "classes": 5, "channels": 24, "keys": 12}


def as_saved_with_its_loss(state: State) -> State:
    """The form of the published segmenters."""
    saved = {f"model.{key}": value for key, value in state.items()}
    return saved | {"loss.criterion.weight": torch.ones(19)}


def picture() -> Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("classes", "align_corners"), [(19, False), (59, False), (171, True), (150, True)])
@pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2"])
def test_a_segmenter_saved_with_its_loss(variant: str, classes: int, align_corners: bool) -> None:
    state = fill(segmenter_keys(variant, classes))
    converted = convert(as_saved_with_its_loss(state))
    assert (converted.kind, converted.layout) == ("segmenter", "hrnetv2")
    assert list(converted.dropped) == ["loss.criterion.weight"]
    assert converted.network["align_corners"] is align_corners
    (note,) = converted.notes
    assert f"align_corners: {str(align_corners).lower()} is assumed" in note
    with torch.no_grad():
        found = rebuilt(converted)(picture()).logits
        assert distance(found, Reference(state, align_corners).segment(picture())) < 1e-5


def test_align_corners_is_the_users_choice() -> None:
    state = fill(segmenter_keys("w18_small_v1", 19))
    converted = convert(state, options={"align_corners": True, "bn_momentum": 0.01})
    assert converted.notes == ()
    network = rebuilt(converted)
    with torch.no_grad():
        assert distance(network(picture()).logits, Reference(state, True).segment(picture())) < 1e-5
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}


@pytest.mark.parametrize("variant", ["w18", "w48"])
def test_large_segmenters_are_recognised(variant: str) -> None:
    converted = convert(as_saved_with_its_loss(zeros(segmenter_keys(variant))))
    expected = {name: list(v) if isinstance(v, tuple) else v for name, v in VARIANTS[variant].items()}
    assert expected.items() <= converted.network.items()


def test_w48_with_ocr_is_recognised() -> None:
    converted = convert(as_saved_with_its_loss(zeros(ocr_keys())))
    assert converted.network == {
        "_target_": "dvsn.networks.hrnetv2_ocr.HRNetV2OCR",
        "classes": 19,
        "width": 48,
        "bottlenecks": 4,
        "bottleneck_width": 64,
        "modules": [1, 4, 3],
        "blocks": 4,
        "enlarge": "bilinear",
        "align_corners": True,
        "channels": 512,
        "key_channels": 256,
        "dropout": 0.05,
        "bn_momentum": 0.1,
    }
    assert len(converted.state) == 1890


def zeros(shapes: dict[str, list[int]]) -> State:
    """A file of that form without its bytes."""
    return {
        k: torch.zeros((), dtype=torch.long if k.endswith("tracked") else torch.float32).expand(v)
        if v
        else torch.tensor(1)
        for k, v in shapes.items()
    }


def test_a_segmenter_with_ocr() -> None:
    state = fill(ocr_keys(**OCR))
    converted = convert(as_saved_with_its_loss(state))
    assert (converted.kind, converted.layout) == ("segmenter", "hrnetv2/ocr")
    assert "align_corners: true is assumed" in converted.notes[0]
    with torch.no_grad():
        output = rebuilt(converted)(picture(), heads=True)
        main, auxiliary = Reference(state, align_corners=True).ocr(picture())
    assert distance(output.logits, main) < 1e-5
    assert distance(output.auxiliary[0], auxiliary) < 1e-5


def test_an_imagenet_file_is_a_classifier_and_starts_a_segmenter() -> None:
    state = fill(classifier_keys("w18_small_v1", classes=10))
    converted = convert(state)
    assert (converted.kind, converted.layout, converted.dropped) == ("classifier", "hrnetv2/imagenet", {})
    with torch.no_grad():
        found = rebuilt(converted)(picture())
        assert distance(found, Reference(state, mode="nearest").classify(picture())) < 1e-5
    segmenter = HRNetV2(classes=19, **SMALL)
    shared = partial_weights(converted.state, segmenter).state
    assert set(shared) == set(trunk_keys(**SMALL))
    segmenter.load_state_dict(segmenter.state_dict() | shared, strict=True)


def test_an_imagenet_file_of_an_old_framework_has_no_counters() -> None:
    state = {
        k: v for k, v in fill(classifier_keys("w18_small_v1")).items() if not k.endswith("batches_tracked")
    }
    assert convert({f"module.{key}": value for key, value in state.items()}).kind == "classifier"


def test_ocr_adopts_a_plain_segmenter() -> None:
    plain = convert(as_saved_with_its_loss(fill(segmenter_keys("w18_small_v1", 5)))).state
    network = build_empty(HRNetV2OCR, {"classes": 5, **SMALL})
    taken = partial_weights(HRNetV2OCR.adopt(plain), network)
    assert (len(taken.state), taken.unused, taken.misfits) == (len(plain), (), ())
    assert torch.equal(taken.state["aux_head.3.bias"], plain["last_layer.3.bias"])
    fresh = {key.partition(".")[0] for key in taken.missing}
    assert fresh == {"conv3x3_ocr", "ocr_distri_head", "cls_head"}


def test_a_missing_and_an_unknown_key_are_refused() -> None:
    state = fill(segmenter_keys("w18_small_v1"))
    lacking = {k: v for k, v in state.items() if k != "stage3.0.fuse_layers.2.0.1.0.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing: stage3\.0\.fuse_layers\.2\.0\.1\.0\.weight"):
        convert(lacking)
    with pytest.raises(CheckpointError, match=r"1 unknown: stage4\.0\.gate"):
        convert(state | {"stage4.0.gate": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="another shape"):
        convert(state | {"last_layer.0.weight": torch.zeros(15, 15, 1, 1)})


def test_pose_and_faces_are_not_taken_for_segmenters() -> None:
    pose = trunk_keys(**SMALL, single=True) | conv("final_layer", 17, 16, 1, bias=True)
    assert convert(fill(pose)).kind == "pose"
    faces = trunk_keys(**SMALL) | conv("head.0", 240, 240, 1, bias=True) | norm("head.1", 240)
    with pytest.raises(CheckpointError, match="No known release"):
        convert(fill(faces))


@pytest.mark.parametrize("options", [{"align_corner": True}, {"dropout": 0.1}, {"align_corners": "yes"}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="options"):
        convert(fill(segmenter_keys("w18_small_v1")), options=options)
