"""Published segmenters: what wraps them, what is dropped and why, PIDNet's and DDRNet's files, and refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dvsn
from dvsn.config.build import build
from dvsn.convert.command import convert as convert_command
from dvsn.convert.options import COMMAND
from dvsn.convert.release import Converted, build_empty
from dvsn.convert.rules import convert
from dvsn.convert.segmentation import (
    OF_THE_LOSS,
    TRAINING_ONLY,
    count_blocks,
    partial_weights,
    peel,
)
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.ddrnet import DDRNet, DDRNetClassifier
from dvsn.networks.pidnet import PIDNet, PIDNetClassifier
from dvsn.weights import find_weights
from tests.support.dual_resolution_reference import (
    DDRNETS,
    DIGESTS,
    PIDNETS,
    PlainDdrNet,
    PlainPidNet,
    digest,
    far,
    picture,
    shapes_of,
    weights,
)

State = dict[str, Tensor]


def pidnet(name: str = "s", **options: Any) -> State:
    """A published state dict; the digest says that keys and shapes are the published ones."""
    state = weights(shapes_of(build_empty(PIDNet, {"classes": 19} | PIDNETS[name] | options)))
    assert options or digest({k: list(v.shape) for k, v in state.items()}) == DIGESTS[f"pidnet_{name}"]
    return state


def ddrnet(name: str) -> State:
    state = weights(shapes_of(build_empty(DDRNet, {"classes": 19} | DDRNETS[name])))
    assert digest({k: list(v.shape) for k, v in state.items()}) == DIGESTS[f"ddrnet_{name}"]
    return state


def imagenet_pidnet(name: str) -> State:
    """The published ImageNet file: the shared modules, and those that only the classifier has."""
    chosen = {key: PIDNETS[name][key] for key in ("width", "blocks", "deep_blocks") if key in PIDNETS[name]}
    return weights(shapes_of(build_empty(PIDNetClassifier, {"classes": 1000} | chosen)))


def saved_with_its_loss(state: State) -> State:
    loss = {f"{name}_loss.criterion.weight": torch.ones(19) for name in ("sem", "sb")}
    return {f"model.{key}": value for key, value in state.items()} | loss


def network_of(converted: Converted) -> nn.Module:
    """The network of the recipe with the converted weights, loaded strictly."""
    network = build(converted.network, path="network")
    assert isinstance(network, nn.Module)
    network.load_state_dict(converted.state)
    return network.eval()


# Wrapping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}, "best_mIoU": 0.7},
        lambda state: {"model": state, "iteration": 5},
        lambda state: {"module": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"net.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module.{key}": value for key, value in saved_with_its_loss(state).items()},
        lambda state: {"epoch": 3, "state_dict": saved_with_its_loss(state)},
    ],
)
def test_wrapping_is_undone(wrap: Any) -> None:
    state = pidnet(heads=False)
    converted = convert(wrap(state))
    assert converted.kind == "segmenter" and set(converted.state) == set(state)
    assert all(torch.equal(converted.state[key], state[key]) for key in state)
    assert all(reason == OF_THE_LOSS for reason in converted.dropped.values())


def test_peel_strips_only_what_every_key_has() -> None:
    value = torch.zeros(1)
    found = peel({"module.model.a.weight": value, "module.model.model.b": value, "module.loss.c": value})
    assert list(found.state) == ["a.weight", "model.b"] and found.dropped == {"module.loss.c": OF_THE_LOSS}
    assert list(peel({"model.a": value, "b": value}).state) == ["model.a", "b"]
    assert peel({"loss.a": value}).state == {}


def test_blocks_are_counted_by_their_numbers() -> None:
    value = torch.zeros(1)
    state = {"layer1.0.a": value, "layer1.1.a": value, "layer1.x.a": value, "layer12.5.a": value}
    assert count_blocks(state, "layer1") == 2
    assert count_blocks(state, "layer3") == 1  # the strict transfer then says what is missing
    assert count_blocks({"layer1.99999999.a": value}, "layer1") == 1  # no more than there are keys


def test_containers_are_opened_only_if_they_hold_names() -> None:
    assert find_weights({"model": torch.zeros(1)}).state.keys() == {"model"}
    assert find_weights({"model": {"state_dict": {"a": 1}}, "epoch": 2}).state == {"a": 1}
    circle: dict[str, Any] = {}
    circle["model"] = circle
    assert find_weights(circle).state is circle
    with pytest.raises(CheckpointError, match="'optimizer' holds a dict"):
        convert({"optimizer": {"state": torch.zeros(1)}})  # type: ignore[dict-item]


# PIDNet and DDRNet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIDNETS)
def test_pidnet_files(name: str) -> None:
    """481 or 547 entries: the training form, and the class weights of two losses."""
    state, image = pidnet(name), picture(64, 128)
    published = saved_with_its_loss(state)
    training, evaluation = convert(published), convert(published, options={"heads": False})
    given = {"classes": 19, **PIDNETS[name], "rectified_taps": True, "heads": True}
    assert training.network.items() >= given.items() and evaluation.network == training.network | {
        "heads": False
    }
    assert set(training.dropped) == {"sem_loss.criterion.weight", "sb_loss.criterion.weight"}
    heads = [key for key, reason in evaluation.dropped.items() if reason == TRAINING_ONLY]
    assert len(heads) == 26 and len(evaluation.dropped) == 28
    with torch.inference_mode():
        expected = PlainPidNet(state)(image)
        output = network_of(training)(image, heads=True)
        assert far(network_of(evaluation)(image).logits, expected[0]) < 1e-5
    for found, value in zip((output.logits, *output.auxiliary, output.boundary), expected, strict=True):
        assert far(found, value) < 1e-5


def test_a_file_without_heads_gives_the_evaluation_form() -> None:
    converted = convert(pidnet(heads=False, classes=11))
    assert converted.network["heads"] is False and converted.network["classes"] == 11
    with pytest.raises(CheckpointError, match="has the evaluation form"):
        convert(pidnet(heads=False), options={"heads": True})


def test_taps_of_another_code_base_are_an_option() -> None:
    converted = convert(pidnet(), options={"rectified_taps": False})
    assert converted.network["rectified_taps"] is False


@pytest.mark.parametrize("name", DDRNETS)
def test_ddrnet_files(name: str) -> None:
    state, image = ddrnet(name), picture(64, 128)
    published = {f"model.{key}": value for key, value in state.items()}
    training, evaluation = convert(published), convert(published, options={"heads": False})
    assert training.network.items() >= {"classes": 19, "heads": True, **DDRNETS[name]}.items()
    assert training.dropped == {} and len(evaluation.dropped) == (26 if name == "23_adb_bag" else 13)
    with torch.inference_mode():
        expected = PlainDdrNet(state)(image)
        output = network_of(training)(image, heads=True)
        assert far(network_of(evaluation)(image).logits, expected[0]) < 1e-5
    found = (output.logits, *output.auxiliary, *(() if output.boundary is None else (output.boundary,)))
    assert all(far(answer, value) < 1e-5 for answer, value in zip(found, expected, strict=True))


def test_ddrnet_imagenet_files() -> None:
    options = {"classes": 1000, "width": 32, "feature_width": 1024}
    state = weights(shapes_of(build_empty(DDRNetClassifier, options)))
    converted = convert({f"module.{key}": value for key, value in state.items()})
    assert converted.kind == "classifier" and converted.network.items() >= options.items()
    with torch.inference_mode():
        expected = PlainDdrNet(state).classify(picture(64, 64))
        assert far(network_of(converted)(picture(64, 64)), expected) < 1e-5


# From ImageNet to a segmenter ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("s", 302), ("m", 302), ("l", 374)])
def test_imagenet_weights_land_in_the_segmenter(name: str, count: int) -> None:
    converted = convert({"state_dict": imagenet_pidnet(name), "epoch": 100})
    assert converted.kind == "classifier" and "join" in converted.notes[0]
    segmenter = build_empty(PIDNet, {"classes": 19} | PIDNETS[name])
    found = partial_weights(converted.state, segmenter).state
    assert len(found) == count
    assert sum(not key.startswith("pag") for key in found) == count - 24
    trunk = {"conv1", "layer1", "layer2", "layer3", "layer4", "layer5", "compression3", "compression4",
             "pag3", "pag4", "layer3_", "layer4_", "layer5_"}  # fmt: skip
    assert {key.split(".")[0] for key in found} == trunk


def test_a_report_says_what_fits() -> None:
    segmenter = build_empty(DDRNet, {"classes": 19} | DDRNETS["23_slim"])
    state = {
        **ddrnet("23_slim"),
        "final_layer.conv2.weight": torch.zeros(11, 64, 1, 1),
        "extra": torch.zeros(1),
    }
    del state["conv1.0.bias"]
    found = partial_weights(state, segmenter)
    assert len(found.state) == 344 and found.missing == ("conv1.0.bias",) and found.unused == ("extra",)
    assert found.misfits == ("final_layer.conv2.weight (11, 64, 1, 1) instead of (19, 64, 1, 1)",)
    assert found.report() == (
        "344 tensors fit, 1 keep their initial values (conv1.0.bias), 1 were not used (extra), 1 have another "
        "shape (final_layer.conv2.weight (11, 64, 1, 1) instead of (19, 64, 1, 1))."
    )


def test_weights_that_hardly_fit_are_refused() -> None:
    segmenter = build_empty(PIDNet, {"classes": 19})
    wrapped = {f"model.{key}": value for key, value in pidnet().items()}
    for state in (wrapped, ddrnet("23"), {"a": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="Hardly any weights fit the PIDNet"):
            partial_weights(state, segmenter)
    with pytest.raises(CheckpointError, match="Hardly any"):
        partial_weights(imagenet_pidnet("m"), segmenter)  # the same names, twice the width


# Refusals -----------------------------------------------------------------------------------------------


def without(state: State, key: str) -> State:
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "layer3.1.bn1.bias"), r"1 missing: layer3\.1\.bn1\.bias"),
        (lambda s: s | {"head.weight": torch.zeros(3)}, r"1 unknown: head\.weight"),
        (lambda s: s | {"pag3.f_x.0.weight": torch.zeros(2, 2, 1, 1)}, r"pag3\.f_x\.0\.weight \(2, 2, 1, 1\) instead"),
        (lambda s: without(s, "conv1.0.weight"), r"no 'conv1\.0\.weight'"),
        (lambda s: s | {"final_layer.conv2.weight": torch.zeros(3)}, r"expected 4 dimensions"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("seghead_d")}, r"10 missing|13 missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(saved_with_its_loss(change(pidnet())))


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match=r"options\.head: no such choice.*Did you mean 'heads'"):
        convert(pidnet(), options={"head": False})
    with pytest.raises(ConfigError, match="expected true or false, found 'no'"):
        convert(pidnet(), options={"heads": "no"})
    with pytest.raises(ConfigError, match=r"options\.heads"):
        convert(imagenet_pidnet("s"), options={"heads": False})


def test_half_of_a_file_is_no_known_release() -> None:
    state = {key: value for key, value in pidnet().items() if not key.startswith(("pag", "layer5_"))}
    with pytest.raises(CheckpointError, match="nearest layout is 'pidnet'"):
        convert(state)


# The command --------------------------------------------------------------------------------------------


def run_command(state: Any, folder: Path, *options: str) -> Path:
    torch.save(state, folder / "published.pt")
    argv = [f"source={folder}/published.pt", f"output={folder}/converted.ckpt", *options]
    return convert_command(COMMAND.parse(argv))


def test_a_converted_segmenter_loads_and_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, image = pidnet(), picture(64, 64)
    with caplog.at_level(logging.INFO, "dvsn"):
        task: Any = dvsn.load(run_command(saved_with_its_loss(state), tmp_path, "heads=false"))
    assert "453 tensors used, 28 dropped" in caplog.text
    assert "26 dropped (seghead_p.bn1.weight" in caplog.text and TRAINING_ONLY in caplog.text
    assert f"2 dropped (sem_loss.criterion.weight, sb_loss.criterion.weight): {OF_THE_LOSS}" in caplog.text
    with torch.inference_mode():
        assert far(task.network(image).logits, PlainPidNet(state)(image)[0]) < 1e-5
    ids = task(torch.zeros(1, 3, 40, 56, dtype=torch.uint8))
    assert ids.shape == (1, 40, 56) and ids.dtype == torch.uint8 and int(ids.max()) < 19


def test_a_converted_classifier_starts_a_segmenter(tmp_path: Path) -> None:
    state = imagenet_pidnet("s")
    task: Any = dvsn.load(run_command({"state_dict": state, "epoch": 90}, tmp_path))
    assert task.classes == 1000
    segmenter = PIDNet(classes=11)
    found = partial_weights(task.network.state_dict(), segmenter).state
    assert len(found) == 302 and torch.equal(found["pag4.f_y.0.weight"], state["pag4.f_y.0.weight"])


def test_options_of_generators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test_norm: is for generators; .* is a segmenter"):
        run_command(pidnet(heads=False), tmp_path, "test_norm=batch")
    assert not (tmp_path / "converted.ckpt").exists()
