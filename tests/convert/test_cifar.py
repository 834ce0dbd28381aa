"""Published networks of the distillation benchmarks: each converts strictly, and answers as the reference says."""

from __future__ import annotations

import argparse
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dvsn
from dvsn.convert.command import convert as convert_command
from dvsn.convert.options import COMMAND
from dvsn.convert.rules import convert
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.cifar_mobilenetv2 import CifarMobileNetV2
from dvsn.networks.cifar_resnet_bottleneck import CifarBottleneckResNet
from dvsn.networks.cifar_shufflenet import CifarShuffleNet, CifarShuffleNetV2
from dvsn.tasks.classification import Classification
from tests.support.networks import rebuilt
from tests.support.reference_cifar import fill, resnet, resnet_keys, vgg, vgg_keys, wrn, wrn_keys

State = dict[str, Tensor]


def training_file(state: State) -> dict[str, Any]:
    """What the benchmark saves after the last epoch."""
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 5e-5}]}
    return {"epoch": 240, "model": state, "accuracy": torch.tensor(79.4), "optimizer": momentum}


def picture() -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("shapes", "layout", "options", "reference"),
    [
        (
            resnet_keys(8, (32, 64, 128, 256)),
            "cifar/resnet",
            {"depth": 8, "widths": [32, 64, 128, 256]},
            resnet,
        ),
        (resnet_keys(32, (8, 16, 32, 64)), "cifar/resnet", {"depth": 32, "widths": [8, 16, 32, 64]}, resnet),
        (
            resnet_keys(14, (16, 16, 32, 64), 10),
            "cifar/resnet",
            {"depth": 14, "widths": [16, 16, 32, 64]},
            resnet,
        ),
        (wrn_keys(40, 2), "cifar/wrn", {"depth": 40, "widen": 2, "dropout": 0.0}, wrn),
        (wrn_keys(16, 1, 7), "cifar/wrn", {"depth": 16, "widen": 1, "dropout": 0.0}, wrn),
        (vgg_keys((1, 1, 1, 1, 1)), "cifar/vgg", {"depth": 8}, vgg),
        (vgg_keys((1, 1, 2, 2, 2)), "cifar/vgg", {"depth": 11}, vgg),
    ],
)
def test_the_architecture_is_read_from_the_keys(
    shapes: dict[str, tuple[int, ...]], layout: str, options: dict[str, Any], reference: Callable[..., Tensor]
) -> None:
    state = fill(shapes)
    converted = convert(training_file(state))
    assert (converted.kind, converted.layout, converted.dropped) == ("classifier", layout, {})
    classes = len(state["classifier.bias" if layout == "cifar/vgg" else "fc.bias"])
    assert {key: converted.network[key] for key in options} == options
    assert converted.network["classes"] == classes and len(converted.network) == len(options) + 2
    assert converted.task["mean"][0] == (0.4914 if classes == 10 else 0.5071)
    assert "normalised" in converted.notes[0]
    with torch.no_grad():
        found, expected = rebuilt(converted)(picture()), reference(state, picture())
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("network", "layout"),
    [
        (CifarBottleneckResNet(classes=3), "cifar/resnet_bottleneck"),
        (CifarMobileNetV2(classes=3, expansion=4, width=0.25), "cifar/mobilenetv2"),
        (CifarShuffleNet(classes=3, groups=2, widths=(48, 96, 192), blocks=(2, 3, 2)), "cifar/shufflenet_v1"),
        (CifarShuffleNetV2(classes=3, widths=(48, 96, 192, 100), blocks=(3, 2, 1)), "cifar/shufflenet_v2"),
    ],
)
def test_what_no_list_is_published_of_goes_around(network: nn.Module, layout: str) -> None:
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    converted = convert({"model": wrapped})
    assert (converted.kind, converted.layout, converted.dropped) == ("classifier", layout, {})
    again = rebuilt(converted)
    assert type(again) is type(network)
    torch.testing.assert_close(again(picture()), network.eval()(picture()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer2.0.bn2.bias"), "1 missing: layer2.0.bn2.bias"),
        (lambda state: state.update({"layer3.0.extra.weight": torch.zeros(1)}), "1 unknown: layer3.0.extra"),
        (lambda state: state.update({"layer2.0.conv2.weight": torch.zeros(2, 2, 3, 3)}), "another shape"),
        (lambda state: state.update({"fc.weight": torch.zeros(3)}), "dimensions"),
        (lambda state: state.update({"layer2.7.bn1.weight": torch.zeros(3)}), "unknown"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[State], Any], words: str) -> None:
    state = fill(resnet_keys(8, (4, 4, 8, 16)))
    change(state)
    with pytest.raises(CheckpointError, match=words):
        convert(state)


def test_blocks_that_no_depth_has_are_refused() -> None:
    with pytest.raises(CheckpointError, match="2-1-1-1-1 convolutions, expected one of"):
        convert(fill(vgg_keys((2, 1, 1, 1, 1))))
    state = CifarBottleneckResNet(classes=3).state_dict()
    short = {key: value for key, value in state.items() if not key.startswith("layer3.5.")}
    with pytest.raises(CheckpointError, match="3-4-5-3 blocks"):
        convert(short)
    with pytest.raises(ConfigError, match=r"options\.heads"):
        convert(fill(resnet_keys(8, (4, 4, 8, 16))), options={"heads": False})


# The command --------------------------------------------------------------------------------------------


def run(source: Path, output: Path, **options: Any) -> Path:
    given = [f"source={source}", f"output={output}", *(f"{key}={value}" for key, value in options.items())]
    return convert_command(COMMAND.parse(given))


def test_a_teacher_becomes_a_task_that_knows_its_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = fill(resnet_keys(8, (4, 4, 8, 16)))
    torch.save(training_file(state), tmp_path / "ckpt_epoch_240.pth")
    with caplog.at_level(logging.INFO, logger="dvsn"):
        path = run(tmp_path / "ckpt_epoch_240.pth", tmp_path / "teacher.ckpt")
    assert "classifier 'cifar/resnet'" in caplog.text and "data=cifar100" in caplog.text
    task = dvsn.load(path)
    assert isinstance(task, Classification) and task.classes == 100
    assert (task.names[0], task.names[-1]) == ("apple", "worm")
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([0.5071, 0.4867, 0.4408]), torch.tensor([0.2675, 0.2565, 0.2761])
    expected = resnet(state, (image / 255 - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(task(image), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="10 classes, the network 100"):
        run(tmp_path / "ckpt_epoch_240.pth", tmp_path / "other.ckpt", data="cifar10")
    torch.save(fill(wrn_keys(10, 1, 7)), tmp_path / "seven.pth")
    assert dvsn.load(run(tmp_path / "seven.pth", tmp_path / "seven.ckpt")).names[6] == "class 6"  # type: ignore[union-attr]


def test_the_last_file_of_a_run_holds_its_command_line_too(tmp_path: Path) -> None:
    state = fill(vgg_keys((1, 1, 1, 1, 1), 10))
    options = argparse.Namespace(model="vgg8", learning_rate=0.05, lr_decay_epochs=[150, 180, 210])
    torch.save({"opt": options, "model": state}, tmp_path / "vgg8_last.pth")
    assert dvsn.load(run(tmp_path / "vgg8_last.pth", tmp_path / "vgg8.ckpt")).names[0] == "airplane"  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        dvsn.load(tmp_path / "vgg8_last.pth")  # only conversion takes it


class Payload:
    def __reduce__(self) -> Any:
        return (pickle.loads, (b"N.",))


def test_a_command_line_that_runs_something_is_refused(tmp_path: Path) -> None:
    for options in (Payload(), argparse.Namespace(inner=Payload())):
        torch.save({"opt": options, "model": fill(resnet_keys(8, (4, 4, 8, 16)))}, tmp_path / "last.pth")
        with pytest.raises(CheckpointError, match="could run code"):
            run(tmp_path / "last.pth", tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()
