"""What a run does not use is not imported: one training, evaluation and prediction in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

UNUSED = (
    "torchvision", "scipy.signal", "scipy.stats", "matplotlib", "wandb", "tensorboard", "torch.utils.tensorboard", "pandas",
    "transformers", "sklearn", "skimage", "onnx", "onnxruntime", "openvino", "optuna", "torch_fidelity", "IPython",
)  # fmt: skip
"""Modules that take a good part of a second each, or more, of which pix2pix on the street uses none."""

SCRIPT = f"""
import runpy, sys
from unittest import mock

def run(module, *words):
    with mock.patch.object(sys, "argv", [module, *words]):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            assert not stop.code, (module, stop.code)

run("dvsn.train", "experiment=demo", "trainer=fast_dev_run", "trainer.max_epochs=1", "name=fast", "data.root=street",
    "data.scenes={{train: 1, val: 1, test: 1}}", "data.height=64", "data.width=128", "data.workers=0", "network.depth=5",
    "transform.load_height=32", "transform.load_width=64", "transform.crop_height=32", "transform.crop_width=64",
    "trainer.accelerator=cpu", "hydra.run.dir=run")
run("dvsn.evaluate", "checkpoint=run/checkpoints/best.ckpt")
run("dvsn.predict", "run/checkpoints/best.ckpt", "street/gtFine/val/*/*_labelIds.png", "device=cpu")
print("LOADED", *[name for name in {UNUSED!r} if name in sys.modules])

import importlib
arniqa, dists = (importlib.import_module("torchmetrics.functional.image." + name) for name in ("arniqa", "dists"))
import torchvision
assert dists.VGG16_Weights.IMAGENET1K_V1 is torchvision.models.VGG16_Weights.IMAGENET1K_V1
assert type(arniqa.resnet50(weights=None)) is torchvision.models.ResNet
assert type(arniqa.transforms.Normalize([0.5], [0.5])) is torchvision.transforms.Normalize
print("WORKS")
"""


def test_a_run_imports_what_it_uses(tmp_path: Path) -> None:
    """And what torchmetrics has of torchvision works all the same when it is used."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "LOADED" in lines, [line for line in lines if line.startswith("LOADED")]
    assert "WORKS" in lines
    assert list((tmp_path / "predictions").glob("*.png"))
    assert (tmp_path / "run" / "evaluation" / "best_val" / "metrics.json").is_file()
