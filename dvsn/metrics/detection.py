"""Average precision of boxes and masks, by COCO's own evaluator over the annotations as they are."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torchmetrics import Metric

from dvsn.metrics.coco_evaluator import Evaluator, classes_of, evaluated

FIGURES = ("map", "map50", "map75", "map_small", "map_medium", "map_large",
           "mar1", "mar10", "mar100", "mar_small", "mar_medium", "mar_large")  # fmt: skip
"""COCOeval's twelve, in its order: average precision and average recall, by overlap, area and detections."""

STATES = {"images": torch.int64, "counts": torch.int64, "boxes": torch.float64, "scores": torch.float64,
          "labels": torch.int64, "lengths": torch.int64, "bytes": torch.uint8}  # fmt: skip


class DetectionScore(Metric):
    """COCO's twelve figures of boxes, `map` to `mar_large`, and with `masks` the same of masks, `mask_map`...

    Shares from 0 to 1, by pycocotools' COCOeval (Lin et al., 2014, arXiv:1405.0312) or the `evaluator` that has the same
    rules; -1 where no object has the area.

    - Scored are the pictures that were given to `update`, each once; `coverage` counts them.
    - The truth is that of the dataset given to `attach`, with its crowd regions and areas as the files have them.
    - Several devices give the figures of one: detections are collected from all processes, picture by picture.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, *, masks: bool = False, evaluator: Evaluator = "pycocotools") -> None:
        super().__init__()
        classes_of(evaluator)  # to hear now of one that is missing
        self.masks, self.evaluator = masks, evaluator
        self._dataset: tuple[Any, ...] = ()  # in a tuple: no part of the metric's state
        self.results: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.curves: dict[str, np.ndarray] = {}
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def attach(self, dataset: Any) -> None:
        """Measure this `ObjectDataset`. On each process, before its first picture."""
        self._dataset = (dataset,)
        self.update([], [])  # a process without a picture has states to gather, too

    @property
    def dataset(self) -> Any:
        """The `ObjectDataset` that is measured."""
        return self._dataset[0]

    def coverage(self) -> tuple[int, int]:
        """How many pictures were seen, and of how many."""
        with self.gathered():
            seen = len(set(self._all("images").tolist()))
        return seen, len(self.dataset.image_ids)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Within it, states are those of all processes."""
        alone = self._is_synced or not self.distributed_available_fn()
        with self.sync_context(self.dist_sync_fn, should_sync=not alone, should_unsync=not alone):
            yield

    def update(self, index: Sequence[int] | Tensor, found: Sequence[dict[str, Any]]) -> None:
        """`found`: for each picture `boxes` (n, 4) x1, y1, x2, y2 in its pixels, `labels` and `scores` (n,), and
        `masks`, a list of n COCO run lengths, where masks are measured."""
        numbers = torch.as_tensor(index).tolist()
        codes = [code for each in found for code in each.get("masks", ())]
        new = {
            "images": torch.tensor(numbers),
            "counts": torch.tensor([len(each["scores"]) for each in found]),
            **{key: torch.cat([each[key].flatten() for each in found]).cpu() if found else torch.zeros(0)
               for key in ("boxes", "scores", "labels")},
            "lengths": torch.tensor([len(code["counts"]) for code in codes]),
            "bytes": torch.from_numpy(np.frombuffer(b"".join(code["counts"] for code in codes), np.uint8).copy()),
        }  # fmt: skip
        for name, kind in STATES.items():
            getattr(self, name).append(new[name].to(self.device, kind))

    def detections(self) -> list[dict[str, Any]]:
        """All detections in COCO's form of results, by picture and falling score."""
        images, counts, boxes, scores, labels, lengths, data = (self._all(name) for name in STATES)
        rows, ends = boxes.reshape(-1, 4), np.cumsum(counts)
        places = np.concatenate([[0], np.cumsum(lengths)])
        results = []
        once = {
            image: (end, count)
            for image, end, count in zip(images.tolist(), ends.tolist(), counts.tolist(), strict=True)
        }
        for picture, (end, count) in sorted(once.items()):
            part = slice(end - count, end)
            found: dict[str, Any] = {"boxes": rows[part], "scores": scores[part], "labels": labels[part]}
            if len(lengths):
                size = list(self.dataset.size(picture))
                codes = [data[places[n] : places[n + 1]].tobytes() for n in range(end - count, end)]
                found["masks"] = [{"size": size, "counts": code} for code in codes]
            results += coco_results(found, self._image_id(picture))
        return results

    def compute(self) -> dict[str, Tensor]:
        """Also sets `results`, COCO's form of all detections, `rows`, a table by class, and `curves`: of boxes ("") and of
        masks ("mask_") the precision (T, R, K) at each overlap and recall of COCO's, of each class; -1 without an object."""
        truth, self.results, self.curves = self.truth(), self.detections(), {}
        figures: dict[str, Tensor] = {}
        self.rows = [{"class": name} for name in self.dataset.categories.values()]
        counts = Counter(each["category_id"] for each in truth["annotations"] if not each["iscrowd"])
        for prefix, kind in {"": "bbox", **({"mask_": "segm"} if self.masks else {})}.items():
            found = evaluate(truth, self.results, kind, evaluator=self.evaluator)
            named = zip(FIGURES, found.stats, strict=True)
            figures |= {f"{prefix}{name}": torch.tensor(float(value)) for name, value in named}
            by_class = precisions(found)
            self.curves[prefix] = found.eval["precision"][:, :, :, 0, -1].copy()  # all areas, all detections
            for row, label in zip(self.rows, self.dataset.categories, strict=True):
                row |= {f"{prefix}{name}": value for name, value in by_class[label].items()}
        for row, label in zip(self.rows, self.dataset.categories, strict=True):
            row["objects"] = counts[label]
        self.results = with_file_ids(self.results, getattr(self.dataset, "file_ids", {}))
        return figures

    def truth(self) -> dict[str, Any]:
        """The objects of the pictures that were seen, as a COCO annotation file holds them."""
        dataset, seen = self.dataset, self._all("images").tolist()
        images, annotations = [], []
        for index in sorted(set(seen)):
            height, width = dataset.size(index)
            number = self._image_id(index)
            images.append({"id": number, "height": height, "width": width})
            annotations += [{**each, "image_id": number} for each in dataset.truth(index)]
        for number, each in enumerate(annotations, 1):
            each["id"] = number  # COCOeval takes an id of 0 for no match at all
        categories = [{"id": label, "name": name} for label, name in dataset.categories.items()]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _image_id(self, index: int) -> int:
        return int(self.dataset.image_ids[index])

    def _all(self, name: str) -> np.ndarray:
        """A state's values on this process or, while gathered, on all."""
        held = getattr(self, name)
        values: np.ndarray = (torch.cat(list(held)) if isinstance(held, list) else held).cpu().numpy()
        return values


