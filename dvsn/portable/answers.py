"""A frame through an exported file to a `Result`, one function an answer; each does what `dvsn.predict` does with torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from dvsn.errors import ConfigError, DataError
from dvsn.portable.bands import as_rgb
from dvsn.portable.boxes import SCORE, Boxes, given_boxes, whole_picture
from dvsn.portable.contract import Contract, Crop
from dvsn.portable.crop import (
    between_centres,
    crop_matrix,
    cut_square,
    face_corners,
    face_square,
    from_corner,
    head_degrees,
    invert,
    person_frame,
    square_matrix,
)
from dvsn.portable.engine import Engine
from dvsn.portable.frame import Frame
from dvsn.portable.instances import edges_beside
from dvsn.portable.memory import brightness, check_ids, to_bytes
from dvsn.portable.oks import oks_nms, rescore
from dvsn.portable.resize import make_steps, padded, read_size
from dvsn.portable.result import RankedClass, Result
from dvsn.portable.runs import encode_mask

Array = np.ndarray[Any, Any]
Options = Mapping[str, Any]

AS_CROPPED = 1.0  # the padding of a face that fills its picture: it shows what the network's crop shows
GROUP = 32  # crops that are asked about together


def reader(contract: Contract, size: str, path: Any) -> Any:
    """What makes a frame the input, uint8 (1, C, H, W), by the `size` option. Raises `ConfigError`, `CheckpointError`."""
    if size == "recipe":
        steps = make_steps(contract.resize, path)
    elif size == "keep":
        steps = make_steps((), path)
    else:
        height, width = read_size(size)
        steps = make_steps([{"_target_": "albumentations.Resize", "height": height, "width": width}], path)

    def read(frame: Frame) -> Array:
        wanted, found = (2 if contract.input_classes else 3), frame.picture.ndim
        if found != wanted:
            shape = "class ids (H, W)" if contract.input_classes else "RGB (H, W, 3)"
            raise DataError(f"{frame.name}: found an array of {found} axes, expected {shape}.")
        picture = frame.picture
        if contract.channels == 1 and not contract.input_classes:
            picture = brightness(picture)
        have = 1 if picture.ndim == 2 else picture.shape[2]
        if not contract.input_classes and have != contract.channels:
            raise DataError(f"{frame.name}: found {have} channels, expected {contract.channels}.")
        picture = steps(picture, contract.treated)
        if contract.input_classes:
            check_ids(picture, contract.input_classes)
        picture = to_bytes(picture)
        planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
        if contract.edges:
            planes = np.concatenate([planes, edges_beside(frame, picture.shape[:2])[None]])
        return planes[None]

    return read


# Pictures ----------------------------------------------------------------------------------------------


def of_picture(engine: Engine, contract: Contract, options: Options) -> Any:
    """Segmentation and pix2pix."""
    read = reader(contract, options["size"], engine.path)
    keeps = options["size"] == "keep"

    def answer(frame: Frame, image_id: int) -> Result:
        image = read(frame)
        height, width = image.shape[-2:]
        found = engine(padded(image, contract.multiple) if keeps else image)
        (made,) = found.values()
        made = made[0][..., :height, :width]
        picture = made.ndim == 3
        if picture:
            made = np.rint(np.clip(made, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
            made = made[..., 0] if made.shape[2] == 1 else made
        if options["original_size"] and made.shape[:2] != frame.size:
            how = cv2.INTER_CUBIC if picture else cv2.INTER_NEAREST
            made = cv2.resize(made, frame.size[::-1], interpolation=how)
        made, seen = np.ascontiguousarray(made), np.ascontiguousarray(shown(image, contract))
        if picture:
            return Result(kind=contract.kind, frame=frame, picture=made, seen=seen)
        return Result(
            kind=contract.kind, frame=frame, ids=made, names=contract.names, palette=contract.palette, seen=seen,
            file_ids=contract.file_ids or {},
        )  # fmt: skip

    return answer


def shown(image: Array, contract: Contract) -> Array:
    """The input (1, C, H, W) as RGB (H, W, 3)."""
    if contract.input_palette is not None:
        return contract.input_palette[image[0, 0]]
    return as_rgb(image[0].transpose(1, 2, 0), contract.bands)


def of_class(engine: Engine, contract: Contract, options: Options) -> Any:
    """Classification."""
    read, top = reader(contract, options["size"], engine.path), options["top"]

    def answer(frame: Frame, image_id: int) -> Result:
        (shares,) = engine.ask_all(read(frame)).values()
        best = np.argsort(-shares[0], kind="stable")[:top].tolist()
        ranked = [RankedClass(contract.names[number], number, float(shares[0][number])) for number in best]
        return Result(kind=contract.kind, frame=frame, names=contract.names, classes=ranked)

    return answer


def of_objects(engine: Engine, contract: Contract, options: Options) -> Any:
    """Detection."""
    score = options["score"]
    least = 0.0 if score is None else float(score)

    def answer(frame: Frame, image_id: int) -> Result:
        found = engine(np.ascontiguousarray(frame.picture.transpose(2, 0, 1))[None])
        scores = found["scores"].astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= least]
        codes = None
        if "masks" in found:
            codes = [encode_mask(found["masks"][place, 0] > 0.5) for place in order.tolist()]
        return Result(
            kind=contract.kind, frame=frame, names=contract.names, palette=contract.palette,
            boxes=found["boxes"].astype(np.float64)[order].reshape(-1, 4), scores=scores[order],
            labels=found["labels"][order].astype(np.int64), mask_codes=codes, image_id=image_id,
            file_ids=contract.file_ids or {}, shown_from=contract.shown_from if score is None else least,
        )  # fmt: skip

    return answer


# People and faces --------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """A crop as the network sees it."""

    image: Array
    """uint8 (3, H, W)."""
    inverse: Array
    """(2, 3) float32, from crop to picture."""
    offset: float
    """A point's coordinates minus the pixel in which it is drawn: see `from_corner`."""
    area: float
    """In pixels of the picture."""


