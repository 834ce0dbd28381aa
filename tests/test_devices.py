"""Every task and every method on a GPU that is not there: nothing mixes devices, and no training step waits for it twice.

Forward passes, autocast in bfloat16 and float16, the steps of the optimisers, validation and what is shipped run on
pretended `cuda`; backward passes on `meta`, since one on pretended `cuda` wants a driver (`tests/support/pretended.py`).
`meta` is chosen over `cpu:1`, whose index constructors of tensors forget.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor

from dvsn.distill.taps import roles
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.tasks.base import Task
from dvsn.tasks.classification import Classification
from dvsn.tasks.detection import Detection
from tests.config.test_partners import NETWORKS
from tests.distill import test_matrix as matrix
from tests.support.pretended import Scaler, Waits, moved, pretended_cuda, pretended_meta
from tests.support.tiny import composed

schools = matrix.schools
TASKS = {
    **matrix.STUDENTS,
    "landmarks_pfld": [each for each in matrix.STUDENTS["landmarks"] if not each.startswith("loss=")],
    "landmarks_heatmaps": [
        "task=landmarks_heatmaps", "data=faces68", "transform.size=[64,64]", "data.workers=0", "data.batch_size=4",
        "network=hrnet_small", "network.width=4", "network.bottlenecks=1", "network.bottleneck_width=8",
        "network.blocks=1", "callbacks=none", "logger=none", "trainer=cpu", "trainer.enable_progress_bar=false",
    ],
}  # fmt: skip
FIRST = {"segmentation": ["dvsn/losses/segmentation.py"]}
"""Of the first training step of a run, the files that wait for the device: labels are looked at once."""


def data_of(task: str) -> str:
    return "landmarks" if task.startswith("landmarks") else task


def built(config: dict[str, Any], *, taught: bool = False) -> tuple[Task, dict[str, Any]]:
    """A task on the CPU, perhaps with its distiller, and a training batch."""
    data, task = runtime.build_data(config), runtime.make_task(config)
    task.ask_data(data)
    if taught:
        teaching.distil(task, config, data)
    read = data.open("train", augment=True)
    join: Any = getattr(read, "collate", None)
    from dvsn.data.module import collate

    batch = (join or collate)([read[0, index] for index in range(min(4, len(read)))])
    return task, batch


def on_the_way(task: Task, batch: dict[str, Any], device: str) -> dict[str, Any]:
    """A training batch as it reaches the device."""
    task._trainer = SimpleNamespace(training=True)  # type: ignore[assignment]
    sent: dict[str, Any] = moved(task.on_before_batch_transfer(batch, 0), device)
    task._trainer = None
    return sent


def step(task: Task, batch: dict[str, Any], *, backward: bool = False) -> None:
    """What a training step runs on the device: all terms, the guard against NaN, and what methods do afterwards."""
    if task.kind == "pix2pix":
        condition, target = task.prepare(batch)  # type: ignore[operator]
        output = task.generate(condition)  # type: ignore[operator]
        terms = task.discriminator_objective(condition, output.detach(), target)[0]  # type: ignore[operator]
        terms = {**terms, **task.generator_objective(condition, output, target, batch)}  # type: ignore[operator]
    else:
        terms = task.learn(batch)
    wanted = batch["image"][0].device.type
    assert terms and all(term.device.type == wanted for term in terms.values())
    task.finite.watch(
        task.must_be_finite() | {name: term.detach().float() for name, term in terms.items()}, step=0, epoch=0
    )
    if backward:
        torch.stack([term.float() for term in terms.values()]).sum().backward()
    if task.distiller is not None:
        with torch.no_grad():
            task.distiller.after_backward()


def two_steps(
    task: Task, batch: dict[str, Any], waits: Waits, dtype: torch.dtype = torch.bfloat16
) -> tuple[list[str], list[str]]:
    """What waited for the device in the first and in the second step, on autocast."""
    found = []
    for _ in range(2):
        waits.found.clear()
        with torch.autocast("cuda", dtype=dtype):
            step(task, batch)
        found.append(waits.own)
    return found[0], found[1]


@pytest.fixture(scope="module")
def config_of(schools: Any) -> Any:
    @functools.cache
    def config(task: str) -> dict[str, Any]:
        root, _ = schools(data_of(task))
        return composed([*TASKS[task], f"data.root={root}"], root)

    return lambda task: copy.deepcopy(config(task))


@pytest.mark.parametrize("name", TASKS)
def test_a_training_step_does_not_wait_for_the_gpu(name: str, config_of: Any) -> None:
    task, batch = built(config_of(name))
    with pretended_cuda() as waits:
        task.to("cuda")
        first, second = two_steps(task, on_the_way(task, batch, "cuda"), waits)
    assert [each.partition(":")[0] for each in first] == FIRST.get(name, [])
    assert second == []


def scaled_step(task: Task, batch: dict[str, Any]) -> Scaler:
    """A step as Lightning makes it with precision 16-mixed: scaled terms, unscaled and clipped gradients, the optimisers."""
    scaler = Scaler("cuda")
    plugin = MixedPrecision("16-mixed", "cuda", scaler=scaler)
    with plugin.forward_context():
        step(task, batch)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=None if task.kind == "pix2pix" else 1.0,
    )  # fmt: skip
    task.trainer, task.gradient_clip_val = trainer, 1.0  # type: ignore[assignment]
    trainer.strategy._lightning_module, trainer.strategy._precision_plugin = task, plugin  # type: ignore[attr-defined]
    with mock.patch.object(type(task), "attach_schedule", lambda *_: None):
        found = task.configure_optimizers()
    for optimizer in [found["optimizer"]] if isinstance(found, dict) else found[0]:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        loss = plugin.pre_backward(torch.ones((), device="cuda"), task)
        plugin.optimizer_step(optimizer, task, functools.partial(lambda value: value, loss))
        assert all(parameter.device.type == "cuda" for parameter in parameters)
    return scaler


@pytest.mark.parametrize("name", TASKS)
def test_a_step_in_float16_does_not_wait_for_the_gpu(name: str, config_of: Any) -> None:
    """Nor do unscaling and clipping; what PyTorch's own scaler asks the device is not among what is counted."""
    task, batch = built(config_of(name))
    with pretended_cuda() as waits:
        task.to("cuda")
        there = on_the_way(task, batch, "cuda")
        _, second = two_steps(task, there, waits, torch.float16)
        assert second == []
        scaler = scaled_step(task, there)
    assert waits.own == []
    assert len(scaler.unscaled) == len(scaler.scaled) == (2 if task.kind == "pix2pix" else 1)


