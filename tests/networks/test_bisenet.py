"""BiSeNet V1, V1 + ADB + Bag and V2: keys, counts, and the answers of the same networks written from the tables."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.benchmark.costs import costs
from dvsn.config.build import build
from dvsn.errors import UserError
from dvsn.networks.bisenet import BiSeNet, BiSeNetDerivative, ResNet18Classifier
from dvsn.networks.bisenetv2 import BiSeNetV2
from dvsn.networks.folding import fold_batch_norms
from dvsn.types import SegmentationOutput
from tests.support.bisenet_reference import (
    HEADS,
    PLAIN,
    PUBLISHED,
    PlainDerivative,
    digest,
    far,
    flat,
    picture,
    weights,
)

NETWORKS: dict[str, type[nn.Module]] = {
    "bisenetv1": BiSeNet,
    "bisenetv1_adb_bag": BiSeNetDerivative,
    "bisenetv2": BiSeNetV2,
}


# Names and numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_our_key_list_is_the_published_one(name: str) -> None:
    shapes, published = PUBLISHED[name]
    assert digest(shapes) == published
    network = NETWORKS[name](classes=19)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == shapes
    plain = NETWORKS[name](classes=19, heads=False)
    assert set(plain.state_dict()) == {key for key in shapes if key.partition(".")[0] not in HEADS}


@pytest.mark.parametrize(
    ("name", "evaluation", "training"),
    [
        ("bisenetv1", 13_275_539, 13_425_721),
        ("bisenetv1_adb_bag", 14_035_987, 14_223_226),
        ("bisenetv2", 3_358_627, 5_231_487),
    ],
)
def test_parameter_counts(name: str, evaluation: int, training: int) -> None:
    for heads, count in ((False, evaluation), (True, training)):
        network = NETWORKS[name](classes=19, heads=heads)
        assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("name", "height", "width", "giga"),
    [
        ("bisenetv1", 1024, 2048, 118.34),
        ("bisenetv1", 768, 1536, 66.57),
        ("bisenetv1", 512, 1024, 29.59),
        ("bisenetv1_adb_bag", 1024, 2048, 130.49),
        ("bisenetv2", 1024, 2048, 98.41),
        ("bisenetv2", 512, 1024, 24.60),
    ],
)
def test_multiply_accumulates(name: str, height: int, width: int, giga: float) -> None:
    network = NETWORKS[name](classes=19, heads=False)
    assert costs(network, (1, 3, height, width)).macs / 1e9 == pytest.approx(giga, rel=2e-4)


# Answers --------------------------------------------------------------------------------


def loaded(name: str, *, heads: bool = True, upsample: bool = True) -> tuple[nn.Module, dict[str, Tensor]]:
    state = weights(PUBLISHED[name][0], dtype=torch.float64)
    network = NETWORKS[name](classes=19, heads=heads, upsample=upsample).double().eval()
    own = network.state_dict()
    network.load_state_dict({key: value for key, value in state.items() if heads or key in own})
    return network, state


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_published_weights_give_the_published_answers(name: str) -> None:
    image = picture(64, 96)
    network, state = loaded(name)
    expected = PLAIN[name](state)(image)
    found = flat(network(image, heads=True))
    assert len(found) == len(expected) == {"bisenetv1": 3, "bisenetv1_adb_bag": 4, "bisenetv2": 5}[name]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape and theirs.std() > 0.05
        assert far(mine, theirs) < 1e-10
    bare, _ = loaded(name, heads=False)
    for output in (network(image), bare(image), bare(image, heads=True)):
        assert output.auxiliary == () and output.boundary is None
        assert far(output.logits, expected[0]) < 1e-10
    assert far(network.float()(image.float()).logits.double(), expected[0]) < 1e-5


@torch.no_grad()
def test_the_boundary_head_reads_the_rectified_branch() -> None:
    network, state = loaded("bisenetv1_adb_bag")
    image = picture(64, 64)
    found = flat(network(image, heads=True))
    other = PlainDerivative(state, rectified=False)(image)
    assert far(found[3], other[3]) > 0.01
    assert all(far(mine, theirs) < 1e-10 for mine, theirs in zip(found[:3], other[:3], strict=True))


# What else is promised -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_without_upsampling_the_logits_keep_their_stride(name: str) -> None:
    image = picture(64, 96)
    whole, _ = loaded(name)
    early, _ = loaded(name, upsample=False)
    assert (whole.stride, early.stride, whole.align_corners) == (1, 8, False)
    assert early(image).logits.shape == (1, 19, 8, 12)
    for full, small in zip(flat(whole(image, heads=True)), flat(early(image, heads=True)), strict=True):
        resized = F.interpolate(small, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(resized, full)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (45, 60), (72, 40)])
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_any_size_works(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](classes=3).eval()
    output = network(torch.randn(1, 3, *size), heads=True)
    assert all(x.shape[-2:] == size and bool(x.isfinite().all()) for x in flat(output))


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_answers_with_heads_that_all_learn(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](classes=3)
    output = network(torch.randn(2, 3, 32, 64))
    assert isinstance(output, SegmentationOutput) and (output.boundary is not None) == ("adb" in name)
    random = torch.Generator().manual_seed(0)
    sum((x * torch.randn(x.shape, generator=random)).sum() for x in flat(output)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    assert len(flat(network(torch.randn(2, 3, 32, 64), heads=False))) == 1
    for path in network.classifier:
        assert network.get_submodule(path).weight.shape[0] == 3
    assert len(network.classifier) == 1 + len(output.auxiliary)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.randn(1, 3, 32, 64))


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_taps_are_what_their_modules_answered(name: str) -> None:
    """Nothing later writes into them."""
    network = NETWORKS[name](classes=3).eval()
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(path: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept[path] = (output, output.clone())

        network.get_submodule(path).register_forward_hook(hook)

    for path in network.taps:
        keep(path)
    network(torch.randn(1, 3, 64, 64), heads=True)
    assert tuple(kept) != () and set(kept) == set(network.taps)
    assert all(torch.equal(*pair) for pair in kept.values())
    sides = [kept[path][0].shape[-1] for path in network.taps]
    assert sides == sorted(sides, reverse=True) == [8, 8, 4, 2]


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_batch_norms_fold_but_the_one_without_a_convolution(name: str) -> None:
    network = loaded(name, heads=False)[0].float()
    folded = fold_batch_norms(network)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert folded.kept == (("segment.S5_5.bn",) if name == "bisenetv2" else ())
    assert len(folded.folded) + len(folded.kept) == norms
    image = picture(64, 64).float()
    assert far(folded.network(image).logits, network(image).logits) < 1e-4


def test_gather_expansions_start_as_their_shortcuts() -> None:
    torch.manual_seed(0)
    network = BiSeNetV2(classes=3)
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    zeros = {name for name, module in norms.items() if not bool(module.weight.any())}
    assert zeros == {
        f"segment.{b}.conv2.1" for b in ("S3.0", "S3.1", "S4.0", "S4.1", *(f"S5_4.{i}" for i in range(4)))
    }
    assert all(bool((norms[name].weight == 1).all()) for name in set(norms) - zeros)
    x = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(network.segment.S3[1](x), x.relu())


def test_convolutions_start_with_gain_one() -> None:
    torch.manual_seed(0)
    weight = BiSeNet(classes=3).cp.arm32.conv.conv.weight.detach()  # fan in 512 x 9
    assert abs(float(weight.std()) * (512 * 9) ** 0.5 - 1) < 0.01


@torch.no_grad()
def test_the_same_answers_in_channels_last_and_nearly_so_in_bfloat16() -> None:
    torch.manual_seed(0)
    image = picture(64, 64).float()
    for name in PUBLISHED:
        network, _ = loaded(name)
        network = network.float()
        expected = network(image, heads=True)
        wide = copy.deepcopy(network).to(memory_format=torch.channels_last)
        found = wide(image.contiguous(memory_format=torch.channels_last), heads=True)
        assert all(far(a, b) < 1e-4 for a, b in zip(flat(found), flat(expected), strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            half = network(image, heads=True)
        assert all(x.dtype == torch.float32 for x in flat(half))
        assert all(far(a, b) < 0.1 for a, b in zip(flat(half), flat(expected), strict=True))


@torch.no_grad()
def test_the_classifier_is_torchvisions_resnet18() -> None:
    resnet18 = pytest.importorskip("torchvision.models").resnet18
    torch.manual_seed(0)
    theirs, mine = resnet18().eval(), ResNet18Classifier(classes=1000).eval()
    assert sum(parameter.numel() for parameter in mine.parameters()) == 11_689_512
    state = weights({key: list(value.shape) for key, value in theirs.state_dict().items()})
    theirs.load_state_dict(state)
    renamed = {key if key.startswith("fc.") else f"cp.resnet.{key}": value for key, value in state.items()}
    mine.load_state_dict(renamed)
    image = picture(65, 96, count=2).float()
    assert far(mine(image), theirs(image)) < 1e-5
    own = BiSeNet(classes=19).state_dict()
    shared = [
        key for key in mine.state_dict() if key in own and own[key].shape == mine.state_dict()[key].shape
    ]
    assert len(shared) == len(mine.state_dict()) - 2  # all but the linear layer


@pytest.mark.parametrize("name", PUBLISHED)
def test_wrong_input_is_refused(name: str) -> None:
    network = NETWORKS[name](classes=3)
    with pytest.raises(UserError, match="normalise"):
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"\(N, 3, H, W\)"):
        network(torch.zeros(1, 1, 32, 32))
    with pytest.raises(UserError, match="classes must be at least 1"):
        build(
            {"_target_": f"{NETWORKS[name].__module__}.{NETWORKS[name].__name__}", "classes": 0},
            path="network",
        )
