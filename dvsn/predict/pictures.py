"""Prediction of tasks that answer a picture by a picture, or by a class for each of its pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from dvsn.config.build import build
from dvsn.data.transforms import Pair, Transform, input_kind
from dvsn.errors import ConfigError, DataError
from dvsn.pictures.grids import to_array
from dvsn.portable.frame import Frame
from dvsn.portable.instances import edges_beside
from dvsn.portable.memory import brightness
from dvsn.portable.resize import padded, read_size
from dvsn.portable.result import Result
from dvsn.predict.predictor import Options, Predictor, random_kept, replaced
from dvsn.seeding import seed_everything
from dvsn.tasks.inference import checked_window, read_options

log = logging.getLogger("dvsn")

ASKED = ("size", "original_size", "inference")
OPTIONS = (*ASKED, "write", "side_by_side", "big_pixels")


class Ready(NamedTuple):
    """A frame, and the task's input made of it."""

    frame: Frame
    image: torch.Tensor
    """uint8 (C, H, W)."""


class Reader:
    """Frames as the task's input: as its data set makes it of them, and sized by the `size` option."""

    def __init__(self, task: Any, size: str) -> None:
        data = task.data_recipe
        self.ids = task.input_classes > 0
        self.edges = bool(data.get("pair", {}).get("edges", False))
        self.kind = input_kind(data, ids=self.ids)
        if size == "recipe":
            steps = build(data.get("transform", {}).get("eval", []), path="transform.eval")
        elif size == "keep":
            steps = []
        else:
            steps = [self._resize(size)]
        pair_of_one = Pair(source="input", target="input")
        self.channels = task.input_channels
        self.grey = not self.ids and self.channels == 1
        self.transform = Transform(steps=steps, pair=pair_of_one, label_classes=task.input_classes)

    @staticmethod
    def _resize(size: str) -> Any:
        import albumentations

        height, width = read_size(size)
        return albumentations.Resize(height=height, width=width, mask_interpolation=0)

    def __call__(self, frame: Frame) -> torch.Tensor:
        """uint8 (C, H, W). Raises `DataError` for a frame of the wrong kind."""
        wanted, found = (2 if self.ids else 3), frame.picture.ndim
        if found != wanted:
            shape = "class ids (H, W)" if self.ids else "RGB (H, W, 3)"
            raise DataError(f"{frame.name}: found an array of {found} axes, expected {shape}.")
        picture = brightness(frame.picture) if self.grey else frame.picture
        have = 1 if picture.ndim == 2 else picture.shape[2]
        if not self.ids and have != self.channels:
            raise DataError(
                f"{frame.name}: found {have} channels, expected {self.channels} (data.input_channels)."
            )
        sample = {
            "input": picture, "index": 0, "name": frame.name, "kinds": {"input": self.kind}, "palettes": {},
        }  # fmt: skip
        image: torch.Tensor = self.transform(sample, 0)["image"]
        if self.edges:
            edges = torch.from_numpy(edges_beside(frame, image.shape[-2:]))[None]
            image = torch.cat([image, edges], dim=0)
        return image


def batches(frames: Iterable[Frame], reader: Reader, size: int) -> Iterator[list[Ready]]:
    """Consecutive frames whose inputs are of equal size, at most `size` together."""
    batch: list[Ready] = []
    for frame in frames:
        image = reader(frame)
        if batch and batch[0].image.shape != image.shape:
            yield batch
            batch = []
        batch.append(Ready(frame, image))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class PicturePredictor(Predictor):
    """Segmentation: class ids of each frame. pix2pix: the picture that it makes of each frame, or map of ids.

    Options: `size`, `original_size` (the answer in the size of the frame's picture), `inference` (of segmentation),
    `batch_size`, `seed`, for networks that are tested with dropout.
    """

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        super().__init__(task, options, device, sources)
        if not task.answers:
            raise ConfigError(
                f"checkpoint: the task '{task.kind}' makes no pictures to write. Measure it by dvsn.evaluate, or call "
                "dvsn.load(PATH)(pictures)."
            )
        self.kind = "ids" if "ids" in task.answers else str(task.answers[0])
        self.reader = Reader(task, str(options["size"]))
        self.keeps = str(options["size"]) == "keep"
        self.multiple = int(getattr(task.network, "multiple", 1))
        self.changes = asked_otherwise(task, options)
        inference = self.changes.get("inference", getattr(task, "inference", None))
        if inference is not None and inference.mode == "slide":
            self.keeps = False  # windows fit, whatever the picture's size
            checked_window(inference, self.multiple, type(task.network).__name__)

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]:
        for number, batch in enumerate(batches(frames, self.reader, self.batch_size)):
            answers, seen = self.ask(batch, number)
            for ready, answer, shown in zip(batch, answers, seen, strict=True):
                yield self.result(ready.frame, answer, shown)

    def ask(self, batch: list[Ready], number: int) -> tuple[np.ndarray, np.ndarray]:
        """Answers of the batch of this `number`, (N, H, W) ids or (N, H, W, 3) pictures, and its inputs as RGB."""
        image = torch.stack([ready.image for ready in batch])
        height, width = image.shape[-2:]
        whole = torch.from_numpy(padded(image.numpy(), self.multiple)) if self.keeps else image
        image, whole = image.to(self.device), whole.to(self.device)
        first = batch[0].frame
        with random_kept(), torch.inference_mode(), replaced(self.task, **self.changes):
            self.task.check_sides({"image": whole, "name": [str(first.path or first.name)]})
            seed_everything(int(self.options["seed"]), rank=0, epoch=0, batch=number, stage=1)
            answer = self.task.answer(whole, self.kind)[..., :height, :width]
            return to_array(answer), to_array(self.task.show_input(image))

    def result(self, frame: Frame, answer: np.ndarray, seen: np.ndarray) -> Result:
        picture = self.kind == "picture"
        if answer.ndim == 3 and answer.shape[2] == 1:
            answer = answer[..., 0]
        if self.options["original_size"] and answer.shape[:2] != frame.size:
            how = cv2.INTER_CUBIC if picture else cv2.INTER_NEAREST
            answer = cv2.resize(answer, frame.size[::-1], interpolation=how)
        answer, seen = np.ascontiguousarray(answer), np.ascontiguousarray(seen)
        if picture:
            return Result(kind=self.task.kind, frame=frame, picture=answer, seen=seen)
        words = self.task.vocabulary
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in words.palette)
        return Result(
            kind=self.task.kind, frame=frame, ids=answer, names=tuple(words.names), palette=palette, seen=seen,
            file_ids=dict(enumerate(words.file_ids)),
        )  # fmt: skip


def asked_otherwise(task: Any, options: Options) -> dict[str, Any]:
    """The attributes of a task that options of prediction change: `inference`, for which see
    `dvsn.tasks.inference.Inference`, of pix2pix its windows; what it does not name is as in the recipe. Raises
    `ConfigError`."""
    given = {key: value for key, value in (options.get("inference") or {}).items() if value is not None}
    if not given:
        return {}
    usual = getattr(task, "inference", None)
    if usual is None:
        raise ConfigError(f"inference: the task '{task.kind}' has no such option.")
    views = [name for name in ("scales", "flip", "resize") if name in given]
    if views and task.kind != "segmentation":
        raise ConfigError(
            f"inference.{views[0]}: the task '{task.kind}' has no such option; it has mode, window, stride and blend."
        )
    return {"inference": read_options({**usual._asdict(), **given}, path="inference")}