def coco_results(found: dict[str, Any], image_id: int) -> list[dict[str, Any]]:
    """The objects of a picture, as `DetectionScore.update` takes them, in COCO's form of results; the best first."""
    boxes, scores, labels = (found[key].tolist() for key in ("boxes", "scores", "labels"))
    results = [
        {"image_id": image_id, "category_id": label, "bbox": [x, y, right - x, bottom - y], "score": score}
        for (x, y, right, bottom), score, label in zip(boxes, scores, labels, strict=True)
    ]
    for result, code in zip(results, found["masks"], strict=True) if "masks" in found else ():
        result["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
    return sorted(results, key=lambda each: -float(each["score"]))


def with_file_ids(results: list[dict[str, Any]], file_ids: Mapping[int, int]) -> list[dict[str, Any]]:
    """Results with the category ids of the files in place of labels; `file_ids` has those that differ."""
    if not file_ids:
        return results
    return [
        each | {"category_id": file_ids.get(each["category_id"], each["category_id"])} for each in results
    ]


def evaluate(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: str,
    *,
    evaluator: Evaluator = "pycocotools",
) -> Any:
    """A COCOeval that is done, on an annotation file's content and a results file's. `kind`: bbox or segm."""
    found = {
        "images": truth["images"],
        "categories": truth["categories"],
        "annotations": [
            result | {"id": number, "iscrowd": 0, "area": area_of(result, kind)}
            for number, result in enumerate(results, 1)
        ],
    }
    return evaluated(truth, found, kind, evaluator=evaluator)


def precisions(evaluator: Any) -> dict[int, dict[str, float | None]]:
    """`ap` and `ap50` by category id; None for a class that no object has."""
    table: dict[int, dict[str, float | None]] = {}
    for place, label in enumerate(evaluator.params.catIds):
        values = evaluator.eval["precision"][
            :, :, place, 0, -1
        ]  # (thresholds, recalls), all areas, all detections
        seen = bool((values > -1).all())
        table[label] = {
            "ap": float(values.mean()) if seen else None,
            "ap50": float(values[0].mean()) if seen else None,
        }
    return table


def area_of(result: dict[str, Any], kind: str) -> float:
    """By which COCOeval sorts a detection into small, medium and large: its box's, or its mask's."""
    if kind == "segm":
        return float(rle.area(result["segmentation"]))
    return float(result["bbox"][2] * result["bbox"][3])
