"""Published checkpoints: key lists, the same pictures as a network written from the tables, and refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.convert.release import Converted, build_empty
from dvsn.convert.rules import convert
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.patchgan import PatchGan, PixelGan
from dvsn.networks.resnet_generator import ResNetGenerator
from dvsn.networks.unet import UNet
from tests.support.reference_translation import (
    Published,
    Shapes,
    State,
    post_patchgan,
    post_unet,
    reference_patchgan,
    reference_pixel,
    reference_resnet,
    reference_unet,
    weights,
)

# The published keys and shapes, from the tables --------------------------------------------------------


def digest(shapes: Shapes) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()[:16]


# name: our key list, the digest of the published one, the layout and the class found in it
PUBLISHED: dict[str, tuple[Shapes, str, str, type[nn.Module]]] = {
    "unet_256_batch": (reference_unet(8, "batch"), "ea629c9f37cbbc50", "junyanz/unet_256", UNet),
    "unet_256_instance": (reference_unet(8, "instance"), "2ac43224cb8401d3", "junyanz/unet_256", UNet),
    "unet_128_batch": (reference_unet(7, "batch"), "d7510e618eaf9817", "junyanz/unet_128", UNet),
    "resnet_9blocks_batch": (
        reference_resnet(9, "batch", dropout=False),
        "b9721114a35fbbd5",
        "junyanz/resnet_9blocks",
        ResNetGenerator,
    ),
    "resnet_9blocks_batch_dropout": (
        reference_resnet(9, "batch", dropout=True),
        "c8c7bf9f5e68deba",
        "junyanz/resnet_9blocks",
        ResNetGenerator,
    ),
    "resnet_9blocks_instance": (
        reference_resnet(9, "instance", dropout=False),
        "0019244b07b924eb",
        "junyanz/resnet_9blocks",
        ResNetGenerator,
    ),
    "resnet_6blocks_instance": (
        reference_resnet(6, "instance", dropout=False),
        "7773d4f754f94745",
        "junyanz/resnet_6blocks",
        ResNetGenerator,
    ),
    "basic_D_6ch_batch": (reference_patchgan(3, "batch", 6), "35fdf94a9badd257", "junyanz/basic", PatchGan),
    "basic_D_3ch_instance": (
        reference_patchgan(3, "instance", 3),
        "7539cbabcfab9dac",
        "junyanz/basic",
        PatchGan,
    ),
    "pixel_D_6ch_batch": (reference_pixel("batch"), "6e2e40760896b2a8", "junyanz/pixel", PixelGan),
    "post_unet": (post_unet(), "cebc837406aee908", "post/unet", UNet),
    "post_patchgan": (post_patchgan(), "12c985f875b883c9", "post/patchgan", PatchGan),
}


def build(converted: Converted) -> nn.Module:
    """The network of the recipe with the converted weights, loaded strictly."""
    node = dict(converted.network)
    target = node.pop("_target_")
    kinds = {
        f"{kind.__module__}.{kind.__qualname__}": kind for kind in (UNet, ResNetGenerator, PatchGan, PixelGan)
    }
    network = kinds[target](**node)
    network.load_state_dict(converted.state)
    return network.eval()


# The published networks, written with functions straight from the tables --------------------------------


def input_of(channels: int, height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.005, "a dead network proves nothing"
    assert (ours - theirs).abs().max() < 1e-5


# Key lists ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_key_lists(name: str) -> None:
    shapes, published, layout, kind = PUBLISHED[name]
    assert digest(shapes) == published
    state = {
        key: torch.zeros((), dtype=torch.long) if not shape else torch.empty(shape)
        for key, shape in shapes.items()
    }
    converted = convert(state)
    assert (converted.layout, converted.dropped) == (layout, {})
    assert converted.kind == ("generator" if kind in (UNet, ResNetGenerator) else "discriminator")
    expected = build_empty(kind, converted.network).state_dict()
    assert {key: value.shape for key, value in converted.state.items()} == {
        k: v.shape for k, v in expected.items()
    }
    assert len(converted.state) == len(shapes)


# The same pictures --------------------------------------------------------------------------------------

CASES: dict[str, tuple[Shapes, str, Callable[[Published, Tensor], Tensor], tuple[int, int, int]]] = {
    "unet_256_batch": (
        reference_unet(8, "batch", 8),
        "batch",
        lambda p, x: p.reference_unet(x, 8),
        (3, 256, 512),
    ),
    "unet_256_instance": (
        reference_unet(8, "instance", 8),
        "instance",
        lambda p, x: p.reference_unet(x, 8),
        (3, 256, 256),
    ),
    "unet_256_none": (
        reference_unet(8, "none", 8),
        "none",
        lambda p, x: p.reference_unet(x, 8),
        (3, 256, 256),
    ),
    "unet_128_batch": (
        reference_unet(7, "batch", 8),
        "batch",
        lambda p, x: p.reference_unet(x, 7),
        (3, 128, 256),
    ),
    "unet_32_channels": (
        reference_unet(5, "batch", 12, 5, 1),
        "batch",
        lambda p, x: p.reference_unet(x, 5),
        (5, 64, 32),
    ),
    "resnet_9_batch": (
        reference_resnet(9, "batch", dropout=False, width=8),
        "batch",
        lambda p, x: p.reference_resnet(x, 9, False),
        (3, 32, 40),
    ),
    "resnet_9_batch_dropout": (
        reference_resnet(9, "batch", dropout=True, width=8),
        "batch",
        lambda p, x: p.reference_resnet(x, 9, True),
        (3, 32, 40),
    ),
    "resnet_6_instance": (
        reference_resnet(6, "instance", dropout=False, width=8),
        "instance",
        lambda p, x: p.reference_resnet(x, 6, False),
        (3, 32, 32),
    ),
    "resnet_6_instance_dropout": (
        reference_resnet(6, "instance", dropout=True, width=8),
        "instance",
        lambda p, x: p.reference_resnet(x, 6, True),
        (3, 32, 32),
    ),
    "resnet_2_none": (
        reference_resnet(2, "none", dropout=False, width=8),
        "none",
        lambda p, x: p.reference_resnet(x, 2, False),
        (3, 32, 32),
    ),
    "basic_6_batch": (
        reference_patchgan(3, "batch", 6, 8),
        "batch",
        lambda p, x: p.reference_patchgan(x, 3),
        (6, 64, 72),
    ),
    "basic_3_instance": (
        reference_patchgan(3, "instance", 3, 8),
        "instance",
        lambda p, x: p.reference_patchgan(x, 3),
        (3, 64, 64),
    ),
    "n_layers_1_none": (
        reference_patchgan(1, "none", 4, 8),
        "none",
        lambda p, x: p.reference_patchgan(x, 1),
        (4, 32, 32),
    ),
    "n_layers_5_batch": (
        reference_patchgan(5, "batch", 6, 8),
        "batch",
        lambda p, x: p.reference_patchgan(x, 5),
        (6, 128, 128),
    ),
    "pixel_batch": (reference_pixel("batch"), "batch", lambda p, x: p.reference_pixel(x), (6, 16, 16)),
    "pixel_instance": (
        reference_pixel("instance"),
        "instance",
        lambda p, x: p.reference_pixel(x),
        (6, 16, 16),
    ),
    "pixel_none": (reference_pixel("none", 2, 8), "none", lambda p, x: p.reference_pixel(x), (2, 16, 16)),
    "post_unet": (post_unet(8), "batch", lambda p, x: p.post_unet(x), (3, 256, 512)),
    "post_patchgan": (post_patchgan(8), "batch", lambda p, x: p.post_patchgan(x), (6, 64, 72)),
}


@pytest.mark.parametrize("name", CASES)
def test_same_pictures(name: str) -> None:
    shapes, norm, reference, size = CASES[name]
    state, x = weights(shapes), input_of(*size)
    converted = convert(state)
    network = build(converted)
    assert converted.dropped == {}
    assert (converted.network["norm"], converted.network.get("dropout", 0.0) > 0) == (
        norm, "unet" in name or name.endswith("dropout")
    )  # fmt: skip
    with torch.no_grad():
        ours = network.probability(x) if name == "post_patchgan" else network(x)
        assert_same(ours, reference(Published(state, norm), x))


@pytest.mark.parametrize("name", ["unet_256_batch", "resnet_9_batch", "basic_6_batch", "post_unet"])
def test_same_pictures_with_the_statistics_of_the_batch(name: str) -> None:
    shapes, norm, reference, size = CASES[name]
    state, x = weights(shapes), input_of(*size, batch=2)
    options = {"dropout": 0.0} if "unet" in name else {}
    network = build(convert(state, options=options)).train()
    with torch.no_grad():
        assert_same(network(x), reference(Published(state, norm, train=True), x))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_same_pictures_at_full_width(name: str) -> None:
    state = weights(PUBLISHED[name][0])
    norm = "instance" if name.endswith("instance") else "batch"
    network = build(convert(state)).double()
    published = Published({key: value.double() for key, value in state.items()}, norm)
    side = 256 if "unet" in name else 64
    with torch.no_grad():
        if name == "post_patchgan":
            x = input_of(6, side, side).double()
            assert_same(network.probability(x), published.post_patchgan(x).float())
            return
        x = input_of(6 if "6ch" in name else 3, side, side).double()
        if name == "post_unet":
            expected = published.post_unet(x)
        elif "unet" in name:
            expected = published.reference_unet(x, 8 if "256" in name else 7)
        elif "resnet" in name:
            expected = published.reference_resnet(x, int(name[7]), name.endswith("dropout"))
        else:
            expected = published.reference_pixel(x) if "pixel" in name else published.reference_patchgan(x, 3)
        assert_same(network(x), expected)


# Quirks of published files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "plain", "dropped"),
    [
        (reference_unet(5, "tracked", 8), reference_unet(5, "instance", 8), 21),
        (
            reference_resnet(2, "tracked", dropout=True, width=8),
            reference_resnet(2, "instance", dropout=True, width=8),
            27,
        ),
        (reference_patchgan(2, "tracked", 6, 8), reference_patchgan(2, "instance", 6, 8), 6),
        (reference_pixel("tracked"), reference_pixel("instance"), 3),
    ],
)
def test_statistics_of_2018_are_dropped(shapes: Shapes, plain: Shapes, dropped: int) -> None:
    state = weights(shapes)
    converted = convert(state)
    assert converted.network["norm"] == "instance"
    assert set(converted.dropped) == set(shapes) - set(plain)
    assert len(converted.dropped) == dropped
    assert all("instance norm" in reason for reason in converted.dropped.values())
    build(converted)
    del state[next(iter(converted.dropped))]  # whichever of them are there
    assert len(convert(state).dropped) == dropped - 1
    state["model.99.running_mean"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"1 unknown: model.99.running_mean"):
        convert(state)


def test_prefixes_of_wrappers() -> None:
    state = weights(reference_patchgan(3, "batch", 6, 8))
    plain = convert(state)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        wrapped = convert({prefix + key: value for key, value in state.items()})
        assert wrapped.network == plain.network
        assert all(torch.equal(wrapped.state[key], value) for key, value in plain.state.items())


def test_half_precision_becomes_float32() -> None:
    state = {
        key: v.half() if v.is_floating_point() else v for key, v in weights(reference_pixel("batch")).items()
    }
    converted = convert(state)
    assert {value.dtype for value in converted.state.values()} == {torch.float32, torch.int64}
    build(converted)


def test_batch_norm_without_counters() -> None:
    """Files from before PyTorch 0.4.1; but one missing counter among others is damage."""
    state = weights(reference_patchgan(3, "batch", 6, 8))
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert convert(old).state["stages.1.norm.num_batches_tracked"] == 0
    del state["model.6.num_batches_tracked"]
    with pytest.raises(CheckpointError, match=r"1 missing: model.6.num_batches_tracked"):
        convert(state)


def test_what_keys_do_not_tell() -> None:
    unet = weights(reference_unet(5, "batch", 8))
    converted = convert(unet)
    assert "0.5 is assumed" in converted.notes[0]
    converted = convert(unet, options={"dropout": 0.0, "dropout_steps": [1]})
    assert (converted.network["dropout"], converted.network["dropout_steps"], converted.notes) == (
        0.0,
        [1],
        (),
    )
    wide = weights(reference_patchgan(1, "batch", 38, 8))
    converted = convert(wide)
    assert (converted.network["condition_channels"], converted.network["image_channels"]) == (35, 3)
    assert len(converted.notes) == 1
    converted = convert(wide, options={"image_channels": 1})
    assert (converted.network["condition_channels"], converted.network["image_channels"]) == (37, 1)
    assert converted.notes == ()
    assert convert(weights(reference_patchgan(1, "batch", 6, 8))).notes == ()
    assert convert(weights(post_patchgan(8))).network["image_first"] is True


# Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"droput": 0.0}, r"options.droput.*Did you mean 'dropout'"),
        ({"norm": "batch"}, r"options.norm"),
        ({"dropout": 2.0}, r"dropout must be between"),
        ({"dropout": "half"}, r"dropout must be between"),
        ({"dropout_steps": [9]}, r"dropout_steps must lie in"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(weights(reference_unet(5, "batch", 8)), options=options)


@pytest.mark.parametrize("value", [0, 7, "3", True])
def test_bad_image_channels(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"options.image_channels: expected 1..6"):
        convert(weights(reference_pixel("batch")), options={"image_channels": value})


WRONG = {
    "unet": reference_unet(5, "batch", 1),
    "unet_instance": reference_unet(5, "instance", 1),
    "resnet": reference_resnet(1, "batch", dropout=True, width=1),
    "resnet_instance": reference_resnet(1, "instance", dropout=False, width=1),
    "patchgan": reference_patchgan(3, "batch", 6, 1),
    "patchgan_instance": reference_patchgan(2, "instance", 3, 1),
    "pixel": reference_pixel("batch"),
    "post_unet": post_unet(1),
    "post_patchgan": post_patchgan(1),
}


@pytest.mark.parametrize("name", WRONG)
def test_any_wrong_key_is_named(name: str) -> None:
    """Keys are removed, misshapen and renamed, one at a time."""
    state = weights(WRONG[name])
    keys = [key for key in state if not key.endswith("num_batches_tracked")]
    for key in (*keys[:: max(1, len(keys) // 8)], keys[-2], keys[-1]):
        rest = {other: value for other, value in state.items() if other != key}
        changes: tuple[State, ...] = (
            {},
            {key: state[key][None]},
            {key: state[key][:0]},
            {key + "_": state[key]},
        )
        for change in changes:
            with pytest.raises(CheckpointError) as caught:
                convert(rest | change)
            assert key in str(caught.value)


def test_differences_are_counted_and_shortened() -> None:
    state = weights(reference_resnet(9, "batch", dropout=False, width=8))
    state = {key: value for key, value in state.items() if ".conv_block.5." not in key}
    state |= {"extra": torch.zeros(1), "model.2.weight": torch.zeros(5)}
    with pytest.raises(CheckpointError) as caught:
        convert(state)
    message = str(caught.value)
    assert "9 missing: model.10.conv_block.5.weight, model.11.conv_block.5.weight" in message
    assert "and 1 more." in message
    assert "1 unknown: extra." in message
    assert "model.2.weight (5,) instead of (8,)" in message


@pytest.mark.parametrize(
    ("shapes", "key"),
    [
        (reference_resnet(1, "batch", dropout=False, width=1), "model.99999999.conv_block.1.weight"),
        (reference_patchgan(3, "batch", 6, 1), "model.99999999.weight"),
        (post_unet(1), "down99999999.layers.1.weight"),
        (post_patchgan(1), "layers.99999999.weight"),
    ],
)
def test_absurd_numbers_do_not_build_absurd_networks(shapes: Shapes, key: str) -> None:
    with pytest.raises(CheckpointError):
        convert(weights(shapes) | {key: torch.zeros(1, 1, 1, 1)})


def test_unknown_layouts() -> None:
    with pytest.raises(CheckpointError) as caught:
        convert({"layer1.0.conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    message = str(caught.value)
    assert "layer1.0.conv1.weight, fc.bias." in message
    for layout in (
        "junyanz/unet",
        "junyanz/resnet",
        "junyanz/patchgan",
        "junyanz/pixel",
        "post/unet",
        "post/patchgan",
    ):
        assert layout in message
    nearly = {
        key.replace("down", "dwn").replace("up", "ap"): value for key, value in weights(post_unet(1)).items()
    }
    with pytest.raises(CheckpointError, match=r"nearest layout is 'post/unet'"):
        convert(nearly)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], r"Expected a state dict.*found list"),
        ({}, r"empty"),
        ({3: torch.zeros(1)}, r"names as keys.*3"),
        ({"model.0.weight": [1.0]}, r"'model.0.weight' holds list, expected a tensor"),
        ({"epoch": 3, "model.0.weight": torch.zeros(1)}, r"'epoch' holds int"),
        ({"generator": {"model.0.weight": torch.zeros(1)}}, r"'generator' holds a dict.*pass it alone"),
    ],
)
def test_what_is_not_a_state_dict(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(state)


def test_types_are_checked() -> None:
    state = weights(reference_pixel("batch"))
    with pytest.raises(CheckpointError, match=r"net.2.weight \(128, 64, 1, 1\) int8 instead of"):
        convert({**state, "net.2.weight": state["net.2.weight"].to(torch.int8)})
