"""What tasks give to loggers as layers: masks, boxes and keypoints of a batch, with its truth."""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as rle

from dvsn.geometry.keypoints import KeypointSet
from dvsn.pictures.layers import Box, Point
from dvsn.tasks.detection import Detection
from dvsn.tasks.keypoints import KeypointTask
from dvsn.tasks.segmentation import Segmentation
from dvsn.types import Vocabulary

WORDS = Vocabulary(("cat", "dog"), ((255, 0, 0), (0, 255, 0)))
IMAGE = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).reshape(2, 3, 4, 6)


def bare(kind: type, **attributes: object) -> object:
    """A task without a network, which the methods do not need."""
    task = kind.__new__(kind)
    torch.nn.Module.__init__(task)
    task.__dict__.update({"data_recipe": {}, **attributes})
    return task


def test_segmentation() -> None:
    task = bare(Segmentation, vocabulary=WORDS)
    answer = torch.randint(0, 2, (2, 4, 6), dtype=torch.uint8)
    truth = torch.full((2, 1, 4, 6), 255, dtype=torch.uint8)
    first, second = task.layers({"image": IMAGE, "target": truth, "name": ["a", "b"]}, answer)  # type: ignore[attr-defined]
    assert (first.name, second.name, first.classes) == ("a", "b", ("cat", "dog"))
    assert np.array_equal(second.picture, IMAGE[1].permute(1, 2, 0).numpy())
    assert (
        np.array_equal(second.masks["prediction"], answer[1].numpy()) and (first.masks["label"] == 255).all()
    )
    assert set(task.layers({"image": IMAGE, "name": ["a", "b"]}, answer)[0].masks) == {"prediction"}  # type: ignore[attr-defined]


def test_detection() -> None:
    """Boxes from 0.05 on; masks of what is drawn, the surest on top; no crowds."""
    task = bare(Detection, vocabulary=WORDS, shown_from=0.5)
    planes = np.zeros((3, 4, 6), np.uint8)
    planes[0, :2], planes[1, 1:3], planes[2, 3] = 1, 1, 1
    found = {
        "boxes": torch.tensor([[0.0, 0, 5, 2], [0, 1, 5, 3], [0, 3, 5, 4]]), "labels": torch.tensor([0, 1, 1]),
        "scores": torch.tensor([0.9, 0.75, 0.04]), "masks": [rle.encode(np.asfortranarray(each)) for each in planes],
    }  # fmt: skip
    truth = {
        "boxes": torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3]]),
        "labels": torch.tensor([1, 0]),
        "crowd": torch.tensor([0, 1]),
    }
    batch = {"image": [IMAGE[0]], "target": [truth], "name": ["a"]}
    (layers,) = task.layers(batch, [found])  # type: ignore[attr-defined]
    assert layers.boxes["label"] == (Box(0, 0, 1, 1, 1, None),)
    assert [(box.label, round(box.score or 0, 2)) for box in layers.boxes["prediction"]] == [
        (0, 0.9),
        (1, 0.75),
    ]
    ids = layers.masks["prediction"]
    assert ids[:, 0].tolist() == [0, 0, 1, 255] and set(layers.masks) == {"prediction"}
    empty = {key: value[:0] for key, value in found.items()}
    assert task.layers({**batch, "target": [{**truth, "crowd": torch.ones(2)}]}, [empty])[0].boxes == {  # type: ignore[attr-defined]
        "prediction": (), "label": (),
    }  # fmt: skip


def test_keypoints() -> None:
    """In the pixels of the crop, whatever they are counted from; of the truth those that are labelled."""
    task = bare(KeypointTask, keypoints=KeypointSet(names=["nose", "tail"]))
    answer = torch.tensor([[[2.5, 3.5, 0.75], [1.5, 1.5, 0.0]]])
    batch = {
        "image": IMAGE[:1], "name": ["a"], "offset": torch.tensor([0.5]), "keypoints": answer[..., :2],
        "weight": torch.tensor([[0.0, 1.0]]),
    }  # fmt: skip
    (layers,) = task.layers(batch, answer)  # type: ignore[attr-defined]
    assert layers.classes == ("nose", "tail")
    assert layers.points == {"prediction": (Point(2.0, 3.0, 0, 0.75),), "label": (Point(1.0, 1.0, 1, None),)}
