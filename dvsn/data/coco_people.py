"""People in COCO's keypoint format: COCO, CrowdPose, OCHuman, the street scenes, and sets of your own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dvsn.data.coco_files import (
    Entry,
    Picture,
    check_ids,
    check_picture_sizes,
    contradiction,
    first_present,
    list_pictures,
    read_coco,
    read_detections,
    table,
)
from dvsn.data.dataset import split_names
from dvsn.data.files import require_file, require_folder
from dvsn.data.labelled import check_choices
from dvsn.data.people import PeopleDataset, PersonRecord, require_count, require_pictures
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import shown, to_whole
from dvsn.types import Sample

log = logging.getLogger(__name__)
Box = tuple[float, float, float, float]

OUTSIDE = "box without an inside"
CROWD = "crowd region"
UNLABELLED = "no keypoint labelled"


class CocoPeople(PeopleDataset):
    """People of one category of a COCO file (Lin et al., 2014, arXiv:1405.0312), as HRNet's code takes them.

    `annotations` and `images` name the file and the folder of a split below `root`, with `{split}` for its name; of
    several the first that is there. `boxes` is where boxes come from: `truth`, or a file of detections in COCO's
    results format, of which those of at least the score `threshold` are taken, as they are. The splits in
    `train_split` (joined by a plus sign) always take the truth.

    True boxes are clipped to the picture and lose a pixel, as published: see `clip`. Crowd regions, people without a
    single number among their keypoints and boxes without an inside are left out; `left_out` lists them by reason.
    The only difference: the published code keeps a box that is one pixel wide or high, as one of no size.

    A keypoint may lie outside its picture. Pictures are read as stored, and must have the size that the file says.
    `area_share` of the box is the area of an annotation that has none, for AP. `sizes`: "file" compares the pictures'
    headers with the file's sizes when the set is opened; "picture" believes the pictures.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        annotations: str | Sequence[str],
        images: str | Sequence[str],
        category: str | None = "person",
        boxes: str = "truth",
        threshold: float = 0.0,
        train_split: str = "train",
        area_share: float = 0.53,
        sizes: Literal["file", "picture"] = "file",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices({"sizes": (sizes, ("file", "picture"))}, node="data.people")
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        tree = f"    ROOT/{_first(annotations)}\n    ROOT/{_first(images)}/NAME.jpg\n    with {{split}} = {split}"
        self.file = require_file(
            first_present(root, annotations, split),
            expected=tree,
            option="data.root or data.people.annotations",
        )
        folder = require_folder(
            first_present(root, images, split), expected=tree, option="data.root or data.people.images"
        )
        content = read_coco(self.file, needs="keypoints")
        self.category = self._choose_category(content["categories"], category)
        self.area_share = area_share
        self.pictures = list_pictures(content["images"], folder, self.file, sizes_from=sizes)
        self.left_out: dict[str, list[int]] = {OUTSIDE: [], CROWD: [], UNLABELLED: []}
        truth = self._truth([each for each in content["annotations"] if self._is_wanted(each)])
        self.records = truth
        if boxes != "truth" and split not in split_names(train_split):
            path = require_file(
                Path(root) / boxes.replace("{split}", split),
                expected=f"    ROOT/{boxes}  a list of {{image_id, category_id, bbox, score}}",
                option="data.people.boxes (truth: the boxes of the annotations)",
            )
            self.records = self._detected(path, threshold)
        if not self.records:
            raise DataError(
                f"{self.file}: no person among {len(content['annotations'])} annotations can be used "
                f"({', '.join(f'{reason}: {len(ids)}' for reason, ids in self.left_out.items())}). Expected one or more."
            )
        require_pictures([record.picture for record in self.records], self.file, tree=tree)
        if sizes == "file":
            used = {record.image_id for record in self.records}
            known = [picture for number, picture in self.pictures.items() if number in used]
            check_picture_sizes(known, self.file, option="data.people.sizes")

    @cached_property
    def annotations(self) -> Entry:  # type: ignore[override]
        """The file's content for pycocotools, read when a score asks for it.

        Only the one category. What the evaluator needs and a file may lack is added: the area, the crowd flag, the
        count of labelled keypoints. Ids start at 1, since the evaluator takes a match with number 0 for none.
        """
        content = read_coco(self.file, needs="keypoints")
        people = [each for each in content["annotations"] if self._is_wanted(each)]
        table(people, "bbox", 4, self.file, "x, y, width, height")
        table(people, "keypoints", 3 * len(self.keypoints), self.file, "x, y, v for each keypoint")
        shift = int(any(each["id"] == 0 for each in people))
        for each in people:
            each["number"] = each["id"]  # the record's
            each["id"] += shift
            each.setdefault("iscrowd", 0)
            if "area" not in each:
                each["area"] = self.area_share * each["bbox"][2] * each["bbox"][3]
            each.setdefault("num_keypoints", sum(flag > 0 for flag in each["keypoints"][2::3]))
        return content | {"annotations": people, "categories": [self.category]}

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        picture = self.pictures[self.records[index].image_id]
        height, width = sample["photo"].shape[:2]
        if (width, height) != (picture.width, picture.height):
            why = contradiction(picture, (height, width), self.file, option="data.people.sizes")
            raise DataError(f"{picture.path}: {why}")
        return sample

    def _is_wanted(self, annotation: Entry) -> bool:
        return bool(annotation.get("category_id") == self.category["id"])

    def _choose_category(self, categories: list[Entry], name: str | None) -> Entry:
        """The category called `name`, or the one that has keypoints. Its keypoints must be those of the config."""
        for place, each in enumerate(categories):
            each["id"] = to_whole(each.get("id"), f"{self.file}: categories[{place}]: id")
            if not isinstance(each.get("keypoints") or [], list):
                raise DataError(
                    f"{self.file}: categories[{place}]: keypoints: found {shown(each['keypoints'])}, expected a list of "
                    "their names."
                )
        names = [str(each.get("name")) for each in categories]
        found = [
            each
            for each in categories
            if (each.get("name") == name if name is not None else each.get("keypoints"))
        ]
        if len(found) != 1:
            what = f"called '{name}'" if name is not None else "with a list of keypoints"
            raise ConfigError(
                f"data.people.category: {self.file} has {len(found)} categories {what}, expected one. "
                f"{nearest(str(name), names)}"
            )
        theirs, ours = [plain(each) for each in found[0].get("keypoints") or ()], self.keypoints.names
        if theirs:
            require_count(len(theirs), self.keypoints, str(self.file))
        mine = [plain(each) for each in ours]
        if theirs and theirs != mine:
            place = next(number for number, each in enumerate(theirs) if each != mine[number])
            difference = f"{self.file}: keypoint {place} is '{theirs[place]}', data.keypoints.names says '{mine[place]}'"
            if sorted(theirs) == sorted(mine):
                raise ConfigError(
                    f"{difference}. The file's order counts: write the names as it has them: {', '.join(theirs)}."
                )
            log.warning("%s; taken for the same", difference)
        return found[0]

    def _truth(self, people: list[Entry]) -> list[PersonRecord]:
        """The records of all people that can be used, picture by picture in the order of the file."""
        check_ids(people, self.pictures, self.file)
        chosen = []
        for each in people:
            if each.get("iscrowd", 0):
                self.left_out[CROWD].append(each["id"])
            else:
                chosen.append(each)
        count = len(self.keypoints)
        boxes = table(chosen, "bbox", 4, self.file, "x, y, width, height")
        points = table(chosen, "keypoints", 3 * count, self.file, f"x, y, v of {count} keypoints")
        points = points.reshape(-1, count, 3)
        check_flags(chosen, points[..., 2], self.keypoints, self.file)
        labelled = (points[..., 2] > 0).astype(np.uint8)
        places = np.where(labelled[..., None] > 0, points[..., :2], 0).astype(np.float32)
        blank = np.logical_not(points.any(axis=(1, 2)))
        rows: dict[int, list[PersonRecord]] = {number: [] for number in self.pictures}
        outside: list[Entry] = []
        for row, each in enumerate(chosen):
            picture = self.pictures[each["image_id"]]
            box = clip(boxes[row].tolist(), picture) if each.get("area", 1) > 0 else None
            if blank[row]:
                self.left_out[UNLABELLED].append(each["id"])
            elif box is None:
                outside.append(each)
            else:
                rows[each["image_id"]].append(
                    PersonRecord(
                        picture.path, box, places[row], labelled[row], each["id"], image_id=each["image_id"]
                    )
                )
        if outside:
            self._tell(outside)
        return [record for records in rows.values() for record in records]

    def _tell(self, outside: list[Entry]) -> None:
        """One line about the boxes without an inside, of which the first is named."""
        self.left_out[OUTSIDE] = [each["id"] for each in outside]
        first, picture = outside[0], self.pictures[outside[0]["image_id"]]
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        log.warning(
            "%s: annotation %s%s left out: box %s, area %s; expected an inside within the %d x %d picture",
            self.file, first["id"], more, first["bbox"], first.get("area", "not given"), picture.width, picture.height,
        )  # fmt: skip

    def _detected(self, path: Path, threshold: float) -> list[PersonRecord]:
        """Detections of the category, in the order of their file. Their boxes are not clipped."""
        number, count, records = self.category["id"], len(self.keypoints), []
        for row, each in enumerate(read_detections(path)):
            if each["category_id"] != number:
                continue
            score, box = each["score"], each["bbox"]
            if each["image_id"] not in self.pictures:
                raise DataError(
                    f"{path}: entry {row}: image_id {each['image_id']} is not in {self.file}. Expected detections of the "
                    "same split."
                )
            if score < threshold:
                continue
            if min(box[2:]) <= 0:
                raise DataError(f"{path}: entry {row}: bbox {box}, expected a width and a height above 0.")
            records.append(
                PersonRecord(
                    self.pictures[each["image_id"]].path,
                    (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                    np.zeros((count, 2), np.float32),
                    np.zeros(count, np.uint8),
                    -1,
                    image_id=each["image_id"],
                    score=float(score),
                )
            )
        if not records:
            raise DataError(
                f"{path}: no detection of category {number} with a score of {threshold} or more. Set "
                "data.people.threshold, or another file in data.people.boxes."
            )
        return records


def clip(box: Sequence[float], picture: Picture) -> Box | None:
    """A true box within its picture as HRNet's code has it, corners being pixels; None where nothing is left.

    x2 = min(W - 1, x1 + w - 1), and the width afterwards is x2 - x1: a pixel less than the file says.
    """
    x, y, width, height = box
    x1, y1 = max(0.0, x), max(0.0, y)
    x2 = min(picture.width - 1.0, x1 + max(0.0, width - 1))
    y2 = min(picture.height - 1.0, y1 + max(0.0, height - 1))
    return (x1, y1, x2 - x1, y2 - y1) if x2 > x1 and y2 > y1 else None


def check_flags(annotations: list[Entry], flags: np.ndarray, keypoints: KeypointSet, file: Path) -> None:
    """Raise `DataError` for the first visibility (N, K) that is not 0, 1 or 2."""
    wrong = np.argwhere(~np.isin(flags, (0, 1, 2)))
    if len(wrong):
        row, joint = wrong[0].tolist()
        more = f" ({len(wrong)} such flags in the file)" if len(wrong) > 1 else ""
        raise DataError(
            f"{file}: annotation {annotations[row]['id']}: v of {keypoints.names[joint]} is {flags[row, joint]:g}{more}, "
            "expected 0 (not labelled), 1 (hidden) or 2 (visible)."
        )


def plain(name: str) -> str:
    """A keypoint's name for comparing."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def _first(patterns: str | Sequence[str]) -> str:
    return patterns if isinstance(patterns, str) else patterns[0]
