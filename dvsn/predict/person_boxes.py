"""Where the people of a picture are: everywhere, in a file of COCO's format, or where a detector sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.data.coco_files import Entry, Picture, read_coco, read_detections, table
from dvsn.data.coco_people import clip
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.hub.resolve import local
from dvsn.portable.boxes import SCORE, Boxes, given_boxes, picture_numbers, whole_picture
from dvsn.portable.frame import Frame
from dvsn.portable.headers import orientation_of, turn_corners
from dvsn.reading import read_json, to_text, to_whole
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint, require_equal

PERSON = "person"
EXPECTED = "expected image, or FILE.json, FILE.ckpt or FILE.pth"
COUNTER = "num_batches_tracked"
WITHOUT_EPSILON = tuple(
    f"{kind}_resnet50_fpn" for kind in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")
)
"""Models whose published weights torchvision runs with batch norms without an epsilon."""


Finder = Callable[[Frame, int], Boxes]
"""The people of a frame, whose number in COCO's files is given too."""


def make_finder(
    options: Mapping[str, Any], ids: PictureIds, *, device: str, name: str = PERSON, expected: str = EXPECTED
) -> Finder:
    """What `boxes=...` says; `ids` are of pictures known beforehand, `name` the category that is looked for."""
    least = SCORE if options["score"] is None else float(options["score"])
    boxes, category = options["boxes"], options["category"]
    if not isinstance(boxes, str):
        return from_memory(boxes, least, category, name=name)
    if boxes == "image":
        return whole_picture
    path = local(boxes)
    if path.is_dir():
        return from_task(path, least, category, device, name=name)
    if not path.is_file():
        raise DataError(f"boxes: {path}: no such file; {expected}.")
    if path.suffix == ".json":
        if isinstance(read_json(path), dict):
            return from_annotations(path, category, name=name)
        file = options["annotations"]
        if category is None and file is not None:
            category = named_category(read_coco(Path(file), needs="bbox")["categories"], Path(file), name)
        return from_detections(path, ids, least, 1 if category is None else int(category))
    if path.suffix == ".ckpt":
        return from_task(path, least, category, device, name=name)
    number = 1 if category is None else int(category)
    return from_torchvision(path, options["detector"], least, number, device)


def picture_ids(sources: list[Path], file: Path | None) -> dict[Path, int]:
    """An id for each picture: from a COCO file, by name; else the number that its name ends with, as COCO's own do; else,
    where two would be the same or one has none, its place, from 1."""
    if file is None:
        return picture_numbers(sources)
    named = named_pictures(file)
    return {source: number_in(source, named, file) for source in sources}


def named_pictures(file: Path) -> dict[str, list[Entry]]:
    """The pictures of a COCO file by the last part of their names."""
    named: dict[str, list[Entry]] = {}
    for place, each in enumerate(read_coco(file, needs="bbox")["images"]):
        name = to_text(each.get("file_name"), f"{file}: images[{place}]: file_name")
        each["id"] = to_whole(each.get("id"), f"{file}: images[{place}]: id")
        named.setdefault(Path(name).name, []).append(each)
    return named


def number_in(source: Path, named: Mapping[str, list[Entry]], file: Path) -> int:
    """The id of a picture in a COCO file. Raises `DataError` where it lists none, or several."""
    near = named.get(source.name, [])
    if len(near) > 1:  # the folder decides
        near = [each for each in near if source.as_posix().endswith("/" + each["file_name"])]
    if len(near) != 1:
        raise DataError(f"{source}: {file} lists {len(near)} pictures of this name, expected one.")
    return int(near[0]["id"])


