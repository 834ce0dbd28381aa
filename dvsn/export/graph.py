"""What leaves: one module around a trained task, from uint8 pictures to named tensors, by the task's own evaluation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.folding import fold_batch_norms
from dvsn.networks.precision import TYPES, Adapted
from dvsn.tasks.base import Task
from dvsn.tasks.inference import resize, scores

Sides = tuple[int, int]
"""Height and width in pixels."""

RESIZERS = ("Resize", "RandomCrop", "CenterCrop")
"""Steps of a transform behind which all pictures are of one size."""


class Output(NamedTuple):
    """One tensor of an answer: its name, its type, its axes in order, and what its numbers are."""

    name: str
    type: str
    axes: tuple[str, ...]
    meaning: str


class Graph(nn.Module):
    """A task's evaluation as one function of one tensor: uint8 pictures (N, C, H, W) -> a tensor for each of `outputs`.

    Normalisation, the order of colours, the mirror and the scales of the recipe, and the decoding of heatmaps are inside.
    `raw` leaves the decoding out: logits, heatmaps.
    """

    outputs: tuple[Output, ...]
    raw_outputs: ClassVar[tuple[Output, ...]] = ()
    one_at_a_time: ClassVar[bool] = False
    """Whether the batch is one picture, because the number of answers differs from picture to picture."""
    wants_offset: bool = False
    """Whether there is a second input, `offset` (N,) float32: see `dvsn.data.face_crop.FaceCrop`."""
    any_sides: ClassVar[bool] = True
    """Whether pictures of other sides than those of training make sense; crops have the sides of their codec."""

    def __init__(self, task: Task, *, raw: bool = False) -> None:
        super().__init__()
        if raw and not self.raw_outputs:
            raise ConfigError(
                f"raw: the task '{task.kind}' has no answer before decoding that could be exported."
            )
        self.task, self.raw = task, raw
        if raw:
            self.outputs = self.raw_outputs

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return ("image", "offset") if self.wants_offset else ("image",)


class Pixels(Graph):
    """Segmentation: class ids, by the recipe's `inference` (one scale; mirrored or not)."""

    outputs = (Output("ids", "uint8", ("batch", "height", "width"), "class of each pixel"),)
    raw_outputs = (
        Output(
            "logits", "float32", ("batch", "class", "height", "width"), "of each class, at the picture's size"
        ),
    )

    def __init__(self, task: Any, *, raw: bool = False) -> None:
        super().__init__(task, raw=raw)
        if task.inference.mode != "whole":
            raise ConfigError(
                "inference.mode: windows that slide are no part of an exported file, whose caller cuts them. Give "
                "inference.mode=whole."
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        task: Any = self.task
        swaps = task.vocabulary.swaps if task.inference.flip else ()
        answer = scores(
            task.ask, task.normalise(image), task.inference, align_corners=task.align_corners, swaps=swaps
        )
        answer = resize(answer, image.shape[-2:], align_corners=task.align_corners)
        return (answer if self.raw else answer.argmax(dim=1).to(torch.uint8),)


class Picture(Graph):
    """Image translation: the generated picture."""

    outputs = (
        Output(
            "picture",
            "float32",
            ("batch", "channel", "height", "width"),
            "RGB in [0, 1]; of one channel grey",
        ),
    )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.task(image),)


class Classes(Graph):
    """Classification: a probability for each class."""

    outputs = (Output("probabilities", "float32", ("batch", "class"), "sum to 1"),)
    raw_outputs = (Output("logits", "float32", ("batch", "class"), "before the soft-max"),)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits = self.task(image)
        return (logits if self.raw else logits.softmax(dim=1),)


class Points(Graph):
    """Pose and landmarks: points of each crop and how sure they are, mirrored crops averaged as the recipe has it."""

    outputs = (
        Output(
            "points",
            "float32",
            ("batch", "keypoint", "xy"),
            "x and y in pixels of the crop, centres at integers",
        ),
        Output(
            "confidence", "float32", ("batch", "keypoint"), "the peak of the heatmap; 1 where there is none"
        ),
    )
    raw_outputs = (Output("heatmaps", "float32", ("batch", "keypoint", "row", "column"), "one a keypoint"),)
    any_sides = False

    def __init__(self, task: Any, *, raw: bool = False) -> None:
        super().__init__(task, raw=raw)
        if raw and not hasattr(task, "maps"):
            raise ConfigError("raw: this network answers with points, there are no heatmaps before them.")
        self.wants_offset = task.response == "points" and task.flip_test and not task.crop().centred

    def forward(self, image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, ...]:
        task: Any = self.task
        return (task.maps(image),) if self.raw else task.estimate(image, offset)


class Objects(Graph):
    """Detection: boxes, labels and scores of one picture after suppression, the best first; masks where there are any."""

    outputs: tuple[Output, ...] = (
        Output("boxes", "float32", ("object", "xyxy"), "x1, y1, x2, y2 in pixels of the picture"),
        Output("labels", "int64", ("object",), "class, 0 being the background"),
        Output("scores", "float32", ("object",), "in [0, 1], falling"),
    )
    one_at_a_time = True

    def __init__(self, task: Any, *, raw: bool = False) -> None:
        super().__init__(task, raw=raw)
        if task.network.masks:
            mask = Output(
                "masks", "float32", ("object", "one", "height", "width"), "share of each pixel, in [0, 1]"
            )
            self.outputs = (*self.outputs, mask)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        task: Any = self.task
        found = task.network([image[0].float() / 255])[0]
        return tuple(found[output.name] for output in self.outputs)


