"""The base of all tasks: networks, an objective, metrics, and a recipe that can rebuild the task."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from dvsn.analysis.record import Matrix
from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.networks.graft import Graft
from dvsn.optim.schedules import Schedule
from dvsn.pictures.layers import Layers
from dvsn.portable.bands import shown_bands
from dvsn.tasks.loop import OptimizerFactory
from dvsn.tasks.student import Student
from dvsn.types import Batch
from dvsn.version import VERSION


class Task(Student):
    """A LightningModule with what prediction, evaluation and checkpoints need to know of a task.

    A task writes:

    - `networks` and `use_metrics` (see `dvsn.tasks.loop.Loop`);
    - `normalise` and `objective`, how an answer of the network becomes named terms (see `dvsn.tasks.student.Student`);
    - `configure_optimizers`, unless it is a `NetworkTask`;
    - `_evaluate`, the step of validation and test;
    - `panels`, `answer` and `deployable`: how an output becomes pictures, and what is shipped.

    `recipe` is the task's own config and `data_recipe` that of its data, both as plain data; the checkpoint carries them, so
    that `dvsn.load` needs nothing else.

    `gradient_clip_val` and `accumulate_grad_batches` are read here only by tasks that optimise by hand.
    """

    kind: ClassVar[str] = "task"
    """The word that names the task in messages and checkpoints."""

    needs_unused_parameters: ClassVar[bool] = False
    """True when a backward pass leaves parameters without gradient, which DDP must be told."""

    optimizer_names: ClassVar[tuple[str, ...]] = ("network",)
    """The name of each optimiser of `configure_optimizers`, for the log."""

    measures_in_float32: ClassVar[bool] = False
    """Whether validation is in float32 also where training is mixed."""

    answers: ClassVar[tuple[str, ...]] = ()
    """The kinds of picture that `answer` can make, the usual first."""

    samples: ClassVar[str | None] = None
    """The kind of samples that it reads: `dataset` (pictures), `people` or `objects`; None: not stated."""

    targets: ClassVar[tuple[str, ...] | None] = None
    """The kinds of array that it can learn: `photo`, `label` or `number`; None: not stated."""

    shows: ClassVar[str] = "pictures"
    """The form of its answer: `pictures`, `classes`, `objects`, `people` or `faces`, which is the name of a file of
    `dvsn.predict`."""

    input_classes: int = 0
    """K when the input is a map of ids below K, 0 when it is a picture."""

    input_channels: int = 3
    """Of an input that is a picture: 3 are RGB, 1 its brightness."""

    def __init__(self, *, optim: OptimizerFactory, schedule: Schedule | None = None) -> None:
        super().__init__(optim=optim, schedule=schedule)
        self.recipe: dict[str, Any] = {}
        self.data_recipe: dict[str, Any] = {}
        self.validated_classes: list[dict[str, Any]] = []  # `by_class` of the last validation
        self.test_details: dict[str, list[dict[str, Any]]] = {}
        self.test_pictures: dict[str, Any] = {}
        self.test_files: dict[str, Any] = {}

    # Input ------------------------------------------------------------------------------------------

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """A data node from the command line as this task wants it, such as which picture is the target."""
        return node

    def ask_data(self, data: Any) -> None:
        """Tell the data module what is learnt, and what batches must hold beside pictures, before it opens anything."""
        data.learns = self.targets

    def check_sides(self, batch: Batch) -> None:
        """Raise `DataError` when the network cannot take pictures of this size."""

    def show_input(self, image: Tensor) -> Tensor:
        """The input (N, C, H, W) as an RGB picture (N, 3, H, W)."""
        bands = self.data_recipe.get("bands") or {}
        return (
            image[:, list(shown_bands(image.shape[1], bands.get("shown")))] if image.shape[1] != 3 else image
        )

    # Output -----------------------------------------------------------------------------------------

    def _evaluate(self, batch: Batch) -> Any:
        """Updates the metrics with the answer for a batch, and returns the answer."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, _: int) -> Any:
        return self._evaluate(batch)

    def test_step(self, batch: Batch, _: int) -> Any:
        return self._evaluate(batch)

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """Pictures of a batch by column title: uint8 RGB (N, 3, H, W), all of one size."""
        raise NotImplementedError

    def layers(self, batch: Batch, output: Any) -> list[Layers]:
        """The pictures of a batch, with answer and truth as layers; empty where an answer has no such form."""
        return []

    def matrices(self) -> tuple[Matrix, ...]:
        """Counts by true and predicted class since the metrics were reset, over all processes; each has to ask."""
        return ()

    def answer(self, image: Tensor, kind: str) -> Tensor:
        """uint8 inputs (N, C, H, W) -> uint8 pictures (N, 3, H, W), or ids (N, H, W), of one of `answers`."""
        raise NotImplementedError

    def deployable(self) -> nn.Module:
        """The network as it is shipped: normalisation included, training parts left out, eval mode."""
        raise NotImplementedError

    def results(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """Pictures or ids that evaluation writes as files when all results are wanted, by the name of their folder; in the
        form of `answer`."""
        return {}

    def by_class(self) -> list[dict[str, Any]]:
        """The scores of a validation by class, or by keypoint: a row each with its name first, all with the same columns.
        Empty for a task that has none, or for which they would cost much."""
        return []

    def on_validation_epoch_end(self) -> None:
        self.validated_classes = self.by_class()
        super().on_validation_epoch_end()

    def details(self) -> dict[str, list[dict[str, Any]]]:
        """Tables behind the scores of a test, by title: a list of rows, each with the same columns."""
        return {}

    def detail_pictures(self) -> dict[str, Any]:
        """Pictures behind the scores of a test, by file stem: uint8 RGB arrays (H, W, 3)."""
        return {}

    def files(self) -> dict[str, Any]:
        """What a test gives to others, such as a results file that a server takes: content by file name. A name that
        ends with .csv has a list of rows, each with the same columns; any other file is JSON."""
        return {}

    def on_test_epoch_end(self) -> None:
        self.test_details, self.test_pictures = self.details(), self.detail_pictures()
        self.test_files = self.files()
        super().on_test_epoch_end()

    # Recipe -----------------------------------------------------------------------------------------

    def use_graft(self, node: dict[str, Any]) -> None:
        """Build `node`, a class of `dvsn.networks.graft`, into the student as further layers, and into the recipe."""
        graft = build(node, path="task.graft")
        if not isinstance(graft, Graft):
            raise ConfigError("task.graft: expected a node whose _target_ is a class of dvsn.networks.graft.")
        graft.install(self.student)
        self.recipe = {**self.recipe, "graft": node}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["dvsn"] = {
            **checkpoint.get("dvsn", {}),
            "format": 1,
            "version": VERSION,
            "task": self.kind,
            "recipe": self.recipe,
            "data": self.data_recipe,
        }
        super().on_save_checkpoint(checkpoint)