class PictureIds:
    """The number of each picture in COCO's files: `picture_ids` of the `sources` that are known beforehand; of other frames
    by `file`, else the number that a picture file's name ends with, else the frame's place from 1."""

    def __init__(self, sources: Sequence[Path] = (), file: Path | None = None) -> None:
        self.file = file
        self.named = None if file is None else named_pictures(file)
        if file is not None and self.named is not None:
            self.known = {source: number_in(source, self.named, file) for source in sources}
        else:
            self.known = picture_ids(list(sources), None)

    def __call__(self, frame: Frame) -> int:
        path = frame.path
        if path is None or frame.seconds is not None:
            return frame.index + 1
        if path in self.known:
            return self.known[path]
        if self.file is not None and self.named is not None:
            return number_in(path, self.named, self.file)
        end = path.stem.rpartition("_")[2]
        return int(end) if end.isdecimal() and not self.known else frame.index + 1


# ---- ways to find people ---------------------------------------------------------------------------------


def from_annotations(file: Path, category: int | None, *, name: str = PERSON) -> Finder:
    """The true boxes, clipped as in training and evaluation; crowd regions and boxes without an inside are left out.

    They count pixels of the pictures as stored, as in training, and are turned with a picture that is looked at upright;
    not where the file gives the upright picture's sides.
    """
    content = read_coco(file, needs="bbox")
    number = named_category(content["categories"], file, name) if category is None else int(category)
    chosen = [
        each
        for each in content["annotations"]
        if each.get("category_id") == number and not each.get("iscrowd", 0)
    ]
    listed: dict[int, list[Entry]] = {}
    for place, each in enumerate(chosen):
        each.setdefault("id", f"number {place} of the category")
        listed.setdefault(each.get("image_id", -1), []).append(each)
    table(chosen, "bbox", 4, file, "x, y, width, height")
    sides = {each.get("id"): (each.get("height"), each.get("width")) for each in content["images"]}

    def find(frame: Frame, image_id: int) -> Boxes:
        picture = Picture(frame.path or Path(frame.name), frame.size[1], frame.size[0])
        found = upright([each["bbox"] for each in listed.get(image_id, [])], frame, sides.get(image_id))
        clipped = [clip(box, picture) for box in found]
        boxes = np.array([box for box in clipped if box is not None]).reshape(-1, 4)
        return Boxes(boxes, np.ones(len(boxes)))

    return find


def upright(boxes: list[Any], frame: Frame, size: tuple[Any, Any] | None) -> list[Any]:
    """Boxes x, y, width, height of a picture as stored -> of the frame, which may show it upright. `size` (H, W) is what
    their file says of the picture."""
    orientation = 1
    if frame.rule.upright and frame.path is not None and frame.seconds is None:
        orientation = orientation_of(frame.path)
    height, width = frame.size
    stored = (width, height) if orientation > 4 else (height, width)
    if orientation == 1 or not boxes or (stored != frame.size and size == frame.size):
        return boxes
    given = np.asarray(boxes, np.float64)
    corners = turn_corners(np.hstack([given[:, :2], given[:, :2] + given[:, 2:]]), orientation, stored)
    turned: list[Any] = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    return turned


def from_detections(file: Path, ids: PictureIds, least: float, category: int) -> Finder:
    """Boxes of a file in COCO's results format, as they are."""
    listed: dict[int, list[tuple[int, Entry]]] = {}
    for row, each in enumerate(read_detections(file)):
        if each["category_id"] == category and each["score"] >= least:
            listed.setdefault(each["image_id"], []).append((row, each))
    if ids.known and not set(listed) & set(ids.known.values()):
        source, number = next(iter(ids.known.items()))
        raise DataError(
            f"{file}: no box of category {category} with a score of {least} or more belongs to any of the {len(ids.known)} "
            f"pictures: {source.name} was taken for image_id {number}, the file has {sorted(listed)[:5]}. Give the file "
            "that knows the pictures' ids as annotations=FILE, or set score or category."
        )

    def find(frame: Frame, image_id: int) -> Boxes:
        height, width = frame.size
        rows = listed.get(image_id, [])
        for row, each in rows:
            x, y, wide, high = each["bbox"]
            if min(wide, high) <= 0 or x >= width or y >= height or x + wide <= 0 or y + high <= 0:
                raise DataError(
                    f"{file}: entry {row}: bbox {each['bbox']} has no part in the {width} x {height} picture "
                    f"{frame.path or frame.name}. "
                    "Expected x, y, width and height in its pixels."
                )
        boxes = np.array([each["bbox"] for _, each in rows], np.float64).reshape(-1, 4)
        return Boxes(boxes, np.array([each["score"] for _, each in rows], np.float64))

    return find