GRAPHS: dict[str, type[Graph]] = {
    "pixels": Pixels, "image": Picture, "classes": Classes, "heatmaps": Points, "points": Points, "objects": Objects,
}  # fmt: skip
"""By what a task's network answers with (`Task.response`)."""


def graph_of(task: Task, *, raw: bool = False, precision: str = "fp32", fold: bool = True) -> Graph:
    """The graph of a copy of a trained task, in evaluation mode on the CPU, with `fold` its batch norms folded.

    `precision` fp16 and bf16: the network computes in it, what is around it in float32. Raises `ConfigError` for a task
    that has no graph.
    """
    kind = GRAPHS.get(str(getattr(task, "response", None)))
    if kind is None:
        raise ConfigError(
            f"checkpoint: the task '{task.kind}' answers with '{task.response}', which cannot be exported. Expected one of "
            f"{', '.join(GRAPHS)}."
        )
    require_repeatable(task)
    own = copied(task)
    graph = kind(own, raw=raw)
    if kind is Objects:
        if precision in TYPES:
            raise ConfigError(f"precision: found {precision}; detectors are exported in fp32 or int8.")
        return graph.eval().requires_grad_(False)
    multiple = int(getattr(own.network, "multiple", 1))
    if fold and getattr(own, "test_norm", "") != "batch":  # the statistics of a test picture are none to fold
        shown = example(own, 1, recipe_sides(own) or fitting((64, 64), multiple))
        encoder = getattr(own, "encoder", None)
        shape = shown.shape if encoder is None else encoder(shown).shape
        own.network = fold_batch_norms(own.network, shape).network
    if precision in TYPES:
        own.network = Adapted(own.network, dtype=TYPES[precision])
        own.network.multiple = multiple
    return graph.eval().requires_grad_(False)


def copied(task: Task) -> Any:
    """A copy on the CPU without what only training reads, such as a discriminator or a teacher."""
    task = copy.deepcopy(task).cpu().eval()
    for name in ("discriminator", "distiller"):
        if isinstance(getattr(task, name, None), nn.Module):
            setattr(task, name, None)
    return task


def require_repeatable(task: Any) -> None:
    """Raise `ConfigError` for a task that is tested with dropout, whose answer no file can repeat."""
    drops = any(isinstance(module, nn.modules.dropout._DropoutNd) for module in task.network.modules())
    if getattr(task, "test_dropout", False) and drops:
        raise ConfigError(
            "checkpoint: its recipe tests with dropout, so no two answers are the same. Give test_dropout=false to export "
            "the generator without it."
        )


def input_channels(task: Any) -> int:
    """How many planes the input has: of class ids one, and one more of instance edges; else red, green, blue, or what the
    network of the task reads."""
    classes = int(getattr(task, "input_classes", 0))
    if not classes:
        return int(getattr(task, "input_channels", 3))
    return 1 + bool((task.data_recipe.get("pair") or {}).get("edges", False))


def example_inputs(graph: Graph, image: Tensor) -> tuple[Tensor, ...]:
    """All inputs of the graph for an `image` (N, C, H, W): an offset is a little less than half a crop pixel."""
    return (image, torch.linspace(0.2, 0.4, len(image))) if graph.wants_offset else (image,)


def example(task: Any, batch: int, sides: Sequence[int], *, seed: int = 0) -> Tensor:
    """A made-up input (batch, C, H, W) uint8: smooth noise of pictures, or ids below the number of classes."""
    generator = torch.Generator().manual_seed(seed)
    channels, classes = input_channels(task), int(getattr(task, "input_classes", 0))
    coarse = torch.rand(batch, channels, *(max(2, side // 8) for side in sides), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=tuple(sides), mode="bilinear", align_corners=False)
    if not classes:
        return (smooth * 255).round().to(torch.uint8)
    planes = [(smooth[:, :1] * classes).clamp(max=classes - 1), (smooth[:, 1:] > 0.5).float()]
    return torch.cat(planes, dim=1).to(torch.uint8)


def fitting(sides: Sides, multiple: int) -> Sides:
    """The sides made larger until they divide."""
    return (-(-sides[0] // multiple) * multiple, -(-sides[1] // multiple) * multiple)


def recipe_sides(task: Any) -> Sides | None:
    """The sides of the pictures that the recipe evaluates: of its crops, or what its transform resizes to; None: any."""
    for holder in (getattr(task, "codec", None), task):
        size = getattr(holder, "size", None)
        if isinstance(size, tuple | list) and len(size) == 2:
            return int(size[0]), int(size[1])
    steps = (task.data_recipe.get("transform") or {}).get("eval")
    for step in reversed(steps if isinstance(steps, list) else []):
        name = str(step.get("_target_", "")).rpartition(".")[2]
        if name in RESIZERS and isinstance(step.get("height"), int) and isinstance(step.get("width"), int):
            return step["height"], step["width"]
    return None
