"""Every method of conf/distill with every task that it suits: composed, built, three steps trained, student shipped."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import dvsn
from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.distill.method import Method
from dvsn.distill.taps import roles
from dvsn.engine import trainer as runtime
from tests.support.coco import write_coco
from tests.support.distill_stubs import fit, save_teacher
from tests.support.distilling import node_of
from tests.support.tiny import (
    TINY,
    TINY_DETECTION,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_blobs,
    write_pairs,
    write_people,
    write_scenes,
)

METHODS = sorted(file.stem for file in Path(conf_dir(), "distill").glob("*.yaml") if file.stem != "none")
KINDS = {
    "classification": "classes",
    "segmentation": "pixels",
    "pose": "heatmaps",
    "landmarks": "points",
    "detection": "objects",
    "pix2pix": "image",
}
STUDENTS = {
    "classification": [
        "task=classification", "network=resnet8", "transform=none", "callbacks=none", "logger=none", "trainer=cpu",
        "trainer.enable_progress_bar=false", "data.workers=0", "data.classes=3", "data.batch_size=6",
    ],
    "segmentation": TINY_SEGMENTATION,
    "pose": TINY_POSE,
    "landmarks": [
        "task=landmarks", "data=faces68", "network=pfld_025", "loss=wing", "transform.size=[64,64]", "network.size=64",
        "data.workers=0",
        "data.batch_size=4", "callbacks=none", "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false",
    ],
    "detection": TINY_DETECTION,
    "pix2pix": [*TINY, "network.norm=batch", "data.batch_size=2"],
}  # fmt: skip
TEACHERS = {
    "classification": ["network=resnet14"],
    "segmentation": ["network.width=6"],
    "pose": ["network.width=6"],
    "landmarks": ["network.width=0.5"],
    "detection": ["network.backbone.channels=12"],
    "pix2pix": ["network.width=6"],
}
EQUAL = ("fsp", "dwpose_head")  # methods that need as many channels in both networks, or the same network
MORE = {"ld": ("network.detector=gfl", "network.backbone.first_stride=8")}
"""What both networks need for a method that not all of a task's networks suit."""
STAGED = (("ft", "pix2pix"),)  # a method that cannot do without its initial stage, and the task that has none
OTHERWISE = {"pre_activation": "stages", "stem_and_stages": "stages", "pooled": "last"}
"""What is tapped where a network does not say where a method's usual taps are."""
SMALLER = {"negatives": 8, "initial_epochs": 1, "memory": 64, "contrast": 32}


def write_faces(root: Path, *, count: int = 8, size: int = 80) -> Path:
    """Pictures of noise with points on a circle, as a table."""
    random = np.random.default_rng(0)
    names = composed(STUDENTS["landmarks"], Path("x"))["data"]["keypoints"]["names"]
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        lines = ["image,width,height," + ",".join(f"{name}_{axis}" for name in names for axis in "xy")]
        for index in range(count):
            angles = np.linspace(0, 2 * np.pi, len(names)) + random.uniform(0, 1)
            points = size / 2 + size / 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            picture = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / f"{index}.png"), picture)
            lines.append(f"{index}.png,{size},{size}," + ",".join(f"{v:.2f}" for v in points.flatten()))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


WRITERS: dict[str, Any] = {
    "classification": functools.partial(write_blobs, train=4),
    "segmentation": write_scenes,
    "pose": write_people,
    "landmarks": write_faces,
    "detection": write_coco,
    "pix2pix": write_pairs,
}


