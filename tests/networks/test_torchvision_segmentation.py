"""Segmenters of torchvision: the answers of torchvision's own, before they are enlarged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision import models

from dvsn.config.partners import class_of
from dvsn.distill.taps import Taps, roles
from dvsn.engine.initial_weights import contents
from dvsn.errors import ConfigError, UserError
from dvsn.networks.torchvision_segmentation import FACTS, TorchvisionSegmenter
from tests.support.networks import distance, parameters_of

SMALL = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "101" in name else ()) for name in FACTS]
)
def test_as_many_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        network = TorchvisionSegmenter(classes=21, name=name)  # type: ignore[arg-type]
        published_for = models.get_model_weights(name).DEFAULT.meta["num_params"]  # type: ignore[attr-defined]
        assert parameters_of(network) == published_for
        image = torch.empty(2, 3, 64, 96)
        output = network(image)
    stride = FACTS[name].stride
    assert output.logits.shape == (2, 21, 64 // stride, 96 // stride)
    assert len(output.auxiliary) == network.training_heads(name=name)[0] == int("lraspp" not in name)
    assert network.training_heads(name=name, heads=False) == (0, False)
    assert set(roles(network)) >= {"stages", "last", "dense"}
    for path in (*network.taps, *network.classifier):
        network.get_submodule(path)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_answer_is_that_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    network = TorchvisionSegmenter(classes=5, name=name).eval()  # type: ignore[arg-type]
    image = torch.randn(1, 3, 75, 101)
    enlarged = F.interpolate(network(image).logits, size=(75, 101), mode="bilinear", align_corners=False)
    assert distance(enlarged, network.model(image)["out"]) < 1e-6
    taps = Taps(network, network.taps)
    taps.install()
    with taps:
        network(torch.randn(1, 3, 64, 64))
    assert [each.shape[-1] for each in taps.take().values()] == [16, 8, 4, 4]  # the last is dilated


def test_what_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"no segmentation network 'deeplabv3_resnet5'. Did you mean 'deeplabv3_resnet50'"
    ):
        TorchvisionSegmenter(classes=3, name="deeplabv3_resnet5")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch of one picture in training"):
        TorchvisionSegmenter(classes=3)(torch.randn(1, 3, 32, 32))
    assert class_of({"_target_": f"{TorchvisionSegmenter.__module__}.TorchvisionSegmenter"}, "network")


def test_a_published_file_fits_by_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TorchvisionSegmenter(classes=5, name="lraspp_mobilenet_v3_large")
    own = network.model.state_dict()
    save_file(own, str(tmp_path / "lraspp.safetensors"))
    state = contents(tmp_path / "lraspp.safetensors")
    found = network.adopt_published(state)
    assert set(found) == set(network.state_dict()) and all(
        torch.equal(found[f"model.{key}"], own[key]) for key in own
    )


def test_a_classifier_s_trunk_is_the_backbone() -> None:
    from dvsn.networks.torchvision_classifier import TorchvisionClassifier

    for name, backbone in (
        ("resnet50", "deeplabv3_resnet50"),
        ("mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
    ):
        with torch.device("meta"):
            state = TorchvisionClassifier(classes=3, name=name).state_dict()
            network = TorchvisionSegmenter(classes=3, name=backbone)  # type: ignore[arg-type]
        found, own = network.adopt(state), network.state_dict()
        trunk = [key for key in own if key.startswith("model.backbone.")]
        assert trunk and all(key in found and found[key].shape == own[key].shape for key in trunk)
