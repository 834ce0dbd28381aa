"""PIDNet: keys, counts, the answers of the same network written from the tables, and each trap on the way there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dvsn.convert.release import build_empty
from dvsn.errors import ConfigError, UserError
from dvsn.networks.pidnet import PIDNet, PIDNetClassifier
from tests.support.dual_resolution_reference import (
    DIGESTS,
    PIDNETS,
    PlainPidNet,
    digest,
    far,
    filled,
    multiply_adds,
    picture,
    shapes_of,
    weights,
)

COUNTS = {  # parameters and state-dict entries in evaluation form, then in training form
    "s": (7_625_715, 453, 7_720_935, 479),
    "m": (28_538_515, 453, 28_763_111, 479),
    "l": (36_939_571, 519, 37_314_311, 545),
}
MULTIPLY_ADDS = {  # 10^9, evaluation then training form
    ("s", 1024, 2048): (47.194, 50.295), ("s", 720, 960): (15.633, 16.655), ("s", 360, 480): (3.954, 4.210),
    ("m", 1024, 2048): (177.329, 184.658), ("l", 1024, 2048): (274.933, 287.175), ("l", 640, 640): (53.699, 56.089),
}  # fmt: skip
TRAPS = {  # and the answers that each one changes: main, auxiliary, boundary
    "align_corners": (0, 1, 2),
    "padding left out of averages": (0,),
    "raw taps": (1, 2),
    "relu between bottlenecks": (0,),
    "relu after the last block": (0, 1, 2),
    "pag the other way": (0, 1),
    "light bag swapped": (0,),
    "eps": (0, 1, 2),
}


def empty(name: str, **options: Any) -> nn.Module:
    return build_empty(PIDNet, {"classes": 19} | PIDNETS[name] | options)


@pytest.fixture(scope="module")
def small() -> PIDNet:
    return filled(empty("s"))


@pytest.mark.parametrize("name", PIDNETS)
def test_keys_and_counts_are_the_published_ones(name: str) -> None:
    training, evaluation = empty(name), empty(name, heads=False)
    assert digest(shapes_of(training)) == DIGESTS[f"pidnet_{name}"]
    found = [
        (sum(p.numel() for p in form.parameters()), len(form.state_dict())) for form in (evaluation, training)
    ]
    assert found[0] + found[1] == COUNTS[name]
    extra = set(training.state_dict()) - set(evaluation.state_dict())
    assert len(extra) == 26 and all(key.startswith("seghead_") for key in extra)


def test_the_papers_middle_size_is_one_option_away() -> None:
    paper = empty("m", deep_blocks=4, heads=False)
    assert sum(p.numel() for p in paper.parameters()) == 34_439_827
    assert multiply_adds(paper, 1024, 2048) == pytest.approx(196.656e9, abs=5e5)


@pytest.mark.parametrize(("name", "height", "width"), MULTIPLY_ADDS)
def test_multiply_adds(name: str, height: int, width: int) -> None:
    network = empty(name)
    found = [multiply_adds(network, height, width, heads=heads) for heads in (False, True)]
    assert found == pytest.approx([1e9 * count for count in MULTIPLY_ADDS[name, height, width]], abs=5e5)


@pytest.mark.parametrize("name", PIDNETS)
def test_answers_are_those_of_the_definition(name: str) -> None:
    """In float64, where the order of the sums of a processor's convolutions does not show."""
    network, image = filled(empty(name)).double(), picture(128, 192).double()
    with torch.inference_mode():
        expected = PlainPidNet(network.state_dict())(image)
        output = network(image, heads=True)
        bare = filled(empty(name, heads=False)).double()
        bare.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("seghead_")})
        evaluation = bare(image)
    assert output.boundary is not None and len(output.auxiliary) == 1
    for found, value in zip((output.logits, *output.auxiliary, output.boundary), expected, strict=True):
        assert far(found, value) < 1e-10
    assert far(evaluation.logits, expected[0]) < 1e-10
    assert evaluation.auxiliary == () and evaluation.boundary is None


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_is_noticed(trap: str, small: PIDNet) -> None:
    image = picture(128, 192)
    with torch.inference_mode():
        output = small(image, heads=True)
        wrong = PlainPidNet(small.state_dict(), trap)(image)
    found = (output.logits, *output.auxiliary, output.boundary)
    changed = [index for index in range(3) if far(found[index], wrong[index]) > 1e-3]
    assert tuple(changed) == TRAPS[trap]


def test_the_bag_is_pre_activated() -> None:
    network, image = filled(empty("l")), picture(64, 64)
    with torch.inference_mode():
        wrong = PlainPidNet(network.state_dict(), "bag after its convolution")(image)
        assert far(network(image).logits, wrong[0]) > 1e-3


def test_raw_taps_are_an_option() -> None:
    network, image = filled(empty("s", rectified_taps=False)), picture(64, 128)
    with torch.inference_mode():
        output = network(image, heads=True)
        expected = PlainPidNet(network.state_dict(), "raw taps")(image)
    for found, value in zip((output.logits, *output.auxiliary, output.boundary), expected, strict=True):
        assert found is not None and far(found, value) < 1e-5


