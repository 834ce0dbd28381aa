"""Results in COCO's results format."""

from __future__ import annotations

from typing import Any

import numpy as np

from dvsn.errors import ConfigError
from dvsn.portable.record import Record
from dvsn.portable.runs import encode_mask

Array = np.ndarray[Any, Any]
Entry = dict[str, Any]

ANGLES = ("pitch", "yaw", "roll")
CATEGORY = 1  # of people and faces


def to_coco(result: Record, image_id: int | None = None) -> list[Entry]:
    """See `Result.to_coco`."""
    number = result.image_id if image_id is None else image_id
    number = result.frame.index + 1 if number is None else int(number)
    if result.labels is not None:
        return objects(result, number)
    if result.keypoints is not None or result.points is not None:
        return people(result, number)
    if result.ids is not None:
        return regions(result, number)
    raise ConfigError(f"to_coco: COCO's files have no form for the answer of {result.kind}. Use to_json().")


def objects(result: Record, image_id: int) -> list[Entry]:
    """Boxes as x, y, width, height, with masks; categories by the numbers of the data set's files."""
    assert result.boxes is not None and result.scores is not None and result.labels is not None
    entries: list[Entry] = []
    for place, ((x, y, right, bottom), score, label) in enumerate(
        zip(result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True)
    ):
        entry = {
            "image_id": image_id, "category_id": result.file_ids.get(label, label),
            "bbox": [x, y, right - x, bottom - y], "score": score,
        }  # fmt: skip
        if result.mask_codes is not None:
            entry["segmentation"] = dict(result.mask_codes[place])
        if result.track_ids is not None:
            entry["track"] = int(result.track_ids[place])
        entries.append(entry)
    return entries


def people(result: Record, image_id: int) -> list[Entry]:
    """`keypoints` as x, y, confidence, to a thousandth of a pixel; `bbox`, of which the crop was made; `file_name`; of faces
    `angles_degrees`, null where they are unknown; and `track`, where there is one."""
    found = result.keypoints if result.keypoints is not None else result.points
    assert found is not None and result.boxes is not None and result.scores is not None
    file_name = result.frame.name if result.frame.path is None else result.frame.path.name
    entries: list[Entry] = []
    for place, triples in enumerate(found):
        corners = result.boxes[place]
        entry = {
            "image_id": image_id, "category_id": CATEGORY, "keypoints": rounded(triples),
            "score": float(result.scores[place]),
            "bbox": np.round([*corners[:2], *(corners[2:] - corners[:2])], 3).tolist(), "file_name": file_name,
        }  # fmt: skip
        if result.points is not None:
            angles = None if result.angles_degrees is None else result.angles_degrees[place]
            entry["angles_degrees"] = named_angles(angles)
        if result.track_ids is not None:
            entry["track"] = int(result.track_ids[place])
        entries.append(entry)
    return entries


def rounded(triples: Array) -> list[float]:
    """(K, 3) as a flat list: places to a thousandth of a pixel, confidences to 4 digits."""
    both = np.column_stack([np.round(triples[:, :2], 3), np.round(triples[:, 2:], 4)])
    flat: list[float] = both.ravel().tolist()
    return flat


def named_angles(angles: Array | None) -> dict[str, float] | None:
    if angles is None or not np.isfinite(angles).all():
        return None
    return {name: round(float(angle), 3) for name, angle in zip(ANGLES, angles, strict=True)}


def regions(result: Record, image_id: int) -> list[Entry]:
    """The pixels of each class that is there, as COCO-Stuff's results have them; without a score, which nobody knows."""
    assert result.ids is not None
    return [
        {
            "image_id": image_id,
            "category_id": result.file_ids.get(label, label),
            "segmentation": encode_mask(result.ids == label),
        }
        for label in np.unique(result.ids).tolist()
        if label < len(result.names)
    ]
