"""Published pose files, and what pose starts from: each layout converts strictly and answers as the tables say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dvsn
from dvsn.config.build import build
from dvsn.convert.command import convert as convert_command
from dvsn.convert.options import COMMAND
from dvsn.convert.rules import convert
from dvsn.engine.initial_weights import start_from
from dvsn.errors import CheckpointError, ConfigError
from dvsn.tasks.classification import Classification
from dvsn.tasks.pose import Pose
from tests.support.networks import distance, rebuilt
from tests.support.reference_hrnet import (
    VARIANTS,
    Reference,
    bottleneck,
    classifier_keys,
    conv,
    fill,
    norm,
    pair,
    trunk_keys,
)
from tests.support.reference_pose import PoseReference, baseline_keys, pose_keys, resnet_keys

State = dict[str, Tensor]
SMALL = VARIANTS["w18_small_v1"]
ALLOWED = ("conv1.", "bn1.", "conv2.", "bn2.", "layer1.", "transition", "stage2.", "stage3.", "stage4.")
COARSER = tuple(f"stage4.0.fuse_layers.{into}." for into in (1, 2, 3))


def hrnet(joints: int = 17, variant: str = "w18_small_v1") -> State:
    return fill(pose_keys(joints, **VARIANTS[variant]))


def baseline(depth: int = 18, joints: int = 17) -> State:
    return fill(baseline_keys(depth, joints))


def training_file(state: State) -> dict[str, Any]:
    """What the authors' scripts save; `model` is the name of the network there."""
    wrapped = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 210, "model": "pose_hrnet", "state_dict": wrapped, "best_state_dict": state, "perf": 0.7}


def mmpose(state: State, head: str = "head") -> dict[str, Any]:
    heads = ("final_layer", "deconv_layers")
    named = {f"{head if key.startswith(heads) else 'backbone'}.{key}": value for key, value in state.items()}
    return {"meta": {"epoch": 210}, "state_dict": named}


def mmpose_before_1(state: State) -> dict[str, Any]:
    return mmpose(state, "keypoint_head")


def picture(height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


# Published pose files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "layouts"),
    [
        (dict, ("pose_hrnet", "pose_resnet")),
        (training_file, ("pose_hrnet", "pose_resnet")),
        (mmpose, ("mmpose/hrnet", "mmpose/resnet")),
        (mmpose_before_1, ("mmpose/hrnet", "mmpose/resnet")),
    ],
)
@pytest.mark.parametrize("joints", [17, 16])
def test_every_wrapping_answers_as_the_tables_say(
    wrap: Callable[[State], Any], layouts: tuple[str, str], joints: int
) -> None:
    state = hrnet(joints)
    converted = convert(wrap(state))
    assert (converted.kind, converted.layout, converted.dropped) == ("pose", layouts[0], {})
    assert converted.network["enlarge"] == "nearest" and converted.task == {}
    with torch.no_grad():
        expected = PoseReference(state, mode="nearest").pose(picture())
        assert distance(rebuilt(converted)(picture()), expected) < 1e-5

    state = baseline(18, joints)
    converted = convert(wrap(state))
    assert (converted.kind, converted.layout, converted.dropped) == ("pose", layouts[1], {})
    assert converted.task == {"channels": "rgb" if "mmpose" in layouts[1] else "bgr"}
    with torch.no_grad():
        assert distance(rebuilt(converted)(picture()), PoseReference(state).baseline(picture())) < 1e-5


@pytest.mark.parametrize("variant", ["w32", "w48"])
def test_the_published_sizes_of_hrnet(variant: str) -> None:
    state = hrnet(17, variant)
    converted = convert(state)
    expected = {**VARIANTS[variant], "modules": [1, 4, 3], "joints": 17, "enlarge": "nearest"}
    assert {key: converted.network[key] for key in expected} == expected
    with torch.no_grad():
        answer = rebuilt(converted)(picture())
        assert distance(answer, PoseReference(state, mode="nearest").pose(picture())) < 1e-5


def test_the_published_size_of_the_baseline() -> None:
    state = baseline(50)
    converted = convert(state)
    assert (converted.network["depth"], converted.network["deconvolutions"]) == (50, 3)
    with torch.no_grad():
        assert distance(rebuilt(converted)(picture()), PoseReference(state).baseline(picture())) < 1e-5


@pytest.mark.parametrize(("depth", "kernel", "count"), [(34, 3, 2), (101, 2, 1), (152, 4, 0)])
def test_other_baselines(depth: int, kernel: int, count: int) -> None:
    width = 8 if count else 256
    keys = baseline_keys(depth, 5, count, width, kernel)
    node = convert({k: torch.zeros(v, dtype=None if v else torch.long) for k, v in keys.items()}).network
    kernel = kernel if count else 4
    given = {"joints": 5, "depth": depth, "deconvolutions": count, "deconvolution_width": width}
    assert node == {
        "_target_": "dvsn.networks.simple_baseline.SimpleBaseline", **given, "deconvolution_kernel": kernel
    }  # fmt: skip


