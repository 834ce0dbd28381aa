"""How the checkpoints of this folder were made: a record, to be run with the code of that time and no other.

    git worktree add old COMMIT
    PYTHONPATH=old python tests/old_checkpoints/make.py

COMMIT is 65f0641248d7beb991f60a75649c60c5c5acb731, after which the package was reorganised.

Every run of `RUNS` is `python -m dvsn.train`, started in a working folder with the data, so that all paths in a checkpoint
are relative. Of the unbroken run one `last.ckpt` is kept, the first or that of `KEPT`. Then it is resumed, which must end
with the weights of the unbroken run, and evaluated. What comes out goes into `expected.json`, whose `arguments` are the
whole command line, and the classes that configs named at that time into `targets.txt`.

One digest is younger: that of `landmarks`, resumed after labels of mirrored and turned faces were corrected by a picture
pixel (`tests/tasks/test_point_frames.py`). With transform.train.flip=0 transform.train.rotation=0 both ends are equal to
the bit.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import old_runs
import torch
import yaml

COMMIT = "65f0641248d7beb991f60a75649c60c5c5acb731"
COMMON = [
    "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=2", "channels_last=false", "seed=1",
    "data.workers=0",
]  # fmt: skip
STREET = [
    "data=street", "data.root=street", "data.scenes={train: 4, val: 2, test: 1}", "data.height=96",
    "data.width=192", "data.scene_seed=4", "data.batch_size=2",
]  # fmt: skip
FACES = ["data=wflw", "data.root=faces", "data.batch_size=2", "data.drop_last=false"]
CLASSES = [
    "task=classification", "data=imagefolder", "data.root=classes", "data.classes=3", "data.batch_size=4",
    "transform=cifar", "transform.crop_height=16", "transform.crop_width=16", "network=resnet8",
]  # fmt: skip
SMALL_HRNET = ["network.width=2", "network.bottlenecks=1", "network.bottleneck_width=4", "network.modules=[1,1,1]",
               "network.blocks=1"]  # fmt: skip
LONGER = ["trainer.max_epochs=10", "schedule.final_factor=0.5"]
QUIET = ["callbacks=none", "logger=none"]

RUNS: dict[str, list[str]] = {
    # the U-Net and its discriminator, two times Adam, a moving average, all callbacks and the log; from within an epoch
    "pix2pix": [
        "task=pix2pix", *STREET, *COMMON, "transform=none", "network=unet_128", "network.depth=3", "network.width=4",
        "discriminator=n_layers", "discriminator.layers=1", "discriminator.width=4", "schedule=linear_decay",
        "schedule.constant_epochs=1", "schedule.decay_epochs=1", "ema=0.9", "checkpoint.every_n_steps=1",
    ],
    "segmentation": [
        "task=segmentation", *STREET, *COMMON, *QUIET, "transform=segmentation_small", "transform.crop_height=64",
        "transform.crop_width=64", "network=pidnet_s", "network.width=2", "network.blocks=1", "network.deep_blocks=1",
        "network.pyramid_width=2", "network.head_width=4", "loss.terms.main.min_kept=100",
        "loss.terms.main_at_boundary.min_kept=100",
    ],
    "pose": [
        "task=pose", *STREET, *COMMON, *QUIET, "transform.size=[64,64]", "network=hrnet_small", *SMALL_HRNET,
        "codec=udp", "data.score=pck", "optim=sgd", "optim.lr=1", "schedule=step", "schedule.milestones=[20]",
        "trainer.max_epochs=40", "checkpoint.every_n_steps=1",
    ],
    "detection": [
        "task=detection", *STREET, *COMMON, *QUIET, "network=detector_small", "network.detector=fcos",
        "network.backbone._target_=old_backbone.TinyPyramid", "~network.backbone.depth",
        "~network.backbone.first_stride", "network.backbone.channels=32", "network.anchors=null", "network.min_size=96",
        "network.max_size=192", "network.score_threshold=0.001", "network.detections=50", "data.objects.smallest=20",
        "schedule.warmup_steps=2", "trainer.max_epochs=100",
    ],
    "landmarks": [
        "task=landmarks", *FACES, *COMMON, *QUIET, "transform.size=[32,32]", "network=pfld_025", "network.width=0.0625",
        "network.size=32", "network.auxiliary=false", "schedule=cosine", "optim.lr=0.001",
        "optim.eps=0.001",  # else weights whose true gradient is zero, before a norm, follow the rounding
        "checkpoint.every_n_steps=1",
    ],
    "landmarks_heatmaps": [
        "task=landmarks_heatmaps", *FACES, *COMMON, *QUIET, "transform.size=[64,64]", "network=hrnetv2_w18_face",
        *SMALL_HRNET, "optim=sgd", "optim.momentum=0", "optim.lr=10", "schedule.milestones=[15,18]",
        "trainer.max_epochs=20",
    ],
    "classification": [*CLASSES, *COMMON, *QUIET, *LONGER, "network.widths=[4,4,6,8]"],
    "distilled": [
        *CLASSES, *COMMON, *QUIET, *LONGER, "network.widths=[4,4,4,4]", "teacher=classification.ckpt", "distill=[kd,at]",
        "distill.at.weight=10", "optim=dot", "checkpoint.every_n_steps=2",
    ],
    # the teacher's class layer and a projector become part of the network
    "grafted": [
        *CLASSES, *COMMON, *QUIET, *LONGER, "network.widths=[4,4,4,4]", "teacher=classification.ckpt", "distill=simkd",
        "optim=adamw",
    ],
}  # fmt: skip
KEPT = {
    "pose": 77,
    "detection": 99,
    "landmarks_heatmaps": 19,
    "classification": 9,
    "distilled": 17,
    "grafted": 9,
}
"""Which of the times that last.ckpt was written is kept, where the first one would not have learned anything."""

SPLITS = {"pose": "train", "detection": "train"}  # what is measured, where it is not val
SIZES = {
    "detection": (96, 192), "landmarks": (32, 32), "classification": (16, 16), "distilled": (16, 16), "grafted": (16, 16),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    for path in old_runs.FOLDER.glob(f"*{old_runs.ENDING}"):
        path.unlink()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old_runs.write_data(folder)
        for run, arguments in RUNS.items():
            runs[run] = make(run, arguments, folder)
        found = sorted({*conf_targets(), *recipe_targets(folder), *GRAFTS})
    content = {"commit": COMMIT, "machine": old_runs.machine(), "runs": runs}
    old_runs.EXPECTED.write_text(f"{as_text(content)}\n", encoding="utf-8")
    lines = [f"{path} {target}\n" for path, target in found]
    old_runs.TARGETS.write_text("".join(lines), encoding="utf-8")


def make(name: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Train, keep a checkpoint on the way, and say what becomes of it."""
    import dvsn

    with keeping(folder / f"{name}.ckpt", KEPT.get(name, 1)):
        old_runs.command("train", [*arguments, f"hydra.run.dir=unbroken/{name}"], folder)
    old_runs.pack(folder / f"{name}.ckpt", name)
    leaks = re.findall(rb"(?:/tmp|/work|/home|/root)/[ -~]*", (folder / f"{name}.ckpt").read_bytes())
    assert not leaks, leaks
    content = old_runs.read(folder / f"{name}.ckpt")
    unbroken = old_runs.weights(old_runs.read(folder / "unbroken" / name / "checkpoints" / "last.ckpt"))
    resumed = old_runs.weights(old_runs.resume(name, arguments, folder))
    assert old_runs.digest(unbroken) == old_runs.digest(resumed) != old_runs.digest(old_runs.weights(content))
    size, split = SIZES.get(name, (64, 64)), SPLITS.get(name, "val")
    with old_runs.setting([]):
        task = dvsn.load(folder / f"{name}.ckpt")
    return {
        "arguments": arguments,
        "step": content["global_step"],
        "size": size,
        "answer": old_runs.answer(task, size),
        "split": split,
        "metrics": old_runs.evaluate(name, folder, split=split),
        "digest": old_runs.digest(resumed),
        "sums": old_runs.sums(resumed),
    }


