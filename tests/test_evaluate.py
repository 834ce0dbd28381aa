"""`dvsn evaluate`: in float32, and what was measured is said beside every table and in metrics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf

import dvsn
from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.engine import devices
from dvsn.engine import trainer as runtime
from dvsn.errors import CheckpointError, ConfigError
from dvsn.evaluate import evaluate
from dvsn.weights import read_checkpoint
from tests.support.tiny import (
    TINY,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_pairs,
    write_people,
    write_scenes,
)


def untrained(words: list[str], folder: Path) -> Path:
    """The checkpoint of a task that was not trained."""
    torch.set_num_threads(1)
    task = runtime.make_task(composed(words, folder))
    task.data_recipe = composed(words, folder)["data"]
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    torch.save(content, folder / "untrained.ckpt")
    return folder / "untrained.ckpt"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenter")
    return untrained([*TINY_SEGMENTATION, f"data.root={write_scenes(folder / 'scenes')}"], folder)


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which training would take bf16."""
    monkeypatch.setattr(devices, "bf16_choice", lambda *, cuda: devices.Choice(True, "pretended"))
    monkeypatch.setattr(runtime, "bf16_choice", lambda *, cuda: devices.Choice(False, "pretended"))


def measured(*words: str) -> dict[str, Any]:
    """What metrics.json says of a measurement."""
    options = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", *words]
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose("evaluate", overrides=options), resolve=True)
    evaluate(config)
    content = json.loads((Path(config["output"]) / "metrics.json").read_text())
    record: dict[str, Any] = content["measured"]
    return record


@pytest.mark.usefixtures("fast_bf16")
def test_it_is_float32_whatever_the_machine(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = measured(f"checkpoint={segmenter}", f"output={tmp_path}")
    assert record == {
        "precision": "32-true", "mode": "whole", "scales": [1.0], "mirror": False, "samples": 3, "samples_in_split": 3,
        "size": [[64, 64], [64, 64]],
    }  # fmt: skip
    line = "measured: 3 of 3 samples, 64x64, float32, whole pictures, scales 1, not mirrored"
    shown = capsys.readouterr().out
    assert shown.count(line) == 2, "under the scores, and under the table by class"


def test_another_precision_is_taken_when_named_and_told(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "trainer.precision=bf16-mixed",
        "inference.scales=[0.5,1]",
        "inference.flip=true",
        "inference.mode=slide",
    ]
    words += [
        "inference.window=[32,64]",
        "inference.stride=[16,32]",
        "trainer.limit_test_batches=2",
        "batch_size=1",
    ]
    record = measured(f"checkpoint={segmenter}", f"output={tmp_path}", *words)
    assert (record["precision"], record["mode"], record["mirror"]) == ("bf16-mixed", "slide", True)
    assert (record["scales"], record["window"], record["stride"]) == ([0.5, 1.0], [32, 64], [16, 32])
    assert (record["samples"], record["samples_in_split"]) == (2, 3)
    line = "2 of 3 samples, 64x64, bf16-mixed, windows of 32x64 by 16x32, scales 0.5, 1, averaged with the mirrored"
    assert line in capsys.readouterr().out


def test_of_pix2pix_dropout_and_statistics_are_told(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", train=2, val=2)
    checkpoint = untrained([*TINY, f"data.root={pairs}", "network.norm=batch"], tmp_path)
    record = measured(
        f"checkpoint={checkpoint}", f"output={tmp_path / 'out'}", "test_norm=batch", "test_dropout=true"
    )
    assert (record["test_norm"], record["test_dropout"], record["size"]) == (
        "batch",
        True,
        [[16, 16], [16, 16]],
    )


@pytest.mark.parametrize("kind", ["segmentation", "pose", "pix2pix"])
def test_the_precision_that_is_told_is_the_networks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keypoints and painted pictures are measured in float32 also where bfloat16 is asked for."""
    words, write = {
        "segmentation": (TINY_SEGMENTATION, write_scenes),
        "pose": (TINY_POSE, write_people),
        "pix2pix": (TINY, write_pairs),
    }[kind]
    checkpoint = untrained([*words, f"data.root={write(tmp_path / 'set', train=2, val=2)}"], tmp_path)
    seen, forward = set(), torch.nn.Conv2d.forward

    def watched(self: Any, image: torch.Tensor) -> torch.Tensor:
        answer = forward(self, image)
        seen.add(answer.dtype)
        return answer

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    record = measured(
        f"checkpoint={checkpoint}", f"output={tmp_path / 'out'}", "trainer.precision=bf16-mixed"
    )
    told = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}[record["precision"]]
    assert seen == {told} and (told == torch.float32) == (kind != "segmentation")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, segmenter: Path, tmp_path: Path) -> None:
    content = read_checkpoint(segmenter)
    name = next(key for key in content["state_dict"] if key.endswith("weight"))
    content["state_dict"][name].view(-1)[0] = value
    torch.save(content, tmp_path / "diverged.ckpt")
    with pytest.raises(CheckpointError, match=r"diverged\.ckpt: 1 of \d+ tensors .* not finite") as caught:
        measured(f"checkpoint={tmp_path / 'diverged.ckpt'}", f"output={tmp_path}")
    assert name in str(caught.value)
    with pytest.raises(CheckpointError, match="not finite"):
        dvsn.load(tmp_path / "diverged.ckpt")


EVALUATIONS = {
    "trainer.limit_test_batches=0": r"limit_test_batches: found 0, so nothing .* Set trainer\.limit_test_batches=1\.0",
    "inference.resize=x": r"^inference\.resize: found 'x', expected \[HEIGHT, WIDTH\]",
    "inference.flip=often": "^inference.flip: found 'often'",
    "checkpoint=5": "checkpoint: found 5, expected the path",
    "checkpoint=null": "checkpoint: found None, expected the path",
}


@pytest.mark.parametrize("option", EVALUATIONS)
def test_options_that_measure_nothing(option: str, segmenter: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={segmenter}"] if not option.startswith("checkpoint") else []
    with pytest.raises(ConfigError, match=EVALUATIONS[option]):
        measured(*given, f"output={tmp_path}", option)


def test_options_may_be_null(segmenter: Path, tmp_path: Path) -> None:
    given = [
        f"checkpoint={segmenter}",
        f"output={tmp_path}",
        "pictures=null",
        "metrics=null",
        "inference=null",
    ]
    assert measured(*given)["samples"] == 3
