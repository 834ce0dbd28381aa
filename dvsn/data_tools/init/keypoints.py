"""Keypoints of people, animals or things: COCO's JSON, YOLO's text, and tables of points."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from dvsn.data.yolo import YoloPeople
from dvsn.data_tools.init import coco_look, recipe, tables, yolo_look
from dvsn.data_tools.init.found import COULD, LOOKS, STATED, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.patterns import ALL, annotated
from dvsn.data_tools.init.recipe import Recipe
from dvsn.errors import DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.geometry.mirrors import lacking_pairs

LOWER = {"hip", "knee", "ankle", "foot", "heel", "toe", "pelvis", "leg"}
UPPER = {"shoulder", "elbow", "wrist", "head", "neck", "nose", "hand", "thorax"}
FACE = {
    "eye",
    "brow",
    "eyebrow",
    "nose",
    "mouth",
    "lip",
    "chin",
    "jaw",
    "pupil",
    "nostril",
    "cheek",
    "eyelid",
    "ear",
}
FACES = ("face", "faces", "head")
"""Categories whose keypoints are landmarks."""
COCO17 = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
          "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
          "right_ankle"]  # fmt: skip


def look(listing: Listing) -> Found | None:
    """Keypoints in one of the formats."""
    for understand in (from_coco, from_yolo, from_points):
        found = understand(listing)
        if found is not None:
            return found
    return None


def from_coco(listing: Listing) -> Found | None:
    """Keypoints of the category that has most; others are left out, and named."""
    files = coco_look.coco(listing, "keypoints")
    if files is None:
        return None
    by_id = coco_look.categories(files, listing)
    people = {
        split: [each for each in content["annotations"] if each.get("keypoints") and not each.get("iscrowd")]
        for split, content in files.contents.items()
    }
    counted = Counter(each.get("category_id") for found in people.values() for each in found)
    if not counted:
        return None
    category = counted.most_common(1)[0][0]
    people = {
        split: [each for each in found if each["category_id"] == category] for split, found in people.items()
    }
    entries = (each for content in files.contents.values() for each in content["categories"])
    entry: dict[str, Any] = next((each for each in entries if each["id"] == category), {})
    sample = next(each["keypoints"] for found in people.values() for each in found)
    names = [str(each) for each in entry.get("keypoints") or numbered(len(sample) // 3)]
    photos, points, boxes = poses(listing, files, people, names)
    node: dict[str, Any] = {"annotations": files.annotations, "images": files.images}
    node |= {"category": by_id.get(category)} if entry.get("keypoints") is None or len(counted) > 1 else {}
    known, claimed = names == COCO17, list(files.files.values())
    made = finish(
        listing, kind="keypoints in COCO's format", base="keypoints, _coco_keypoints" if known else "keypoints", node=node,
        names=names, photos=photos, points=points, files=claimed, boxes=boxes, lines=skeleton(entry.get("skeleton"), names),
        known=known,
    )  # fmt: skip
    made.facts["predict"] += [f"boxes={listing.path(claimed[-1])}", f"category={category}"]
    if known and list(photos) == [ALL]:
        made.node["facts"] = {"score": "pck"}
        made.comments["facts.score"] = "AP is counted over whole files, and this one is parted"
    if str(by_id.get(category)).lower() in FACES and (is_face(names) or not entry.get("keypoints")):
        made.sure = COULD
    if len(counted) > 1:
        others = few([str(by_id.get(each)) for each in counted if each != category])
        made.says.append(f"other categories with keypoints are left out: {others}")
    return made


def numbered(count: int) -> list[str]:
    """Names of keypoints that have none."""
    return [f"p{number}" for number in range(count)]


def poses(
    listing: Listing, files: coco_look.Coco, people: dict[str, list[Any]], names: list[str]
) -> tuple[dict[str, list[str]], np.ndarray, np.ndarray]:
    """By split the picture of each person; points (N, K, 2), NaN where not labelled; widths and heights of boxes (N, 2).

    Who has no keypoint is left out. Raises `DataError` for another number of keypoints, and for a picture that is not there.
    """
    photos: dict[str, list[str]] = {split: [] for split in people}
    points, boxes = [], []
    for split, found in people.items():
        for each in found:
            if not any(each["keypoints"]):
                continue
            row = np.array(each["keypoints"], float)
            if len(row) != 3 * len(names) or each.get("image_id") not in files.names[split]:
                raise DataError(
                    f"{listing.path(files.files[split])}: annotation {each.get('id')}: {len(row)} numbers of keypoints and "
                    f"image_id {each.get('image_id')!r}; expected {3 * len(names)}, and a picture of the file."
                )
            photos[split].append(files.photo(split, each["image_id"]))
            points.append(np.where(row[2::3, None] > 0, row.reshape(-1, 3)[:, :2], np.nan))
            boxes.append((each.get("bbox") or [0, 0, 1, 1])[2:])
    return photos, np.array(points), np.array(boxes, float)


def skeleton(given: Any, names: list[str]) -> list[list[str]]:
    """COCO's pairs of numbers from 1 on as pairs of names."""
    found = []
    for pair in given if isinstance(given, list) else ():
        good = (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(each) is int and 1 <= each <= len(names) for each in pair)
        )
        if good and pair[0] != pair[1]:
            found.append([names[pair[0] - 1], names[pair[1] - 1]])
    return found