def test_channels_may_be_said() -> None:
    assert convert(baseline(), options={"channels": "rgb"}).task == {"channels": "rgb"}
    (note,) = convert(baseline()).notes
    assert "channels=bgr is set" in note
    with pytest.raises(ConfigError, match="expected rgb or bgr, found 'grb'"):
        convert(baseline(), options={"channels": "grb"})


# Starts ---------------------------------------------------------------------------------------------------------


def imagenet(*, renamed: bool) -> State:
    """HRNet's ImageNet file: of the pose line, whose classifier is `head` and `fc`, or (`renamed`) of the later one."""
    if renamed:
        return fill(classifier_keys("w18_small_v1"))
    keys = trunk_keys(**SMALL)
    for r, planes in enumerate((32, 64, 128, 256)):
        keys |= bottleneck(f"head.0.{r}.0", SMALL["width"] * 2**r, planes)
        keys |= pair(f"head.1.{r}", 8 * planes, 4 * planes, 3, bias=True) if r < 3 else {}
    keys |= pair("head.2", 2048, 1024, 1, bias=True) | {"fc.weight": [1000, 2048], "fc.bias": [1000]}
    return fill(keys)


def run_command(state: Any, folder: Path, *options: str) -> Path:
    torch.save(state, folder / "published.pth")
    return convert_command(
        COMMAND.parse([str(folder / "published.pth"), str(folder / "dvsn.ckpt"), *options])
    )


def pose_task(network: dict[str, Any]) -> Pose:
    node = {
        "_target_": "dvsn.tasks.pose.Pose",
        "network": network,
        "codec": {"_target_": "dvsn.codecs.heatmaps.HeatmapCodec", "size": [64, 64]},
        "loss": {"_target_": "dvsn.losses.heatmaps.JointMSE"},
        "optim": {"_target_": "torch.optim.Adam", "_partial_": True},
    }
    task = build(node, path="task")
    assert isinstance(task, Pose)
    return task


@pytest.mark.parametrize("renamed", [False, True])
def test_an_imagenet_file_starts_pose_with_exactly_the_trunk(renamed: bool, tmp_path: Path) -> None:
    state = imagenet(renamed=renamed)
    path = run_command(state, tmp_path)
    assert isinstance(dvsn.load(path), Classification if renamed else Pose)

    torch.manual_seed(1)
    small = {**SMALL, "modules": [1, 1, 1]}
    task = pose_task({"_target_": "dvsn.networks.hrnet_pose.PoseHRNet", "joints": 14, **small})
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    start_from(task, path)
    taken = {key for key in state if key.startswith(ALLOWED) and not key.startswith(COARSER)}
    for key, value in task.network.state_dict().items():
        assert torch.equal(value, state[key] if key in taken else before[key]), key
    assert set(before) - taken == {"final_layer.weight", "final_layer.bias"}


def test_what_an_imagenet_file_drops() -> None:
    state = imagenet(renamed=False)
    converted = convert(state, options={"joints": 5})
    assert (converted.kind, converted.layout) == ("pose", "pose_hrnet/imagenet")
    reasons = {key: "classifies" for key in state if key.startswith(("head.", "fc."))}
    reasons |= {key: "coarser" for key in state if key.startswith(COARSER)}
    assert set(converted.dropped) == set(reasons)
    assert all(word in converted.dropped[key] for key, word in reasons.items())
    head = converted.state["final_layer.weight"]
    assert head.shape == (5, 16, 1, 1) and float(head.std()) == pytest.approx(0.001, rel=0.3)
    assert not converted.state["final_layer.bias"].any() and "starts anew" in converted.notes[0]
    with torch.no_grad():
        (finest, *_) = Reference(state, mode="nearest").streams(picture())
        expected = torch.einsum("kc,nchw->nkhw", head[:, :, 0, 0], finest)
        assert distance(rebuilt(converted)(picture()), expected) < 1e-5


@pytest.mark.parametrize("depth", [18, 34])
def test_a_resnet_of_torchvision_starts_the_baseline(depth: int, tmp_path: Path) -> None:
    state = fill(resnet_keys(depth) | {"fc.weight": [1000, 512], "fc.bias": [1000]})
    path = run_command(state, tmp_path)
    torch.manual_seed(1)
    target = "dvsn.networks.simple_baseline.SimpleBaseline"
    task = pose_task({"_target_": target, "joints": 14, "depth": depth})
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    start_from(task, path)
    for key, value in task.network.state_dict().items():
        assert torch.equal(value, state[key] if key in state else before[key]), key
    assert {key.split(".")[0] for key in before.keys() - state.keys()} == {"deconv_layers", "final_layer"}


def test_a_deep_resnet_of_torchvision_is_a_classifier() -> None:
    state = fill(resnet_keys(50) | {"fc.weight": [10, 2048], "fc.bias": [10]})
    converted = convert(state)
    assert (converted.kind, converted.layout, converted.dropped) == ("classifier", "torchvision/resnet", {})
    assert (converted.network["classes"], converted.network["depth"]) == (10, 50)
    rebuilt(converted)


