"""DDRNet: keys, counts, the answers of the same network written from the tables, and each trap on the way there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.convert.release import build_empty
from dvsn.errors import ConfigError
from dvsn.networks.ddrnet import DDRNet, DDRNetClassifier
from dvsn.types import SegmentationOutput
from tests.support.dual_resolution_reference import (
    DDRNETS,
    DIGESTS,
    PlainDdrNet,
    digest,
    far,
    filled,
    multiply_adds,
    picture,
    shapes_of,
)

COUNTS = {  # parameters and entries in evaluation form, then in training form, and 10^9 multiply-adds by size
    "23_slim": (
        5_695_987,
        333,
        5_734_342,
        346,
        {(1024, 2048): 36.281, (720, 960): 12.014, (360, 480): 3.037},
    ),
    "23": (20_148_947, 333, 20_299_366, 346, {(1024, 2048): 143.061, (720, 960): 47.352, (360, 480): 11.967}),
    "39": (32_360_275, 501, 32_660_838, 514, {(1024, 2048): 281.116, (720, 960): 92.925, (360, 480): 23.471}),
    "23_adb_bag": (21_989_075, 415, 22_213_671, 441, {(1024, 2048): 177.82}),
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "23_slim": {"width": 32, "feature_width": 1024},
    "23": {},
    "39": {"blocks": [3, 4, 6, 3], "split": True},
}
CLASSIFIER_COUNTS = {
    "23_slim": (7.575, 0.973),
    "23": (28.217, 3.868),
    "39": (40.130, 6.938),
}  # millions, 10^9
TRAPS = {  # and the answers that each one changes: main, auxiliary, boundary
    "align_corners": (0, 1, 2),
    "padding left out of averages": (0,),
    "rectified taps": (1, 2),
    "compression after the addition": (0, 1),
    "relu after the last block": (0, 1, 2),
}


def empty(name: str, **options: Any) -> nn.Module:
    return build_empty(DDRNet, {"classes": 19} | DDRNETS[name] | options)


def responses(output: SegmentationOutput) -> list[Tensor]:
    boundary = [] if output.boundary is None else [output.boundary]
    return [output.logits, *output.auxiliary, *boundary]


@pytest.mark.parametrize("name", DDRNETS)
def test_keys_and_counts_are_the_published_ones(name: str) -> None:
    training, evaluation = empty(name), empty(name, heads=False)
    assert digest(shapes_of(training)) == DIGESTS[f"ddrnet_{name}"]
    found = [
        (sum(p.numel() for p in form.parameters()), len(form.state_dict())) for form in (evaluation, training)
    ]
    assert found[0] + found[1] == COUNTS[name][:4]
    for size, count in COUNTS[name][4].items():
        tolerance = 5e6 if name == "23_adb_bag" else 5e5  # stated to two digits
        assert multiply_adds(evaluation, *size) == pytest.approx(1e9 * count, abs=tolerance)


@pytest.mark.parametrize("name", DDRNETS)
def test_answers_are_those_of_the_definition(name: str) -> None:
    network, image = filled(empty(name)), picture(128, 192)
    with torch.inference_mode():
        expected = PlainDdrNet(network.state_dict())(image)
        found = responses(network(image, heads=True))
        bare = empty(name, heads=False)
        state = {key: value for key, value in network.state_dict().items() if not key.startswith("seghead_")}
        bare.load_state_dict(state, assign=True)
        evaluation = bare.eval()(image)
    assert len(found) == (3 if name == "23_adb_bag" else 2)
    for answer, value in zip(found, expected, strict=True):
        assert far(answer, value) < 1e-5
    assert far(evaluation.logits, expected[0]) < 1e-5 and len(responses(evaluation)) == 1


@pytest.fixture(scope="module")
def bounded() -> nn.Module:
    """The slim widths with the boundary branch: every path there is."""
    return filled(empty("23_slim", derivative=True))


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_is_noticed(trap: str, bounded: nn.Module) -> None:
    image = picture(128, 192)
    with torch.inference_mode():
        found = responses(bounded(image, heads=True))
        wrong = PlainDdrNet(bounded.state_dict(), trap)(image)
    changed = [index for index in range(3) if far(found[index], wrong[index]) > 1e-3]
    assert tuple(changed) == TRAPS[trap]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_imagenet_form(name: str) -> None:
    network = build_empty(DDRNetClassifier, {"classes": 1000} | CLASSIFIERS[name])
    assert digest(shapes_of(network)) == DIGESTS[f"ddrnet_{name}_classifier"]
    parameters, counted = CLASSIFIER_COUNTS[name]
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1e6 * parameters, abs=500)
    assert multiply_adds(network, 224, 224) == pytest.approx(1e9 * counted, abs=5e5)
    network, image = filled(network), picture(64, 96)
    with torch.inference_mode():
        found = network(image)
        assert far(found, PlainDdrNet(network.state_dict()).classify(image)) < 1e-5
        assert far(found, PlainDdrNet(network.state_dict(), "raw bottleneck").classify(image)) > 1e-3


@pytest.mark.parametrize("size", [(100, 200), (8, 8), (1, 1), (37, 65)])
def test_any_size_runs(size: tuple[int, int], bounded: nn.Module) -> None:
    height, width = (-(-side // 8) for side in size)
    with torch.inference_mode():
        found = responses(bounded(picture(*size), heads=True))
    assert [answer.shape for answer in found] == [(1, 19, height, width)] * 2 + [(1, 1, height, width)]
    assert all(answer.isfinite().all() for answer in found)


@pytest.mark.parametrize("options", [{}, {"split": True, "blocks": [1, 1, 2, 1]}, {"derivative": True}])
def test_every_weight_learns_and_taps_can_be_read(options: dict[str, Any]) -> None:
    network = DDRNet(classes=3, width=8, pyramid_width=8, head_width=8, **options).train()
    seen: dict[str, Tensor] = {}
    for tap in network.taps:
        network.get_submodule(tap).register_forward_hook(
            lambda _, __, output, tap=tap: seen.update({tap: output, f"{tap} then": output.detach().clone()})
        )
    torch.stack(
        [answer.pow(2).mean() for answer in responses(network(picture(64, 64, count=2)))]
    ).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for tap in network.taps:  # what a tap holds is not written over later
        torch.testing.assert_close(seen[tap].detach(), seen[f"{tap} then"], rtol=0, atol=0)
    for path in network.classifier:
        assert network.get_submodule(path).get_parameter("weight").shape[0] == 3


def test_heads_follow_the_mode_unless_asked(bounded: nn.Module) -> None:
    image = picture(32, 32)
    with torch.inference_mode():
        assert len(responses(bounded(image))) == 1
        assert len(responses(bounded(image, heads=True))) == 3
        bare = DDRNet(classes=3, width=4, pyramid_width=4, head_width=4, heads=False).train()
        assert len(responses(bare(picture(32, 32, count=2), heads=True))) == 1


def test_one_picture_cannot_train() -> None:
    network = DDRNet(classes=3, width=4, pyramid_width=4, head_width=4).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(picture(64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [2, 2, 2]}, "four counts"),
        ({"blocks": [2, 2, 0, 2]}, "four counts"),
        ({"blocks": [2, 2, 3, 2], "split": True}, r"blocks\[2\] must be even"),
        ({"head_width": 0}, "head_width must be at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_empty(DDRNet, {"classes": 19} | options)