def from_memory(given: Any, least: float, category: int | None, *, name: str = PERSON) -> Finder:
    """What Python gives: a loaded detection task, which is asked on its own device; a `Result` with boxes, of which those of
    the class `name` count; or corners (N, 4), x1, y1, x2, y2, in pixels of every picture."""
    if hasattr(given, "kind") and hasattr(given, "shows"):
        return of_task(given, f"the task '{given.kind}'", least, category, str(given.device), name=name)
    found = given_boxes(given, least, category, name=name)
    return lambda frame, image_id: found


def from_task(file: Path, least: float, category: int | None, device: str, *, name: str = PERSON) -> Finder:
    """A detection checkpoint of dvsn."""
    return of_task(load(file, device=device), file, least, category, device, name=name)


def of_task(task: Any, file: Any, least: float, category: int | None, device: str, *, name: str) -> Finder:
    """A loaded detection task; `file` names it in messages."""
    if task.kind != "detection":
        raise ConfigError(f"boxes: {file} is a checkpoint of the task '{task.kind}', expected detection.")
    if category is None:
        names = task.vocabulary.names
        if name not in names:
            raise ConfigError(
                f"category: {file} knows no class called '{name}'. {nearest(name, names)} Give its number."
            )
        category = names.index(name)
    return _detector(task, least, int(category), device, scale=1)


def from_torchvision(file: Path, name: str | None, least: float, category: int, device: str) -> Finder:
    """A detector of torchvision by name, with the weights of a file."""
    return _detector(load_detector(file, name).to(device), least, category, device, scale=255)


def load_detector(file: Path, name: str | None) -> torch.nn.Module:
    """The model, in eval mode. Nothing is downloaded."""
    from torchvision.models import detection, get_model, list_models

    valid = list_models(module=detection)
    if name not in valid:
        raise ConfigError(
            f"detector: found {name!r}, expected the model of {file}. {nearest(str(name), valid)}"
        )
    state = read_checkpoint(file)
    model = get_model(name, weights=None, weights_backbone=None)
    if not any(key.endswith(COUNTER) for key in state):  # saved with frozen batch norms, which count nothing
        counters = [key for key in model.state_dict() if key.endswith(COUNTER)]
        state |= {key: torch.zeros((), dtype=torch.long) for key in counters}
        for module in model.modules() if name in WITHOUT_EPSILON else ():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
    require_equal(model.state_dict(), state, file)
    model.load_state_dict(state)
    return model.eval()


def _detector(network: Any, least: float, category: int, device: str, *, scale: int) -> Finder:
    """`network` answers a list of pictures (3, H, W), uint8 or divided by 255, by dicts of boxes, labels and scores."""

    def find(frame: Frame, image_id: int) -> Boxes:
        image = torch.from_numpy(np.ascontiguousarray(frame.picture.transpose(2, 0, 1))).to(device)
        with torch.inference_mode():
            (answer,) = network([image if scale == 1 else image / scale])
        kept = (answer["labels"] == category) & (answer["scores"] >= least)
        corners = answer["boxes"][kept].double().cpu().numpy()
        sides = corners[:, 2:] - corners[:, :2]
        inside = (sides > 0).all(axis=1)
        scores = answer["scores"][kept].double().cpu().numpy()
        return Boxes(np.hstack([corners[:, :2], sides])[inside], scores[inside])

    return find


def named_category(categories: list[Entry], file: Path, name: str) -> int:
    """The id of the category called `name`, or of the only one."""
    found = [each for each in categories if each.get("name") == name] or categories
    if len(found) != 1:
        names = [str(each.get("name")) for each in categories]
        raise ConfigError(
            f"category: {file} has no category called '{name}'. {nearest(name, names)} Give its id."
        )
    return to_whole(found[0].get("id"), f"{file}: the category '{found[0].get('name')}': id")
