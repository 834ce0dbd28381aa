"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from dvsn.analysis.record import Matrix
from dvsn.config.build import build
from dvsn.data.boundary import boundary_map
from dvsn.data.class_ids import distinct_palette
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError
from dvsn.losses.segmentation import Objective
from dvsn.metrics.segmentation import Absent, BoundaryScore, SegmentationScore
from dvsn.networks.widening import widen
from dvsn.pictures import matrices
from dvsn.pictures.grids import to_array
from dvsn.pictures.layers import Layers
from dvsn.tasks.inference import Inference, Read, answers, pieces, read_options, resize
from dvsn.tasks.network import NetworkTask
from dvsn.tasks.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise, fit
from dvsn.tasks.student import Student
from dvsn.types import Batch, SegmentationOutput, Terms, Vocabulary


class Segmenter(nn.Module):
    """What is shipped: uint8 RGB (N, 3, H, W) -> class ids (N, H, W) uint8, or logits (N, K, H, W) float32.

    `size` of the answer is the picture's. `answer` is `ids` or `logits`.
    """

    def __init__(
        self, normalise: nn.Module, network: nn.Module, *, align_corners: bool, answer: str = "ids"
    ) -> None:
        super().__init__()
        self.normalise, self.network = normalise, network
        self.align_corners, self.answer = align_corners, answer

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(self.normalise(image), heads=False).logits
        logits = resize(logits, image.shape[-2:], align_corners=self.align_corners)
        return logits if self.answer == "logits" else logits.argmax(dim=1).to(torch.uint8)