WITH = {
    "segmentation": ["loss=ohem", "transform=resize_256"],
    "pix2pix": ["transform=resize_256", "data.batch_size=2"],
    "detection": ["data.batch_size=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"), [(name, each) for name, found in NETWORKS.items() for each in sorted(found)]
)
def test_every_network_stays_on_the_gpu(name: str, network: str, schools: Any) -> None:
    """As published, in a training step and in validation."""
    root, _ = schools(data_of(name))
    kept = [
        each
        for each in TASKS[name]
        if not each.startswith(("network", "loss.", "transform.base", "transform.crop"))
    ]
    side = 112 if name == "landmarks" else 128
    size = (
        [f"transform.size=[{side},{side}]"] if any(each.startswith("transform.size") for each in kept) else []
    )
    task, batch = built(
        composed([*kept, f"network={network}", f"data.root={root}", *size, *WITH.get(name, [])], root)
    )
    with pretended_cuda() as waits:
        task.to("cuda")
        there = on_the_way(task, batch, "cuda")
        _, second = two_steps(task, there, waits)
        assert second == []
        task.eval()
        with torch.no_grad():
            task(there["image"])


DETECTORS = [
    "mask_rcnn",
    "cascade_rcnn",
    "cascade_mask_rcnn",
    "htc",
    "centernet",
    "centernet_triplets",
    "fcos",
]
IN_TURN = [pytest.param(each, marks=[] if each == "centernet" else pytest.mark.slow) for each in DETECTORS]
SAMPLED = {
    "cascade_rcnn": {"mask as an index": 12},
    "cascade_mask_rcnn": {"mask as an index": 12, "nonzero": 12},
    "htc": {"mask as an index": 12, "nonzero": 12},
}
"""Of a training step of four pictures, what waits in dvsn's own files: three stages leave the true boxes out of the next
one's, and those with masks take the boxes that are objects, a picture at a time, as torchvision's own stage does."""


def detector(name: str, schools: Any) -> tuple[Task, dict[str, Any]]:
    """A small detector of another kind, and a batch of four pictures."""
    more = ["network.backbone.first_stride=8", "network.backbone.channels=32"] if name == "fcos" else []
    root, _ = schools("detection")
    return built(
        composed([*TASKS["detection"], f"network.detector={name}", f"data.root={root}", *more], root)
    )


