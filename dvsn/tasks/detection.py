"""Detection: boxes, classes and masks of the objects in a picture."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torchmetrics import MetricCollection
from torchvision.models.detection.image_list import ImageList

from dvsn.config.build import build
from dvsn.data.class_ids import distinct_palette
from dvsn.data.object_transform import DetectionTransform
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError, DataError
from dvsn.metrics.coco_evaluator import Evaluator
from dvsn.metrics.detection import DetectionScore
from dvsn.networks.detectors import Detector
from dvsn.pictures.layers import Box, Layers
from dvsn.portable.draw import draw_boxes
from dvsn.tasks.scored import ScoredTask
from dvsn.tasks.student import Student
from dvsn.types import IGNORE, Batch, Terms, Vocabulary

Found = dict[str, Any]
SEEN = 0.05
"""The score from which on a box is given to loggers, which can hide those below another."""


class ObjectDetector(torch.nn.Module):
    """What is shipped: uint8 RGB, (N, 3, H, W) or a list of (3, H, W) -> a list of dicts, the best objects first.

    `boxes` (n, 4) x1, y1, x2, y2 in pixels of the picture, `labels` (n,), `scores` (n,) and perhaps `masks`
    (n, 1, H, W) in [0, 1].
    """

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor | list[Tensor]) -> list[Found]:
        found: list[Found] = self.network([each.float() / 255 for each in image])
        return found


class Detection(ScoredTask):
    """Objects in pictures, by a `Detector` on any backbone.

    A batch holds `image`, a list of uint8 RGB (3, H, W), and `target`, a list of dicts: `boxes` (n, 4) x1, y1, x2, y2,
    `labels`, `crowd`, `area` (n,) and perhaps `masks` (n, H, W) and `stuff` (H, W); `index` and `name`. The network resizes
    and normalises by itself. Crowd regions are not trained on; they are neither wanted nor punished by the score.

    - `shared`: the options of every `NetworkTask`.
    - `shown` is the score from which an object is drawn.
    """

    kind: ClassVar[str] = "detection"
    tells_items: ClassVar[bool] = False
    measured: ClassVar[str] = "pictures"
    response: ClassVar[Kind] = "objects"
    samples: ClassVar[str | None] = "objects"

    network: Detector

    def __init__(self, *, network: Detector, shown: float = 0.5, **shared: Any) -> None:
        super().__init__(network=network, **shared)
        self.shown_from = shown
        self._seen: ImageList | None = None
        self.use_metrics()

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Names and colours by label, from the data set of the recipe; numbers where it has none."""
        if self.data_recipe.get("objects"):
            data = build(self.data_recipe, path="data")
            data.use("objects")
            found = data.vocabulary
            if found is not None and len(found.names) == self.network.classes:
                return found  # type: ignore[no-any-return]
        names = tuple(f"class {number}" for number in range(self.network.classes))
        return Vocabulary(names, distinct_palette(self.network.classes))

    # Training ---------------------------------------------------------------------------------------

    def ask_data(self, data: Any) -> None:
        data.use("objects")
        if self.network.masks:
            data.readers["objects"] = functools.partial(data.reader, masks=True)

    def on_fit_start(self) -> None:
        """Keep the names of the classes, which COCO's files know, in the checkpoint."""
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and self.network.semantic_classes and not data.datasets["train"].reads_stuff:
            raise ConfigError(
                f"network.semantic_classes: found {self.network.semantic_classes}, but the data set reads no labels of "
                "stuff. Set data.objects.stuff, or network.semantic_classes=null."
            )
        node = self.data_recipe.get("objects") or {}
        if data is not None and "names" in node and node["names"] is None:
            found = data.datasets["train"]
            known = {
                "names": dict(found.categories),
                **({"ids": dict(found.file_ids)} if found.file_ids else {}),
            }
            self.data_recipe = {**self.data_recipe, "objects": {**node, **known}}

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """Also: pictures as they are, and the names of the classes that this task was trained with, which the new
        data set must share."""
        plain = {"_target_": f"{DetectionTransform.__module__}.DetectionTransform"}
        known = (self.data_recipe.get("objects") or {}).get("names")
        objects = node.get("objects")
        if known and objects and objects.get("names", known) is None:
            objects = {**objects, "names": known}
        return node | {"objects": objects, "transform": {"train": plain, "eval": plain}}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Leave crowd regions out of training while they are on the CPU; a GPU would have to be waited for."""
        if not self.trainer.training:  # type: ignore[attr-defined]
            return batch
        self.check_stuff(batch)
        return {**batch, "target": [without_crowds(target) for target in batch["target"]]}

    def check_stuff(self, batch: Batch) -> None:
        """Raise `DataError` for a class of stuff that the network does not have."""
        count = self.network.semantic_classes
        if count is None:
            return
        for name, target in zip(batch["name"], batch["target"], strict=True):
            labels = target.get("stuff")
            highest = -1 if labels is None else int(torch.where(labels == IGNORE, 0, labels).max())
            if highest >= count:
                raise DataError(
                    f"{name}: its labels of stuff have the class {highest}, expected 0 to {count - 1}, or 255 for none. Set "
                    f"network.semantic_classes={highest + 1} or more."
                )

    def objective(self, batch: Batch) -> Terms:  # type: ignore[override]
        """The detector's own terms, as torchvision names them."""
        images = [image.float() / 255 for image in batch["image"]]
        masks, stuff = self.network.masks, self.network.semantic_classes
        wanted = ("boxes", "labels", *(("masks",) if masks else ()), *(("stuff",) if stuff else ()))
        targets = [without_crowds(target) for target in batch["target"]]
        targets = [{key: target[key] for key in wanted if key in target} for target in targets]
        terms: Terms = self.network(images, targets)
        return terms

    # Distillation: of features, since what is found has no shape that two networks share -------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, the pictures as the network has resized and padded them are kept for the teacher and the methods."""

        def keep(_: Any, __: Any, output: Any) -> None:
            self._seen = output[0]

        handle = self.network.model.transform.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def learn(self, batch: Batch) -> Terms:
        if self.distiller is None:
            return self.objective(batch)
        terms: Terms = {}
        self._seen = None
        if self.distiller.runs_student:
            with self.distiller.taps, self.watched():
                terms = self.objective(batch)
        return self.distiller.join(lambda: terms, None, self.labelled(batch), self.shown(batch))

    def look(self, batch: Batch) -> ImageList:
        """What was watched of a batch; where the network was not run on it, what its transform makes of it."""
        if self._seen is None:
            with self.watched():
                self.network.model.transform([image.float() / 255 for image in batch["image"]], None)
        assert self._seen is not None
        return self._seen

    def labelled(self, batch: Batch) -> Batch:
        """Also `boxes`: of each picture (n, 4) float32, the objects in shares of the sides of what both networks see, which
        is the picture resized and padded. Crowd regions are left out."""
        seen = self.look(batch)
        height, width = seen.tensors.shape[-2:]
        boxes = []
        for image, target, (rows, columns) in zip(
            batch["image"], batch["target"], seen.image_sizes, strict=True
        ):
            across, down = columns / image.shape[-1] / width, rows / image.shape[-2] / height
            own = without_crowds(target)["boxes"].float()
            boxes.append(own * own.new_tensor([across, down, across, down]))
        return {**batch, "boxes": boxes}

    def shown(self, batch: Batch) -> Tensor:
        """What the student's own transform made of the pictures, in [0, 1]: (N, 3, H, W), so that both networks have their
        features at the same places."""
        seen, self._seen = self.look(batch), None
        mean, std = self._statistics(seen.tensors)
        return (seen.tensors.detach() * std + mean).float()

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        transform = self.network.model.transform
        mean, std = (
            like.new_tensor(each).view(1, -1, 1, 1) for each in (transform.image_mean, transform.image_std)
        )
        return mean, std

    def rehearse(self, batch: Batch) -> None:
        with self.watched():
            self.network([image.float() / 255 for image in batch["image"]])

    def teach(self, image: Tensor) -> Any:
        """Of a teacher only the backbone is run, and the head of a detector whose boxes are distributions, so only taps in
        there are reached."""
        mean, std = self._statistics(image)
        levels = self.network.model.backbone(self.layout((image - mean) / std))
        return self.network.model.head(levels) if self.network.distribution_taps else levels

    def evaluate_as_taught(self, student: Student) -> None:
        """At the sizes of the student's transform, which makes the pictures that the teacher sees."""
        super().evaluate_as_taught(student)
        assert isinstance(student, Detection)
        own, theirs = self.network.model.transform, student.network.model.transform
        own.min_size, own.max_size = theirs.min_size, theirs.max_size

    # Evaluation and use -----------------------------------------------------------------------------

    def use_metrics(self, *, evaluator: Evaluator = "pycocotools") -> None:  # type: ignore[override]
        """COCO's twelve figures, of boxes and, where the network makes them, of masks."""
        score = DetectionScore(masks=self.network.masks, evaluator=evaluator)
        self._metrics = (MetricCollection({"score": score}),)

    @property
    def score(self) -> DetectionScore:
        found = self.metrics["score"]
        assert isinstance(found, DetectionScore)
        return found

    def forward(self, image: Tensor | Sequence[Tensor]) -> list[Found]:
        """uint8 RGB (N, 3, H, W), or a list of (3, H, W) -> for each picture what `ObjectDetector` says, with `masks`
        as a list of COCO run lengths."""
        found = self.find(image)
        return [{**each, "masks": encode_masks(each["masks"])} if "masks" in each else each for each in found]

    def find(self, image: Tensor | Sequence[Tensor]) -> list[Found]:
        """As `forward`, with masks as the network makes them."""
        found: list[Found] = self.network([each.float() / 255 for each in image])
        return found

    def _evaluate(self, batch: Batch) -> list[Found]:
        found = self(batch["image"])
        self.score.update(batch["index"], found)
        return found

    def panels(self, batch: Batch, output: list[Found]) -> dict[str, Tensor]:  # type: ignore[override]
        """Photo, what was found and what is there; smaller pictures of a batch stand on white."""
        photos = [image.permute(1, 2, 0).cpu().numpy() for image in batch["image"]]
        columns = {
            "photo": photos,
            "prediction": [self.draw(photo, found) for photo, found in zip(photos, output, strict=True)],
        }
        if "target" in batch:
            truth = [without_crowds(target) for target in batch["target"]]
            columns["label"] = [self.draw(photo, each) for photo, each in zip(photos, truth, strict=True)]
        height, width = (max(photo.shape[axis] for photo in photos) for axis in (0, 1))
        return {title: torch.stack([on_white(each, height, width) for each in pictures])
                for title, pictures in columns.items()}  # fmt: skip

    def layers(self, batch: Batch, output: list[Found]) -> list[Layers]:
        """Objects from a score of `SEEN` on, and the masks of those that are drawn; crowd regions are left out."""
        answers = {"prediction": output}
        if "target" in batch:
            answers["label"] = [without_crowds(target) for target in batch["target"]]
        return [
            Layers(
                name,
                batch["image"][i].permute(1, 2, 0).cpu().numpy(),
                self.vocabulary.names,
                masks={key: self.ids_of(found[i]) for key, found in answers.items() if "masks" in found[i]},
                boxes={key: boxes_of(found[i]) for key, found in answers.items()},
            )
            for i, name in enumerate(batch["name"])
        ]

    def ids_of(self, found: Found) -> np.ndarray:
        """The masks of a picture's objects as one map (H, W) uint8 of their classes, 255 where there is none; the best lies
        on top."""
        ids = np.full(found["masks"][0]["size"] if len(found["masks"]) else (1, 1), 255, np.uint8)
        labels = found["labels"].tolist()
        scores = found["scores"].tolist() if "scores" in found else [1.0] * len(labels)
        for score, label, mask in sorted(
            zip(scores, labels, found["masks"], strict=True), key=lambda each: each[0]
        ):
            if score >= self.shown_from:
                ids[rle.decode(mask).astype(bool)] = label
        return ids

    def draw(self, photo: np.ndarray, found: Found) -> np.ndarray:
        """A copy of a picture (H, W, 3) uint8 with its objects: boxes, names, scores and masks."""
        picture, words = np.array(photo, order="C"), self.vocabulary
        scores = found["scores"].cpu().numpy() if "scores" in found else None
        kept = slice(None) if scores is None else np.flatnonzero(scores >= self.shown_from)
        labels = found["labels"].cpu().numpy()[kept]
        colours = [words.palette[label] for label in labels]
        if isinstance(found.get("masks"), list):
            for number, colour in zip(kept, colours, strict=True):  # type: ignore[arg-type]
                inside = rle.decode(found["masks"][number]).astype(bool)
                picture[inside] = (0.5 * picture[inside] + 0.5 * np.array(colour)).astype(np.uint8)
        draw_boxes(
            picture,
            found["boxes"].cpu().numpy()[kept],
            [words.names[label] for label in labels],
            None if scores is None else scores[kept],
            colours,
        )
        return picture

    def details(self) -> dict[str, list[dict[str, Any]]]:
        self.score.compute()  # gathers, and is not repeated
        tables = {"scored": self.coverage_table(), "classes": self.score.rows}
        return {title: rows for title, rows in tables.items() if rows}

    def by_class(self) -> list[dict[str, Any]]:
        return self.details().get("classes", [])

    def files(self) -> dict[str, Any]:
        self.score.compute()
        return {"detections.json": self.score.results}

    shows: ClassVar[str] = "objects"

    def deployable(self) -> torch.nn.Module:
        return ObjectDetector(self.network).eval()


def without_crowds(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objects of a picture that are no crowd regions, without the key `crowd`; the same where it is not there."""
    if "crowd" not in target:
        return target
    kept = target["crowd"] == 0
    return {key: value if key == "stuff" else value[kept] for key, value in target.items() if key != "crowd"}


def boxes_of(found: Found) -> tuple[Box, ...]:
    """The boxes of a picture, with their scores where it has any."""
    labels, places = found["labels"].tolist(), found["boxes"].tolist()
    scores = found["scores"].tolist() if "scores" in found else [None] * len(labels)
    return tuple(
        Box(left, top, right, bottom, label, score)
        for (left, top, right, bottom), label, score in zip(places, labels, scores, strict=True)
        if score is None or score >= SEEN
    )


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Shares (n, 1, H, W) -> n COCO run lengths of where they exceed a half."""
    planes = (masks[:, 0] > 0.5).to(torch.uint8).cpu().numpy()
    return [rle.encode(np.asfortranarray(plane)) for plane in planes]


def on_white(picture: np.ndarray, height: int, width: int) -> Tensor:
    """(h, w, 3) uint8 -> (3, height, width), at the upper left."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return torch.from_numpy(canvas).permute(2, 0, 1)