def from_yolo(listing: Listing) -> Found | None:
    files = yolo_look.yolo(listing)
    shape = None if files is None else files.stated.get("kpt_shape")
    if files is None or not shape:
        return None
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and type(shape[0]) is int
        and shape[0] > 0
        and shape[1] in (2, 3)
    ):
        raise DataError(
            f"{listing.root}: data.yaml: kpt_shape: found {shape!r}, expected [KEYPOINTS, 2 or 3]."
        )
    given = files.stated.get("kpt_names")
    given = next(iter(given.values()), None) if isinstance(given, dict) else given
    names = [str(each) for each in given] if isinstance(given, list) and len(given) == shape[0] else []
    names = names or numbered(shape[0])
    node: dict[str, Any] = {"pictures": files.pictures, "labels": files.labels, "visibility": shape[1] == 3}
    sets = {
        split: YoloPeople(root=str(listing.root), split=split, keypoints=KeypointSet(names=names), **node)
        for split in files.splits
    }
    records = [record for each in sets.values() for record in each.records]
    points = np.array([np.where(each.labelled[:, None] > 0, each.keypoints, np.nan) for each in records])
    made = finish(
        listing, kind="keypoints in YOLO's text files", base="yolo_keypoints", node=node, names=names,
        photos={
            split: [record.picture.relative_to(listing.root).as_posix() for record in each.records]
            for split, each in sets.items()
        },
        points=points, files=list(files.files), boxes=np.array([each.box[2:] for each in records]),
    )  # fmt: skip
    order = files.stated.get("flip_idx")
    if isinstance(order, list) and sorted(order) == list(range(shape[0])):
        made.node["keypoints"]["pairs"] = [
            [names[i], names[j]] for i, j in enumerate(order) if i < j and order[j] == i
        ]
        made.comments["keypoints.pairs"] = "flip_idx of data.yaml"
        made.says = [each for each in made.says if not each.startswith("no pairs")]
    return made


def from_points(listing: Listing) -> Found | None:
    """A table of named points; of faces or of numbered points it is the second understanding."""
    found = tables.points_in(listing)
    if found is None or found.bases[0] != "keypoint_table":
        return None
    made = finish(
        listing, kind=found.kind, base=found.bases[0], node=found.node, names=found.names, photos=found.photos,
        points=found.points, files=found.files, boxes=None,
    )  # fmt: skip
    made.node["people"] = {
        key: value for key, value in made.node["people"].items() if (key, value) != ("visibility", True)
    }
    if not made.node["people"]:
        del made.node["people"]
    made.node["facts"] = {"padding": 1.0}
    made.comments["facts.padding"] = "of a person's box, which is the whole picture"
    made.says += found.says
    made.sure = COULD if is_face(found.names) or not found.named else LOOKS
    return made