def cut_out(photo: Array, box: Array, crop: Crop) -> Cut:
    """The crop of a box (x, y, width, height). Raises `DataError` for a box without an inside."""
    if crop.face:
        corner, side = face_square(*face_corners(box), crop.padding)
        seen = cut_square(photo, corner, side, crop.size)
        offset = 0.0 if crop.centred else from_corner(crop.size[1], float(side))
        matrix = between_centres(square_matrix(corner, side, crop.size))
        matrix[:, 2] += offset
        area = float(side) ** 2
    else:
        centre, extent = person_frame(box, crop.size, crop.padding)
        matrix = crop_matrix(centre, extent, crop.size, unbiased=crop.unbiased)
        seen = cv2.warpAffine(photo, matrix, crop.size[::-1], flags=cv2.INTER_LINEAR)
        offset, area = 0.0, float(np.prod(extent.astype(np.float32)))
    planes = np.ascontiguousarray(seen.transpose(2, 0, 1))
    return Cut(planes, invert(matrix).astype(np.float32), offset, area)


def of_points(engine: Engine, contract: Contract, options: Options) -> Any:
    """Pose and landmarks."""
    crop, joints = contract.crop, contract.joints
    if crop is None or joints is None:
        raise ConfigError(
            f"{engine.path}: knows no names of its keypoints, such as one of a converted checkpoint. Add the data set that "
            "it was trained on when it is converted, such as data=coco."
        )
    boxes, padding = options["boxes"], options["padding"]
    whole = boxes is None or (isinstance(boxes, str) and boxes == "image")
    if padding is None and crop.face and whole:
        padding = AS_CROPPED
    if padding is not None:
        crop = Crop(crop.face, crop.size, float(padding), crop.unbiased, crop.centred)
    one = "face" if crop.face else "person"
    known = None
    if not whole:
        least = SCORE if options["score"] is None else float(options["score"])
        known = given_boxes(boxes, least, options["category"], name=one)

    def answer(frame: Frame, image_id: int) -> Result:
        people = whole_picture(frame) if known is None else known
        try:
            cuts = [cut_out(frame.picture, box, crop) for box in people.boxes]
        except DataError as error:
            raise DataError(f"{frame.path or frame.name}: {error}") from error
        points, sure = _estimate(engine, cuts, len(joints))
        score = rescore(people.scores, sure)
        kept = np.argsort(-score, kind="stable")
        if not crop.face and contract.sigmas and len(score):
            area = np.array([each.area for each in cuts])
            kept = oks_nms(points, score, area, sigmas=contract.sigmas, threshold=float(options["nms"]))
        triples = np.concatenate([points, sure[..., None]], axis=-1).astype(np.float64)[kept]
        result = Result(
            kind=contract.kind, frame=frame, names=(one,), boxes=_corners(people)[kept], scores=score[kept],
            skeleton=joints, image_id=image_id, shown_from=float(options["joint_score"]),
            points=triples if crop.face else None, keypoints=None if crop.face else triples,
        )  # fmt: skip
        if crop.face and joints.head:
            turns = [
                head_degrees(
                    each[:, :2], cuts[number].inverse, crop.size, centred=crop.centred, head=joints.head
                )
                for each, number in zip(triples, kept.tolist(), strict=True)
            ]
            result.angles_degrees = np.array(turns, np.float64).reshape(-1, 3)
        return result

    return answer


def _estimate(engine: Engine, cuts: list[Cut], count: int) -> tuple[Array, Array]:
    """Points (N, K, 2) in pixels of the picture and confidences (N, K), float32."""
    places, sure = [np.zeros((0, count, 2), np.float32)], [np.zeros((0, count), np.float32)]
    for start in range(0, len(cuts), GROUP):
        group = cuts[start : start + GROUP]
        image = np.stack([each.image for each in group])
        offset = np.array([each.offset for each in group], np.float32)
        points, confidence = engine.ask_all(image, offset).values()
        inverse = np.stack([each.inverse for each in group])
        places.append(points @ inverse[:, :, :2].transpose(0, 2, 1) + inverse[:, None, :, 2])
        sure.append(confidence)
    return np.concatenate(places), np.concatenate(sure)


def _corners(people: Boxes) -> Array:
    corners = np.asarray(people.boxes, np.float64).reshape(-1, 4)
    return np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]])