@pytest.mark.parametrize("name", IN_TURN)
def test_every_detector_stays_on_the_gpu(name: str, schools: Any) -> None:
    """Training steps, in the second of which waits are counted, the network in use, and what is shipped."""
    task, batch = detector(name, schools)
    with pretended_cuda() as waits:
        task.to("cuda")
        there = on_the_way(task, batch, "cuda")
        _, second = two_steps(task, there, waits)
        assert Counter(each.partition(" ")[2] for each in second) == SAMPLED.get(name, {})
        task.eval()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            found = [task.find(there["image"]), task.deployable()(there["image"])]  # type: ignore[operator]
    tensors = [each for each in torch.utils._pytree.tree_leaves(found) if isinstance(each, Tensor)]
    assert tensors and all(each.device.type == "cuda" for each in tensors)


@pytest.mark.parametrize("name", IN_TURN)
def test_a_backward_pass_of_every_detector_stays_on_its_device(name: str, schools: Any) -> None:
    task, batch = detector(name, schools)
    with pretended_meta():
        task.to("meta")
        step(task, on_the_way(task, batch, "meta"), backward=True)
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.device.type == "meta" for gradient in gradients)


COUNTED = {"segmentation": ("bincount",), "detection": ("item", "to cpu")}
"""Of a validation step of dvsn's own, what waits for the device: counts of pairs of classes; COCO's score, which is kept on
the CPU, takes all objects of a batch at once."""


@pytest.mark.parametrize("name", TASKS)
def test_validation_and_what_is_shipped_stay_on_the_gpu(name: str, config_of: Any) -> None:
    config = config_of(name)
    task, batch = built(config)
    data = runtime.build_data(config)
    task.ask_data(data)
    with pretended_cuda() as waits, torch.no_grad():
        task.to("cuda").eval()
        task.metrics.to("cuda")
        if isinstance(task, Classification):
            task.class_score.to("cuda")
        there = moved(batch, "cuda")
        if hasattr(task, "score") and hasattr(task.score, "attach"):
            task.score.attach(data.open("train"))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            waits.found.clear()
            output = task.validation_step(there, 0)
            waited = {each.partition(" ")[2] for each in waits.own}
        assert waited <= set(COUNTED.get(task.kind, ())), waits.own
        shipped = task.deployable()
        state = [*shipped.parameters(), *shipped.buffers()]
        assert state and all(tensor.device.type == "cuda" for tensor in state)
        answers = [output, shipped(there["image"])]
    tensors = [
        each
        for answer in answers
        for each in torch.utils._pytree.tree_leaves(answer)
        if isinstance(each, Tensor)
    ]
    assert tensors and all(tensor.device.type == "cuda" for tensor in tensors)


@pytest.mark.parametrize("name", TASKS)
def test_a_backward_pass_stays_on_its_device(name: str, config_of: Any) -> None:
    """On `meta`: one that the CPU has a share in raises, or leaves a gradient there."""
    task, batch = built(config_of(name))
    with pretended_meta():
        task.to("meta")
        step(task, on_the_way(task, batch, "meta"), backward=True)
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.device.type == "meta" for gradient in gradients)


def test_crowd_regions_are_left_out_before_they_reach_the_device() -> None:
    """Two objects and a crowd between them; in validation the score wants all three."""
    target = {
        "boxes": torch.tensor([[0.0, 0, 4, 4], [0, 0, 9, 9], [5, 5, 8, 8]]),
        "labels": torch.tensor([1, 2, 3]),
        "crowd": torch.tensor([0, 1, 0], dtype=torch.uint8),
    }
    task = Detection.__new__(Detection)
    LightningModule.__init__(task)
    task.network = SimpleNamespace(semantic_classes=None)  # type: ignore[assignment]
    for training in (True, False):
        task._trainer = SimpleNamespace(training=training)  # type: ignore[assignment]
        (found,) = Detection.on_before_batch_transfer(task, {"target": [target]}, 0)["target"]
        assert found["labels"].tolist() == ([1, 3] if training else [1, 2, 3])
        assert ("crowd" in found) is not training
    assert found["boxes"].shape == (3, 4)


# Methods of distillation ------------------------------------------------------------------------------


