"""A checkpoint of each of the six tasks, with drawn weights: no training, a second or two in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from tests.support.tiny import TINY, TINY_DETECTION, TINY_POSE, TINY_SEGMENTATION, composed

QUIET = ["callbacks=none", "logger=none", "trainer=cpu"]
OPTIONS = {
    "pix2pix": [*TINY, "network.norm=batch", "network.depth=4", "network.dropout_steps=[1,2]", "task.test_dropout=true"],
    "segmentation": [*TINY_SEGMENTATION, "network=pidnet_s"],
    "detection": [*TINY_DETECTION, "data=street", "network.detector=mask_rcnn", "network.detections=6"],
    "pose": TINY_POSE,
    "landmarks": ["task=landmarks", "network=pfld_025", "loss=wing", "data=faces68", *QUIET],
    "classification": [
        "task=classification", "data=cifar10", "network=resnet8", "data.dataset.names=[red,green,blue]",
        "data.classes=3", "transform=cifar", *QUIET,
    ],
}  # fmt: skip
TASKS = tuple(OPTIONS)


def write_checkpoint(name: str, folder: Path) -> Path:
    """The checkpoint of a task with weights that its seed draws."""
    config = composed(OPTIONS[name], folder)
    task: Any = runtime.make_task(config).eval()
    if name == "segmentation":  # classes that differ over a picture
        with torch.no_grad():
            for module in task.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_var.fill_(0.1)  # type: ignore[union-attr, operator]
    state: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(state)
    AtomicCheckpointIO().save_checkpoint(state, folder / f"{name}.ckpt")
    return folder / f"{name}.ckpt"
