"""Published files of faces: each layout converts strictly and answers as the tables say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dvsn
from dvsn.convert.command import convert as convert_command
from dvsn.convert.options import COMMAND
from dvsn.convert.rules import convert
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.pfld import PFLD
from dvsn.tasks.landmarks import HeatmapLandmarks, Landmarks
from dvsn.types import LandmarkOutput
from tests.support.networks import distance, rebuilt
from tests.support.reference_hrnet import VARIANTS, Reference, fill, mixing_keys, trunk_keys
from tests.support.reference_pfld import PFLDReference, auxiliary_keys, backbone_keys, pfld_keys

State = dict[str, Tensor]
SMALL = VARIANTS["w18_small_v1"]


def pfld_file(landmarks: int = 98, width: float = 0.25, side: int = 2) -> dict[str, Any]:
    """What the re-implementation saves."""
    backbone, auxiliary = backbone_keys(landmarks, width, side), auxiliary_keys(width, side)
    return {"epoch": 499, "pfld_backbone": fill(backbone), "auxiliarynet": fill(auxiliary, seed=1)}


def flat(file: dict[str, Any]) -> State:
    parts = ("pfld_backbone", "auxiliarynet")
    return {f"{part}.{key}": value for part in parts for key, value in file[part].items()}


def parallel(file: dict[str, Any]) -> dict[str, Any]:
    parts = ("pfld_backbone", "auxiliarynet")
    return {part: {f"module.{key}": value for key, value in file[part].items()} for part in parts}


def face(joints: int = 98) -> State:
    return fill(trunk_keys(**SMALL) | mixing_keys("head", 15 * SMALL["width"], joints))


def mmpose(state: State, names: dict[str, str]) -> dict[str, Any]:
    """Under the names of mmpose: of the head as said, `backbone.` before the rest."""
    renamed = {}
    for key, value in state.items():
        head = next((name for name in names if key.startswith(name)), None)
        renamed[names[head] + key.removeprefix(head) if head else f"backbone.{key}"] = value
    return {"meta": {}, "state_dict": renamed}


MMPOSE_1 = {
    "head.0.": "head.conv_layers.0.",
    "head.1.": "head.conv_layers.1.",
    "head.3.": "head.final_layer.",
}
MMPOSE_0 = {"head.": "keypoint_head.final_layer."}


def picture(*size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(3))


def run_command(state: Any, folder: Path, *options: str) -> Path:
    torch.save(state, folder / "published.pth")
    return convert_command(
        COMMAND.parse([str(folder / "published.pth"), str(folder / "dvsn.ckpt"), *options])
    )


# PFLD ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [dict, parallel, flat])
def test_both_networks_of_pfld_answer_as_the_tables_say(wrap: Callable[[Any], Any]) -> None:
    file = pfld_file()
    converted = convert(wrap(file))
    assert (converted.kind, converted.layout) == ("landmarks", "pfld")
    dead = {
        f"bn8.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert set(converted.dropped) == dead
    assert converted.task == {"channels": "bgr", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    image = picture(2, 3, 32, 32)
    with torch.no_grad():
        points, angles = PFLDReference(flat(file)).pfld(image)
        found = rebuilt(converted)(image, heads=True)
    assert isinstance(found, LandmarkOutput) and found.angles is not None
    assert distance(found.points, points.reshape(2, 98, 2)) < 1e-5
    assert distance(found.angles, angles) < 1e-5


def test_the_published_size_of_pfld() -> None:
    converted = convert(fill(pfld_keys()))
    assert (converted.layout, len(converted.state), len(converted.dropped)) == ("pfld", 261 + 28 - 5, 5)
    defaults = {"landmarks": 98, "width": 1.0, "size": 112, "second": "full", "pool": "pool"}
    defaults |= {"residual": "published", "bias": False, "last_norm": False}
    defaults |= {"auxiliary": True, "auxiliary_padding": 1}
    assert converted.network == {"_target_": "dvsn.networks.pfld.PFLD", **defaults}
    usual = {name: each.default for name, each in inspect.signature(PFLD).parameters.items()}
    assert usual | {"landmarks": 98} == defaults


@pytest.mark.parametrize("joined", [True, False])
def test_the_backbone_alone(joined: bool) -> None:
    file = pfld_file(68)
    del file["auxiliarynet"]
    converted = convert(file if joined else file["pfld_backbone"])
    assert converted.layout == ("pfld" if joined else "pfld/backbone")
    assert (converted.network["landmarks"], converted.network["auxiliary"]) == (68, False)
    assert rebuilt(converted)(picture(1, 3, 32, 32), heads=True).angles is None
    with pytest.raises(CheckpointError, match="evaluation form"):
        convert(file, options={"heads": True})


def test_the_auxiliary_net_may_be_left_out() -> None:
    converted = convert(pfld_file(), options={"heads": False})
    assert converted.network["auxiliary"] is False
    left = {key.partition(".")[0] for key in converted.dropped}
    assert left == {"bn8", "auxiliary"} and len(converted.dropped) == 5 + 28
    rebuilt(converted)
    with pytest.raises(ConfigError, match=r"options\.joints: no such choice"):
        convert(pfld_file(), options={"joints": 5})


def test_other_forms_of_pfld() -> None:
    state = fill(backbone_keys(5, 0.5, 3, flatten=True))
    state["conv2.weight"] = torch.randn(32, 1, 3, 3)
    node = convert(state).network
    assert {key: node[key] for key in ("landmarks", "width", "size", "second", "pool")} == {
        "landmarks": 5, "width": 0.5, "size": 48, "second": "depthwise", "pool": "flatten"
    }  # fmt: skip


def changed(key: str, value: Tensor | None) -> dict[str, Any]:
    file = pfld_file()
    if value is None:
        del file["pfld_backbone"][key]
    else:
        file["pfld_backbone"][key] = value
    return file


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: changed("block5_4.conv.6.weight", None), "1 missing: block5_4.conv.6.weight"),
        (lambda: changed("block5_4.conv.9.weight", torch.zeros(1)), "1 unknown: block5_4.conv.9.weight"),
        (lambda: changed("fc.weight", torch.zeros(196, 50)), r"'fc.weight' has shape \(196, 50\), expected an even"),
        (lambda: changed("fc.weight", torch.zeros(195, 44)), r"'fc.weight' has shape \(195, 44\), expected an even"),
        (lambda: changed("conv7.0.weight", torch.zeros(8, 4, 5, 5)), "1 with another shape or type: conv7.0"),
        (lambda: pfld_file() | {"auxiliarynet": {"fc1": {}}}, "'fc1' holds a dict"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(state: Callable[[], Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(state())


# HRNetV2 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "layout", "sigma", "momentum"),
    [
        (dict, "hrnetv2_face", 1.5, 0.01),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "hrnetv2_face", 1.5, 0.01),
        (lambda state: mmpose(state, MMPOSE_1), "mmpose/hrnetv2_face", 2.0, 0.1),
        (lambda state: mmpose(state, MMPOSE_0), "mmpose/hrnetv2_face", 2.0, 0.1),
    ],
)
def test_every_wrapping_of_hrnet_answers_as_the_tables_say(
    wrap: Callable[[State], Any], layout: str, sigma: float, momentum: float
) -> None:
    state = face(7)
    converted = convert(wrap(state))
    assert (converted.kind, converted.layout, converted.dropped) == ("landmarks", layout, {})
    frame = {} if "mmpose" in layout else {"offset": 2.5, "flip_shift": -0.5}
    assert converted.codec == {"size": [256, 256], "sigma": sigma, **frame}
    assert converted.task == {"flip_test": "mmpose" in layout}
    assert (converted.network["joints"], converted.network["bn_momentum"]) == (7, momentum)
    reference, image = Reference(state), picture(1, 3, 64, 32)
    with torch.no_grad():
        expected = reference.conv(reference.pair(reference.joined(image), "head"), "head.3")
        assert distance(rebuilt(converted)(image), expected) < 1e-5


def test_the_published_size_of_hrnet() -> None:
    converted = convert(fill(trunk_keys(**VARIANTS["w18"]) | mixing_keys("head", 270, 98)))
    assert len(converted.state) == 1839 and converted.dropped == {}
    expected = {"joints": 98, **VARIANTS["w18"], "modules": [1, 4, 3], "enlarge": "bilinear"}
    assert {key: converted.network[key] for key in expected} == expected


# The command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size", "sigma", "refine"),
    [([], (256, 256), 1.5, "quarter"), (["codec=dark", "size=[128,128]"], (128, 128), 1.5, "dark")],
)
def test_the_command_writes_a_task_of_heatmaps(
    options: list[str], size: tuple[int, int], sigma: float, refine: str, tmp_path: Path
) -> None:
    task = dvsn.load(run_command(face(), tmp_path, *options))
    assert isinstance(task, HeatmapLandmarks) and len(task.keypoints) == 98 and not task.flip_test
    assert (task.codec.size, task.codec.sigma, task.codec.refine) == (size, sigma, refine)
    own = (2.5, -0.5) if refine == "quarter" else (0.0, 1)  # of another codec the frame is that codec's
    assert (task.codec.offset, task.codec.flip_shift) == own
    assert task.normalise.channels == "rgb" and float(task.normalise.mean[0, 0]) == pytest.approx(0.485)
    assert task.deployable()(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape == (1, 98, 3)


def test_the_command_writes_a_task_of_points(tmp_path: Path) -> None:
    """It answers as the network of the file does, in pixels of the crop, and knows the mirror of its points."""
    file = pfld_file(68, side=7)
    task = dvsn.load(run_command(file, tmp_path))
    assert isinstance(task, Landmarks) and task.size == (112, 112) and task.normalise.channels == "bgr"
    assert task.keypoints.mirror[36] == 45 and len(task.keypoints.head) == 14
    crop = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        expected = 112 * rebuilt(convert(file))(crop.flip(1) / 255).points
        torch.testing.assert_close(task(crop)[..., :2], expected)
    with pytest.raises(ConfigError, match=r"size: found \[96, 96\]"):
        run_command(file, tmp_path, "size=[96,96]")
    with pytest.raises(ConfigError, match="has 29 keypoints, the network 68"):
        run_command(file, tmp_path, "data=cofw")
