"""Boxes and masks: COCO's JSON, YOLO's text, Pascal VOC's XML, or a mask a file, read where they lie."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dvsn.data_tools.init import coco_look, object_masks, recipe, voc_look, yolo_look
from dvsn.data_tools.init.box_words import finish, side_of
from dvsn.data_tools.init.found import COULD, STATED, Found
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.recipe import Recipe
from dvsn.errors import DataError

ONE_STEP = 1.3  # seconds of one core: four pictures of 384x768 by detector_small
FIXED = 0.4  # of it, for proposals, boxes and weights, which small pictures have as well: 128x128 takes 0.49 in all


def look(listing: Listing) -> Found | None:
    """Objects in one of the three formats, or by a mask each."""
    for understand in (from_coco, yolo_look.objects, voc_look.objects, object_masks.objects):
        found = understand(listing)
        if found is not None:
            return found
    return None


def from_coco(listing: Listing) -> Found | None:
    """Boxes of a COCO file. A file of keypoints has boxes too: there it is the second understanding."""
    files = coco_look.coco(listing, "bbox")
    if files is None:
        return None
    by_id = coco_look.categories(files, listing)
    label_of = {number: label for label, number in enumerate(by_id, 1)}
    counts: dict[str, Counter[str]] = {}
    shows: dict[str, dict[int, set[int]]] = {}
    sides: list[float] = []
    masks = people = total = 0
    for split, content in files.contents.items():
        counts[split], shows[split] = Counter(), {number: set() for number in files.names[split]}
        for each in content["annotations"]:
            box, number = each.get("bbox"), each.get("category_id")
            if each.get("image_id") not in shows[split] or number not in label_of:
                raise DataError(
                    f"{listing.path(files.files[split])}: annotation {each.get('id')}: image_id {each.get('image_id')!r}, "
                    f"category_id {number!r}; expected a picture and a category of the file."
                )
            total, masks, people = (
                total + 1,
                masks + bool(each.get("segmentation")),
                people + bool(each.get("keypoints")),
            )
            counts[split][by_id[number]] += 1
            shows[split][each["image_id"]].add(label_of[number])
            if isinstance(box, list) and len(box) == 4:
                sides.append(side_of(box))
    node: dict[str, Any] = {"annotations": files.annotations, "images": files.images}
    node["names"] = {label: by_id[number] for number, label in label_of.items()}
    if any(number != label for number, label in label_of.items()):
        node["ids"] = {label: number for number, label in label_of.items()}
    photos = {
        split: [files.photo(split, number) for number in sorted(each)] for split, each in files.names.items()
    }
    found = finish(
        listing,
        kind="objects in COCO's format",
        base="boxes",
        node=node,
        photos=photos,
        files=list(files.files.values()),
        counts=counts,
        sides=sides,
        shows={split: [frozenset(each[number]) for number in sorted(each)] for split, each in shows.items()},
    )
    found.sure = COULD if people > total / 2 else STATED
    found.comments = (
        {"objects.ids": "category ids of the files, which results have again"} if "ids" in node else {}
    )
    if masks > total / 2:
        found.says.append(
            "outlines are there: train on masks with network.detector=mask_rcnn data.objects.masks=true"
        )
    return found


def propose(found: Found, machine: Machine) -> Recipe:
    """A small Faster R-CNN without a GPU, HRNetV2p-W18 with one; pictures as they are, within limits, and anchors by the
    sizes of the boxes."""
    made, (height, width) = Recipe(), found.side
    small = not machine.gpu
    short, long = (384, 640) if small else (800, 1333)
    zoom = min(1.0, short / min(height, width), long / max(height, width))
    if (
        found.facts["sides"][0] * zoom < 12
    ):  # the smallest tenth would lie between the places of the finest level
        zoom = min(2.0, 12 / max(1.0, found.facts["sides"][0]), long / max(height, width))
    low, high = (max(64, round(side * zoom / 32) * 32) for side in (min(height, width), max(height, width)))
    if small:
        made.choose("network", "detector_small", "Faster R-CNN on ResNet-18, which trains without a GPU")
    else:
        made.choose("network", "hrnetv2p_w18", "Faster R-CNN on HRNetV2p")
    made.choose("transform", "detection_colour")
    made.choose("optim", "adamw")
    made.choose("schedule", "cosine")
    batch = recipe.batch_size(found, largest=4 if small else 8)
    made.values["data.batch_size"] = batch
    made.set("data.drop_last", False, "few pictures: every one counts")
    made.values["data.workers"] = recipe.workers(machine)
    made.set("network.min_size", low, f"of the shorter side: pictures are {height}x{width}")
    made.set("network.max_size", high)
    first = 4 << int(np.clip(np.round(np.log2(max(1.0, found.facts["sides"][0] * zoom) / 4)), 1, 3))
    made.set(
        "network.anchors",
        [first << level for level in range(5)],
        f"a tenth of the boxes is below {found.facts['sides'][0] * zoom:.0f} pixels in the network, a tenth above "
        f"{found.facts['sides'][2] * zoom:.0f}",
    )
    made.set("optim.lr", 0.001 if small else 0.0002, "of AdamW from random weights")
    made.set("optim.weight_decay", 0.01)
    made.set("schedule.warmup_steps", 50)
    made.set("trainer.gradient_clip_val", 10)
    cost = (FIXED + (ONE_STEP - FIXED) * low * high / (384 * 768)) * batch.value / 4
    steps = max(800, 3 * found.train // batch.value)
    made.train_for("epochs", found, machine, batch=batch.value, steps=steps, cost=cost)
    return made