def taught(methods: Sequence[str], task: str, schools: Any, folder: Path) -> dict[str, Any]:
    """The config of a small student that learns by methods, which need the same networks."""
    first = methods[0]
    root, teacher = schools(task, equal=first in matrix.EQUAL, more=matrix.MORE.get(first, ()))
    config = matrix.student_of(task, first) | {"teacher": str(teacher), "distill": {}, "run_dir": str(folder)}
    config["data"]["root"] = str(root)
    declared = roles(runtime.make_task(config).student)
    smaller = matrix.SMALLER | ({"initial_epochs": 0} if task == "pix2pix" else {})
    for method in methods:
        node = matrix.node_of(method)
        node["method"] |= {key: value for key, value in smaller.items() if key in node["method"]}
        usual = node["taps"]
        if isinstance(usual, str):
            node["taps"] = usual if usual in declared else matrix.OTHERWISE[usual]
            if usual == "stem_and_stages" and len(declared["stages"]) < 2:
                node["taps"] = [["layer1", "layer1"], [*declared["stages"], *declared["stages"]]]
        config["distill"][method] = node
    return config


def check_methods(
    methods: Sequence[str], task_name: str, schools: Any, folder: Path, dtype: torch.dtype = torch.bfloat16
) -> None:
    task, batch = built(taught(methods, task_name, schools, folder), taught=True)
    assert task.distiller is not None
    stages = [0, task.distiller.initial_epochs] if task.distiller.stages else [0]
    with pretended_cuda() as waits:
        task.to("cuda")
        there = on_the_way(task, batch, "cuda")
        task.distiller.begin("cuda")
        for epoch in stages:
            task.distiller.enter(epoch, [])
            _, second = two_steps(task, there, waits, dtype)
            assert second == [], (epoch, second)
        if dtype == torch.float16 and not task.distiller.only:
            scaled_step(task, there)
        task.distiller.end()


ONCE = dict(reversed(matrix.PAIRS))


def together() -> list[tuple[tuple[str, ...], str]]:
    """Every method once: those that need the same networks at the same time, those that change the student or have an
    initial stage by themselves."""
    groups: dict[Any, list[str]] = {}
    for method, task in sorted(ONCE.items()):
        own = matrix.class_of(method).grafts or "initial_epochs" in matrix.node_of(method)["method"]
        same = (task, method in matrix.EQUAL, matrix.MORE.get(method), method if own else "")
        groups.setdefault(same, []).append(method)
    return [(tuple(methods), key[0]) for key, methods in groups.items()]


@pytest.mark.parametrize(
    ("methods", "task"), together(), ids=lambda each: each if isinstance(each, str) else each[0]
)
def test_methods_do_not_wait_for_the_gpu(
    methods: tuple[str, ...], task: str, schools: Any, tmp_path: Path
) -> None:
    check_methods(methods, task, schools, tmp_path)


@pytest.mark.parametrize(("method", "task"), [(name, ONCE[name]) for name in ("dkd", "omgd")])
def test_a_method_in_float16(method: str, task: str, schools: Any, tmp_path: Path) -> None:
    check_methods([method], task, schools, tmp_path, torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), matrix.PAIRS)
def test_every_method_in_float16(method: str, task: str, schools: Any, tmp_path: Path) -> None:
    check_methods([method], task, schools, tmp_path, torch.float16)


def check_backward(method: str, task_name: str, schools: Any, folder: Path) -> None:
    """On `meta`, in each stage of the method: gradients of the student and of what the method brings."""
    task, batch = built(taught([method], task_name, schools, folder), taught=True)
    assert task.distiller is not None
    with pretended_meta():
        task.to("meta")
        there = on_the_way(task, batch, "meta")
        task.distiller.begin("meta")
        for epoch in [0, task.distiller.initial_epochs] if task.distiller.stages else [0]:
            task.distiller.enter(epoch, [])
            task.zero_grad()
            step(task, there, backward=True)
            gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
            assert gradients and all(gradient.device.type == "meta" for gradient in gradients)
        task.distiller.end()


@pytest.mark.parametrize(
    ("method", "task"), [(name, ONCE[name]) for name in ("kd", "at", "fitnet", "sp", "crd")]
)
def test_a_backward_pass_of_a_method_stays_on_its_device(
    method: str, task: str, schools: Any, tmp_path: Path
) -> None:
    check_backward(method, task, schools, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), matrix.PAIRS)
def test_every_backward_pass_stays_on_its_device(
    method: str, task: str, schools: Any, tmp_path: Path
) -> None:
    check_backward(method, task, schools, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), [pair for pair in matrix.PAIRS if pair not in ONCE.items()])
def test_every_method_and_task_stay_on_the_gpu(method: str, task: str, schools: Any, tmp_path: Path) -> None:
    check_methods([method], task, schools, tmp_path)
