"""Published BiSeNet files: recognised in any wrapping, converted strictly, refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.config.build import build
from dvsn.convert.release import Converted
from dvsn.convert.rules import convert
from dvsn.errors import CheckpointError, ConfigError
from tests.support.bisenet_reference import (
    HEADS,
    PLAIN,
    PUBLISHED,
    Shapes,
    far,
    flat,
    picture,
    resnet_keys,
    v1_keys,
    v2_keys,
    weights,
)

LAYOUT = {
    "bisenetv1": ("bisenet/v1", "dvsn.networks.bisenet.BiSeNet"),
    "bisenetv1_adb_bag": ("bisenet/v1_adb_bag", "dvsn.networks.bisenet.BiSeNetDerivative"),
    "bisenetv2": ("bisenet/v2", "dvsn.networks.bisenetv2.BiSeNetV2"),
}


def rebuilt(converted: Converted) -> nn.Module:
    network: nn.Module = build(converted.network, path="network")
    network.load_state_dict(converted.state, strict=True)
    return network.eval()


def evaluation_form(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.partition(".")[0] not in HEADS}


@pytest.mark.parametrize("form", ["training", "evaluation", "dropped"])
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_published_files_give_the_published_answers(name: str, form: str) -> None:
    torch.set_num_threads(1)
    whole = weights(PUBLISHED[name][0])
    state = evaluation_form(whole) if form == "evaluation" else whole
    converted = convert(state, options={"heads": False} if form == "dropped" else {})
    layout, target = LAYOUT[name]
    assert (converted.layout, converted.kind) == (layout, "segmenter")
    means = {"bisenetv1_adb_bag": {}}.get(
        name, {"mean": [0.3257, 0.3690, 0.3223], "std": [0.2112, 0.2148, 0.2115]}
    )
    assert converted.task == means and bool(converted.notes) == bool(means)
    extra = {"dropout": 0.1} if name == "bisenetv2" else {}
    assert converted.network == {
        "_target_": target, "classes": 19, "heads": form == "training", "upsample": True, **extra
    }  # fmt: skip
    unused = set(whole) - set(evaluation_form(whole)) if form == "dropped" else set()
    assert set(converted.dropped) == unused
    assert all("training only" in reason for reason in converted.dropped.values())

    image = picture(32, 64).float()
    expected = PLAIN[name](whole)(image)
    found = flat(rebuilt(converted)(image, heads=True))
    assert len(found) == (len(expected) if form == "training" else 1)
    assert all(far(mine, theirs) < 1e-5 for mine, theirs in zip(found, expected[: len(found)], strict=True))


@pytest.mark.parametrize(
    ("container", "wrapper", "prefix"),
    [
        (None, "", ""),
        (None, "", "model."),
        (None, "module.", "model."),
        ("state_dict", "module.", ""),
        ("model", "", "net."),
    ],
)
def test_wrappings_come_off(container: str | None, wrapper: str, prefix: str) -> None:
    state = weights(v1_keys(classes=11))
    file: dict[str, Any] = {f"{wrapper}{prefix}{key}": value for key, value in state.items()}
    file[f"{wrapper}sem_loss.criterion.weight"] = torch.ones(11)
    if container is not None:
        file = {"epoch": 3, container: file, "optimizer": {"state": {}}}
    converted = convert(file)
    assert converted.network["classes"] == 11 and set(converted.state) == set(state)
    assert all(torch.equal(converted.state[key], state[key]) for key in state)
    ((key, reason),) = converted.dropped.items()
    assert key.endswith("sem_loss.criterion.weight") and "training loss" in reason


def test_options_say_what_the_keys_do_not() -> None:
    state = weights(v2_keys(classes=3))
    converted = convert(state, options={"upsample": False, "dropout": 0.0})
    assert converted.network["dropout"] == 0.0 and converted.network["upsample"] is False
    assert rebuilt(converted)(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3, 8, 8)
    with pytest.raises(ConfigError, match=r"options\.dropout"):
        convert(weights(v1_keys(classes=3)), options={"dropout": 0.1})
    with pytest.raises(CheckpointError, match="evaluation form"):
        convert(evaluation_form(state), options={"heads": True})


@pytest.mark.parametrize(
    "shapes", [v1_keys(3), v1_keys(3, derivative=True), v2_keys(3)], ids=["v1", "adb", "v2"]
)
def test_nothing_is_loaded_in_silence(shapes: Shapes) -> None:
    state = weights(shapes)
    body = next(key for key in state if key.partition(".")[0] in ("cp", "segment") and state[key].ndim == 4)
    head = next(key for key in state if key.partition(".")[0] in HEADS and state[key].ndim == 4)
    for key in (body, head):
        with pytest.raises(CheckpointError, match=f"1 missing: {key}"):
            convert({name: value for name, value in state.items() if name != key})
        with pytest.raises(CheckpointError, match=f"{key} .* instead of"):
            convert(state | {key: torch.zeros(7, *state[key].shape[1:])})
    for extra in ("neck.weight", f"{head.partition('.')[0]}.extra"):
        with pytest.raises(CheckpointError, match=f"1 unknown: {extra}"):
            convert(state | {extra: torch.zeros(1)})


@torch.no_grad()
def test_torchvisions_resnet18_becomes_the_classifier_of_the_trunk() -> None:
    theirs = resnet_keys("x") | {"x.fc.weight": [10, 512], "x.fc.bias": [10]}
    state = weights({key.removeprefix("x."): shape for key, shape in theirs.items()})
    converted = convert(state)
    assert (converted.layout, converted.kind, converted.dropped) == ("torchvision/resnet18", "classifier", {})
    assert converted.network == {"_target_": "dvsn.networks.bisenet.ResNet18Classifier", "classes": 10}
    assert rebuilt(converted)(picture(32, 32).float()).shape == (1, 10)
    trunk = {key for key in v1_keys() if key.startswith("cp.resnet.")}
    assert set(converted.state) == trunk | {"fc.weight", "fc.bias"} and len(trunk) == 120
    assert torch.equal(converted.state["cp.resnet.layer3.1.conv2.weight"], state["layer3.1.conv2.weight"])
    with pytest.raises(CheckpointError, match="3-2-2-2 basic blocks"):
        convert(state | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)})
    with pytest.raises(CheckpointError, match=r"1 missing: layer2\.0\.bn1\.bias"):
        convert({key: value for key, value in state.items() if key != "layer2.0.bn1.bias"})