@contextlib.contextmanager
def keeping(kept: Path, number: int) -> Iterator[None]:
    """Inside, last.ckpt is copied to `kept` when it is written for that time."""
    from dvsn.engine.checkpoint import AtomicCheckpointIO

    original, written = AtomicCheckpointIO.save_checkpoint, []

    def save(io: Any, checkpoint: dict[str, Any], path: Any, *rest: Any, **options: Any) -> None:
        original(io, checkpoint, path, *rest, **options)
        if Path(path).name == "last.ckpt":
            written.append(path)
            if len(written) == number:
                shutil.copy(path, kept)

    AtomicCheckpointIO.save_checkpoint = save  # type: ignore[method-assign]
    try:
        yield
    finally:
        AtomicCheckpointIO.save_checkpoint = original  # type: ignore[method-assign]


# Classes that configs name ----------------------------------------------------------------------------------------

GRAFTS = {("task.graft", "dvsn.networks.graft.LinearPair"), ("task.graft", "dvsn.networks.graft.Projector")}
"""Named by programs alone: in the recipes of `distill=norm` and `distill=simkd`."""


def conf_targets() -> Iterator[tuple[str, str]]:
    """Every class that a file of conf/ names, at its place in a composed config."""
    from dvsn.config.menu import conf_dir

    for file in sorted(Path(conf_dir()).rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        group = "" if "# @package _global_" in text else ".".join(file.relative_to(conf_dir()).parent.parts)
        yield from old_runs.targets(yaml.safe_load(text) or {}, group)


def recipe_targets(folder: Path) -> Iterator[tuple[str, str]]:
    """Every class that the checkpoints name."""
    for name in RUNS:
        header = old_runs.read(folder / f"{name}.ckpt")["dvsn"]
        yield from old_runs.targets(header["recipe"], "task")
        yield from old_runs.targets(header["data"], "data")


def as_text(content: Any) -> str:
    """JSON with a list of numbers or words on one line."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)


if __name__ == "__main__":
    main()
