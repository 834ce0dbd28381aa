"""`python -m dvsn.data show`: samples as the network will see them, drawn."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from dvsn.config.build import build
from dvsn.data.class_ids import distinct_palette
from dvsn.data.crop import PersonCrop
from dvsn.data.dataset import ImageDataset
from dvsn.data.module import DataModule
from dvsn.data_tools.init.pictures import spread
from dvsn.data_tools.walk import choose_kind
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.pictures.grids import grid, shrink, write_picture
from dvsn.portable.bands import as_rgb
from dvsn.portable.cards import GREY, card
from dvsn.portable.draw import draw_boxes, draw_head, draw_skeleton
from dvsn.types import Sample, Vocabulary

log = logging.getLogger("dvsn")
Config = dict[str, Any]

VOID = (224, 224, 192)  # the colour of ignored pixels, as PASCAL VOC displays them
LINE, SWATCH, LEGEND = 18, 14, 190  # pixels of the legend: a row, a colour, its width


def draw(config: Config) -> Path:
    """Writes `<output>/<split>.png`, or `<split>_augmented.png`, by a resolved, plain config."""
    count, side = int(config["count"]), int(config["max_side"])
    if count < 1 or side < 1:
        raise ConfigError(f"count, max_side: found {count} and {side}, both must be at least 1.")
    data = runtime.build_data(config)
    choose_kind(data, config)
    data.prepare_data()
    data.measure_bands()
    if data.wanted == "dataset":
        data.outlines = outline_options(config)
    if data.wanted == "people" and not all(callable(each) for each in data.steps.values()):
        plain_crops(data, float(config["data"]["facts"]["padding"]))
    dataset = data.open(config["split"], augment=bool(config["augment"]))
    rows, titles = [], []
    for index in spread(range(len(dataset)), count):
        sample = dataset[index]
        if data.wanted == "people":
            pictures = person_panels(dataset.read(index), sample, data)
        elif data.wanted == "objects":
            pictures = object_panels(sample, dataset)
        elif isinstance(sample["target"], int):
            pictures = class_panels(sample, dataset, data)
        else:
            pictures = panels(sample, data)
        titles = list(pictures)
        rows.append([shrink(picture, side) for picture in pictures.values()])
        height, width = sample["image"].shape[1:]
        log.info("row %d  %dx%d  %s", len(rows), height, width, dataset.describe(index))
    path = Path(config["output"]) / f"{config['split']}{'_augmented' if config['augment'] else ''}.png"
    write_picture(path, grid(rows, titles))
    return path


def outline_options(config: Config) -> dict[str, int] | None:
    """How the loss of the task wants outlines drawn; None if it wants none."""
    if not config.get("loss"):
        return None
    found: dict[str, int] | None = getattr(build(config["loss"], path="loss"), "boundary_options", None)
    return found


def plain_crops(data: DataModule, padding: float) -> None:
    """Crops without augmentation, where no task has said how to make them."""
    log.info("crops of 256x192 without augmentation; task=pose draws those of training")
    data.steps = dict.fromkeys(data.steps, PersonCrop(size=(256, 192), padding=padding))


def panels(sample: Sample, data: DataModule) -> dict[str, np.ndarray]:
    """Pictures (H, W, 3) of a sample by title; ids are painted, with a legend beside classes."""
    source, target = data.pair.source, data.pair.target
    vocabulary = data.vocabulary if sample["target"].shape[0] == 1 else None
    image = paint(sample["image"], None) if data.label_classes else photo(sample["image"], data)
    wanted = sample["target"]
    grey = wanted.shape[0] == 1 and not data.classes
    pictures = {source: image, target: photo(wanted, data) if grey else paint(wanted, vocabulary)}
    if "boundary" in sample:
        pictures["boundary"] = np.repeat(sample["boundary"][0].numpy()[..., None] * np.uint8(255), 3, axis=2)
    if vocabulary is not None:
        pictures["classes, %"] = legend(sample["target"][0].numpy(), vocabulary)
    return pictures


def class_panels(sample: Sample, dataset: ImageDataset, data: DataModule) -> dict[str, np.ndarray]:
    """The picture with the name of its class."""
    names, number = getattr(dataset, "class_names", ()), sample["target"]
    name = names[number] if number < len(names) else f"class {number}"
    return {"class": card(photo(sample["image"], data), [(name, GREY)])}


def person_panels(read: Sample, sample: Sample, data: DataModule) -> dict[str, np.ndarray]:
    """The whole picture with a person's box and keypoints, the crop, and the crop with its keypoints; of a face also with
    the axes of the head, by the sample's `angles`."""
    assert data.keypoints is not None
    whole, crop = read["photo"].copy(), paint(sample["image"], None)
    x, y, width, height = read["box"]
    draw_boxes(whole, np.array([[x, y, x + width, y + height]]))
    draw_skeleton(whole, read["keypoints"], read["labelled"], data.keypoints)
    drawn = crop.copy()
    places = (sample["keypoints"] - sample.get("offset", 0)).numpy()  # the pixels in which they are drawn
    draw_skeleton(drawn, places, sample["weight"].numpy(), data.keypoints)
    pictures = {"picture": whole, "crop": crop, "keypoints": drawn}
    if "angles" in sample:
        angles, turned = sample["angles"].numpy(), drawn.copy()
        draw_head(turned, places, angles, data.keypoints)
        pictures["head"] = turned
    return pictures


