"""Networks on encoders of timm and torchvision, whole: three steps with a teacher, loaded, exported, benchmarked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose

import dvsn
from dvsn.benchmark.__main__ import benchmark, with_files
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.export.__main__ import COMMAND, export
from tests.distill import test_matrix as matrix
from tests.support.distill_stubs import fit, save_teacher
from tests.support.distilling import node_of
from tests.support.networks import require_extra
from tests.support.tiny import composed, write_pairs

schools = matrix.schools
SMALL = "network.name=test_resnet"
CASES = {
    "timm_classifier": ("classification", [SMALL]),
    "timm_segmenter": ("segmentation", [SMALL, "network.channels=16"]),
    "torchvision_segmentation": ("segmentation", ["network.name=lraspp_mobilenet_v3_large"]),
    "timm_pose": ("pose", [SMALL, "network.deconvolution_width=16"]),
    "timm_landmarks": ("landmarks", [SMALL]),
    "timm_detector": (
        "detection",
        ["network.backbone.name=test_resnet", "network.backbone.channels=8", "network.detections=4"],
    ),
    "timm_generator": ("pix2pix", [SMALL, "network.channels=16"]),
}


def options(network: str) -> list[str]:
    task, own = CASES[network]
    usual = [
        each
        for each in matrix.STUDENTS[task]
        if not each.startswith(("network", "loss.")) or (task == "detection" and "backbone" not in each)
    ]
    usual = [each for each in usual if not each.startswith("network=")]
    loss = ["loss=cross_entropy"] if task == "segmentation" else []
    return [*usual, f"network={network}", *own, *loss, "data.batch_size=2"]


def test_a_segmenter_is_taught(schools: Any, tmp_path: Path) -> None:
    taught("timm_segmenter", schools, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("network", CASES)
def test_a_network_is_taught_exported_and_benchmarked(network: str, schools: Any, tmp_path: Path) -> None:
    task, checkpoint = CASES[network][0], taught(network, schools, tmp_path)
    check_file(checkpoint, task, tmp_path)
    check_table(checkpoint, task)


def taught(network: str, schools: Any, tmp_path: Path) -> Path:
    """The checkpoint of three steps with a teacher of its own kind."""
    require_extra(network)
    task, _ = CASES[network]
    root = write_pairs(tmp_path / "pairs", size=32) if task == "pix2pix" else schools(task)[0]
    line = [*options(network), f"data.root={root}"]
    teacher = save_teacher(composed(line, tmp_path), tmp_path / "teacher.ckpt")
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=0"]
    config = composed([*line, *limits], tmp_path)
    config["task"]["optim"]["lr"] = (
        1e-5  # a published weight of the method, on networks that know nothing yet
    )
    _, trainer, _ = fit({**config, "teacher": str(teacher), "distill": {"at": node_of("at")}})
    assert trainer.global_step == 3
    assert float(trainer.callback_metrics["train/at"]) > 0
    return tmp_path / "checkpoints" / "last.ckpt"


def check_file(checkpoint: Path, task: str, folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    height, width = (64, 128) if task == "detection" else (64, 64)
    file = export(
        COMMAND.parse([str(checkpoint), f"output={folder / 'm.onnx'}", f"size={height}x{width}", "batch=1"])
    )
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    first, second = (dvsn.load(path) for path in (checkpoint, file))
    assert file.is_file() and type(first.predict(picture)) is type(second.predict(picture))


def check_table(checkpoint: Path, task: str) -> None:
    lines = ["device=cpu", "runs=1", "rounds=1", "variants=[folded]", "size=[64,64]"]
    with initialized(conf_dir()):
        result = benchmark(plain(compose("benchmark", overrides=[*lines, *with_files([str(checkpoint)])])))
    (group,) = result["groups"]
    rows = {row["variant"]: row for row in group["rows"]}
    assert group["task"] == task
    assert rows["folded"]["same"] > 0.99, rows


def test_the_cases_are_all_networks_on_encoders() -> None:
    found = {path.stem for path in Path(conf_dir(), "network").glob("t*.yaml")} - {"torchvision"}
    assert found == set(CASES)
