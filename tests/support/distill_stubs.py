"""Methods of distillation for the tests of the core, and what a tiny distilled run needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.memory import reserve
from dvsn.distill.method import Facts, Kind, Method, Side, Stage, View
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.engine.resume import find_resume
from dvsn.types import Batch, Terms
from dvsn.weights import read_checkpoint
from tests.support.tiny import composed


class Hint(Method):
    """A trained 1x1 convolution from each of the student's maps to the teacher's, and what it was shown."""

    seen: Tensor

    def __init__(self, *, student: Side, teacher: Side, facts: Facts, momentum: float = 0.5) -> None:
        super().__init__()
        self.bridges = nn.ModuleList(
            nn.Conv2d(mine[0], other[0], 1)
            for mine, other in zip(student.features, teacher.features, strict=True)
        )
        self.momentum, self.facts = momentum, facts
        reserve((facts.samples,) if momentum < 1 else (1 << 58,))
        self.register_buffer("seen", torch.zeros(facts.samples))
        self.dtypes: set[Any] = set()

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        self.dtypes |= {x.dtype for view in (student, teacher) for x in (view.output, *view.features)}
        self.autocast = torch.is_autocast_enabled("cpu")
        losses = [
            (bridge(mine).mean((2, 3)) - other.mean((2, 3))).pow(2).mean()
            for bridge, mine, other in zip(self.bridges, student.features, teacher.features, strict=True)
        ]
        return {"hint": torch.stack(losses).sum()}

    def after_step(self, student: View, teacher: View, batch: Batch) -> None:
        assert not torch.is_grad_enabled()
        self.seen[batch["index"]] += self.momentum


class Soft(Method):
    """Half the squared distance of outputs, in two terms."""

    reads: ClassVar[tuple[Kind, ...]] = ("classes", "pixels", "heatmaps", "points", "image")

    def __init__(self, *, student: Side, teacher: Side) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        self.calls += 1
        other = teacher.output
        if other.ndim == 4 and other.shape[-2:] != student.output.shape[-2:]:
            other = F.interpolate(other, size=student.output.shape[-2:])
        distance = (student.output - other).pow(2).mean()
        return {"soft_near": distance / 4, "far": distance / 4}


class ClassesOnly(Soft):
    reads: ClassVar[tuple[Kind, ...]] = ("classes",)


class First(Hint):
    """Trains the student's features and its bridges in an initial stage, and adds nothing afterwards."""

    def __init__(
        self, *, student: Side, teacher: Side, facts: Facts, momentum: float = 0.5, epochs: int = 2
    ) -> None:
        super().__init__(student=student, teacher=teacher, facts=facts, momentum=momentum)
        self.stage = Stage(epochs, student=True)
        self.finishes = 0

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        return {"first": super().forward(student, teacher, batch)["hint"]}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        return {}

    def finish_stage(self) -> None:
        self.finishes += 1
        self.bridges.requires_grad_(False)


class Second(Method):
    """Trains a module on the teacher's side first, then follows it."""

    def __init__(self, *, student: Side, teacher: Side, epochs: int = 1) -> None:
        super().__init__()
        self.stage = Stage(epochs, student=False)
        self.code = nn.Conv2d(teacher.features[0][0], 2, 1)
        self.follow = nn.Conv2d(student.features[0][0], 2, 1)

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        assert not student.features and student.output.numel() == 0
        return {"code": (self.code(teacher.features[0]) - 1).pow(2).mean()}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, other = self.follow(student.features[0]), self.code(teacher.features[0])
        return {"second": (mine.mean((2, 3)) - other.mean((2, 3))).pow(2).mean()}

    def finish_stage(self) -> None:
        self.code.requires_grad_(False)


def node(kind: type, *, weight: float = 1.0, taps: Any = None, **more: Any) -> dict[str, Any]:
    """What a method's YAML would hold."""
    part = {key: more.pop(key) for key in ("start", "end", "ramp", "task_weight") if key in more}
    method = {"_target_": f"{kind.__module__}.{kind.__name__}", "_partial_": True, **more}
    return {"weight": weight, "taps": taps, "start": 0, "end": None, "ramp": 0, **part, "method": method}


SMALL = [
    "task=classification", "network=resnet8", "transform=none", "callbacks=none", "logger=none", "trainer=cpu",
    "trainer.enable_progress_bar=false", "data.workers=0", "data.classes=3", "data.batch_size=6", "data.eval_batch_size=4",
    "trainer.max_epochs=2", "optim.lr=0.01",
]  # fmt: skip


def distilled(root: Path, folder: Path, teacher: Any, methods: dict[str, Any], *more: str) -> dict[str, Any]:
    """The config of a classifier's run with the nodes of its methods."""
    config = composed([*SMALL, f"data.root={root}", *more], folder)
    return {**config, "teacher": teacher, "distill": methods}


def prepare(config: dict[str, Any]) -> tuple[Any, Any]:
    """Task and data of a config, distilled if it says so."""
    data, task = runtime.build_data(config), runtime.make_task(config)
    task.ask_data(data)
    teaching.distil(task, config, data)
    return task, data


def fit(config: dict[str, Any], *callbacks: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Train, from the newest checkpoint if there is one: task, trainer and last.ckpt."""
    torch.set_num_threads(1)
    folder = Path(config["run_dir"]) / "checkpoints"
    resume = find_resume("auto", folder.parent)
    task, data = prepare(config)
    trainer = runtime.build_trainer(config, task)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    return task, trainer, read_checkpoint(folder / "last.ckpt")


def save_teacher(config: dict[str, Any], path: Path) -> Path:
    """A checkpoint of a task that was not trained, its norms no identities."""
    from dvsn.engine.checkpoint import AtomicCheckpointIO

    torch.manual_seed(7)
    task = runtime.make_task(config)
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path