def test_heads_follow_the_mode_unless_asked(small: PIDNet) -> None:
    image = picture(32, 32, count=2)
    with torch.no_grad():
        assert small(image).boundary is None
        assert small(image, heads=True).boundary is not None
        network = PIDNet(classes=3, width=4, pyramid_width=4, head_width=4).train()
        assert network(image).boundary is not None and len(network(image).auxiliary) == 1
        assert network(image, heads=False).auxiliary == ()
        bare = PIDNet(classes=3, width=4, pyramid_width=4, head_width=4, heads=False).train()
        assert bare(image).auxiliary == () and bare(image).boundary is None


@pytest.mark.parametrize("size", [(100, 200), (132, 260), (8, 8), (1, 1), (37, 65)])
def test_any_size_runs(size: tuple[int, int], small: PIDNet) -> None:
    height, width = (-(-side // 8) for side in size)
    with torch.inference_mode():
        output = small(picture(*size), heads=True)
    assert output.logits.shape == output.auxiliary[0].shape == (1, 19, height, width)
    assert output.boundary is not None and output.boundary.shape == (1, 1, height, width)
    assert output.logits.isfinite().all()


def test_every_weight_learns_and_taps_can_be_read() -> None:
    network = PIDNet(classes=3, width=8, pyramid_width=8, head_width=8).train()
    seen: dict[str, torch.Tensor] = {}
    for tap in network.taps:
        network.get_submodule(tap).register_forward_hook(
            lambda _, __, output, tap=tap: seen.update({tap: output, f"{tap} then": output.detach().clone()})
        )
    output = network(picture(64, 64, count=2))
    torch.stack(
        [x.pow(2).mean() for x in (output.logits, *output.auxiliary, output.boundary)]
    ).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    heights = [seen[tap].shape[-2] for tap in network.taps]
    assert heights == sorted(heights, reverse=True)
    for tap in network.taps:  # what a tap holds is not written over later
        torch.testing.assert_close(seen[tap].detach(), seen[f"{tap} then"], rtol=0, atol=0)
    for path in network.classifier:
        assert network.get_submodule(path).get_parameter("weight").shape[0] == 3


def test_one_picture_cannot_train() -> None:
    network = PIDNet(classes=3, width=4, pyramid_width=4, head_width=4).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(picture(64, 64))
    network(picture(64, 64, count=2))


def test_initial_weights() -> None:
    network = PIDNet(classes=3, width=32)
    weight = network.layer4[0].get_submodule("conv1").get_parameter("weight")  # twice as many out as in
    assert float(weight.detach().std()) == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.02)
    assert network.spp.shortcut[0].get_parameter("weight").eq(1).all()


def test_autocast_keeps_half_precision_throughout(small: PIDNet) -> None:
    image = picture(64, 64).to(memory_format=torch.channels_last)
    found: list[torch.dtype] = []
    norms = [module for module in small.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(lambda _, x: found.append(x[0].dtype)) for norm in norms]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = small(image, heads=True).logits
    for hook in hooks:
        hook.remove()
    assert half.dtype == torch.bfloat16 and set(found) == {torch.bfloat16}
    with torch.inference_mode():
        full = small(image).logits
    assert F.cosine_similarity(half.float().flatten(), full.flatten(), dim=0) > 0.99


@pytest.mark.slow  # torch.compile takes seconds to import
def test_compiled_code_is_whole(small: PIDNet) -> None:
    with torch.no_grad():
        whole = torch.compile(small, backend="eager", fullgraph=True)(picture(64, 64), heads=True)
        torch.testing.assert_close(whole.logits, small(picture(64, 64)).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pyramid": "ppm"}, "unknown pyramid='ppm'"),
        ({"fusion": "light"}, "Did you mean 'light_bag'"),
        ({"derivative": "broad"}, "unknown derivative"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"deep_blocks": 0}, "deep_blocks must be at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_empty(PIDNet, {"classes": 19} | options)


def test_wrong_images(small: PIDNet) -> None:
    with pytest.raises(UserError, match="normalise the image first"):
        small(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"expects \(N, 3, H, W\)"):
        small(torch.zeros(1, 4, 64, 64))


def test_the_classifier_shares_the_trunk() -> None:
    """Context and detail reach the pooled features, which are at 1/32; the published definition is not known."""
    network = build_empty(PIDNetClassifier, {"classes": 10, "width": 8, "feature_width": 16})
    state = weights(shapes_of(network))
    network.load_state_dict(state, assign=True)
    plain, image = PlainPidNet(state), picture(64, 96)
    with torch.inference_mode():
        fine = F.relu(plain.layer(F.relu(plain.layer(plain.stem(image), "layer1")), "layer2", 2))
        middle = F.relu(plain.layer(fine, "layer3", 2))
        deep = F.relu(plain.layer(middle, "layer4", 2))
        detail = plain.pag(plain.layer(fine, "layer3_"), plain.conv_norm(middle, "compression3"), "pag3")
        detail = plain.layer(F.relu(detail), "layer4_")
        detail = plain.pag(detail, plain.conv_norm(deep, "compression4"), "pag4")
        detail = plain.twice_down(F.relu(plain.layer(F.relu(detail), "layer5_")), "down5")
        features = F.relu(plain.layer(deep, "layer5") + detail)
        assert features.shape[-2:] == (2, 3)
        pooled = F.relu(plain.conv_norm(features, "last_layer")).mean((2, 3))
        expected = F.linear(pooled, state["linear.weight"], state["linear.bias"])
        assert far(network.eval()(image), expected) < 1e-5