def object_panels(sample: Sample, dataset: ImageDataset) -> dict[str, np.ndarray]:
    """The picture, and the picture with boxes and the names of their classes."""
    picture, target = paint(sample["image"], None), sample["target"]
    names = getattr(dataset, "categories", {})
    labels = [str(names.get(label, label)) for label in target["labels"].tolist()]
    drawn = picture.copy()
    draw_boxes(drawn, target["boxes"].numpy(), labels)
    return {"picture": picture, "objects": drawn}


def photo(planes: Tensor, data: DataModule) -> np.ndarray:
    """uint8 (C, H, W) of a picture of any number of channels -> (H, W, 3) RGB: the bands that are shown."""
    return as_rgb(np.ascontiguousarray(planes.permute(1, 2, 0).numpy()), data.rule.bands)


def paint(planes: Tensor, vocabulary: Vocabulary | None) -> np.ndarray:
    """uint8 (C, H, W) -> (H, W, 3) RGB. Three channels are colours, one holds ids; any further one is left out."""
    if planes.shape[0] >= 3:
        return np.ascontiguousarray(planes[:3].permute(1, 2, 0).numpy())
    painted: np.ndarray = colours(vocabulary)[planes[0].numpy()]
    return painted


def colours(vocabulary: Vocabulary | None) -> np.ndarray:
    """(256, 3) uint8 RGB by id; what is no class has the colour of ignored pixels."""
    palette = distinct_palette(255) if vocabulary is None else vocabulary.palette
    table = np.full((256, 3), VOID, np.uint8)
    table[: len(palette)] = palette
    return table


def legend(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The classes of a label map (H, W), the largest first, with colour and share in %: (H, LEGEND, 3)."""
    canvas = np.full((max(ids.shape[0], LINE), LEGEND, 3), 255, np.uint8)
    counts, table = np.bincount(ids.ravel(), minlength=256), colours(vocabulary)
    order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    room = canvas.shape[0] // LINE
    for row, number in enumerate(order[:room]):
        top = row * LINE + 2
        if row == room - 1 and len(order) > room:
            text = f"and {len(order) - row} more"
        else:
            name = vocabulary.names[number] if number < len(vocabulary.names) else "ignored"
            text = f"{name} {100 * counts[number] / ids.size:.1f}"
            canvas[top : top + SWATCH, 2 : 2 + SWATCH] = table[number]
        place = (SWATCH + 8, top + SWATCH - 3)
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


def job(config: Config) -> None:
    log.info("%s", draw(config))