class Segmentation(NetworkTask):
    """Per-pixel classification by one network.

    A batch holds `image`, uint8 RGB (N, 3, H, W), and `target`, uint8 ids (N, 1, H, W) with 255 ignored; and
    `boundary` (N, 1, H, W), made by the data module when the loss needs it.

    - `mean`, `std`: of RGB in [0, 1]; the networks' ImageNet files want the defaults. As many numbers as the pictures have
      channels: the network's first convolutions are made to read them (`dvsn.networks.widening`).
    - `inference`: see `dvsn.tasks.inference.Inference`; used by validation, evaluation and prediction.
    - `absent`: whether a class that neither labels nor predictions hold is left out of the means (`skip`) or
      counts as 0 (`zero`, as the code of PIDNet and HRNet has it).
    - `shared`: the options of every `NetworkTask`.

    Logits are resized to the label with the network's own `align_corners`.

    `listener`, where it is set, hears the scores of each picture of which ids are made, (1, K, H, W) at the picture's size,
    and whether they are probabilities, as those of several scales, or logits.
    """

    kind: ClassVar[str] = "segmentation"
    response: ClassVar[Kind] = "pixels"
    samples: ClassVar[str | None] = "dataset"
    targets: ClassVar[tuple[str, ...] | None] = ("label",)
    answers: ClassVar[tuple[str, ...]] = ("color", "overlay", "ids", "submission")

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: Objective,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        inference: dict[str, Any] | None = None,
        absent: Absent = "skip",
        **shared: Any,
    ) -> None:
        super().__init__(network=widen(network, len(mean)), **shared)
        self.loss, self.input_channels = loss, len(mean)
        self.normalise = Normalise(mean=mean, std=std)
        self.align_corners = bool(getattr(network, "align_corners", False))
        if loss.align_corners is None:
            loss.align_corners = self.align_corners
        self.inference = read_options(inference)
        self.absent = absent
        self.listener: Callable[[Tensor, bool], None] | None = None
        self.use_metrics()

    @property
    def classes(self) -> int:
        return self.loss.classes

    @property
    def needs_unused_parameters(self) -> bool:  # type: ignore[override]
        """DDP must look for heads that no term of the loss reads, unless both kinds of training heads are read."""
        read = {term.head for term in self.loss.terms.values()}
        return not {"auxiliary", "boundary"} <= read

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.vocabulary.names if self.data_recipe else ()

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Names and colours of the classes, from the data set of the recipe; numbers where it has none."""
        found = build(self.data_recipe, path="data").vocabulary if self.data_recipe else None
        if found is not None and len(found.names) == self.classes:
            return found
        names = tuple(f"class {number}" for number in range(self.classes))
        return Vocabulary(names, distinct_palette(self.classes))

    # Training ---------------------------------------------------------------------------------------

    def ask_data(self, data: Any) -> None:
        super().ask_data(data)
        data.outlines = self.loss.boundary_options

    def objective(self, output: SegmentationOutput, batch: Batch) -> Terms:
        """The loss's named terms."""
        boundary, options = batch.get("boundary"), self.loss.boundary_options
        if boundary is None and options is not None:
            boundary = draw_outlines(batch["target"], options)
        return self.loss(output, batch["target"][:, 0], None if boundary is None else boundary[:, 0])

    # Evaluation and use -----------------------------------------------------------------------------

    def use_metrics(self, *, boundary_score: bool = False, absent: Absent | None = None) -> None:  # type: ignore[override]
        """`boundary_score` adds the boundary F-score, which takes a CPU some 0.1 s a megapixel."""
        scores: dict[str, Any] = {
            "score": SegmentationScore(classes=self.classes, absent=absent or self.absent)
        }
        if boundary_score:
            scores["boundary"] = BoundaryScore(classes=self.classes)
        self._metrics = (MetricCollection(scores),)

    def ask(self, image: Tensor) -> Tensor:
        size = self.teaching_size if self.evaluated_as_taught else None
        return self.network(self.layout(fit(image, size)), heads=False).logits

    def evaluate_as_taught(self, student: Student) -> None:
        super().evaluate_as_taught(student)
        self.inference = Inference()

    def predict_ids(self, image: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) -> class ids (N, H, W) uint8, by the recipe's inference."""
        swaps = self.vocabulary.swaps if self.inference.flip else ()
        scores = answers(
            self.ask, self.normalise(image), self.inference, align_corners=self.align_corners, swaps=swaps
        )
        found = []
        for score in scores:
            if self.listener is not None:
                self.listener(score, self.inference.scales != (1.0,))
            # the place of the maximum: on a CPU 2 to 4 times as fast as argmax, which leaves the channels' order in memory
            found.append(score.max(dim=1).indices.to(torch.uint8))
        return torch.cat(found)

    def predict_pieces(
        self, read: Read, size: tuple[int, int], *, device: str, together: int = 1
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """The class ids of a picture of `size` (H, W) that is read by windows: top, left and (h, w) uint8 of rectangles that
        cover it, row after row. They are those of `predict_ids`.

        `read` gives uint8 RGB (1, 3, height, width) from top, left, height and width. The inference slides, at one scale.
        """
        swaps = self.vocabulary.swaps if self.inference.flip else ()

        def seen(*place: int) -> Tensor:
            return self.normalise(read(*place).to(device))  # type: ignore[no-any-return]

        found = pieces(
            self.ask,
            seen,
            size,
            self.inference,
            align_corners=self.align_corners,
            swaps=swaps,
            together=together,
        )
        for top, left, score in found:
            yield top, left, score[0].max(dim=0).indices.to(torch.uint8).cpu().numpy()

    def forward(self, image: Tensor) -> Tensor:
        return self.predict_ids(image)

    def _evaluate(self, batch: Batch) -> Tensor:
        predicted = self.predict_ids(batch["image"])
        self.metrics.update(predicted, batch["target"][:, 0])
        return predicted

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        photo = self.show_input(batch["image"])
        columns = {"photo": photo, "prediction": self.paint(output)}
        if "target" in batch:
            truth = batch["target"][:, 0]
            columns["label"] = self.paint(truth)
            wrong = ((output != truth) & (truth != 255)).unsqueeze(1)  # (N, 1, H, W)
            faded = (photo.float() * 0.4).to(torch.uint8)
            columns["errors"] = torch.where(wrong, torch.full_like(faded, 255), faded)
        return columns

    def layers(self, batch: Batch, output: Tensor) -> list[Layers]:
        pictures = to_array(self.show_input(batch["image"]))
        masks = {"prediction": to_array(output)}
        if "target" in batch:
            masks["label"] = to_array(batch["target"][:, 0])
        return [
            Layers(
                name, pictures[i], self.vocabulary.names, masks={key: ids[i] for key, ids in masks.items()}
            )
            for i, name in enumerate(batch["name"])
        ]

    def matrices(self) -> tuple[Matrix, ...]:
        with self.score.sync_context(should_sync=self.score.distributed_available_fn()):
            counts = self.score.confusion.tolist()
        names = tuple(self.vocabulary.names)
        return (Matrix("confusion", "Confusion", names, names, tuple(map(tuple, counts)), unit="pixels"),)

    def answer(self, image: Tensor, kind: str) -> Tensor:
        return self._as(self.predict_ids(image), kind, image)

    def _as(self, ids: Tensor, kind: str, image: Tensor) -> Tensor:
        """Class ids as `color`, as `overlay` on the picture, as `ids`, or as ids of the data set's files."""
        if kind == "ids":
            return ids
        if kind == "submission":
            numbers = self.vocabulary.file_ids
            if not numbers:
                raise ConfigError(
                    "write: this data set's files hold the class ids themselves; there is no other numbering for a "
                    "test server. Use write=ids of python -m dvsn.predict."
                )
            kind_of_number = torch.uint8 if max(numbers) < 256 else torch.int32
            return torch.tensor(numbers, dtype=kind_of_number, device=ids.device)[ids.long()]
        colors = self.paint(ids)
        if kind == "color":
            return colors
        return ((self.show_input(image).float() + colors.float()) / 2).round().to(torch.uint8)

    def results(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        kinds = ["color", "ids", *(["submission"] if self.vocabulary.file_ids else [])]
        return {kind: self._as(output, kind, batch["image"]) for kind in kinds}

    @property
    def score(self) -> SegmentationScore:
        found = self.metrics["score"]
        assert isinstance(found, SegmentationScore)
        return found

    def details(self) -> dict[str, list[dict[str, Any]]]:
        with self.score.sync_context(should_sync=self.score.distributed_available_fn()):
            table, matrix = self.score.table(), self.score.confusion
            pixels = matrix.sum(dim=1)
        columns = {name: [None if v != v else v for v in values.tolist()] for name, values in table.items()}
        rows = [
            {"class": name, **{key: values[i] for key, values in columns.items()}, "pixels": int(pixels[i])}
            for i, name in enumerate(self.vocabulary.names)
        ]
        return {"classes": rows}

    def by_class(self) -> list[dict[str, Any]]:
        return self.details()["classes"]

    def detail_pictures(self) -> dict[str, Any]:
        with self.score.sync_context(should_sync=self.score.distributed_available_fn()):
            matrix = self.score.confusion.double()
        shares = matrix / matrix.sum(dim=1, keepdim=True)
        return {"confusion": matrices.picture(shares.cpu().numpy(), self.vocabulary.names)}

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        pair = {**node.get("pair", {}), "source": "photo", "target": "label", "edges": False}
        return node | {
            "pair": pair,
            "dataset": {**node.get("dataset", {}), "labels": "classes"},
            "output_channels": 1,
            "input_channels": self.input_channels,
            "label_classes": 0,
        }

    def paint(self, ids: Tensor) -> Tensor:
        """Class ids (N, H, W) -> uint8 RGB (N, 3, H, W) in the data set's colours; 255 is black."""
        table = torch.zeros(256, 3, dtype=torch.uint8)
        table[: self.classes] = torch.tensor(self.vocabulary.palette, dtype=torch.uint8)
        return table.to(ids.device)[ids.long()].permute(0, 3, 1, 2)

    def deployable(self) -> nn.Module:
        return Segmenter(self.normalise, self.network, align_corners=self.align_corners).eval()


def draw_outlines(target: Tensor, options: dict[str, int]) -> Tensor:
    """(N, 1, H, W) outlines of ids, for batches that did not come from dvsn's data module. On the CPU."""
    maps = [boundary_map(ids[0].cpu().numpy(), **options) for ids in target]
    return torch.stack([torch.from_numpy(each)[None] for each in maps]).to(target.device)