# The command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_a_task_that_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    state = baseline()
    task = dvsn.load(run_command(state, tmp_path))
    assert isinstance(task, Pose)
    assert "[256, 192] is assumed" in caplog.text and "channels=bgr is set" in caplog.text
    image = torch.randint(
        256, (1, 3, 256, 192), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = PoseReference(state).baseline(
            (image.flip(1) / 255 - mean) / std
        )  # BGR, under the means of RGB
        answer = task.deployable()(image)
    assert answer.shape == (1, 17, 3)
    torch.testing.assert_close(answer[..., 2], maps.amax(dim=(2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("joints", "options", "size", "sigma", "refine"),
    [
        (17, [], (256, 192), 2.0, "quarter"),
        (16, [], (256, 256), 2.0, "quarter"),
        (17, ["size=[384,288]"], (384, 288), 3.0, "quarter"),
        (17, ["codec=udp"], (256, 192), 2.0, "udp"),
        (17, ["codec=dark", "size=[128,96]"], (128, 96), 2.0, "dark"),
    ],
)
def test_the_codec_of_a_converted_file(
    joints: int, options: list[str], size: tuple[int, int], sigma: float, refine: str, tmp_path: Path
) -> None:
    task = dvsn.load(run_command(hrnet(joints), tmp_path, *options))
    assert isinstance(task, Pose)
    found = task.codec
    assert (found.size, found.sigma, found.refine, found.stride) == (size, sigma, refine, 4)
    assert found.blur == (17 if sigma == 3 else 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["codec=upd"], "codec: there is no 'upd'. Did you mean 'udp'"),
        (["size=256"], "task.codec.size: expected a list"),
        (["size=[256,190]"], r"codec.size: found \[256, 190\]"),
        (["channels=rgb"], "options.channels: no such choice for this network"),
        (["test_norm=batch"], "test_norm: is for generators; .* is a pose network"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command(hrnet(), tmp_path, *options)


def test_a_converted_file_knows_its_keypoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names and mirror pairs, without which it could neither be mirrored nor drawn."""
    with caplog.at_level("INFO"):
        task: Any = dvsn.load(run_command(hrnet(), tmp_path, "size=[64,64]", "codec=udp"))
    assert task.keypoints.names[9] == "left_wrist" and task.keypoints.mirror[9] == 10
    assert "taken to be those of data=coco" in caplog.text
    assert task.data_recipe["transform"]["eval"]["size"] == [64, 64]
    assert task.data_recipe["transform"]["eval"]["unbiased"] is True
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert task.eval()(image).shape == (1, 17, 3)  # with its mirror image
    mpii: Any = dvsn.load(run_command(hrnet(joints=16), tmp_path, "size=[64,64]"))
    assert "thorax" in mpii.keypoints.names and mpii.data_recipe["facts"]["score"] == "pckh"
    with caplog.at_level("INFO"):
        other: Any = dvsn.load(run_command(hrnet(joints=5), tmp_path, "size=[64,64]"))
    assert other.data_recipe == {} and "give data=NAME" in caplog.text
    with pytest.raises(ConfigError, match="lspet has 14 keypoints, the network 17"):
        run_command(hrnet(), tmp_path, "data=lspet")
    with pytest.raises(ConfigError, match="there is no 'cocoa'"):
        run_command(hrnet(), tmp_path, "data=cocoa")


def test_options_of_pose_are_refused_elsewhere(tmp_path: Path) -> None:
    state = fill(resnet_keys(34) | {"fc.weight": [10, 512], "fc.bias": [10]})
    with pytest.raises(ConfigError, match=r"size: is for networks of keypoints; .* is a classifier"):
        run_command(state, tmp_path, "size=[256,192]")


# Refusals -------------------------------------------------------------------------------------------------------


def without(state: State, key: str) -> State:
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: without(hrnet(), "stage4.0.fuse_layers.0.3.0.weight"), "1 missing: stage4.0.fuse_layers.0.3.0"),
        (lambda: hrnet() | {"extra.weight": torch.zeros(2)}, "1 unknown: extra.weight"),
        (lambda: hrnet() | {"conv1.weight": torch.zeros(64, 3, 5, 5)}, "1 with another shape or type: conv1"),
        (lambda: without(imagenet(renamed=False), "conv2.weight"), "1 missing: conv2.weight"),
        (lambda: baseline() | {"deconv_layers.9.weight": torch.zeros(2)}, "missing: deconv_layers.9.weight|shape"),
        (
            lambda: {k: v for k, v in baseline().items() if not k.startswith("layer3.1")},
            "2-2-1-2 basic blocks, expected one of",
        ),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit_are_refused(state: Callable[[], State], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(state())


def test_a_network_of_faces_is_not_taken_for_a_start_of_pose() -> None:
    """Its trunk is the same, enlarged otherwise, and its head is called `head` too."""
    joined = 15 * SMALL["width"]
    keys = trunk_keys(**SMALL) | conv("head.0", joined, joined, 1, bias=True) | norm("head.1", joined)
    assert convert(fill(keys | conv("head.3", 98, joined, 1, bias=True))).layout == "hrnetv2_face"