@pytest.fixture(scope="module")
def schools(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a task: its data and a teacher, made when first asked for."""

    @functools.cache
    def root_of(task: str) -> Path:
        root: Path = WRITERS[task](tmp_path_factory.mktemp(task))
        return root

    @functools.cache
    def school(task: str, *, equal: bool = False, more: tuple[str, ...] = ()) -> tuple[Path, Path]:
        root, other = root_of(task), [] if equal else TEACHERS[task]
        config = composed([*STUDENTS[task], *other, *more, f"data.root={root}"], root)
        return root, save_teacher(config, root / f"teacher_{equal}_{len(more)}.ckpt")

    return school


@functools.cache
def composed_once(task: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    limits = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=0"]
    return composed([*STUDENTS[task], *limits, *more], Path("runs/test"))


def student_of(task: str, method: str = "") -> dict[str, Any]:
    return copy.deepcopy(composed_once(task, MORE.get(method, ())))


@functools.cache
def class_of(method: str) -> type[Method]:
    return build(node_of(method)["method"], path=f"distill.{method}.method").func


def reads(method: str) -> tuple[str, ...]:
    return class_of(method).reads


PAIRS = [
    (method, task)
    for method in METHODS
    for task, kind in KINDS.items()
    if (not reads(method) or kind in reads(method)) and (method, task) not in STAGED
]


def smallest() -> set[tuple[str, str]]:
    """Of the matrix: every method once, and every task with a method of each sort.

    A sort is what is tapped, and whether there is an initial stage. Methods with few tasks choose first: the task that
    still lacks their sort, or else their cheapest. `make test-slow` runs the others.
    """
    chosen, met = set(), set()
    tasks_of: dict[str, list[str]] = {}
    for method, task in PAIRS:
        tasks_of.setdefault(method, []).append(task)
    for method, tasks in sorted(tasks_of.items(), key=lambda each: len(each[1])):
        task = next((each for each in tasks if sort_of(method, each) not in met), tasks[0])
        chosen.add((method, task))
        met.add(sort_of(method, task))
    for method, task in PAIRS:
        if sort_of(method, task) not in met:
            chosen.add((method, task))
            met.add(sort_of(method, task))
    return chosen


@functools.cache
def sort_of(method: str, task: str) -> tuple[str, str, bool]:
    options = node_of(method)
    tapped = OTHERWISE.get(str(options["taps"]), str(options["taps"]))
    return task, tapped, "initial_epochs" in options["method"]


SMALLEST = smallest()
CASES = [
    pytest.param(*pair, id="-".join(pair), marks=() if pair in SMALLEST else pytest.mark.slow)
    for pair in PAIRS
]


def test_the_smallest_matrix_has_every_method_and_every_task() -> None:
    assert {method for method, _ in SMALLEST} == set(METHODS) and {task for _, task in SMALLEST} == set(KINDS)


@pytest.mark.parametrize(("method", "task"), CASES)
def test_it_trains(method: str, task: str, schools: Any, tmp_path: Path) -> None:
    root, teacher = schools(task, equal=method in EQUAL, more=MORE.get(method, ()))
    node = node_of(method)
    smaller = SMALLER | ({"initial_epochs": 0} if task == "pix2pix" else {})  # where there are no stages
    node["method"] |= {key: value for key, value in smaller.items() if key in node["method"]}
    config = student_of(task, method) | {
        "teacher": str(teacher),
        "distill": {method: node},
        "run_dir": str(tmp_path),
    }
    config["data"]["root"] = str(root)
    config["task"]["optim"]["lr"] = 1e-5  # published weights, on networks that know nothing yet
    usual = node["taps"]
    if isinstance(usual, str):
        declared = roles(runtime.make_task(config).student)
        node["taps"] = usual if usual in declared else OTHERWISE[usual]
        if usual == "stem_and_stages" and len(declared["stages"]) < 2:
            node["taps"] = [
                ["layer1", "layer1"],
                [*declared["stages"], *declared["stages"]],
            ]  # HRNet for pose names one
    _, trainer, saved = fit(config)
    assert not any("teacher" in key for key in saved["state_dict"])
    logged = {name.removeprefix("train/") for name in trainer.callback_metrics if name.startswith("train/")}
    assert any(name == method or name.startswith(f"{method}_") for name in logged), logged
    shipped = dvsn.load(tmp_path / "checkpoints" / "last.ckpt").deployable()
    assert not any("distill" in key for key in shipped.state_dict())