def word_set(name: str) -> set[str]:
    return {each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def is_face(names: list[str]) -> bool:
    """Whether names speak of a face and of no body."""
    found = [word_set(name) for name in names]
    return sum(bool(each & FACE) for each in found) > len(found) / 2 and not any(
        each & (LOWER | UPPER - {"nose", "head"}) for each in found
    )


def upper_body(names: list[str]) -> list[str]:
    """The keypoints of the upper half, where names speak of both halves of a body."""
    found = [word_set(name) for name in names]
    if not any(each & LOWER for each in found) or not any(
        each & (UPPER - {"head", "nose", "hand"}) for each in found
    ):
        return []
    return [name for name, each in zip(names, found, strict=True) if not each & LOWER]


def finish(
    listing: Listing,
    *,
    kind: str,
    base: str,
    node: dict[str, Any],
    names: list[str],
    photos: dict[str, list[str]],
    points: np.ndarray,
    files: list[str],
    boxes: np.ndarray | None,
    lines: list[list[str]] | None = None,
    known: bool = False,
) -> Found:
    """What all formats say. `photos` one an item, by split; `points` (N, K, 2); `boxes` (N, 2) widths and heights."""
    total = sum(map(len, photos.values()))
    if not total or np.isnan(points).all():
        raise DataError(f"{listing.root}: {kind}, and not one labelled keypoint. Expected one or more.")
    own: dict[str, Any] = {} if known else {"names": names}
    upper = [] if known else upper_body(names)
    own |= {"skeleton": lines} if lines and not known else {}
    own |= {"upper_body": upper} if upper else {}
    found, sizes = annotated(
        listing, photos, files, without="without keypoints", kind=kind, task="pose", base=base, sure=STATED, classes=names,
        node={"people": node} | ({"keypoints": own} if own else {}),
    )  # fmt: skip
    heights, widths = (np.array([each[axis] for each in sizes.values()], float) for axis in (0, 1))
    frame = np.stack([widths, heights], axis=1) if boxes is None or not len(boxes) else boxes
    found.facts |= {"box": [float(each) for each in np.median(frame, axis=0)], "upper": bool(upper) or known}
    share = 1 - float(np.isnan(points[..., 0]).mean())
    pairs = lacking_pairs(names, ())
    found.facts["mirrors"] = bool(pairs) or known or len(names) == 1
    found.says = [
        f"{total} of {len(names)} keypoints in {len(set().union(*photos.values()))} pictures, {found.size_words()} "
        f"(height x width), {share:.0%} labelled",
        f"keypoints: {few(names, 20)}",
        f"pairs that a mirror exchanges, by their names: {few([f'{a} and {b}' for a, b in pairs], 10)}"
        if pairs
        else "no pairs are told by the names, so nothing is mirrored: write keypoints.pairs where there are left and right",
    ]
    return found


def propose(found: Found, machine: Machine) -> Recipe:
    """A small HRNet without a GPU, HRNet-W32 with one, on crops of the usual shape; UDP's heatmaps."""
    made, (width, height) = Recipe(), found.facts["box"]
    small = not machine.gpu
    ratio = height / max(1.0, width)
    long, short = (128, 96) if small else (256, 192)
    size = [long, short] if ratio > 1.25 else [short, long] if ratio < 0.8 else [long, long]
    if max(width, height) < 80:
        size = [side // 2 // 32 * 32 or 32 for side in size]
    if small:
        made.choose("network", "hrnet_small", "trains without a GPU")
    else:
        made.choose("network", "hrnet_w32")
    made.choose("codec", "udp", "counts pixels between their centres: exact on small crops")
    batch = made.on_crops(found, machine, largest=32 if small else 64, evaluated=32)
    made.set("transform.size", size, f"boxes are {height:.0f}x{width:.0f} (height x width), most of them")
    if small:
        made.set("network.width", 24 if found.train < 1000 else 32)
        made.set("codec.sigma", 1.5, "for maps of a quarter of the crop")
        made.set("codec.blur", 7)
    half = 0.3 if found.facts["upper"] and max(size) >= 192 else 0.0
    made.set(
        "transform.train.half_body", half, "" if half else "crops are too small, or there is no upper body"
    )
    made.set("transform.train.zoom", 0.25)
    made.set("transform.train.rotation", 30.0)
    made.set("transform.train.shift", 0.05)
    made.set("optim.lr", 0.001, "of AdamW from scratch")
    made.set("optim.weight_decay", 0.01)
    made.set("schedule.warmup_steps", 50)
    area = size[0] * size[1] / (256 * 192)
    cost = (0.62 * (1.5 if found.train < 1000 else 2) ** 2 if small else 7.7) * area * batch
    steps = max(800, min(60 * found.train // batch, 20000))
    made.train_for("epochs", found, machine, batch=batch, steps=steps, cost=recipe.seconds(cost))
    return made
